"""What is printed: the console, failures, rows that could not be read."""

import sys

from rich.console import Console

from rustimg_lab.store import runs
from rustimg_lab.store.runs import RunData

console = Console(width=None if sys.stdout.isatty() else 120)


def load(run: str) -> RunData:
    """The run of a name; of its rows those that cannot be read are told."""
    data = runs.load(run)
    for line in data.broken:
        print(f"lab: {line}", file=sys.stderr)
    return data


def exit_code(failures: list[str]) -> int:
    """The exit code, after every failure has been told."""
    for line in failures:
        print(f"lab: failed: {line}", file=sys.stderr)
    return 1 if failures else 0
