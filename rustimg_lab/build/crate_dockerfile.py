"""A crate's own Dockerfile -> what it says and the proposal does not: ports, variables, files, packages, a check."""

import re
from collections.abc import Iterator
from typing import Any

from rustimg_lab.build.crate import Crate
from rustimg_lab.build.known import KNOWN

_INSTRUCTION = re.compile(r"(?im)^[ \t]*(FROM|ENV|EXPOSE|RUN|HEALTHCHECK|COPY|ADD)\s+(.*)$")
_INSTALLED = re.compile(r"\bapt(?:-get)?\s+(?:-\S+\s+)*install\s+([^;&|]*)")
_VARIABLE = re.compile(r'([A-Z]\w*)(?:=|\s+)("[^"]*"|\S+)')
_COPIED = re.compile(r"(?:--\S+\s+)*(.*)\s+\S+\s*$")
# What a builder has made, or what any image has.
_OF_SYSTEM = re.compile(r"/target/|/bin/|^/(?:etc|lib\w*|usr/(?:lib\w*|share|local))/|tini$|dumb-init$")
_ASKED = re.compile(r"https?://[^/\s\"']+(/[\w./-]*\w)")
# Of the build or of any image, not of this program.
_OF_ANY = re.compile(
    r"(?:PATH|LANG|LC_\w+|TZ|HOME|USER|UID|GID|DEBIAN_FRONTEND|(?:RUST|CARGO|SQLX|LD)_\w+|\w+_VERSION)$"
)
_NEEDED = {*KNOWN["programs"].values(), *KNOWN["libraries"].values()}.difference(
    ("curl", "g++", "git", "make", "musl-tools", "unzip", "wget")
)


def says(crate: Crate, told: dict[str, Any]) -> list[str]:
    """Return what the Dockerfile of a crate's folder, or of its workspace's, says and `told` does not: what is
    installed in any stage by Debian's names, and of the last stage its ports, variables, files and health check."""
    folders = dict.fromkeys([crate.directory, crate.root])
    path = next((file for folder in folders if (file := folder / "Dockerfile").is_file()), None)
    if not path:
        return []
    text = re.sub(r"(?m)^[ \t]*#.*\n", "", path.read_text(encoding="utf-8", errors="replace"))
    found = [(name.upper(), rest) for name, rest in _INSTRUCTION.findall(re.sub(r"\\[ \t]*\n", " ", text))]
    last = max((number for number, (name, _) in enumerate(found) if name == "FROM"), default=0)
    copied = _copied(found[last:], crate.target["name"], told["files"]) if last else ()
    return list(dict.fromkeys([*_packages(found, told["packages"]), *_of_image(found[last:], told), *copied]))


def _packages(instructions: list[tuple[str, str]], known: list[str]) -> Iterator[str]:
    lacking = _NEEDED.difference(known)
    for name, rest in instructions:
        for words in _INSTALLED.findall(rest) if name == "RUN" else ():
            yield from (f"package {each}" for each in words.split() if each in lacking)


def _copied(instructions: list[tuple[str, str]], program: str, files: dict[str, str]) -> Iterator[str]:
    """What the last of several stages takes beside the program."""
    for name, rest in instructions:
        words = _COPIED.match(re.sub(r'[\[\]",]', " ", rest).strip()) if name in ("COPY", "ADD") else None
        for source in words[1].split() if words else ():
            last = source.rstrip("/").rpartition("/")[2]
            is_known = last in (program, f"{program}*") or any(last in key.split("/") for key in files)
            if not is_known and not _OF_SYSTEM.search(source):
                yield f"{name} {source}"


def _of_image(instructions: list[tuple[str, str]], told: dict[str, Any]) -> Iterator[str]:
    serve = told["serve"]
    known = {*serve.get("environment", ()), *serve.get("opened", ())}
    for name, rest in instructions:
        if name == "EXPOSE" and not serve:
            yield f"EXPOSE {rest.strip()}"
        elif name == "ENV":
            pairs = [(key, value.strip('"')) for key, value in _VARIABLE.findall(rest)]
            new = [(key, value) for key, value in pairs if key not in known and not _OF_ANY.match(key)]
            yield from (f"{key}={value}" for key, value in new if len(value) < 40 and "$" not in value)
        elif name == "HEALTHCHECK" and (asked := _ASKED.search(rest)) and asked[1] != serve.get("path", "/"):
            yield f"a health check of {asked[1]}"
