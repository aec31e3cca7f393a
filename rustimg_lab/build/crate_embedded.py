"""A crate -> what the compiler puts into its program from files beside the sources, and what of that builds lack."""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rustimg_lab.build import sources
from rustimg_lab.build.crate import Crate, folder_of
from rustimg_lab.build.crate_files import NOT_READ, SHOWN, lost, places

_EMBEDDED = re.compile(r'#\[folder\s*=\s*"([^"]+)"\s*\]|\binclude_dir!\(\s*"([^"]+)"')
_INCLUDED_FILE = re.compile(r'\binclude_(?:str|bytes)!\(\s*"([^"]+)"')
# A build script that lists folders, and what it names.
_LISTS = re.compile(r"\bread_dir\(|\bWalkDir\b|\bglob\(|\bdir::copy\(|\bcopy_items\(")
_NAMED_BY_SCRIPT = re.compile(r'"(?:cargo::?rerun-if-changed=)?(?:\./)?(\w[\w./-]*?)/?(?:/\*[^"]*)?"')


def lacks(crate: Crate) -> list[str]:
    """Return a line on each file or folder that the program is to have compiled in and that its builds do not get."""
    return [
        f"its sources include {name} when they are compiled, and it is not there: `build_commands` can make it"
        for name in _not_built(crate)[:SHOWN]
    ] + [*dict.fromkeys(_left_out(crate)), *lost(crate, _compiled(crate), "program")]


def _left_out(crate: Crate) -> Iterator[str]:
    for _, folder, name in included(crate):
        path = Path(os.path.normpath(folder / name))
        if path.is_file() and path.is_relative_to(crate.root) and (why := sources.why_missing(crate.root, path)):
            yield f"its sources include {name} when they are compiled: {why}"


def _compiled(crate: Crate) -> list[Path]:
    """The folders whose files the compiler puts into the program, or that a build script lists."""
    found = []
    for path, text in crate.texts.items():
        lists = path in crate.scripts and _LISTS.search(text)
        names = [name for name in _NAMED_BY_SCRIPT.findall(text) if lists and not NOT_READ.fullmatch(name)]
        found += [folder_of(crate.package_of(path)) / name for name in (*_embedded(text), *names)]
    below = dict.fromkeys(Path(os.path.normpath(each)) for each in found)
    return [each for each in below if each.is_dir() and each.is_relative_to(crate.root)]


def _embedded(text: str) -> list[str]:
    """The folders below its package's that a source has the compiler put into the program."""
    named = [name for groups in _EMBEDDED.findall(text) for name in groups if name]
    return [name.removeprefix("$CARGO_MANIFEST_DIR/").rstrip("/") for name in named]


@functools.cache
def included(crate: Crate) -> list[tuple[Path, Path, str]]:
    """Return what the compiler is to put into the program: the source that names it, and the folder and the name."""
    found = []
    for path, text in crate.texts.items():
        found += [(path, path.parent, name) for name in _INCLUDED_FILE.findall(text)]
        found += [(path, folder_of(crate.package_of(path)), name) for name in _embedded(text)]
    return [each for each in found if "$" not in each[2]]


def _not_built(crate: Crate) -> list[str]:
    """The files and folders that the compiler is to put into the program, and that are not there yet, nor are named by
    a build script, which may make them."""
    missing = []
    for path, folder, name in included(crate):
        if (folder / name).exists() or places(crate, name):
            continue
        if Path(name).name not in "\n".join(crate.script(crate.package_of(path))):
            missing.append(os.path.relpath(folder / name, crate.directory))
    return list(dict.fromkeys(missing))
