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
from rustimg_lab.measure.plan import FailedTrial, PlanError, Studies, Treatment
from rustimg_lab.measure.server import hold_connections, run_in
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
    """Yield the studies of a server's memory, each with the function that measures a trial: under load, by connections,
    and the smallest limit. The last one needs an engine that keeps containers to a limit. Raises PlanError when this
    machine has too few CPUs, or the baseline is unknown."""
    for load in context.loads:
        yield from _load_studies(context, load)


def plan_rest(context: StudyContext) -> Studies:
    """Yield a study of each load that reads memory again some seconds after the load, with the function that measures a
    trial. Raises PlanError as `plan` does, and when the run has no throughput study of the load, beside which it is
    shown."""
    for load in context.loads:
        if f"throughput-{load.name}" not in context.run.environment.get("studies", {}):
            hint = "call `./lab measure --study throughput` with the same options first"
            raise PlanError(f"run '{context.run.name}' has no throughput study of the load {load.name}: {hint}")
        parameters = load.parameters() | {"rest_s": context.plan.rest_s}
        study = context.study(f"{REST}-{load.name}", REST, metrics.RESTED_RSS_BYTES, parameters)
        yield study, partial(measure_load, load=load, tools=context.tools, rest_s=context.plan.rest_s)


def _load_studies(context: StudyContext, load: Load) -> Studies:
    options, info = {"load": load, "tools": context.tools}, engine_info()
    limits_memory = info.limits_memory and context.holds("limits_memory")
    parameters = load.parameters()
    if not limits_memory:
        _warn(parameters, "this engine keeps no container to a memory limit: the smallest is not measured")
    serve_options = load.workload.serve
    can_hold = serve_options.http == 1 and serve_options.keep_alive and not serve_options.tls
    if not can_hold:
        _warn(parameters, "connections are held over plain HTTP/1.1 alone: what each takes is not measured")
    load_parameters = {"of": "load", **parameters}
    study = context.study(f"memory-load-{load.name}", KIND, metrics.STEADY_RSS_BYTES, load_parameters)
    yield study, partial(measure_load, **options)

    shared_parameters = {
        key: parameters[key] for key in ("workload", "workers", "server_cpus", "generator_cpus", "network")
    }
    held_parameters = {"of": "connections", **shared_parameters, "connections": list(CONNECTIONS), "warning": ""}
    name, metric = f"memory-connections-{load.workload.name}-{load.workers}w", metrics.rss_at(CONNECTIONS[-1])
    if can_hold:
        yield context.study(name, KIND, metric, held_parameters), partial(measure_connections, **options)
    if not limits_memory:
        return

    if not (info.limits_swap and context.holds("limits_swap")):
        _warn(parameters, "the engine cannot keep it from swap")
    limit_parameters = {"of": "limit", **parameters, "step": STEP, "kept": KEPT}
    block_count = min(context.plan.blocks, LIMITS)
    study = context.study(
        f"memory-limit-{load.name}", KIND, metrics.SMALLEST_LIMIT_BYTES, limit_parameters, blocks=block_count
    )
    yield study, partial(measure_limit, **options)


def _warn(parameters: dict[str, Any], warning: str) -> None:
    parameters["warning"] = "; ".join(filter(None, [parameters["warning"], warning]))


def measure_load(treatment: Treatment, load: Load, tools: str, rest_s: int = 0) -> list[Observation]:
    """Run one trial and return resident memory in bytes: before the load, during it (the median of all reads), and the
    peak. If `rest_s` is not 0, memory is also read `rest_s` seconds after the load, with all connections closed. Raises
    FailedTrial when the load fails or the server is gone."""
    rest_rows = []
    user = images.inspect(treatment.image).user
    with serve(treatment, load, tools, rest_s, shares_processes=True) as server, ThreadPoolExecutor(1) as pool:
        idle_sample = _resident(server.client, user)
        ask(server, load, load.warmup_s)
        future = pool.submit(ask, server, load, load.seconds)
        samples = []
        while not future.done():
            samples.append(_resident(server.client, user))
            time.sleep(LOOK_S)
        future.result()
        if rest_s:
            time.sleep(rest_s)
            rest_rows = [_observation(metrics.RESTED_RSS_BYTES, _resident(server.client, user).get("Rss:"))]
    return [
        *rest_rows,
        _observation(metrics.IDLE_RSS_BYTES, idle_sample.get("Rss:")),
        _observation(metrics.STEADY_RSS_BYTES, _median(samples, "Rss:")),
        _observation(metrics.STEADY_ANONYMOUS_BYTES, _median(samples, "Anonymous:")),
        _observation(metrics.PEAK_RSS_BYTES, samples[-1].get("VmHWM:")),
    ]


