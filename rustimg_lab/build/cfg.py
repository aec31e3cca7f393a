"""Conditions of cargo and of sources, `cfg(...)` -> whether they hold.

doc.rust-lang.org/reference/conditional-compilation.html. A fact is written `unix`, or `target_os=linux`.
"""

import itertools
import re
from collections.abc import Sequence, Set

# What `rustc --print cfg` says of all targets of the lab, and of the processor by a target's first word. As cargo asks,
# for crates of all types at once, no target has the feature crt-static by itself.
_FACTS = {
    "true", "unix", "target_os=linux", "target_family=unix", "target_endian=little", "target_pointer_width=64",
    "target_vendor=unknown", "panic=unwind", "target_abi=",
    *(f"target_has_atomic={width}" for width in ("8", "16", "32", "64", "ptr")),
}  # fmt: skip
_FEATURES = {"x86_64": ("fxsr", "sse", "sse2"), "aarch64": ("neon",)}
_TOKEN = re.compile(r'\s*(?:([\w-]+)\s*(?:=\s*"([^"]*)")?|([(),]))\s*')


def target_facts(target: str) -> frozenset[str]:
    """Return what holds for a target triple, in a release build."""
    architecture, environment = target.partition("-")[0], target.rpartition("-")[2]
    features = {f"target_feature={feature}" for feature in _FEATURES[architecture]}
    return frozenset(_FACTS | features | {f"target_arch={architecture}", f"target_env={environment}"})


def flag_facts(flags: Sequence[str]) -> set[str]:
    """Return the facts that the compiler's flags state (`--cfg NAME`)."""
    stated = [flag for option, flag in itertools.pairwise(flags) if option == "--cfg"]
    stated += [flag.removeprefix("--cfg=") for flag in flags if flag.startswith("--cfg=")]
    return {re.sub(r'\s*=\s*"(.*)"', r"=\1", fact) for fact in stated}


def holds(condition: str, facts: Set[str]) -> bool:
    """Return whether a condition holds by these facts. Raises ValueError when the condition cannot be read."""
    tokens, position = [], 0
    while position < len(condition):
        if not (match := _TOKEN.match(condition, position)):
            raise ValueError(condition)
        name, value, mark = match.groups()
        tokens.append(mark or (name if value is None else f"{name}={value}"))
        position = match.end()
    value, rest = _evaluate(tokens, facts)
    if rest:
        raise ValueError(condition)
    return value


def _evaluate(tokens: list[str], facts: Set[str]) -> tuple[bool, list[str]]:
    """The value of the first condition in a list of tokens, and the tokens behind it."""
    if not tokens or tokens[0] in ("(", ")", ","):
        raise ValueError
    word, rest = tokens[0], tokens[1:]
    if rest[:1] != ["("]:
        return word in facts, rest
    values, rest = [], rest[1:]
    while rest[:1] != [")"]:
        value, rest = _evaluate(rest, facts)
        values.append(value)
        if rest[:1] == [","]:
            rest = rest[1:]
        elif rest[:1] != [")"]:
            raise ValueError
    joined = {"cfg": all(values), "all": all(values), "any": any(values), "not": not any(values)}
    if word not in joined:
        raise ValueError
    return joined[word], rest[1:]
