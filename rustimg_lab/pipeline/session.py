"""What every call of the lab works with: a run that is open, base images, tools, and cells being built."""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

import pandas as pd
from rich.console import Console

from rustimg_lab.build import bake, bases, inputs, lab_toml, mmdebstrap
from rustimg_lab.build.bake import Built
from rustimg_lab.engine import capabilities, client, containers, doctor, emulation
from rustimg_lab.engine.images import find_image
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine, process, tools
from rustimg_lab.measure import abi, binary, plan, services
from rustimg_lab.model import metrics
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.bases import BUILDER
from rustimg_lab.model.matrix import Cell
from rustimg_lab.model.names import of_image
from rustimg_lab.paths import APPS, SHARE
from rustimg_lab.pipeline import progress
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation
from rustimg_lab.store.runs import Run

TOOLS_BASE = "debian"  # of the benchmark tools image, whichever bases the cells have


@dataclass(frozen=True)
class Request:
    """What a call asks for: the run of that name, of an app; where base images come from; the buildx builder (None for
    the engine's own); whom to tell; what the user typed, which is recorded; and the images, by cell, that another
    machine has built for this call."""

    app: App
    run_name: str
    sources: bases.Sources = field(default_factory=bases.Sources)
    builder: str | None = None
    console: Console = field(default_factory=Console)
    command: str = ""
    brought: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """What a call works with: its request, an open run, this machine's authorities, and the images that cells stand on,
    by name (`Cell.images`); `lost`: why there is none for another architecture."""

    request: Request
    run: Run
    ca: Path | None
    images: dict[str, bases.Provenance] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Prints a line of the lab's own."""
        progress.say(self.request.console, text)


@dataclass(frozen=True)
class Batch:
    """Cells of an app, built together. `folder`: of their Dockerfiles and logs; `cold`: see `bake.BuildContext`."""

    cells: list[Cell]
    app: App
    folder: str = ""
    cold: bool = False


def make_tools(name: str, session: Session) -> str:
    """The image of what measures that has this name, by its id."""
    base, rust = session.images[TOOLS_BASE].image, session.images[BUILDER].image
    return mmdebstrap.make_tools(name, base, rust, session.say, session.ca).id


@contextmanager
def open_session(request: Request, cells: list[Cell], with_tools: bool) -> Iterator[Session]:
    """The open run with the images that cells, builds and tools stand on; no container of ours is left afterwards."""
    client.connect()
    inputs.check(request.app)
    with client.readable_errors(), runs.open_run(request.run_name, client.machine()) as run:
        sources = _going_on(request.sources, run)
        session = Session(request, run, machine.ca_bundle())
        doctor.prepare(session.say)
        containers.remove_containers()  # what a lab that was killed has left
        try:
            _obtain(BUILDER, sources, session)
            _try_engine(session)
            names = [name for cell in cells for name in reversed(cell.images) if name != BUILDER]
            for name in dict.fromkeys([*names, TOOLS_BASE] if with_tools else names):
                try:
                    _obtain(name, sources, session)
                except LabError as error:
                    if name.partition("-")[2] == "":
                        raise
                    session.lost[name] = str(error)
                    session.say(f"note: cells with it fail: {error}")
            services.described(request.app)  # refuses what cannot be had, or run together
            for service in request.app.services:
                session.say(f"service {services.obtain(service)}")
            _remember(session)
            yield session
        finally:
            containers.remove_containers()


def _obtain(name: str, sources: bases.Sources, session: Session) -> None:
    """Adds an image to those of the session, unless it is of an empty base. Raises LabError as `bases.resolve` does."""
    base, architecture = of_image(name)
    if architecture is not NATIVE and base == BUILDER:
        same_kernel = capabilities.holds(session.run.environment, "same_kernel")
        emulation.prepare(architecture.value, same_kernel, session.say)
        found = bases.cross(session.images[BUILDER], name, session.say, session.ca, sources.recorded.get(name))
    else:
        found = bases.resolve(name, sources, session.say, session.ca)
    if found:
        session.images[name] = found
        session.say(str(found))


