"""Bases, allocators, and cells: one base image, one build profile, one allocator."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from rustimg_lab.errors import LabError, check_known
from rustimg_lab.model import bases
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import BUILDER, DEBIAN, RELEASES, Base
from rustimg_lab.model.extras import ADDITIONS
from rustimg_lab.model.profiles import PUBLISHED, Profile, all_profiles, find

WITH = "-with_"  # in a cell's name, before its additions


def layout_name(name: str, layout: int) -> str:
    """Return the name of a layout of a cell or binary. Layout 0 has the name without a suffix."""
    return f"{name}-layout_{layout}" if layout else name


def _slug(begin: str, artifact: "Cell | Binary") -> str:
    name = f"{begin}-{artifact.profile.slug}-{artifact.allocator}{artifact.architecture.mark}"
    return layout_name(name, artifact.layout) + (WITH + "_".join(artifact.additions) if artifact.additions else "")


@dataclass(frozen=True)
class Binary:
    """What cargo builds once and every base that can hold it shares; `additions` are those that change the program."""

    libc: str
    profile: Profile
    allocator: str
    debian: str = DEBIAN
    layout: int = 0
    architecture: Architecture = NATIVE
    additions: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return _slug(self.libc, self)


@dataclass(frozen=True)
class Cell:
    """`debian` is the release that the builder is on, and with it debian slim and distroless; `additions` are what the
    image has beside the program (see `model/extras.py`); `layout` is the seed of the order of its functions, 0 for the
    linker's own order."""

    base: Base
    profile: Profile
    allocator: str
    debian: str = DEBIAN
    additions: tuple[str, ...] = ()
    layout: int = 0
    architecture: Architecture = NATIVE

    @property
    def slug(self) -> str:
        return _slug(self.base.name, self)

    @property
    def libc(self) -> str:
        """Return the base's libc, or gnu where the profile is for glibc alone. Such a program needs no libc of its
        base."""
        return "gnu" if self.profile.glibc else self.base.libc

    @property
    def target(self) -> str:
        """Return Rust's name for the target that the program is compiled for."""
        return self.architecture.rust(self.libc)

    @property
    def images(self) -> tuple[str, str]:
        """Return the names of the cell's base image and of its builder. Another architecture than this machine's is
        marked, as in `debian-arm64`."""
        mark = "" if self.architecture is NATIVE else f"-{self.architecture.debian}"
        return self.base.name + mark, BUILDER + mark

    @property
    def binary(self) -> Binary:
        changing = tuple(name for name in self.additions if ADDITIONS[name].build_environment)
        return Binary(self.libc, self.profile, self.allocator, self.debian, self.layout, self.architecture, changing)

    def __str__(self) -> str:
        return self.slug

    def facts(self) -> dict[str, str]:
        """Return what the cell is made of, in words, by heading."""
        flags = [*(f"{key} = {value}" for key, value in self.profile.settings), *self.profile.rustflags]
        flags += ["stripped"] * self.profile.strip + ["packed by UPX"] * self.profile.upx
        flags += ["its crates listed in it"] * self.profile.auditable
        return {
            "cell": self.slug,
            "base image": reference(self.base.name, self.debian) or f"none: {self.base.name} is empty",
            "architecture": self.architecture.value,
            "target": self.target,
            "profile": self.profile.name,
            "its flags": ", ".join(flags) or "cargo's own",
            "allocator": self.allocator,
        } | ({"with": ", ".join(self.additions)} if self.additions else {})

    def _repr_html_(self) -> str:
        """Return the table of facts that a notebook shows."""
        lines = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self.facts().items())
        return f"<table>{''.join(lines)}</table>"


ARTICLE_BASES = ("scratch", "alpine", "distroless", "debian")

PROFILES = ("baseline", "optimized")  # the article's; `profiles.all_profiles()` has all

ALLOCATORS = ("system", "jemalloc", "mimalloc")
OWN = "own"  # in the place of an allocator: the one that the app has with the features that it is published with
ARTICLE = "article"  # in the place of an allocator: the one that the article uses on that base


