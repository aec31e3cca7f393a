"""A crate -> the allocators that it brings: by features, and of its own."""

import re
from typing import Any

from rustimg_lab.build.cargo_config import brings
from rustimg_lab.build.crate import Crate
from rustimg_lab.build.known import KNOWN

# Up to the item's end, with the attributes before it; a module in a file of its own, with what it asks.
_SETS = re.compile(r"#\[(?:cfg_attr\([^\]]*,\s*)?global_allocator\s*\)?\][^;]*;")
_MODULE = re.compile(r"#\[(cfg\([^\]]*)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\S*\s+)?mod\s+(\w+)\s*;")
_NAMED = re.compile(r'feature\s*=\s*"([\w-]+)"')
_ASKS = re.compile(r"\bfeature\b|cfg\((?:all\()?test\b")  # a feature, or the crate's own tests


def by_feature(crate: Crate) -> dict[str, str]:
    """Return the feature by which each allocator is turned on: the one that the allocator's place in the sources names,
    else one that is named for it, its author's before an optional dependency's own, and one that turns on little."""
    package, named = crate.package, set()
    for text in crate.texts.values():
        named |= {name for condition in _conditions(text) for name in _NAMED.findall(condition)}
    features, found = package["features"], {}
    names = {each["name"]: each.get("rename") or each["name"] for each in package["dependencies"] if not each["kind"]}
    for allocating, allocator in KNOWN["allocator_crates"].items():
        if name := names.get(allocating):
            fitting = [each for each in features if each != "default" and f"dep:{name}" in brings(features, each)]
            ranks = [
                (each not in named, "alloc" not in each, each == name, len(brings(features, each)), each)
                for each in fitting
            ]
            found |= {allocator: min(ranks)[-1]} if ranks else {}
    return found


def has_own(crate: Crate) -> bool:
    """Return whether the sources set an allocator without asking a feature, also where they do for its module."""
    asked = set()
    for path, text in crate.texts.items():
        package = crate.package_of(path)
        asked |= {name for condition, name in _MODULE.findall(text) if _asks(condition, package, crate)}
    return any(
        not _asks(condition, crate.package_of(path), crate)
        for path, text in crate.texts.items()
        if not asked & {path.stem, path.parent.name}
        for condition in _conditions(text)
    )


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


def _asks(condition: str, package: dict[str, Any], crate: Crate) -> bool:
    """Whether a condition asks for a feature. That one which is off by default is off asks for nothing; nor does a
    feature that a library turns on by itself."""
    features = package["features"]
    on = {*features.get("default", [])}.union(*(brings(features, each) for each in features.get("default", [])))
    left = re.sub(r'not\(\s*feature\s*=\s*"([\w-]+)"\s*\)', lambda m: m.group() if m.group(1) in on else "", condition)
    if package is not crate.package:
        left = _NAMED.sub(lambda match: "" if match.group(1) in on else match.group(), left)
    return bool(_ASKS.search(left))
