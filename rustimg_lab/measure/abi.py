"""Whether a binary runs on a base: the library versions that it needs, checked against those of the base.

Decided as the dynamic loader decides (elf/dl-version.c of glibc): by the versions that the binary asks of each library,
those marked weak left out, and never by the names of releases: what a newer builder made often runs on an older base.
"""

import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from elftools.common.exceptions import ELFError
from elftools.elf.constants import VER_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerSymSection

from rustimg_lab.build.bases import Provenance
from rustimg_lab.engine import images
from rustimg_lab.measure.binary import dynamic_tags, glibc_version, needed_versions
from rustimg_lab.model import metrics
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.store.rows import Observation

# Where glibc's loader looks without being told: its own folders and, on Debian, those of the architecture.
_FOLDERS = {
    f"{root}{folder}{architecture}"
    for root in ("", "usr/", "usr/local/")
    for folder in ("lib", "lib64")
    for architecture in ("", *(f"/{machine.value}-linux-gnu" for machine in Architecture))
}


@dataclass(frozen=True)
class Needs:
    """What a binary asks for: the libraries, the loader among them; by library, its versions with the symbols that
    want each. `machine` is that of its header."""

    libraries: tuple[str, ...]
    versions: dict[str, dict[str, tuple[str, ...]]]
    machine: str


def measure_base(binary: Path, base: Provenance | None) -> Observation:
    """Return the row `base_satisfies`: whether a base (None for scratch) has all libraries and versions that a binary
    needs. A row that is not ok has what is missing and a fix as its reason. `binary` must be as the linker left it: the
    headers of a file packed by UPX name no libraries."""
    needs = read_needs(binary)
    if not needs.libraries:
        return Observation(metrics.BASE_SATISFIES, True, detail="a static binary needs nothing of its base")
    defined = defined_versions(base.digest, needs.machine) if base else {}
    reason = missing(needs, defined, base.label if base else "scratch")
    version_list = ", ".join(sorted({version for by_name in needs.versions.values() for version in by_name}))
    return Observation(metrics.BASE_SATISFIES, not reason, ok=not reason, reason=reason, detail=f"needs {version_list}")


def read_needs(path: Path) -> Needs:
    """Return the libraries and symbol versions that the headers of an executable name; none of either for a static one.
    Versions marked weak are left out."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        libraries = [tag.needed for tag in dynamic_tags(elf, "DT_NEEDED")]
        loaders = [segment.get_interp_name() for segment in elf.iter_segments() if segment["p_type"] == "PT_INTERP"]
        libraries += [PurePosixPath(loader).name for loader in loaders]
        users = _symbols_by_version(elf)
        versions: dict[str, dict[str, tuple[str, ...]]] = {}
        for library, version in needed_versions(elf):
            if not version["vna_flags"] & VER_FLAGS.VER_FLG_WEAK:
                versions.setdefault(library, {})[version.name] = tuple(users.get(version["vna_other"], ()))
        return Needs(tuple(dict.fromkeys(libraries)), versions, elf["e_machine"])


@cache  # an image is asked for by id, and does not change
def defined_versions(image: str, machine: str) -> dict[str, frozenset[str]]:
    """Return the versions that each shared library of an image (by id) defines: sets of names by soname. `machine` is
    that of an ELF header; libraries for other machines are left out. The set is empty for a library without
    versions."""
    definitions: dict[str, frozenset[str]] = {}
    for _, file in images.read_files(image, _may_be_library):
        try:
            elf = ELFFile(file)
            soname = next((tag.soname for tag in dynamic_tags(elf, "DT_SONAME")), None)
            if soname and elf["e_machine"] == machine:
                definitions[soname] = frozenset(_defined_names(elf))
        except ELFError:
            continue  # a linker script, which has a library's name and is none
    return definitions


def missing(needs: Needs, defined: dict[str, frozenset[str]], base: str) -> str:
    """Return what a binary needs and a base does not define, with a fix, in one line; "" when nothing is missing.
    `defined` is the result of `defined_versions`, `base` the base's label."""
    libraries = [name for name in needs.libraries if name not in defined]
    if any(name.startswith("ld-linux") for name in libraries):
        return (
            f"needs glibc's loader and libraries ({', '.join(libraries)}), {base} has none: take a base with glibc "
            "(distroless, debian), or build for musl (bases scratch, alpine) without -Ctarget-feature=-crt-static"
        )
    if libraries:
        remedy = "take a base that has it, or build for musl (bases scratch, alpine)"
        return f"needs {', '.join(libraries)}, which {base} lacks: {remedy}"
    lacking = [
        f"{version} of {library}{f' (for {_list_symbols(symbols)})' if symbols else ''}"
        for library, versions in needs.versions.items()
        for version, symbols in versions.items()
        if defined.get(library) and version not in defined[library]
    ]
    if not lacking:
        return ""
    glibc_versions = [version for version in defined.get("libc.so.6", ()) if version.startswith("GLIBC_2.")]
    newest = max(glibc_versions, key=glibc_version, default="none")
    return (
        f"needs {', '.join(lacking)}, which {base} lacks (its glibc ends at {newest}): build with an older builder "
        "(--debian bookworm, --base rust=IMAGE), take a newer base, or build for musl (bases scratch, alpine)"
    )


def _may_be_library(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isfile() and ".so" in path.name and str(path.parent) in _FOLDERS


def _defined_names(elf: ELFFile) -> list[str]:
    """The names of an object's version definitions, the first of which is its own name."""
    return [
        next(names).name
        for section in elf.iter_sections()
        if isinstance(section, GNUVerDefSection)
        for _, names in section.iter_versions()
    ]


def _symbols_by_version(elf: ELFFile) -> dict[int, list[str]]:
    """The undefined dynamic symbols by the index of the version that they want."""
    symbols, users = elf.get_section_by_name(".dynsym"), {}
    for section in elf.iter_sections():
        if isinstance(section, GNUVerSymSection) and symbols:
            for version, symbol in zip(section.iter_symbols(), symbols.iter_symbols(), strict=True):
                if symbol["st_shndx"] == "SHN_UNDEF" and isinstance(version["ndx"], int):
                    users.setdefault(version["ndx"] & 0x7FFF, []).append(symbol.name)
    return users


def _list_symbols(symbols: tuple[str, ...]) -> str:
    return ", ".join(symbols[:3]) + (f" and {len(symbols) - 3} more" if len(symbols) > 3 else "")
