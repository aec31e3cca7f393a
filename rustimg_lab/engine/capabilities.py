"""What the engine can do, found by trying it in three small containers, once for each engine."""

import json
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from rustimg_lab.engine import client as engine_client
from rustimg_lab.engine import containers, inspection
from rustimg_lab.errors import LabError
from rustimg_lab.host import files
from rustimg_lab.paths import STATE

CPU_TOLERANCE = 0.1
# Of an engine that could not be tried: what would be measured wrong if it were taken for granted.
UNTRIED = dict.fromkeys(("same_kernel", "host_network", "publishes_here", "limits_cpus", "limits_memory", "limits_swap",
                         "counts_cpu"), False)  # fmt: skip
LIMIT = {"mem_limit": 32 << 20, "memswap_limit": 32 << 20}
ROOM = {"mem_limit": 256 << 20}  # of a container that tries something else


@dataclass(frozen=True)
class Capabilities:
    """What the engine reports of itself, and what it was seen to do."""

    engine: str  # its version
    api: str  # the newest API version that it speaks
    image_store: str  # "classic" or "containerd"
    cgroup: str  # "1", "2" or "unknown"
    rootless: bool
    architecture: str  # of the engine's machine, in the kernel's words
    cpus: int  # of the engine's machine
    same_kernel: bool  # the lab and the containers run on one kernel
    host_network: bool  # a container on the host's network reaches the lab's 127.0.0.1
    publishes_here: bool  # the lab reaches a port that is published on 127.0.0.1
    limits_cpus: bool
    limits_memory: bool
    limits_swap: bool
    counts_cpu: bool  # the engine reports the CPU time of a container within CPU_TOLERANCE


@engine_client.readable_errors()
def detect(image: str) -> Capabilities:
    """Return what the engine can do, tried with a Debian image that has perl-base. The first call for an engine takes
    about 3 s. The result is kept in this process and in `.lab/capabilities.json`. Raises LabError when no container
    starts."""
    return _detect(engine_client.connect(), image)


def has_ability(environment: dict[str, Any], name: str) -> bool:
    """Return whether the engine of a run has a capability (a field of `Capabilities`); True when the run does not
    record it."""
    return bool(environment.get("capabilities", {}).get(name, True))


def ability_lines(abilities: Capabilities) -> list[tuple[str, str, str]]:
    """Return the lines of `./lab doctor`: the name, what was found, and what a user loses ("" for nothing)."""
    limits, loopback = ("kept", "ignored or refused"), ("the lab's 127.0.0.1", "not the lab's 127.0.0.1")
    unreached = "" if abilities.host_network else "how long a container takes to start is not measured"
    lines = [
        ("API", True, (abilities.api,), ""),
        ("image store", True, (abilities.image_store,), ""),
        ("rootless", abilities.rootless, ("yes", "no"), ""),
        ("kernel", abilities.same_kernel, ("the lab's", "not the lab's (virtual machine or remote)"), ""),
        ("CPU limits", abilities.limits_cpus, limits, "server and load generator share CPUs"),
        ("memory limits", abilities.limits_memory, limits, "the smallest memory limit of a server is not measured"),
        ("swap limits", abilities.limits_swap, limits, "a server over its memory limit may swap"),
        ("CPU accounting", abilities.counts_cpu, ("correct", "wrong or none"), "CPU time per request is not measured"),
        ("host network", abilities.host_network, loopback, "--study deploy and the size as pushed are not available"),
        ("published ports", abilities.publishes_here, loopback, unreached),
    ]
    return [(name, words[0], "") if is_able else (name, words[1], loss) for name, is_able, words, loss in lines]


@cache
def _detect(client: docker.DockerClient, image: str) -> Capabilities:
    info, path = inspection.engine(client.info()), STATE / "capabilities.json"
    key = json.dumps([engine_client.engine_address(), *_boot_and_network(), asdict(info)])
    entries: dict[str, dict] = {}
    with suppress(OSError, ValueError, TypeError, KeyError):  # none yet, or another version's
        entries = dict(json.loads(path.read_text()))
        return Capabilities(**entries[key])
    abilities = _try(image, info)
    files.write_whole(path, json.dumps(entries | {key: asdict(abilities)}, indent=1))
    return abilities


