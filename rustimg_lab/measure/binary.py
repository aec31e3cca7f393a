"""What a binary is: its size, how it is linked, what it needs, which allocator it holds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_DT_FLAGS_1
from elftools.elf.gnuversions import GNUVerNeedSection

from rustimg_lab.errors import LabError
from rustimg_lab.host import files
from rustimg_lab.model import metrics
from rustimg_lab.model.matrix import OWN
from rustimg_lab.store.rows import NOTE, Observation

CODE_SECTIONS = "code-sections"  # the file that the build of a layout leaves beside its program
# Symbols that each allocator leaves in a binary that really uses it; jemalloc with its prefix and without.
_ALLOCATOR_SYMBOLS = {
    "jemalloc": r"(_rjem_|je_)?mallocx|(_rjem|je)_malloc",
    "mimalloc": r"mi_malloc(_aligned)?",
    "snmalloc": r"sn_(rust_)?m?alloc|.*8snmalloc.*",
    "dlmalloc": r".*8dlmalloc.*",
    "tcmalloc": r"tc_(malloc|memalign)|TCMalloc\w+|.*8tcmalloc.*",
    "rpmalloc": r"rp(malloc|aligned_alloc)",
}
# What the standard library's own allocator calls, also where it was inlined; and what every Rust program has.
_SYSTEM, _RUST = re.compile(r"posix_memalign(@.*)?|.*__rdl_alloc"), re.compile(r".*4core")


def compiler_note(linked: Path, toolchain: str) -> str:
    """Return a note when the rustc that compiled a binary does not match `toolchain`, the channel in the project's
    toolchain file. The note is "" when it matches, or when the channel is "" or `stable`."""
    rustc = str(elf_facts(linked)["rustc"])
    channel = re.sub(r"-\w+-unknown-linux-\w+$", "", toolchain)
    version = re.escape(channel.partition("-")[0])
    is_honoured = channel in ("", "stable") or bool(re.search(rf"\b{version}\b(?!\d)", rustc))
    return "" if is_honoured else f"compiled by rustc {rustc}, not {toolchain} as the project's toolchain file asks"


def measure_binary(linked: Path, shipped: Path, allocator: str, toolchain: str = "") -> list[Observation]:
    """Return rows on a binary: the bytes of `shipped`, a row per fact of `elf_facts`, and the allocator. Headers and
    symbols are read from `linked`, since UPX and stripping remove them from `shipped`. The row of the allocator is not
    ok when the linker kept another one than `allocator`. The row of rustc has a note when the compiler does not match
    `toolchain`. Raises LabError when a file is not an ELF file."""
    kept_allocator = linked_allocator(linked)
    facts = elf_facts(linked) | {"stripped": elf_facts(shipped)["stripped"]}
    reason = allocator_mismatch(kept_allocator, allocator)
    note = compiler_note(linked, toolchain)
    notes = {metrics.RUSTC: NOTE + note} if note else {}
    return [
        Observation(metrics.BINARY_BYTES, shipped.stat().st_size),
        *(Observation(metric, value, detail=notes.get(metric, "")) for metric, value in facts.items()),
        Observation(metrics.LINKED_ALLOCATOR, kept_allocator, ok=not reason, reason=reason),
    ]


def elf_facts(path: Path) -> dict[str, str | bool]:
    """Return facts from an executable's headers, by metric: linkage, PIE, whether it is stripped, needed libraries, the
    highest GLIBC version needed, and rustc's version. A text is "" when the file has no such fact. Raises LabError when
    the file is not an ELF file."""
    with path.open("rb") as file:
        elf = _elf(file, path)
        flags = next((tag["d_val"] for tag in dynamic_tags(elf, "DT_FLAGS_1")), 0)
        has_interpreter = any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments())
        versions = [version.name for _, version in needed_versions(elf) if version.name.startswith("GLIBC_2")]
        return {
            "linkage": "dynamic" if has_interpreter else "static",
            "pie": elf["e_type"] == "ET_DYN" and (has_interpreter or bool(flags & ENUM_DT_FLAGS_1["DF_1_PIE"])),
            "stripped": elf.get_section_by_name(".symtab") is None,
            metrics.NEEDED_LIBRARIES: " ".join(tag.needed for tag in dynamic_tags(elf, "DT_NEEDED")),
            metrics.GLIBC_NEEDED: max(versions, key=glibc_version, default=""),
            "rustc": _comment(elf, "rustc version "),
        }


def measure_layout(linked: Path, shipped: Path) -> list[Observation]:
    """Return three rows that identify a layout of a program: two SHA-256 digests and the linker. The first digest is of
    `shipped`, the second of the list of code sections with their sizes. The build leaves that list beside `linked`; it
    is equal for all layouts of one program. Raises LabError when `linked` is not an ELF file."""
    code_sha256 = files.sha256(linked.with_name(CODE_SECTIONS))
    with linked.open("rb") as file:
        linker = _comment(_elf(file, linked), "Linker: ")
    values = {metrics.BINARY_SHA256: files.sha256(shipped), metrics.CODE_SHA256: code_sha256, metrics.LINKER: linker}
    return [Observation(metric, value) for metric, value in values.items()]


def linked_allocator(path: Path) -> str:
    """Return the name of the allocator in a binary: `system` for the C library's, `unknown` for one that the lab does
    not know. Several names are joined by " and ". The name is "" when the binary has no symbols. Raises LabError when
    the file is not an ELF file."""
    with path.open("rb") as file:
        symbols = _elf(file, path).get_section_by_name(".symtab")
        if symbols is None:
            return ""
        names = {symbol.name for symbol in symbols.iter_symbols()}
    allocators = [name for name, text in _ALLOCATOR_SYMBOLS.items() if any(map(re.compile(text).fullmatch, names))]
    is_own = any(map(_RUST.match, names)) and not any(map(_SYSTEM.fullmatch, names))
    return " and ".join(allocators) or ("unknown" if is_own else "system")


def allocator_mismatch(actual: str, requested: str) -> str:
    """Return why the allocator `actual` (of `linked_allocator`) is not the `requested` one; "" when it is. With `OWN`
    every allocator is right."""
    if not actual and requested != OWN:
        cause = "the app's cargo configuration, or link arguments of its build script (as -s),"
        return f"no symbols, so its allocator cannot be identified: {cause} strip it; leave that to the profiles"
    if requested in (actual, OWN):
        return ""
    hint = "; the crate sets it itself: own_allocator = true in lab.toml" if requested == "system" else ""
    return f"requested {requested}, the linker kept {actual}{hint}"


def dynamic_tags(elf: ELFFile, name: str) -> list[Any]:
    """Return the entries of that name in the dynamic section of an ELF object; none when it has no such section."""
    dynamic = elf.get_section_by_name(".dynamic")
    return list(dynamic.iter_tags(name)) if dynamic else []


def needed_versions(elf: ELFFile) -> Iterator[tuple[str, Any]]:
    """Yield the symbol versions that an ELF object needs, each as the library's name and pyelftools' object of the
    version."""
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for library, versions in section.iter_versions():
                yield from ((library.name, version) for version in versions)


def _elf(file: IO[bytes], path: Path) -> ELFFile:
    try:
        return ELFFile(file)
    except Exception as error:
        raise LabError(f"{path.name}: not an ELF file ({error})") from None


def _comment(elf: ELFFile, begin: str) -> str:
    """What the section for comments has behind such a beginning: there rustc and lld leave their versions, and
    stripping keeps them."""
    comment = elf.get_section_by_name(".comment")
    notes = comment.data().decode(errors="replace").split("\0") if comment else []
    return next((note.removeprefix(begin) for note in notes if note.startswith(begin)), "")


def glibc_version(name: str) -> list[int]:
    """Return the numbers of a version: [2, 38] of GLIBC_2.38. Unlike the text, they sort by value."""
    return [int(part) for part in name.removeprefix("GLIBC_").split(".")]
