"""Short tables of a run, for the terminal and as Markdown."""

import textwrap
from collections.abc import Container

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rustimg_lab.model import studies
from rustimg_lab.report import format, sections
from rustimg_lab.store import runs

_HEADING = 15  # characters in a line of a heading over numbers that stay whole; a long one takes the room of the cell


def summary(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> Table:
    """The table in a terminal that says in short what a notebook says."""
    short = sections.SECTIONS[notebook].summary(runs.load(run), **(parameters or {}))
    title = "; ".join(filter(None, [short.title, short.note]))
    return _terminal(title, short.lines[0], short.lines[1:], short.numbers, no_wrap=True)


def of_frame(title: str, shown: pd.DataFrame) -> Table:
    """The table in a terminal of what is text, as `views.regression.changed_sizes`."""
    numbers = [place for place, name in enumerate(shown) if name not in ("cell", "of", "verdict")]
    return _terminal(title, list(shown), shown.to_numpy().tolist(), numbers)


def _terminal(
    title: str, header: list[str], lines: list[list[str]], numbers: Container[int], no_wrap: bool = False
) -> Table:
    """Text as a table in a terminal; columns with numbers to the right, and in one line where `no_wrap` says so."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(header):
        justify, whole = ("right", no_wrap) if place in numbers else ("left", False)
        heading = textwrap.fill(name, _HEADING) if whole else name
        table.add_column(escape(heading), justify=justify, no_wrap=whole, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def markdown(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> str:
    """The table of `summary` in Markdown, with what a reader must know of it below."""
    short = sections.SECTIONS[notebook].summary(runs.load(run), **(parameters or {}))
    note = f"\nNote: {format.plain(short.note)}.\n" if short.note else ""
    return format.in_markdown(short.lines[0], short.lines[1:], short.numbers) + note
