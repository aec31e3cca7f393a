"""A crate -> the files that its program reads in its image, and the folders that it writes to, as its sources name
them."""

import os
import re
from pathlib import Path

from rustimg_lab.build import sources
from rustimg_lab.build.crate import Crate
from rustimg_lab.errors import LabError
from rustimg_lab.host import process

# What only the compiler reads; then a relative path that a call or a constant names, which no table of known names has,
# and a bare word where something is opened, which is no name of a flag.
_COMPILED = re.compile(r'#!?\[(?![^\]]*default_value)[^\]]*\]|\b(?:include\w*|\w*env|migrate|embed\w*)!\s*\(\s*"[^"]*"')
_PATH = re.compile(r'(?:[\w!>]\(|[=>\[,:]|\|\w*\|)\s*"(?:\./)?(\w[\w.-]*\.\w+(?=")|\w[\w.-]*(?=/))')
_OPENED = re.compile(
    r'(?:(?:dir|open|loader|(?<!Arg)(?<!App)(?<!Command)::new|::from|with_name|\.join|unwrap_or\w*)\(\s*(?:"[^"]*",\s*|\|\w*\|\s*)?'
    r'|&(?:\'static )?str\s*=\s*)"(?:\./)?(\w[\w-]*)"'
)
_NOT_READ = re.compile(r"src|docs?|target|tests|benches|examples|Cargo.*|[A-Z_-]+(?:\.\w+)?")
# A folder that is made, or that of a file that is.
_CREATED = re.compile(
    r'\bcreate_dir(?:_all)?\(\s*"(?:\./)?([\w/][\w./-]*)"|\bFile::create(?:_new)?\(\s*"(?:\./)?([\w/][\w./-]*)/[\w.-]+"'
)
_NOT_OWN = re.compile(r"/(?:tmp|dev|proc|sys|run|etc)(?:/|$)")


def placed(crate: Crate) -> tuple[dict[str, str], list[str]]:
    """Return the files and folders that the sources name by a relative path, by their source: the crate's own, or the
    workspace's, in whose folder cargo runs a program too; and a line on each that builds do not get. The build script
    is left out."""
    told = [_COMPILED.sub("", text) for text in crate.program()]
    names = sorted({name for text in told for pattern in (_PATH, _OPENED) for name in pattern.findall(text)})
    written = {each.strip("/").split("/")[0] for each in writable(crate)}
    there, left_out = {}, []
    for name in [name for name in names if not _NOT_READ.fullmatch(name) and name not in written]:
        for path in _places(crate, name):
            if reason := sources.why_missing(crate.root, path):
                left_out.append(f"its sources name {name}: {reason}")
            else:
                there[path] = name
    ignored = _ignored_by_git(crate.root, list(there))
    left_out += [
        f"its sources name {there[path]}, which git ignores: `files` there takes it if each image is to have it"
        for path in ignored
    ]
    kept = {os.path.relpath(path, crate.directory): name for path, name in there.items() if path not in ignored}
    return {source: kept[source] for source in sorted(kept)}, list(dict.fromkeys(left_out))


def _places(crate: Crate, name: str) -> list[Path]:
    """Where a file or folder of a name is, or a configuration file that is named without its ending; no other crate."""
    folders = dict.fromkeys([crate.root, crate.directory, Path(crate.package["manifest_path"]).parent])
    for end in ("", ".toml", ".yaml", ".yml", ".json"):
        if found := [path for each in folders if (path := each / f"{name}{end}").exists()]:
            return [path for path in found if not {*path.glob("Cargo.toml"), *path.glob("*/Cargo.toml")}]
    return []


def _ignored_by_git(root: Path, paths: list[Path]) -> list[Path]:
    """Which of these git ignores: files of whoever works on the crate, keys and databases among them."""
    try:
        said = process.run(["git", "check-ignore", *map(str, paths)], cwd=root) if paths else ""
    except LabError:  # none of them, or no git, or no repository
        return []
    return [path for path in paths if str(path) in said.splitlines()]


def writable(crate: Crate) -> list[str]:
    """The folders that the sources make, or make a file in, by places that they name."""
    found = (name for text in crate.program() for groups in _CREATED.findall(text) for name in groups if name)
    return [name for name in dict.fromkeys(found) if not _NOT_OWN.match(name)]
