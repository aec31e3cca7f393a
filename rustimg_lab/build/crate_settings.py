"""The configuration files that a program reads -> the ports, addresses and folders that they name."""

import functools
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli
import yaml

from rustimg_lab.build.crate import Crate
from rustimg_lab.build.known import SOURCES

# Names that are a server's own, among those of ports and addresses.
OWN = re.compile("(?i)^(?:port|host|addr|address)$|listen|bind|server|http|app|web|api")
# Files that configure a program, by their endings; none of more bytes is read.
_READERS = {
    ".toml": tomli.loads, ".cfg": tomli.loads, ".json": json.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load,
}  # fmt: skip
_MOST_BYTES = 100_000
HOST_NAME = re.compile(r"(?i)(?:^|_)(?:host|addr(?:ess)?|inet|bind\w*|listen\w*|ip)$")
LOOPBACK_HOST = r"(?:127\.0\.0\.1|localhost|\[?::1\]?)"  # which nothing outside a container reaches
LOOPBACK = re.compile(rf"{LOOPBACK_HOST}(?::\d+)?")
_FOLDER_NAME = re.compile(r"(?i)(?:^|_)(?:path|dir|directory|folder)$")
_FOLDER = re.compile(r"(?:\./)?(\w[\w./-]*?)/?")


@functools.cache
def prefixes(crate: Crate) -> list[tuple[str, str]]:
    """Return what variables begin with that are read without their names, and what stands before a field in these."""
    pairs, constants = [], dict(crate.find_matches(SOURCES["constant"]))
    for text, name, is_config, config_text, config_name, calls in crate.find_matches(SOURCES["prefixed"]):
        options = {key: mark or constants.get(by_name, "") for key, mark, by_name in SOURCES["split"].findall(calls)}
        constant = name or config_name
        separator = options.get("separator", options.get("split", ""))
        prefix = text or config_text or constants.get(constant, "")
        tail = options.get("prefix_separator", separator or "_") if is_config else ""
        pairs += [(f"{prefix}{tail}".upper(), separator)] if prefix or not constant else []
    return pairs


def variables(crate: Crate) -> list[str]:
    """Return the names of variables that the sources read by such prefixes, as the fields of their structures tell."""
    if not prefixes(crate):
        return []
    fields: dict[str, list[tuple[str, list[str]]]] = {}
    for name, body in crate.find_matches(SOURCES["structure"]):  # two modules may have one name each
        members = [(field, re.findall(r"\w+", kind)) for field, kind in SOURCES["member"].findall(body)]
        fields.setdefault(name, []).extend(members)
    inner = {word for members in fields.values() for _, words in members for word in words}
    texts = [text for text in crate.program_texts() if SOURCES["prefixed"].search(text)]
    outer = {word for text in texts for word in re.findall(r"\w+", text)} - inner

    def field_paths(name: str, depth: int) -> Iterator[list[str]]:
        for field, words in fields[name]:
            parts = [word for word in words if depth and word in fields]
            yield from ([field, *path] for part in parts for path in field_paths(part, depth - 1))
            yield from [] if parts else [[field]]

    return [
        f"{prefix}{separator.join(path)}".upper()
        for prefix, separator in prefixes(crate)
        for name in fields
        if name in outer
        for path in field_paths(name, 3)
        if separator or len(path) == 1
    ]


def read(files: list[Path]) -> list[tuple[Path, str, str]]:
    """Return the settings in `files` of known formats, and in those of the folders among them: the file, the name, and
    the value. The name joins all keys that lead to the value (`server_port`). Settings of other programs, by their
    names, are left out."""
    settings = []
    for path in (path for entry in files for path in ([entry] if entry.is_file() else sorted(entry.glob("*")))):
        if path.suffix in _READERS and path.is_file() and path.stat().st_size <= _MOST_BYTES:
            with suppress(ValueError, RecursionError, yaml.YAMLError):
                pairs = _named_values(_READERS[path.suffix](path.read_text(encoding="utf-8")))
                settings += [(path, name, value) for name, value in pairs if not _is_of_other(name)]
    return settings


def ports(settings: list[tuple[Path, str, str]]) -> set[int]:
    """Return the ports that settings (`read`) name; only those with names of a server, if there are any."""
    pairs = []
    for _, name, value in settings:
        match = re.fullmatch(r"[^/]*:(\d{2,5})", value) if SOURCES["address"].search(name) else None
        port = value if SOURCES["port"].search(name) else match[1] if match else ""
        if port.isdecimal() and 0 < int(port) < 65536:
            pairs.append((name, int(port)))
    return {port for name, port in pairs if OWN.search(name)} or {port for _, port in pairs}


def first_setting(settings: list[tuple[Path, str, str]], name_pattern: re.Pattern, value_pattern: re.Pattern) -> str:
    """Return the first of settings (`read`) with such a name and value, by its name and its file; "" for none."""
    matches = (
        f"{name} in {path.name}"
        for path, name, value in settings
        if name_pattern.search(name) and value_pattern.fullmatch(value)
    )
    return next(matches, "")


def folders(settings: list[tuple[Path, str, str]], directory: Path) -> list[str]:
    """Return the folders that settings (`read`) name by a relative path, and that `directory` does not have yet."""
    names = []
    for _, name, value in settings:
        match = _FOLDER.fullmatch(value)
        if match and _FOLDER_NAME.search(name) and not Path(match[1]).suffix and not (directory / match[1]).exists():
            names.append(match[1])
    return list(dict.fromkeys(names))


def _is_of_other(name: str) -> bool:
    return any(SOURCES[kind].search(SOURCES["certificate"].sub("", name)) for kind in ("others", "services"))


def _named_values(data: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _named_values(value, f"{name}_{key}".lstrip("_"))
    elif isinstance(data, str | int):
        yield name, str(data)
