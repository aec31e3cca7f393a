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


def other_compiler(linked: Path, toolchain: str) -> str:
    """A note where a binary is not of the compiler that the project's `toolchain` file asks for; "" where it is."""
    rustc = str(elf_facts(linked)["rustc"])
    channel = re.sub(r"-\w+-unknown-linux-\w+$", "", toolchain)
    asked = re.escape(channel.partition("-")[0])
    honoured = channel in ("", "stable") or bool(re.search(rf"\b{asked}\b(?!\d)", rustc))
    return "" if honoured else f"compiled by rustc {rustc}, not {toolchain} as the project's toolchain file asks"


def measure_binary(linked: Path, shipped: Path, allocator: str, toolchain: str = "") -> list[Observation]:
    """What the binary is: its bytes; how it is linked and what it needs, from the headers of `linked`, since UPX leaves
    none; and its allocator there, which the linker drops without a word where nothing refers to it. A row is not ok
    when it is another than was asked for. A note tells of another compiler than the project's `toolchain`."""
    found = linked_allocator(linked)
    facts = elf_facts(linked) | {"stripped": elf_facts(shipped)["stripped"]}
    reason = not_as_asked(found, allocator)
    told = other_compiler(linked, toolchain)
    notes = {metrics.RUSTC: NOTE + told} if told else {}
    return [
        Observation(metrics.BINARY_BYTES, shipped.stat().st_size),
        *(Observation(metric, value, detail=notes.get(metric, "")) for metric, value in facts.items()),
        Observation(metrics.LINKED_ALLOCATOR, found, ok=not reason, reason=reason),
    ]


def elf_facts(path: Path) -> dict[str, str | bool]:
    """An executable's linkage, PIE, stripped, libraries, GLIBC version, rustc, by its headers. Raises LabError."""
    with path.open("rb") as file:
        elf = _elf(file, path)
        flags = next((tag["d_val"] for tag in dynamic_tags(elf, "DT_FLAGS_1")), 0)
        interpreted = any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments())
        versions = [version.name for _, version in needed_versions(elf) if version.name.startswith("GLIBC_2")]
        return {
            "linkage": "dynamic" if interpreted else "static",
            "pie": elf["e_type"] == "ET_DYN" and (interpreted or bool(flags & ENUM_DT_FLAGS_1["DF_1_PIE"])),
            "stripped": elf.get_section_by_name(".symtab") is None,
            metrics.NEEDED_LIBRARIES: " ".join(tag.needed for tag in dynamic_tags(elf, "DT_NEEDED")),
            metrics.GLIBC_NEEDED: max(versions, key=glibc_version, default=""),
            "rustc": _comment(elf, "rustc version "),
        }


def measure_layout(linked: Path, shipped: Path) -> list[Observation]:
    """Return what tells a layout from others, the SHA-256 of its file; what they share, that of its list of code
    sections with sizes, in no order; and the linker."""
    code = files.sha256(linked.with_name(CODE_SECTIONS))
    with linked.open("rb") as file:
        linker = _comment(_elf(file, linked), "Linker: ")
    values = {metrics.BINARY_SHA256: files.sha256(shipped), metrics.CODE_SHA256: code, metrics.LINKER: linker}
    return [Observation(metric, value) for metric, value in values.items()]


def linked_allocator(path: Path) -> str:
    """Which allocator a binary brings along; `unknown` for another of its own, "" without symbols to tell."""
    with path.open("rb") as file:
        symbols = _elf(file, path).get_section_by_name(".symtab")
        if symbols is None:
            return ""
        names = {symbol.name for symbol in symbols.iter_symbols()}
    found = [name for name, text in _ALLOCATOR_SYMBOLS.items() if any(map(re.compile(text).fullmatch, names))]
    is_own = any(map(_RUST.match, names)) and not any(map(_SYSTEM.fullmatch, names))
    return " and ".join(found) or ("unknown" if is_own else "system")


def not_as_asked(found: str, asked: str) -> str:
    """Why a binary's allocator is not the one that was asked for, as `linked_allocator` found it; "" when it is."""
    if not found and asked != OWN:
        by = "the app's cargo configuration, or link arguments of its build script (as -s),"
        return f"no symbols, so its allocator cannot be identified: {by} strip it; leave that to the profiles"
    if asked in (found, OWN):
        return ""
    own = "; the crate sets it itself: own_allocator = true in lab.toml" if asked == "system" else ""
    return f"requested {asked}, the linker kept {found}{own}"


def dynamic_tags(elf: ELFFile, name: str) -> list[Any]:
    """The entries of that name in an object's dynamic section; none where it has no such section."""
    dynamic = elf.get_section_by_name(".dynamic")
    return list(dynamic.iter_tags(name)) if dynamic else []


def needed_versions(elf: ELFFile) -> Iterator[tuple[str, Any]]:
    """The versions that an object needs of libraries, each with the library's name."""
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
    """What the comment section has behind `begin`: rustc and lld leave their versions there, and strip keeps them."""
    comment = elf.get_section_by_name(".comment")
    notes = comment.data().decode(errors="replace").split("\0") if comment else []
    return next((note.removeprefix(begin) for note in notes if note.startswith(begin)), "")


def glibc_version(name: str) -> list[int]:
    """GLIBC_2.38 as numbers, which sort as letters do not."""
    return [int(part) for part in name.removeprefix("GLIBC_").split(".")]
