"""Plots of deploys."""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import deploy
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.report.plots.style import SCALE, Plot, draw_map, legend_below, logarithmic, tell, titled


def deploys(table: pd.DataFrame, found: pd.DataFrame, has: str) -> Plot:
    """Time until the first byte by bandwidth, both logarithmic: points with 95% intervals, rings for what was held out,
    the model as a line. `table` is `deploy.times`, `found` `deploy.model`, `has` what the machine had."""
    axes = Plot(9, 5).subplots()
    own, models = table[table["has"] == has], found[found["has"] == has].set_index("cell")
    line = np.geomspace(own["bandwidth_mbit"].min(), own["bandwidth_mbit"].max(), 60)
    for number, (cell, each) in enumerate(own.groupby("cell", sort=False)):
        colour, marker = (SCALE[number % len(SCALE)], "os^D"[number // len(SCALE) % 4])
        if cell in models.index:
            axes.plot(line, deploy.at(models.loc[cell], line), color=colour, linewidth=1.2)
        axes.vlines(each["bandwidth_mbit"], each["low"], each["high"], color=colour, linewidth=2)
        held = each["bandwidth_mbit"] == found.attrs["held_out"]
        fitted, held_out = each[~held], each[held]
        name = cell_in_words(cell, table.attrs)
        axes.scatter(fitted["bandwidth_mbit"], fitted["seconds"], 36, color=colour, zorder=3, marker=marker, label=name)
        ring = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.6, "marker": marker}
        axes.scatter(held_out["bandwidth_mbit"], held_out["seconds"], 44, zorder=3, **ring)
    logarithmic(axes)
    axes.set(xlabel="bandwidth, Mbit/s (logarithmic)", ylabel="until the first byte, s (logarithmic)")
    names = [f"{cell_in_words(each.cell, table.attrs)} at {each.bandwidth_mbit:,}" for each in own.itertuples()]
    what = "s until the first byte, by cell and Mbit/s, with its 95% interval"
    title = f"a machine that has {has}"
    tell(axes, title, what, names, own["seconds"], own["low"], own["high"])
    legend_below(axes)
    return titled(axes, title, grid="both")


def soonest(found: pd.DataFrame) -> Plot:
    """The cell whose services all answer first, by bandwidth and number. `found` is `deploy.shared`."""
    axes = Plot(9, 5).subplots()
    bandwidth, services = np.meshgrid(np.logspace(0, 4, 121), np.logspace(0, 3, 101))
    cost = deploy.seconds(found, bandwidth, services)
    cost = cost.rename(columns=lambda cell: cell_in_words(cell, found.attrs))
    axes.set(xlabel="bandwidth, Mbit/s", ylabel="services on the machine")
    draw_map(axes, bandwidth, services, cost, "whose services all answer first, on a machine that had nothing")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    return axes.figure
