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
    """Return cargo's first error with its place, its causes and a hint, or else the last line of the output."""
    text = click.unstyle("".join(output))  # cargo colors its words where a project's configuration says so
    reason = _first_error(text)
    hints = (f"; {hint}" for pattern, hint in KNOWN["hints"].items() if re.search(pattern, reason))
    lack = _missing_header(reason) or _missing_library(text) or _missing_program(reason)
    return reason + (next(hints, "") or lack or _glibc_library_note(reason, text))


def _glibc_library_note(reason: str, text: str) -> str:
    """Which library of a Debian package, all of which are for glibc, a linker was given for a program for musl."""
    if not reason.startswith("error: linking with") or "-unknown-linux-musl" not in text:
        return ""
    if not (match := _DEBIANS.search(text)):
        return ""
    return (
        f"; {match[1]} of Debian is for glibc, and this program for musl: take the bases debian and distroless, or a "
        "feature of its crate that builds it from source"
    )


def _missing_header(reason: str) -> str:
    """Which header a C compiler did not find, and the Debian package that has it, where that is known."""
    if not (match := _HEADER.search(reason)):
        return ""
    package = KNOWN["headers"].get(match[1] or match[2])
    remedy = (
        f'packages = ["{package}"] in {lab_toml.FILE} may bring it, or on musl a feature of its crate that builds the '
        "library from source"
        if package
        else f"`packages` in {lab_toml.FILE} is for the Debian package that has it; a Git submodule must be checked out"
    )
    return f"; it lacks the header {match[2]}: {remedy}"


def _missing_library(text: str) -> str:
    """Which Debian package a build script lacks, as far as its words tell; "" when it lacks none."""
    for pattern in _LIBRARY_LACKS:
        if match := re.search(pattern, text):
            name = match[1].lower()
            package = KNOWN["libraries"].get(name, "" if "-l" in pattern else f"lib{name.removeprefix('lib')}-dev")
            return package and (
                f'; it lacks the library {match[1]}: packages = ["pkg-config", "{package}"] in {lab_toml.FILE} may '
                "bring it, or on musl a feature of its crate that builds it from source"
            )
    return ""


def _missing_program(reason: str) -> str:
    """Which Debian package has the program that a build script, or cargo, did not find; "" when none is missed."""
    for name, package in KNOWN["programs"].items() if _PROGRAM_LACKS.search(reason) else []:
        if re.search(_PROGRAM.format(re.escape(name)), reason):
            return _install_hint(name, package)
    return ""


def _install_hint(program: str, package: str) -> str:
    return f'; it lacks the program {program}: packages = ["{package}"] in {lab_toml.FILE} brings it'


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if re.match(r"(error(\[E\d+\])?|rustc-LLVM ERROR): ", line):
            if line.startswith("error: linking with"):
                return _linker_error(line, lines[number:])
            causes = _causes(lines[number + 1 :])
            place = lines[number + 1].strip() if number + 1 < len(lines) else ""
            if line.endswith(":") and not causes:
                return f"{line} {place}"
            if place.startswith("--> "):
                error = f"{line} ({place.removeprefix('--> ')})"
                message = line.removeprefix("error: ")  # words of the project's, where its macro has some
                if any("env!(" in excerpt and message in excerpt for excerpt in lines[number + 2 : number + 5]):
                    return f"{line} (env!, {place.removeprefix('--> ')})"
                hints = (hint.strip().removeprefix("= ") for hint in lines[number:] if "= help: to create" in hint)
                return f"{error} {next(hints, '')}".rstrip() if "[E0583]" in line else error
            return " ".join([line, *causes])[:MOST]
    last_line, fetch_error = lines[-1].strip() if lines else "", _UNFETCHED.search(text)
    return f"{last_line}: {fetch_error[1]}" if fetch_error and last_line.startswith("E: ") else last_line


def _linker_error(line: str, lines: list[str]) -> str:
    """Return the first message of the linker itself, as an error. If a line only names a function, its message is in
    the line below."""
    messages = [message.strip().removeprefix("= note: ") for message in lines]
    for message, next_message in pairwise([*messages, ""]):
        error = f"{message} {next_message}" if message.endswith(":") else message
        if _LINKER.search(message) and not re.search("warning: |note: ", error):
            return f"{line} {error}"
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
    if match := next(filter(None, map(_ENDED.match, chain)), None):
        return [f"{match[1]} was ended by {match[2]}"]
    output_start = next((chain.index(mark) for mark in ("--- stderr", "--- stdout") if mark in chain), 0)
    log = [line for line in chain[output_start:] if not _NOISE.match(line)]
    if output_start and (tool_error := _tool_error(chain)):
        log = [tool_error]
    elif output_start:
        panic = next((index for index, line in enumerate(log) if "panicked at" in line), None)
        prefix = log[:panic] if panic else []
        context = [line[:BEFORE] for line in ([line for line in prefix if _OF_SHELL.search(line)] or prefix)[-1:]]
        start = next((index for index, line in enumerate(log) if line.startswith("error: ")), max(len(log) - LAST, 0))
        tail = log[start if panic is None else panic :]
        log = context + [line for line in tail if not _FRAME.match(line)][:LAST]
        log = [match[1][:BEFORE] for match in map(_TOLD_CARGO.match, chain) if match][-1:] + log
    return [f"caused by: {line}" if not output_start else line for line in log]


def _tool_error(lines: list[str]) -> str:
    """What a tool that a build script called says first of its own error; "" when none does."""
    for line, next_line in zip(lines, [*lines[1:], ""], strict=True):
        if match := _TOOL.match(line):
            return f"{match[1]} {next_line}" if match[1].startswith("CMake Error") else match[1]
    return ""


def find_called_program(root: Path, reason: str) -> str:
    """Return a hint that names the program which a build script failed to call, with its Debian package if known; ""
    when nothing shows it. The panic in `reason` gives a line of a file below the folder `root`. Without a panic, the
    script's only call counts, if the script reads no file."""
    panic = re.search(r"panicked at ([\w./-]+\.rs):(\d+):\d+: .*\b(?:code: 2|CannotFindBinaryPath)\b", reason)
    error_return = re.search(r"custom build command for `[^`(]*\(/src/?([^`)]*)\)`.*\bError: Os \{ code: 2\b", reason)
    script = root / (panic[1] if panic else Path(error_return[1], "build.rs") if error_return else "")
    if "; it lacks" in reason or not script.is_file():
        return ""
    lines = script.read_text(encoding="utf-8", errors="replace").splitlines()
    excerpt = "\n".join(lines[max(int(panic[2]) - LAST, 0) : int(panic[2])] if panic else lines)
    names = [call or lookup for call, lookup in _CALLED.findall(excerpt)]
    if not names or (not panic and (len({*names}) > 1 or re.search(r"\b(?:fs|File)::", "\n".join(lines)))):
        return ""
    package = KNOWN["programs"].get(names[-1])
    return _install_hint(names[-1], package) if package else f"; it calls {names[-1]}"
