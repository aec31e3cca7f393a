"""The one exception that a user sees: what is wrong, where, and what to do next, in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class LabError(Exception):
    """Shown as `lab: <text>` with exit code 2, never with a traceback."""


def unknown(kind: str, name: str, known: Iterable[str]) -> LabError:
    """The error for a name that is not there, with the nearest one that is."""
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return LabError(f"unknown {kind} '{name}': {hint}known are {', '.join(known)}")
