"""The configuration files that a program reads -> the ports, addresses and folders that they name."""

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from rustimg_lab.build.known import SOURCES

# Names that are a server's own, among those of ports and addresses.
OWN = re.compile("(?i)^(?:port|host|addr|address)$|listen|bind|server|http|app|web|api")
# Files that configure a program, by their endings; none of more bytes is read.
_READERS = {
    ".toml": tomllib.loads, ".cfg": tomllib.loads, ".json": json.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load,
}  # fmt: skip
_MOST_BYTES = 100_000
_HOST = re.compile(r"(?i)(?:^|_)(?:host|addr(?:ess)?|inet|bind\w*|listen\w*|ip)$")
_LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[?::1\]?)(?::\d+)?")
_FOLDER_NAME = re.compile(r"(?i)(?:^|_)(?:path|dir|directory|folder)$")
_FOLDER = re.compile(r"(?:\./)?(\w[\w./-]*?)/?")


def ports(files: list[Path]) -> set[int]:
    """Return the ports that configuration files name: of several, those of a server by their names; none of other
    programs. `files` are files, or folders of these."""
    found = []
    for _, name, value in _settings(files):
        ends = re.fullmatch(r"[^/]*:(\d{2,5})", value) if SOURCES["address"].search(name) else None
        port = value if SOURCES["port"].search(name) else ends[1] if ends else ""
        if port.isdecimal() and 0 < int(port) < 65536:
            found.append((name, int(port)))
    return {port for name, port in found if OWN.search(name)} or {port for _, port in found}


def loopback(files: list[Path]) -> str:
    """Return the first of a server's addresses there that nothing outside a container reaches: file and name."""
    closed = [
        (path, name) for path, name, value in _settings(files) if _HOST.search(name) and _LOOPBACK.fullmatch(value)
    ]
    return f"{closed[0][1]} in {closed[0][0].name}" if closed else ""


def folders(files: list[Path], directory: Path) -> list[str]:
    """Return the folders that a program finds there by a path that is relative to `directory`, in which they are not
    yet."""
    found = []
    for _, name, value in _settings(files):
        path = _FOLDER.fullmatch(value)
        if path and _FOLDER_NAME.search(name) and not Path(path[1]).suffix and not (directory / path[1]).exists():
            found.append(path[1])
    return list(dict.fromkeys(found))


def _settings(files: list[Path]) -> Iterator[tuple[Path, str, str]]:
    """The settings in files of forms that are known, each by the names of all that it is in (`server_port`); none that
    is another program's by its name."""
    for path in (path for each in files for path in ([each] if each.is_file() else sorted(each.glob("*")))):
        if path.suffix in _READERS and path.is_file() and path.stat().st_size <= _MOST_BYTES:
            with suppress(ValueError, yaml.YAMLError):
                for name, value in _named(_READERS[path.suffix](path.read_text(encoding="utf-8"))):
                    if not any(SOURCES[each].search(name) for each in ("others", "services")):
                        yield path, name, value


def _named(told: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(told, dict):
        for key, value in told.items():
            yield from _named(value, f"{name}_{key}".lstrip("_"))
    elif isinstance(told, str | int):
        yield name, str(told)
