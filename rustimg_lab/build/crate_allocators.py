"""A crate -> the allocators that it brings: by features, and of its own."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config
from rustimg_lab.build.cargo_config import expand
from rustimg_lab.build.crate import Crate, is_for_targets
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


def allocator_features(crate: Crate) -> dict[str, str]:
    """Return the feature that turns on each allocator, by the allocator's name. Of several, one that the sources name
    where they set an allocator comes first, then one with "alloc" in its name. An allocator without a feature, or for
    other systems alone, is left out."""
    package, cited = crate.package, set()
    for text in crate.texts.values():
        cited |= {name for condition in _conditions(text) for name in _NAMED.findall(condition)}
    features, choices = package["features"], {}
    dependencies = [entry for entry in package["dependencies"] if not entry["kind"] and is_for_targets(entry)]
    names = {dependency["name"]: dependency.get("rename") or dependency["name"] for dependency in dependencies}
    for crate_name, allocator in KNOWN["allocator_crates"].items():
        if name := names.get(crate_name):
            candidates = [
                feature for feature in features if feature != "default" and f"dep:{name}" in expand(features, feature)
            ]
            ranks = [
                (feature not in cited, "alloc" not in feature, feature == name, len(expand(features, feature)), feature)
                for feature in candidates
            ]
            choices |= {allocator: min(ranks)[-1]} if ranks else {}
    return choices


def has_own_allocator(crate: Crate, features: set[str], configuration: dict[str, Any]) -> bool:
    """Return whether the sources set an allocator while these features of the crate are on. The features of linked
    libraries, the project's own `configuration` and the conditions of modules count too."""
    facts = _true_conditions(crate, configuration)
    dependencies = crate.dependencies()
    enabled = {library["name"]: _enabled_features(library, dependencies) for library in crate.linked}

    def holds(condition: str, path: Path) -> bool:
        package = crate.package_of(path)
        return conditions_hold(condition, features if package is crate.package else enabled[package["name"]], facts)

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


def _true_conditions(crate: Crate, configuration: dict[str, Any]) -> set[str]:
    """The conditions that hold by the project's own flags and by its release profile."""
    flags = " ".join(flag for target in TARGETS for flag in cargo_config.rustflags(configuration, target))
    manifest = cargo_config.read_cargo_toml(crate.root / "Cargo.toml")
    release = cargo_config.merge(manifest, configuration).get("profile", {}).get("release", {})
    facts = {name.replace('"', "") for name in re.findall(r"--cfg[= ](\S+)", flags)}
    return facts | ({"debug_assertions"} if release.get("debug-assertions") else set())


def _enabled_features(library: dict[str, Any], dependencies: list[dict[str, Any]]) -> set[str]:
    """Return the features of a library that the program and its other libraries turn on. Its default is on when one of
    them takes it, or when no dependency on the library is known."""
    uses = [use for use in dependencies if use["name"] == library["name"]]
    features = {feature for use in uses for feature in use["features"]}
    if not uses or any(use.get("uses_default_features", True) for use in uses):
        features.add("default")
    return set().union(*(expand(library["features"], feature) for feature in features))


def _conditions(text: str) -> list[str]:
    """What each place that sets an allocator asks: its own attributes, and those of the blocks that it is in."""
    conditions = []
    for match in _SETS.finditer(text):
        starts = [0]  # where the head of each block begins that is open here
        heads: list[str] = []
        for mark in re.finditer(r"[{};]", text[: match.start()]):
            if mark.group() == "{":
                heads.append(text[starts[-1] : mark.start()])
            elif mark.group() == "}" and heads:
                heads.pop()
            starts.append(mark.end())
        heads = [head for head in heads if "cfg(" in head]
        conditions.append(" ".join([*heads, text[starts[-1] : match.end()]]))
    return conditions


def conditions_hold(text: str, features: set[str], other_facts: Iterable[str] = ()) -> bool:
    """Return whether all conditions in a text's attributes hold for one of the targets, with these features and
    `other_facts`."""
    conditions = ["".join(groups) for groups in _CONDITION.findall(text)]
    facts = {f"feature={feature}" for feature in features}.union(other_facts)
    return any(all(_is_true(condition, facts | target) for condition in conditions) for target in _TARGETS)


def _is_true(condition: str, facts: set[str]) -> bool:
    """Whether a condition is true; one that cannot be read, as in a macro, counts as true."""
    text = _FACT.sub(lambda fact: str(int((f"{fact[1]}={fact[2]}" if fact[2] else fact[1]) in facts)), condition)
    while match := _JOINED.search(text):
        values = match[2]
        value = {"all": "0" not in values, "any": "1" in values, "not": "1" not in values}[match[1]]
        text = text[: match.start()] + str(int(value)) + text[match.end() :]
    return text.strip() != "0"
