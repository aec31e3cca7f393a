"""A Dask scheduler and workers for tests: processes of their own on 127.0.0.1, ended with the block."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rustimg_lab.host import machine
from rustimg_lab.paths import STATE
from rustimg_lab.pipeline import cluster
from support.lab import wait_for

TIED = ("setpriv", "--pdeathsig=TERM", "--")
START_TIMEOUT_S = 60


@contextmanager
def scheduler(log: Path, *options: str) -> Iterator[str]:
    """Run a scheduler; returns its address."""
    port = machine.free_port()
    line = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    with _process(log, [*line, *options], {}):
        assert wait_for(lambda: _listens(port), START_TIMEOUT_S), log.read_text()
        yield f"{'tls' if options else 'tcp'}://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def worker(address: str, name: str, log: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """Run a worker with the lab's resource, as `./lab worker` does, which needs an engine."""
    line = ["-m", "distributed.cli.dask_worker", address, "--name", name, "--nthreads", "1", "--no-dashboard"]
    line += ["--resources", f"{cluster.RESOURCE}=1", "--local-directory", str(STATE / "dask")]
    with _process(log, line, environment) as process:
        yield process


def wait_for_workers(log: Path, count: int) -> None:
    """Wait until so many workers, which all write to that log, are known to their scheduler."""
    assert wait_for(lambda: log.read_text().count("Starting Worker plugin shuffle") >= count, START_TIMEOUT_S)


@contextmanager
def _process(log: Path, line: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    with log.open("a") as file:
        process = subprocess.Popen(
            [*TIED, sys.executable, *line], stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **environment},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def told(arguments: tuple[str, str]) -> tuple[str, int]:
    """Do in a worker what takes no engine: wait so many seconds, and note the process in a file. Returns both."""
    path, seconds = arguments
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(float(seconds))
    return path, os.getpid()


def deadly(arguments: tuple[str]) -> None:
    """End the worker that is asked to do this."""
    os.kill(os.getpid(), signal.SIGKILL)
