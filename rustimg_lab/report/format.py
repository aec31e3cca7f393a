"""Numbers and texts as a reader sees them."""

import re
from collections.abc import Container
from html import escape

import pandas as pd

from rustimg_lab.analysis import comparison


def number(value: float) -> str:
    """Four significant digits or more, never with an exponent; "" for none."""
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def plain(text: str) -> str:
    """A text of a run, which may come from a stranger, as Markdown that shows it and does nothing else."""
    shown = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\[\]`|])", r"\\\1", shown)


def in_markdown(header: list[str], lines: list[list[str]], numbers: Container[int]) -> str:
    """A table of text as Markdown; `numbers` are the places of the columns that have those."""
    ruler = ["---:" if place in numbers else "---" for place in range(len(header))]
    shown = [list(map(plain, header)), ruler, *(list(map(plain, line)) for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in shown)


MEGABYTE = 1e6
TOO_FEW = "too few blocks to say anything"
SENTINEL = "Report complete"  # what the last cell of a notebook prints: papermill alone may call a dead kernel done


def megabytes(size_bytes: float | None) -> str:
    """Bytes as MB of 1e6 bytes with three significant digits; "" for none."""
    return "" if pd.isna(size_bytes) else f"{size_bytes / 1e6:#.3g}".rstrip(".")


def mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f}"


def detectable_in_words(ratio: float) -> str:
    """The minimum detectable effect, a ratio above 1, as a reader sees it; "" for none."""
    if pd.isna(ratio):
        return ""
    return f"over {comparison.HUGE_RATIO}" if ratio > comparison.HUGE_RATIO else f"{ratio:.2f}"
