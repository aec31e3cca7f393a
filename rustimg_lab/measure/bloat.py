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
    """Rows `section_bytes` of the shipped binary (none if packed), `crate_bytes` of the linked one's loaded parts."""
    by_crate = crates(symbols.read_text(errors="replace"), loaded_bytes(linked))
    rows = [Observation(metrics.SECTION_BYTES, size, detail=name) for name, size in sections(shipped).items()]
    return rows + [Observation(metrics.CRATE_BYTES, size, detail=name) for name, size in by_crate.items()]


def sections(path: Path) -> dict[str, int]:
    """The bytes in the file by section, largest first, then headers and padding; none where a file has no sections."""
    with path.open("rb") as file:
        found = {s.name: s["sh_size"] for s in ELFFile(file).iter_sections() if s["sh_type"] != "SHT_NOBITS"}
    if not any(found.values()):
        return {}
    rest = path.stat().st_size - sum(found.values())
    sized = {name: size for name, size in found.items() if name and size}
    return dict(Counter(sized).most_common()) | {"(headers and padding)": rest}


def loaded_bytes(path: Path) -> int:
    """The bytes of all sections that are in the file and in memory: those that stripping leaves."""
    with path.open("rb") as file:
        in_file = [s for s in ELFFile(file).iter_sections() if s["sh_type"] != "SHT_NOBITS"]
        return sum(s["sh_size"] for s in in_file if s["sh_flags"] & SH_FLAGS.SHF_ALLOC)


def crates(symbols: str, of_bytes: int) -> dict[str, int]:
    """The bytes by crate, largest first, of what `nm --print-size --demangle` printed; they sum up to `of_bytes`."""
    found, seen = Counter(), set()
    for line in symbols.splitlines():
        address, size, kind, name = (line.split(" ", 3) + [""] * 4)[:4]
        if len(kind) == 1 and kind in _IN_FILE and address not in seen and not name.startswith(_CONSTANTS):
            seen.add(address)
            found[_crate(name)] += int(size, 16)
    small = {name: size for name, size in found.items() if size < SMALL_BYTES}
    kept = Counter({name: size for name, size in found.items() if name not in small})
    rest = {SMALL_CRATES: sum(small.values())} if small else {}
    return dict(kept.most_common()) | rest | {NO_SYMBOL: of_bytes - sum(found.values())}


def _crate(name: str) -> str:
    if found := _CRATE.search(name):
        return found[1]
    return next((crate for prefix, crate in _PREFIXES.items() if name.startswith(prefix)), OTHER)
