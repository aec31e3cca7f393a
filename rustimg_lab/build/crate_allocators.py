"""A crate -> the allocators that it brings: by features, and of its own."""

import re
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, cfg
from rustimg_lab.build.cargo_config import expand
from rustimg_lab.build.crate import Crate, is_for_targets
from rustimg_lab.build.crate_texts import conditions_hold
from rustimg_lab.build.known import KNOWN
from rustimg_lab.model.architecture import TARGETS

# Up to the item's end, with the attributes before it; a module in a file of its own, with what it asks.
_SETS = re.compile(r"#\[(?:cfg_attr\([^\]]*,\s*)?global_allocator\s*\)?\][^;]*;")
_MODULE = re.compile(r"(#\[cfg\([^\]]*\])\s*(?:#\[[^\]]*\]\s*)*(?:pub\S*\s+)?mod\s+(\w+)\s*;")
_NAMED = re.compile(r'feature\s*=\s*"([\w-]+)"')


def allocator_features(crate: Crate) -> dict[str, str]:
    """Return the feature that turns on each allocator, by the allocator's name. A feature that turns on dependencies of
    another kind too is the program's and does not count. Of several, one that the sources name
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
                feature
                for feature in features
                if feature != "default"
                and f"dep:{name}" in (parts := expand(features, feature))
                and all("alloc" in part for part in parts if part.startswith("dep:") and part != f"dep:{name}")
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

    def holds(condition: str, path: Path) -> bool:
        package = crate.package_of(path)
        features_on = features if package is crate.package else crate.features[package["name"]]
        return conditions_hold(condition, features_on, facts)

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
    flags = [flag for target in TARGETS for flag in cargo_config.rustflags(configuration, target)]
    manifest = cargo_config.read_cargo_toml(crate.root / "Cargo.toml")
    release = cargo_config.merge(manifest, configuration).get("profile", {}).get("release", {})
    return cfg.flag_facts(flags) | ({"debug_assertions"} if release.get("debug-assertions") else set())


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
