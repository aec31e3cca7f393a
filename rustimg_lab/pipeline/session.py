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
from rustimg_lab.model.names import parse_image_name
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
    """What a call works with: what it asks for, a run that is open, this machine's certificate authorities, and the
    images that cells stand on by name (`Cell.images`). `lost`: by name, why there is no such image for another
    architecture than this machine's."""

    request: Request
    run: Run
    ca: Path | None
    images: dict[str, bases.Provenance] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print a line of the lab's own."""
        progress.say(self.request.console, text)


@dataclass(frozen=True)
class Batch:
    """Cells of an app that are built together. Their Dockerfiles and logs go to that folder of the run's; `cold` as
    `bake.BuildContext` has it."""

    cells: list[Cell]
    app: App
    folder: str = ""
    cold: bool = False


def make_tools(name: str, session: Session) -> str:
    """Return the id of a benchmark tools image, `tools` or `oha` by name, which is made if the engine has none."""
    base, rust = session.images[TOOLS_BASE].image, session.images[BUILDER].image
    return mmdebstrap.make_tools(name, base, rust, session.say, session.ca).id


@contextmanager
def open_session(request: Request, cells: list[Cell], with_tools: bool) -> Iterator[Session]:
    """Open the run of a request for writing, and yield it with the images that the cells stand on and the builder. With
    `with_tools` it has the base of the benchmark tools image too. No container of the lab's is left afterwards. Raises
    LabError when the machine, the input or an image does not allow a start."""
    client.connect()
    inputs.check(request.app)
    with client.readable_errors(), runs.open_run(request.run_name, client.machine()) as run:
        sources = _resume_sources(request.sources, run)
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
            services.describe(request.app)  # refuses what cannot be had, or run together
            for service in request.app.services:
                session.say(f"service {services.obtain(service)}")
            _record_app(session)
            yield session
        finally:
            containers.remove_containers()


def _obtain(name: str, sources: bases.Sources, session: Session) -> None:
    """Adds an image to those of the session, unless it is of an empty base. Raises LabError as `bases.resolve` does."""
    base, architecture = parse_image_name(name)
    if architecture is not NATIVE and base == BUILDER:
        same_kernel = capabilities.has_ability(session.run.environment, "same_kernel")
        emulation.prepare(architecture.value, same_kernel, session.say)
        provenance = bases.cross_builder(
            session.images[BUILDER], name, session.say, session.ca, sources.recorded.get(name)
        )
    else:
        provenance = bases.resolve(name, sources, session.say, session.ca)
    if provenance:
        session.images[name] = provenance
        session.say(str(provenance))


def _try_engine(session: Session) -> None:
    """Tries what the engine can do and records it; says what that leaves out of the measurements."""
    try:
        abilities = capabilities.detect(session.images[BUILDER].image)
    except LabError as error:
        session.run.save_environment(capabilities=capabilities.UNTRIED)
        session.say(
            f"note: what the engine can do could not be tried ({error}), so what needs it is not measured: CPU time, "
            "limits of CPUs and memory, containers' starts"
        )
        return
    session.run.save_environment(capabilities=asdict(abilities))
    for name, state, loss in capabilities.ability_lines(abilities):
        if loss:
            session.say(f"note: {name}: {state}; {loss}")


