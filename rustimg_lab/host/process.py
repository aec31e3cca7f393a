"""Runs commands of this machine, and tells the processes of this clone apart."""

import atexit
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from rustimg_lab.errors import LabError
from rustimg_lab.host import files, proxy
from rustimg_lab.paths import STATE

Made = TypeVar("Made")
# What others have set for work of their own: the names by which git tells a hook its repository, where the lab asks for
# that of a folder; and the platform of images, which is a cell's here.
OF_OTHERS = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}
OF_OTHERS |= {"DOCKER_DEFAULT_PLATFORM"}
_running: set[subprocess.Popen] = set()
_stopping = threading.Event()


class CommandError(LabError):
    """A command that failed: `args_`, `code`, `stdout`, `stderr`; `disk_full`: it said that a disk is full."""

    def __init__(self, args: list[str], code: int, stdout: str, stderr: str):
        self.args_, self.code, self.stdout, self.stderr = args, code, stdout, stderr
        self.disk_full = files.is_full(stderr)
        said = proxy.redact(stderr.strip() or stdout.strip() or "it printed nothing").splitlines()
        super().__init__(f"'{shlex.join(args[:3])} ...' failed with exit code {code}: {said[-1]}")


def run(
    args: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float | None = None
) -> str:
    """Run a command; returns its standard output. Raises CommandError, or LabError for none and after `timeout` s."""
    options = {"env": _environment(env or {}), "cwd": cwd, "timeout": timeout}
    try:
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", **options)
    except subprocess.TimeoutExpired:
        raise LabError(f"'{args[0]}' did not end within {timeout:.0f} s") from None
    except FileNotFoundError:
        raise LabError(f"there is no command '{args[0]}' on this machine; install it, or see ./lab doctor") from None
    except OSError as error:  # of another system, or on a disk whose files may not be executed
        raise LabError(f"{args[0]} cannot be executed ({error.strerror}); remove or replace it") from None
    if done.returncode:
        raise CommandError(args, done.returncode, done.stdout, done.stderr)
    return done.stdout


@contextmanager
def background(args: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A command that runs as long as the block does, its output thrown away."""
    process = _start(args, env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def stream(args: list[str], on_line: Callable[[str], None]) -> int:
    """Runs a command, hands each line of its output on, and returns its exit code, in any thread; `stopping` ends it.
    It has a session of its own: Ctrl-C reaches the lab alone, which then ends the command in order."""
    if _stopping.is_set():
        return -signal.SIGINT
    process = _start(args, {}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    _running.add(process)
    if _stopping.is_set():  # since it was asked above: `stopping` may have looked before this one was there
        process.send_signal(signal.SIGINT)
    try:
        for line in process.stdout:
            on_line(line)
        return process.wait()
    finally:
        _running.discard(process)


@contextmanager
def stopping() -> Iterator[None]:
    """Ends every streamed command: by interrupt, and after ten seconds by force. None can start in the block."""
    _stopping.set()
    try:
        for process in list(_running):
            process.send_signal(signal.SIGINT)
        for process in list(_running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        yield
    finally:
        _stopping.clear()


def side_by_side(work: Callable[..., Made], calls: Iterable[tuple], jobs: int) -> Iterator[tuple[int, Made]]:
    """Calls `work` with each of the `calls` (its arguments), `jobs` at once in threads; yields the place of each and
    what it returned, as they end. Raises what `work` raises. Read it in `closing`: on an error, or Ctrl-C, no other
    streamed command begins, and those that run are ended."""
    with ThreadPoolExecutor(jobs) as pool:
        places = {pool.submit(work, *each): place for place, each in enumerate(calls)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except BaseException:
            with stopping():
                pool.shutdown(cancel_futures=True)
            raise


def _start(args: list[str], env: dict[str, str], **options: Any) -> subprocess.Popen:
    """Start a command in a session of its own, which the kernel ends with the lab where util-linux can ask it to."""
    return subprocess.Popen([*_tied(), *args], start_new_session=True, env=_environment(env), **options)


@cache
def _tied() -> tuple[str, ...]:
    """Return the words that make a command end with the lab; none without a setpriv that can (not BusyBox's)."""
    command = ("setpriv", "--pdeathsig=TERM", "--")
    with suppress(OSError):
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return ()


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of every command: the user's, the proxy's variables in both cases, and `more`."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_OTHERS}
    english = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}  # what commands say is read, as that a disk is full
    return {**inherited, **english, **proxy.environment(), **more}


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder below `.lab` for as long as the block lasts; what a lab that was killed has left goes first."""
    for left in STATE.glob("work-*"):
        if not lives("-".join(left.name.split("-")[1:3])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix=f"work-{process_name()}-") as folder:
        yield Path(folder)


def process_name() -> str:
    """Return a name for this process that no other of this clone has: its number and a random word. It holds a lock on
    a file of that name below `.lab`, by which others see that it runs, also from another PID namespace."""
    return _named_process(os.getpid())


@cache
def _named_process(pid: int) -> str:
    STATE.mkdir(exist_ok=True)
    name = f"{pid}-{uuid.uuid4().hex[:8]}"
    part, lock = STATE / f".process-{name}", STATE / f"process-{name}"
    # Locked before it has its name, and until the process ends: nothing closes it before.
    fcntl.flock(os.open(part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644), fcntl.LOCK_EX)
    part.rename(lock)
    atexit.register(lock.unlink, missing_ok=True)
    return name


def lives(name: str) -> bool:
    """Whether the lab's process of that name (see `process_name`) still runs. The lock of one that ended is removed."""
    lock = STATE / f"process-{name}"
    if name == process_name():
        return True
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    lock.unlink(missing_ok=True)
    return False
