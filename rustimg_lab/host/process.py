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
    """A command that failed: `args_`, `code`, `stdout`, `stderr`; `disk_full`: its output reports a full disk."""

    def __init__(self, args: list[str], code: int, stdout: str, stderr: str):
        self.args_, self.code, self.stdout, self.stderr = args, code, stdout, stderr
        self.disk_full = files.is_full(stderr)
        lines = proxy.redact(stderr.strip() or stdout.strip() or "it printed nothing").splitlines()
        super().__init__(f"'{shlex.join(args[:3])} ...' failed with exit code {code}: {lines[-1]}")


def run(
    args: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float | None = None
) -> str:
    """Run a command to its end and return its standard output. Raises CommandError when the exit code is not 0. Raises
    LabError when the command is missing, cannot be executed, or takes longer than `timeout` (seconds)."""
    options = {"env": _environment(env or {}), "cwd": cwd, "timeout": timeout}
    try:
        result = subprocess.run(args, capture_output=True, text=True, errors="replace", **options)
    except subprocess.TimeoutExpired:
        raise LabError(f"'{args[0]}' did not end within {timeout:.0f} s") from None
    except FileNotFoundError:
        raise LabError(f"there is no command '{args[0]}' on this machine; install it, or see ./lab doctor") from None
    except OSError as error:  # of another system, or on a disk whose files may not be executed
        raise LabError(f"{args[0]} cannot be executed ({error.strerror}); remove or replace it") from None
    if result.returncode:
        raise CommandError(args, result.returncode, result.stdout, result.stderr)
    return result.stdout


@contextmanager
def background(args: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen]:
    """Run a command while the block runs, and yield its process. The output is discarded."""
    process = _start(args, env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def stream(args: list[str], on_line: Callable[[str], None]) -> int:
    """Run a command, pass each line of its output to `on_line` as it comes, and return its exit code.

    May be called from several threads; `stop_streams` ends what is running. The command gets a session of its own. So
    Ctrl-C reaches the lab alone, which then ends the command in order.
    """
    if _stopping.is_set():
        return -signal.SIGINT
    process = _start(args, {}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    _running.add(process)
    if _stopping.is_set():  # since it was asked above: `stop_streams` may have looked before this one was there
        process.send_signal(signal.SIGINT)
    try:
        for line in process.stdout:
            on_line(line)
        return process.wait()
    finally:
        _running.discard(process)


@contextmanager
def stop_streams() -> Iterator[None]:
    """End every streamed command: by interrupt, and after ten seconds by force. No command of `stream` can start in the
    block."""
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
    """Call `work` with the arguments of each of `calls`, `jobs` at a time in threads. Yield the place of each call in
    `calls` and its result, as the calls end. Raises what `work` raises.

    Read it in `closing`: on an error, or Ctrl-C, no other streamed command begins, and those that run are ended.
    """
    with ThreadPoolExecutor(jobs) as pool:
        places = {pool.submit(work, *arguments): place for place, arguments in enumerate(calls)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except BaseException:
            with stop_streams():
                pool.shutdown(cancel_futures=True)
            raise


def _start(args: list[str], env: dict[str, str], **options: Any) -> subprocess.Popen:
    """Start a command in a session of its own. It ends when the lab does, however the lab ends: the kernel ends it,
    where util-linux can request that."""
    return subprocess.Popen([*_parent_death_command(), *args], start_new_session=True, env=_environment(env), **options)


@cache
def _parent_death_command() -> tuple[str, ...]:
    """Return what precedes a command so that it ends with the lab. Return nothing without setpriv, or with one that
    cannot do so, such as BusyBox's."""
    command = ("setpriv", "--pdeathsig=TERM", "--")
    with suppress(OSError):
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return ()


def _environment(additions: dict[str, str]) -> dict[str, str]:
    """Return the environment of every command: the user's, the proxy's variables in both cases, and `additions`."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_OTHERS}
    locale = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}  # what commands say is read, as that a disk is full
    return {**inherited, **locale, **proxy.environment(), **additions}


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield an empty folder below `.lab` that lasts as long as the block. The folders of labs that were killed are
    removed first."""
    for leftover in STATE.glob("work-*"):
        if not lives("-".join(leftover.name.split("-")[1:3])):
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix=f"work-{process_name()}-") as folder:
        yield Path(folder)


def process_name() -> str:
    """Return a name for this process that no other process of this clone has: its number and a random word.

    The process holds a lock on a file of that name below `.lab` for as long as it runs. So another lab can tell that it
    runs, also from another PID namespace, where its number means nothing.
    """
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
    """Return whether the lab's process of that name (see `process_name`) still runs. Remove the lock of one that
    ended."""
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
