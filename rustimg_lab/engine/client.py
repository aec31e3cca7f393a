"""The Docker engine: its address, its name for what is ours, its errors as one line, and what it says of itself."""

import errno
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
    """Return this clone's id, eight hex digits, which the first call makes. All that the clone makes has it in its
    label and name."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "id").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of two labs that begin at once, one makes it, and the other waits for it
        file.seek(0)
        if not (clone_id := file.read()):
            file.write(clone_id := uuid.uuid4().hex[:8])
    return clone_id


def repository(name: str) -> str:
    """Return the name of an image of the lab, without a tag; no official image has such a name. It ends with `name`, or
    with a digest of `name` where that cannot be part of an image's name. For "" return the prefix of all these
    names."""
    return f"rustimg-lab-{lab_id()}/{files.image_part(name) if name else ''}"


def engine_address() -> str:
    """Return the address of the engine that the docker client calls. Raises LabError as `contexts.current` does."""
    return contexts.current().address


def own_builder() -> str:
    """Return the name of the buildx builder that is the engine itself. A builder that the user has selected may not see
    the engine's images. Raises LabError as `contexts.current` does."""
    return contexts.current().name


@cache
def connect(timeout_s: int = TIMEOUT_S) -> docker.DockerClient:
    """Return a client of the engine, with a timeout of `timeout_s` seconds per call. Raises LabError, in one line, when
    no engine answers."""
    context = contexts.current()
    address = context.address
    try:
        # Importing a root file system of more than a gigabyte is one call, and may take minutes.
        with _own_authorities(context):
            client = docker.DockerClient(address, timeout=timeout_s, tls=context.tls or False)
        if context.tls:
            client.api.trust_env = False
        client.ping()
        return client
    except (DockerException, RequestException, SSHException, OSError) as error:
        if address.startswith("ssh://"):
            message = f"{error}; `ssh` must reach that machine without a question, and `docker` must work there"
            raise LabError(f"no Docker engine answers at {address}: {message}") from None
        if shutil.which("nerdctl") and not shutil.which("docker"):
            raise LabError(
                f"nerdctl has no Docker API, and no engine answers at {address}: install and start Docker Engine or "
                "Podman, and set DOCKER_HOST to its socket"
            ) from None
        if context.tls:
            raise LabError(f"no Docker engine can be used at {address}: {error}") from None
        raise LabError(
            f"no Docker engine answers at {address} ({_cause(error)}): {_way_out(error, address)}, or set DOCKER_HOST"
        ) from None


def _cause(error: BaseException) -> str:
    """The system's own message of an error, that of the first error in the chain."""
    while parent := error.__cause__ or error.__context__:
        error = parent
    return getattr(error, "strerror", None) or str(error)


def _way_out(error: BaseException, address: str) -> str:
    """What to do where no engine answers."""
    if os.strerror(errno.EACCES) == _cause(error):
        group = "join the group docker (sudo usermod --append --groups docker USER) and log in again"
        return f"{group}, call the lab with sudo"
    line = "" if address.startswith("tcp://") else system.engine_line(address)
    return f"start it{line and f' (here: {line})'}"


@contextmanager
def _own_authorities(context: contexts.Context) -> Iterator[None]:
    """Variables by which requests trusts other authorities, in the place of those that an engine was given, unset."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if context.tls else ()
    variables = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(variables)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise LabError, in one line, when the engine refuses something in the block or stops answering. When the engine
    or a command fails because a disk is full, raise DiskFull with that disk."""
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


def explain_refusal(error: APIError) -> str:
    """Return the engine's message of an error. When the engine no longer answers at all, raise its own error: then the
    request is not at fault."""
    connect().ping()
    return error.explanation


def data_folders() -> list[Path]:
    """Return the folders of the engine's data and of temporary files; none for an engine on another machine, or in a
    virtual one."""
    info = engine_info()
    return [Path(info.data_folder), Path(tempfile.gettempdir())] if _is_here(info) else []


def engine_info() -> inspection.EngineInfo:
    """Return what the engine reports of itself and its machine. Raises LabError when no engine answers."""
    return inspection.engine(connect().info())


def is_podman() -> bool:
    """Return whether the engine is Podman. Raises LabError when no engine answers."""
    return inspection.is_podman(connect().version())


def engine_cpus() -> list[int]:
    """Return the numbers of the CPUs that containers may be kept to: the lab's own, or all of another machine's."""
    return sorted(cpu for core in engine_cores() for cpu in core.cpus)


def engine_cores() -> list[Core]:
    """Return the cores of `engine_cpus`, as `machine.cores` does; on another machine each CPU counts as one core."""
    info = engine_info()
    return cores(sorted(os.sched_getaffinity(0))) if _is_here(info) else [Core((cpu,)) for cpu in range(info.cpus)]


def _is_here(info: inspection.EngineInfo) -> bool:
    """Whether an engine's containers run on this machine's kernel, by its address and what it says of its machine."""
    address = urlsplit(engine_address())
    if address.scheme == "ssh" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
        return False  # a machine that is like this one, it may be
    return platform.release() == info.kernel and abs(info.memory_bytes - memory_bytes()) < 1 << 28


def _is_virtual() -> bool:
    """Whether an engine is in a virtual machine on this one, and so has its CPU: on macOS each with a socket here."""
    return platform.system() == "Darwin" and engine_address().startswith("unix://")


def machine_in_builds() -> str:
    """Return the host name by which builds reach a proxy on this machine's loopback, when the engine is in a virtual
    machine on it. The name is "" when builds reach loopback by the host's network, or need no such proxy."""
    if not proxy.is_on_this_machine() or _is_here(engine_info()):
        return ""
    return "host.containers.internal" if is_podman() else "host.docker.internal"


def machine() -> dict[str, str | int]:
    """Return the facts of machine and engine on which measurements depend, by name, without host names and paths. Two
    runs can be compared only if these facts are equal."""
    info = engine_info()
    is_here = _is_here(info)
    return {
        "architecture": info.architecture,
        "cpu_model": cpu_model() if is_here or _is_virtual() else "unknown",
        "cpus": cpus() if is_here else info.cpus,
        "memory_gib": round((memory_bytes() if is_here else info.memory_bytes) / 2**30),
        "kernel": info.kernel,
        "engine": engine_version(info),
        "storage_driver": info.driver,
        "cgroup_version": info.cgroup_version,
    }


def parallel_builds() -> int:
    """Return how many binaries may be compiled at once: one per two CPUs of the engine's machine, and one per 2 GiB of
    its memory; at least one.

    One cargo keeps all CPUs busy except while it links. On two CPUs a second one takes 10% off the wall time, and uses
    7% more CPU time (benchmarks/grid.py). The two CPUs are often threads of one core.
    """
    facts = machine()
    return max(1, min(facts["cpus"] // 2, (facts["memory_gib"] << 30) // MEMORY_PER_BUILD_BYTES))


def engine_version(info: inspection.EngineInfo) -> str:
    return f"{'Podman ' if is_podman() else ''}{info.version}"
