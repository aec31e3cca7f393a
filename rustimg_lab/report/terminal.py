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

_LEAST = 10  # characters that a heading, or a verdict, has at least in a line


def summary(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> Table:
    """Return the short table of a notebook on a run, for a terminal. Raises LabError when the run is unknown."""
    short = sections.SECTIONS[notebook].summary(runs.load(run), **(parameters or {}))
    title = "; ".join(filter(None, [short.title, short.note]))
    return _terminal(title, short.lines[0], short.lines[1:], short.numbers)


def of_frame(title: str, frame: pd.DataFrame) -> Table:
    """Return text, such as `views.regression.changed_sizes`, as a table for a terminal."""
    numbers = [place for place, name in enumerate(frame) if name not in ("cell", "of", "verdict")]
    return _terminal(title, list(frame), frame.to_numpy().tolist(), numbers)


def _terminal(title: str, header: list[str], lines: list[list[str]], numbers: Container[int]) -> Table:
    """Return text as a table in a terminal. Columns with numbers are aligned to the right. These and names of cells
    stay in one line, also where the table is wider than the terminal: a number that is cut off is another."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(header):
        width = max([_LEAST, *(len(line[place]) for line in lines)])
        if place in numbers:
            heading = textwrap.fill(name, width, break_long_words=False)
            width = max(map(len, [*heading.split("\n"), *(line[place] for line in lines)]))
            table.add_column(escape(heading), justify="right", min_width=width)
        else:
            table.add_column(escape(name), min_width=width if name == "cell" else _LEAST, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def markdown(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> str:
    """Return the short table of a notebook on a run as Markdown, with what a reader must know of it below. Raises
    LabError when the run is unknown."""
    short = sections.SECTIONS[notebook].summary(runs.load(run), **(parameters or {}))
    note = f"\nNote: {format.plain(short.note)}.\n" if short.note else ""
    return format.in_markdown(short.lines[0], short.lines[1:], short.numbers) + note
