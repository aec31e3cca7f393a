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
    """Return the short table of a notebook on a run, for a terminal. Raises LabError when the run is unknown."""
    short = sections.SECTIONS[notebook].summary(runs.load(run), **(parameters or {}))
    title = "; ".join(filter(None, [short.title, short.note]))
    return _terminal(title, short.lines[0], short.lines[1:], short.numbers, no_wrap=True)


def of_frame(title: str, frame: pd.DataFrame) -> Table:
    """Return text, such as `views.regression.changed_sizes`, as a table for a terminal."""
    numbers = [place for place, name in enumerate(frame) if name not in ("cell", "of", "verdict")]
    return _terminal(title, list(frame), frame.to_numpy().tolist(), numbers)


def _terminal(
    title: str, header: list[str], lines: list[list[str]], numbers: Container[int], no_wrap: bool = False
) -> Table:
    """Return text as a table in a terminal. Columns with numbers are aligned to the right, and with `no_wrap` stay in
    one line."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(header):
        justify, is_whole = ("right", no_wrap) if place in numbers else ("left", False)
        heading = textwrap.fill(name, _HEADING) if is_whole else name
        table.add_column(escape(heading), justify=justify, no_wrap=is_whole, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def markdown(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> str:
    """Return the short table of a notebook on a run as Markdown, with what a reader must know of it below. Raises
    LabError when the run is unknown."""
    short = sections.SECTIONS[notebook].summary(runs.load(run), **(parameters or {}))
    note = f"\nNote: {format.plain(short.note)}.\n" if short.note else ""
    return format.in_markdown(short.lines[0], short.lines[1:], short.numbers) + note