@dataclass(frozen=True)
class Grid:
    """The cells of a run unless some are named: every combination of these names."""

    bases: tuple[str, ...]
    profiles: tuple[str, ...]
    allocators: tuple[str, ...] = (ARTICLE,)


GRIDS = ("article", "ladder")


def usual_grid(grid_name: str, debian: str = DEBIAN) -> Grid:
    """Return one of `GRIDS`: the article's, or every optimization that the release has the tools for, on musl and
    glibc. Raises LabError for an unknown release, and where data/profiles.toml cannot be used."""
    if grid_name == "article":
        return Grid(ARTICLE_BASES, PROFILES)
    has_upx = bool(release(debian)["upx"])
    names = (name for name, profile in all_profiles().items() if not profile.auditable and (has_upx or not profile.upx))
    return Grid(("scratch", "debian"), tuple(names))


def reference(name: str, debian: str = DEBIAN) -> str | None:
    """Return the official image of a base, or of the Rust builder, on a Debian release; None for scratch."""
    return bases.fill_release(bases.bases_and_builder()[name].image, debian) or None


def base(name: str) -> Base:
    """Return the base with that name. Raises LabError, with the nearest name, when there is none."""
    check_known("base", name, known_bases := bases.all_bases())
    return known_bases[name]


def release(debian: str) -> dict[str, str]:
    """Return the words that a Debian release puts into names, by placeholder. Raises LabError, with the nearest name,
    for an unknown release."""
    check_known("Debian release", debian, RELEASES)
    return RELEASES[debian]


def cell(
    base_name: str, profile_name: str, allocator: str, debian: str = DEBIAN, additions: tuple[str, ...] = ()
) -> Cell:
    """Return the cell with these names. The allocator `article` becomes the article's on that base, or the crate's own
    with the profile `published`. Raises LabError for an unknown name, and for a profile that the release or allocator
    rules out."""
    chosen_base, profile = base(base_name), find(profile_name)
    upx = release(debian)["upx"]
    check_known("allocator", allocator, (*ALLOCATORS, ARTICLE, OWN))
    if profile.upx and not upx:
        raise LabError(f"profile '{profile_name}': Debian {debian} has no package of UPX; take --debian trixie")
    if profile == PUBLISHED:
        if allocator not in (ARTICLE, OWN):
            raise LabError(f"profile '{PUBLISHED.name}' has the crate's own allocator, not {allocator}: leave that out")
        allocator = OWN
    if allocator == ARTICLE:
        allocator = "system" if profile.glibc else chosen_base.article_allocator
    return Cell(chosen_base, profile, allocator, debian, additions)


def refuse_additions(additions: Iterable[str], cells: Iterable[Cell]) -> None:
    """Raise LabError for an addition that would change an allocator that no cell has; the crate's own may be any."""
    allocators = {cell.allocator for cell in cells}
    for name in additions:
        if (changed := ADDITIONS[name].allocator) and not {changed, OWN} & allocators:
            raise LabError(f"--with {name}: no cell has {changed}; name it in --allocators, or leave it out")


def links_musl(base_name: str, profile_name: str) -> bool:
    """Return whether cells of a base and a profile are linked with musl; False where the lab no longer knows one of the
    names."""
    try:
        return cell(base_name, profile_name, ARTICLE).libc == "musl"
    except LabError:
        return False


def grid(bases: Iterable[str], profiles: Iterable[str], allocators: Iterable[str], debian: str = DEBIAN) -> list[Cell]:
    """Return every combination of the names, each once, by profile, allocator, base as named; `published` once per
    base. Raises LabError as `cell` does: for an unknown name, or names that cannot be combined."""
    bases, profiles, allocators = list(bases), list(profiles), list(allocators)
    overrides = {PUBLISHED.name: [OWN]}
    cells = (cell(b, p, a, debian) for p in profiles for a in overrides.get(p, allocators) for b in bases)
    return list(dict.fromkeys(cells))
