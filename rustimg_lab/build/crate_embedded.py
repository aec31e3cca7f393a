"""A crate -> what the compiler puts into its program from files beside the sources, and what of that builds lack."""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rustimg_lab.build import sources
from rustimg_lab.build.crate import Crate, folder_of
from rustimg_lab.build.crate_files import NOT_READ, SHOWN, lost_files, places

_EMBEDDED = re.compile(r'#\[folder\s*=\s*"([^"]+)"\s*\]|\binclude_dir!\(\s*"([^"]+)"')
_INCLUDED_FILE = re.compile(r'\binclude_(?:str|bytes)!\(\s*"([^"]+)"')
# A build script that lists folders, and what it names.
_LISTS = re.compile(r"\bread_dir\(|\bWalkDir\b|\bglob\(|\bdir::copy\(|\bcopy_items\(")
_NAMED_BY_SCRIPT = re.compile(r'"(?:cargo::?rerun-if-changed=)?(?:\./)?(\w[\w./-]*?)/?(?:/\*[^"]*)?"')


def missing_files(crate: Crate) -> list[str]:
    """Return a line on each file or folder that the compiler puts into the program, and that its builds do not get."""
    return [
        f"its sources include {name} when they are compiled, and it is not there: `build_commands` can make it"
        for name in _unbuilt_files(crate)[:SHOWN]
    ] + [*dict.fromkeys(_exclusion_notes(crate)), *lost_files(crate, _embedded_folders(crate), "program")]


def _exclusion_notes(crate: Crate) -> Iterator[str]:
    for _, folder, name in embedded_paths(crate):
        path = Path(os.path.normpath(folder / name))
        if path.is_file() and path.is_relative_to(crate.root) and (reason := sources.why_missing(crate.root, path)):
            yield f"its sources include {name} when they are compiled: {reason}"


def _embedded_folders(crate: Crate) -> list[Path]:
    """The folders whose files the compiler puts into the program, or that a build script lists."""
    paths = []
    for path, text in crate.compiled.items():
        lists_folders = path in crate.scripts and _LISTS.search(text)
        names = [name for name in _NAMED_BY_SCRIPT.findall(text) if lists_folders and not NOT_READ.fullmatch(name)]
        paths += [folder_of(crate.package_of(path)) / name for name in (*_folders_in_source(text), *names)]
    folders = dict.fromkeys(Path(os.path.normpath(path)) for path in paths)
    return [folder for folder in folders if folder.is_dir() and folder.is_relative_to(crate.root)]


def _folders_in_source(text: str) -> list[str]:
    """The folders below its package's that a source has the compiler put into the program."""
    names = [name for groups in _EMBEDDED.findall(text) for name in groups if name]
    return [name.removeprefix("$CARGO_MANIFEST_DIR/").rstrip("/") for name in names]


@functools.cache
def embedded_paths(crate: Crate) -> list[tuple[Path, Path, str]]:
    """Return what the compiler puts into the program. Each entry has the source that names a file or folder, the folder
    that the name is relative to, and the name."""
    entries = []
    for path, text in crate.compiled.items():
        entries += [(path, path.parent, name) for name in _INCLUDED_FILE.findall(text)]
        entries += [(path, folder_of(crate.package_of(path)), name) for name in _folders_in_source(text)]
    return [entry for entry in entries if "$" not in entry[2]]


def _unbuilt_files(crate: Crate) -> list[str]:
    """Return the files and folders that the compiler is to put into the program, and that do not exist yet. Those that
    a build script names are left out: the script may make them."""
    missing = []
    for path, folder, name in embedded_paths(crate):
        if (folder / name).exists() or places(crate, name):
            continue
        if Path(name).name not in "\n".join(crate.script_texts(crate.package_of(path))):
            missing.append(os.path.relpath(folder / name, crate.directory))
    return list(dict.fromkeys(missing))
