"""Plots of sizes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rustimg_lab.analysis import cells
from rustimg_lab.model import metrics
from rustimg_lab.model.names import SUBSTITUTE
from rustimg_lab.report.format import MEGABYTE, megabytes
from rustimg_lab.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Plot,
    finish_plot,
    label_axes,
    legend_below,
    rows_below,
    write_beside,
)

OPAQUE = (0.5, 0.25, 0.4)  # boxes of a cell: its parts, and in turn what is in these; names are written on all


def ladder(rungs: pd.DataFrame) -> Plot:
    """Draw the size of each profile on one base, unpacked and compressed, in MB (1e6 bytes). `rungs` is one group of
    `cells.ladder`."""
    names = rungs["profile"] + rungs["unstable"].map({True: " (unstable)"}).fillna("")
    title = f"{rungs['base'].iloc[0]}, allocator {rungs['allocator'].iloc[0]}"
    return transfer(rungs.assign(base=names), Plot(9, 0.45 * len(rungs) + 1.6).subplots(), title)


def by_profile(draw: Callable[[pd.DataFrame, Axes, str], Plot], table: pd.DataFrame) -> Plot:
    """Draw the cells of each profile side by side. `draw` is `then_and_now`, `shares` or `transfer`."""
    profiles = table["profile"].unique()
    figure = Plot(12, 4.2)
    for axes, profile in zip(figure.subplots(1, len(profiles), squeeze=False)[0], profiles, strict=True):
        draw(table[table["profile"] == profile], axes, f"profile {profile}")
    return figure


def then_and_now(table: pd.DataFrame, axes: Axes, title: str) -> Plot:
    """Draw the size of each cell in the article and here, in MB (1e6 bytes) on a logarithmic axis. `table` is one
    profile of `cells.article_grid`."""
    past, today, rows = table["article_bytes"] / MEGABYTE, table[metrics.UNPACKED_BYTES] / MEGABYTE, range(len(table))
    axes.hlines(rows, past, today, color=GREY, linewidth=2, zorder=1)
    axes.scatter(past, rows, 70, facecolor="white", edgecolor=GREY, linewidth=2, zorder=2, label="article, 2021")
    axes.scatter(today, rows, 70, color=BLUE, zorder=3, label="measured here")
    axes.set(xscale="log", xlim=(1, 200), xlabel="image, unpacked, MB (logarithmic)")
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.article_bytes, row, above=11)
        _number(axes, cell.unpacked_bytes, row, cell.reason, above=-13)
    axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.grid(axis="x", color="#E0E0E0", zorder=0)
    return _bases_below(axes, table, title, "image in MB, in the article and measured here", past, today)


def shares(table: pd.DataFrame, axes: Axes, title: str) -> Plot:
    """Draw what the base brings and what the app adds, unpacked, in MB (1e6 bytes), a bar per cell."""
    base, app = table[metrics.BASE_BYTES] / MEGABYTE, table[metrics.APP_BYTES] / MEGABYTE
    rows = range(len(table))
    axes.barh(rows, base, 0.6, color=ORANGE, label="base image")
    axes.barh(rows, app, 0.6, left=base, color=BLUE, label="app: binary, passwd, group, own files")
    axes.set(xlim=(0, _room(table[metrics.UNPACKED_BYTES])), xlabel="image, unpacked, MB")
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row, cell.reason)
    return _bases_below(axes, table, title, "MB of the base image and of the app", base, app)


def transfer(table: pd.DataFrame, axes: Axes, title: str) -> Plot:
    """Draw the unpacked and the compressed size of each cell, in MB (1e6 bytes)."""
    unpacked, compressed = table[metrics.UNPACKED_BYTES] / MEGABYTE, table[metrics.COMPRESSED_BYTES] / MEGABYTE
    rows = np.arange(len(table))
    axes.barh(rows - 0.2, unpacked, 0.36, color=BLUE, label="unpacked")
    axes.barh(rows + 0.2, compressed, 0.36, color=GREEN, label="compressed")
    axes.set(xlim=(0, _room(table[metrics.UNPACKED_BYTES])), xlabel="image, MB")
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row - 0.2, cell.reason)
        _number(axes, cell.compressed_bytes, row + 0.2)
    return _bases_below(axes, table, title, "image in MB, unpacked and compressed", unpacked, compressed)


def icicle(parts: pd.DataFrame, title: str) -> Plot:
    """Draw a cell's image from left to right: above what takes up the space, below the packages and crates of each,
    widest first. `parts` is `cells.composition`."""
    axes = Plot(12, 4.6).subplots()
    colours = {"base image": ORANGE, "binary": BLUE, "other files": GREY}
    axes.set_xlim(0, parts["size_bytes"].sum() / MEGABYTE)
    left = 0.0
    for owner, rows in parts.groupby("owner", sort=False):
        _part(axes, owner, left, rows["size_bytes"].sum(), 1, {"color": colours[owner], "alpha": OPAQUE[0]})
        for place, (name, size) in enumerate(rows.nlargest(len(rows), "size_bytes")[["name", "size_bytes"]].to_numpy()):
            _part(axes, name, left, size, 0, {"color": colours[owner], "alpha": OPAQUE[1 + place % 2]})
            left += size
    largest = parts.nlargest(8, "size_bytes")
    label_axes(axes, title, "the largest parts of the image in MB", largest["name"], largest["size_bytes"] / MEGABYTE)
    axes.set(xlabel="MB, unpacked", yticks=[], ylim=(-0.5, 1.5))
    axes.spines["left"].set_visible(False)
    return finish_plot(axes, title)


def _part(axes: Axes, name: str, left: float, size: float, row: int, fill: dict[str, str | float]) -> None:
    """Draw one box, with its name where the name has room: along the box, or upright in a narrow one."""
    axes.barh(row, size / MEGABYTE, 0.96, left / MEGABYTE, edgecolor="white", linewidth=0.6, **fill)
    share = size / MEGABYTE / axes.get_xlim()[1]
    if share < 0.012:
        return
    text = f"{name}\n{megabytes(size)}" if share > 0.1 else f"{name}  {megabytes(size)}"
    label = {"ha": "center", "va": "center", "fontsize": 8, "clip_on": True, "rotation": 0 if share > 0.1 else 90}
    axes.text((left + size / 2) / MEGABYTE, row, text, **label)


def _bases_below(axes: Axes, table: pd.DataFrame, title: str, description: str, *values: pd.Series) -> Plot:
    """Write the bases' names, from the top down, the legend, and in the label of the axes the values of each base."""
    names = cells.bases_in_words(table)
    label_axes(axes, title, description, names, *values)
    legend_below(axes, 0.16)
    return rows_below(axes, names.str.replace(SUBSTITUTE, f"\n{SUBSTITUTE.strip()}"), title)


def _room(size_bytes: pd.Series) -> float:
    """Return where an axis in MB ends: behind the longest bar and its number, also where there is no bar."""
    return 1.2 * max(size_bytes.fillna(0).max() / MEGABYTE, 1) if len(size_bytes) else 1


def _number(axes: Axes, size_bytes: float, row: float, reason: str = "", above: int = 0) -> None:
    """Write a size beside a bar, or `above` a point (in points of type). A cell without a size keeps its place."""
    if not pd.isna(size_bytes):
        write_beside(axes, megabytes(size_bytes), size_bytes / MEGABYTE, row, (0, above) if above else (4, 0))
    elif reason:
        write_beside(axes, f"no number: {reason[:60]}", axes.get_xlim()[0], row, color="#B00020")
