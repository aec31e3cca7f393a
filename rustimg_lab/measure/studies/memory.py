"""Memory of a server: under load and after it, per connection, and the smallest limit under which it still answers.

Resident memory is read inside the server's own PID namespace, which the load generator's container shares: the same on
cgroup v1 and v2, and where the engine runs in a virtual machine. It is that of process 1 and of all that it has
started, an init that stands before the program among them; what processes share counts for each. What is resident now
is the sum over the page tables (smaps_rollup, proc_pid_smaps(5)); the peak is the kernel's high-water mark (VmHWM,
proc_pid_status(5)), whose counters may lag by some hundred KiB. Both count the binary's and the libraries' own pages so
far as they were used; anonymous memory, which is heap and stacks, is told apart. Socket buffers are the kernel's and in
none of them.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import sqrt
from statistics import median_high
from typing import Any

from docker.models.containers import Container
from docker.types import Ulimit

from rustimg_lab.engine import images
from rustimg_lab.engine.client import engine_info
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.load import Load, ask, serve
from rustimg_lab.measure.plan import Lost, PlanError, Studies, Treatment
from rustimg_lab.measure.server import hold, run_in
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import REST
from rustimg_lab.store.rows import Observation

KIND = "memory"
CONNECTIONS = (1, 100, 1000)
OPEN_FILES = CONNECTIONS[-1] + 100  # of the container that holds the connections
LOOK_S = 0.1  # between two looks at a server under load
LIMITS = 5  # blocks of the bisection: each trial of it is some eight loads
SMALLEST_BYTES = metrics.SMALLEST_LIMIT_BYTES.least
LARGEST_BYTES = 1 << 30
KEPT = 0.5  # of its rate without a limit, or a server has too little memory
STEP = 1.02  # the bisection ends when the limits that do and do not suffice are so near to each other
READS = 3  # Podman loses the output of a command that ends at once, in 1 of 60 calls of Podman 5.4.2
_LINES = ("VmHWM:", "Rss:", "Anonymous:")
# Of all processes, those that end meanwhile left out, and those that this user may not read; one call, since it takes
# CPU time beside the load.
_FIND = f"exec grep -sHE '^(PPid:|{'|'.join(_LINES)})' /proc/[0-9]*/status /proc/[0-9]*/smaps_rollup"


def plan(context: StudyContext) -> Studies:
    """The studies of a server's memory, and how they are measured: under load, by connections, and the smallest limit,
    where the engine keeps containers to one. Raises PlanError when machine or plan do not fit."""
    for load in context.loads:
        yield from _of_load(context, load)


def plan_rest(context: StudyContext) -> Studies:
    """The study of each load in which memory is read once more a while after it. Raises PlanError as `plan`, and where
    the run has no throughput study of the load, beside which it is shown."""
    for load in context.loads:
        if f"throughput-{load.name}" not in context.run.environment.get("studies", {}):
            asked = "call `./lab measure --study throughput` with the same options first"
            raise PlanError(f"run '{context.run.name}' has no throughput study of the load {load.name}: {asked}")
        parameters = load.parameters() | {"rest_s": context.plan.rest_s}
        study = context.study(f"{REST}-{load.name}", REST, metrics.RESTED_RSS_BYTES, parameters)
        yield study, partial(measure_load, load=load, tools=context.tools, rest_s=context.plan.rest_s)


def _of_load(context: StudyContext, load: Load) -> Studies:
    asked, about = {"load": load, "tools": context.tools}, engine_info()
    limits_memory = about.limits_memory and context.holds("limits_memory")
    parameters = load.parameters()
    if not limits_memory:
        _warn(parameters, "this engine keeps no container to a memory limit: the smallest is not measured")
    asks = load.workload.serve
    holds = asks.http == 1 and asks.keep_alive and not asks.tls
    if not holds:
        _warn(parameters, "connections are held over plain HTTP/1.1 alone: what each takes is not measured")
    under_load = {"of": "load", **parameters}
    study = context.study(f"memory-load-{load.name}", KIND, metrics.STEADY_RSS_BYTES, under_load)
    yield study, partial(measure_load, **asked)

    shared = {key: parameters[key] for key in ("workload", "workers", "server_cpus", "generator_cpus", "network")}
    held = {"of": "connections", **shared, "connections": list(CONNECTIONS), "warning": ""}
    name, metric = f"memory-connections-{load.workload.name}-{load.workers}w", metrics.rss_at(CONNECTIONS[-1])
    if holds:
        yield context.study(name, KIND, metric, held), partial(measure_connections, **asked)
    if not limits_memory:
        return

    if not (about.limits_swap and context.holds("limits_swap")):
        _warn(parameters, "the engine cannot keep it from swap")
    bisected = {"of": "limit", **parameters, "step": STEP, "kept": KEPT}
    fewer = min(context.plan.blocks, LIMITS)
    study = context.study(f"memory-limit-{load.name}", KIND, metrics.SMALLEST_LIMIT_BYTES, bisected, blocks=fewer)
    yield study, partial(measure_limit, **asked)


def _warn(parameters: dict[str, Any], warning: str) -> None:
    parameters["warning"] = "; ".join(filter(None, [parameters["warning"], warning]))


def measure_load(treatment: Treatment, load: Load, tools: str, rest_s: int = 0) -> list[Observation]:
    """One trial: resident before the load, while it lasts (the median of all looks), and the peak; and `rest_s` seconds
    after it, where that is not 0, with all connections closed. Raises Lost."""
    rested = []
    user = images.inspect(treatment.image).user
    with serve(treatment, load, tools, rest_s, shares_processes=True) as server, ThreadPoolExecutor(1) as pool:
        idle = _resident(server.client, user)
        ask(server, load, load.warmup_s)
        asked = pool.submit(ask, server, load, load.seconds)
        seen = []
        while not asked.done():
            seen.append(_resident(server.client, user))
            time.sleep(LOOK_S)
        asked.result()
        if rest_s:
            time.sleep(rest_s)
            rested = [_observation(metrics.RESTED_RSS_BYTES, _resident(server.client, user).get("Rss:"))]
    return [
        *rested,
        _observation(metrics.IDLE_RSS_BYTES, idle.get("Rss:")),
        _observation(metrics.STEADY_RSS_BYTES, _median(seen, "Rss:")),
        _observation(metrics.STEADY_ANONYMOUS_BYTES, _median(seen, "Anonymous:")),
        _observation(metrics.PEAK_RSS_BYTES, seen[-1].get("VmHWM:")),
    ]


def measure_connections(treatment: Treatment, load: Load, tools: str) -> list[Observation]:
    """One trial: resident with no connection, and with so many open that have each had one answer. Raises Lost."""
    client = {"ulimits": [Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES)]}
    user = images.inspect(treatment.image).user
    with serve(treatment, load, tools, shares_processes=True, client=client) as server:
        found = [_observation(metrics.rss_at(0), none := _resident(server.client, user).get("Rss:"))]
        held = 0
        for count in CONNECTIONS:
            hold(server, load.workload, held, count, load.deadline_s)
            held = count
            now = _resident(server.client, user).get("Rss:")
            found.append(_observation(metrics.rss_at(count), now))
            each = None if None in (now, none) else (now - none) / count
            found.append(_observation(metrics.bytes_per_connection_at(count), each))
    return found


def measure_limit(treatment: Treatment, load: Load, tools: str) -> list[Observation]:
    """One trial: the smallest memory limit under which a fresh server answers the whole load, by bisection, or the
    engine's smallest, and the requests per second there and without a limit. A server below `KEPT` of its own rate has
    too little: it waits for its own code, which the kernel drops and reads again. Raises Lost."""
    free = _rate(treatment, load, tools, 0, 0)
    needed = KEPT * free
    too_small, enough, told = 0, SMALLEST_BYTES, 0.0
    while not told:
        try:
            told = _rate(treatment, load, tools, enough, needed)
        except Lost as lost:
            too_small, enough = enough, 2 * enough
            if enough > LARGEST_BYTES:
                raise Lost(f"a limit of {too_small >> 20} MiB is too small too: {lost}") from None
    while too_small and enough / too_small > STEP:
        middle = int(sqrt(too_small * enough))
        try:
            enough, told = middle, _rate(treatment, load, tools, middle, needed)
        except Lost:
            too_small = middle
    detail = "" if too_small else "the engine takes no smaller limit"
    return [
        Observation(metrics.SMALLEST_LIMIT_BYTES, enough, detail=detail),
        Observation(metrics.REQUESTS_PER_S_AT_LIMIT, told),
        Observation(metrics.REQUESTS_PER_S, free),
    ]


def _rate(treatment: Treatment, load: Load, tools: str, memory_bytes: int, needed: float) -> float:
    """The requests per second under a memory limit. Raises Lost when one fails, or when they are fewer than needed."""
    with serve(treatment, load, tools, memory_bytes=memory_bytes) as server:
        _, per_s = ask(server, load, load.seconds)
    if per_s < needed:
        raise Lost(f"{per_s:.0f} requests per second, where {needed:.0f} are needed")
    return per_s


def _resident(beside: Container, user: str) -> dict[str, int]:
    """Bytes by the lines of `_LINES`, of the server in whose PID namespace the container `beside` is: sums over its
    processes, without those that the kernel does not tell of one. `user` is the server's, since a process may see the
    page tables of another only when it runs as the same user. Raises Lost when the server is gone."""
    for _ in range(READS):
        _, said = run_in(beside, "the server is gone", ["sh", "-c", _FIND], user=user)
        if said:
            break
    found: dict[int, dict[str, int]] = {}
    for process, line, number in re.findall(rb"^/proc/(\d+)/\w+:(\w+:)\s*(\d+)", said, re.MULTILINE):
        found.setdefault(int(process), {})[line.decode()] = int(number)
    of_server = [each for process, each in found.items() if _LINES[0] in each and _is_below(process, found)]
    told = [line for line in _LINES if all(line in each for each in of_server)] if of_server else []
    if not told:
        raise Lost(f"the server is gone, or its kernel tells nothing: {said[-200:].decode(errors='replace').strip()}")
    return {line: sum(each[line] for each in of_server) << 10 for line in told}


def _is_below(process: int, found: dict[int, dict[str, int]]) -> bool:
    """Whether a process is process 1 or was started by one that is. Of the load generator's the parent is elsewhere."""
    while process > 1:
        process = found.get(process, {}).get("PPid:", 0)
    return process == 1


def _median(seen: list[dict[str, int]], key: str) -> int | None:
    values = [each[key] for each in seen if key in each]
    return median_high(values) if values else None


def _observation(metric: str, value: float | None) -> Observation:
    reason = "the kernel does not tell it of the server's process" if value is None else ""
    if value is not None and value < 0:  # of connections, after a server has given memory back
        value, reason = None, "less was resident than without a connection"
    return Observation(metric, value, "B", ok=not reason, reason=reason)
