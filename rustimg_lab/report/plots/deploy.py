"""Plots of deploys."""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import deploy
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.report.plots.style import SCALE, Plot, draw_map, finish_plot, label_axes, legend_below, logarithmic


def deploys(table: pd.DataFrame, model: pd.DataFrame, has: str) -> Plot:
    """Draw the seconds until the first byte by bandwidth, both logarithmic, for a machine that has `has` of an image. A
    point with its 95% interval was measured, a ring was held out, and a line is the model. `table` is `deploy.times`,
    `model` `deploy.model`."""
    axes = Plot(9, 5).subplots()
    rows, models = table[table["has"] == has], model[model["has"] == has].set_index("cell")
    line = np.geomspace(rows["bandwidth_mbit"].min(), rows["bandwidth_mbit"].max(), 60)
    for number, (cell, cell_rows) in enumerate(rows.groupby("cell", sort=False)):
        colour, marker = (SCALE[number % len(SCALE)], "os^D"[number // len(SCALE) % 4])
        if cell in models.index:
            axes.plot(line, deploy.seconds_at(models.loc[cell], line), color=colour, linewidth=1.2)
        axes.vlines(cell_rows["bandwidth_mbit"], cell_rows["low"], cell_rows["high"], color=colour, linewidth=2)
        is_held_out = cell_rows["bandwidth_mbit"] == model.attrs["held_out"]
        fitted, held_out = cell_rows[~is_held_out], cell_rows[is_held_out]
        name = cell_in_words(cell, table.attrs)
        axes.scatter(fitted["bandwidth_mbit"], fitted["seconds"], 36, color=colour, zorder=3, marker=marker, label=name)
        ring = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.6, "marker": marker}
        axes.scatter(held_out["bandwidth_mbit"], held_out["seconds"], 44, zorder=3, **ring)
    logarithmic(axes)
    axes.set(xlabel="bandwidth, Mbit/s (logarithmic)", ylabel="until the first byte, s (logarithmic)")
    names = [f"{cell_in_words(row.cell, table.attrs)} at {row.bandwidth_mbit:,}" for row in rows.itertuples()]
    description = "s until the first byte, by cell and Mbit/s, with its 95% interval"
    title = f"a machine that has {has}"
    label_axes(axes, title, description, names, rows["seconds"], rows["low"], rows["high"])
    legend_below(axes)
    return finish_plot(axes, title, grid="both")


def soonest(table: pd.DataFrame) -> Plot:
    """Draw the cell with which so many services answer soonest, by bandwidth (Mbit/s) and number of services, both
    logarithmic. The machine had nothing before; the seconds are those of `deploy.service_seconds`. `table` is
    `deploy.complete_models`."""
    axes = Plot(9, 5).subplots()
    bandwidth, services = np.meshgrid(np.logspace(0, 4, 121), np.logspace(0, 3, 101))
    cost = deploy.service_seconds(table, bandwidth, services)
    cost = cost.rename(columns=lambda cell: cell_in_words(cell, table.attrs))
    axes.set(xlabel="bandwidth, Mbit/s", ylabel="services on the machine")
    draw_map(axes, bandwidth, services, cost, "whose services all answer first, on a machine that had nothing")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    return axes.figure
