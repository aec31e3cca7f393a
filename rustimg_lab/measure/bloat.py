"""What takes up the space in a binary: its sections and its crates.

A crate's bytes are those of its symbols, as `nm` lists them: a symbol belongs to the crate that it names first, so that
generic code counts for the crate that wrote it (cargo-bloat's rule: github.com/RazrFalcon/cargo-bloat). What no symbol
covers (tables of relocations and for unwinding, strings, padding) is told apart.
"""

import re
from collections import Counter
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from rustimg_lab.model import metrics
from rustimg_lab.store.rows import Observation

NO_SYMBOL = "(no symbol: tables, strings, padding)"
OTHER = "(C, and what names no crate)"
SMALL_CRATES, SMALL_BYTES = "(crates of less than 1 KiB)", 1024
_CRATE = re.compile(r"(?<![\w:])([a-z_]\w*)(?:\[[0-9a-f]+\])?::")
# Of C code in a crate, by how its names begin.
_PREFIXES = {"_rjem_": "jemalloc", "mi_": "mimalloc", "_mi_": "mimalloc", "ring_core_": "ring"}
_CONSTANTS = ("anon.", "switch.table.")  # as the optimizer calls what it moved out of any crate
_IN_FILE = "tTrRdDwWvVu"  # nm's letters of what has bytes in the file; b and B, which are zero, have none


def measure_parts(linked: Path, shipped: Path, symbols: Path) -> list[Observation]:
    """Return rows of bytes: `section_bytes` per section of `shipped`, and `crate_bytes` per crate of `linked`. The
    detail of a row is the section or the crate. A file packed by UPX has no sections. `symbols` is a file with the
    output of nm."""
    by_crate = crates(symbols.read_text(errors="replace"), loaded_bytes(linked))
    rows = [Observation(metrics.SECTION_BYTES, size, detail=name) for name, size in sections(shipped).items()]
    return rows + [Observation(metrics.CRATE_BYTES, size, detail=name) for name, size in by_crate.items()]


def sections(path: Path) -> dict[str, int]:
    """Return the bytes in the file by section, largest first, and last those of headers and padding. The result is
    empty when the file has no sections."""
    with path.open("rb") as file:
        sizes = {
            section.name: section["sh_size"]
            for section in ELFFile(file).iter_sections()
            if section["sh_type"] != "SHT_NOBITS"
        }
    if not any(sizes.values()):
        return {}
    remainder = path.stat().st_size - sum(sizes.values())
    named_sizes = {name: size for name, size in sizes.items() if name and size}
    return dict(Counter(named_sizes).most_common()) | {"(headers and padding)": remainder}


def loaded_bytes(path: Path) -> int:
    """Return the bytes of all sections that are both in the file and in memory. Stripping keeps these sections."""
    with path.open("rb") as file:
        file_sections = [section for section in ELFFile(file).iter_sections() if section["sh_type"] != "SHT_NOBITS"]
        return sum(section["sh_size"] for section in file_sections if section["sh_flags"] & SH_FLAGS.SHF_ALLOC)


def crates(symbols: str, total_bytes: int) -> dict[str, int]:
    """Return bytes by crate, largest first, from the output of `nm --print-size --demangle`. Crates below 1 KiB are one
    entry. The last entry has the bytes without a symbol, so that all entries sum up to `total_bytes`."""
    sizes, addresses = Counter(), set()
    for line in symbols.splitlines():
        address, size, kind, name = (line.split(" ", 3) + [""] * 4)[:4]
        if len(kind) == 1 and kind in _IN_FILE and address not in addresses and not name.startswith(_CONSTANTS):
            addresses.add(address)
            sizes[_crate(name)] += int(size, 16)
    small = {name: size for name, size in sizes.items() if size < SMALL_BYTES}
    large = Counter({name: size for name, size in sizes.items() if name not in small})
    remainder = {SMALL_CRATES: sum(small.values())} if small else {}
    return dict(large.most_common()) | remainder | {NO_SYMBOL: total_bytes - sum(sizes.values())}


def _crate(name: str) -> str:
    if match := _CRATE.search(name):
        return match[1]
    return next((crate for prefix, crate in _PREFIXES.items() if name.startswith(prefix)), OTHER)
