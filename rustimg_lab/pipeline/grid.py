"""Cells -> a run: builds, sizes, and whether each image passes its check."""

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rustimg_lab.analysis.cells import cell_table
from rustimg_lab.build import bases, inputs, package_db
from rustimg_lab.build.bake import Built
from rustimg_lab.engine import client, local_registry
from rustimg_lab.errors import LabError
from rustimg_lab.host import files
from rustimg_lab.host.tools import registry_command
from rustimg_lab.measure import abi, binary, bloat, image, smoke
from rustimg_lab.measure.plan import PlanError
from rustimg_lab.model import metrics
from rustimg_lab.model.app import App, Configuration
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.matrix import Cell
from rustimg_lab.pipeline import studies
from rustimg_lab.pipeline.planner import Planner
from rustimg_lab.pipeline.session import (
    Batch,
    Request,
    Session,
    building,
    keep_dockerfile,
    kept_images,
    make_tools,
    open_session,
)
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation
from rustimg_lab.store.runs import Run


def run_grid(request: Request, cells: list[Cell], study: tuple[list[Cell], Planner] | None = None) -> list[str]:
    """Builds and measures the cells into the run and returns a line on each cell that failed. What the run has costs
    nothing. Then comes `study`, of the app's server in cells of its own, where machine and run allow it. Raises
    LabError when they do not allow a start; Ctrl-C leaves no container and a run that the same call continues."""
    app, (studied, plan) = request.app, study or ([], None)
    with open_session(request, [*cells, *studied], bool(studied) or smoke.needs_tools(app)) as session:
        runs.refuse_mixed(session.run, cells)
        failures = _build_and_measure(Batch(cells, app), session)
        if plan and app.is_measured:  # what is measured is the program that was checked
            works = set(cell_table(runs.load(session.run.name)).query("ok")["cell"])
            studied = [cell for cell in studied if cell.slug in works]
        if plan and not studied:
            session.say("note: no study: none of its cells works")
        elif plan:
            try:
                with client.readable_errors():
                    studies.run_planned([Batch(studied, app.server, app.server.name)], session, plan, failures)
            except PlanError as error:
                session.say(f"note: no study: {error}")
            except LabError as error:  # what was measured before is there, and has its report
                failures.append(f"study: {error}")
    return failures


def _build_and_measure(batch: Batch, session: Session) -> list[str]:
    app, failures = batch.app, []
    measured = _measured(session.run, app)
    tools = make_tools("tools", session) if smoke.needs_tools(app) else ""
    kept = kept_images(runs.load(session.run.name, whole=True).rows, measured)
    own_registry = None
    with ExitStack() as started, building(batch, session, kept) as outcomes:
        for built in outcomes:
            if built.image and (built.cell.slug, built.image) in measured:
                continue
            if not own_registry and registry_command():  # not before: where nothing is new, nothing is pushed
                own_registry = started.enter_context(local_registry.serve())
            keep_dockerfile(built, batch, session)
            _weigh(session.images.get(built.cell.images[0]), session.run)
            observations = _observe(built, app, session.images, own_registry, tools)
            session.run.append(built.cell, built.image, observations)
            for bad in (o for o in observations if not o.ok):
                failures.append(f"{built.cell.slug}: {bad.reason}")
                session.say(f"FAILED {failures[-1]}")
    return failures


def _weigh(base: bases.Provenance | None, run: Run) -> None:
    """Records, once per base image, how many bytes each of its packages has."""
    known = run.environment.get("package_bytes", {})
    if base and base.digest not in known:
        run.save_environment(package_bytes=known | {base.digest: package_db.package_bytes(base.digest)})


def _observe(
    built: Built,
    app: App,
    images: dict[str, bases.Provenance],
    own_registry: local_registry.Registry | None,
    tools: str,
) -> list[Observation]:
    """All that is to know of a built cell: `runs` last, which says that the rest is there too."""
    base, builder = map(images.get, built.cell.images)
    base_id = base.digest if base else ""
    rows = [Observation(metrics.BASE_DIGEST, base_id)]
    rows += [Observation(metrics.BUILDER_DIGEST, builder.digest)] if builder else []
    if given := inputs.in_words(app):
        rows.append(Observation(metrics.BUILD_INPUT, given))
    if built.reason:
        return [*rows, Observation(metrics.BUILT, False, ok=False, reason=built.reason)]
    rows += [
        Observation(metrics.MADE_OF, built.made_of),
        Observation(metrics.SOURCES, built.sources.removeprefix("context-")),
        Observation(metrics.SETTINGS, _settings(app)),
        Observation(metrics.BINARY_SHA256, files.sha256(built.shipped)),
        Observation(metrics.BUILD_CPU_S, built.cpu_s),
        Observation(metrics.UNSTABLE, built.cell.profile.unstable),
        *binary.measure_binary(built.linked, built.shipped, built.cell.allocator, app.configuration.toolchain),
        *bloat.measure_parts(built.linked, built.shipped, built.symbols),
        satisfied := abi.measure_base(built.linked, base),
    ]
    if satisfied.ok:
        rows += image.measure_image(built.image, base_id or None, own_registry)
        rows.append(smoke.measure_runs(built.image, app, tools, built.cell.architecture is not NATIVE))
    return rows


def _settings(app: App) -> str:
    """A digest of how builds and images are made, but for what the sources say and what is done with an image."""
    of_sources = {"directory": Path(), "date": 0, "lock_sha256": "", "configuration": Configuration()}
    how = replace(app, **of_sources, check=None, serve=None, work=None, services=())
    return hashlib.sha256(repr(how).encode(errors="surrogateescape")).hexdigest()[:16]


def _measured(run: Run, app: App) -> set[tuple[str, str]]:
    """The cells, with their images, that need no second look."""
    rows = runs.current(runs.load(run.name, whole=True))
    bad = set(rows.loc[~rows["ok"], "cell"])
    whole = set(rows.loc[rows["metric"] == metrics.COMPRESSED_ZSTD_BYTES, "cell"])  # which earlier labs did not measure
    done = rows[(rows["metric"] == metrics.RUNS) & rows["cell"].isin(whole) & ~rows["cell"].isin(bad)]
    own, emulated = (smoke.in_words(app, each) for each in (False, True))
    said = done["detail"].str.replace(smoke.ANY_PATH, "", regex=False)
    done = done[said == done["architecture"].map(lambda name: own if name == NATIVE.value else emulated)]
    return set(zip(done["cell"], done["image"], strict=True))
