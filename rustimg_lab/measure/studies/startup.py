"""Startup: of the program inside its image, and of its container with the engine.

Inside the image, `starter` (tools/starter.rs) starts the program again and again, and beside each a program that does
nothing: that is the floor. It runs in a container of the image that has no network but its own loopback.

With the engine, the clock runs in the lab: around the calls that create, start and end a container, and until the first
byte. The port is asked from when the start call has returned: asked before its interface is there, a container on a
bridge is known to the kernel as a neighbour that does not answer, for a second. What the engine itself says of a start
(`State.StartedAt`) is not comparable from one engine to the next (github.com/moby/moby/pull/47003), and is not used.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from docker.models.containers import Container
from requests.exceptions import RequestException

from rustimg_lab.engine import containers, images
from rustimg_lab.engine.client import engine_cpus
from rustimg_lab.host.machine import free_port
from rustimg_lab.measure import services
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.plan import Lost, Studies, Treatment
from rustimg_lab.measure.workloads import Workload
from rustimg_lab.model import metrics
from rustimg_lab.model.app import Serve
from rustimg_lab.store.rows import Observation

STARTS = 6  # of the program in one trial; the first is the warm-up
DEADLINE_S = 60  # beside what the starts may take, after which `starter` ends by itself
WAIT_S = 3_900  # for that, of the slowest starts that lab.toml allows
EXIT_TIMEOUT_S = 10
POLL_S = 0.0002
STARTER_FOLDER = "/starter"
STARTER = f"{STARTER_FOLDER}/starter"
UNTIL = {"server": ("first-byte", metrics.EXEC_TO_FIRST_BYTE_S), "client": ("exit", metrics.EXEC_TO_EXIT_S)}
NETWORKS = {"host": "host_network", "bridge": "publishes_here"}  # with what the engine must be able to do for each


def plan(context: StudyContext) -> Studies:
    """The studies of a start, and how they are measured: of the processes of server and client (called as the check
    says), and of the server's container where the lab reaches it. Raises PlanError when the plan does not fit."""
    (servers, *clients), workload, check = context.built, context.loads[0].workload, context.app.check
    tools, serve = context.tools, workload.serve
    networks = [name for name, needed in NETWORKS.items() if context.holds(needed) and not workload.services]
    if workload.fixed_port:  # on the host's network something else may have that port
        networks = [name for name in networks if name != "host"]
    where = "in the network of its services" if workload.services else "on this engine's networks"
    warning = "" if networks else f"the lab reaches no container {where}: its start is not measured"
    programs = [("server", servers, serve.told(host="0.0.0.0", **_fixed(serve)))]  # `starter` fills in the port
    for treatments in filter(None, clients):
        environment = {check.https_url: "{url}"} if check.https_url else {}
        programs.append(("client", treatments, (list(check.arguments), environment)))
    for program, treatments, told in programs:
        until, metric = UNTIL[program]
        parameters = {"program": program, "starts": STARTS, "until": until, "warning": warning, **workload.parameters()}
        study = context.study(f"startup-{program}", "startup", metric, parameters, treatments)
        mode = f"{until}:{workload.fixed_port}" if workload.fixed_port and program == "server" else until
        yield study, partial(measure_process, mode=mode, told=told, tools=tools, workload=workload)
    if not networks:
        return
    parameters = {"program": "container", "poll_s": POLL_S, "warning": "", **workload.parameters()}
    metric = metrics.of_container(networks[0], "first_byte")
    study = context.study("startup-container", "startup", metric, parameters)
    yield study, partial(measure_container, workload=workload, tools=tools, networks=networks)


def measure_process(
    treatment: Treatment, mode: str, told: tuple[list[str], dict[str, str]], tools: str, workload: Workload
) -> list[Observation]:
    """One trial: a fresh container of the image, in which its program is started several times, with the arguments and
    the environment that are `told`, beside the services of a workload. `mode` is the starter's. Raises Lost."""
    until, serve = mode.partition(":")[0], workload.serve
    metric = dict(UNTIL.values())[until]
    arguments, environment = told
    deadline_s = DEADLINE_S + STARTS * serve.start_timeout_s
    command = [*images.command_under(treatment.image, [STARTER, mode, str(STARTS), str(deadline_s)]), *arguments]
    with services.beside(workload.services) as network:
        _, before = serve.told(host="127.0.0.1", port=workload.port, **_fixed(serve))
        services.run_before(treatment.image, serve, environment=before, **{"network_mode": "none"} | network)
        said = in_the_image(treatment.image, tools, command, environment, **network)
    found = []
    for number, line in enumerate(said.splitlines()):
        noop_s, program_s, gap_s = (int(nanoseconds) / 1e9 for nanoseconds in line.split())
        about = {"unit": "s", "is_warmup": number == 0, "detail": f"start {number}"}
        found += [Observation(metrics.NOOP_EXEC_TO_EXIT_S, noop_s, **about), Observation(metric, program_s, **about)]
        if until == "first-byte":
            found.append(Observation(metrics.LONGEST_POLL_S, gap_s, **about))
    return found


