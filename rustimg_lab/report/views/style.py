"""What the tables of a report have in common: columns in words, intervals, a failed cell with its reason."""

from collections.abc import Callable
from html import escape

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import cells
from rustimg_lab.report.format import MEGABYTE

# Headings: the interval that holds for all comparisons of a table together, and what such a study would have seen.
SIMULTANEOUS, EFFECT = "simultaneous 95% CI", "min. detectable effect"


def intervals(
    table: pd.DataFrame, low: str = "low", high: str = "high", number: Callable[[float], str] = "{:.3f}".format
) -> list[str]:
    """Return the interval of each row as text; "" for NaN. An interval that is open to 0 or to infinity is "at most" or
    "at least" its other end."""

    def interval(a: float, b: float) -> str:
        if pd.isna(a):
            return ""
        if a == 0 or np.isinf(b):
            return f"at most {number(b)}" if a == 0 else f"at least {number(a)}"
        return f"{number(a)} to {number(b)}"

    return list(map(interval, table[low], table[high]))


def factors(table: pd.DataFrame) -> pd.DataFrame:
    """Return the factors of each row of a table of cells in words: columns base, base from, profile, allocator."""
    columns = pd.DataFrame({"base": cells.bases_in_words(table), "base from": table["base_source"]})
    return columns.assign(profile=table["profile"], allocator=cells.allocators_in_words(table))


def known_sizes(table: pd.DataFrame, headings: dict[str, str]) -> pd.DataFrame:
    """Return the columns of bytes in which any row has a number, in MB (1e6 bytes). `headings`: the new name of each
    column."""
    sizes = table[list(headings)].dropna(axis=1, how="all")
    return (sizes.astype(float) / MEGABYTE).rename(columns=headings)


def with_reason(columns: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns with one more for notes on a cell, and one for the reason why a cell has no number. Each is
    added only where `table` has such a text."""
    columns = columns.assign(note=table["note"]) if "note" in table and table["note"].any() else columns
    return columns if table["ok"].all() else columns.assign(**{"no number, because": table["reason"]})


def style(
    table: pd.DataFrame | dict | list[dict], formats: dict[str, str | Callable] | None = None, warning: str = ""
) -> Styler:
    """Return a table (or what makes a DataFrame) as a notebook shows it: no index, all text escaped, the warning in the
    caption. Columns with MB in their name have two decimals unless `formats` says otherwise."""
    frame = pd.DataFrame(table)
    numbers = frame.select_dtypes("number").columns
    megabytes = {name: "{:.2f}" for name in numbers if "MB" in name}
    styler = frame.style.hide().format(megabytes | (formats or {}), na_rep="", escape="html")
    words = [name for name in frame.columns if name not in numbers]
    left = [{"selector": "td, th", "props": "text-align: left"}]
    styler.set_table_styles({name: left for name in words}, overwrite=False)
    return styler.set_caption(f"Note: {escape(warning)}") if warning else styler


def mark_rows(styler: Styler, matters: pd.Series) -> Styler:
    """Return the table with marks on the rows that a page shows first. `matters` has a truth value per row, in the
    order of the rows."""
    first_column = styler.columns[:1]
    return styler.set_td_classes(pd.DataFrame({first_column[0]: matters.map({True: "matters", False: ""}).to_numpy()}))
