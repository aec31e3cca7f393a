"""Build profiles: `data/profiles.toml` -> Profile, alone or combined with `+`; which cannot be combined, and why."""

import re
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any

from rustimg_lab.errors import LabError, check_known, unknown_name
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
        """Return the name, in the form for the names of images and bake targets: `_` in place of `+`."""
        return self.name.replace("+", "_")

    @property
    def compiled(self) -> str:
        """Return a name for what cargo compiles: profiles with equal names use the same compiled crates. `cargo
        auditable` uses them too: for its RUSTC_WORKSPACE_WRAPPER cargo compiles the workspace's crates anew, and no
        others."""
        words = [
            *(f"{key}-{value}" for key, value in self.settings),
            *(flag[2:] for flag in (*self.rustflags, *self.cargo)),
        ]
        return re.sub("[=,+]", "-", "-".join(words)) or "release"

    @property
    def unstable(self) -> bool:
        """Return whether the profile needs unstable options: a nightly compiler, or RUSTC_BOOTSTRAP with the stable
        one."""
        return any(flag.startswith("-Z") for flag in (*self.rustflags, *self.cargo))

    @property
    def builds_std(self) -> bool:
        """Return whether cargo compiles the standard library too, which takes its sources."""
        return any(flag.startswith("-Zbuild-std") for flag in self.cargo)


# No profile of the file's: it sets nothing, and its cells are built as the crate's owner builds it.
PUBLISHED = Profile("published", "the crate's own profile, features, allocator and flags, and nothing of the lab's")


def find(name: str) -> Profile:
    """Return the profile with that name, or the combination of names joined by `+`. Raises LabError for an unknown
    name, two profiles that contradict each other, and a combination with `published`."""
    profiles = all_profiles() | {PUBLISHED.name: PUBLISHED}
    parts = name.split("+")
    for part in parts:
        if part not in profiles:
            raise LabError(f"{unknown_name('profile', part, profiles)}; others can be added to {PROFILES.name}")
    if len(parts) == 1:
        return profiles[name]
    if PUBLISHED.name in parts:
        raise LabError(f"'{name}': {PUBLISHED.name} is the crate as its owner builds it, and cannot be combined")
    summary = "; ".join(profiles[part].summary for part in parts)
    return replace(reduce(_combine, (profiles[part] for part in parts)), name=name, summary=summary, gain="", cost="")


@cache
def all_profiles() -> dict[str, Profile]:
    """Return all profiles of data/profiles.toml by name, in its order. Raises LabError, with the profile, where the
    file cannot be used."""
    return toml.entries(PROFILES, "profile", _profile)


def _profile(name: str, entry: Any, profiles: dict[str, Profile]) -> Profile:
    if not all(letter.isalnum() or letter == "-" for letter in name) or name == PUBLISHED.name:
        raise LabError(f"a name has letters, digits and dashes, and is not {PUBLISHED.name}, which the lab has itself")
    profile = toml.make(Profile, entry, name=name)
    settings = ((key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in profile.settings)
    profile = replace(profile, settings=tuple(settings))  # as cargo says them
    for key, _ in profile.settings:
        check_known("setting", key, _SETTINGS)
    # These become lines and words of a Dockerfile.
    words = [*profile.rustflags, *profile.cargo, *profile.of, *(word for pair in profile.settings for word in pair)]
    if wrong := [word for word in words if not isinstance(word, str) or not _WORD.fullmatch(word)]:
        raise LabError(f"{str(wrong[0])[:40]!r} is no name, value or option that cargo takes")
    if not toml.is_line(profile.summary):
        raise LabError(f"its summary, {profile.summary!r}, is no text of one line")
    for part in profile.of:
        check_known("profile before it", part, profiles)
    return reduce(_combine, (profiles[part] for part in profile.of), profile)


def _combine(first: Profile, second: Profile) -> Profile:
    """Return the first profile, with what the second is compiled with too. Raises LabError when they contradict each
    other."""
    settings = dict(first.settings)
    for key, value in second.settings:
        if settings.setdefault(key, value) != value:
            raise LabError(
                f"'{first.name}' and '{second.name}' cannot be combined: {key} is {settings[key]} and {value}"
            )
    switches = {key: getattr(first, key) or getattr(second, key) for key in _SWITCHES}
    options = {key: _join_options(first, second, key) for key in ("rustflags", "cargo")}
    return replace(first, settings=tuple(sorted(settings.items())), **options, **switches)


def _join_options(first_profile: Profile, second_profile: Profile, kind: str) -> tuple[str, ...]:
    """Return the options of that kind of both profiles. Raises LabError where they give one option two values."""
    first_options, second_options = getattr(first_profile, kind), getattr(second_profile, kind)
    # The linker's arguments add up, in their order, and may be there twice; all others are there once.
    linker = [option for option in (*first_options, *second_options) if option.startswith(_LINK_ARGUMENT)]
    options = {option.partition("=")[0]: option for option in first_options if option not in linker}
    for option in second_options:
        if option not in linker and (before := options.setdefault(option.partition("=")[0], option)) != option:
            raise LabError(f"'{first_profile.name}' and '{second_profile.name}' cannot be combined: {before}, {option}")
    return (*sorted(options.values()), *linker)