def measure_container(
    treatment: Treatment, workload: Workload, tools: str, networks: Sequence[str]
) -> list[Observation]:
    """One trial: a container of the image on each network, and one in which a program does nothing. Raises Lost."""
    found = []
    for network in networks:
        found += _container(treatment.image, network, workload)
    begun = time.monotonic()
    in_the_image(treatment.image, tools, [STARTER, "noop"], {})
    took = time.monotonic() - begun
    return [*found, Observation(metrics.NOOP_CONTAINER_S, took, detail="create, start, exit, remove")]


def _container(image: str, network: str, workload: Workload) -> list[Observation]:
    port, serve = free_port(), workload.serve
    own = workload.fixed_port or port
    host = "127.0.0.1" if network == "host" else "0.0.0.0"
    reach = {"network_mode": "host"} if network == "host" else {"ports": {f"{own}/tcp": ("127.0.0.1", port)}}
    arguments, environment = serve.told(host=host, port=own, **_fixed(serve))
    command = [*images.command(image), *arguments]
    begun = time.monotonic()
    with containers.created(image, command=command, environment=environment, **reach) as container, _failing(container):
        created = time.monotonic()
        container.start()
        started = time.monotonic()
        answered, longest = first_byte(port, serve.start_timeout_s)
        if answered is None:
            raise Lost(f"no answer within {serve.start_timeout_s} s{containers.last_words(container)}")
        ending = time.monotonic()
        container.kill("SIGTERM")
        has_ended = containers.exit_code(container, EXIT_TIMEOUT_S) is not None
        exit_s = time.monotonic() - ending if has_ended else None
        reason = "" if has_ended else f"not within {EXIT_TIMEOUT_S} s of SIGTERM"
    return [
        Observation(metrics.of_container(network, "create"), created - begun),
        Observation(metrics.of_container(network, "start_call"), started - created),
        Observation(metrics.of_container(network, "first_byte"), answered - created),
        Observation(metrics.of_container(network, "exit"), exit_s, ok=exit_s is not None, reason=reason),
        Observation(metrics.of_container(network, "longest_poll"), longest),
    ]


def _fixed(serve: Serve) -> dict[str, int]:
    """What every server is told at its start, for `Serve.told`."""
    return {"workers": len(engine_cpus()), "deadline_s": DEADLINE_S + serve.start_timeout_s}


def first_byte(port: int, timeout_s: float) -> tuple[float | None, float]:
    """When the first byte from 127.0.0.1 came (monotonic; None: not in `timeout_s`), and the longest pause, in s."""
    begun = looked = time.monotonic()
    longest = 0.0
    while looked - begun < timeout_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.settimeout(max(begun + timeout_s - time.monotonic(), POLL_S))
                connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if connection.recv(1):
                    return time.monotonic(), longest
        except OSError:
            pass  # refused, or ended without an answer: not yet
        time.sleep(POLL_S)
        now = time.monotonic()
        longest, looked = max(longest, now - looked), now
    return None, longest


def in_the_image(
    image: str, tools: str, command: list[str], environment: dict[str, str], wait_s: int = WAIT_S, **options: Any
) -> str:
    """What a command with `starter` prints in a container of the image, within `wait_s`. Raises Lost when it fails."""
    options = {"command": command, "environment": environment, "network_mode": "none"} | options
    with containers.created(image, **options) as container, _failing(container):
        container.put_archive("/", images.archive(tools, STARTER_FOLDER))
        container.start()
        if code := container.wait(timeout=wait_s)["StatusCode"]:
            raise Lost(f"the starter ended with exit code {code}{containers.last_words(container)}")
        return container.logs(stderr=False).decode()


@contextmanager
def _failing(container: Container) -> Iterator[None]:
    """Raises Lost, with the container's last log lines, when the engine fails it in the block."""
    try:
        yield
    except RequestException as error:
        raise Lost(f"the container failed: {error}{containers.last_words(container)}") from None
