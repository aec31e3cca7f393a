"""Plots of trials and of ratios."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rustimg_lab.analysis import comparison
from rustimg_lab.model.names import TWIN, cell_in_words
from rustimg_lab.report.format import three_digits
from rustimg_lab.report.plots.style import (
    BLUE,
    GREY,
    Plot,
    cells_below,
    label_axes,
    legend_below,
    ratio_ticks,
    write_beside,
)


def trials(samples: pd.DataFrame, label: str, title: str, axes: Axes | None = None) -> Plot:
    """Draw every trial as a point, and per cell the geometric mean with its 95% interval. `samples` is
    `comparison.samples`. `axes`: those of a larger plot (default: a plot of its own)."""
    axes = axes or Plot(9, 0.62 * samples["cell"].nunique() + 1.4).subplots()
    summary = comparison.summarize(samples)
    for row, cell in enumerate(summary.itertuples()):
        values = samples.loc[samples["cell"] == cell.cell, "value"]
        spread = row + 0.16 * (5 * np.arange(len(values)) % 7 - 3) / 3  # so that none hides another
        colour = GREY if cell.cell.endswith(TWIN) else BLUE
        axes.scatter(values, spread, 12, color=colour, alpha=0.45, linewidth=0, zorder=2)
        axes.plot([cell.low, cell.high], [row + 0.32] * 2, color="black", linewidth=1.5, zorder=3)
        axes.scatter([cell.mean], [row + 0.32], 26, color="black", zorder=4)
        write_beside(axes, three_digits(cell.mean), cell.mean, row + 0.32, (0, -9))
    axes.set(xlim=(0, 1.08 * samples["value"].max()), xlabel=label)
    ends = summary["mean"], summary["low"], summary["high"]
    label_axes(axes, title, f"{label}, mean with its 95% interval", comparison.names(summary), *ends)
    return cells_below(axes, summary, title)


def ratios(table: pd.DataFrame, label: str, title: str) -> Plot:
    """Draw each cell's ratio to the baseline with its intervals, and the verdict. `table` is what `comparison.compare`
    returns, `label` what is compared.

    The thick line is the 95% interval of this ratio alone, the thin line the simultaneous 95% CI. The band is as wide
    as the interval of the A/A control.
    """
    axes = Plot(9, 0.5 * len(table) + 1.6).subplots()
    label = f"{label}, as a ratio to {table.attrs['baseline']}"
    rows = table[table["ratio"].notna()]
    low = max(min([0.95, *rows.loc[rows["low_all"] > 0, "low_all"], *rows["ratio"]]) / 1.08, 0.02)
    high = min(max([1.05, *rows.loc[np.isfinite(rows["high_all"]), "high_all"], *rows["ratio"]]) * 1.08, 50)
    control = table.attrs["control"]
    if control < high:
        axes.axvspan(1 / control, control, color="#E0E0E0", linewidth=0, zorder=0, label="interval of the A/A control")
        legend_below(axes, 0.2, columns=1)
    axes.axvline(1, color="black", linewidth=0.8, zorder=1)
    for row, cell in enumerate(table.itertuples()):
        if cell.ratio > 0:
            colour = GREY if cell.is_twin else BLUE
            for ends, width in (((cell.low_all, cell.high_all), 1.2), ((cell.low, cell.high), 4)):
                axes.plot(np.clip(ends, low, high), [row] * 2, color=colour, linewidth=width, zorder=2)
            axes.scatter([cell.ratio], [row], 34, color=colour, edgecolor="white", zorder=4)
        text = f"{cell.ratio:.2f}  {cell.verdict}" if cell.ratio > 0 else cell.verdict
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set(xscale="log", xlim=(low, high), xlabel=label)
    ratio_ticks(axes)
    names = [f"{cell_in_words(cell.cell, table.attrs)}, {cell.verdict}," for cell in table.itertuples()]
    label_axes(axes, title, f"{label}, with its 95% interval", names, table["ratio"], table["low"], table["high"])
    return cells_below(axes, table, title)
