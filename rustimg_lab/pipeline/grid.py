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
    """Build and measure the cells into the run, and return a line on each cell that failed.

    Then run `study`, of the app's server in cells of its own. If the machine or the run does not allow it, that is
    printed, and is no failure. A cell whose image was measured before is not measured again. Raises LabError when the
    machine or the input does not allow a start. After Ctrl-C no container is left, and the same call resumes the run.
    """
    app, (study_cells, plan) = request.app, study or ([], None)
    with open_session(request, [*cells, *study_cells], bool(study_cells) or smoke.needs_tools(app)) as session:
        runs.refuse_mixed(session.run, cells)
        failures = _build_and_measure(Batch(cells, app), session)
        if plan and app.is_measured:  # what is measured is the program that was checked
            working_slugs = set(cell_table(runs.load(session.run.name)).query("ok")["cell"])
            study_cells = [cell for cell in study_cells if cell.slug in working_slugs]
        if plan and not study_cells:
            session.say("note: no study: none of its cells works")
        elif plan:
            try:
                with client.readable_errors():
                    studies.run_planned([Batch(study_cells, app.server, app.server.name)], session, plan, failures)
            except PlanError as error:
                session.say(f"note: no study: {error}")
            except LabError as error:  # what was measured before is there, and has its report
                failures.append(f"study: {error}")
    return failures


def _build_and_measure(batch: Batch, session: Session) -> list[str]:
    app, failures = batch.app, []
    measured_pairs = _measured_images(session.run, app)
    tools = make_tools("tools", session) if smoke.needs_tools(app) else ""
    cache = kept_images(runs.load(session.run.name, whole=True).rows, measured_pairs)
    own_registry = None
    with ExitStack() as stack, building(batch, session, cache) as outcomes:
        for built in outcomes:
            if built.image and (built.cell.slug, built.image) in measured_pairs:
                continue
            if not own_registry and registry_command():  # not before: where nothing is new, nothing is pushed
                own_registry = stack.enter_context(local_registry.serve())
            keep_dockerfile(built, batch, session)
            _weigh(session.images.get(built.cell.images[0]), session.run)
            observations = _observe(built, app, session.images, own_registry, tools)
            session.run.append(built.cell, built.image, observations)
            for observation in (row for row in observations if not row.ok):
                failures.append(f"{built.cell.slug}: {observation.reason}")
                session.say(f"FAILED {failures[-1]}")
    return failures


def _weigh(base: bases.Provenance | None, run: Run) -> None:
    """Records, once per base image, how many bytes each of its packages has."""
    package_bytes = run.environment.get("package_bytes", {})
    if base and base.digest not in package_bytes:
        run.save_environment(package_bytes=package_bytes | {base.digest: package_db.package_bytes(base.digest)})


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
    if input_text := inputs.in_words(app):
        rows.append(Observation(metrics.BUILD_INPUT, input_text))
    if built.reason:
        return [*rows, Observation(metrics.BUILT, False, ok=False, reason=built.reason)]
    rows += [
        Observation(metrics.MADE_OF, built.inputs_digest),
        Observation(metrics.SOURCES, built.sources.removeprefix("context-")),
        Observation(metrics.SETTINGS, _settings(app)),
        Observation(metrics.BINARY_SHA256, files.sha256(built.shipped)),
        Observation(metrics.BUILD_CPU_S, built.cpu_s),
        Observation(metrics.UNSTABLE, built.cell.profile.unstable),
        *binary.measure_binary(built.linked, built.shipped, built.cell.allocator, app.configuration.toolchain),
        *bloat.measure_parts(built.linked, built.shipped, built.symbols),
        base_row := abi.measure_base(built.linked, base),
    ]
    if base_row.ok:
        rows += image.measure_image(built.image, base_id or None, own_registry)
        rows.append(smoke.measure_runs(built.image, app, tools, built.cell.architecture is not NATIVE))
    return rows


def _settings(app: App) -> str:
    """Return a digest of the settings by which builds and images are made. What the sources say themselves, and what is
    done with an image, is not in it."""
    source_fields = {"directory": Path(), "date": 0, "lock_sha256": "", "configuration": Configuration()}
    build_app = replace(app, **source_fields, check=None, serve=None, work=None, services=())
    return hashlib.sha256(repr(build_app).encode(errors="surrogateescape")).hexdigest()[:16]


def _measured_images(run: Run, app: App) -> set[tuple[str, str]]:
    """The cells, with their images, that need no second look."""
    rows = runs.newest_rows(runs.load(run.name, whole=True))
    failed_cells = set(rows.loc[~rows["ok"], "cell"])
    cells = set(rows.loc[rows["metric"] == metrics.COMPRESSED_ZSTD_BYTES, "cell"])  # which earlier labs did not measure
    checks = rows[(rows["metric"] == metrics.RUNS) & rows["cell"].isin(cells) & ~rows["cell"].isin(failed_cells)]
    native_words, emulated_words = (smoke.in_words(app, is_emulated) for is_emulated in (False, True))
    details = checks["detail"].str.replace(smoke.ANY_PATH, "", regex=False)
    checks = checks[
        details == checks["architecture"].map(lambda name: native_words if name == NATIVE.value else emulated_words)
    ]
    return set(zip(checks["cell"], checks["image"], strict=True))
