"""A server in a container of its own on 127.0.0.1, and what asks it. Nothing here needs a shell in the image."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import docker.errors
import requests

from rustimg_lab import engine
from rustimg_lab.host import free_port
from rustimg_lab.measure.trials import Lost
from rustimg_lab.measure.workloads import Workload

ANSWER_TIMEOUT_S = 20
POLL_S = 0.0005
NO_CPU_TIME = "the engine tells no CPU time of a container (unknown cgroup layout)"
LOOK_S = 0.5  # how often a server that does not answer is looked at; how long an end is waited for


@dataclass(frozen=True)
class Tool:
    """A program that a server is run under: its files (a tar archive for /), how it is called, its environment."""

    files: bytes
    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Server:
    """A server that answers. `answer_bytes` is what it sends for one request, with headers; `body_bytes` without."""

    container: engine.Container
    port: int
    answer_bytes: int
    body_bytes: int


@contextmanager
def serving(
    image: str,
    workload: Workload,
    *,
    workers: int,
    deadline_s: int,
    cpus: str = "",
    memory_bytes: int = 0,
    under: Tool | None = None,
    files: bytes = b"",
    **options: Any,
) -> Iterator[Server]:
    """Starts the image as its Dockerfile says, on the host's network, and removes it after the block.

    After `deadline_s` a server that knows of it ends by itself, whatever became of the lab; the next call of the lab
    removes others. `memory_bytes` is its limit, without swap; 0 for none. `under` runs it under a tool; `files` (a tar
    archive for /) are there beside it; `options` are the container's. Raises Lost, with the container's last log lines,
    when it does not start, or does not give the one right answer.
    """
    port = free_port()
    arguments, environment = workload.serve.told(host="127.0.0.1", port=port, workers=workers, deadline_s=deadline_s)
    command = [*engine.command(image), *arguments]
    if under:
        command = [*under.command, *command]
        environment |= under.environment
    limit = {"mem_limit": memory_bytes, "memswap_limit": memory_bytes} if memory_bytes else {}
    with started(
        "server", image, under.files if under else files,
        command=command, network_mode="host", environment=environment, cpuset_cpus=cpus, **limit, **options,
    ) as container:  # fmt: skip
        yield Server(container, port, *first_answer(container, port, workload))


@contextmanager
def started(what: str, image: str, files: bytes = b"", **options: Any) -> Iterator[engine.Container]:
    """A container of the image for as long as the block lasts, started with `files` (a tar archive) in it.

    Raises Lost, naming `what` it is, when the engine makes or starts none.
    """
    container = None
    try:
        try:
            container = engine.create_container(image, **options)
            if files:
                container.put_archive("/", files)
            container.start()
        except docker.errors.APIError as error:
            raise Lost(f"the {what} does not start: {engine.explained(error)}") from None
        yield container
    finally:
        if container:
            engine.remove_container(container)


def first_answer(container: engine.Container, port: int, workload: Workload) -> tuple[int, int]:
    """Waits for the container's server to answer; the bytes of the answer, as `ask_on`. Raises Lost."""
    begun = looked = time.monotonic()
    while True:
        try:
            return ask(port, workload)
        except Lost as lost:
            # Of who listens there, which need not be the container: then that ends soon, and says why.
            with suppress(requests.exceptions.RequestException):
                container.wait(timeout=LOOK_S)
            raise Lost(f"{lost}{engine.last_words(container)}") from None
        except OSError:
            now = time.monotonic()
            if now - begun > ANSWER_TIMEOUT_S:
                raise Lost(f"no answer within {ANSWER_TIMEOUT_S} s{engine.last_words(container)}") from None
            if now - looked > LOOK_S:
                looked = now
                if not engine.is_running(container):
                    raise Lost(f"the server ended before it answered{engine.last_words(container)}") from None
            time.sleep(POLL_S)


def ask(port: int, workload: Workload) -> tuple[int, int]:
    """Asks once, on a connection of its own; see `ask_on`."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_S) as connection:
        return ask_on(connection, workload)


def ask_on(connection: socket.socket, workload: Workload) -> tuple[int, int]:
    """Asks once; the bytes of the answer, headers included, and without them. Raises Lost when it is not the right one,
    OSError when the connection ends before the answer does."""
    request = (
        f"{workload.method} {workload.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(workload.body.encode())}\r\n\r\n{workload.body}"
    )
    connection.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += _receive(connection)
    head, _, body = head.partition(b"\r\n\r\n")
    length = re.search(rb"^content-length: (\d+)\r?$", head, re.IGNORECASE | re.MULTILINE)
    while length and len(body) < int(length[1]):
        body += _receive(connection)
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if not re.match(r"HTTP/1\.1 200\b", status):
        raise Lost(f"{workload.method} {workload.path} was answered with '{status[:40]}'")
    if not length:
        raise Lost(f"{workload.method} {workload.path} was answered without a Content-Length: its end cannot be told")
    if workload.answer is not None and body != workload.answer:
        raise Lost(f"{workload.method} {workload.path} was answered with the wrong body ({body[:40]!r}...)")
    return len(head) + 4 + len(body), len(body)


def cpu_ns(container: engine.Container) -> int | None:
    """The CPU time that a container has used, user and system, from its cgroup (v1 or v2) as the engine reads it; None
    where it tells none. Raises Lost when the container is gone."""
    try:
        told = container.stats(stream=False, one_shot=True)
    except docker.errors.APIError as error:
        raise Lost(f"the container is gone: {error.explanation}") from None
    return told.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage") or None


def _receive(connection: socket.socket) -> bytes:
    if not (data := connection.recv(1 << 16)):
        raise ConnectionResetError("the connection ended before the answer did")
    return data