def _try_engine(session: Session) -> None:
    """Tries what the engine can do and records it; says what that leaves out of the measurements."""
    try:
        found = capabilities.detect(session.images[BUILDER].image)
    except LabError as error:
        session.run.save_environment(capabilities=capabilities.UNTRIED)
        session.say(
            f"note: what the engine can do could not be tried ({error}), so what needs it is not measured: CPU time, "
            "limits of CPUs and memory, containers' starts"
        )
        return
    session.run.save_environment(capabilities=asdict(found))
    for name, seen, loss in capabilities.lost(found):
        if loss:
            session.say(f"note: {name}: {seen}; {loss}")


def build_treatments(batch: Batch, session: Session, study: str) -> tuple[list[plan.Treatment], list[str]]:
    """The images of a batch as treatments, in its order, and a line on each failure, which is a row of `study` too."""
    brought = {cell: image for cell in batch.cells if (image := session.request.brought.get(cell.slug))}
    made = {cell: plan.Treatment(cell, image, cell.slug) for cell, image in brought.items() if find_image(image)}
    layouts, failures = {}, []
    rows = runs.load(session.run.name).rows
    rows = rows[rows["study"] == study]
    seen = rows[rows["metric"] == metrics.BINARY_SHA256]
    known = set(zip(seen["cell"], seen["image"], strict=True))  # what was looked at in an earlier call
    kept = kept_images(rows[~rows["cell"].isin([cell.slug for cell in batch.cells if cell.layout])], known)
    with building(replace(batch, cells=[cell for cell in batch.cells if cell not in made]), session, kept) as outcomes:
        for built in outcomes:
            keep_dockerfile(built, batch, session)
            is_known = (built.cell.slug, built.image) in known
            lacks = built.reason or ("" if is_known else _not_as_asked(built, session.images))
            if reason := lacks or _not_a_layout(built, layouts):
                failed = Observation(metrics.BUILT, False, ok=False, reason=reason)
                session.run.append(built.cell, built.image, [failed], study=study)
                failures.append(f"{batch.app.name} {built.cell.slug}: {reason}")
            else:
                made[built.cell] = plan.Treatment(built.cell, built.image, built.cell.slug)
                if not is_known:
                    plain = [Observation(metrics.BINARY_SHA256, files.sha256(built.shipped))]
                    own = [Observation(metrics.MADE_OF, built.made_of), *layouts.get(built.cell, plain)]
                    session.run.append(built.cell, built.image, own, study=study)
    return [made[cell] for cell in batch.cells if cell in made], failures


