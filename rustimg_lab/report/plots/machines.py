"""Plots of ratios on several machines."""

import re

import numpy as np
import pandas as pd

from rustimg_lab.analysis.machines import ALL, ANOTHER, MACHINE
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.report.plots.style import BLUE, ORANGE, Plot, ratio_ticks, rows_below, tell
from rustimg_lab.report.views.machines import end, places
from rustimg_lab.report.views.style import intervals

_COLOURS = {MACHINE: BLUE, ALL: "black", ANOTHER: ORANGE}
_BEYOND = 1.6  # times the farthest interval of a machine: where the axis ends, and a wider interval has an arrow


def forest(found: pd.DataFrame, cell: str) -> Plot:
    """A cell's ratio on each machine with its 95% interval, all combined, and the prediction interval of another one;
    an arrow marks an interval wider than the plot. `found` is what `machines.combine` returns."""
    own = found[found["cell"] == cell].reset_index(drop=True)
    measured = own[own["level"] == MACHINE]
    axes = Plot(7.5, 0.5 * len(own) + 1.3).subplots()
    low, high = min(1, measured["low"].min()) / _BEYOND, max(1, measured["high"].max()) * _BEYOND
    axes.axvline(1, color="black", linewidth=0.8, zorder=1)
    for row, (each, ends) in enumerate(zip(own.itertuples(), intervals(own, number=end), strict=True)):
        colour = _COLOURS[each.level]
        axes.plot(np.clip([each.low, each.high], low, high), [row] * 2, color=colour, linewidth=3, zorder=2)
        for limit, marker in ((each.low, "<"), (each.high, ">")):
            if not low <= limit <= high:
                axes.scatter(
                    [np.clip(limit, low, high)], [row], 60, color=colour, marker=marker, zorder=4, clip_on=False
                )
        if each.level != ANOTHER:
            marker = "D" if each.level == ALL else "o"
            axes.scatter([each.ratio], [row], 44, color=colour, marker=marker, edgecolor="white", zorder=5)
        text = ends if each.level == ANOTHER else f"{each.ratio:.2f}  ({ends})"
        axes.annotate(text, (1.04, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    about = found.attrs["metric"]
    label = f"{about.phrase or about}, as a ratio to {found.attrs['baseline']}"
    axes.set(xscale="log", xlim=(low, high), xlabel=label)
    ratio_ticks(axes)
    title = f"{cell_in_words(cell, found.attrs)} on several machines"
    tell(axes, title, f"{label}, with its 95% interval", places(own), own["ratio"], own["low"], own["high"])
    return rows_below(axes, [re.sub(r"[,]? (?=\(|predicted)", "\n", place) for place in places(own)], title, grid="x")