def _try(image: str, info: inspection.EngineInfo) -> Capabilities:
    cpu = str(engine_client.engine_cpus()[0])
    token, port_options = uuid.uuid4().hex, {"network_mode": "default", "ports": {"8080/tcp": ("127.0.0.1",)}}
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # the first uses a second of CPU time; the others end meanwhile
        loop = _start(stack, image, [{"network_mode": "host"}, {"cpuset_cpus": cpu}, ROOM], "cpu", port, token)
        hog = _start(stack, image, [LIMIT], "memory", 2 * LIMIT["mem_limit"])
        server = _start(stack, image, [port_options, ROOM], "port", token)
        publishes_here = _answers(server, token)
        is_killed, hog_lines = hog.wait().get("StatusCode") == 137, _lines(hog)
        loop_lines = _lines(loop, "done 1")
        if "done" not in loop_lines:
            raise LabError(f"a trial of the engine failed in {image}, which needs perl{containers.last_words(loop)}")
        limits_memory = is_killed and "begun" in hog_lines and "allocated" not in hog_lines
        limits_swap = info.limits_swap and hog_lines.get("swap_limit") in ("0", str(LIMIT["memswap_limit"]))  # v2, v1
        listener.setblocking(False)
        reported_ns = None
        with suppress(DockerException):
            reported_ns = inspection.cpu_ns(loop.stats(stream=False, one_shot=True))
        return Capabilities(
            engine=info.version,
            api=inspection.api_version(engine_client.connect().version()),
            image_store="containerd" if info.keeps_in_containerd else "classic",
            cgroup=info.cgroup_version,
            rootless=info.rootless,
            architecture=info.architecture,
            cpus=info.cpus,
            same_kernel=loop_lines.get("boot_id") == (_boot_and_network()[0] or None),
            host_network=_sends_token(lambda: listener.accept()[0], token),
            publishes_here=publishes_here,
            limits_cpus=inspection.cpuset(loop.attrs) == loop_lines.get("Cpus_allowed_list:") == cpu,
            limits_memory=limits_memory,
            limits_swap=limits_memory and limits_swap,
            counts_cpu=abs((reported_ns or 0) / 1e9 / float(loop_lines["used_s"]) - 1) <= CPU_TOLERANCE,
        )


def _start(stack: ExitStack, image: str, options: list[dict[str, Any]], *arguments: str | int) -> Container:
    """Start a trial with as many of the options as the engine accepts; the stack removes it. Raises LabError."""
    command = ["-e", Path(__file__).with_suffix(".pl").read_text(), *map(str, arguments)]
    for count in range(len(options), -1, -1):
        for groups in combinations(options, count):
            accepted_options = {"network_mode": "none"} | {
                key: value for group in groups for key, value in group.items()
            }
            try:
                container = containers.create_container(image, ["perl", *command], **accepted_options)
                stack.callback(containers.remove_container, container)
                container.start()
                return container
            except APIError as error:
                refusal = engine_client.explain_refusal(error)
    raise LabError(f"the engine starts no container of {image} ({refusal}); see what `docker run` of it says")


def _lines(container: Container, last: str = "") -> dict[str, str]:
    """What a container prints until it prints the line `last`, or ends: the rest of each line by its first word."""
    text = ""
    with containers.open_output(container, follow=True) as chunks:
        for chunk in chunks:
            text += chunk.decode(errors="replace")
            if last and text.endswith(f"{last}\n"):
                break
    return {name: value for name, _, value in (line.partition(" ") for line in text.expandtabs(1).splitlines())}


def _answers(server: Container, token: str) -> bool:
    """Whether that container answers at the port that the engine published for it."""
    _lines(server, "listening 1")
    server.reload()
    address = "127.0.0.1", inspection.published_port(server.attrs, "8080/tcp")
    for _ in range(10):  # a virtual machine forwards a port a moment later
        if _sends_token(lambda: socket.create_connection(address, 1), token):
            return True
        time.sleep(0.1)
    return False


def _sends_token(connect: Callable[[], socket.socket], token: str) -> bool:
    with suppress(OSError), connect() as connection:
        connection.settimeout(1)
        return connection.recv(len(token)) == token.encode()
    return False


def _boot_and_network() -> tuple[str, str]:
    """This boot of this machine, and the lab's network namespace; both "" where it is not Linux."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(Path("/proc/self/ns/net").readlink())
    return "", ""
