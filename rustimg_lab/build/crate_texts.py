"""The texts of a crate's sources -> what is compiled of them for the lab's targets, and with which features."""

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from rustimg_lab.build import cfg
from rustimg_lab.model.architecture import TARGETS

# Comments, those behind code among them; and the attributes of what is compiled on a condition, or is a test: of an
# item, or of a whole file.
_COMMENT = re.compile(r"(?m)^\s*//.*$|(?<=[;{},\]])[ \t]*//.*$|^\s*/\*(?s:.*?)\*/")
_ATTRIBUTE = r"#\[(?:[^\[\]]|\[[^\]]*\])*\]\s*"
_CONDITIONAL = re.compile(
    rf"(?:(?!#\[cfg\(){_ATTRIBUTE})*#\[(?:cfg\(([^\]]*)\)|(?:\w+::)*(?:\w+_|rs)?(test)(?:\([^\]]*\))?)\]\s*(?:{_ATTRIBUTE})*(?=\S)"
    r'|\bif\s+cfg!\(([^{}]*)\)\s*(?=\{)|(?m:^\s*((?:any|all|not)\([^{};]*\)|(?:target_\w+|feature)\s*=\s*"[\w-]+")\s*=>\s*(?=\{))'
)
_WHOLE_FILE = re.compile(r"(?:\s*#!\[(?!cfg\()[^\]]*\])*\s*#!\[cfg\(([^\]]*)\)\s*\]")
# By what its end is found: the begin of an item with a block, or of one up to a semicolon; brackets and marks, but for
# those in texts; and what goes on behind a block.
_ITEM = re.compile(
    r"(?:pub(?:\([^)]*\))?\s+)?(?:(?:async|unsafe|const)\s+)*"
    r"(?:((?:fn|impl|mod|trait|struct|enum|union)\b|macro_rules!|extern\s*\"|\{)|(?:use|let|const|static|type|return|extern)\b)"
)
_MARK = re.compile(
    r"""\br(#*)"(?s:.*?)"\1|"(?s:[^"\\]|\\.)*"|'(?:[^'\\\n]|\\[^'\n]+|\\')'|//.*|/\*(?s:.*?)\*/|([{}()\[\];,])"""
)
_GOES_ON = re.compile(r"\s*(?:[.?=)\]]|else\b|([;,]))")
_MODULE = re.compile(r'(?:#\[(?:path\s*=\s*"([^"]+)"|[^\]]*)\]\s*)*(?:pub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*;')
_SOURCE = re.compile(r'(?:#\[path\s*=|\binclude!\()\s*"([^"]+\.rs)"')
# Conditions in attributes.
_CONDITION = re.compile(r"#!?\[cfg(?:\(([^\]]*)|_attr\(([^\]]*),\s*global_allocator\s*)\)\s*\]")
# Conditions of the system alone; with features and the release profile too.
_SYSTEM = r'\b(?:all|any|not|unix|windows|target_(?:os|family|vendor|env|arch)\s*=\s*"\w+")(?!\w)|[(),\s]'
_OF_SYSTEM = re.compile(rf"(?:{_SYSTEM})+")
_OF_SYSTEM_AND_FEATURES = re.compile(rf'(?:{_SYSTEM}|\bfeature\s*=\s*"[\w-]+"|\bdebug_assertions\b)+')
_FACTS = [cfg.target_facts(target) for target in TARGETS]


def read_texts(
    queue: list[Path], scripts: set[Path], files: set[Path], roots: set[Path]
) -> tuple[dict[Path, str], set[Path]]:
    """Return the texts of sources, and of those of `files` that they name by their paths, without comments and unit
    tests. The second result is where modules are that no release for Linux has. `roots` are the sources that a program
    begins with. What a script names is added to `scripts`. `queue` grows."""
    texts, foreign = {}, set()
    for path in queue:
        text = _COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace"))
        texts[path], modules = _strip(path, text, path in roots, _is_for_others)
        foreign |= modules
        includes = {Path(os.path.normpath(path.parent / name)) for name in _SOURCE.findall(texts[path])} & files
        queue += (additions := sorted(includes.difference(queue)))
        scripts |= {*additions} if path in scripts else set()
    return texts, _without_declared(foreign, texts, roots)


