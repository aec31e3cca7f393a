"""A server under load from wrk (github.com/wg/wrk), or where wrk cannot ask it oha: a closed loop, on CPUs of its own.

wrk keeps so many connections open and asks on each as soon as it has an answer. What it tells of single requests' times
is no latency: a closed loop asks less when the server is slow (coordinated omission), so none of it is kept.
"""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError

from rustimg_lab.engine import containers
from rustimg_lab.engine.client import engine_cores
from rustimg_lab.host.machine import Core
from rustimg_lab.measure.plan import Lost, PlanError, Treatment
from rustimg_lab.measure.server import Server, serving
from rustimg_lab.measure.workloads import Workload

_VARIES = "; one whose size varies, as with a counter in it, cannot be checked: set another path in [serve]"
_OF_WORK = "a request is one call of the program; the calls follow each other, and no load generator runs beside them"
SPARE_S = 60  # what a trial may take beside its start and its load before everything in it ends by itself


@dataclass(frozen=True)
class Load:
    """What a trial asks for, of how many worker threads, over how many connections at once, for how long. `pinned`:
    whether the engine keeps containers to CPUs; one that cannot may refuse to start them so."""

    workload: Workload
    workers: int
    connections: int
    warmup_s: int
    seconds: int
    pinned: bool = True

    @property
    def name(self) -> str:
        """For the name of a study under this load."""
        return f"{self.workload.name}-{self.workers}w-{self.connections}c"

    @property
    def deadline_s(self) -> int:
        """After which server and generator end by themselves."""
        return self.workload.serve.start_timeout_s + self.warmup_s + self.seconds + SPARE_S

    @property
    def cpus(self) -> tuple[str, str, str]:
        """Return the CPUs of server, generator and services, each "" for any."""
        if not self.pinned:
            return "", "", ""
        server, generator, _ = split_cpus(self.workers, alone=bool(self.workload.work))
        return server, generator, service_cpus(self.workers) if self.workload.services else ""

    def parameters(self) -> dict[str, Any]:
        """For a study's plan. Raises PlanError when the engine's machine has too few CPUs."""
        server_cpus, generator_cpus, warning = split_cpus(self.workers, alone=bool(self.workload.work))
        own = {key: value for key, value in vars(self).items() if key != "pinned"}
        if not self.pinned:
            all_of = "the program has" if self.workload.work else "server and load generator share"
            warning = f"this engine keeps no container to some CPUs: {all_of} all"
        told = {"workload": self.workload.name, "server_cpus": server_cpus}
        if self.workload.work:
            warning = "; ".join(filter(None, [_OF_WORK, warning]))
        else:  # its network was the host's in runs of older labs
            told |= {"generator_cpus": generator_cpus, "network": "loopback of the server's own"}
            if self.workload.services:
                told["service_cpus"] = service_cpus(self.workers)
                if told["service_cpus"] == generator_cpus:
                    warning = warning or f"the services share the CPUs {generator_cpus} with the load generator"
        return own | told | {"warning": warning} | self.workload.parameters()


def split_cpus(workers: int, cores: list[Core] | None = None, alone: bool = False) -> tuple[str, str, str]:
    """The CPUs of server and generator (none if `alone`), and what a reader must know.

    Apart where there are enough: one for each worker, two for the generator (with one worker at least one). The
    server's cores are its own, of the fastest kind, one thread of each first. On fewer than four CPUs one or two
    workers can be measured, two on shared CPUs. Raises PlanError for too few.
    """
    cores = engine_cores() if cores is None else cores
    cpus = [cpu for core in cores for cpu in core.cpus]
    if alone and workers > len(cpus):
        raise PlanError(f"{workers} threads are measured on as many CPUs, here are {len(cpus)}; use fewer")
    if len(cpus) < 2 and not alone:
        raise PlanError("one CPU cannot hold server and load generator apart; a load is measured on two or more")
    if workers > 1 and len(cpus) < 4 and not alone:
        if workers > 2:
            needed = f"{workers} worker threads are measured on four CPUs or more"
            raise PlanError(f"{needed}, here are {len(cpus)}; use 1 or 2")
        both = _cpuset(cpus)
        return both, both, f"server and load generator share the CPUs {both}: they slow each other"
    for_server = workers if alone or workers == 1 else min(workers, len(cpus) - 2)
    generator = [] if alone else cpus[:-for_server][:2]
    free = [
        ((bool({*core.cpus} & {*generator}), -core.kind, thread), cpu)
        for core in reversed(cores)
        for thread, cpu in enumerate(core.cpus)
        if cpu not in generator
    ]
    chosen = sorted(free, key=lambda each: each[0])[:for_server]
    kinds = {kind for (_, kind, _), _ in chosen}
    warning = "the program's CPUs are of several kinds of core" if len(kinds) > 1 else ""
    return _cpuset(sorted(cpu for _, cpu in chosen)), _cpuset(generator), warning


def usual_workers(cores: list[Core] | None = None, alone: bool = False) -> list[int]:
    """Return the numbers of worker threads that a load study has: 1 and 2 on two CPUs or three, and with more CPUs each
    power of two for which the server has a CPU per worker. `alone` there is no generator."""
    count = sum(len(core.cpus) for core in (engine_cores() if cores is None else cores))
    most = count if alone else 2 if 2 <= count < 4 else max(count - 2, 1)
    return [1 << power for power in range(most.bit_length())]


