"""Numbers and texts as a reader sees them."""

import re
from collections.abc import Container
from html import escape

import pandas as pd

from rustimg_lab.analysis import comparison


def number(value: float) -> str:
    """Return a number as text: a whole number with commas from 1000 on, else up to four significant digits; "" for
    NaN."""
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def plain(text: str) -> str:
    """Return a text of a run as Markdown that shows the characters and has no effect. The run may come from a
    stranger."""
    escaped = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\[\]`|])", r"\\\1", escaped)


def in_markdown(header: list[str], lines: list[list[str]], numbers: Container[int]) -> str:
    """Return a table of text as Markdown. `numbers` has the places (from 0) of the columns that are aligned to the
    right."""
    ruler = ["---:" if place in numbers else "---" for place in range(len(header))]
    rows = [list(map(plain, header)), ruler, *(list(map(plain, line)) for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in rows)


MEGABYTE = 1e6
TOO_FEW = "too few blocks to say anything"
SENTINEL = "Report complete"  # what the last cell of a notebook prints: papermill alone may call a dead kernel done


def three_digits(value: float | None) -> str:
    """Return a number with three significant digits, a whole one from 1,000 on; "" for none."""
    if pd.isna(value):
        return ""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def megabytes(size_bytes: float | None) -> str:
    """Return bytes as MB of 1e6 bytes, written as `three_digits` does; "" for none."""
    return "" if pd.isna(size_bytes) else three_digits(size_bytes / MEGABYTE)


def mb(size_bytes: float) -> str:
    return f"{size_bytes / MEGABYTE:.2f}"


def detectable_in_words(ratio: float) -> str:
    """Return a minimum detectable effect (a ratio above 1) with two decimals; "" for NaN. A ratio above
    `comparison.HUGE_RATIO` is only called "over" that limit."""
    if pd.isna(ratio):
        return ""
    return f"over {comparison.HUGE_RATIO}" if ratio > comparison.HUGE_RATIO else f"{ratio:.2f}"
