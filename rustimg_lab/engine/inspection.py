"""Docker's JSON about images, containers and the engine, as typed values. No other module reads it. An engine may leave
out what is not set (API 1.52 and newer, Podman) or send null for it; here it is an empty value."""

from dataclasses import dataclass
from typing import Any

CONTAINERD_STORE = "io.containerd.snapshotter"  # in the driver status of an engine that keeps images in containerd
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}  # Podman's names -> the kernel's


@dataclass(frozen=True)
class ImageInfo:
    """An image. `id` is the engine's: of the configuration, or with containerd's store of the manifest. `layers` are
    the SHA-256 digests of the unpacked layers (DiffIDs), the lowest first; `created` is a UTC time whose order is that
    of the text; `command` is all that it runs: its `entrypoint`, and the arguments of that."""

    id: str
    created: str
    names: tuple[str, ...]
    digests: tuple[str, ...]  # by which registries have it, each as NAME@DIGEST
    architecture: str
    command: tuple[str, ...]
    user: str
    labels: dict[str, str]
    layers: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()  # that it says it listens on, such as "5432/tcp"


@dataclass(frozen=True)
class EngineInfo:
    """An engine, and its machine: `cpus`, `memory_bytes`, `architecture` in the kernel's words. `driver_status` are the
    storage driver's own words by name; `keeps_in_containerd` whether containerd's image store holds the images;
    `limits_memory` and `limits_swap` what it says of itself, which need not be so (see `engine/capabilities.py`)."""

    id: str
    version: str
    kernel: str
    system: str
    architecture: str
    cpus: int
    memory_bytes: int
    cgroup_version: str
    rootless: bool
    driver: str
    driver_status: dict[str, str]
    keeps_in_containerd: bool
    data_folder: str
    limits_memory: bool
    limits_swap: bool


def image(attributes: dict[str, Any]) -> ImageInfo:
    """Return the values in the engine's answer to the inspection of an image."""
    config = attributes.get("Config") or {}
    entrypoint = tuple(config.get("Entrypoint") or ())
    return ImageInfo(
        id=attributes.get("Id") or "",
        created=(attributes.get("Created") or "").rstrip("Z"),
        names=tuple(attributes.get("RepoTags") or ()),
        digests=tuple(attributes.get("RepoDigests") or ()),
        architecture=attributes.get("Architecture") or "unknown",
        command=(*entrypoint, *(config.get("Cmd") or ())),
        user=config.get("User") or "",
        labels=config.get("Labels") or {},
        layers=tuple((attributes.get("RootFS") or {}).get("Layers") or ()),
        entrypoint=entrypoint,
        ports=tuple(config.get("ExposedPorts") or ()),
    )


def engine(info: dict[str, Any]) -> EngineInfo:
    """Return the values in the engine's answer to a request for its info."""
    status = {pair[0]: pair[1] for pair in info.get("DriverStatus") or [] if len(pair) == 2}
    architecture = info.get("Architecture") or "unknown"
    return EngineInfo(
        id=info.get("ID") or "",
        version=info.get("ServerVersion") or "unknown",
        kernel=info.get("KernelVersion") or "unknown",
        system=info.get("OperatingSystem") or "unknown",
        architecture=ARCHITECTURES.get(architecture, architecture),
        cpus=info.get("NCPU") or 1,
        memory_bytes=info.get("MemTotal") or 0,
        cgroup_version=info.get("CgroupVersion") or "unknown",
        rootless="name=rootless" in (info.get("SecurityOptions") or []),
        driver=info.get("Driver") or "unknown",
        driver_status=status,
        keeps_in_containerd=CONTAINERD_STORE in str(status.get("driver-type")),
        data_folder=info.get("DockerRootDir") or "",
        limits_memory=bool(info.get("MemoryLimit")),
        limits_swap=bool(info.get("SwapLimit")),
    )


def is_podman(version: dict[str, Any]) -> bool:
    """Return whether the engine is Podman, by its answer to a request for its version."""
    return any(component.get("Name") == "Podman Engine" for component in version.get("Components") or [])


def api_version(version: dict[str, Any]) -> str:
    """Return the newest API version that an engine speaks, by its answer to a request for its version."""
    return version.get("ApiVersion") or "unknown"


def cpuset(container: dict[str, Any]) -> str:
    """Return the CPUs that the engine reports to keep a container to, as in `--cpuset-cpus`; "" for all."""
    return (container.get("HostConfig") or {}).get("CpusetCpus") or ""


def published_port(container: dict[str, Any], port: str) -> int:
    """Return the port of the engine's machine at which a container's `port` ("8080/tcp") is published; 0 for none."""
    bindings = ((container.get("NetworkSettings") or {}).get("Ports") or {}).get(port) or [{}]
    return int(bindings[0].get("HostPort") or 0)


def is_out_of_memory(container: dict[str, Any]) -> bool:
    """Return whether the engine reports that a container was ended by its memory limit."""
    return bool((container.get("State") or {}).get("OOMKilled"))


def cpu_ns(stats: dict[str, Any]) -> int | None:
    """Return the CPU time that a container has used, in nanoseconds, from the engine's stats; None when they have
    none."""
    return ((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage") or None


def volumes(container: dict[str, Any]) -> dict[str, str]:
    """Return the engine's name of each volume of a container, by the path at which it is mounted."""
    return {mount["Destination"]: mount["Name"] for mount in container.get("Mounts") or [] if mount.get("Name")}
