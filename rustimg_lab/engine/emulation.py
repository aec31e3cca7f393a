"""Programs of another architecture: QEMU as Debian packages it, and the kernel's table of interpreters (binfmt_misc).

That table is the machine's, not the engine's. The lab adds an entry only as root, and `clean` removes it; the entry has
the id of this clone in its name.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine, process, tools

PACKAGE, SUITE = "qemu-user-static", "bookworm"
TABLE = Path("/proc/sys/fs/binfmt_misc")
NO_EMULATOR = "exec format error"  # what an engine says where the kernel does not know a program's architecture
_MACHINES = {"x86_64": 0x3E, "aarch64": 0xB7}  # in the header of an ELF file


def emulates(architecture: str) -> bool:
    """Whether the kernel starts programs of an architecture, in containers too (flag F keeps the interpreter open)."""
    header = f"0200{_MACHINES[architecture]:02x}00"
    entries = []
    with suppress(OSError):  # the table is not mounted
        entries = [path.read_text() for path in TABLE.iterdir() if path.name not in ("register", "status")]
    kept_open = re.compile("^flags:.*F", re.MULTILINE)
    return any(text.startswith("enabled") and header in text and kept_open.search(text) for text in entries)


def program(architecture: str, say: Callable[[str], None]) -> Path:
    """Return the lab's static QEMU for an architecture, fetched if missing. Raises LabError if it cannot be had."""
    own = tools.unpacked(PACKAGE) / f"usr/bin/qemu-{architecture}-static"
    if not own.exists():
        tools.fetch_package(PACKAGE, say, SUITE)
    if not own.exists():  # the package was there, of another version, say
        raise LabError(f"{tools.unpacked(PACKAGE)} lacks {own.name}: remove that folder, and call again")
    return own


def prepare(architecture: str, same_kernel: bool, say: Callable[[str], None]) -> None:
    """Register QEMU for an architecture where the kernel has no emulator for it, and say so first. Without root, or
    with an engine that has a kernel of its own, say what that means: images that do not start are not checked."""
    if emulates(architecture) or not same_kernel:
        return
    try:
        if os.geteuid():
            raise LabError(f"only root may register one: install {PACKAGE} with its binfmt entries, or call with sudo")
        emulator = program(architecture, say)
        entry = _entry(architecture)
        say(f"{machine.as_root()}registers {emulator.name} as {entry} (binfmt_misc); `./lab clean` removes it")
        if not (TABLE / "register").exists():
            process.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(TABLE)])
        magic = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes([2, 0, _MACHINES[architecture], 0])
        mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"  # any OS ABI; programs and shared objects
        words = ["".join(f"\\x{byte:02x}" for byte in each) for each in (magic, mask)]
        (TABLE / "register").write_text(f":{entry}:M::{words[0]}:{words[1]}:{emulator}:OCF")
    except (LabError, OSError) as error:
        say(f"note: no emulator for {architecture}, so its images are built and sized, and not started: {error}")


def remove() -> int:
    """Remove what this clone registered. Returns how many entries that were. Raises LabError where that takes root."""
    own = [path for architecture in _MACHINES if (path := TABLE / _entry(architecture)).exists()]
    for path in own:
        try:
            path.write_text("-1")
        except PermissionError:
            raise LabError(f"the emulator {path.name} was registered by root: `sudo ./lab clean` removes it") from None
    return len(own)


def _entry(architecture: str) -> str:
    return f"rustimg-lab-{client.lab_id()}-{architecture}"
