"""The output of a failed build -> its first error with its causes in one line, and what may help."""

import re
from itertools import pairwise
from pathlib import Path

import click

from rustimg_lab.build import lab_toml
from rustimg_lab.build.crate import CALLED
from rustimg_lab.build.known import KNOWN

LAST = 4  # lines of what a build script printed
BEFORE = 150  # characters of what was printed last before its panic, such as a shell's `not found`
MOST = 600  # characters of cargo's own words
# How build scripts and linkers say that a system library is not there.
_LIBRARY_LACKS = (
    r"[Tt]he system library `([\w.+-]+)` required by crate",
    r"pkg-config --libs --cflags ([\w.+-]+).*\s+The pkg-config command could not be found",
    r"Package '?([\w.+-]+?)'?(?:, required by '[^']*',)? (?:was )?not found",
    r"[Cc]ould not find directory of (OpenSSL) installation",
    r"cannot find -l([\w.+-]+)",
    r"CMake Error[^\n]*\n\s*Could NOT find (?!PkgConfig|Python|\w+ \(missing: \w+_EXECUTABLE)(\w+)",
    r"ERROR: Dependency \"([\w.+-]+)\" not found",  # Meson
)
_HEADER = re.compile(r"fatal error: '?(?:([\w.+-]+)/)?(?:[\w.+-]+/)*([\w.+-]+)'?(?:: No such| file not found)")
# How the tools that a build script calls tell an error: compilers, Meson, configure, Perl, and CMake, which says what
# is wrong in the line below.
_TOOL = re.compile(
    r"(?:cargo::?warning=)?(\S+?:\d+:\d+: (?:error|ERROR): .+|"
    r"\S+: fatal error: .+|configure: error: .+|CMake Error.+|error\[E\d+\]: .+|Can't locate \S+\.pm\b)"
)
# How build scripts, shells and cargo say that a program is not there.
_PROGRAM_LACKS = re.compile(
    r"not found|NotFound|No such file or directory|os error 2\b|not installed|(?i:could not (be found|find))|"
    r"[Uu]nable to find|CannotFindBinaryPath|"
    r"[Ff]ailed to (find|execute|run|spawn)|which the builder lacks|invalid linker name|is (missing|needed|required)"
)
_PROGRAM = (
    "([`'\"]|-fuse-ld=|\\b((?i:find)|(execut|spawn|runn?|invok|start|launch|have|install|call)(e|ing)?|missing|"
    "dependency:|program|linker|Is) )(?i:{0})(?![\\w/+-])|(?<![\\w./+-])(?i:{0})( binary| compiler| command)?"
    "(: command|:| is| was)? (not found|not installed|missing|needed|required|could not be found|CannotFindBinaryPath)"
)
# Before what a linker prints, or the compiler that calls it; that one's last word is only that the linker failed.
_LINKER = re.compile(
    r"\b(ld|lld|mold|wild)(\.\w+)?: |terminated with signal|"
    r"\b(collect2|clang|g?cc)(-\d+)?: (fatal )?error: (?!ld returned|linker command failed)"
)
_DEBIANS = re.compile(r"/usr/lib/\w+-linux-gnu/+(lib[\w.+-]+\.a)\(")
_ENDED = re.compile(r"process didn't exit successfully: `(?:\S*/)?(\S+?)[ `].*\((signal: [^)]*)\)")
_FRAME = re.compile(r"\d+: |at /|note: ")  # of a backtrace
_NOISE = re.compile(
    r"process didn't exit successfully|--- (stdout|stderr)|cargo:|note: run with|stack backtrace|warning: "
)
_OF_SHELL = re.compile(r"\bsh: (?:line )?\d+: \S+: (?:command )?not found")
# Without a network `apt-get update` ends well, and the package that is installed next is unknown.
_UNFETCHED = re.compile(r"^[WE]: (Failed to fetch .+)", re.MULTILINE)
_CALLED = re.compile(rf'{CALLED.pattern}|\bwhich(?:_global|_in)?\(\s*"([\w.+-]+)"')
_TOLD_CARGO = re.compile(r"cargo::?(?:warning|error)=(.+)")  # by a build script that ends without a panic


def first_error(output: list[str]) -> str:
    """Return cargo's first error with its place and its causes, or else the last thing that was said; and what may
    help."""
    said = click.unstyle("".join(output))  # cargo colors its words where a project's configuration says so
    reason = _first_error(said)
    hints = (f"; {hint}" for pattern, hint in KNOWN["hints"].items() if re.search(pattern, reason))
    lacks = _missing_header(reason) or _missing_library(said) or _missing_program(reason)
    return reason + (next(hints, "") or lacks or _for_glibc(reason, said))


def _for_glibc(reason: str, said: str) -> str:
    """Which library of a Debian package, all of which are for glibc, a linker was given for a program for musl."""
    if not reason.startswith("error: linking with") or "-unknown-linux-musl" not in said:
        return ""
    if not (found := _DEBIANS.search(said)):
        return ""
    return (
        f"; {found[1]} of Debian is for glibc, and this program for musl: take the bases debian and distroless, or a "
        "feature of its crate that builds it from source"
    )


def _missing_header(reason: str) -> str:
    """Which header a C compiler did not find, and the Debian package that has it, where that is known."""
    if not (found := _HEADER.search(reason)):
        return ""
    package = KNOWN["headers"].get(found[1] or found[2])
    bring = (
        f'packages = ["{package}"] in {lab_toml.FILE} may bring it, or on musl a feature of its crate that builds the '
        "library from source"
        if package
        else f"`packages` in {lab_toml.FILE} is for the Debian package that has it; a Git submodule must be checked out"
    )
    return f"; it lacks the header {found[2]}: {bring}"


