"""What `--with` adds to an image, such as time zones: copied from the builder, or compiled into the program."""

from collections.abc import Iterable
from dataclasses import dataclass

from rustimg_lab.errors import check_known


@dataclass(frozen=True)
class Addition:
    """`packages` are Debian's, from which it is copied; `commands` make it part of the image's tree at /build/rootfs,
    with `{app}` for the program's folder; `places` are what they write, with a / behind a folder of which they write
    all. `entrypoint` is put before the program. One that changes the program instead has a `build_environment`:
    variables for cargo and build scripts."""

    summary: str
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    build_environment: tuple[tuple[str, str], ...] = ()
    allocator: str = ""


ADDITIONS = {
    "ca-certificates": Addition(
        "the public certificate authorities, where programs look for them",
        ("ca-certificates",),
        ("mkdir -p /build/rootfs/etc/ssl/certs", "cp /etc/ssl/certs/ca-certificates.crt /build/rootfs/etc/ssl/certs/"),
        ("/etc/ssl/certs/ca-certificates.crt",),
    ),
    "init": Addition(
        "tini as process 1: it passes signals on, and takes up what has lost its parent",
        ("tini:$TARGETARCH",),
        ("cp /usr/bin/tini-static /build/rootfs/{app}/tini",),
        ("/{app}/tini",),
        ("/{app}/tini", "--"),
    ),
    "large-pages": Addition(
        "jemalloc for kernels with pages of up to 64 KiB (arm64)",
        build_environment=(("JEMALLOC_SYS_WITH_LG_PAGE", "16"),),
        allocator="jemalloc",
    ),
    "tmp": Addition(
        "a folder /tmp that every user may write to", (), ("mkdir -p --mode=1777 /build/rootfs/tmp",), ("/tmp",)
    ),
    "tzdata": Addition(
        "the time zones, for TZ",
        ("tzdata",),
        # Some releases have all zones two times more: with leap seconds, and by another name.
        (
            "mkdir -p /build/rootfs/usr/share",
            "cp -r /usr/share/zoneinfo /build/rootfs/usr/share/",
            "rm -rf /build/rootfs/usr/share/zoneinfo/right /build/rootfs/usr/share/zoneinfo/posix",
        ),
        ("/usr/share/zoneinfo/",),
    ),
}


def parse(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of additions, each once, sorted. Raises LabError, with the nearest name, for an unknown one."""
    additions = tuple(sorted(set(names)))
    for name in additions:
        check_known("addition", name, ADDITIONS)
    return additions
