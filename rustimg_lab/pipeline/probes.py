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
    """Build the cells of the app, of its `server` and of the probe program, and probe them into the run. Returns a line
    on each cell or probe that could not be built or run; a probe that fails is a result. What was probed before in
    equal images is not probed again. Raises LabError as `run_grid` does."""
    app, programs, failures = request.app, [request.app, *([server] if server else []), runner.load_app()], []
    with open_session(request, cells, with_tools=True) as session:
        tools = make_tools("tools", session)
        image_maps: list[dict[Cell, str]] = []
        for program in programs:
            batch = Batch(cells, program, "" if program == app else program.name)
            treatments, messages = build_treatments(batch, session, probes.STUDY)
            image_maps.append({treatment.cell: treatment.image for treatment in treatments})
            failures += messages
        ready_cells = [cell for cell in cells if all(cell in images for images in image_maps)]
        questions = [smoke.in_words(app)]
        if server and server.serve:
            questions.append(workloads.app_workload(server).parameters()["asked"])
        limits_memory = capabilities.has_ability(session.run.environment, "limits_memory")
        earlier_rows = robustness.newest(runs.load(session.run.name, whole=True))
        (session.run.path / SBOMS).mkdir(exist_ok=True)
        with local_registry.serve() if registry_command() else nullcontext() as own_registry:
            for number, cell in enumerate(ready_cells, 1):
                images = [program_images[cell] for program_images in image_maps]
                stamp = Observation(metrics.PROBED_WITH, " ".join(images), detail="; ".join(questions))
                if _is_probed(cell, stamp, earlier_rows):
                    continue
                session.say(f"probing {cell} ({number} of {len(ready_cells)})")
                base, server_image = session.images.get(cell.images[0]), images[1] if server else ""
                subject_options = {"base": base.digest if base else "", "tools": tools, "limits_memory": limits_memory}
                subject_options |= {"architecture": cell.architecture}
                subject = runner.Subject(app, images[0], images[-1], server, server_image, **subject_options)
                rows, inventory = runner.measure(subject, own_registry)
                if inventory:
                    files.write_whole(session.run.path / SBOMS / f"{cell.slug}.spdx.json", inventory)
                session.run.append(cell, subject.image, [*rows, stamp], study=probes.STUDY)
                failures += [f"{cell}: {row.metric}: {row.reason}" for row in rows if not row.ok]
    return failures


def _is_probed(cell: Cell, stamp: Observation, earlier_rows: pd.DataFrame) -> bool:
    """Return whether all probes of a cell in `earlier_rows` (`robustness.newest`) were made, on these images and with
    these checks."""
    rows = earlier_rows[earlier_rows["cell"] == cell.slug]
    stamps = rows[rows["metric"] == metrics.PROBED_WITH]
    return bool(rows["ok"].all()) and stamps[["value", "detail"]].to_numpy().tolist() == [[stamp.value, stamp.detail]]
