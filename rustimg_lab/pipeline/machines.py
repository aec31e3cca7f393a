"""A command of the lab's on every machine of a Dask cluster: what each worker gets, and the rows that come back."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rustimg_lab.build import sources
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine
from rustimg_lab.model import metrics
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.matrix import Cell
from rustimg_lab.pipeline import cluster, progress, session, studies, worker
from rustimg_lab.pipeline.cluster import Unit
from rustimg_lab.store import runs, spread_record
from rustimg_lab.store.environment import parse_environment
from rustimg_lab.store.rows import append_rows, read_row

if TYPE_CHECKING:
    from distributed import Client

BRING_TIMEOUT_S = 600  # for one image


@dataclass(frozen=True)
class Spread:
    """A command for several machines. `arguments`: what every worker gets of it; `typed`: all of it; `app`: None for
    the lab's own; `scheduler` is its address, and `insecure` whether it may be on a network without TLS."""

    run: str
    arguments: tuple[str, ...]
    typed: str
    app: App | None
    scheduler: str
    insecure: bool
    console: Console

    def say(self, text: str) -> None:
        """Print a line of the lab's own."""
        progress.say(self.console, text)

    def run_of(self, name: str) -> str:
        """Return the name of the run that the worker of a machine has."""
        return f"{self.run}-{name}"


@dataclass(frozen=True)
class SharedImages:
    """The images of a study that are built once and brought to the other machines: the command that builds them, the
    program in them, the cells, and the repository through which they go, "" for none. Without cells each machine builds
    its own."""

    build_spread: Spread
    program: str
    cells: list[Cell]
    repository: str


def run_cells(spread: Spread, cells: list[Cell]) -> list[str]:
    """Build and measure cells, those of each binary on the machine that is free first. Returns a line on each cell that
    failed. Raises LabError as `cluster.connected` does, and when no worker can be used."""
    with _open_cluster(spread) as opened:
        # Without the short study: a worker has some of the cells alone.
        units = [Unit(("--blocks", "0", *unit.arguments), cells=unit.cells) for unit in _binary_units(cells)]
        _perform(spread, opened, units)
    return [*dict.fromkeys(opened.failures), *_other_binaries(spread.run)]


def run_blocks(
    spread: Spread, moved: SharedImages, blocks: int, kind: str, load_values: dict[str, list[Any]]
) -> list[str]:
    """Measure a study of that kind on each machine, block by block, until it has `blocks`. The images of `moved` are
    built once and brought to the others. `load_values` is that of `studies.blocks_done`. Returns a line on each
    failure, and raises LabError as `run_cells` does."""
    with _open_cluster(spread) as opened:
        brought_images = _bring_images(moved, opened) if len(opened.names) > 1 else {}
        units = []
        for name in sorted(opened.names):
            images = ",".join(f"{cell}={image}" for cell, image in brought_images.get(name, {}).items())
            options = ("--brought", images) if images else ()
            done_count = min(studies.blocks_done(spread.run, name, kind, load_values), blocks)
            units += [Unit(("--blocks", str(count), *options), name) for count in range(max(done_count, 1), blocks + 1)]
        _perform(spread, opened, units)
    return [*dict.fromkeys(opened.failures), *_other_binaries(spread.run)]


def _bring_images(moved: SharedImages, opened: "_Cluster") -> dict[str, dict[str, str]]:
    """By machine and cell, the images that another machine has built and that are there now.

    Each binary has a machine that builds it, one and the same in each call, where what it was built of is kept. What
    was built in an earlier call is not taken: the sources may have changed.
    """
    names = sorted(opened.names)
    units = [
        Unit(("--images-only", *unit.arguments), names[place % len(names)])
        for place, unit in enumerate(_binary_units(moved.cells))
    ]
    images: dict[str, dict[str, str]] = {name: {} for name in names}
    for unit in _perform(moved.build_spread, opened, units):
        for cell in unit.arguments[-1].split(","):
            for name in opened.names - {unit.machine}:
                if image := _bring(moved, opened, cell, unit.machine, name):
                    images[name][cell] = image
    return images


