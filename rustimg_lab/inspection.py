"""What the engine answers about images, containers and itself, as typed values: here alone Docker's JSON is read.

An engine may leave out what is not set (API 1.52 and newer, Podman) or send null for it; here it is an empty value.
"""

from dataclasses import dataclass
from typing import Any

CONTAINERD_STORE = "io.containerd.snapshotter"  # in the driver status of an engine that keeps images in containerd


@dataclass(frozen=True)
class ImageInfo:
    """An image. `id` is the engine's: of the configuration, or with containerd's store of the manifest. `layers` are
    the SHA-256 digests of the unpacked layers (DiffIDs), the lowest first."""

    id: str
    names: tuple[str, ...]
    architecture: str
    command: tuple[str, ...]
    user: str
    labels: dict[str, str]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class EngineInfo:
    """An engine. `driver_status` are the storage driver's own words by name; `keeps_in_containerd` whether containerd's
    image store holds the images."""

    version: str
    kernel: str
    operating_system: str
    architecture: str
    cgroup_version: str
    driver: str
    driver_status: dict[str, str]
    keeps_in_containerd: bool
    data_folder: str
    limits_memory: bool
    limits_swap: bool


def image(attributes: dict[str, Any]) -> ImageInfo:
    """Read what the engine's image inspect answered."""
    config = attributes.get("Config") or {}
    return ImageInfo(
        id=attributes.get("Id") or "",
        names=tuple(attributes.get("RepoTags") or ()),
        architecture=attributes.get("Architecture") or "unknown",
        command=tuple(config.get("Cmd") or ()),
        user=config.get("User") or "",
        labels=config.get("Labels") or {},
        layers=tuple((attributes.get("RootFS") or {}).get("Layers") or ()),
    )


def engine(info: dict[str, Any]) -> EngineInfo:
    """Read what the engine's info answered."""
    status = {pair[0]: pair[1] for pair in info.get("DriverStatus") or [] if len(pair) == 2}
    return EngineInfo(
        version=info.get("ServerVersion") or "unknown",
        kernel=info.get("KernelVersion") or "unknown",
        operating_system=info.get("OperatingSystem") or "unknown",
        architecture=info.get("Architecture") or "unknown",
        cgroup_version=info.get("CgroupVersion") or "unknown",
        driver=info.get("Driver") or "unknown",
        driver_status=status,
        keeps_in_containerd=CONTAINERD_STORE in str(status.get("driver-type")),
        data_folder=info.get("DockerRootDir") or "",
        limits_memory=bool(info.get("MemoryLimit")),
        limits_swap=bool(info.get("SwapLimit")),
    )


def is_out_of_memory(container: dict[str, Any]) -> bool:
    """Whether the engine says of a container that its memory limit ended it."""
    return bool((container.get("State") or {}).get("OOMKilled"))


def cpu_ns(stats: dict[str, Any]) -> int | None:
    """The CPU time that a container has used, in ns, as the engine's stats tell it; None where they tell none."""
    return ((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage") or None


def event_subject(event: dict[str, Any]) -> str:
    """The id of what an event is about: `Actor.ID`, which older engines called `id` too."""
    return (event.get("Actor") or {}).get("ID") or event.get("id") or ""
