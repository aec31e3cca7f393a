"""Closed loop: how many requests a server answers, and what CPU time each costs it.

wrk (github.com/wg/wrk) keeps so many connections open and asks on each as soon as it has an answer, in a container and
on CPUs of its own. What it tells of single requests' times is no latency: a closed loop asks less when the server is
slow (coordinated omission), so none of it is kept.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import docker.errors

from rustimg_lab import engine
from rustimg_lab.errors import LabError
from rustimg_lab.measure import instructions, trials
from rustimg_lab.measure.serving import ANSWER_TIMEOUT_S, Server, serving
from rustimg_lab.measure.trials import Lost, Treatment
from rustimg_lab.measure.workloads import Workload
from rustimg_lab.store import Observation, Run

CPU_PER_REQUEST = "cpu_us_per_request"
REQUESTS_PER_S = "requests_per_s"
COUNTS = 2  # of instructions, per cell: the second shows that they repeat
SPARE_S = ANSWER_TIMEOUT_S + 60  # what a trial may take beside its load before everything in it ends by itself


@dataclass(frozen=True)
class Load:
    """What a trial asks for, of how many worker threads, over how many connections at once, for how long."""

    workload: Workload
    workers: int
    connections: int
    warmup_s: int
    seconds: int


def studies(
    load: Load, treatments: list[Treatment], plan: trials.Plan, run: Run, tools: str
) -> Iterator[tuple[trials.Study, trials.Measure]]:
    """The two studies of a load, each with how a trial of it is measured: under wrk, and instructions per request.

    `tools` is the image that wrk and valgrind are in. Raises LabError when this machine has too few CPUs for the load,
    or the plan does not fit the cells or the run.
    """
    server_cpus, generator_cpus, warning = split_cpus(load.workers)
    name = load.workload.name
    parameters = {
        "workload": name,
        "workers": load.workers,
        "connections": load.connections,
        "warmup_s": load.warmup_s,
        "seconds": load.seconds,
        "server_cpus": server_cpus,
        "generator_cpus": generator_cpus,
        "warning": warning,
    }
    called = f"throughput-{name}-{load.workers}w-{load.connections}c"
    yield (
        trials.plan_study(called, "throughput", CPU_PER_REQUEST, parameters, treatments, plan, run),
        partial(measure, load=load, tools=tools),
    )
    counted = replace(plan, blocks=COUNTS, width=None)
    parameters = {"workload": name, "workers": 1, "requests": [instructions.FEW, instructions.MANY], "warning": ""}
    yield (
        trials.plan_study(
            f"instructions-{name}", "instructions", instructions.INSTRUCTIONS, parameters, treatments, counted, run
        ),
        partial(instructions.measure, workload=load.workload, tools=tools),
    )


def split_cpus(workers: int, cpus: list[int] | None = None) -> tuple[str, str, str]:
    """The server's CPUs, the generator's, and what a reader must know of that.

    Apart where there are enough: one for one worker thread, two for more. On fewer than four CPUs one or two worker
    threads can be measured, two of them only on CPUs shared with the generator. Raises LabError where that will not do.
    """
    cpus = sorted(os.sched_getaffinity(0)) if cpus is None else cpus
    if len(cpus) < 2:
        raise LabError("one CPU cannot hold server and load generator apart; throughput is measured on two or more")
    if workers > 1 and len(cpus) < 4:
        if workers > 2:
            raise LabError(
                f"{workers} worker threads are measured on four CPUs or more, here are {len(cpus)}; use 1 or 2"
            )
        both = _cpuset(cpus)
        return both, both, f"server and load generator share the CPUs {both}: they slow each other"
    for_server = 1 if workers == 1 else 2
    return _cpuset(cpus[-for_server:]), _cpuset(cpus[:-for_server][:2]), ""


def measure(treatment: Treatment, load: Load, tools: str) -> list[Observation]:
    """One trial: fresh containers, warm-up, then `load.seconds` that count. `tools` is the image that wrk is in.

    Raises Lost when anything went wrong.
    """
    server_cpus, generator_cpus, _ = split_cpus(load.workers)
    deadline_s = load.warmup_s + load.seconds + SPARE_S
    with (
        serving(
            treatment.image, load.workload, workers=load.workers, cpus=server_cpus, deadline_s=deadline_s
        ) as server,
        _generator(tools, generator_cpus, deadline_s) as generator,
    ):
        warm = _wrk(generator, server, load, load.warmup_s)
        before = _cpu_ns(server.container)
        told = _wrk(generator, server, load, load.seconds)
        after = _cpu_ns(server.container)
    if before is None or after is None:
        reason = "the engine tells no CPU time of a container (unknown cgroup layout)"
        cpu = Observation(CPU_PER_REQUEST, None, "us", ok=False, reason=reason)
    else:
        cpu = Observation(CPU_PER_REQUEST, (after - before) / 1e3 / told["requests"], "us")
    return [
        Observation(REQUESTS_PER_S, warm["requests"] / (warm["duration_us"] / 1e6), "1/s", is_warmup=True),
        Observation(REQUESTS_PER_S, told["requests"] / (told["duration_us"] / 1e6), "1/s"),
        Observation("requests", told["requests"]),
        cpu,
    ]


@contextmanager
def _generator(tools: str, cpus: str, deadline_s: int) -> Iterator[engine.Container]:
    """A container in which wrk can be called; it ends by itself after the deadline, and wrk with it."""
    command = ["sleep", str(deadline_s)]
    container = engine.create_container(tools, command=command, network_mode="host", cpuset_cpus=cpus)
    try:
        container.start()
        yield container
    finally:
        engine.remove_container(container)


def _wrk(generator: engine.Container, server: Server, load: Load, seconds: int) -> dict:
    """What wrk counted. Raises Lost when it failed, or when an answer was an error or not of the right size."""
    workload = load.workload
    command = [
        "wrk", "--threads=1", f"--connections={load.connections}", f"--duration={seconds}s", "--script=/report.lua",
        f"http://127.0.0.1:{server.port}{workload.path}", "--", workload.method,
        *([workload.body] if workload.body else []),
    ]  # fmt: skip
    try:
        code, said = generator.exec_run(command)
    except docker.errors.APIError as error:
        raise Lost(f"the load generator is gone: {error.explanation}") from None
    said = said.decode(errors="replace")
    last = said.strip().rpartition("\n")[2]
    if code or not last.startswith("{"):
        raise Lost(
            f"the load generator failed with exit code {code}: {last[:200]}{engine.last_words(server.container)}"
        )
    told = json.loads(last)
    if bad := told["socket_errors"] + told["status_errors"]:
        raise Lost(f"{bad} of {told['requests']} requests failed{engine.last_words(server.container)}")
    if not told["requests"]:
        raise Lost(f"no request was answered in {seconds} s{engine.last_words(server.container)}")
    # What was still on its way when wrk stopped is in its bytes and not in its requests.
    unfinished = told["bytes"] - told["requests"] * server.answer_bytes
    if not 0 <= unfinished <= load.connections * server.answer_bytes:
        raise Lost(
            f"{told['requests']} answers had {told['bytes']} bytes, of {server.answer_bytes} each: some were wrong"
        )
    return told


def _cpu_ns(container: engine.Container) -> int | None:
    """The CPU time that a container has used, user and system, from its cgroup (v1 or v2) as the engine reads it."""
    try:
        told = container.stats(stream=False, one_shot=True)
    except docker.errors.APIError as error:
        raise Lost(f"the server is gone: {error.explanation}") from None
    return told.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage") or None


def _cpuset(cpus: list[int]) -> str:
    return ",".join(map(str, cpus))
