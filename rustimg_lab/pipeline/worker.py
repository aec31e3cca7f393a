"""What a Dask worker does beside its engine: call the lab, and return the rows that this added to its run.

These functions run in Dask's worker, from the lab that is installed there. `pipeline/machines.py` calls them.
"""

import fcntl
import gzip
import io
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from rustimg_lab.build import bake
from rustimg_lab.engine import client, images
from rustimg_lab.errors import FAILED, LabError
from rustimg_lab.host import files, machine, process
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.paths import APPS, ORIGIN, RUNS, WORKER
from rustimg_lab.store import spread_record

PROGRESS = "rustimg-lab"  # the topic of Dask's events by which lines of progress come to the client
QUIET_S = 1.0  # at most one line in this time
LOCK_TIMEOUT_S = 120  # for a lab that the worker before this one began, and that is still ending


@dataclass(frozen=True)
class Call:
    """A command for a worker. `run`: its run there; `known`: the bytes of its rows that the client has; `app`, `at`:
    whether and where it has brought sources; `typed`: the client's command; `origin`: `paths.ORIGIN`."""

    arguments: tuple[str, ...]
    run: str
    known: int
    typed: str
    app: bool = False
    at: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a call: exit code, last line, failures; `rows`: those added, with the first `earlier` bytes by
    earlier calls; `environment` and `dockerfiles` (by name) as they are now."""

    code: int
    said: str
    failures: tuple[str, ...] = ()
    rows: bytes = b""
    environment: str = ""
    dockerfiles: dict[str, str] = field(default_factory=dict)
    earlier: int = 0


def about() -> tuple[tuple[str, str], str, str, float]:
    """Return a worker's lab (`machine.identity`), why no engine answers ("" for one), architecture, load per CPU."""
    try:
        client.connect.cache_clear()  # an engine that was down may be up
        client.connect()
        reason = ""
    except LabError as error:
        reason = str(error)
    return machine.identity(), reason, NATIVE.debian, machine.load_per_cpu()


def prepare(run: str, sources: bytes, known: str, environment: str, spread: str) -> str:
    """Bring an app's sources (a tar archive) to this worker, and the run, as far as the client has it, where it is not
    here. `spread` is the id of the client's run. Returns why this worker cannot go on with the run; "" where it can."""
    path, rows = RUNS / run, known.encode()
    try:
        if reason := _refusal(path, rows, spread):
            return reason
        if sources:
            rmtree(APPS / run, ignore_errors=True)
            with tarfile.open(fileobj=io.BytesIO(sources)) as archive:
                archive.extractall(APPS / run, filter="tar")
        path.mkdir(parents=True, exist_ok=True)
        if rows and not (path / "rows.jsonl").exists():
            files.write_whole(path / "environment.json", environment)
            files.write_whole(path / "rows.jsonl", known)
        spread_record.write(path, spread_record.SpreadRecord(spread))
    except (OSError, tarfile.TarError, LabError) as error:
        return f"it cannot keep the run or its sources ({error})"
    return ""


def _refusal(path: Path, rows: bytes, spread: str) -> str:
    """Why the run in a folder is not the part of the client's run that has that id and those rows; "" where it is."""
    here = (path / "rows.jsonl").read_bytes() if (path / "rows.jsonl").exists() else None
    own = spread_record.read(path).id or (spread if rows or not here else "")  # older labs recorded none
    if own != spread:
        return (
            f"its run '{path.name}' is of another run of that name: remove data/runs/{path.name} there, or choose "
            "another with --run NAME"
        )
    if here is not None and not here.startswith(rows):
        return f"its run '{path.name}' does not begin with the rows that are here; choose another with --run NAME"
    return ""


def perform(call: Call) -> Outcome:
    """Call the lab, tell the client of its progress, and return what came of it."""
    from distributed import get_worker

    worker, last, begun = get_worker(), 0.0, time.time()
    said, failures = "", []

    def on_line(line: str) -> None:
        nonlocal last, said
        said = line.strip().removeprefix("lab: ") or said
        if line.startswith(FAILED):
            failures.append(line.removeprefix(FAILED).strip())
        if time.monotonic() - last > QUIET_S:
            last = time.monotonic()
            worker.log_event(PROGRESS, {"run": call.run, "text": said})

    path = RUNS / call.run
    _wait_for_lock(call.run)
    before = (path / "rows.jsonl").stat().st_size if (path / "rows.jsonl").exists() else 0
    if before > call.known:  # a client that was killed may lack texts of before, too
        begun = 0
    app = ["--app", str(APPS / call.run / call.at)] if call.app else []
    command = [sys.executable, "-m", "rustimg_lab", *call.arguments, *app, "--run", call.run]
    told = [f"{WORKER}={call.typed}", *([f"{ORIGIN}={call.origin}"] if call.app else [])]
    code = process.stream(["env", *told, *command], on_line)
    if not (path / "rows.jsonl").exists():
        return Outcome(code, said)
    with (path / "rows.jsonl").open("rb") as file:
        file.seek(call.known)
        rows = file.read()
    rows = rows[: rows.rfind(b"\n") + 1]  # half a line, of a lab that was killed, is ended by the next one
    new = [each for each in (path / "dockerfiles").rglob("Dockerfile.*") if each.stat().st_mtime >= begun - 1]
    texts = {str(each.relative_to(path / "dockerfiles")): each.read_text(encoding="utf-8") for each in new}
    environment = (path / "environment.json").read_text(encoding="utf-8")
    return Outcome(code, said, tuple(failures), rows, environment, texts, max(before - call.known, 0))


def find(image: str) -> str:
    """Return the id of an image of this worker's engine, "" where it has none of that name or id."""
    found = images.find_image(image)
    return found.id if found else ""


def built(program: str, cell: str) -> str:
    """Return the id of the image that was built here last of a cell of a program, "" where there is none."""
    return find(bake.image_name(program, cell))


def save(image: str) -> bytes:
    """Return an image of this worker's engine as `docker save` writes it, compressed."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for part in images.find_image(image).save(chunk_size=1 << 20):
            file.write(part)
    return packed.getvalue()


def push(image: str, repository: str) -> str:
    """Push an image of this worker's engine to a repository, and return its reference there, by digest."""
    tag, digest = images.push(image, repository)
    return f"{repository}@{digest}" if digest else f"{repository}:{tag}"


def pull(run: str, cell: str, reference: str) -> str:
    """Pull a cell's image that another worker has pushed, by a name that `./lab clean` removes. Returns its id here."""
    name, host = f"{client.repository(run)}:{cell}", images.split_host(reference)[0]
    return images.pull(reference, name, host, lambda *_: None).id


def bring(run: str, cell: str, archive: bytes) -> str:
    """Load a cell's image that another worker has built, by a name that `./lab clean` removes. Returns its id here."""
    (loaded,) = client.connect().images.load(archive)
    loaded.tag(client.repository(run), cell)
    return loaded.id


def _wait_for_lock(run: str) -> None:
    path, deadline = RUNS / run / ".lock", time.monotonic() + LOCK_TIMEOUT_S
    while path.exists() and time.monotonic() < deadline:
        with path.open("a") as lock:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.5)