def kept_images(rows: pd.DataFrame, known: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The images that were looked at in an earlier call, `known` by cell and image, as `bake.BuildContext.kept`."""
    made = rows[rows["metric"] == metrics.MADE_OF]
    found = zip(made["cell"], made["value"], made["image"], strict=True)
    return {(cell, made_of): image for cell, made_of, image in found if (cell, image) in known}


@contextmanager
def building(batch: Batch, session: Session, kept: dict[tuple[str, str], str]) -> Iterator[Iterator[Built]]:
    """The cells of a batch as they are built, but those that are `kept` (`bake.BuildContext`)."""
    logs, images, builder = session.run.path / "logs" / batch.folder, session.images, session.request.builder
    logs.mkdir(exist_ok=True)
    if not tools.sees_engine(builder):
        images = {name: image.for_builder(builder) for name, image in images.items()}
    lost = {cell: name for cell in batch.cells for name in cell.images if name in session.lost}
    cells = [cell for cell in batch.cells if cell not in lost]
    binaries = list(dict.fromkeys(cell.binary for cell in cells))
    with process.work_folder() as work, progress.building(binaries, session.request.console) as on_step:
        context = bake.BuildContext(batch.app, images, logs, work, builder, session.ca, batch.cold, on_step, kept)
        with closing(bake.build(cells, context)) as outcomes:
            yield chain((Built(cell, "", reason=session.lost[name]) for cell, name in lost.items()), outcomes)


def keep_dockerfile(built: Built, batch: Batch, session: Session) -> None:
    """Writes the text that a cell was built of into the run, and notes a compiler that was not asked for."""
    texts = session.run.path / "dockerfiles" / batch.folder
    texts.mkdir(exist_ok=True)
    path = texts / f"Dockerfile.{built.cell.slug}"
    if built.text and not (path.exists() and path.read_text(encoding="utf-8") == built.text):
        files.write_whole(path, built.text)  # else its time stays, by which the page is known to be newer
    if not built.linked:
        return
    note, app = binary.other_compiler(built.linked, batch.app.configuration.toolchain), session.run.environment["app"]
    if app.get("note", "") != note:
        if note:
            session.say(f"note: {note}")
        session.run.save_environment(app=app | {"note": note})


def _not_as_asked(built: Built, images: dict[str, bases.Provenance]) -> str:
    """Why an image is not what the cell says, or cannot start on its base; "" when it is and can."""
    if reason := binary.not_as_asked(binary.linked_allocator(built.linked), built.cell.allocator):
        return reason
    return abi.measure_base(built.linked, images.get(built.cell.images[0])).reason


def _not_a_layout(built: Built, layouts: dict[Cell, list[Observation]]) -> str:
    """Why a binary is no other order of its cell's code than `layouts`, to which it is added; "" if it is one."""
    if not built.cell.layout:
        return ""
    own = binary.measure_layout(built.linked, built.shipped)
    for cell, other in layouts.items():
        if replace(cell, layout=0) == replace(built.cell, layout=0):
            if own[0].value == other[0].value:
                return f"it is the same file as layout {cell.layout}: the linker has not drawn another order"
            if own[1].value != other[1].value:
                return f"its sections of code are others than those of layout {cell.layout}: it was compiled anew"
    layouts[built.cell] = own
    return ""


def _going_on(sources: bases.Sources, run: Run) -> bases.Sources:
    """The sources, with what the run has recorded of them. Raises LabError when it is on another Debian release."""
    recorded = run.environment
    if (before := recorded.get("debian", sources.debian)) != sources.debian:
        raise LabError(
            f"run '{run.name}' was begun on Debian {before}, not {sources.debian}: choose a new one with --run NAME, "
            f"or resume with --debian {before}"
        )
    known = {name: recorded["images"][digest] for name, digest in recorded.get("bases", {}).items()}
    return replace(sources, recorded=known)


def _remember(session: Session) -> None:
    """Records what the run is of, and what it was called with. Raises LabError when it was begun with another app."""
    run, images, app, command = session.run, session.images, session.request.app, session.request.command
    before = run.environment.get("app", {})
    identity = identify(app, run.name, before) | ({"note": before["note"]} if "note" in before else {})
    if overrides := sorted({f"{name}.{key}" for name, key in app.configuration.overrides}):
        session.say(f"note: the crate's profile has {', '.join(overrides)} of single packages; a lab profile's own win")
    beside = map(services.obtain, app.services)
    known = run.environment["images"] | {each.digest: each.as_dict() for each in (*beside, *images.values())}
    now = run.environment.get("bases", {}) | {name: image.digest for name, image in images.items()}
    commands = run.environment.get("commands", [])
    earlier = run.environment.get("tools", {}).get("lab")
    labs = dict.fromkeys([*(earlier.split("; ") if earlier else []), machine.lab()])
    if len(labs) > 1:
        session.say(f"note: this run has rows of several labs: {'; '.join(labs)}")
    run.save_environment(
        commands=[*commands, command] if command and command not in commands else commands,
        images=known,
        bases=now,
        debian=session.request.sources.debian,
        app=identity,
        tools={"buildx": tools.buildx_version(), "lab": "; ".join(labs)},
    )


def folder_digest(app: App) -> str:
    """Return a digest of the path of an app's folder, on the client where it came from there; "" for the lab's own."""
    folder = app.directory / app.at
    if told := lab_toml.origin(folder):
        return told[1]
    return "" if folder.is_relative_to(SHARE) else _digest(folder)


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def identify(app: App, run: str, recorded: dict[str, str]) -> dict[str, str]:
    """Return what a run records of its app. The folder of one outside of the lab is a digest: two checkouts of one
    package are two apps, and no path of this machine is in a run. Raises LabError when `recorded` is of another app."""
    folder, digest = app.directory / app.at, folder_digest(app)
    now = {"name": app.package, "lockfile_sha256": app.lock_sha256, "folder": digest}
    now |= {"input": inputs.in_words(app)} if app.arguments or app.secrets else {}
    if (before := recorded.get("name", app.package)) != app.package:
        raise LabError(
            f"run '{run}' is of {before}, not of {app.package}: choose another with --run NAME, or name the app "
            "with --app PATH"
        )
    former = ("", _digest(folder)) if folder.is_relative_to(APPS) else ()  # as older labs recorded it on a worker
    if recorded.get("folder", digest) not in (digest, *former):
        raise LabError(f"run '{run}' is of {before} in another folder than {folder}: choose another with --run NAME")
    return now
