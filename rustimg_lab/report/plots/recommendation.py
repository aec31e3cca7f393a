"""Plots of the cells to choose from: the Pareto front, the break-even map."""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import recommendation
from rustimg_lab.model import metrics
from rustimg_lab.report.plots.style import (
    BLUE,
    ORANGE,
    Plot,
    draw_map,
    legend_below,
    logarithmic,
    tell,
    titled,
    write_names,
)


def front(found: recommendation.Choice, across: str, up: str) -> Plot:
    """The cells by two of `metrics.CRITERIA`; filled: on the Pareto front of all criteria; ringed: the one picked."""
    axes = Plot(9, 5).subplots()
    table = found.table[found.table[[across, up]].notna().all(axis=1)]
    criteria = [metrics.CRITERIA[name] for name in (across, up)]
    points = table[[across, up]].to_numpy() / [each.divisor for each in criteria]
    for cell, (x, y), on_front in zip(table.index, points, table["on_front"], strict=True):
        axes.scatter([x], [y], 60, facecolor=BLUE if on_front else "white", edgecolor=BLUE, zorder=3)
        if cell == found.picked:
            axes.scatter([x], [y], 220, facecolor="none", edgecolor=ORANGE, linewidth=2.5, zorder=2, label="picked")
    axes.scatter([], [], 60, facecolor=BLUE, edgecolor=BLUE, label="on the Pareto front")
    axes.scatter([], [], 60, facecolor="white", edgecolor=BLUE, label="not on it, or not measured in all")
    logarithmic(axes)
    xlabel, ylabel = (f"{each.phrase}, {each.shown_unit} (logarithmic)" for each in criteria)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.18)
    names = [found.name(cell) for cell in table.index]
    write_names(axes, names, points)
    title = f"{criteria[1].phrase} against {criteria[0].phrase}"
    told = f"{title}; on the Pareto front: {', '.join(table.index[table['on_front'].astype(bool)])}"
    told += f"; picked: {found.picked}" if found.picked else ""
    tell(axes, told, f"{xlabel} and {ylabel}", names, *points.T)
    legend_below(axes, columns=3)
    return titled(axes, title, grid="both")


def break_even(found: recommendation.Choice, deploy_s: pd.DataFrame, bandwidth_mbit: float) -> Plot:
    """Which cell takes the fewest seconds a day, by deploys and requests a day, both logarithmic; of
    `recommendation.daily_seconds`. `deploy_s` is `recommendation.deploy_seconds` at that bandwidth."""
    requests, deploys = np.meshgrid(np.logspace(1, 9, 141), np.logspace(0, 6, 121))
    seconds = recommendation.daily_seconds(found.table, deploy_s["mean"], deploys, requests)
    axes = Plot(9, 5.6).subplots()
    axes.set(xlabel="requests per day", ylabel="deploys per day")
    how = "compressed size / bandwidth" if deploy_s.attrs["lacking"] else "deploy model"
    title = f"Cell with the fewest seconds per day at {bandwidth_mbit:g} Mbit/s (deploy time: {how})"
    return draw_map(axes, requests, deploys, seconds.rename(columns=found.name), title)
