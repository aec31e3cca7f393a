"""TOML files of `data/`: read, and checked against the dataclasses that their tables become."""

import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from rustimg_lab.errors import LabError, check_keys

Entry = TypeVar("Entry")
_FORMS = {tuple[str, ...]: list, tuple[tuple[str, str], ...]: dict}  # a field's type -> that of its value in TOML


def read(path: Path) -> dict[str, Any]:
    """Read a file. Raises LabError, with the file's name, when it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path.name} cannot be read: {error}") from None


def make(kind: type[Entry], table: Any, where: str = "", **others: Any) -> Entry:
    """Make a frozen dataclass of a table, whose lists and tables become tuples, and of `others`. Raises LabError, with
    `where` before it, on a key that is missing or unknown, and on a value of a wrong type."""
    own = [field for field in fields(kind) if field.name not in others]
    for field in own:
        if field.default is MISSING and not (isinstance(table, dict) and isinstance(table.get(field.name), str)):
            raise LabError(f"{where}has no {field.name}")
    check_keys(table, {field.name: (_FORMS.get(field.type, field.type),) for field in own}, where)
    tuples = {list: tuple, dict: lambda value: tuple(value.items())}
    return kind(**{key: tuples.get(type(value), lambda kept: kept)(value) for key, value in table.items()}, **others)
