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
def located(where: str | Path) -> Iterator[None]:
    """Put `where` before what a LabError says in the block."""
    try:
        yield
    except LabError as error:
        raise LabError(f"{where}: {error}") from None


def unknown(kind: str, name: str, known: Iterable[str]) -> LabError:
    """The error for a name that is not there, with the nearest one that is."""
    known = list(known)
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    there = f"known are {', '.join(known)}" if known else "there is none"
    return LabError(f"unknown {kind} '{name}': {hint}{there}")


def check_known(kind: str, name: str, known: Collection[str]) -> None:
    """Raises LabError, with the nearest name that is known, for one that is not."""
    if name not in list(known):  # of a list also what no dictionary could be asked for
        raise unknown(kind, name, known)


def check_keys(entries: dict[str, Any], known: dict[str, tuple[type, ...]], where: str) -> None:
    """Raises LabError for an unknown key, with the nearest one, and for a value of a type not in `known`."""
    for key, value in entries.items():
        check_known(f"{where}key", key, known)
        if not isinstance(value, known[key]) or (isinstance(value, bool) and bool not in known[key]):
            raise LabError(
                f"{where}'{key}' is {kind_of(value)}, {' or '.join(KINDS[each] for each in known[key])} is needed"
            )


def kind_of(value: Any) -> str:
    """Return what a value of TOML is, in words."""
    return KINDS.get(type(value), "a date or a time")


TEXT, TRUTH = "text", "True or False"
NUMBER, FRACTION = "a finite number at or above 0", "a fraction from 0 to 1"
COUNT, NAMES, FOLDER = "a whole number above 0", "names: a list, or text with commas", "the path of a folder"


def check_values(kind: str, /, **values: object) -> None:
    """Raises LabError for a value, by its name, that is not what `kind` says: one of these."""
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


def or_why_not(make: Callable[..., str], *arguments: str) -> str:
    """Return a file's text that `make` gives, or a comment that says why there is none, as for a run of another lab."""
    try:
        return make(*arguments)
    except LabError as error:
        return f"# {error}\n"
