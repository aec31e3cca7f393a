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
    """Read a TOML file. Raises LabError, with the file's name, when it cannot be read or is not TOML."""
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"{path.name} cannot be read: {error}") from None


def entries(path: Path, kind: str, factory: Callable[[str, Any, dict[str, Entry]], Entry]) -> dict[str, Entry]:
    """Make an object of each table in a TOML file, by name. `factory` gets the name, the table, and the objects made so
    far. Raises LabError, with the file and the name, where an object cannot be made."""
    objects: dict[str, Entry] = {}
    for name, table in read(path).items():
        with located(f"{path.name}, {kind} '{name}'"):
            objects[name] = factory(name, table, objects)
    return objects


def is_line(value: Any) -> bool:
    """Return whether a value is a text of one line, as a Dockerfile can hold it."""
    return isinstance(value, str) and not re.search(f"[{CONTROL}]", value)


def types(kind: type) -> dict[str, tuple[type, ...]]:
    """Return the keys of a table that becomes a dataclass, each with the types that its value may have."""
    return {field.name: (_FORMS.get(field.type, field.type),) for field in fields(kind)}


def freeze(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with tuples in place of its lists and tables, as a frozen dataclass has them."""
    forms = {list: tuple, dict: lambda value: tuple(value.items())}
    return {key: forms.get(type(value), lambda item: item)(value) for key, value in table.items()}


def make(kind: type[Entry], table: Any, prefix: str = "", **values: Any) -> Entry:
    """Make a frozen dataclass of `values` and of a table, whose lists and tables become tuples. Raises LabError,
    beginning with `prefix`, for a key that is missing or unknown, and for a value of a wrong type."""
    if not isinstance(table, dict):
        raise LabError(f"{prefix}is {kind_of(table)}, a table is needed")
    check_keys(table, {key: value_types for key, value_types in types(kind).items() if key not in values}, prefix)
    for field in fields(kind):
        if field.default is MISSING and field.name not in (*table, *values):
            raise LabError(f"{prefix}has no {field.name}")
    return kind(**freeze(table), **values)
