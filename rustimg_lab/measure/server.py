"""A server in a container with a network of its own, and the container that sends it requests. No image needs a
shell for this.

The server has a loopback interface and no other. A second container, of the image of the benchmark tools, joins that
network and asks on 127.0.0.1. So it is everywhere alike: where the engine is rootless, in a virtual machine, or on
another machine, and whatever else listens on the engine's machine.
"""

import ipaddress
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container
from requests.exceptions import RequestException

from rustimg_lab.engine import images, inspection
from rustimg_lab.engine.containers import is_running, last_words
from rustimg_lab.measure import services
from rustimg_lab.measure.plan import Lost
from rustimg_lab.measure.services import started
from rustimg_lab.measure.workloads import Workload
from rustimg_lab.model.metrics import Metric
from rustimg_lab.store.rows import Observation

CLIENT = ("python3", "/client/client.py")
NO_CPU_TIME = "the engine does not tell the CPU time of a container from its cgroup, or wrongly (see ./lab doctor)"
DOCKERS_NAMES = "127.0.0.11"  # where Docker's own name server listens in a container
SETTLE_S, LOOK_AT_CPU_S, IDLE_NS = 3.0, 0.05, 1e6  # a server that uses less CPU time between two looks is idle
LOOK_S = 0.5  # how often a server that does not answer is looked at; how long an end is waited for


@dataclass(frozen=True)
class Server:
    """A server that answers, and the container of the benchmark tools in its network. `answer_bytes` is what it sends
    for one request, with headers; `body_bytes` without."""

    container: Container
    client: Container
    answer_bytes: int
    body_bytes: int


@contextmanager
def serving(
    image: str,
    workload: Workload,
    tools: str,
    *,
    workers: int,
    deadline_s: int,
    cpus: str = "",
    service_cpus: str = "",
    memory_bytes: int = 0,
    under: Sequence[str] = (),
    files: bytes = b"",
    client: dict[str, Any] | None = None,
    settings: dict[str, str] | None = None,
    shares_processes: bool = False,
    **options: Any,
) -> Iterator[Server]:
    """Start the image as its Dockerfile says, in a network of its own or its services', and remove it after the block.

    `tools`: the image of the benchmark tools. A server that knows `deadline_s` ends by itself then; the next call of
    the lab removes others. `memory_bytes`: its limit, without swap, 0 for none. `under`: the command of a tool that
    runs it; `files`: a tar archive for /; `settings`: variables for its allocator or that tool; `options`: the
    container's; `client`: those of the one that asks, which is in the server's PID namespace where it
    `shares_processes`. Raises Lost, with the last log lines, when it does not start or give the one right answer.
    """
    told = {"host": "0.0.0.0", "port": workload.port, "workers": workers, "deadline_s": deadline_s}
    arguments, environment = workload.serve.told(**told)
    environment |= settings or {}
    command = [*images.command_under(image, under), *arguments]
    options |= {"network_mode": "none", "environment": environment, "cpuset_cpus": cpus}
    limit = {"mem_limit": memory_bytes, "memswap_limit": memory_bytes} if memory_bytes else {}
    with ExitStack() as containers:
        network = containers.enter_context(services.beside(workload.services, service_cpus))
        services.run_before(image, workload.serve, **options | network)
        server = containers.enter_context(started("server", image, files, command=command, **options | network | limit))
        there = f"container:{server.id}"
        beside = {"network_mode": there} | network | ({"pid_mode": there} if shares_processes else {}) | (client or {})
        try:
            generator = started("load generator", tools, command=["sleep", str(deadline_s)], **beside)
            asking = containers.enter_context(generator)
        except Lost as lost:
            raise (lost if is_running(server) else _ended(server)) from None
        yield Server(server, asking, *first_answer(server, asking, workload))


def wait_for(word: bytes, container: Container, what: str, timeout_s: float) -> None:
    """Wait until a container has printed `word`. Raises Lost, naming `what`, when it ends or takes over `timeout_s`."""
    begun = time.monotonic()
    while word not in container.logs():
        if time.monotonic() - begun > timeout_s or not is_running(container):
            raise Lost(f"the {what} does not start{last_words(container)}")
        time.sleep(0.05)


def first_answer(server: Container, client: Container, workload: Workload) -> tuple[int, int]:
    """Wait for the server to answer. Returns the bytes of the answer, with headers and without. Raises Lost, also where
    it answers nothing outside of its container, or ends a connection that it should keep."""
    begun, timeout_s = time.monotonic(), workload.serve.start_timeout_s
    while True:
        try:
            told = ask(client, "ask", workload, seconds=LOOK_S)
        except Lost as lost:
            raise (lost if is_running(server) else _ended(server)) from None
        if "answer_bytes" in told:
            if reason := not_reached(told["sockets"], workload.port):
                raise Lost(reason)
            if told["closes"] and workload.serve.keep_alive:
                raise Lost("the server closes its connection after each answer: set keep_alive = false in [serve]")
            return told["answer_bytes"], told["body_bytes"]
        if wrong := told.get("wrong") or told.get("failed"):
            with suppress(RequestException):
                server.wait(timeout=LOOK_S)  # one that ends soon says why
            raise Lost(f"{wrong}{last_words(server)}")
        if not is_running(server):
            raise _ended(server)
        if time.monotonic() - begun > timeout_s:
            where = unasked(told["sockets"], workload.port) or f" ({told['no_answer']})"
            where += "" if _listening(told["sockets"]) else "; one that starts slowly has longer by start_timeout_s"
            raise Lost(f"no answer within {timeout_s} s{where}{last_words(server)}")