def _bring(moved: SharedImages, opened: "_Cluster", cell: str, source: str, name: str) -> str:
    """Bring a cell's image from one machine to another unless it is there: through the repository, or as `docker save`
    writes it. Returns its id there; "" where it could not be brought: that machine builds it."""
    addresses, options = cluster.workers(opened.client), {"pure": False, "resources": {cluster.RESOURCE: 1}}
    spread, client = moved.build_spread, opened.client
    try:
        image = client.run(worker.find_built, moved.program, cell, workers=[addresses[source]])[addresses[source]]
        if image_id := client.run(worker.find_image, image, workers=[addresses[name]])[addresses[name]]:
            return image_id
        opened.show(name, f"gets the image of {cell} from {source}")
        send, take = (worker.push, worker.pull) if moved.repository else (worker.save, worker.bring)
        transfer = client.submit(send, image, *filter(None, [moved.repository]), workers=[addresses[source]], **options)
        call = client.submit(take, spread.run_of(name), cell, transfer, workers=[addresses[name]], **options)
        return call.result(timeout=BRING_TIMEOUT_S)
    except Exception as error:  # whatever it is: the image can be built there
        message = str(error).strip().partition("\n")[0]
        spread.say(f"note: {name} builds {cell}, since its image could not be brought from {source} ({message})")
        return ""


def _binary_units(cells: list[Cell]) -> list[Unit]:
    """Cells that share a binary are one unit: it is compiled once."""
    groups: dict[object, list[str]] = {}
    for cell in cells:
        groups.setdefault(cell.binary, []).append(cell.slug)
    return [Unit(("--only", ",".join(slugs)), cells=tuple(slugs)) for slugs in groups.values()]


@dataclass(frozen=True)
class _Cluster:
    """A cluster that works on a run: its client, the folder of the machines' runs, a digest of what images are built
    of, the names of the machines, what shows what a machine does, and a line on all that failed."""

    client: "Client"
    folder: Path
    built_of: str
    names: set[str]
    show: Callable[[str, str], None]
    failures: list[str]


@contextmanager
def _open_cluster(spread: Spread) -> Iterator[_Cluster]:
    failures: list[str] = []
    with cluster.connected(spread.scheduler, spread.insecure) as client, runs.open_spread(spread.run) as folder:
        archive = _archive(spread.app) if spread.app else b""
        built_of = repr((machine.lab_files(), spread.arguments)).encode() + archive
        names = _prepare_workers(spread, client, folder, archive, failures)
        with _progress(spread, client, sorted(names)) as show:
            yield _Cluster(client, folder, hashlib.sha256(built_of).hexdigest(), names, show, failures)


def _perform(spread: Spread, opened: _Cluster, units: list[Unit]) -> list[Unit]:
    """Give the workers the units, and write what they send. Returns the units of which nothing failed."""
    done_units = []

    def sent(unit: Unit, name: str) -> worker.Call:
        rows = opened.folder / name / "rows.jsonl"
        known_bytes = rows.stat().st_size if rows.exists() else 0
        call = worker.Call((*spread.arguments, *unit.arguments), spread.run_of(name), known_bytes, spread.typed)
        if not (app := spread.app):
            return call
        return replace(call, app=True, subdirectory=app.subdirectory, origin=f"{app.date},{session.folder_digest(app)}")

    def done(unit: Unit, name: str, outcome: worker.Outcome) -> str:
        reason = _write_outcome(spread, opened.folder / name, outcome, unit.cells, opened.built_of)
        opened.failures.extend(f"{name}: {line}" for line in outcome.failures if outcome.code == 1)
        opened.show(name, reason or outcome.last_line)
        done_units.extend([] if reason or outcome.code else [unit])
        return reason

    failures = cluster.perform_all(opened.client, units, worker.perform, sent, done, opened.names)
    opened.failures.extend(failures)
    return done_units


