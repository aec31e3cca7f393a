"""A crate -> the allocators that it brings: by features, and of its own."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config
from rustimg_lab.build.cargo_config import brings
from rustimg_lab.build.crate import Crate, is_of_here
from rustimg_lab.build.known import KNOWN
from rustimg_lab.model.architecture import TARGETS, Architecture

# Up to the item's end, with the attributes before it; a module in a file of its own, with what it asks.
_SETS = re.compile(r"#\[(?:cfg_attr\([^\]]*,\s*)?global_allocator\s*\)?\][^;]*;")
_MODULE = re.compile(r"(#\[cfg\([^\]]*\])\s*(?:#\[[^\]]*\]\s*)*(?:pub\S*\s+)?mod\s+(\w+)\s*;")
_NAMED = re.compile(r'feature\s*=\s*"([\w-]+)"')
# Conditions, https://doc.rust-lang.org/reference/conditional-compilation.html, and what holds of a release build here.
_CONDITION = re.compile(r"#\[cfg(?:\(([^\]]*)|_attr\(([^\]]*),\s*global_allocator\s*)\)\s*\]")
_FACT = re.compile(r'\b(?!(?:all|any|not)\b)(\w+)(?:\s*=\s*"([^"]*)")?')
_JOINED = re.compile(r"\b(all|any|not)\s*\(([01,\s]*)\)")
_LINUX = {"true", "unix", "target_os=linux", "target_family=unix", "target_pointer_width=64", "target_endian=little"}
_TARGETS = [
    _LINUX | {f"target_env={libc}", f"target_arch={architecture.value}"}
    for libc in ("gnu", "musl")
    for architecture in Architecture
]


def by_feature(crate: Crate) -> dict[str, str]:
    """Return the feature by which each allocator is turned on: the one that the allocator's place in the sources names,
    else one that is named for it, its author's before an optional dependency's own, and one that turns on little. An
    allocator for other systems alone has none."""
    package, named = crate.package, set()
    for text in crate.texts.values():
        named |= {name for condition in _conditions(text) for name in _NAMED.findall(condition)}
    features, found = package["features"], {}
    depended = [each for each in package["dependencies"] if not each["kind"] and is_of_here(each)]
    names = {each["name"]: each.get("rename") or each["name"] for each in depended}
    for allocating, allocator in KNOWN["allocator_crates"].items():
        if name := names.get(allocating):
            fitting = [each for each in features if each != "default" and f"dep:{name}" in brings(features, each)]
            ranks = [
                (each not in named, "alloc" not in each, each == name, len(brings(features, each)), each)
                for each in fitting
            ]
            found |= {allocator: min(ranks)[-1]} if ranks else {}
    return found


def has_own(crate: Crate, on: set[str], configuration: dict[str, Any]) -> bool:
    """Return whether the sources set an allocator while these features of the crate are on, and those of a library that
    it is depended on with, and what the project's own `configuration` sets; where they do in a module, its condition
    counts too."""
    facts = _set(crate, configuration)
    depended = crate.dependencies()
    on_in = {each["name"]: _on_in(each, depended) for each in crate.linked}

    def holds(condition: str, path: Path) -> bool:
        package = crate.package_of(path)
        return holds_here(condition, on if package is crate.package else on_in[package["name"]], facts)

    left_out = {
        name
        for path, text in crate.texts.items()
        for condition, name in _MODULE.findall(text)
        if not holds(condition, path)
    }
    return any(
        holds(condition, path)
        for path, text in crate.texts.items()
        if not left_out & {path.stem, path.parent.name}
        for condition in _conditions(text)
    )


def _set(crate: Crate, configuration: dict[str, Any]) -> set[str]:
    """The conditions that hold by the project's own flags and by its release profile."""
    flags = " ".join(flag for target in TARGETS for flag in cargo_config.rustflags(configuration, target))
    manifest = cargo_config.parsed(crate.root / "Cargo.toml")
    release = cargo_config.merged(manifest, configuration).get("profile", {}).get("release", {})
    facts = {name.replace('"', "") for name in re.findall(r"--cfg[= ](\S+)", flags)}
    return facts | ({"debug_assertions"} if release.get("debug-assertions") else set())


def _on_in(library: dict[str, Any], depended: list[dict[str, Any]]) -> set[str]:
    """The features of a library that the program and its other libraries turn on, by what they depend on: its default
    where one of them takes it, or none is known."""
    own = [each for each in depended if each["name"] == library["name"]]
    asked = {feature for each in own for feature in each["features"]}
    if not own or any(each.get("uses_default_features", True) for each in own):
        asked.add("default")
    return set().union(*(brings(library["features"], each) for each in asked))


def _conditions(text: str) -> list[str]:
    """What each place that sets an allocator asks: its own attributes, and those of the blocks that it is in."""
    found = []
    for match in _SETS.finditer(text):
        opened = [0]  # where the head of each block begins that is open here
        heads: list[str] = []
        for place in re.finditer(r"[{};]", text[: match.start()]):
            if place.group() == "{":
                heads.append(text[opened[-1] : place.start()])
            elif place.group() == "}" and heads:
                heads.pop()
            opened.append(place.end())
        heads = [head for head in heads if "cfg(" in head]
        found.append(" ".join([*heads, text[opened[-1] : match.end()]]))
    return found


def holds_here(text: str, features: set[str], others: Iterable[str] = ()) -> bool:
    """Return whether all conditions in a text's attributes hold for one of the targets, with those features and others
    that are set."""
    conditions = ["".join(each) for each in _CONDITION.findall(text)]
    facts = {f"feature={each}" for each in features}.union(others)
    return any(all(_is_true(each, facts | target) for each in conditions) for target in _TARGETS)


def _is_true(condition: str, facts: set[str]) -> bool:
    """Whether a condition is true; one that cannot be read, as in a macro, counts as true."""
    text = _FACT.sub(lambda fact: str(int((f"{fact[1]}={fact[2]}" if fact[2] else fact[1]) in facts)), condition)
    while joined := _JOINED.search(text):
        told = joined[2]
        value = {"all": "0" not in told, "any": "1" in told, "not": "1" not in told}[joined[1]]
        text = text[: joined.start()] + str(int(value)) + text[joined.end() :]
    return text.strip() != "0"
