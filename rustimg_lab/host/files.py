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
    """A disk that is full: `where` the folders that were written to, of which the one with the least space is told."""

    def __init__(self, what: str, where: list[Path], needed_bytes: int):
        usage = {}
        for each in where:
            with suppress(OSError):  # it is not there, or not this user's
                usage[each] = shutil.disk_usage(each)
        path = min(usage, key=lambda each: usage[each].free, default=None)
        if path is None:  # an engine on another machine, or in a virtual one
            super().__init__(f"{what}: the disk of the engine, on a machine of its own, is full; free some space there")
            return
        free = usage[path].free
        super().__init__(
            f"{what}: the disk that holds {path} is full: {size(free)} of {size(usage[path].total)} left, "
            f"{size(needed_bytes)} needed, {size(max(needed_bytes - free, 0))} missing; free some space and call again"
        )


def is_full(said: str | OSError) -> bool:
    """Whether an error, or what a program said last, is that a disk is full."""
    if isinstance(said, OSError):
        return said.errno in (errno.ENOSPC, errno.EDQUOT)
    return "no space left on device" in said.lower()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Make a LabError of what the system refuses in the block, where that is of a file."""
    try:
        yield
    except OSError as error:
        if not (told := _in_words(error)):
            raise
        raise LabError(told) from error


def _in_words(error: OSError) -> str:
    """What the system refused, with the file; "" for what is of no file, which is a fault of the lab's own."""
    if is_full(error) and not error.filename:  # of what is open: a file, or the output
        return f"nothing more can be written ({error.strerror}), to a file below {ROOT} or to where the output goes"
    if is_full(error):
        return str(DiskFull("nothing more can be written", [ROOT], GRID_BYTES))
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(error.filename)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and Path(name).is_relative_to(ROOT):
        where = f"runs and reports are kept below {ROOT}"
        remedy = "make it writable, or clone the repository to a folder of yours"
        if INSTALLED:
            remedy = f"call the lab in a folder of yours, or name one with {HOME}"
        return f"cannot read or write {name} ({error.strerror}): {where}; {remedy}"
    return f"{name}: {error.strerror}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a file is, for as long as the block lasts; a lab that holds it now is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all: what was there stays until then. Of two at once, the later one stays."""
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
    """Add a file to an archive that is open for writing. `content` is read from its begin to its end."""
    member = tarfile.TarInfo(name)
    member.size = content.seek(0, io.SEEK_END)
    content.seek(0)
    archive.addfile(member, content)


def real(path: Path | str, folder: Path = Path(), where: str = "") -> Path:
    """Return where a path leads, by `~` and links. Raises LabError (`where` first) for a loop or an unknown user."""
    try:
        return (folder / Path(path).expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:  # a link; a name that no file system takes; a NUL
        raise LabError(f"{where}{str(path)!r} leads to no file: {error}") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(number: int) -> str:
    """Bytes in the unit that fits: kB, MB, GB (powers of 1000)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def short_name(name: str) -> str:
    """Return a name that a file system takes; of one that is too long the beginning, and what tells it from others."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def image_part(name: str) -> str:
    """Return a program's name for use in an image's name; a digest where that cannot hold it (cargo allows `_app_`)."""
    if _COMPONENT.fullmatch(name.lower()):
        return name.lower()
    return f"program-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def is_beside(name: str) -> bool:
    """Whether a file of that name is an editor's or a file manager's, and none of the sources that it lies beside."""
    return name.startswith(".") or name.endswith("~")
