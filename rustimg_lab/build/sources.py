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
    letter: f"\\{letter}" for letter in ".$+(){}|"
}


def walk(context: Path, git: bool = False) -> Iterator[Path]:
    """Yield the folders, files and links below a folder (absolute) that builds get, relative to it. A folder that is
    left out is not read. Pipes, sockets, names not in UTF-8, what cargo made and, without `git`, the repository are
    left out too. Raises LabError when a folder cannot be read."""
    patterns = _parse_lines([*_lines(context), f"!{IGNORED}"])
    exceptions = [pattern.cleaned_pattern for pattern in patterns if pattern.exclusion]
    folders = [context]
    while folders:
        for entry in _entries(folders.pop()):
            path = Path(entry.path)
            name, is_folder = str(path.relative_to(context)), entry.is_dir(follow_symlinks=False)
            if not (is_folder or entry.is_symlink() or entry.is_file()) or _no_source(path, git) or not _is_utf8(name):
                continue
            is_left_out = _is_left_out(name, patterns)
            if is_folder and (
                not is_left_out or any(set("*?[") & {*glob} or glob.startswith(f"{name}/") for glob in exceptions)
            ):
                folders.append(path)
            if not is_left_out:
                yield path.relative_to(context)


def copy(context: Path, work: Path, git: bool = False) -> Path:
    """Copy what builds get to a folder below `work`, named by a digest of its contents, and return that folder. A
    `lab.toml` is left out, so that a change in it compiles nothing anew; with `git` it stays, since its absence would
    be a change to the repository. Raises LabError when a file cannot be read, or is a pointer of Git LFS, which a
    program would have in it unnoticed.

    buildx passes BuildKit only the last name of the folder, by which BuildKit reuses an earlier context. Under one name
    for all contents, BuildKit (20.10) does not see that two contexts have become equal. Targets that are built at one
    time then compile separately.
    """
    folder = work / "context"
    folder.mkdir(parents=True)
    content = hashlib.sha256()
    for path in sorted(entry for entry in walk(context, git) if git or entry.name != LAB_TOML):
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
        fingerprint = target.readlink() if target.is_symlink() else sha256(target) if target.is_file() else ""
        content.update(f"{target.lstat().st_mode:o} {path} {fingerprint}\0".encode(errors="surrogateescape"))
    return folder.rename(work / f"context-{content.hexdigest()[:16]}")


def _is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of a large one that was not fetched."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1024:  # as its specification has it
        return False
    return path.read_bytes().startswith(_LFS_POINTER)


def why_missing(context: Path, path: Path) -> str:
    """Return why builds do not get a path (relative to `context`, or absolute): an entry of `.dockerignore`, or a link
    that leads out of `context`. Return "" when neither is so; the path need not exist."""
    path = Path(os.path.normpath(context / path))
    if not path.is_relative_to(context):
        upward_path = os.path.relpath(os.path.commonpath([context, path]), context)
        return f"{path} is outside of {context}; {WIDER.replace('..', upward_path)}"
    name = path.relative_to(context)
    for part in [*reversed(name.parents), name]:
        if leads_out(context, part):
            if real(context / part).is_relative_to(real(context)):
                return f"{part} is a link to {(context / part).readlink()}, a place that no build has: make it relative"
            is_near = real(context / part).is_relative_to(real(context).parent)
            remedy = WIDER if is_near else f"put a copy of it in the link's place, or name the link in {IGNORED}"
            return f"{part} is a link that leads out of {context}, to {(context / part).readlink()}; {remedy}"
    lines = _lines(context)
    rules = [
        line for line, pattern in zip(lines, _parse_lines(lines), strict=True) if _is_for(pattern, _places(str(name)))
    ]
    if rules and not rules[-1].startswith("!") and path.exists():
        return f"{IGNORED} leaves {name} out, by its line '{rules[-1]}'; add the line !{name}"
    return ""


def is_sent(context: Path, path: Path) -> bool:
    """Return whether a path (absolute) is in `context`, and `.dockerignore` does not leave it out."""
    if not path.is_relative_to(context):
        return False
    return not _is_left_out(str(path.relative_to(context)), _parse_lines(_lines(context)))


def explain_hidden(context: Path, location: str, message: str) -> str:
    """Return why builds, made in the folder `location` of `context`, do not get a file that an error `message` names;
    "" when none is hidden. Words without quotes count only if they are the path of a file that exists."""
    quoted_names = re.findall(r"[`\"]([^`\"\s]*[./][^`\"\s]*)[`\"]", message)
    plain_names = [name.rstrip(":.") for name in re.findall(r"[^\s`\"'()\[\],;=]+/[^\s`\"'()\[\],;]+", message)]
    for name in [*quoted_names, *plain_names]:
        relative_path = Path(name.removeprefix("/src/"))
        for folder in dict.fromkeys([context / location, context] if not relative_path.is_absolute() else []):
            path = Path(os.path.normpath(folder / relative_path))
            is_there = path.is_relative_to(context) and os.path.lexists(path)
            if (is_there or name in quoted_names) and (reason := why_missing(context, path)):
                return f"; {reason}"
    return ""


WIDER = 'context = ".." in lab.toml sends what is above to builds too'


def leads_out(context: Path, path: Path) -> bool:
    """Return whether a path (relative to `context`) is a link to something outside of it. So is a link by an absolute
    path, which leads out of a build's copy."""
    link = context / path
    return link.is_symlink() and (link.readlink().is_absolute() or not real(link).is_relative_to(real(context)))


def real(path: Path) -> Path:
    """Return where a path leads, with links followed. Links that lead back to themselves stay: `Path.resolve` fails on
    these before Python 3.13."""
    return Path(os.path.realpath(path))


def _lines(context: Path) -> list[str]:
    """The lines of the folder's `.dockerignore`, without comments. Raises LabError on one that is no pattern."""
    path, pattern_lines = context / IGNORED, []
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            pattern_lines.append(line.strip())
            try:
                _is_for(*_parse_lines(pattern_lines[-1:]), [""])
            except re.error as error:
                raise LabError(f"{path}, line {number}: '{pattern_lines[-1]}' is no pattern: {error}") from None
    return pattern_lines


def _parse_lines(lines: list[str]) -> list["Pattern"]:
    from docker.utils.build import Pattern  # loads the docker package, which help and completion do not need

    return [Pattern(line) for line in lines]


def _is_left_out(name: str, patterns: list["Pattern"]) -> bool:
    """Return whether patterns leave a path out, as github.com/moby/patternmatcher does. The last pattern that is for
    the path, or for a folder that it is in, decides. docker-py tests a single folder, and ignores case."""
    is_left_out, places = False, _places(name)
    for pattern in patterns:
        if pattern.exclusion == is_left_out and _is_for(pattern, places):
            is_left_out = not pattern.exclusion
    return is_left_out


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
    expressions = [_AS_EXPRESSION.get(part, re.escape(part[1:]) if len(part) == 2 else part) for part in parts]
    return re.compile("".join([*expressions[:-1], ".*"] if pattern.endswith("**") else expressions))


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
    """Return whether a path is the repository (unless `git`), or made by cargo, which can be gigabytes. cargo leaves a
    mark in a folder that it makes itself."""
    is_output = path.name == "target" and (path.parent / "Cargo.toml").is_file() and not (path / "Cargo.toml").is_file()
    return (path.name == ".git" and not git) or is_output or (path / "CACHEDIR.TAG").is_file()


def _is_utf8(name: str) -> bool:
    return name.encode(errors="ignore").decode() == name