def _prepare_workers(spread: Spread, client: "Client", folder: Path, archive: bytes, failures: list[str]) -> set[str]:
    """The names of the machines whose workers can be used, each with the app's sources and the run so far."""
    names, spread_id = set(), spread_record.read(folder.parent).id
    if difference := _lab_difference(_lab_of_scheduler(client)):
        raise LabError(
            f"the scheduler at {spread.scheduler} {difference}: start `dask scheduler` where this lab is installed"
        )
    first_architecture = ""  # the architecture of the first machine
    for name, address in sorted(cluster.workers(client).items()):
        machine_folder = folder / name
        texts = [
            path.read_text() if path.exists() else ""
            for path in (machine_folder / "rows.jsonl", machine_folder / "environment.json")
        ]
        try:
            lab, reason, architecture, load = client.run(worker.describe_worker, workers=[address])[address]
            reason = reason or _refusal(name, lab, architecture, first_architecture or architecture)
            if not reason:
                first_architecture = architecture
                arguments = spread.run_of(name), archive, *texts, spread_id
                reason = client.run(worker.prepare, *arguments, workers=[address])[address]
        except (AttributeError, ImportError, OSError, TypeError, ValueError, LabError) as error:
            reason = f"its lab is not this one, or the worker is gone ({str(error).strip() or type(error).__name__})"
        if reason:
            failures.append(f"{name}: {reason}")
            spread.say(f"{name} is left out: {reason}")
            continue
        if load > cluster.BUSY:
            spread.say(f"note: {name} is busy: {load:.1f} processes want each of its CPUs")
        names.add(name)
    if not names:
        detail = f": {'; '.join(failures)}" if failures else "; start some with `./lab worker`"
        raise LabError(f"the scheduler at {spread.scheduler} has no worker that can be used{detail}")
    return names


def _lab_difference(lab: tuple[str, str] | str) -> str:
    """In words that another lab than this one is there; "" where it is this one, as its files tell."""
    lab, own_lab = (lab, "") if isinstance(lab, str) else lab, machine.identity()  # an older one tells no files
    other_text, own_text = (f"{label} (files {digest[:12] or 'unknown'})" for label, digest in (lab, own_lab))
    return f"has {other_text}, this is {own_text}" if lab[1] != own_lab[1] else ""


def _refusal(name: str, lab: tuple[str, str], architecture: str, first_architecture: str) -> str:
    """Why a worker cannot be used, "" where it can."""
    if difference := _lab_difference(lab):
        return f"it {difference}: install one on both"
    if name in {platform.debian for platform in Architecture} or not name:
        return "no machine can have this name: start the worker with --name"
    if architecture != first_architecture:
        return f"it is {architecture}, and others are {first_architecture}: use a scheduler and a run for each"
    return ""


def _lab_of_scheduler(client: "Client") -> tuple[str, str]:
    """Which lab a scheduler has, which reads what it passes on."""
    try:
        return client.run_on_scheduler(machine.identity)
    except (AttributeError, ImportError):
        return "no rustimg_lab, or an older one", ""


def _archive(app: App) -> bytes:
    """Return a tar archive of an app's sources, as its builds get them, and of its lab.toml. It also has the archives
    that its services are made of, which builds do not need."""
    buffer, toml_path = io.BytesIO(), Path(app.subdirectory) / sources.LAB_TOML
    image_paths = [Path(service.image) for service in app.services]
    archive_paths = {
        path.relative_to(app.directory) for path in image_paths if path.is_relative_to(app.directory) and path.is_file()
    }
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted({*sources.walk(app.directory, app.git), toml_path, *archive_paths}):
            archive.add(app.directory / path, str(path), recursive=False)
    return buffer.getvalue()


