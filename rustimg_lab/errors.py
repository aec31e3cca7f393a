"""The one exception that a user sees: what is wrong, where, and what to do next, in one line."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Any

KINDS = {
    str: "a text", bool: "true or false", int: "a number", float: "a number with a point", list: "a list",
    dict: "a table",
}  # fmt: skip
FAILED = "lab: failed: "  # begins the line of a cell or a trial that failed, by which the client of a worker knows it


class LabError(Exception):
    """Shown as `lab: <text>` with exit code 2, never with a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook: the same line."""
        return [f"lab: {self}"]


@contextmanager
def located(location: str | Path) -> Iterator[None]:
    """Prefix the message of a LabError that the block raises with `location` and a colon."""
    try:
        yield
    except LabError as error:
        raise LabError(f"{location}: {error}") from None


def unknown_name(kind: str, name: str, names: Iterable[str]) -> LabError:
    """Return the error for a name that is not known. Its message has the nearest known name, and all known names."""
    names = list(names)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    choices = f"known are {', '.join(names)}" if names else "there is none"
    return LabError(f"unknown {kind} '{name}': {hint}{choices}")


def check_known(kind: str, name: str, names: Collection[str]) -> None:
    """Raise LabError, with the nearest known name, unless `name` is one of `names`."""
    if name not in list(names):  # of a list also what no dictionary could be asked for
        raise unknown_name(kind, name, names)


def check_keys(entries: dict[str, Any], types: dict[str, tuple[type, ...]], prefix: str) -> None:
    """Raise LabError for a key that `types` lacks, with the nearest known key, and for a value of the wrong type.
    `types` has the allowed types by key; `prefix` begins each message."""
    for key, value in entries.items():
        check_known(f"{prefix}key", key, types)
        if not isinstance(value, types[key]) or (isinstance(value, bool) and bool not in types[key]):
            raise LabError(
                f"{prefix}'{key}' is {kind_of(value)}, {' or '.join(KINDS[kind] for kind in types[key])} is needed"
            )


def kind_of(value: Any) -> str:
    """Return the type of a TOML value in words, such as "a text" for a string."""
    return KINDS.get(type(value), "a date or a time")


TEXT, TRUTH = "text", "True or False"
NUMBER, FRACTION = "a finite number at or above 0", "a fraction from 0 to 1"
COUNT, NAMES, FOLDER = "a whole number above 0", "names: a list, or text with commas", "the path of a folder"


def check_values(kind: str, /, **values: object) -> None:
    """Raise LabError, with the value's name, for a value that is not of `kind`: TEXT, TRUTH, NUMBER, FRACTION, COUNT,
    NAMES or FOLDER."""
    for name, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        fits = {
            TEXT: isinstance(value, str), TRUTH: isinstance(value, bool),
            NUMBER: is_number and 0 <= value < inf, FRACTION: is_number and 0 <= value <= 1,
            COUNT: is_number and isinstance(value, Integral) and value > 0, FOLDER: isinstance(value, str | Path),
            NAMES: isinstance(value, Iterable) and not isinstance(value, bytes),
        }  # fmt: skip
        if not fits[kind]:
            raise LabError(f"{name} is {value!r}: it must be {kind}")


def text_or_reason(make: Callable[..., str], *arguments: str) -> str:
    """Return the text that `make(*arguments)` returns for a file. If `make` raises LabError, return its message as a
    comment (`# ...`) instead, as for a run of another lab."""
    try:
        return make(*arguments)
    except LabError as error:
        return f"# {error}\n"
