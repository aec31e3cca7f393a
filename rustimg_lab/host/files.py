"""Files: written whole or not at all, hashed; a full disk reported in one line."""

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rustimg_lab.errors import LabError
from rustimg_lab.paths import HOME, INSTALLED, ROOT

GRID_BYTES = 10 << 30  # what builder, images and build cache of a grid take, about
# A part of an image's name (github.com/distribution/reference, `path-component`).
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
LONGEST_NAME = 200  # of a file, in letters: file systems allow 255 bytes


class DiskFull(LabError):
    """A disk that is full. `folders`: those that were written to; the message names the one with the least space."""

    def __init__(self, failure: str, folders: list[Path], needed_bytes: int):
        usage = {}
        for folder in folders:
            with suppress(OSError):  # it is not there, or not this user's
                usage[folder] = shutil.disk_usage(folder)
        path = min(usage, key=lambda folder: usage[folder].free, default=None)
        if path is None:  # an engine on another machine, or in a virtual one
            super().__init__(
                f"{failure}: the disk of the engine, on a machine of its own, is full; free some space there"
            )
            return
        free = usage[path].free
        left, needed, missing = map(format_size, (free, needed_bytes, max(needed_bytes - free, 0)))
        super().__init__(
            f"{failure}: the disk that holds {path} is full: {left} of {format_size(usage[path].total)} left, "
            f"{needed} needed, {missing} missing; free some space and call again"
        )


def is_full(error: str | OSError) -> bool:
    """Return whether an error, or the output of a program, reports a full disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "no space left on device" in error.lower()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an OSError in the block into a LabError when it concerns a file or a full disk. Other errors pass."""
    try:
        yield
    except OSError as error:
        if not (message := _in_words(error)):
            raise
        raise LabError(message) from error


def _in_words(error: OSError) -> str:
    """Return what the system refused, with the file; "" for an error that concerns no file, which is a fault of the
    lab."""
    if is_full(error) and not error.filename:  # of what is open: a file, or the output
        return f"nothing more can be written ({error.strerror}), to a file below {ROOT} or to where the output goes"
    if is_full(error):
        return str(DiskFull("nothing more can be written", [ROOT], GRID_BYTES))
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(error.filename)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and Path(name).is_relative_to(ROOT):
        reason = f"runs and reports are kept below {ROOT}"
        remedy = "make it writable, or clone the repository to a folder of yours"
        if INSTALLED:
            remedy = f"call the lab in a folder of yours, or name one with {HOME}"
        return f"cannot read or write {name} ({error.strerror}): {reason}; {remedy}"
    return f"{name}: {error.strerror}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file `path` while the block runs. Wait as long as another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all: the content from before stays until the new file is complete. Of two writers
    the last one to complete wins. Raises DiskFull when the disk is full."""
    part = path.with_name(f".{path.name}.{threading.get_native_id()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if is_full(error):
            raise DiskFull(f"{path.name} could not be written", [path.parent], len(text.encode())) from error
        raise


def add_file(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    """Add a file to an archive that is open for writing. `content` is read from its beginning to its end."""
    member = tarfile.TarInfo(name)
    member.size = content.seek(0, io.SEEK_END)
    content.seek(0)
    archive.addfile(member, content)


def resolve_path(path: Path | str, folder: Path = Path(), where: str = "") -> Path:
    """Return the absolute path, from `folder`: `~` is a user's home, links are followed. Raises LabError, with `where`
    before it, for a link that leads back to itself, an unknown user, or an invalid name."""
    try:
        return (folder / Path(path).expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:  # a link; a name that no file system takes; a NUL
        raise LabError(f"{where}{str(path)!r} leads to no file: {error}") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_size(number: int) -> str:
    """Return a number of bytes in the unit that fits: kB, MB, GB (powers of 1000)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def short_name(name: str) -> str:
    """Return a name that a file system takes. A name of more than `LONGEST_NAME` letters is cut and ends with a part of
    its SHA-256."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def image_part(name: str) -> str:
    """Return a program's name in lower case, as a part of an image's name. A name that is no such part (cargo allows
    `_app_`) becomes "program-" and a part of its SHA-256."""
    if _COMPONENT.fullmatch(name.lower()):
        return name.lower()
    return f"program-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def is_editor_file(name: str) -> bool:
    """Return whether a file of that name belongs to an editor or a file manager, and not to the sources beside it."""
    return name.startswith(".") or name.endswith("~")
