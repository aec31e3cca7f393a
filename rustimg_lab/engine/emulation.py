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
    """Return whether this machine's kernel starts programs of an architecture (the kernel's name), in containers too.
    Containers find an interpreter only if the kernel keeps it open (flag F)."""
    header = f"0200{_MACHINES[architecture]:02x}00"
    entries = []
    with suppress(OSError):  # the table is not mounted
        entries = [path.read_text() for path in TABLE.iterdir() if path.name not in ("register", "status")]
    open_flag = re.compile("^flags:.*F", re.MULTILINE)
    return any(text.startswith("enabled") and header in text and open_flag.search(text) for text in entries)


def program(architecture: str, say: Callable[[str], None]) -> Path:
    """Return the path of QEMU for an architecture, linked statically: the lab's own copy, which is fetched if it is
    missing. Raises LabError when it cannot be had."""
    emulator = tools.package_folder(PACKAGE) / f"usr/bin/qemu-{architecture}-static"
    if not emulator.exists():
        tools.fetch_package(PACKAGE, say, SUITE)
    if not emulator.exists():  # the package was there, of another version, say
        raise LabError(f"{tools.package_folder(PACKAGE)} lacks {emulator.name}: remove that folder, and call again")
    return emulator


def prepare(architecture: str, same_kernel: bool, say: Callable[[str], None]) -> None:
    """Register QEMU for an architecture, and pass that to `say` first. If the kernel has an emulator, or the engine a
    kernel of its own, do nothing. If it fails, as without root, `say` gets a note that images are not started."""
    if emulates(architecture) or not same_kernel:
        return
    try:
        if os.geteuid():
            raise LabError(f"only root may register one: install {PACKAGE} with its binfmt entries, or call with sudo")
        emulator = program(architecture, say)
        entry = _entry(architecture)
        say(f"{machine.root_prefix()}registers {emulator.name} as {entry} (binfmt_misc); `./lab clean` removes it")
        if not (TABLE / "register").exists():
            process.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(TABLE)])
        magic = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes([2, 0, _MACHINES[architecture], 0])
        mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"  # any OS ABI; programs and shared objects
        words = ["".join(f"\\x{byte:02x}" for byte in pattern) for pattern in (magic, mask)]
        (TABLE / "register").write_text(f":{entry}:M::{words[0]}:{words[1]}:{emulator}:OCF")
    except (LabError, OSError) as error:
        say(f"note: no emulator for {architecture}, so its images are built and sized, and not started: {error}")


def remove() -> int:
    """Remove the emulators that this clone registered, and return their number. Raises LabError when that takes
    root."""
    entries = [path for architecture in _MACHINES if (path := TABLE / _entry(architecture)).exists()]
    for path in entries:
        try:
            path.write_text("-1")
        except PermissionError:
            raise LabError(f"the emulator {path.name} was registered by root: `sudo ./lab clean` removes it") from None
    return len(entries)


def _entry(architecture: str) -> str:
    return f"rustimg-lab-{client.lab_id()}-{architecture}"
