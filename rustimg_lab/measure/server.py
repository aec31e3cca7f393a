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
from rustimg_lab.measure.plan import FailedTrial
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
    """Run the image's server while the block lasts, in a network of its own or that of its services. Yields it with a
    client's container.

    `tools` is the benchmark tools image. A server that knows of `deadline_s` ends by itself after so many seconds; the
    lab's next call removes others. `cpus` and `service_cpus` are as in `--cpuset-cpus`; `memory_bytes` is a limit
    without swap (0 for none). `under` is the command of a tool that runs the server, `files` a tar archive for /.
    `settings` are variables for the allocator or that tool. `options` are for the server's container, `client` for the
    client's, which `shares_processes` puts into the server's PID namespace. Raises FailedTrial, with the last log
    lines, when the server does not start or answers wrongly."""
    values = {"host": "0.0.0.0", "port": workload.port, "workers": workers, "deadline_s": deadline_s}
    arguments, environment = workload.serve.invocation(**values)
    environment |= settings or {}
    command = [*images.command_under(image, under), *arguments]
    options |= {"network_mode": "none", "environment": environment, "cpuset_cpus": cpus}
    limit = {"mem_limit": memory_bytes, "memswap_limit": memory_bytes} if memory_bytes else {}
    with ExitStack() as stack:
        network = stack.enter_context(services.run_services(workload.services, service_cpus))
        services.run_before(image, workload.serve, **options | network)
        server = stack.enter_context(started("server", image, files, command=command, **options | network | limit))
        mode = f"container:{server.id}"
        extras = {"network_mode": mode} | network | ({"pid_mode": mode} if shares_processes else {}) | (client or {})
        try:
            generator = started("load generator", tools, command=["sleep", str(deadline_s)], **extras)
            client_container = stack.enter_context(generator)
        except FailedTrial as lost:
            raise (lost if is_running(server) else _ended_error(server)) from None
        yield Server(server, client_container, *first_answer(server, client_container, workload))


def wait_for(word: bytes, container: Container, label: str, timeout_s: float) -> None:
    """Wait until a container has printed `word`. Raises FailedTrial when the container ends before, or after
    `timeout_s` seconds. The error names the container by `label`."""
    start_s = time.monotonic()
    while word not in container.logs():
        if time.monotonic() - start_s > timeout_s or not is_running(container):
            raise FailedTrial(f"the {label} does not start{last_words(container)}")
        time.sleep(0.05)


def first_answer(server: Container, client: Container, workload: Workload) -> tuple[int, int]:
    """Wait for the server to answer, and return the bytes of the answer, with headers and without. Raises FailedTrial
    when there is no right answer in time, or when nothing outside of the container reaches the server. It also raises
    FailedTrial when the server closes a connection that it should keep."""
    start_s, timeout_s = time.monotonic(), workload.serve.start_timeout_s
    while True:
        try:
            report = ask(client, "ask", workload, seconds=LOOK_S)
        except FailedTrial as lost:
            raise (lost if is_running(server) else _ended_error(server)) from None
        if "answer_bytes" in report:
            if reason := unreachable_reason(report["sockets"], workload.port):
                raise FailedTrial(reason)
            if report["closes"] and workload.serve.keep_alive:
                raise FailedTrial(
                    "the server closes its connection after each answer: set keep_alive = false in [serve]"
                )
            return report["answer_bytes"], report["body_bytes"]
        if problem := report.get("wrong") or report.get("failed"):
            with suppress(RequestException):
                server.wait(timeout=LOOK_S)  # one that ends soon says why
            raise FailedTrial(f"{problem}{last_words(server)}")
        if not is_running(server):
            raise _ended_error(server)
        if time.monotonic() - start_s > timeout_s:
            hint = other_address_reason(report["sockets"], workload.port) or f" ({report['no_answer']})"
            hint += "" if _listening(report["sockets"]) else "; one that starts slowly has longer by start_timeout_s"
            raise FailedTrial(f"no answer within {timeout_s} s{hint}{last_words(server)}")


def unreachable_reason(sockets: str, port: int) -> str:
    """Return why nothing outside of a container reaches its server on `port`; "" when something does. `sockets` has the
    kernel's tables of the container's sockets (/proc/net)."""
    addresses = [address for address, bound_port in _listening(sockets) if bound_port == port]
    if addresses and all(address.is_loopback for address in addresses):
        listing = " and ".join(map(str, addresses))
        return f"listens on {listing} alone, which nothing outside of its container reaches: it must listen on 0.0.0.0"
    return ""


