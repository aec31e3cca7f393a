"""What a start costs, in parts: the program's own, inside its image and without the engine; the container's, with it.

Inside the image, `starter` (tools/starter.rs) starts the program again and again, and beside each a program that does
nothing: that is the floor. It runs in a container of the image that has no network but its own loopback.

With the engine, the clock runs in the lab: around the calls that create, start and end a container, and until the first
byte. The port is asked from when the start call has returned: asked before its interface is there, a container on a
bridge is known to the kernel as a neighbour that does not answer, for a second. What the engine itself says of a start
(`State.StartedAt`) is not comparable from one engine to the next (github.com/moby/moby/pull/47003), and is not used.
"""

import socket
import time
from collections.abc import Iterator
from functools import cache, partial

import docker.errors
import requests

from rustimg_lab import engine
from rustimg_lab.host import free_port
from rustimg_lab.measure import trials
from rustimg_lab.measure.serving import ANSWER_TIMEOUT_S
from rustimg_lab.measure.trials import Lost, Treatment
from rustimg_lab.store import Observation, Run

STARTS = 6  # of the program in one trial; the first is the warm-up
DEADLINE_S = 60
POLL_S = 0.0002
STARTER = "/starter/starter"
UNTIL = {"server": ("first-byte", "exec_to_first_byte_s"), "client": ("exit", "exec_to_exit_s")}
FLOOR = "noop_exec_to_exit_s"
NETWORKS = ("host", "bridge")


def studies(
    servers: list[Treatment], clients: list[Treatment], plan: trials.Plan, run: Run, tools: str
) -> Iterator[tuple[trials.Study, trials.Measure]]:
    """The three studies of a start, each with how a trial of it is measured: the server's and the client's process, and
    the server's container. `tools` is the image that `starter` is in. Raises PlanError when the plan does not fit."""
    for program, treatments in (("server", servers), ("client", clients)):
        until, metric = UNTIL[program]
        parameters = {"program": program, "starts": STARTS, "until": until, "warning": ""}
        yield (
            trials.plan_study(f"startup-{program}", "startup", metric, parameters, treatments, plan, run),
            partial(measure_process, program=program, tools=tools),
        )
    parameters = {"program": "container", "poll_s": POLL_S, "warning": ""}
    yield (
        trials.plan_study("startup-container", "startup", "host_first_byte_s", parameters, servers, plan, run),
        partial(measure_container, tools=tools),
    )


def measure_process(treatment: Treatment, program: str, tools: str) -> list[Observation]:
    """One trial: a fresh container of the image, in which its program is started several times. Raises Lost."""
    until, metric = UNTIL[program]
    command = engine.client().images.get(treatment.image).attrs["Config"]["Cmd"]
    said = _in_the_image(treatment.image, tools, [until, str(STARTS), str(DEADLINE_S), *command])
    found = []
    for number, line in enumerate(said.splitlines()):
        noop_s, program_s, gap_s = (int(nanoseconds) / 1e9 for nanoseconds in line.split())
        about = {"unit": "s", "is_warmup": number == 0, "detail": f"start {number}"}
        found += [Observation(FLOOR, noop_s, **about), Observation(metric, program_s, **about)]
        if until == "first-byte":
            found.append(Observation("longest_poll_s", gap_s, **about))
    return found


def measure_container(treatment: Treatment, tools: str) -> list[Observation]:
    """One trial: a container of the image on each network, and one in which a program does nothing. Raises Lost."""
    found = []
    for network in NETWORKS:
        found += _container(treatment.image, network)
    begun = time.monotonic()
    _in_the_image(treatment.image, tools, ["noop"])
    return [
        *found,
        Observation("noop_container_s", time.monotonic() - begun, "s", detail="create, start, exit, remove"),
    ]


def _container(image: str, network: str) -> list[Observation]:
    port = free_port()
    listen = f"127.0.0.1:{port}" if network == "host" else f"0.0.0.0:{port}"
    reach = {"network_mode": "host"} if network == "host" else {"ports": {f"{port}/tcp": ("127.0.0.1", port)}}
    environment = {"MYIP_LISTEN": listen, "MYIP_DEADLINE_S": str(DEADLINE_S)}
    begun = time.monotonic()
    container = engine.create_container(image, environment=environment, **reach)
    created = time.monotonic()
    try:
        asked = time.monotonic()
        container.start()
        started = time.monotonic()
        answered, longest = _first_byte(port)
        if answered is None:
            raise Lost(f"no answer within {ANSWER_TIMEOUT_S} s{engine.last_words(container)}")
        ending = time.monotonic()
        container.kill("SIGTERM")
        container.wait(timeout=DEADLINE_S)
        ended = time.monotonic()
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        raise Lost(f"the container failed: {error}{engine.last_words(container)}") from None
    finally:
        engine.remove_container(container)
    return [
        Observation(f"{network}_create_s", created - begun, "s"),
        Observation(f"{network}_start_call_s", started - asked, "s"),
        Observation(f"{network}_first_byte_s", answered - asked, "s"),
        Observation(f"{network}_exit_s", ended - ending, "s"),
        Observation(f"{network}_longest_poll_s", longest, "s"),
    ]


def _first_byte(port: int) -> tuple[float | None, float]:
    """When the first byte of an answer came, on the monotonic clock, and the longest time between two looks, in s."""
    begun = looked = time.monotonic()
    longest = 0.0
    while looked - begun < ANSWER_TIMEOUT_S:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                if connection.recv(1):
                    return time.monotonic(), longest
        except OSError:
            pass  # refused, or ended without an answer: not yet
        time.sleep(POLL_S)
        now = time.monotonic()
        longest, looked = max(longest, now - looked), now
    return None, longest


def _in_the_image(image: str, tools: str, arguments: list[str]) -> str:
    """What `starter` prints in a container of the image. Raises Lost when it fails."""
    container = engine.create_container(image, command=[STARTER, *arguments], network_mode="none")
    try:
        container.put_archive("/", _starter(tools))
        container.start()
        code = container.wait(timeout=2 * DEADLINE_S)["StatusCode"]
        if code:
            raise Lost(f"the starter ended with exit code {code}{engine.last_words(container)}")
        return container.logs(stderr=False).decode()
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        raise Lost(f"the container failed: {error}{engine.last_words(container)}") from None
    finally:
        engine.remove_container(container)


@cache
def _starter(tools: str) -> bytes:
    return engine.archive(tools, STARTER.rpartition("/")[0])
