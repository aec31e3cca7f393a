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
    found, constants = [], dict(crate.found(SOURCES["constant"]))
    for text, name, of_config, config_text, config_name, rest in crate.found(SOURCES["prefixed"]):
        split, named = dict(SOURCES["split"].findall(rest)), name or config_name
        between = split.get("separator", split.get("split", ""))
        prefix = text or config_text or constants.get(named, "")
        joined = split.get("prefix_separator", between or "_") if of_config else ""
        found += [(f"{prefix}{joined}".upper(), between)] if prefix or not named else []
    return found


def variables(crate: Crate) -> list[str]:
    """Return the names of variables that the sources read by such prefixes, as the fields of their structures tell."""
    read = {name: SOURCES["member"].findall(body) for name, body in crate.found(SOURCES["structure"])}
    fields = {name: [(field, re.findall(r"\w+", of)) for field, of in members] for name, members in read.items()}
    inner = {each for name in fields for _, words in fields[name] for each in words}
    named = {word for text in crate.program() if SOURCES["prefixed"].search(text) for word in re.findall(r"\w+", text)}

    def below(name: str, deep: int) -> Iterator[list[str]]:
        for field, words in fields[name]:
            within = [each for each in words if deep and each in fields]
            yield from ([field, *rest] for each in within for rest in below(each, deep - 1))
            yield from [] if within else [[field]]

    return [
        f"{prefix}{between.join(path)}".upper()
        for prefix, between in prefixes(crate)
        for name in fields
        if name in named - inner
        for path in below(name, 3)
        if between or len(path) == 1
    ]


def read(files: list[Path]) -> list[tuple[Path, str, str]]:
    """Return the settings in files, or in what is in folders, of forms that are known: the file, the names of all that
    the setting is in (`server_port`), and the value; none that is another program's by its name."""
    found = []
    for path in (path for each in files for path in ([each] if each.is_file() else sorted(each.glob("*")))):
        if path.suffix in _READERS and path.is_file() and path.stat().st_size <= _MOST_BYTES:
            with suppress(ValueError, RecursionError, yaml.YAMLError):
                told = _named(_READERS[path.suffix](path.read_text(encoding="utf-8")))
                found += [(path, name, value) for name, value in told if not _is_of_other(name)]
    return found


def ports(settings: list[tuple[Path, str, str]]) -> set[int]:
    """Return the ports that settings (`read`) name: of several, those of a server by their names."""
    found = []
    for _, name, value in settings:
        ends = re.fullmatch(r"[^/]*:(\d{2,5})", value) if SOURCES["address"].search(name) else None
        port = value if SOURCES["port"].search(name) else ends[1] if ends else ""
        if port.isdecimal() and 0 < int(port) < 65536:
            found.append((name, int(port)))
    return {port for name, port in found if OWN.search(name)} or {port for _, port in found}


def first(settings: list[tuple[Path, str, str]], named: re.Pattern, value: re.Pattern) -> str:
    """Return the first of settings (`read`) with such a name and value, by its name and its file; "" for none."""
    fitting = (f"{name} in {path.name}" for path, name, is_ in settings if named.search(name) and value.fullmatch(is_))
    return next(fitting, "")


def folders(settings: list[tuple[Path, str, str]], directory: Path) -> list[str]:
    """Return the folders that settings (`read`) name by a path that is relative to `directory`, in which they are not
    yet."""
    found = []
    for _, name, value in settings:
        path = _FOLDER.fullmatch(value)
        if path and _FOLDER_NAME.search(name) and not Path(path[1]).suffix and not (directory / path[1]).exists():
            found.append(path[1])
    return list(dict.fromkeys(found))


def _is_of_other(name: str) -> bool:
    return any(SOURCES[each].search(SOURCES["certificate"].sub("", name)) for each in ("others", "services"))


def _named(told: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(told, dict):
        for key, value in told.items():
            yield from _named(value, f"{name}_{key}".lstrip("_"))
    elif isinstance(told, str | int):
        yield name, str(told)
