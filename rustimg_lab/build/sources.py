"""The sources of an app as its builds get them: without what `.dockerignore` names, and without what no build reads."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rustimg_lab.errors import LabError
from rustimg_lab.host.files import sha256

if TYPE_CHECKING:
    from docker.utils.build import Pattern

IGNORED = ".dockerignore"
LAB_TOML = "lab.toml"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_PARTS = re.compile(r"\*\*/?|\\.|.", re.DOTALL)  # of a pattern of `.dockerignore`
_AS_EXPRESSION = {"**/": "(.*/)?", "**": "(.*/)?", "*": "[^/]*", "?": "[^/]"} | {
    each: f"\\{each}" for each in ".$+(){}|"
}


def walk(context: Path, git: bool = False) -> Iterator[Path]:
    """Yield the folders, files and links below a folder (absolute) that builds get, relative to it, one by one: a
    folder that is left out is not read. So are pipes, sockets, names not in UTF-8, and without `git` the repository.

    Raises LabError when a folder cannot be read.
    """
    patterns = _parsed([*_lines(context), f"!{IGNORED}"])
    exceptions = [each.cleaned_pattern for each in patterns if each.exclusion]
    waiting = [context]
    while waiting:
        for entry in _entries(waiting.pop()):
            path = Path(entry.path)
            name, is_folder = str(path.relative_to(context)), entry.is_dir(follow_symlinks=False)
            if not (is_folder or entry.is_symlink() or entry.is_file()) or _no_source(path, git) or not _is_utf8(name):
                continue
            left_out = _is_left_out(name, patterns)
            if is_folder and (
                not left_out or any(set("*?[") & {*each} or each.startswith(f"{name}/") for each in exceptions)
            ):
                waiting.append(path)
            if not left_out:
                yield path.relative_to(context)


def copy(context: Path, work: Path, git: bool = False) -> Path:
    """Copy what builds get to a folder below `work` that is named by what is in it; returns that folder. A `lab.toml`,
    which no build reads, is left out, so that nothing is compiled anew for a change in it; but where the build gets the
    repository, to which a file that is not there is a change.

    buildx tells BuildKit no more of a context than its folder's last name, by which BuildKit takes up what it kept of
    an earlier one. Of two that are then brought to the same state from different ones, it does not see that they are
    the same (seen with 20.10), and each target that is built at the same time compiles for itself.

    Raises LabError when a file cannot be read, or is a pointer of Git LFS: a program would have that in it, unnoticed.
    """
    folder = work / "context"
    folder.mkdir(parents=True)
    content = hashlib.sha256()
    for path in sorted(each for each in walk(context, git) if git or each.name != LAB_TOML):
        source, target = context / path, folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source.is_dir() and not source.is_symlink():
                target.mkdir(exist_ok=True)
                target.chmod(source.stat().st_mode | 0o700)  # the copy must be written to and removed
            else:
                shutil.copy2(source, target, follow_symlinks=False)
        except PermissionError as error:
            raise _unreadable(error) from None
        except FileNotFoundError:  # an editor's, say, which has removed it meanwhile
            if os.path.lexists(source):
                raise
            continue
        if _is_pointer(target):
            raise LabError(
                f"{source} is a pointer of Git LFS, and not the file that it stands for: call `git lfs pull`; "
                f"or, where no build reads it, name it in {context / IGNORED}"
            )
        held = target.readlink() if target.is_symlink() else sha256(target) if target.is_file() else ""
        content.update(f"{target.lstat().st_mode:o} {path} {held}\0".encode(errors="surrogateescape"))
    return folder.rename(work / f"context-{content.hexdigest()[:16]}")


def _is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of a large one that was not fetched."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1024:  # as its specification has it
        return False
    return path.read_bytes().startswith(_LFS_POINTER)


def why_missing(context: Path, path: Path) -> str:
    """Why builds do not get a path (relative to the folder, or absolute) that may be there: the entry of
    `.dockerignore`, or the link that leads out of the folder; "" where neither is so."""
    path = Path(os.path.normpath(context / path))
    if not path.is_relative_to(context):
        wider = os.path.relpath(os.path.commonpath([context, path]), context)
        return f"{path} is outside of {context}; {WIDER.replace('..', wider)}"
    name = path.relative_to(context)
    for part in [*reversed(name.parents), name]:
        if leads_out(context, part):
            if real(context / part).is_relative_to(real(context)):
                return f"{part} is a link to {(context / part).readlink()}, a place that no build has: make it relative"
            near = real(context / part).is_relative_to(real(context).parent)
            way = WIDER if near else f"put a copy of it in the link's place, or name the link in {IGNORED}"
            return f"{part} is a link that leads out of {context}, to {(context / part).readlink()}; {way}"
    lines = _lines(context)
    matching = [line for line, each in zip(lines, _parsed(lines), strict=True) if _is_for(each, _places(str(name)))]
    if matching and not matching[-1].startswith("!") and path.exists():
        return f"{IGNORED} leaves {name} out, by its line '{matching[-1]}'; add the line !{name}"
    return ""


def is_sent(context: Path, path: Path) -> bool:
    """Whether a path (absolute) is in the folder, and `.dockerignore` does not leave it out."""
    if not path.is_relative_to(context):
        return False
    return not _is_left_out(str(path.relative_to(context)), _parsed(_lines(context)))


def hidden(context: Path, at: str, said: str) -> str:
    """Why builds, made in a folder of the context, do not get a file that an error names; "" where none is hidden.
    Words without quotes may look like a path and be none: only a path that is there counts."""
    quoted = re.findall(r"[`\"]([^`\"\s]*[./][^`\"\s]*)[`\"]", said)
    plain = [name.rstrip(":.") for name in re.findall(r"[^\s`\"'()\[\],;=]+/[^\s`\"'()\[\],;]+", said)]
    for name in [*quoted, *plain]:
        below = Path(name.removeprefix("/src/"))
        for folder in dict.fromkeys([context / at, context] if not below.is_absolute() else []):
            path = Path(os.path.normpath(folder / below))
            is_there = path.is_relative_to(context) and os.path.lexists(path)
            if (is_there or name in quoted) and (reason := why_missing(context, path)):
                return f"; {reason}"
    return ""


WIDER = 'context = ".." in lab.toml sends what is above to builds too'


def leads_out(context: Path, path: Path) -> bool:
    """Whether a path (relative to the folder) is a link to something outside of it, or by a whole path, which is
    outside of a build's copy."""
    link = context / path
    return link.is_symlink() and (link.readlink().is_absolute() or not real(link).is_relative_to(real(context)))


