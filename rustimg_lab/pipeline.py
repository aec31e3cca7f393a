"""From a list of cells to a run: base images, builds, sizes, and whether each image does its job."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from rustimg_lab import bases, build, disk, dockerfile, engine, host, packages, progress, registry, store
from rustimg_lab.build import Built
from rustimg_lab.errors import LabError
from rustimg_lab.matrix import BUILDER, App, Cell
from rustimg_lab.measure import linking, probes, sizes, trials
from rustimg_lab.store import Observation, Run

Studies = Iterator[tuple[trials.Study, trials.Measure]]
TOOLS_BASE = "debian"  # what measures stands on this base, whichever the cells stand on


def run_grid(
    cells: list[Cell],
    app: App,
    run_name: str,
    *,
    sources: bases.Sources,
    builder: str | None,
    console: Console,
) -> list[str]:
    """Builds and measures the cells into the run and returns a line on each cell that failed.

    A cell whose image is the one measured before costs nothing. Raises LabError when the machine or the input does not
    allow a start; Ctrl-C leaves no container and a run that the same call continues.
    """
    say = _speaker(console)
    with _open(run_name, sources, say) as (run, sources):
        ca = host.ca_bundle()
        images = _base_images(_bases_of(cells), sources, ca, say)
        _remember(run, app, sources, images)
        return _build_and_measure(cells, app, images, run, builder, ca, console, say)


def run_studies(
    cells: list[Cell],
    apps: list[App],
    run_name: str,
    plan: Callable[[list[list[trials.Treatment]], Run, str], Studies],
    *,
    sources: bases.Sources,
    builder: str | None,
    console: Console,
) -> list[str]:
    """Builds the cells of each app and runs the studies of them; returns a line on all that failed.

    `plan` gets the images of each app as treatments, the run, and the image of what measures. What the run has of a
    study already is not measured again. Raises LabError as `run_grid` does, and when the run has a study of that name
    with another plan.
    """
    say = _speaker(console)
    failures = []
    with _open(run_name, sources, say) as (run, sources):
        ca = host.ca_bundle()
        images = _base_images(_bases_of(cells, TOOLS_BASE), sources, ca, say)
        _remember(run, apps[0], sources, images)
        tools = packages.make_tools(images[TOOLS_BASE].image, images[BUILDER].image, say, ca)
        built = []
        for app in apps:
            treatments, failed = _build_treatments(cells, app, images, run, builder, ca, console)
            built.append(treatments)
            failures += failed
        for study, measure in plan(built, run, tools.id):
            about = {key: value for key, value in study.parameters.items() if key != "warning"}
            say(f"study {study.name}: {', '.join(f'{key} {value}' for key, value in about.items())}; seed {study.seed}")
            if warning := study.parameters["warning"]:
                say(f"note: {warning}")
            with progress.trials(console) as on_trial:
                failures += trials.run_study(study, run, measure, on_trial)
    return failures


@contextmanager
def _open(run_name: str, sources: bases.Sources, say: Callable[[str], None]) -> Iterator[tuple[Run, bases.Sources]]:
    """The run, open for writing, and the sources that it goes on with; no container of ours is left afterwards."""
    engine.client()
    with store.open_run(run_name, host.machine()) as run, engine.readable_errors():
        sources = _going_on(sources, run)
        host.prepare(say)
        engine.remove_containers()  # what a lab that was killed has left
        try:
            yield run, sources
        finally:
            engine.remove_containers()


def _speaker(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(f"lab: {text}", markup=False, highlight=False, soft_wrap=True)


def _bases_of(cells: list[Cell], *others: str) -> list[str]:
    return list(dict.fromkeys((*(cell.base.name for cell in cells), *others)))


def _build_treatments(
    cells: list[Cell],
    app: App,
    images: dict[str, bases.Provenance],
    run: Run,
    builder: str | None,
    ca: Path | None,
    console: Console,
) -> tuple[list[trials.Treatment], list[str]]:
    """The images of an app as treatments, in the order of `cells`, and a line on each that there is none of."""
    logs, texts = run.path / "logs" / app.name, run.path / "dockerfiles" / app.name
    logs.mkdir(exist_ok=True)
    texts.mkdir(exist_ok=True)
    made, failures = {}, []
    binaries = list(dict.fromkeys(cell.binary for cell in cells))
    with (
        engine.work_folder() as work,
        progress.building(binaries, console) as on_step,
        closing(build.build(cells, app, images, logs, work, builder=builder, ca=ca, on_step=on_step)) as outcomes,
    ):
        for built in outcomes:
            toolchain = images[BUILDER].toolchain(built.cell.debian)
            text = dockerfile.render(built.cell, app, toolchain)
            disk.write_whole(texts / f"Dockerfile.{built.cell.slug}", text)
            reason = built.reason or _not_as_asked(built, images)
            if reason:
                failed = Observation("built", False, ok=False, reason=reason)
                run.append(built.cell, built.image, [failed], study=app.name)
                failures.append(f"{app.name} {built.cell.slug}: {reason}")
            else:
                made[built.cell] = trials.Treatment(built.cell, built.image, built.cell.slug)
    return [made[cell] for cell in cells if cell in made], failures


def _not_as_asked(built: Built, images: dict[str, bases.Provenance]) -> str:
    """Why an image is not what the cell says, or cannot start on its base; "" when it is and can."""
    allocator = sizes.linked_allocator(built.linked)
    if allocator != built.cell.allocator:
        return f"asked for {built.cell.allocator}, the linker kept {allocator}"
    return linking.measure_base(built.shipped, images.get(built.cell.base.name)).reason


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


def _base_images(
    wanted: list[str], sources: bases.Sources, ca: Path | None, say: Callable[[str], None]
) -> dict[str, bases.Provenance]:
    images = {}
    for name in [BUILDER, *wanted]:
        if found := bases.resolve(name, sources, say, ca):
            images[name] = found
            say(str(found))
    return images


def _remember(run: Run, app: App, sources: bases.Sources, images: dict[str, bases.Provenance]) -> None:
    known = run.environment["images"] | {image.digest: image.as_dict() for image in images.values()}
    now = run.environment.get("bases", {}) | {name: image.digest for name, image in images.items()}
    run.save_environment(
        images=known,
        bases=now,
        debian=sources.debian,
        app={"name": app.package, "lockfile_sha256": app.lock_sha256},
        tools={"buildx": host.buildx_version()},
    )


def _build_and_measure(
    cells: list[Cell],
    app: App,
    images: dict[str, bases.Provenance],
    run: Run,
    builder: str | None,
    ca: Path | None,
    console: Console,
    say: Callable[[str], None],
) -> list[str]:
    failures = []
    measured = _measured(run)
    binaries = list(dict.fromkeys(cell.binary for cell in cells))
    with (
        engine.work_folder() as work,
        registry.serve() if host.registry_command() else nullcontext() as own_registry,
        progress.building(binaries, console) as on_step,
        closing(
            build.build(cells, app, images, run.path / "logs", work, builder=builder, ca=ca, on_step=on_step)
        ) as outcomes,
    ):
        for built in outcomes:
            if built.image and (built.cell.slug, built.image) in measured:
                continue
            text = dockerfile.render(built.cell, app, images[BUILDER].toolchain(built.cell.debian))
            disk.write_whole(run.path / "dockerfiles" / f"Dockerfile.{built.cell.slug}", text)
            observations = _observe(built, images, own_registry)
            run.append(built.cell, built.image, observations)
            for bad in (o for o in observations if not o.ok):
                failures.append(f"{built.cell.slug}: {bad.reason}")
                say(f"FAILED {failures[-1]}")
    return failures


def _observe(
    built: Built, images: dict[str, bases.Provenance], own_registry: registry.Registry | None
) -> list[Observation]:
    """All that is to know of a built cell: `runs` last, which says that the rest is there too."""
    base = images.get(built.cell.base.name)
    made_of = [
        Observation("base_digest", base.digest if base else ""),
        Observation("builder_digest", images[BUILDER].digest),
    ]
    if built.reason:
        return [*made_of, Observation("built", False, ok=False, reason=built.reason)]
    made_of += [
        Observation("binary_sha256", disk.sha256(built.shipped)),
        Observation("build_cpu_s", built.cpu_s, "s"),
        *sizes.measure_binary(built.linked, built.shipped, built.cell.allocator),
        (satisfied := linking.measure_base(built.shipped, base)),
    ]
    if not satisfied.ok:
        return made_of
    return [
        *made_of,
        *sizes.measure_image(built.image, base.digest if base else None, own_registry),
        probes.measure_runs(built.image),
    ]


def _measured(run: Run) -> set[tuple[str, str]]:
    """The cells, with their images, that need no second look."""
    rows = store.current(store.load(run.name))
    bad = set(rows.loc[~rows["ok"], "cell"])
    done = rows[(rows["metric"] == "runs") & ~rows["cell"].isin(bad)]
    return set(zip(done["cell"], done["image"], strict=True))
