"""Base, profile, allocator, and the cell that is one of each. Frozen and pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rustimg_lab import profiles
from rustimg_lab.errors import unknown
from rustimg_lab.profiles import Profile

MUSL = "x86_64-unknown-linux-musl"
GNU = "x86_64-unknown-linux-gnu"
RUST_VERSION = "1.96"
BUILDER = "rust"  # the name of the builder image beside the bases
RELEASES = {"trixie": "13", "bookworm": "12"}  # of Debian, by which the builder, slim and distroless are named
DEBIAN = "trixie"


@dataclass(frozen=True)
class Base:
    """What an image stands on. `image` is the official one, on a Debian release or not; `scratch` has none."""

    name: str
    label: str
    target: str
    image: str | None

    @property
    def article_allocator(self) -> str:
        """The article's own rule: jemalloc on 64-bit musl, system elsewhere."""
        return "jemalloc" if self.target == MUSL else "system"


@dataclass(frozen=True)
class Binary:
    """What cargo builds once and every base that can hold it shares."""

    target: str
    profile: Profile
    allocator: str
    debian: str = DEBIAN

    @property
    def slug(self) -> str:
        return f"{'musl' if self.target == MUSL else 'gnu'}-{self.profile.slug}-{self.allocator}"


@dataclass(frozen=True)
class Cell:
    """`debian` is the release that the builder is on, and with it debian slim and distroless."""

    base: Base
    profile: Profile
    allocator: str
    debian: str = DEBIAN

    @property
    def slug(self) -> str:
        return f"{self.base.name}-{self.profile.slug}-{self.allocator}"

    @property
    def target(self) -> str:
        """The base's, unless the profile is of glibc alone: then what comes out needs no libc of its base."""
        return GNU if self.profile.glibc else self.base.target

    @property
    def binary(self) -> Binary:
        return Binary(self.target, self.profile, self.allocator, self.debian)


@dataclass(frozen=True)
class App:
    """A binary of a Rust crate: its name, the crate's folder, the SHA-256 of its Cargo.lock in hex, the crate's name,
    and the features that the binary needs beside the allocator's."""

    name: str
    directory: Path
    lock_sha256: str
    package: str
    features: tuple[str, ...] = ()

    @property
    def server(self) -> "App":
        """The crate's server, behind its feature `server`: images of their own, beside the client's."""
        return replace(self, name=f"{self.package}-server", features=("server",))


BASES = {
    base.name: base
    for base in (
        Base("scratch", "scratch", MUSL, None),
        Base("alpine", "alpine", MUSL, "alpine:3.24"),
        Base("distroless", "distroless/cc", GNU, "gcr.io/distroless/cc-debian{number}"),
        Base("debian", "debian slim", GNU, "debian:{debian}-slim"),
    )
}

PROFILES = ("baseline", "optimized")  # the article's; `profiles.everything()` has all

ALLOCATORS = ("system", "jemalloc", "mimalloc")
ARTICLE = "article"  # in the place of an allocator: the one that the article uses on that base


@dataclass(frozen=True)
class Grid:
    """The cells of a run unless some are named: every combination of these names."""

    bases: tuple[str, ...]
    profiles: tuple[str, ...]
    allocators: tuple[str, ...] = (ARTICLE,)


GRIDS = ("article", "ladder")


def usual(grid_name: str) -> Grid:
    """One of `GRIDS`: the article's, or every profile on musl and on glibc. Raises LabError as `everything` does."""
    if grid_name == "article":
        return Grid(tuple(BASES), PROFILES)
    return Grid(("scratch", "debian"), tuple(profiles.everything()))


def reference(name: str, debian: str = DEBIAN) -> str | None:
    """The official image of a base, or of the Rust builder, on a Debian release; None for scratch."""
    image = f"rust:{RUST_VERSION}-slim-{{debian}}" if name == BUILDER else base(name).image
    return image and image.format(debian=debian, number=RELEASES[debian])


def base(name: str) -> Base:
    """The base of that name. Raises LabError, with the nearest name, when there is none."""
    return BASES[_known("base", name, BASES)]


def cell(base_name: str, profile_name: str, allocator: str, debian: str = DEBIAN) -> Cell:
    """One cell by names; the allocator `article` becomes what the article uses on that base. Raises LabError."""
    chosen, compiled = base(base_name), profiles.find(profile_name)
    _known("Debian release", debian, RELEASES)
    _known("allocator", allocator, (*ALLOCATORS, ARTICLE))
    if allocator == ARTICLE:
        allocator = "system" if compiled.glibc else chosen.article_allocator
    return Cell(chosen, compiled, allocator, debian)


def grid(bases: Iterable[str], profiles: Iterable[str], allocators: Iterable[str], debian: str = DEBIAN) -> list[Cell]:
    """Every combination, each once, ordered by profile, allocator, base as named. Raises LabError on a wrong name."""
    bases, profiles, allocators = list(bases), list(profiles), list(allocators)
    cells = (cell(b, p, a, debian) for p in profiles for a in allocators for b in bases)
    return list(dict.fromkeys(cells))


def _known(kind: str, name: str, names: Iterable[str]) -> str:
    if name not in names:
        raise unknown(kind, name, names)
    return name
