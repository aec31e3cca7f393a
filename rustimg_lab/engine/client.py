"""The Docker engine: its address, its name for what is ours, its errors as one line, and what it says of itself."""

import fcntl
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, DockerException
from paramiko import SSHException
from requests.exceptions import RequestException

from rustimg_lab.engine import contexts, inspection
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, process, proxy, system
from rustimg_lab.host.machine import MEMORY_PER_BUILD_BYTES, Core, cores, cpu_model, cpus, memory_bytes
from rustimg_lab.paths import STATE

IMAGE_LABEL = "io.rustimg-lab.id"  # on every image that this clone makes; its value is the clone's id
CONTAINER_LABEL = "io.rustimg-lab.container"  # containers have one of their own, since they inherit their image's
STAND_IN_LABEL = "io.rustimg-lab.stand-in"  # on an image that only stands in for an official one: for which, and how
MADE_OF_LABEL = "io.rustimg-lab.made-of"  # on an image that no build makes twice alike: a digest of what went into it
PID_LABEL = "io.rustimg-lab.pid"  # the lab's process that a container belongs to, as `process_name` calls it

TIMEOUT_S = 600


@cache
def lab_id() -> str:
    """This clone's id, eight hex digits, made once. It is in the label and the name of all that the clone makes."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "id").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of two labs that begin at once, one makes it, and the other waits for it
        file.seek(0)
        if not (known := file.read()):
            file.write(known := uuid.uuid4().hex[:8])
    return known


def repository(name: str) -> str:
    """The name of an image of ours, without its tag: never one that an official image has. It ends with `name`, or for
    one that is no part of an image's name (cargo allows `_app_`) with a digest of it; "" gives what all begin with."""
    return f"rustimg-lab-{lab_id()}/{files.image_part(name) if name else ''}"


def engine_address() -> str:
    """The address of the engine that the docker client calls. Raises LabError as `contexts.current` does."""
    return contexts.current().address


def own_builder() -> str:
    """The buildx builder that is the engine itself; the one a user has selected may not see the engine's images."""
    return contexts.current().name


@cache
def connect(timeout_s: int = TIMEOUT_S) -> docker.DockerClient:
    """The engine. Raises LabError, in one line, when none answers."""
    asked = contexts.current()
    address = asked.address
    try:
        # Importing a root file system of more than a gigabyte is one call, and may take minutes.
        with _own_authorities(asked):
            found = docker.DockerClient(address, timeout=timeout_s, tls=asked.tls or False)
        if asked.tls:
            found.api.trust_env = False
        found.ping()
        return found
    except (DockerException, RequestException, SSHException, OSError) as error:
        if address.startswith("ssh://"):
            told = f"{error}; `ssh` must reach that machine without a question, and `docker` must work there"
            raise LabError(f"no Docker engine answers at {address}: {told}") from None
        if shutil.which("nerdctl") and not shutil.which("docker"):
            raise LabError(
                f"nerdctl has no Docker API, and no engine answers at {address}: install and start Docker Engine or "
                "Podman, and set DOCKER_HOST to its socket"
            ) from None
        if asked.tls:
            raise LabError(f"no Docker engine can be used at {address}: {error}") from None
        elsewhere = system.engine_line(address) if system.family() == "macos" or system.is_wsl() else ""
        usual = "start it (systemctl start docker), check that you may use it (group docker)"
        raise LabError(f"no Docker engine answers at {address}: {elsewhere or usual}, or set DOCKER_HOST") from None


