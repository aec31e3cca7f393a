"""Probes of a run: images are built and probed, and what was probed before is not probed again."""

from contextlib import nullcontext

import pandas as pd

from rustimg_lab.analysis import robustness
from rustimg_lab.engine import capabilities, local_registry
from rustimg_lab.host import files
from rustimg_lab.host.tools import registry_command
from rustimg_lab.measure import smoke, workloads
from rustimg_lab.measure.probes import runner
from rustimg_lab.model import metrics, probes
from rustimg_lab.model.app import App
from rustimg_lab.model.matrix import Cell
from rustimg_lab.pipeline.session import Batch, Request, build_treatments, make_tools, open_session
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

SBOMS = "sboms"  # the folder of a run


def run_probes(request: Request, cells: list[Cell], server: App | None) -> list[str]:
    """Builds the cells of the app, of its `server` if any, and of the program that probes; probes them into the run;
    and returns a line on all that could not be built or probed. A failed probe is none. What was probed in the same
    images is kept. Raises LabError as `run_grid`."""
    app, programs, failures = request.app, [request.app, *([server] if server else []), runner.load_app()], []
    with open_session(request, cells, with_tools=True) as session:
        tools = make_tools("tools", session)
        made: list[dict[Cell, str]] = []
        for each in programs:
            batch = Batch(cells, each, "" if each == app else each.name)
            built, failed = build_treatments(batch, session, probes.STUDY)
            made.append({treatment.cell: treatment.image for treatment in built})
            failures += failed
        ready = [cell for cell in cells if all(cell in images for images in made)]
        asked = [smoke.in_words(app)]
        if server and server.serve:
            asked.append(workloads.own(server).parameters()["asked"])
        limits_memory = capabilities.holds(session.run.environment, "limits_memory")
        before = robustness.newest(runs.load(session.run.name, whole=True))
        (session.run.path / SBOMS).mkdir(exist_ok=True)
        with local_registry.serve() if registry_command() else nullcontext() as own_registry:
            for number, cell in enumerate(ready, 1):
                images = [each[cell] for each in made]
                told = Observation(metrics.PROBED_WITH, " ".join(images), detail="; ".join(asked))
                if _is_probed(cell, told, before):
                    continue
                session.say(f"probing {cell} ({number} of {len(ready)})")
                on, of_server = session.images.get(cell.images[0]), images[1] if server else ""
                stand = {"base": on.digest if on else "", "tools": tools, "limits_memory": limits_memory}
                stand |= {"architecture": cell.architecture}
                subject = runner.Subject(app, images[0], images[-1], server, of_server, **stand)
                rows, inventory = runner.measure(subject, own_registry)
                if inventory:
                    files.write_whole(session.run.path / SBOMS / f"{cell.slug}.spdx.json", inventory)
                session.run.append(cell, subject.image, [*rows, told], study=probes.STUDY)
                failures += [f"{cell}: {row.metric}: {row.reason}" for row in rows if not row.ok]
    return failures


def _is_probed(cell: Cell, told: Observation, before: pd.DataFrame) -> bool:
    """Whether a cell's probes in `before` (`robustness.newest`) are of these images, asked the same, and all made."""
    own = before[before["cell"] == cell.slug]
    last = own[own["metric"] == metrics.PROBED_WITH]
    return bool(own["ok"].all()) and last[["value", "detail"]].to_numpy().tolist() == [[told.value, told.detail]]