def real(path: Path) -> Path:
    """Return where a path leads, links followed, but for those that lead back to themselves; `Path.resolve` fails on
    these before Python 3.13."""
    return Path(os.path.realpath(path))


def _lines(context: Path) -> list[str]:
    """The lines of the folder's `.dockerignore`, without comments. Raises LabError on one that is no pattern."""
    path, kept = context / IGNORED, []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            kept.append(line.strip())
            try:
                _is_for(*_parsed(kept[-1:]), [""])
            except re.error as error:
                raise LabError(f"{path}, line {number}: '{kept[-1]}' is no pattern: {error}") from None
    return kept


def _parsed(lines: list[str]) -> list["Pattern"]:
    from docker.utils.build import Pattern  # loads the docker package, which help and completion do not need

    return [Pattern(line) for line in lines]


def _is_left_out(name: str, patterns: list["Pattern"]) -> bool:
    """Whether patterns leave a path out, as github.com/moby/patternmatcher does: the last one counts that is for the
    path or for a folder that it is in. docker-py asks for a single folder, and ignores case."""
    left_out, places = False, _places(name)
    for pattern in patterns:
        if pattern.exclusion == left_out and _is_for(pattern, places):
            left_out = not pattern.exclusion
    return left_out


def _places(name: str) -> list[str]:
    """A path and the folders that it is in."""
    return [name, *map(str, Path(name).parents[:-1])]


def _is_for(pattern: "Pattern", places: list[str]) -> bool:
    return any(_expression(pattern.cleaned_pattern).fullmatch(place) for place in places)


@cache
def _expression(pattern: str) -> re.Pattern:
    """A pattern as a regular expression, as github.com/moby/patternmatcher makes one (`Pattern.compile`). Raises
    re.error. docker-py's reads brackets as a shell does, and takes \\ for a letter."""
    parts = _PARTS.findall(pattern)
    made = [_AS_EXPRESSION.get(part, re.escape(part[1:]) if len(part) == 2 else part) for part in parts]
    return re.compile("".join([*made[:-1], ".*"] if pattern.endswith("**") else made))


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:  # removed meanwhile
        return []
    except PermissionError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> LabError:
    return LabError(f"{error.filename} cannot be read ({error.strerror}); if no build needs it, name it in {IGNORED}")


def _no_source(path: Path, git: bool) -> bool:
    """Whether it is the repository, unless that is wanted, or what cargo made, which can be gigabytes: it leaves a mark
    in a folder that it makes itself."""
    of_cargo = path.name == "target" and (path.parent / "Cargo.toml").is_file() and not (path / "Cargo.toml").is_file()
    return (path.name == ".git" and not git) or of_cargo or (path / "CACHEDIR.TAG").is_file()


def _is_utf8(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name
