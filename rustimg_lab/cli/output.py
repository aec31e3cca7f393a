"""What is printed: the console, failures, rows that could not be read."""

import sys

import pandas as pd
from rich.console import Console

from rustimg_lab.store import runs

console = Console(width=None if sys.stdout.isatty() else 120)


def load_rows(run: str) -> pd.DataFrame:
    """The rows of a run; those that cannot be read are told."""
    rows = runs.load(run)
    for line in rows.attrs["broken"]:
        print(f"lab: {line}", file=sys.stderr)
    return rows


def exit_code(failures: list[str]) -> int:
    """The exit code, after every failure has been told."""
    for line in failures:
        print(f"lab: failed: {line}", file=sys.stderr)
    return 1 if failures else 0
