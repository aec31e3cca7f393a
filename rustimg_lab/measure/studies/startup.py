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
from rustimg_lab.measure.plan import FailedTrial, Studies, Treatment
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
    """Yield the studies of a start, each with the function that measures a trial: the server's process, the client's,
    and the server's container. The container is measured on the host's network and by a published port, where the lab
    reaches it. Clients are called as the app's check says. Raises PlanError when the baseline is unknown."""
    (servers, *clients), workload, check = context.built, context.loads[0].workload, context.app.check
    tools, serve = context.tools, workload.serve
    networks = [name for name, needed in NETWORKS.items() if context.holds(needed) and not workload.services]
    if workload.fixed_port:  # on the host's network something else may have that port
        networks = [name for name in networks if name != "host"]
    place = "in the network of its services" if workload.services else "on this engine's networks"
    warning = "" if networks else f"the lab reaches no container {place}: its start is not measured"
    server_invocation = serve.invocation(host="0.0.0.0", **_start_values(serve))  # `starter` fills in the port
    programs = [("server", servers, server_invocation)]
    for treatments in filter(None, clients):
        environment = {check.https_url: "{url}"} if check.https_url else {}
        programs.append(("client", treatments, (list(check.arguments), environment)))
    for program, treatments, invocation in programs:
        until, metric = UNTIL[program]
        parameters = {"program": program, "starts": STARTS, "until": until, "warning": warning, **workload.parameters()}
        study = context.study(f"startup-{program}", "startup", metric, parameters, treatments)
        mode = f"{until}:{workload.fixed_port}" if workload.fixed_port and program == "server" else until
        yield study, partial(measure_process, mode=mode, invocation=invocation, tools=tools, workload=workload)
    if not networks:
        return
    parameters = {"program": "container", "poll_s": POLL_S, "warning": "", **workload.parameters()}
    metric = metrics.container_metric(networks[0], "first_byte")
    study = context.study("startup-container", "startup", metric, parameters)
    yield study, partial(measure_container, workload=workload, tools=tools, networks=networks)


def measure_process(
    treatment: Treatment, mode: str, invocation: tuple[list[str], dict[str, str]], tools: str, workload: Workload
) -> list[Observation]:
    """Run one trial: start the program several times in a fresh container, beside the services of a workload. Returns
    rows in seconds. `mode` is the starter's; `invocation` has the program's arguments and environment. Raises
    FailedTrial when the starter fails."""
    until, serve = mode.partition(":")[0], workload.serve
    metric = dict(UNTIL.values())[until]
    arguments, environment = invocation
    deadline_s = DEADLINE_S + STARTS * serve.start_timeout_s
    command = [*images.command_under(treatment.image, [STARTER, mode, str(STARTS), str(deadline_s)]), *arguments]
    with services.run_services(workload.services) as network:
        _, call_environment = serve.invocation(host="127.0.0.1", port=workload.port, **_start_values(serve))
        services.run_before(treatment.image, serve, environment=call_environment, **{"network_mode": "none"} | network)
        output = run_in_image(treatment.image, tools, command, environment, **network)
    rows = []
    for number, line in enumerate(output.splitlines()):
        noop_s, program_s, gap_s = (int(nanoseconds) / 1e9 for nanoseconds in line.split())
        fields = {"unit": "s", "is_warmup": number == 0, "detail": f"start {number}"}
        rows += [Observation(metrics.NOOP_EXEC_TO_EXIT_S, noop_s, **fields), Observation(metric, program_s, **fields)]
        if until == "first-byte":
            rows.append(Observation(metrics.LONGEST_POLL_S, gap_s, **fields))
    return rows


def measure_container(
    treatment: Treatment, workload: Workload, tools: str, networks: Sequence[str]
) -> list[Observation]:
    """Run one trial: start a container of the image on each network, and one whose program does nothing. Returns rows
    in seconds. Raises FailedTrial when a container fails or does not answer."""
    rows = []
    for network in networks:
        rows += _container(treatment.image, network, workload)
    start_s = time.monotonic()
    run_in_image(treatment.image, tools, [STARTER, "noop"], {})
    duration_s = time.monotonic() - start_s
    return [*rows, Observation(metrics.NOOP_CONTAINER_S, duration_s, detail="create, start, exit, remove")]