def measure_connections(treatment: Treatment, load: Load, tools: str) -> list[Observation]:
    """Run one trial and return bytes of resident memory: without a connection, and with each number in `CONNECTIONS`
    open, in total and per connection. Each connection has had one answer. Raises FailedTrial when one fails."""
    client = {"ulimits": [Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES)]}
    user = images.inspect(treatment.image).user
    with serve(treatment, load, tools, shares_processes=True, client=client) as server:
        rows = [_observation(metrics.rss_at(0), idle_rss := _resident(server.client, user).get("Rss:"))]
        open_count = 0
        for count in CONNECTIONS:
            hold_connections(server, load.workload, open_count, count, load.deadline_s)
            open_count = count
            rss = _resident(server.client, user).get("Rss:")
            rows.append(_observation(metrics.rss_at(count), rss))
            per_connection = None if None in (rss, idle_rss) else (rss - idle_rss) / count
            rows.append(_observation(metrics.bytes_per_connection_at(count), per_connection))
    return rows


def measure_limit(treatment: Treatment, load: Load, tools: str) -> list[Observation]:
    """Run one trial: find the smallest memory limit in bytes under which a fresh server answers the whole load, by
    bisection. Returns rows of that limit, and of the requests per second there and without a limit. A limit is too
    small when the server fails, or keeps less than `KEPT` of its rate. Long before a kill, the server waits for its own
    code, which the kernel drops and reads again. Raises FailedTrial when the server fails without a limit, or under
    each limit up to `LARGEST_BYTES`."""
    free_rate = _rate(treatment, load, tools, 0, 0)
    needed_rate = KEPT * free_rate
    low_bytes, high_bytes, limit_rate = 0, SMALLEST_BYTES, 0.0
    while not limit_rate:
        try:
            limit_rate = _rate(treatment, load, tools, high_bytes, needed_rate)
        except FailedTrial as lost:
            low_bytes, high_bytes = high_bytes, 2 * high_bytes
            if high_bytes > LARGEST_BYTES:
                raise FailedTrial(f"a limit of {low_bytes >> 20} MiB is too small too: {lost}") from None
    while low_bytes and high_bytes / low_bytes > STEP:
        middle_bytes = int(sqrt(low_bytes * high_bytes))
        try:
            high_bytes, limit_rate = middle_bytes, _rate(treatment, load, tools, middle_bytes, needed_rate)
        except FailedTrial:
            low_bytes = middle_bytes
    detail = "" if low_bytes else "the engine takes no smaller limit"
    return [
        Observation(metrics.SMALLEST_LIMIT_BYTES, high_bytes, detail=detail),
        Observation(metrics.REQUESTS_PER_S_AT_LIMIT, limit_rate),
        Observation(metrics.REQUESTS_PER_S, free_rate),
    ]


def _rate(treatment: Treatment, load: Load, tools: str, memory_bytes: int, needed_rate: float) -> float:
    """The requests per second under a memory limit. Raises FailedTrial when one fails, or when they are fewer than
    needed."""
    with serve(treatment, load, tools, memory_bytes=memory_bytes) as server:
        _, per_s = ask(server, load, load.seconds)
    if per_s < needed_rate:
        raise FailedTrial(f"{per_s:.0f} requests per second, where {needed_rate:.0f} are needed")
    return per_s


def _resident(container: Container, user: str) -> dict[str, int]:
    """Return bytes by line of `_LINES`, as sums over the processes of the server in whose PID namespace `container` is.
    A line that the kernel does not have for each process is left out. `user` is the server's, since a process may see
    the page tables of another only as that user. Raises FailedTrial when the server is gone."""
    for _ in range(READS):
        _, output = run_in(container, "the server is gone", ["sh", "-c", _FIND], user=user)
        if output:
            break
    tree: dict[int, dict[str, int]] = {}
    for process, line, number in re.findall(rb"^/proc/(\d+)/\w+:(\w+:)\s*(\d+)", output, re.MULTILINE):
        tree.setdefault(int(process), {})[line.decode()] = int(number)
    entries = [entry for process, entry in tree.items() if _LINES[0] in entry and _is_below(process, tree)]
    lines = [line for line in _LINES if all(line in entry for entry in entries)] if entries else []
    if not lines:
        raise FailedTrial(
            f"the server is gone, or its kernel tells nothing: {output[-200:].decode(errors='replace').strip()}"
        )
    return {line: sum(entry[line] for entry in entries) << 10 for line in lines}


def _is_below(process: int, tree: dict[int, dict[str, int]]) -> bool:
    """Whether a process is process 1 or was started by one that is. Of the load generator's the parent is elsewhere."""
    while process > 1:
        process = tree.get(process, {}).get("PPid:", 0)
    return process == 1


def _median(samples: list[dict[str, int]], key: str) -> int | None:
    values = [sample[key] for sample in samples if key in sample]
    return median_high(values) if values else None


def _observation(metric: str, value: float | None) -> Observation:
    reason = "the kernel does not tell it of the server's process" if value is None else ""
    if value is not None and value < 0:  # of connections, after a server has given memory back
        value, reason = None, "less was resident than without a connection"
    return Observation(metric, value, "B", ok=not reason, reason=reason)
