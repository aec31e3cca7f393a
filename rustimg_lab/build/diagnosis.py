"""The output of a failed build -> its first error in one line, and what may help."""

import re

from rustimg_lab.build import lab_toml

# How build scripts and linkers say that a system library is not there, and what Debian calls some of them.
_LIBRARY_LACKS = (
    r"[Tt]he system library `([\w.+-]+)` required by crate",
    r"Package '?([\w.+-]+?)'?(?:, required by '[^']*',)? (?:was )?not found",
    r"[Cc]ould not find directory of (OpenSSL) installation",
    r"cannot find -l([\w.+-]+)",
)
_LIBRARY_PACKAGES = {
    "openssl": "libssl-dev", "ssl": "libssl-dev", "crypto": "libssl-dev", "zlib": "zlib1g-dev", "z": "zlib1g-dev",
    "sqlite3": "libsqlite3-dev", "libpq": "libpq-dev", "dbus-1": "libdbus-1-dev", "libudev": "libudev-dev",
    "alsa": "libasound2-dev", "liblzma": "liblzma-dev", "bzip2": "libbz2-dev", "bz2": "libbz2-dev",
}  # fmt: skip
_LINKER = re.compile(r"\b(ld|lld)(\.\w+)?: ")  # before what a linker prints


def first_error(output: list[str]) -> str:
    """The compiler's first error, with its place, or else the last thing that was said; and what may help."""
    return _first_error(output) + _missing_library("".join(output))


def _missing_library(said: str) -> str:
    """Which Debian package a build script lacks, as far as its words tell; "" when it lacks none."""
    for pattern in _LIBRARY_LACKS:
        if found := re.search(pattern, said):
            name = found[1].lower()
            package = _LIBRARY_PACKAGES.get(name, "" if "-l" in pattern else f"lib{name.removeprefix('lib')}-dev")
            return package and (
                f'; it lacks the library {found[1]}: packages = ["pkg-config", "{package}"] in {lab_toml.FILE} may '
                "bring it, or on musl a feature of its crate that builds it from source"
            )
    return ""


def _first_error(output: list[str]) -> str:
    lines = [line for line in "".join(output).splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if re.match(r"error(\[E\d+\])?: ", line):
            if line.startswith("error: linking with"):
                said = [each.strip().removeprefix("= note: ") for each in lines[number:]]
                own = [place for place, each in enumerate(said) if _LINKER.search(each) and "warning: " not in each]
                words = said[own[0] : own[0] + 1 + said[own[0]].endswith(":")] if own else []
                return " ".join([line, *words])
            place = lines[number + 1].strip() if number + 1 < len(lines) else ""
            if line.endswith(":"):
                return f"{line} {place}"
            return f"{line} ({place.removeprefix('--> ')})" if place.startswith("--> ") else line
    return lines[-1].strip() if lines else ""
