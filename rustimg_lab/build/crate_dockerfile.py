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


def dockerfile_notes(crate: Crate, values: dict[str, Any]) -> list[str]:
    """Return what the Dockerfile of a crate's folder, or of its workspace's, has and `values` lack. Of all stages these
    are packages, by Debian's names. Of the last stage they are ports, variables, files and a health check. Without a
    Dockerfile the list is empty."""
    folders = dict.fromkeys([crate.directory, crate.root])
    path = next((file for folder in folders if (file := folder / "Dockerfile").is_file()), None)
    if not path:
        return []
    text = re.sub(r"(?m)^[ \t]*#.*\n", "", path.read_text(encoding="utf-8", errors="replace"))
    lines = [(name.upper(), args) for name, args in _INSTRUCTION.findall(re.sub(r"\\[ \t]*\n", " ", text))]
    stage = max((number for number, (name, _) in enumerate(lines) if name == "FROM"), default=0)
    copied = _copied_files(lines[stage:], crate.target["name"], values["files"]) if stage else ()
    return list(dict.fromkeys([*_packages(lines, values["packages"]), *_image_notes(lines[stage:], values), *copied]))


def _packages(instructions: list[tuple[str, str]], packages: list[str]) -> Iterator[str]:
    lacking = _NEEDED.difference(packages)
    for name, args in instructions:
        for words in _INSTALLED.findall(args) if name == "RUN" else ():
            yield from (f"package {package}" for package in words.split() if package in lacking)


def _copied_files(instructions: list[tuple[str, str]], program: str, files: dict[str, str]) -> Iterator[str]:
    """What the last of several stages takes beside the program."""
    for name, args in instructions:
        words = _COPIED.match(re.sub(r'[\[\]",]', " ", args).strip()) if name in ("COPY", "ADD") else None
        for source in words[1].split() if words else ():
            file_name = source.rstrip("/").rpartition("/")[2]
            is_known = file_name in (program, f"{program}*") or any(file_name in key.split("/") for key in files)
            if not is_known and not _OF_SYSTEM.search(source):
                yield f"{name} {source}"


def _image_notes(instructions: list[tuple[str, str]], values: dict[str, Any]) -> Iterator[str]:
    serve = values["serve"]
    known_names = {*serve.get("environment", ()), *serve.get("opened", ())}
    for name, args in instructions:
        if name == "EXPOSE" and not serve:
            yield f"EXPOSE {args.strip()}"
        elif name == "ENV":
            pairs = [(key, value.strip('"')) for key, value in _VARIABLE.findall(args)]
            additions = [(key, value) for key, value in pairs if key not in known_names and not _OF_ANY.match(key)]
            yield from (f"{key}={value}" for key, value in additions if len(value) < 40 and "$" not in value)
        elif name == "HEALTHCHECK" and (request := _ASKED.search(args)) and request[1] != serve.get("path", "/"):
            yield f"a health check of {request[1]}"