@contextmanager
def _own_authorities(asked: contexts.Context) -> Iterator[None]:
    """Variables by which requests trusts other authorities, in the place of those that an engine was given, unset."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if asked.tls else ()
    unset = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(unset)


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the engine refuses, as one line; and a command that failed since a disk is full, with which disk that is."""
    try:
        yield
    except process.CommandError as error:
        if error.disk_full:
            folders = [STATE, Path(tempfile.gettempdir()), *data_folders()]
            raise files.DiskFull(f"'{error.args_[0]}' failed", folders, files.GRID_BYTES) from error
        raise
    except APIError as error:
        if files.is_full(str(error.explanation)):
            raise files.DiskFull("the Docker engine refused", data_folders(), files.GRID_BYTES) from error
        raise LabError(f"the Docker engine refused: {error.explanation or error}") from error
    except (RequestException, SSHException) as error:
        raise LabError(
            f"the Docker engine at {engine_address()} stopped answering ({error}); start it and call again"
        ) from error
    except DockerException as error:  # as of a helper for logins that is not there
        raise LabError(f"the Docker client could not do it: {' '.join(str(error).split())}") from error


def explained(error: APIError) -> str:
    """What the engine refused, in its words. Raises where it answers nothing else either: then it is no refusal."""
    connect().ping()
    return error.explanation


def data_folders() -> list[Path]:
    """Where the engine keeps its data, and temporary files; nothing for an engine on another or a virtual machine."""
    about = engine_info()
    return [Path(about.data_folder), Path(tempfile.gettempdir())] if _is_here(about) else []


def engine_info() -> inspection.EngineInfo:
    """Ask the engine about itself."""
    return inspection.engine(connect().info())


def is_podman() -> bool:
    """Return whether the engine is Podman. Raises LabError when no engine answers."""
    return inspection.is_podman(connect().version())


def engine_cpus() -> list[int]:
    """The numbers of the CPUs that containers may be kept to: the lab's own, or all of another machine's."""
    return sorted(cpu for core in engine_cores() for cpu in core.cpus)


def engine_cores() -> list[Core]:
    """The cores of `engine_cpus`, as `machine.cores` has them; of another machine each CPU counts as one."""
    about = engine_info()
    return cores(sorted(os.sched_getaffinity(0))) if _is_here(about) else [Core((cpu,)) for cpu in range(about.cpus)]


def _is_here(about: inspection.EngineInfo) -> bool:
    """Whether an engine's containers run on this machine's kernel, by its address and what it says of its machine."""
    address = urlsplit(engine_address())
    if address.scheme == "ssh" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
        return False  # a machine that is like this one, it may be
    return platform.release() == about.kernel and abs(about.memory_bytes - memory_bytes()) < 1 << 28


def _is_virtual() -> bool:
    """Whether an engine is in a virtual machine on this one, and so has its CPU: on macOS each with a socket here."""
    return platform.system() == "Darwin" and engine_address().startswith("unix://")


def machine_in_builds() -> str:
    """Return this machine's name in a virtual engine's builds, if the proxy is on loopback; "" if none is needed."""
    if not proxy.on_this_machine() or _is_here(engine_info()):
        return ""
    return "host.containers.internal" if is_podman() else "host.docker.internal"


def machine() -> dict[str, str | int]:
    """What a number depends on and two runs must share to be compared. No host name, no path."""
    about = engine_info()
    here = _is_here(about)
    return {
        "architecture": about.architecture,
        "cpu_model": cpu_model() if here or _is_virtual() else "unknown",
        "cpus": cpus() if here else about.cpus,
        "memory_gib": round((memory_bytes() if here else about.memory_bytes) / 2**30),
        "kernel": about.kernel,
        "engine": engine_version(about),
        "storage_driver": about.driver,
        "cgroup_version": about.cgroup_version,
    }


def parallel_builds() -> int:
    """Return how many binaries may be compiled at once: one per two CPUs of the engine's machine, and 2 GiB each. On
    two CPUs a second cargo, which compiles while the first links, takes 10% off the wall time for 7% more CPU time
    (benchmarks/grid.py)."""
    about = machine()
    return max(1, min(about["cpus"] // 2, (about["memory_gib"] << 30) // MEMORY_PER_BUILD_BYTES))


def engine_version(about: inspection.EngineInfo) -> str:
    return f"{'Podman ' if is_podman() else ''}{about.version}"