def other_address_reason(sockets: str, port: int) -> str:
    """Return where a server listens instead of on 0.0.0.0 and `port`; "" when it listens there. `sockets` has the
    kernel's tables of the container's sockets (/proc/net)."""
    listeners = _listening(sockets)
    if any(address.version == 4 and not address.is_loopback for address, bound_port in listeners if bound_port == port):
        return ""
    places = [f"{address} port {bound_port}" for address, bound_port in listeners]
    places += [f"the Unix socket {path}" for path in re.findall(r" 00010000 \w+ \w+ +\d+ (\S+)", sockets)]
    listing = ", ".join(places) or "no port"
    return f"; it listens on {listing}, and must on 0.0.0.0 port {port}, which [serve] passes to it"


def _listening(sockets: str) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    listeners = []
    for text, port in re.findall(r": ([0-9A-F]{8,32}):([0-9A-F]{4}) \w+:\w+ 0A ", sockets):
        words = (bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))  # of the machine's byte order
        address = ipaddress.ip_address(b"".join(words))
        listeners.append((getattr(address, "ipv4_mapped", None) or address, int(port, 16)))
    return [listener for listener in listeners if str(listener[0]) != DOCKERS_NAMES]


def _ended_error(server: Container) -> FailedTrial:
    code = None
    with suppress(APIError, RequestException):
        code = server.wait(timeout=LOOK_S)["StatusCode"]
    hint = ", with exit code 0: it must stay in the foreground" if code == 0 else ""
    return FailedTrial(f"the server ended before it answered{hint}{last_words(server)}")


def ask(client: Container, mode: str, workload: Workload, **fields: Any) -> dict[str, Any]:
    """Run a mode of `tools/client.py` in the client's container, and return the JSON object that it prints. `fields`
    are added to the workload's request. Raises FailedTrial when the client fails or prints no such object."""
    code, data = run_in(client, "the load generator is gone", [*CLIENT, mode, json.dumps(workload.request() | fields)])
    last_line = data.decode(errors="replace").strip().rpartition("\n")[2]
    if code or not last_line.startswith("{"):
        raise FailedTrial(f"the load generator failed with exit code {code}: {last_line[:200]}")
    return json.loads(last_line)


def hold_connections(server: Server, workload: Workload, open_count: int, count: int, seconds: int) -> None:
    """Open connections until there are `count`, with the `open_count` that are open. Each gets one answer and stays
    open for `seconds`, or until the client's container ends. Raises FailedTrial when a connection fails, or the server
    closes one."""
    fields = {"held": open_count, "count": count - open_count, "answer_bytes": server.answer_bytes, "seconds": seconds}
    command = [*CLIENT, "hold", json.dumps(workload.request() | fields)]
    _, output = run_in(server.client, "the load generator is gone", command, stream=True)
    data = b""
    while b"\n" not in data and (piece := next(output, b"")):
        data += piece
    text = data.decode(errors="replace").strip()
    report = json.loads(text) if text.startswith("{") else {"failed": text[:200]}
    if "held" not in report:
        raise FailedTrial(report.get("failed") or report.get("wrong") or "the load generator held no connection")


def run_in(container: Container, prefix: str, command: list[str], **options: Any) -> tuple[int, Any]:
    """Run a command in a container. Returns its exit code, and its output as docker's `exec_run` returns it with these
    `options`. Raises FailedTrial, with a text that begins with `prefix`, when the engine does not run the command."""
    try:
        return container.exec_run(command, **options)
    except APIError as error:
        raise FailedTrial(f"{prefix}: {error.explanation}") from None


def cpu_ns(container: Container) -> int | None:
    """Return the CPU time that a container has used, user and system, in nanoseconds. The engine reads it from the
    cgroup (v1 or v2). None means that the engine reports none. Raises FailedTrial when the container is gone."""
    try:
        return inspection.cpu_ns(container.stats(stream=False, one_shot=True))
    except APIError as error:
        raise FailedTrial(f"the container is gone: {error.explanation}") from None


def settled_cpu_ns(container: Container) -> int | None:
    """Return a container's CPU time in nanoseconds (None: unknown) once it is idle, at the latest after `SETTLE_S`
    seconds. By then the server has done what the load generator left unanswered. Raises FailedTrial when the container
    is gone."""
    start_s, used_ns = time.monotonic(), cpu_ns(container)
    while used_ns is not None and time.monotonic() - start_s < SETTLE_S:
        time.sleep(LOOK_AT_CPU_S)
        previous_ns, used_ns = used_ns, cpu_ns(container)
        if used_ns is None or used_ns - previous_ns < IDLE_NS:
            break
    return used_ns


def cpu_row(metric: Metric, before_ns: int | None, after_ns: int | None, per_ns: float) -> Observation:
    """Return a row of the CPU time between two results of `cpu_ns`, divided by `per_ns`. If one of them is None, the
    row has no value and is not ok."""
    if before_ns is None or after_ns is None:
        return Observation(metric, None, ok=False, reason=NO_CPU_TIME)
    return Observation(metric, (after_ns - before_ns) / per_ns)
