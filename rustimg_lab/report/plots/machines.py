"""Plots of ratios on several machines."""

import re

import numpy as np
import pandas as pd

from rustimg_lab.analysis.machines import ALL, ANOTHER, MACHINE
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.report.plots.style import BLUE, ORANGE, Plot, label_axes, ratio_ticks, rows_below
from rustimg_lab.report.views.machines import end, places
from rustimg_lab.report.views.style import intervals

_COLOURS = {MACHINE: BLUE, ALL: "black", ANOTHER: ORANGE}
_BEYOND = 1.6  # times the farthest interval of a machine: where the axis ends, and a wider interval has an arrow


def forest(table: pd.DataFrame, cell: str) -> Plot:
    """Draw the ratio of a cell on each machine, then of all machines combined, with 95% intervals. Last comes the
    prediction interval of a machine that was not measured. An arrow marks an interval that is wider than the plot.
    `table` is what `machines.combine` returns."""
    rows = table[table["cell"] == cell].reset_index(drop=True)
    machine_rows = rows[rows["level"] == MACHINE]
    axes = Plot(7.5, 0.5 * len(rows) + 1.3).subplots()
    low, high = min(1, machine_rows["low"].min()) / _BEYOND, max(1, machine_rows["high"].max()) * _BEYOND
    axes.axvline(1, color="black", linewidth=0.8, zorder=1)
    for row, (estimate, ends) in enumerate(zip(rows.itertuples(), intervals(rows, number=end), strict=True)):
        colour = _COLOURS[estimate.level]
        axes.plot(np.clip([estimate.low, estimate.high], low, high), [row] * 2, color=colour, linewidth=3, zorder=2)
        for limit, marker in ((estimate.low, "<"), (estimate.high, ">")):
            if not low <= limit <= high:
                axes.scatter(
                    [np.clip(limit, low, high)], [row], 60, color=colour, marker=marker, zorder=4, clip_on=False
                )
        if estimate.level != ANOTHER:
            marker = "D" if estimate.level == ALL else "o"
            axes.scatter([estimate.ratio], [row], 44, color=colour, marker=marker, edgecolor="white", zorder=5)
        text = ends if estimate.level == ANOTHER else f"{estimate.ratio:.2f}  ({ends})"
        axes.annotate(text, (1.04, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    metric = table.attrs["metric"]
    label = f"{metric.phrase or metric}, as a ratio to {table.attrs['baseline']}"
    axes.set(xscale="log", xlim=(low, high), xlabel=label)
    ratio_ticks(axes)
    title = f"{cell_in_words(cell, table.attrs)} on several machines"
    label_axes(axes, title, f"{label}, with its 95% interval", places(rows), rows["ratio"], rows["low"], rows["high"])
    return rows_below(axes, [re.sub(r"[,]? (?=\(|predicted)", "\n", place) for place in places(rows)], title, grid="x")