def compiled_texts(texts: dict[Path, str], roots: set[Path], features: Callable[[Path], set[str]]) -> dict[Path, str]:
    """Return the texts of sources without what is not compiled with the features that are on. `features` returns those
    of the package that a source belongs to."""
    compiled, left_out = {}, set()
    for path, text in texts.items():
        is_off = partial(_is_off, features(path))
        compiled[path], modules = _strip(path, text, path in roots, is_off)
        left_out |= modules
    left_out = _without_declared(left_out, compiled, roots)
    return {path: text for path, text in compiled.items() if left_out.isdisjoint((path, *path.parents))}


def _strip(path: Path, text: str, is_root: bool, leaves_out: Callable[[str], bool]) -> tuple[str, set[Path]]:
    """A source without what conditions leave out, and where the modules are that it has there."""
    position, modules = 0, set()
    if (match := _WHOLE_FILE.match(text)) and leaves_out(match[1]):
        modules, text = {*_MODULE.findall(text)}, ""
    while match := _CONDITIONAL.search(text, position):
        position = match.end(match.lastindex)  # a second condition may follow
        if leaves_out(match[match.lastindex]):
            end = _end(text, match.end())
            modules |= {*_MODULE.findall(text[match.start() : end])}
            text, position = text[: match.start()] + text[end:], match.start()
    return text, _module_paths(path, is_root, modules)


def _end(text: str, start: int) -> int:
    """Where an item, a statement, a field or an arm ends that begins at `start`."""
    item, depth = _ITEM.match(text, start), 0
    for mark in _MARK.finditer(text, start):
        if mark[2] in (*"([{",):
            depth += 1
        elif mark[2] in (*")]}",):
            depth -= 1
            if depth < 0:
                return mark.start()
            if mark[2] == "}" and not depth and (not item or item[1]):
                goes_on = None if item else _GOES_ON.match(text, mark.end())
                if not goes_on or goes_on[1]:
                    return goes_on.end() if goes_on else mark.end()
        elif not depth and (mark[2] == ";" or (mark[2] == "," and not item)):
            return mark.end()
    return len(text)


def _without_declared(left_out: set[Path], texts: dict[Path, str], roots: set[Path]) -> set[Path]:
    """Where the modules are that are left out, but for those that another file, or another line, declares."""
    if not left_out:
        return left_out
    return left_out.difference(
        *(_module_paths(path, path in roots, _MODULE.findall(text)) for path, text in texts.items())
    )


def _module_paths(path: Path, is_root: bool, modules: Iterable[tuple[str, str]]) -> set[Path]:
    folder = path.parent if is_root or path.stem in ("main", "lib", "mod") else path.with_suffix("")
    paths = {path.parent / place for place, _ in modules if place}
    return paths.union(*((folder / name, folder / f"{name}.rs") for place, name in modules if not place))


def _is_for_others(condition: str) -> bool:
    """Whether a condition holds for unit tests alone, or for no target of the lab's whatever the features."""
    if _OF_SYSTEM.fullmatch(condition):
        return not _hold([condition], set())
    return bool(re.match(r"(?:all\(\s*)?test\b", condition))


def _is_off(features: set[str], condition: str) -> bool:
    """Whether a condition on features, and on what the system is, holds for no target of the lab's."""
    return bool(_OF_SYSTEM_AND_FEATURES.fullmatch(condition)) and not _hold([condition], features)


def conditions_hold(text: str, features: set[str], other_facts: Iterable[str] = ()) -> bool:
    """Return whether all conditions in a text's attributes hold for one of the targets, with these features and
    `other_facts`."""
    return _hold(["".join(groups) for groups in _CONDITION.findall(text)], features, other_facts)


def _hold(conditions: list[str], features: set[str], other_facts: Iterable[str] = ()) -> bool:
    facts = {f"feature={feature}" for feature in features}.union(other_facts)
    return any(all(_is_true(condition, facts | target) for condition in conditions) for target in _FACTS)


def _is_true(condition: str, facts: set[str]) -> bool:
    """Whether a condition is true; one that cannot be read, as in a macro, counts as true."""
    try:
        return cfg.holds(f"all({condition})", facts)
    except ValueError:
        return True
