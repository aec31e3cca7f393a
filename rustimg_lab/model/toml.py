"""TOML files of `data/`: read, and checked against the dataclasses that their tables become."""

import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import tomli

from rustimg_lab.errors import LabError, check_keys, kind_of, located

Entry = TypeVar("Entry")
# What no line of a Dockerfile can hold, as a part of a pattern; the last is what is not in UTF-8.
CONTROL = r"\0-\x08\n-\x1f\x7f\x85\u2028\u2029\ud800-\udfff"
# A field's type -> that of its value in TOML.
_FORMS = {
    tuple[str, ...]: list, tuple[int, ...]: list, tuple[tuple[str, ...], ...]: list,
    tuple[tuple[str, str], ...]: dict, str | None: str,
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """Read a file. Raises LabError, with the file's name, when it cannot be read or is no TOML."""
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"{path.name} cannot be read: {error}") from None


def entries(path: Path, kind: str, made: Callable[[str, Any, dict[str, Entry]], Entry]) -> dict[str, Entry]:
    """Make an entry of each table: `made` gets name, table, earlier entries. Raises LabError with file and name."""
    known: dict[str, Entry] = {}
    for name, table in read(path).items():
        with located(f"{path.name}, {kind} '{name}'"):
            known[name] = made(name, table, known)
    return known


def is_line(value: Any) -> bool:
    """Return whether a value is a text of one line, as a Dockerfile can hold it."""
    return isinstance(value, str) and not re.search(f"[{CONTROL}]", value)


def types(kind: type) -> dict[str, tuple[type, ...]]:
    """Return the keys of a table that becomes a dataclass, each with the types that its value may have."""
    return {field.name: (_FORMS.get(field.type, field.type),) for field in fields(kind)}


def tuples(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with tuples for its lists and tables, as a frozen dataclass has them."""
    forms = {list: tuple, dict: lambda value: tuple(value.items())}
    return {key: forms.get(type(value), lambda kept: kept)(value) for key, value in table.items()}


def make(kind: type[Entry], table: Any, where: str = "", **others: Any) -> Entry:
    """Make a frozen dataclass of a table, whose lists and tables become tuples, and of `others`. Raises LabError, with
    `where` before it, on a key that is missing or unknown, and on a value of a wrong type."""
    if not isinstance(table, dict):
        raise LabError(f"{where}is {kind_of(table)}, a table is needed")
    check_keys(table, {key: known for key, known in types(kind).items() if key not in others}, where)
    for field in fields(kind):
        if field.default is MISSING and field.name not in (*table, *others):
            raise LabError(f"{where}has no {field.name}")
    return kind(**tuples(table), **others)
