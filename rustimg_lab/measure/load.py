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
from rustimg_lab.measure.plan import FailedTrial, PlanError, Treatment
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
        """Return the part of a study's name that identifies this load, such as `root-2w-64c`."""
        return f"{self.workload.name}-{self.workers}w-{self.connections}c"

    @property
    def deadline_s(self) -> int:
        """Return the seconds after which the server and the load generator end by themselves."""
        return self.workload.serve.start_timeout_s + self.warmup_s + self.seconds + SPARE_S

    @property
    def cpus(self) -> tuple[str, str, str]:
        """Return the CPUs of the server, the load generator and the services, as in `--cpuset-cpus`; "" means any
        CPU."""
        if not self.pinned:
            return "", "", ""
        server, generator, _ = split_cpus(self.workers, alone=bool(self.workload.work))
        return server, generator, service_cpus(self.workers) if self.workload.services else ""

    def parameters(self) -> dict[str, Any]:
        """Return the load as a study's plan records it. Raises PlanError when the engine's machine has too few CPUs."""
        server_cpus, generator_cpus, warning = split_cpus(self.workers, alone=bool(self.workload.work))
        fields = {key: value for key, value in vars(self).items() if key != "pinned"}
        if not self.pinned:
            subject = "the program has" if self.workload.work else "server and load generator share"
            warning = f"this engine keeps no container to some CPUs: {subject} all"
        setup = {"workload": self.workload.name, "server_cpus": server_cpus}
        if self.workload.work:
            warning = "; ".join(filter(None, [_OF_WORK, warning]))
        else:  # its network was the host's in runs of older labs
            setup |= {"generator_cpus": generator_cpus, "network": "loopback of the server's own"}
            if self.workload.services:
                setup["service_cpus"] = service_cpus(self.workers)
                if setup["service_cpus"] == generator_cpus:
                    warning = warning or f"the services share the CPUs {generator_cpus} with the load generator"
        return fields | setup | {"warning": warning} | self.workload.parameters()


def split_cpus(workers: int, cores: list[Core] | None = None, alone: bool = False) -> tuple[str, str, str]:
    """Return the CPUs of the server and of the load generator, as in `--cpuset-cpus`, and a warning for readers ("" for
    none).

    With enough CPUs the two have none in common: one per worker thread, two for the generator (with one worker, at
    least one). The server gets the fastest cores, one thread per core while there are enough. On two or three CPUs, two
    worker threads use the generator's CPUs too. `alone` means that there is no generator. Raises PlanError when there
    are too few CPUs.
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
        shared_cpus = _cpuset(cpus)
        return shared_cpus, shared_cpus, f"server and load generator share the CPUs {shared_cpus}: they slow each other"
    server_count = workers if alone or workers == 1 else min(workers, len(cpus) - 2)
    generator = [] if alone else cpus[:-server_count][:2]
    ranked = [
        ((bool({*core.cpus} & {*generator}), -core.kind, thread), cpu)
        for core in reversed(cores)
        for thread, cpu in enumerate(core.cpus)
        if cpu not in generator
    ]
    selected = sorted(ranked, key=lambda pair: pair[0])[:server_count]
    kinds = {kind for (_, kind, _), _ in selected}
    warning = "the program's CPUs are of several kinds of core" if len(kinds) > 1 else ""
    return _cpuset(sorted(cpu for _, cpu in selected)), _cpuset(generator), warning


def usual_workers(cores: list[Core] | None = None, alone: bool = False) -> list[int]:
    """Return the default numbers of worker threads in a load study: powers of two, at most one thread per CPU of the
    server. On two or three CPUs they are 1 and 2. `alone` means that there is no load generator."""
    count = sum(len(core.cpus) for core in (engine_cores() if cores is None else cores))
    maximum = count if alone else 2 if 2 <= count < 4 else max(count - 2, 1)
    return [1 << power for power in range(maximum.bit_length())]


def service_cpus(workers: int) -> str:
    """Return the CPUs of an app's services, as in `--cpuset-cpus`: those that neither server nor generator has. If none
    is left, return the generator's."""
    server, generator, _ = split_cpus(workers)
    taken_cpus = f"{server},{generator}".split(",")
    cpus = sorted(cpu for core in engine_cores() for cpu in core.cpus)
    return ",".join(cpu for cpu in map(str, cpus) if cpu not in taken_cpus) or generator


def serve(
    treatment: Treatment, load: Load, tools: str, rest_s: int = 0, **options: Any
) -> AbstractContextManager[Server]:
    """Start the treatment's server with the settings of the load, and a container for the load generator on the
    generator's CPUs. Both run for `rest_s` seconds after the load. `options` are those of `serving`."""
    server_cpus, client_cpus, services_cpus = load.cpus
    client = options.pop("client", {}) | {"cpuset_cpus": client_cpus}
    options |= {"workers": load.workers, "deadline_s": load.deadline_s + rest_s, "cpus": server_cpus, "client": client}
    options["service_cpus"] = services_cpus
    settings = treatment.setting.environment if treatment.setting else None
    return serving(treatment.image, load.workload, tools, settings=settings, **options)


