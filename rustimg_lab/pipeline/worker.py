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
    """A command of the lab's for a worker. `run`: its run there; `known_bytes`: so many bytes of its rows the client
    has; `app`: whether it is of sources that `prepare` has brought, at `subdirectory` in them; `typed`: the client's
    own command; `origin`: what the client says of the sources (`paths.ORIGIN`)."""

    arguments: tuple[str, ...]
    run: str
    known_bytes: int
    typed: str
    app: bool = False
    subdirectory: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a call. `code`: the exit code; `last_line`: the last line; `failures`: a line on each cell and trial
    that failed; `rows`: what was added to the run's rows, the first `earlier` bytes of it by calls before this one;
    `environment` and `dockerfiles` (by name) as they are now."""

    code: int
    last_line: str
    failures: tuple[str, ...] = ()
    rows: bytes = b""
    environment: str = ""
    dockerfiles: dict[str, str] = field(default_factory=dict)
    earlier: int = 0


def describe_worker() -> tuple[tuple[str, str], str, str, float]:
    """Return the lab of this worker (`machine.identity`), why no engine answers here ("" when one does), the
    architecture, and the load per CPU (running processes)."""
    try:
        client.connect.cache_clear()  # an engine that was down may be up
        client.connect()
        reason = ""
    except LabError as error:
        reason = str(error)
    return machine.identity(), reason, NATIVE.debian, machine.load_per_cpu()


def prepare(run: str, sources: bytes, rows_text: str, environment: str, spread: str) -> str:
    """Replace the app's sources here by `sources` (a tar archive, empty for none), and write the client's part of the
    run if it is missing. `spread` is the id of the client's run. Returns why this worker cannot resume the run; "" when
    it can."""
    path, rows = RUNS / run, rows_text.encode()
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
            files.write_whole(path / "rows.jsonl", rows_text)
        spread_record.write(path, spread_record.SpreadRecord(spread))
    except (OSError, tarfile.TarError, LabError) as error:
        return f"it cannot keep the run or its sources ({error})"
    return ""


def _refusal(path: Path, rows: bytes, spread: str) -> str:
    """Why the run in a folder is not the part of the client's run that has that id and those rows; "" where it is."""
    local_rows = (path / "rows.jsonl").read_bytes() if (path / "rows.jsonl").exists() else None
    recorded_id = spread_record.read(path).id or (spread if rows or not local_rows else "")  # older labs recorded none
    if recorded_id != spread:
        return (
            f"its run '{path.name}' is of another run of that name: remove data/runs/{path.name} there, or choose "
            "another with --run NAME"
        )
    if local_rows is not None and not local_rows.startswith(rows):
        return f"its run '{path.name}' does not begin with the rows that are here; choose another with --run NAME"
    return ""


def perform(call: Call) -> Outcome:
    """Call the lab, send lines of its progress to the client, and return the outcome."""
    from distributed import get_worker

    worker, last_event_s, start = get_worker(), 0.0, time.time()
    last_line, failures = "", []

    def on_line(line: str) -> None:
        nonlocal last_event_s, last_line
        last_line = line.strip().removeprefix("lab: ") or last_line
        if line.startswith(FAILED):
            failures.append(line.removeprefix(FAILED).strip())
        if time.monotonic() - last_event_s > QUIET_S:
            last_event_s = time.monotonic()
            worker.log_event(PROGRESS, {"run": call.run, "text": last_line})

    path = RUNS / call.run
    _wait_for_lock(call.run)
    old_size = (path / "rows.jsonl").stat().st_size if (path / "rows.jsonl").exists() else 0
    if old_size > call.known_bytes:  # a client that was killed may lack texts of before, too
        start = 0
    app = ["--app", str(APPS / call.run / call.subdirectory)] if call.app else []
    command = [sys.executable, "-m", "rustimg_lab", *call.arguments, *app, "--run", call.run]
    variables = [f"{WORKER}={call.typed}", *([f"{ORIGIN}={call.origin}"] if call.app else [])]
    code = process.stream(["env", *variables, *command], on_line)
    if not (path / "rows.jsonl").exists():
        return Outcome(code, last_line)
    with (path / "rows.jsonl").open("rb") as file:
        file.seek(call.known_bytes)
        rows = file.read()
    rows = rows[: rows.rfind(b"\n") + 1]  # half a line, of a lab that was killed, is ended by the next one
    entries = [entry for entry in (path / "dockerfiles").rglob("Dockerfile.*") if entry.stat().st_mtime >= start - 1]
    texts = {str(entry.relative_to(path / "dockerfiles")): entry.read_text(encoding="utf-8") for entry in entries}
    environment = (path / "environment.json").read_text(encoding="utf-8")
    return Outcome(code, last_line, tuple(failures), rows, environment, texts, max(old_size - call.known_bytes, 0))


def find_image(image: str) -> str:
    """Return the id of an image of this worker's engine, by name or id; "" when it has none."""
    local_image = images.find_image(image)
    return local_image.id if local_image else ""


def find_built(program: str, cell: str) -> str:
    """Return the id of the image that was built here last of a program's cell; "" when there is none."""
    return find_image(bake.image_name(program, cell))


def save(image: str) -> bytes:
    """Return an image of this worker's engine as `docker save` writes it, compressed by gzip."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for part in images.find_image(image).save(chunk_size=1 << 20):
            file.write(part)
    return packed.getvalue()


def push(image: str, repository: str) -> str:
    """Push an image of this worker's engine to a repository. Returns its reference there, by digest, or by tag if the
    engine reports no digest."""
    tag, digest = images.push(image, repository)
    return f"{repository}@{digest}" if digest else f"{repository}:{tag}"


def pull(run: str, cell: str, reference: str) -> str:
    """Pull a cell's image that another worker has pushed, by a name that `./lab clean` removes. Returns its id here."""
    name, host = f"{client.repository(run)}:{cell}", images.split_host(reference)[0]
    return images.pull(reference, name, host, lambda *_: None).id


def bring(run: str, cell: str, archive: bytes) -> str:
    """Load a cell's image that another worker has built, by a name that `./lab clean` removes, and return its id here.
    `archive` is that of `save`."""
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
