"""Build profiles: `data/profiles.toml` -> Profile, alone or combined with `+`; which cannot be combined, and why."""

import re
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any

from rustimg_lab.errors import LabError, check_known, unknown
from rustimg_lab.model import toml
from rustimg_lab.paths import PROFILES

_SWITCHES = ("strip", "upx", "glibc", "auditable")
_SETTINGS = (
    "opt-level", "lto", "codegen-units", "panic", "strip", "debug", "split-debuginfo", "debug-assertions",
    "overflow-checks", "incremental", "rpath", "trim-paths",
)  # fmt: skip
_WORD = re.compile(r"[\w.,:/=+@%-]+", re.ASCII)
_LINK_ARGUMENT = "-Clink-arg="


@dataclass(frozen=True)
class Profile:
    """How the binary is compiled: cargo's release profile, changed by `settings` (cargo's names), with options for the
    compiler (`rustflags`) and for cargo; then stripped or not, packed by UPX or not, for `glibc` whatever the base has,
    and by `cargo auditable` or not. `gain` and `cost` are what to expect of it, `of` the profiles that it has in it."""

    name: str
    summary: str
    gain: str = ""
    cost: str = ""
    of: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    rustflags: tuple[str, ...] = ()
    cargo: tuple[str, ...] = ()
    strip: bool = False
    upx: bool = False
    glibc: bool = False
    auditable: bool = False

    @property
    def slug(self) -> str:
        """The name, as it may stand in the name of an image and of a bake target."""
        return self.name.replace("+", "_")

    @property
    def compiled(self) -> str:
        """What of it cargo is told, as a name: profiles that have the same share what cargo compiled. `cargo auditable`
        shares it too: for its RUSTC_WORKSPACE_WRAPPER cargo compiles the workspace's crates anew, and no others."""
        said = [
            *(f"{key}-{value}" for key, value in self.settings),
            *(flag[2:] for flag in (*self.rustflags, *self.cargo)),
        ]
        return re.sub("[=,+]", "-", "-".join(said)) or "release"

    @property
    def unstable(self) -> bool:
        """Whether it takes what the stable compiler has for its own use only (RUSTC_BOOTSTRAP), or a nightly one."""
        return any(flag.startswith("-Z") for flag in (*self.rustflags, *self.cargo))

    @property
    def builds_std(self) -> bool:
        """Whether cargo compiles the standard library too, for which it needs its sources."""
        return any(flag.startswith("-Zbuild-std") for flag in self.cargo)


# No profile of the file's: it sets nothing, and its cells are built as the crate's owner builds it.
PUBLISHED = Profile("published", "the crate's own profile, features, allocator and flags, and nothing of the lab's")


def find(name: str) -> Profile:
    """The profile of that name, or those joined by `+`. Raises LabError when one is unknown, or two contradict."""
    known = everything() | {PUBLISHED.name: PUBLISHED}
    parts = name.split("+")
    for part in parts:
        if part not in known:
            raise LabError(f"{unknown('profile', part, known)}; others can be added to {PROFILES.name}")
    if len(parts) == 1:
        return known[name]
    if PUBLISHED.name in parts:
        raise LabError(f"'{name}': {PUBLISHED.name} is the crate as its owner builds it, and cannot be combined")
    summary = "; ".join(known[part].summary for part in parts)
    return replace(reduce(_combined, (known[part] for part in parts)), name=name, summary=summary, gain="", cost="")


@cache
def everything() -> dict[str, Profile]:
    """All profiles of the file, in its order. Raises LabError, with the profile, where the file cannot be used."""
    return toml.entries(PROFILES, "profile", _profile)


def _profile(name: str, entry: Any, known: dict[str, Profile]) -> Profile:
    if not all(letter.isalnum() or letter == "-" for letter in name) or name == PUBLISHED.name:
        raise LabError(f"a name has letters, digits and dashes, and is not {PUBLISHED.name}, which the lab has itself")
    own = toml.make(Profile, entry, name=name)
    said = ((key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in own.settings)
    own = replace(own, settings=tuple(said))  # as cargo says them
    for key, _ in own.settings:
        check_known("setting", key, _SETTINGS)
    # These become lines and words of a Dockerfile.
    words = [*own.rustflags, *own.cargo, *own.of, *(word for setting in own.settings for word in setting)]
    if wrong := [word for word in words if not isinstance(word, str) or not _WORD.fullmatch(word)]:
        raise LabError(f"{str(wrong[0])[:40]!r} is no name, value or option that cargo takes")
    if not toml.is_line(own.summary):
        raise LabError(f"its summary, {own.summary!r}, is no text of one line")
    for part in own.of:
        check_known("profile before it", part, known)
    return reduce(_combined, (known[part] for part in own.of), own)


def _combined(one: Profile, other: Profile) -> Profile:
    """The first, with what the other is compiled with too. Raises LabError when they contradict each other."""
    settings = dict(one.settings)
    for key, value in other.settings:
        if settings.setdefault(key, value) != value:
            raise LabError(f"'{one.name}' and '{other.name}' cannot be combined: {key} is {settings[key]} and {value}")
    switches = {key: getattr(one, key) or getattr(other, key) for key in _SWITCHES}
    options = {key: _both(one, other, key) for key in ("rustflags", "cargo")}
    return replace(one, settings=tuple(sorted(settings.items())), **options, **switches)


def _both(one: Profile, other: Profile, kind: str) -> tuple[str, ...]:
    """The options of that kind of both profiles. Raises LabError where they give one option two values."""
    first, second = getattr(one, kind), getattr(other, kind)
    # The linker's arguments add up, in their order, and may be there twice; all others are there once.
    linker = [option for option in (*first, *second) if option.startswith(_LINK_ARGUMENT)]
    options = {option.partition("=")[0]: option for option in first if option not in linker}
    for option in second:
        if option not in linker and (before := options.setdefault(option.partition("=")[0], option)) != option:
            raise LabError(f"'{one.name}' and '{other.name}' cannot be combined: {before}, {option}")
    return (*sorted(options.values()), *linker)
