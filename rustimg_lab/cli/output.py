"""What is printed: the console, failures, rows that could not be read, and where the report is."""

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from rustimg_lab.cli import as_called
from rustimg_lab.errors import FAILED, LabError
from rustimg_lab.paths import ROOT, WORKER

if TYPE_CHECKING:
    from rustimg_lab.store.runs import RunData

SHOWN_BROKEN = 10  # rows that cannot be read, and are told one by one
console = Console(width=None if sys.stdout.isatty() else 120)


def say(text: str) -> None:
    """Print a line of the lab's own."""
    print(f"lab: {as_called(text)}")


def load(run: str) -> "RunData":
    """Return a run; print the first rows that cannot be read. Raises LabError as `runs.load`, and where none can."""
    from rustimg_lab.store import runs

    data = runs.load(run)
    if data.broken and data.rows.empty:
        raise LabError(f"no row of run '{run}' can be read: {data.broken[0].removesuffix('; left out')}")
    more = len(data.broken) - SHOWN_BROKEN
    rest = [f"{more:,} more rows of run '{run}' cannot be read; left out"] if more > 0 else []
    for line in (*data.broken[:SHOWN_BROKEN], *rest):
        print(f"lab: {line}", file=sys.stderr)
    return data


def exit_code(failures: list[str]) -> int:
    """Print every failure; return the exit code."""
    for line in failures:
        print(f"{FAILED}{line}", file=sys.stderr)
    return 1 if failures else 0


def make_report(names: str, form: str = "html") -> None:
    """Print the short tables of each run, write the page of all (html, pdf or md) and print where it is."""
    from rustimg_lab.report import sections, terminal

    for run in sections.names(names):
        for notebook, parameters in sections.parts(load(run)):
            if sections.SECTIONS[notebook].summary:
                console.print(terminal.summary(run, notebook, parameters))
    written = sections.kept_page(names) if form == "html" else None
    if not written:
        from rustimg_lab.report import publish  # half a second

        written = publish.whole(names, form, say)
    print(f"report: {written.relative_to(ROOT)}")


def ended(run: str, failures: list[str]) -> int:
    """Write the report (a worker's client does), print every failure last, even without one; return the exit code."""
    try:
        if WORKER not in os.environ:
            make_report(run)
    finally:
        code = exit_code(failures)
    return code