def build_treatments(batch: Batch, session: Session, study: str) -> tuple[list[plan.Treatment], list[str]]:
    """Build the images of a batch. Returns them as treatments in the order of its cells, and a line on each cell
    without an image. Such a cell gets a row of `study` with the reason."""
    images = {cell: image for cell in batch.cells if (image := session.request.brought.get(cell.slug))}
    treatments = {cell: plan.Treatment(cell, image, cell.slug) for cell, image in images.items() if find_image(image)}
    layouts, failures = {}, []
    rows = runs.load(session.run.name).rows
    rows = rows[rows["study"] == study]
    hash_rows = rows[rows["metric"] == metrics.BINARY_SHA256]
    pairs = set(zip(hash_rows["cell"], hash_rows["image"], strict=True))  # what was looked at in an earlier call
    cache = kept_images(rows[~rows["cell"].isin([cell.slug for cell in batch.cells if cell.layout])], pairs)
    with building(
        replace(batch, cells=[cell for cell in batch.cells if cell not in treatments]), session, cache
    ) as outcomes:
        for built in outcomes:
            keep_dockerfile(built, batch, session)
            is_known = (built.cell.slug, built.image) in pairs
            lack = built.reason or ("" if is_known else _image_mismatch(built, session.images))
            if reason := lack or _layout_mismatch(built, layouts):
                failure = Observation(metrics.BUILT, False, ok=False, reason=reason)
                session.run.append(built.cell, built.image, [failure], study=study)
                failures.append(f"{batch.app.name} {built.cell.slug}: {reason}")
            else:
                treatments[built.cell] = plan.Treatment(built.cell, built.image, built.cell.slug)
                if not is_known:
                    plain_rows = [Observation(metrics.BINARY_SHA256, files.sha256(built.shipped))]
                    observations = [
                        Observation(metrics.MADE_OF, built.inputs_digest),
                        *layouts.get(built.cell, plain_rows),
                    ]
                    session.run.append(built.cell, built.image, observations, study=study)
    return [treatments[cell] for cell in batch.cells if cell in treatments], failures


