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
    found: pd.DataFrame, low: str = "low", high: str = "high", number: Callable[[float], str] = "{:.3f}".format
) -> list[str]:
    """An interval of each row as text; "" for none. One that is open to 0 or to infinity is "at most", "at least"."""

    def told(a: float, b: float) -> str:
        if pd.isna(a):
            return ""
        if a == 0 or np.isinf(b):
            return f"at most {number(b)}" if a == 0 else f"at least {number(a)}"
        return f"{number(a)} to {number(b)}"

    return list(map(told, found[low], found[high]))


def factors(table: pd.DataFrame) -> pd.DataFrame:
    """What each row of a table of cells is of."""
    shown = pd.DataFrame({"base": cells.bases_in_words(table), "base from": table["base_source"]})
    return shown.assign(profile=table["profile"], allocator=cells.allocators_in_words(table))


def known_sizes(table: pd.DataFrame, headings: dict[str, str]) -> pd.DataFrame:
    """The columns of bytes in which any row has a number, in MB under their headings."""
    known = table[list(headings)].dropna(axis=1, how="all")
    return (known.astype(float) / MEGABYTE).rename(columns=headings)


def with_reason(shown: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Columns for what is to know of a cell, and for why one has no number, where there is such."""
    shown = shown.assign(note=table["note"]) if "note" in table and table["note"].any() else shown
    return shown if table["ok"].all() else shown.assign(**{"no number, because": table["reason"]})


def style(
    table: pd.DataFrame | dict | list[dict], formats: dict[str, str | Callable] | None = None, warning: str = ""
) -> Styler:
    """A table as a notebook shows it: no index, MB with two decimals unless `formats` says otherwise, text escaped."""
    shown = pd.DataFrame(table)
    numbers = shown.select_dtypes("number").columns
    megabytes = {name: "{:.2f}" for name in numbers if "MB" in name}
    styler = shown.style.hide().format(megabytes | (formats or {}), na_rep="", escape="html")
    words = [name for name in shown.columns if name not in numbers]
    left = [{"selector": "td, th", "props": "text-align: left"}]
    styler.set_table_styles({name: left for name in words}, overwrite=False)
    return styler.set_caption(f"Note: {escape(warning)}") if warning else styler


def marked(styler: Styler, matters: pd.Series) -> Styler:
    """The same table, with the rows marked that a page shows first, by a column of truth values in their order."""
    first = styler.columns[:1]
    return styler.set_td_classes(pd.DataFrame({first[0]: matters.map({True: "matters", False: ""}).to_numpy()}))