def not_reached(sockets: str, port: int) -> str:
    """Return why nothing outside reaches a server on `port`, by the kernel's `sockets`; "" if something does."""
    here = [address for address, at in _listening(sockets) if at == port]
    if here and all(address.is_loopback for address in here):
        where = " and ".join(map(str, here))
        return f"listens on {where} alone, which nothing outside of its container reaches: it must listen on 0.0.0.0"
    return ""


def unasked(sockets: str, port: int) -> str:
    """Return where a server listens that is not asked there, by the same tables; "" when it is, on 0.0.0.0."""
    found = _listening(sockets)
    if any(address.version == 4 and not address.is_loopback for address, at in found if at == port):
        return ""
    named = [f"{address} port {at}" for address, at in found]
    named += [f"the Unix socket {path}" for path in re.findall(r" 00010000 \w+ \w+ +\d+ (\S+)", sockets)]
    where = ", ".join(named) or "no port"
    return f"; it listens on {where}, and must on 0.0.0.0 port {port}, which [serve] passes to it"


def _listening(sockets: str) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    found = []
    for text, port in re.findall(r": ([0-9A-F]{8,32}):([0-9A-F]{4}) \w+:\w+ 0A ", sockets):
        words = (bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))  # of the machine's byte order
        address = ipaddress.ip_address(b"".join(words))
        found.append((getattr(address, "ipv4_mapped", None) or address, int(port, 16)))
    return [each for each in found if str(each[0]) != DOCKERS_NAMES]


def _ended(server: Container) -> Lost:
    code = None
    with suppress(APIError, RequestException):
        code = server.wait(timeout=LOOK_S)["StatusCode"]
    how = ", with exit code 0: it must stay in the foreground" if code == 0 else ""
    return Lost(f"the server ended before it answered{how}{last_words(server)}")


def ask(client: Container, mode: str, workload: Workload, **more: Any) -> dict[str, Any]:
    """Run `client.py` (see there) in the client's container; what it told. Raises Lost when it told nothing."""
    code, said = run_in(client, "the load generator is gone", [*CLIENT, mode, json.dumps(workload.request() | more)])
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    if code or not last.startswith("{"):
        raise Lost(f"the load generator failed with exit code {code}: {last[:200]}")
    return json.loads(last)


def hold(server: Server, workload: Workload, held: int, count: int, seconds: int) -> None:
    """Open connections beside those that are `held`, until there are `count`: each has one answer, and stays open for
    `seconds`, or as long as the client's container is there. Raises Lost when one fails, or the server closes one."""
    more = {"held": held, "count": count - held, "answer_bytes": server.answer_bytes, "seconds": seconds}
    command = [*CLIENT, "hold", json.dumps(workload.request() | more)]
    _, output = run_in(server.client, "the load generator is gone", command, stream=True)
    said = b""
    while b"\n" not in said and (piece := next(output, b"")):
        said += piece
    last = said.decode(errors="replace").strip()
    told = json.loads(last) if last.startswith("{") else {"failed": last[:200]}
    if "held" not in told:
        raise Lost(told.get("failed") or told.get("wrong") or "the load generator held no connection")


def run_in(container: Container, gone: str, command: list[str], **options: Any) -> tuple[int, Any]:
    """Run a command in a container as docker's `exec_run`: exit code, output. Raises Lost, which begins with `gone`."""
    try:
        return container.exec_run(command, **options)
    except APIError as error:
        raise Lost(f"{gone}: {error.explanation}") from None


def cpu_ns(container: Container) -> int | None:
    """The CPU time (user, system) of a container, by its cgroup; None where none is told. Raises Lost if it is gone."""
    try:
        return inspection.cpu_ns(container.stats(stream=False, one_shot=True))
    except APIError as error:
        raise Lost(f"the container is gone: {error.explanation}") from None


def settled_cpu_ns(container: Container) -> int | None:
    """`cpu_ns` once the container uses hardly any, after `SETTLE_S` at most: then nothing is left unanswered."""
    begun, used = time.monotonic(), cpu_ns(container)
    while used is not None and time.monotonic() - begun < SETTLE_S:
        time.sleep(LOOK_AT_CPU_S)
        before, used = used, cpu_ns(container)
        if used is None or used - before < IDLE_NS:
            break
    return used


def cpu_row(metric: Metric, before_ns: int | None, after_ns: int | None, per_ns: float) -> Observation:
    """A row of the CPU time between two calls of `cpu_ns` over `per_ns`; not ok, with the reason, where one is None."""
    if before_ns is None or after_ns is None:
        return Observation(metric, None, ok=False, reason=NO_CPU_TIME)
    return Observation(metric, (after_ns - before_ns) / per_ns)