def _container(image: str, network: str, workload: Workload) -> list[Observation]:
    port, serve = free_port(), workload.serve
    container_port = workload.fixed_port or port
    host = "127.0.0.1" if network == "host" else "0.0.0.0"
    port_options = (
        {"network_mode": "host"} if network == "host" else {"ports": {f"{container_port}/tcp": ("127.0.0.1", port)}}
    )
    arguments, environment = serve.invocation(host=host, port=container_port, **_start_values(serve))
    command = [*images.command(image), *arguments]
    create_call_s = time.monotonic()
    with (
        containers.created(image, command=command, environment=environment, **port_options) as container,
        _engine_errors(container),
    ):
        created_s = time.monotonic()
        container.start()
        started_s = time.monotonic()
        answered_s, longest_s = first_byte(port, serve.start_timeout_s)
        if answered_s is None:
            raise FailedTrial(f"no answer within {serve.start_timeout_s} s{containers.last_words(container)}")
        signal_s = time.monotonic()
        container.kill("SIGTERM")
        has_ended = containers.exit_code(container, EXIT_TIMEOUT_S) is not None
        exit_s = time.monotonic() - signal_s if has_ended else None
        reason = "" if has_ended else f"not within {EXIT_TIMEOUT_S} s of SIGTERM"
    return [
        Observation(metrics.container_metric(network, "create"), created_s - create_call_s),
        Observation(metrics.container_metric(network, "start_call"), started_s - created_s),
        Observation(metrics.container_metric(network, "first_byte"), answered_s - created_s),
        Observation(metrics.container_metric(network, "exit"), exit_s, ok=exit_s is not None, reason=reason),
        Observation(metrics.container_metric(network, "longest_poll"), longest_s),
    ]


def _start_values(serve: Serve) -> dict[str, int]:
    """Return the values that every start of a server has, for `Serve.invocation`."""
    return {"workers": len(engine_cpus()), "deadline_s": DEADLINE_S + serve.start_timeout_s}


def first_byte(port: int, timeout_s: float) -> tuple[float | None, float]:
    """Wait for the first byte of an answer from 127.0.0.1. Returns when it came, in seconds of the monotonic clock
    (None: not within `timeout_s` seconds), and the longest time between two polls in seconds."""
    start_s = last_look_s = time.monotonic()
    longest_s = 0.0
    while last_look_s - start_s < timeout_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.settimeout(max(start_s + timeout_s - time.monotonic(), POLL_S))
                connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if connection.recv(1):
                    return time.monotonic(), longest_s
        except OSError:
            pass  # refused, or ended without an answer: not yet
        time.sleep(POLL_S)
        look_s = time.monotonic()
        longest_s, last_look_s = max(longest_s, look_s - last_look_s), look_s
    return None, longest_s


def run_in_image(
    image: str, tools: str, command: list[str], environment: dict[str, str], wait_s: int = WAIT_S, **options: Any
) -> str:
    """Run a command with `starter` in a container of the image, and return its standard output. `tools` is the
    benchmark tools image; `options` are for the container. Raises FailedTrial when the command fails or takes longer
    than `wait_s` seconds."""
    options = {"command": command, "environment": environment, "network_mode": "none"} | options
    with containers.created(image, **options) as container, _engine_errors(container):
        container.put_archive("/", images.archive(tools, STARTER_FOLDER))
        container.start()
        if code := container.wait(timeout=wait_s)["StatusCode"]:
            raise FailedTrial(f"the starter ended with exit code {code}{containers.last_words(container)}")
        return container.logs(stderr=False).decode()


@contextmanager
def _engine_errors(container: Container) -> Iterator[None]:
    """Raises FailedTrial, with the container's last log lines, when the engine fails it in the block."""
    try:
        yield
    except RequestException as error:
        raise FailedTrial(f"the container failed: {error}{containers.last_words(container)}") from None