def kept_images(rows: pd.DataFrame, pairs: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the images of earlier calls, as `bake.BuildContext.kept` needs them. `rows` is a frame with a row per
    observation; `pairs` are the cells and images to take."""
    made_rows = rows[rows["metric"] == metrics.MADE_OF]
    triples = zip(made_rows["cell"], made_rows["value"], made_rows["image"], strict=True)
    return {(cell, made_of): image for cell, made_of, image in triples if (cell, image) in pairs}


@contextmanager
def building(batch: Batch, session: Session, cache: dict[tuple[str, str], str]) -> Iterator[Iterator[Built]]:
    """Yield an iterator of the cells of a batch as they are built. Those in `cache` (`bake.BuildContext.kept_images`)
    are not built again."""
    logs, images, builder = session.run.path / "logs" / batch.folder, session.images, session.request.builder
    logs.mkdir(exist_ok=True)
    if not tools.sees_engine(builder):
        images = {name: image.for_builder(builder) for name, image in images.items()}
    lost_cells = {cell: name for cell in batch.cells for name in cell.images if name in session.lost}
    cells = [cell for cell in batch.cells if cell not in lost_cells]
    binaries = list(dict.fromkeys(cell.binary for cell in cells))
    with process.work_folder() as work, progress.building(binaries, session.request.console) as on_step:
        context = bake.BuildContext(batch.app, images, logs, work, builder, session.ca, batch.cold, on_step, cache)
        with closing(bake.build(cells, context)) as outcomes:
            yield chain((Built(cell, "", reason=session.lost[name]) for cell, name in lost_cells.items()), outcomes)


def keep_dockerfile(built: Built, batch: Batch, session: Session) -> None:
    """Write a cell's Dockerfile into the run. Record and print a note when its compiler is not the one that the project
    requests."""
    texts = session.run.path / "dockerfiles" / batch.folder
    texts.mkdir(exist_ok=True)
    path = texts / f"Dockerfile.{built.cell.slug}"
    if built.text and not (path.exists() and path.read_text(encoding="utf-8") == built.text):
        files.write_whole(path, built.text)  # else its time stays, by which the page is known to be newer
    if not built.linked:
        return
    note, app = binary.compiler_note(built.linked, batch.app.configuration.toolchain), session.run.environment["app"]
    if app.get("note", "") != note:
        if note:
            session.say(f"note: {note}")
        session.run.save_environment(app=app | {"note": note})


def _image_mismatch(built: Built, images: dict[str, bases.Provenance]) -> str:
    """Why an image is not what the cell says, or cannot start on its base; "" when it is and can."""
    if reason := binary.allocator_mismatch(binary.linked_allocator(built.linked), built.cell.allocator):
        return reason
    return abi.measure_base(built.linked, images.get(built.cell.images[0])).reason


def _layout_mismatch(built: Built, layouts: dict[Cell, list[Observation]]) -> str:
    """Return why a binary is not another order of the code in the earlier layouts of its cell. It is "" when it is one,
    which is added to `layouts`, and when the cell has no layout."""
    if not built.cell.layout:
        return ""
    rows = binary.measure_layout(built.linked, built.shipped)
    for cell, other_rows in layouts.items():
        if replace(cell, layout=0) == replace(built.cell, layout=0):
            if rows[0].value == other_rows[0].value:
                return f"it is the same file as layout {cell.layout}: the linker has not drawn another order"
            if rows[1].value != other_rows[1].value:
                return f"its sections of code are others than those of layout {cell.layout}: it was compiled anew"
    layouts[built.cell] = rows
    return ""


def _resume_sources(sources: bases.Sources, run: Run) -> bases.Sources:
    """The sources, with what the run has recorded of them. Raises LabError when it is on another Debian release."""
    recorded = run.environment
    if (release := recorded.get("debian", sources.debian)) != sources.debian:
        raise LabError(
            f"run '{run.name}' was begun on Debian {release}, not {sources.debian}: choose a new one with --run NAME, "
            f"or resume with --debian {release}"
        )
    recorded_bases = {name: recorded["images"][digest] for name, digest in recorded.get("bases", {}).items()}
    return replace(sources, recorded=recorded_bases)


def _record_app(session: Session) -> None:
    """Records what the run is of, and what it was called with. Raises LabError when it was begun with another app."""
    run, images, app, command = session.run, session.images, session.request.app, session.request.command
    record = run.environment.get("app", {})
    identity = identify(app, run.name, record) | ({"note": record["note"]} if "note" in record else {})
    if overrides := sorted({f"{name}.{key}" for name, key in app.configuration.overrides}):
        session.say(f"note: the crate's profile has {', '.join(overrides)} of single packages; a lab profile's own win")
    provenances = map(services.obtain, app.services)
    records = run.environment["images"] | {image.digest: image.as_dict() for image in (*provenances, *images.values())}
    base_digests = run.environment.get("bases", {}) | {name: image.digest for name, image in images.items()}
    commands = run.environment.get("commands", [])
    earlier_labs = run.environment.get("tools", {}).get("lab")
    labs = dict.fromkeys([*(earlier_labs.split("; ") if earlier_labs else []), machine.lab_version()])
    if len(labs) > 1:
        session.say(f"note: this run has rows of several labs: {'; '.join(labs)}")
    run.save_environment(
        commands=[*commands, command] if command and command not in commands else commands,
        images=records,
        bases=base_digests,
        debian=session.request.sources.debian,
        app=identity,
        tools={"buildx": tools.buildx_version(), "lab": "; ".join(labs)},
    )


def folder_digest(app: App) -> str:
    """Return a digest of the path of an app's folder; "" for the lab's own apps. For sources that a client has sent to
    this worker, the digest is the client's."""
    folder = app.directory / app.subdirectory
    if origin := lab_toml.origin(folder):
        return origin[1]
    return "" if folder.is_relative_to(SHARE) else _digest(folder)


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def identify(app: App, run: str, recorded: dict[str, str]) -> dict[str, str]:
    """Return what a run records of its app, by name. A folder outside of the lab is recorded as a digest, so that no
    path of this machine is in a run. Two checkouts of one package are two apps. Raises LabError when `recorded` is of
    another app."""
    folder, digest = app.directory / app.subdirectory, folder_digest(app)
    identity = {"name": app.package, "lockfile_sha256": app.lock_sha256, "folder": digest}
    identity |= {"input": inputs.in_words(app)} if app.arguments or app.secrets else {}
    if (package := recorded.get("name", app.package)) != app.package:
        raise LabError(
            f"run '{run}' is of {package}, not of {app.package}: choose another with --run NAME, or name the app "
            "with --app PATH"
        )
    digests = ("", _digest(folder)) if folder.is_relative_to(APPS) else ()  # as older labs recorded it on a worker
    if recorded.get("folder", digest) not in (digest, *digests):
        raise LabError(f"run '{run}' is of {package} in another folder than {folder}: choose another with --run NAME")
    return identity
