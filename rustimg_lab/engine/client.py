"""The Docker engine: its address, its name for what is ours, its errors as one line, and what it says of itself."""

import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import docker
from docker.context import ContextAPI
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from rustimg_lab.engine import inspection
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, process
from rustimg_lab.host.machine import cpu_model, cpus, memory_bytes
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
    path = STATE / "id"
    if not path.exists():
        STATE.mkdir(exist_ok=True)
        with suppress(FileExistsError), path.open("x") as file:
            file.write(uuid.uuid4().hex[:8])
    return path.read_text()


def repository(name: str) -> str:
    """The name of an image of ours, without its tag: never one that an official image has."""
    return f"rustimg-lab-{lab_id()}/{name}"


def engine_address() -> str:
    """The address of the engine: DOCKER_HOST, else the docker client's current context."""
    return os.environ.get("DOCKER_HOST") or ContextAPI.get_current_context().Host or "unix:///var/run/docker.sock"


def own_builder() -> str:
    """The name of the buildx builder that is the engine itself, whichever the user has selected for other work: such a
    one may not see the engine's images."""
    return "default" if os.environ.get("DOCKER_HOST") else ContextAPI.get_current_context().Name


@cache
def connect(timeout_s: int = TIMEOUT_S) -> docker.DockerClient:
    """The engine. Raises LabError, in one line, when none answers."""
    address = engine_address()
    connect = docker.DockerClient.from_env if "DOCKER_HOST" in os.environ else partial(docker.DockerClient, address)
    try:
        # Importing a root file system of more than a gigabyte is one call, and may take minutes.
        found = connect(timeout=timeout_s)
        found.ping()
        return found
    except (DockerException, RequestException):
        if shutil.which("nerdctl") and not shutil.which("docker"):
            raise LabError(
                f"nerdctl has no Docker API, and no engine answers at {address}: install and start Docker Engine or "
                "Podman, and set DOCKER_HOST to its socket"
            ) from None
        raise LabError(
            f"no Docker engine answers at {address}: start it (systemctl start docker), check that you may use it "
            "(group docker), or set DOCKER_HOST"
        ) from None


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the engine refuses, as one line; and a command that failed since a disk is full, with which disk that is."""
    try:
        yield
    except process.CommandError as error:
        if error.disk_full:
            raise files.DiskFull(f"'{error.args_[0]}' failed", [STATE, *data_folders()], files.GRID_BYTES) from error
        raise
    except APIError as error:
        if files.is_full(str(error.explanation)):
            raise files.DiskFull("the Docker engine refused", data_folders(), files.GRID_BYTES) from error
        raise LabError(f"the Docker engine refused: {error.explanation or error}") from error
    except RequestException as error:
        raise LabError(
            f"the Docker engine at {engine_address()} stopped answering ({error}); start it and call again"
        ) from error


def explained(error: APIError) -> str:
    """What the engine refused, in its words. Raises what an engine raises that answers nothing else either: that is no
    fault of what it was asked for."""
    connect().ping()
    return error.explanation


def data_folders() -> list[Path]:
    """Where the engine keeps what it has, and programs what is temporary, so far as that is on this machine."""
    folder = engine_info().data_folder if engine_address().startswith("unix://") else ""
    return [*([Path(folder)] if folder else []), Path(tempfile.gettempdir())]


def engine_info() -> inspection.EngineInfo:
    """Ask the engine about itself."""
    return inspection.engine(connect().info())


def is_podman() -> bool:
    """Return whether the engine is Podman. Raises LabError when no engine answers."""
    return inspection.is_podman(connect().version())


def engine_cpus() -> list[int]:
    """The numbers of the CPUs that containers may be kept to: the lab's own, or all of another machine's."""
    about = engine_info()
    return sorted(os.sched_getaffinity(0)) if _is_here(about) else list(range(about.cpus))


def _is_here(about: inspection.EngineInfo) -> bool:
    """Whether an engine's containers run on this machine's kernel, by what it says of its machine."""
    return platform.release() == about.kernel and abs(about.memory_bytes - memory_bytes()) < 1 << 28


def machine() -> dict[str, str | int]:
    """What a number depends on and two runs must share to be compared. No host name, no path."""
    about = engine_info()
    here = _is_here(about)
    return {
        "architecture": about.architecture,
        "cpu_model": cpu_model() if here else "unknown",
        "cpus": cpus() if here else about.cpus,
        "memory_gib": round((memory_bytes() if here else about.memory_bytes) / 2**30),
        "kernel": about.kernel,
        "engine": engine_version(about),
        "storage_driver": about.driver,
        "cgroup_version": about.cgroup_version,
    }


def engine_version(about: inspection.EngineInfo) -> str:
    return f"{'Podman ' if is_podman() else ''}{about.version}"
