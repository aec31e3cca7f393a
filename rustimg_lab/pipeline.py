"""From a list of cells to a run: base images, builds, sizes, and whether each image does its job."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from rustimg_lab import (
    bases,
    build,
    capabilities,
    comparison,
    contents,
    disk,
    dockerfile,
    engine,
    host,
    packages,
    progress,
    registry,
    store,
    survival,
)
from rustimg_lab.build import Built
from rustimg_lab.errors import LabError
from rustimg_lab.matrix import BUILDER, App, Cell
from rustimg_lab.measure import anatomy, linking, probes, sizes, trials, working, workloads
from rustimg_lab.measure.studies import Planner
from rustimg_lab.store import Observation, Run

PROBED_WITH = "probed_with"  # the metric that has the images of a cell that was probed
MINIMUM_BLOCKS = 5  # before the width of an interval may end a study
SBOMS = "sboms"  # the folder of a run
TOOLS_BASE = "debian"  # what measures stands on this base, whichever the cells stand on


@dataclass(frozen=True)
class Request:
    """What a call asks for: the run of that name, of an app; where base images come from; the buildx builder (None for
    the engine's own); whom to tell; and what the user typed, which is recorded."""

    app: App
    run_name: str
    sources: bases.Sources
    builder: str | None
    console: Console
    command: str


@dataclass(frozen=True)
class Session:
    """What a call works with: a run that is open, the images that cells stand on, how to build, and whom to tell."""

    run: Run
    images: dict[str, bases.Provenance]
    builder: str | None
    ca: Path | None
    console: Console

    def say(self, text: str) -> None:
        """Prints a line of the lab's own."""
        self.console.print(f"lab: {text}", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Batch:
    """Cells of an app that are built together. Their Dockerfiles and logs go to that folder of the run's; `cold` as
    `build.BuildContext` has it."""

    cells: list[Cell]
    app: App
    folder: str = ""
    cold: bool = False


def run_grid(
    cells: list[Cell],
    app: App,
    run_name: str,
    *,
    study: tuple[list[Cell], Planner] | None = None,
    sources: bases.Sources,
    builder: str | None,
    console: Console,
    command: str = "",
) -> list[str]:
    """Builds and measures the cells into the run and returns a line on each cell that failed.

    Then comes `study`, of the app's server in cells of its own; where the machine or the run does not allow it, that is
    said, and is no failure. `command` is what the user typed, and is recorded. A cell whose image is the one measured
    before costs nothing. Raises LabError when the machine or the input does not allow a start; Ctrl-C leaves no
    container and a run that the same call continues.
    """
    studied, plan = study or ([], None)
    with_tools = studied or (cells if working.needs_tools(app) else [])
    request = Request(app, run_name, sources, builder, console, command)
    with _open(request, _bases_of(cells, with_tools)) as session:
        failures = _build_and_measure(Batch(cells, app), session)
        if plan:
            try:
                with engine.readable_errors():
                    _run_studies([Batch(studied, app.server, app.server.name)], session, plan, failures)
            except trials.PlanError as error:
                session.say(f"note: no study: {error}")
            except LabError as error:  # what was measured before is there, and has its report
                failures.append(f"study: {error}")
    return failures


def run_studies(
    cells: list[Cell],
    apps: list[App],
    run_name: str,
    plan: Planner,
    tools_name: str,
    *,
    cold: bool = False,
    sources: bases.Sources,
    builder: str | None,
    console: Console,
    command: str = "",
) -> list[str]:
    """Builds the cells of each app and runs the studies of them; returns a line on all that failed.

    `plan` gets the images of each app as treatments, the run, and the image of what measures, made by the name
    `tools_name` ("" for none). With `cold` the images are those that the cells are built in, as `build.build` has it.
    What the run has of a study already is not measured again. Raises LabError as `run_grid` does, and when the run has
    a study of that name with another plan.
    """
    bases_needed = _bases_of([], cells) if tools_name else _bases_of(cells, [])
    failures: list[str] = []
    with _open(Request(apps[0], run_name, sources, builder, console, command), bases_needed) as session:
        _run_studies([Batch(cells, app, app.name, cold) for app in apps], session, plan, failures, tools_name)
    return failures


def _run_studies(
    batches: list[Batch], session: Session, plan: Planner, failures: list[str], tools_name: str = "tools"
) -> None:
    """Builds the cells of each app, runs the studies, and adds a line to `failures` on all that failed."""
    tools = _tools(tools_name, session) if tools_name else ""
    built, failed = [], []
    for batch in batches:
        treatments, own = _build_treatments(batch, session, study=batch.app.name)
        built.append(treatments)
        failed += own
    if not built[0]:
        raise LabError(f"none of the cells could be built, so there is nothing to measure; {failed[0]}")
    failures += failed
    with closing(plan(built, session.run, tools)) as studies:  # some keep an engine of their own meanwhile
        for study, measure in studies:
            about = {key: value for key, value in study.parameters.items() if key != "warning"}
            told = ", ".join(f"{key} {value}" for key, value in about.items())
            session.say(f"study {study.name}: {told}; seed {study.seed}")
            if warning := study.parameters["warning"]:
                session.say(f"note: {warning}")
            with progress.trials(session.console) as on_trial:
                failures += trials.run_study(study, session.run, measure, on_trial, is_narrow)


def is_narrow(study: trials.Study, run: Run, blocks: int) -> bool:
    """Whether after so many blocks every comparison's 95% interval is narrower than was asked for."""
    if study.width is None or blocks < MINIMUM_BLOCKS:
        return False
    samples = comparison.samples(store.load(run.name), study.name, study.metric)
    found = comparison.compare(samples, study.baseline)
    return bool((found["high"] / found["low"] - 1 < study.width).all())


def run_probes(
    cells: list[Cell],
    apps: list[App],
    run_name: str,
    *,
    sources: bases.Sources,
    builder: str | None,
    console: Console,
    command: str = "",
) -> list[str]:
    """Builds the cells of the app, of its server where `apps` has one behind it, and of the program that probes; probes
    them into the run; and returns a line on all that could not be built, or probed. A probe that fails is none.

    What was probed before in the same images is not probed again. Raises LabError as `run_grid` does.
    """
    app, prober, server = apps[0], probes.load_app(), apps[1] if len(apps) > 1 else None
    failures: list[str] = []
    with _open(Request(app, run_name, sources, builder, console, command), _bases_of([], cells)) as session:
        tools = _tools("tools", session)
        made: list[dict[Cell, str]] = []
        for each in [*apps, prober]:
            batch = Batch(cells, each, "" if each == app else each.name)
            built, failed = _build_treatments(batch, session, survival.STUDY)
            made.append({treatment.cell: treatment.image for treatment in built})
            failures += failed
        ready = [cell for cell in cells if all(cell in images for images in made)]
        asked = [working.in_words(app)]
        if server and server.serve:
            asked.append(workloads.own(server).parameters()["asked"])
        limits_memory = capabilities.holds(session.run.environment, "limits_memory")
        before = survival.newest(store.load(session.run.name))
        (session.run.path / SBOMS).mkdir(exist_ok=True)
        with registry.serve() if host.registry_command() else nullcontext() as own_registry:
            for number, cell in enumerate(ready, 1):
                images = [each[cell] for each in made]
                told = Observation(PROBED_WITH, " ".join(images), detail="; ".join(asked))
                if _is_probed(cell, told, before):
                    continue
                session.say(f"probing {cell} ({number} of {len(ready)})")
                on, of_server = session.images.get(cell.base.name), images[1] if server else ""
                stand = {"base": on.digest if on else "", "tools": tools, "limits_memory": limits_memory}
                subject = probes.Subject(app, images[0], images[-1], server, of_server, **stand)
                rows, inventory = probes.measure(subject, own_registry)
                if inventory:
                    disk.write_whole(session.run.path / SBOMS / f"{cell.slug}.spdx.json", inventory)
                session.run.append(cell, subject.image, [*rows, told], study=survival.STUDY)
                failures += [f"{cell}: {row.metric}: {row.reason}" for row in rows if not row.ok]
    return failures


def _is_probed(cell: Cell, told: Observation, before: pd.DataFrame) -> bool:
    """Whether a cell's probes in `before` (`survival.newest`) are of these images, asked the same, and all made."""
    own = before[before["cell"] == cell.slug]
    last = own[own["metric"] == PROBED_WITH]
    return bool(own["ok"].all()) and last[["value", "detail"]].to_numpy().tolist() == [[told.value, told.detail]]


def _tools(name: str, session: Session) -> str:
    """The image of what measures that has this name, by its id."""
    base, rust = session.images[TOOLS_BASE].image, session.images[BUILDER].image
    return packages.make_tools(name, base, rust, session.say, session.ca).id


@contextmanager
def _open(request: Request, base_names: list[str]) -> Iterator[Session]:
    """The run, open for writing, with its base images; no container of ours is left afterwards."""
    engine.client()
    with store.open_run(request.run_name, host.machine()) as run, engine.readable_errors():
        sources = _going_on(request.sources, run)
        session = Session(run, {}, request.builder, host.ca_bundle(), request.console)
        host.prepare(session.say)
        engine.remove_containers()  # what a lab that was killed has left
        try:
            for name in [BUILDER, *base_names]:
                if found := bases.resolve(name, sources, session.say, session.ca):
                    session.images[name] = found
                    session.say(str(found))
                if name == BUILDER:
                    _try_engine(session)
            _remember(session, request)
            yield session
        finally:
            engine.remove_containers()


def _try_engine(session: Session) -> None:
    """Tries what the engine can do and records it; says what that leaves out of the measurements."""
    try:
        found = capabilities.detect(session.images[BUILDER].image)
    except LabError as error:
        session.say(f"note: what the engine can do could not be tried ({error}); the lab takes it for granted")
        return
    session.run.save_environment(capabilities=found.as_dict())
    for name, seen, loss in capabilities.lost(found):
        if loss:
            session.say(f"note: {name}: {seen}; {loss}")


def _bases_of(cells: list[Cell], studied: list[Cell]) -> list[str]:
    """The names of the bases that are needed, with the one that what measures stands on."""
    names = [cell.base.name for cell in (*cells, *studied)]
    return list(dict.fromkeys([*names, TOOLS_BASE] if studied else names))


def _build_treatments(batch: Batch, session: Session, study: str) -> tuple[list[trials.Treatment], list[str]]:
    """The images of a batch as treatments, in the order of its cells, and a line on each that there is none of, which
    is a row of `study` too."""
    made, failures = {}, []
    with _building(batch, session) as outcomes:
        for built in outcomes:
            _keep_dockerfile(built, batch, session)
            if reason := built.reason or _not_as_asked(built, session.images):
                failed = Observation("built", False, ok=False, reason=reason)
                session.run.append(built.cell, built.image, [failed], study=study)
                failures.append(f"{batch.app.name} {built.cell.slug}: {reason}")
            else:
                made[built.cell] = trials.Treatment(built.cell, built.image, built.cell.slug)
    return [made[cell] for cell in batch.cells if cell in made], failures


@contextmanager
def _building(batch: Batch, session: Session) -> Iterator[Iterator[Built]]:
    """The cells of a batch as they are built."""
    logs, images, builder = session.run.path / "logs" / batch.folder, session.images, session.builder
    logs.mkdir(exist_ok=True)
    if not host.sees_engine(builder):
        images = {name: image.for_builder(builder) for name, image in images.items()}
    binaries = list(dict.fromkeys(cell.binary for cell in batch.cells))
    with engine.work_folder() as work, progress.building(binaries, session.console) as on_step:
        context = build.BuildContext(batch.app, images, logs, work, builder, session.ca, batch.cold, on_step)
        with closing(build.build(batch.cells, context)) as outcomes:
            yield outcomes


def _keep_dockerfile(built: Built, batch: Batch, session: Session) -> None:
    texts = session.run.path / "dockerfiles" / batch.folder
    texts.mkdir(exist_ok=True)
    text = dockerfile.render(built.cell, batch.app, session.images[BUILDER].toolchain(built.cell.debian))
    disk.write_whole(texts / f"Dockerfile.{built.cell.slug}", text)


def _not_as_asked(built: Built, images: dict[str, bases.Provenance]) -> str:
    """Why an image is not what the cell says, or cannot start on its base; "" when it is and can."""
    if reason := sizes.not_as_asked(sizes.linked_allocator(built.linked), built.cell.allocator):
        return reason
    return linking.measure_base(built.linked, images.get(built.cell.base.name)).reason


def _going_on(sources: bases.Sources, run: Run) -> bases.Sources:
    """The sources, with what the run has recorded of them. Raises LabError when it is on another Debian release."""
    recorded = run.environment
    if (before := recorded.get("debian", sources.debian)) != sources.debian:
        raise LabError(
            f"run '{run.name}' was begun on Debian {before}, not {sources.debian}: choose a new one with --run NAME, "
            f"or go on with --debian {before}"
        )
    known = {name: recorded["images"][digest] for name, digest in recorded.get("bases", {}).items()}
    return replace(sources, recorded=known)


def _remember(session: Session, request: Request) -> None:
    """Records what the run is of, and what it was called with. Raises LabError when it was begun with another app."""
    run, images, app, command = session.run, session.images, request.app, request.command
    if (before := run.environment.get("app", {}).get("name", app.package)) != app.package:
        raise LabError(
            f"run '{run.name}' is of {before}, not of {app.package}: choose another with --run NAME, or name the app "
            "with --app PATH"
        )
    known = run.environment["images"] | {image.digest: image.as_dict() for image in images.values()}
    now = run.environment.get("bases", {}) | {name: image.digest for name, image in images.items()}
    commands = run.environment.get("commands", [])
    run.save_environment(
        commands=[*commands, command] if command and command not in commands else commands,
        images=known,
        bases=now,
        debian=request.sources.debian,
        app={"name": app.package, "lockfile_sha256": app.lock_sha256},
        tools={"buildx": host.buildx_version(), "lab": host.lab()},
    )


def _build_and_measure(batch: Batch, session: Session) -> list[str]:
    app, failures = batch.app, []
    measured = _measured(session.run, app)
    tools = _tools("tools", session) if working.needs_tools(app) else ""
    with (
        registry.serve() if host.registry_command() else nullcontext() as own_registry,
        _building(batch, session) as outcomes,
    ):
        for built in outcomes:
            if built.image and (built.cell.slug, built.image) in measured:
                continue
            _keep_dockerfile(built, batch, session)
            _weigh(session.images.get(built.cell.base.name), session.run)
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
        run.save_environment(package_bytes=known | {base.digest: contents.package_bytes(base.digest)})


def _observe(
    built: Built, app: App, images: dict[str, bases.Provenance], own_registry: registry.Registry | None, tools: str
) -> list[Observation]:
    """All that is to know of a built cell: `runs` last, which says that the rest is there too."""
    base = images.get(built.cell.base.name)
    base_id = base.digest if base else ""
    rows = [Observation("base_digest", base_id), Observation("builder_digest", images[BUILDER].digest)]
    if built.reason:
        return [*rows, Observation("built", False, ok=False, reason=built.reason)]
    rows += [
        Observation("binary_sha256", disk.sha256(built.shipped)),
        Observation("build_cpu_s", built.cpu_s, "s"),
        Observation("unstable", built.cell.profile.unstable),
        *sizes.measure_binary(built.linked, built.shipped, built.cell.allocator),
        *anatomy.measure_parts(built.linked, built.shipped, built.symbols),
        satisfied := linking.measure_base(built.linked, base),
    ]
    if satisfied.ok:
        rows += sizes.measure_image(built.image, base_id or None, own_registry)
        rows.append(working.measure_runs(built.image, app, tools))
    return rows


def _measured(run: Run, app: App) -> set[tuple[str, str]]:
    """The cells, with their images, that need no second look."""
    rows = store.current(store.load(run.name))
    bad = set(rows.loc[~rows["ok"], "cell"])
    whole = set(rows.loc[rows["metric"] == "compressed_zstd_bytes", "cell"])  # which earlier labs did not measure
    done = rows[(rows["metric"] == "runs") & rows["cell"].isin(whole) & ~rows["cell"].isin(bad)]
    done = done[done["detail"] == working.in_words(app)]
    return set(zip(done["cell"], done["image"], strict=True))