def ask(server: Server, load: Load, seconds: int) -> tuple[int, float]:
    """Put load on the server for `seconds`, by wrk or by oha (`uses_oha`). Returns the answered requests, and requests
    per second. Raises FailedTrial when the generator failed, or when an answer was an error or had the wrong size."""
    workload, serve = load.workload, load.workload.serve
    if uses_oha(workload):
        report = run_oha(server, load, "-z", f"{seconds}s", "--wait-ongoing-requests-after-deadline")
        requests = sum(report["statusCodeDistribution"].values())
        return requests, requests / report["summary"]["total"]
    threads = min(split_cpus(load.workers)[1].count(",") + 1, load.connections)  # one for each CPU of the generator
    command = ["wrk", f"--threads={threads}", f"--connections={load.connections}", f"--duration={seconds}s"]
    # By itself it takes an answer for an error that comes after 2 s. It keeps 8 MB for each second of the timeout.
    command += [f"--timeout={min(seconds + 1, SPARE_S)}s"]
    command += [] if serve.keep_alive else ["--header=Connection: close"]
    command += ["--script=/report.lua", _url(workload), "--", serve.method]
    report = run_generator(server, [*command, serve.body] if serve.body else command)
    errors = report["status_errors"]  # as wrk has it, all codes of 400 and more
    if failures := report["socket_errors"] + (errors if serve.status < 400 else report["requests"] - errors):
        hint = "" if serve.keep_alive else ": without keep-alive wrk needs a Content-Length and `Connection: close`"
        raise FailedTrial(
            f"{failures} of {report['requests']} requests failed{hint}{containers.last_words(server.container)}"
        )
    if not report["requests"]:
        hint = "; take fewer --connections, or more --seconds"
        raise FailedTrial(f"no request was answered in {seconds} s{hint}{containers.last_words(server.container)}")
    # What was still on its way when wrk stopped is in its bytes and not in its requests.
    unfinished_bytes = report["bytes"] - report["requests"] * server.answer_bytes
    if not 0 <= unfinished_bytes <= load.connections * server.answer_bytes:
        answers = f"{report['requests']} answers had {report['bytes']} bytes, of {server.answer_bytes} each"
        raise FailedTrial(f"{answers}: some were wrong{_VARIES}")
    return report["requests"], report["requests"] / (report["duration_us"] / 1e6)


def uses_oha(workload: Workload) -> bool:
    """Return whether oha puts the load on a server instead of wrk, which has no HTTP/2."""
    return workload.serve.http == 2


def run_oha(server: Server, load: Load, *options: str) -> dict[str, Any]:
    """Put load on the server by oha with these options, and return oha's report. Raises FailedTrial when an answer was
    an error or had the wrong size."""
    workload, serve = load.workload, load.workload.serve
    command = ["oha", *options, "-c", str(load.connections), "--no-tui", "--output-format", "json", "--redirect", "0"]
    command += ["-m", serve.method, "-T", "application/json", "--insecure"]
    command += ["--disable-compression"]  # curl, by which the right answer is known, does not ask for it either
    command += ["-d", serve.body] if serve.body else []
    command += ["--http2"] * (serve.http == 2) + ["--disable-keepalive"] * (not serve.keep_alive)
    report = run_generator(server, [*command, _url(workload)])
    codes, body_bytes = report["statusCodeDistribution"], report["summary"]["totalData"]
    if report["errorDistribution"] or set(codes) != {str(serve.status)}:
        problems = report["errorDistribution"] | codes
        raise FailedTrial(f"requests failed ({str(problems)[:200]}){containers.last_words(server.container)}")
    if body_bytes != sum(codes.values()) * server.body_bytes:
        raise FailedTrial(f"{sum(codes.values())} answers had {body_bytes} bytes in all: some were wrong{_VARIES}")
    return report


def _url(workload: Workload) -> str:
    return f"http{'s' if workload.serve.tls else ''}://127.0.0.1:{workload.port}{workload.serve.path}"


def run_generator(server: Server, command: list[str]) -> dict[str, Any]:
    """Run a load generator's command and return the JSON object at the end of its output. Raises FailedTrial when there
    is none, when the command fails, or when the container is gone."""
    try:
        code, streams = server.client.exec_run(command, demux=True)
    except APIError as error:
        raise FailedTrial(
            f"the load generator is gone: {error.explanation}{containers.last_words(server.container)}"
        ) from None
    out, err = (part.decode(errors="replace").strip() if part else "" for part in streams)
    begin = f"\n{out}".rfind("\n{")
    if code or begin < 0:
        message = (err or out).rpartition("\n")[2][:200]
        raise FailedTrial(
            f"the load generator failed with exit code {code}: {message}{containers.last_words(server.container)}"
        )
    return json.loads(out[begin:])


def _cpuset(cpus: list[int]) -> str:
    return ",".join(map(str, cpus))