def _missing_library(said: str) -> str:
    """Which Debian package a build script lacks, as far as its words tell; "" when it lacks none."""
    for pattern in _LIBRARY_LACKS:
        if found := re.search(pattern, said):
            name = found[1].lower()
            package = KNOWN["libraries"].get(name, "" if "-l" in pattern else f"lib{name.removeprefix('lib')}-dev")
            return package and (
                f'; it lacks the library {found[1]}: packages = ["pkg-config", "{package}"] in {lab_toml.FILE} may '
                "bring it, or on musl a feature of its crate that builds it from source"
            )
    return ""


def _missing_program(reason: str) -> str:
    """Which Debian package has the program that a build script, or cargo, did not find; "" when none is missed."""
    for name, package in KNOWN["programs"].items() if _PROGRAM_LACKS.search(reason) else []:
        if re.search(_PROGRAM.format(re.escape(name)), reason):
            return _bring(name, package)
    return ""


def _bring(program: str, package: str) -> str:
    return f'; it lacks the program {program}: packages = ["{package}"] in {lab_toml.FILE} brings it'


def _first_error(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if re.match(r"(error(\[E\d+\])?|rustc-LLVM ERROR): ", line):
            if line.startswith("error: linking with"):
                return _of_linker(line, lines[number:])
            causes = _causes(lines[number + 1 :])
            place = lines[number + 1].strip() if number + 1 < len(lines) else ""
            if line.endswith(":") and not causes:
                return f"{line} {place}"
            if place.startswith("--> "):
                told = f"{line} ({place.removeprefix('--> ')})"
                own = line.removeprefix("error: ")  # words of the project's, where its macro has some
                if any("env!(" in each and own in each for each in lines[number + 2 : number + 5]):
                    return f"{line} (env!, {place.removeprefix('--> ')})"
                wanted = (each.strip().removeprefix("= ") for each in lines[number:] if "= help: to create" in each)
                return f"{told} {next(wanted, '')}".rstrip() if "[E0583]" in line else told
            return " ".join([line, *causes])[:MOST]
    last, unfetched = lines[-1].strip() if lines else "", _UNFETCHED.search(said)
    return f"{last}: {unfetched[1]}" if unfetched and last.startswith("E: ") else last


def _of_linker(line: str, lines: list[str]) -> str:
    """What the linker itself says first, as an error. What a line with a function begins is said in the one below."""
    said = [each.strip().removeprefix("= note: ") for each in lines]
    for each, below in pairwise([*said, ""]):
        told = f"{each} {below}" if each.endswith(":") else each
        if _LINKER.search(each) and not re.search("warning: |note: ", told):
            return f"{line} {told}"
    return line


def _causes(lines: list[str]) -> list[str]:
    """What cargo says below an error: its chain of causes; of a build script its panic, or what it printed last."""
    block: list[str] = []
    for line in lines:
        if re.match(r"(error|warning)(\[|: )", line) and "aborting" not in line and "Caused by:" in block:
            break
        block.append(line.strip())
    if "Caused by:" not in block:
        return []
    chain = [line for line in block[block.index("Caused by:") :] if line != "Caused by:"]
    if ended := next(filter(None, map(_ENDED.match, chain)), None):
        return [f"{ended[1]} was ended by {ended[2]}"]
    printed = next((chain.index(mark) for mark in ("--- stderr", "--- stdout") if mark in chain), 0)
    told = [line for line in chain[printed:] if not _NOISE.match(line)]
    if printed and (tool := _of_tool(chain)):
        told = [tool]
    elif printed:
        panic = next((place for place, line in enumerate(told) if "panicked at" in line), None)
        above = told[:panic] if panic else []
        before = [line[:BEFORE] for line in ([each for each in above if _OF_SHELL.search(each)] or above)[-1:]]
        first = next((place for place, line in enumerate(told) if line.startswith("error: ")), max(len(told) - LAST, 0))
        last = told[first if panic is None else panic :]
        told = before + [line for line in last if not _FRAME.match(line)][:LAST]
        told = [each[1][:BEFORE] for each in map(_TOLD_CARGO.match, chain) if each][-1:] + told
    return [f"caused by: {line}" if not printed else line for line in told]


def _of_tool(lines: list[str]) -> str:
    """What a tool that a build script called says first of its own error; "" when none does."""
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if found := _TOOL.match(line):
            return f"{found[1]} {below}" if found[1].startswith("CMake Error") else found[1]
    return ""


def called(root: Path, reason: str) -> str:
    """Return which program a build script called where it says only that something is not there, by the line of its
    panic below the folder `root`, or by its only call where it reads no file; and the Debian package that has it. ""
    where nothing tells."""
    panic = re.search(r"panicked at ([\w./-]+\.rs):(\d+):\d+: .*\b(?:code: 2|CannotFindBinaryPath)\b", reason)
    returned = re.search(r"custom build command for `[^`(]*\(/src/?([^`)]*)\)`.*\bError: Os \{ code: 2\b", reason)
    script = root / (panic[1] if panic else Path(returned[1], "build.rs") if returned else "")
    if "; it lacks" in reason or not script.is_file():
        return ""
    lines = script.read_text(encoding="utf-8", errors="replace").splitlines()
    said = "\n".join(lines[max(int(panic[2]) - LAST, 0) : int(panic[2])] if panic else lines)
    names = [called or looked_up for called, looked_up in _CALLED.findall(said)]
    if not names or (not panic and (len({*names}) > 1 or re.search(r"\b(?:fs|File)::", "\n".join(lines)))):
        return ""
    package = KNOWN["programs"].get(names[-1])
    return _bring(names[-1], package) if package else f"; it calls {names[-1]}"