def service_cpus(workers: int) -> str:
    """Return the CPUs of an app's services: those that neither server nor generator has, else the generator's."""
    server, generator, _ = split_cpus(workers)
    taken = f"{server},{generator}".split(",")
    every = sorted(cpu for core in engine_cores() for cpu in core.cpus)
    return ",".join(each for each in map(str, every) if each not in taken) or generator


def serve(
    treatment: Treatment, load: Load, tools: str, rest_s: int = 0, **options: Any
) -> AbstractContextManager[Server]:
    """Start the treatment's server as the load wants it, and the container that asks on the CPUs of its own; both stay
    for `rest_s` after the load; `options` as `serving` has them."""
    server_cpus, client_cpus, own = load.cpus
    client = options.pop("client", {}) | {"cpuset_cpus": client_cpus}
    options |= {"workers": load.workers, "deadline_s": load.deadline_s + rest_s, "cpus": server_cpus, "client": client}
    options["service_cpus"] = own
    settings = treatment.setting.environment if treatment.setting else None
    return serving(treatment.image, load.workload, tools, settings=settings, **options)


def ask(server: Server, load: Load, seconds: int) -> tuple[int, float]:
    """Load the server for so many seconds, by wrk or `by_oha`: how many requests it answered, and how many each second.
    Raises Lost when that failed, or an answer was an error or of another size."""
    workload, serve = load.workload, load.workload.serve
    if by_oha(workload):
        told = oha(server, load, "-z", f"{seconds}s", "--wait-ongoing-requests-after-deadline")
        requests = sum(told["statusCodeDistribution"].values())
        return requests, requests / told["summary"]["total"]
    threads = min(split_cpus(load.workers)[1].count(",") + 1, load.connections)  # one for each CPU of the generator
    command = ["wrk", f"--threads={threads}", f"--connections={load.connections}", f"--duration={seconds}s"]
    # By itself it takes an answer for an error that comes after 2 s. It keeps 8 MB for each second of the timeout.
    command += [f"--timeout={min(seconds + 1, SPARE_S)}s"]
    command += [] if serve.keep_alive else ["--header=Connection: close"]
    command += ["--script=/report.lua", _url(workload), "--", serve.method]
    told = call(server, [*command, serve.body] if serve.body else command)
    errors = told["status_errors"]  # as wrk has it, all codes of 400 and more
    if bad := told["socket_errors"] + (errors if serve.status < 400 else told["requests"] - errors):
        hint = "" if serve.keep_alive else ": without keep-alive wrk needs a Content-Length and `Connection: close`"
        raise Lost(f"{bad} of {told['requests']} requests failed{hint}{containers.last_words(server.container)}")
    if not told["requests"]:
        hint = "; take fewer --connections, or more --seconds"
        raise Lost(f"no request was answered in {seconds} s{hint}{containers.last_words(server.container)}")
    # What was still on its way when wrk stopped is in its bytes and not in its requests.
    unfinished = told["bytes"] - told["requests"] * server.answer_bytes
    if not 0 <= unfinished <= load.connections * server.answer_bytes:
        answers = f"{told['requests']} answers had {told['bytes']} bytes, of {server.answer_bytes} each"
        raise Lost(f"{answers}: some were wrong{_VARIES}")
    return told["requests"], told["requests"] / (told["duration_us"] / 1e6)


def by_oha(workload: Workload) -> bool:
    """Whether oha puts the load on a server in the place of wrk, which has no HTTP/2."""
    return workload.serve.http == 2


def oha(server: Server, load: Load, *options: str) -> dict[str, Any]:
    """Load the server by oha; returns its report. Raises Lost when an answer was an error or had the wrong size."""
    workload, serve = load.workload, load.workload.serve
    command = ["oha", *options, "-c", str(load.connections), "--no-tui", "--output-format", "json", "--redirect", "0"]
    command += ["-m", serve.method, "-T", "application/json", "--insecure"]
    command += ["--disable-compression"]  # curl, by which the right answer is known, does not ask for it either
    command += ["-d", serve.body] if serve.body else []
    command += ["--http2"] * (serve.http == 2) + ["--disable-keepalive"] * (not serve.keep_alive)
    told = call(server, [*command, _url(workload)])
    codes, told_bytes = told["statusCodeDistribution"], told["summary"]["totalData"]
    if told["errorDistribution"] or set(codes) != {str(serve.status)}:
        wrong = told["errorDistribution"] | codes
        raise Lost(f"requests failed ({str(wrong)[:200]}){containers.last_words(server.container)}")
    if told_bytes != sum(codes.values()) * server.body_bytes:
        raise Lost(f"{sum(codes.values())} answers had {told_bytes} bytes in all: some were wrong{_VARIES}")
    return told


def _url(workload: Workload) -> str:
    return f"http{'s' if workload.serve.tls else ''}://127.0.0.1:{workload.port}{workload.serve.path}"


def call(server: Server, command: list[str]) -> dict[str, Any]:
    """Runs a load generator's command; the JSON object that is the last of what it prints. Raises Lost without one."""
    try:
        code, said = server.client.exec_run(command, demux=True)
    except APIError as error:
        raise Lost(
            f"the load generator is gone: {error.explanation}{containers.last_words(server.container)}"
        ) from None
    out, err = (part.decode(errors="replace").strip() if part else "" for part in said)
    begin = f"\n{out}".rfind("\n{")
    if code or begin < 0:
        told = (err or out).rpartition("\n")[2][:200]
        raise Lost(f"the load generator failed with exit code {code}: {told}{containers.last_words(server.container)}")
    return json.loads(out[begin:])


def _cpuset(cpus: list[int]) -> str:
    return ",".join(map(str, cpus))