@contextmanager
def _progress(spread: Spread, client: "Client", names: list[str]) -> Iterator[Callable[[str, str], None]]:
    """Shows what each machine does. Yields the function that gets a machine's name and what came of its last unit."""
    if client.scheduler_info()["services"].get("dashboard"):
        spread.say(f"Dask's dashboard: {client.dashboard_link}")
    places = {spread.run_of(name): place for place, name in enumerate(names)}
    with progress.rows("machines", names, spread.console) as show:

        def on_event(event: tuple[float, dict[str, str]]) -> None:
            if event[1]["run"] in places:
                show(places[event[1]["run"]], event[1]["text"], False)

        client.subscribe_topic(worker.PROGRESS, on_event)
        yield lambda name, text: show(places[spread.run_of(name)], text, False)
        client.unsubscribe_topic(worker.PROGRESS)


def _write_outcome(
    spread: Spread, folder: Path, outcome: worker.Outcome, cells: tuple[str, ...] = (), built_of: str = ""
) -> str:
    """Write what a worker sent to its machine's folder, and record the cells that it was to build, and the sources of
    its binaries. Returns why the machine gets no more work, "" where it does."""
    try:
        old_rows, new_rows = _parse_rows(outcome.rows[: outcome.earlier]), _parse_rows(outcome.rows[outcome.earlier :])
        for row in filter(None, old_rows + new_rows):
            if (run := row["run_id"]) != spread.run_of(folder.name):
                return f"it sent rows of run '{run}', which is not '{spread.run_of(folder.name)}'; they are left out"
        if outcome.environment:
            parse_environment(outcome.environment, folder.name)
            (folder / "dockerfiles").mkdir(parents=True, exist_ok=True)
            files.write_whole(folder / "environment.json", outcome.environment)
    except (ValueError, LabError) as error:
        return f"it sent what is no run ({error}); it is left out"
    for name, text in outcome.dockerfiles.items():
        (folder / "dockerfiles" / name).parent.mkdir(exist_ok=True)
        files.write_whole(folder / "dockerfiles" / name, text)
    if unreadable_count := (old_rows + new_rows).count(None):
        spread.say(f"note: {folder.name} sent rows that cannot be read: {unreadable_count}; reports leave them out")
    if outcome.rows:
        append_rows(folder, outcome.rows)
    is_done = outcome.code in (0, 1)
    binaries = dict.fromkeys(_binaries(old_rows), "") | dict.fromkeys(_binaries(new_rows), built_of)
    spread_record.note(folder.parent.parent, folder.name, cells if is_done else (), binaries)
    return "" if is_done else outcome.last_line


def _parse_rows(text: bytes) -> list[dict[str, Any] | None]:
    """The rows that a worker sent; None for a line that is none, as of a lab that was killed in the middle of it. Such
    a line is kept, so that the worker's rows begin with those that are here. Raises ValueError where it is no text."""
    rows = []
    for line in filter(None, text.decode().split("\n")):
        try:
            rows.append(read_row(line))
        except ValueError:
            rows.append(None)
    return rows


def _binaries(rows: list[dict[str, Any] | None]) -> list[str]:
    """What the record calls the binaries that rows are of."""
    binary_rows = [row for row in filter(None, rows) if row["metric"] == metrics.BINARY_SHA256]
    return [spread_record.binary(row["study"], row["cell"]) for row in binary_rows]


def _other_binaries(run: str) -> list[str]:
    """A line on each cell of which two machines built two binaries of one program, of the same sources."""
    digests: dict[tuple[str, str, str], dict[str, str]] = {}
    record = spread_record.read(runs.run_path(run))
    for name in runs.machines(run):
        rows, built_of = runs.load(f"{run}{runs.AT}{name}", whole=True).rows, record.sources.get(name, {})
        for row in rows[rows["metric"] == metrics.BINARY_SHA256].itertuples():
            if sources := built_of.get(spread_record.binary(row.study, row.cell)):  # `study` names the program
                digests.setdefault((row.study, row.cell, sources), {})[name] = row.value
    return [
        f"{cell}: the machines built different binaries ({', '.join(f'{n} {v[:12]}' for n, v in by_machine.items())})"
        for (_, cell, _), by_machine in digests.items()
        if len(set(by_machine.values())) > 1
    ]
