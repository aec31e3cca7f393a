"""What is printed: the console, failures, rows that could not be read, and where the report is."""

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from rustimg_lab.cli import as_called
from rustimg_lab.errors import FAILED, LabError
from rustimg_lab.paths import ROOT, WORKER

if TYPE_CHECKING:
    from rich.table import Table

    from rustimg_lab.store.runs import RunData

SHOWN_BROKEN = 10  # rows that cannot be read, and are told one by one
console = Console(width=None if sys.stdout.isatty() else 120)


def say(text: str) -> None:
    """Print a line with `lab: ` before it."""
    print(f"lab: {as_called(text)}")


def load(run: str) -> "RunData":
    """Return a run, and print a line for each of the first rows that cannot be read. Raises LabError when the run is
    unknown, or when no row can be read."""
    from rustimg_lab.store import runs

    data = runs.load(run)
    if data.broken and data.rows.empty:
        raise LabError(f"no row of run '{run}' can be read: {data.broken[0].removesuffix('; left out')}")
    more = len(data.broken) - SHOWN_BROKEN
    summary = [f"{more:,} more rows of run '{run}' cannot be read; left out"] if more > 0 else []
    for line in (*data.broken[:SHOWN_BROKEN], *summary):
        print(f"lab: {line}", file=sys.stderr)
    return data


def print_table(table: "Table") -> None:
    """Print a table whole, also where it is wider than the terminal."""
    console.print(table, crop=False)


def exit_code(failures: list[str]) -> int:
    """Print every failure to standard error. Return the exit code: 1 when there is a failure, else 0."""
    for line in failures:
        print(f"{FAILED}{line}", file=sys.stderr)
    return 1 if failures else 0


def make_report(names: str, form: str = "html") -> None:
    """Print the short tables of each run, write the page of all (html, pdf or md) and print its path."""
    from rustimg_lab.report import sections, terminal

    for run in sections.names(names):
        for notebook, parameters in sections.parts(load(run)):
            if sections.SECTIONS[notebook].summary:
                print_table(terminal.summary(run, notebook, parameters))
    page = sections.find_page(names) if form == "html" else None
    if not page:
        from rustimg_lab.report import publish  # half a second

        page = publish.write_page(names, form, say)
    print(f"report: {page.relative_to(ROOT)}")


def finish(run: str, failures: list[str]) -> int:
    """Write the report, and print every failure last, also when the report cannot be made. Return the exit code. When a
    Dask worker calls, the client makes the report."""
    try:
        if WORKER not in os.environ:
            make_report(run)
    finally:
        code = exit_code(failures)
    return code
