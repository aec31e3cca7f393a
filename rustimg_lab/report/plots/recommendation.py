"""Plots of the cells to choose from: the Pareto front, the break-even map."""

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

from rustimg_lab.analysis import recommendation
from rustimg_lab.model import metrics
from rustimg_lab.report.plots.style import (
    BLUE,
    ORANGE,
    Plot,
    draw_map,
    finish_plot,
    label_axes,
    legend_below,
    logarithmic,
    write_names,
)

_SURE = 0.8  # of the draws, or the map is pale


def front(choice: recommendation.Choice, across: str, up: str) -> Plot:
    """Draw the cells by two of `metrics.CRITERIA`. Filled cells are on the Pareto front of all criteria, paler where
    that is less sure. A ring marks the selected cell."""
    axes = Plot(9, 5).subplots()
    table = choice.table[choice.table[[across, up]].notna().all(axis=1)]
    criteria = [metrics.CRITERIA[name] for name in (across, up)]
    points = table[[across, up]].to_numpy() / [criterion.divisor for criterion in criteria]
    shares = table["front_share"].where(table["front_share"].notna(), table["on_front"].astype(float))
    for cell, (x, y), share in zip(table.index, points, shares, strict=True):
        axes.scatter([x], [y], 60, facecolor="white", edgecolor=BLUE, zorder=3)
        axes.scatter([x], [y], 60, facecolor=BLUE, alpha=share, linewidth=0, zorder=3)
        if cell == choice.picked:
            axes.scatter([x], [y], 220, facecolor="none", edgecolor=ORANGE, linewidth=2.5, zorder=2, label="selected")
    axes.scatter([], [], 60, facecolor=BLUE, edgecolor=BLUE, label="on the Pareto front (paler: less sure)")
    axes.scatter([], [], 60, facecolor="white", edgecolor=BLUE, label="not on it, or not measured in all")
    logarithmic(axes)
    xlabel, ylabel = (f"{criterion.phrase}, {criterion.shown_unit} (logarithmic)" for criterion in criteria)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.18)
    names = [choice.name(cell) for cell in table.index]
    title = f"{criteria[1].phrase} against {criteria[0].phrase}"
    on_front = [f"{cell} ({shares[cell]:.0%} of draws)" for cell in table.index[table["on_front"].astype(bool)]]
    description = f"{title}; on the Pareto front: {', '.join(on_front)}"
    description += f"; selected: {choice.picked}" if choice.picked else ""
    label_axes(axes, description, f"{xlabel} and {ylabel}", names, *points.T)
    legend_below(axes, columns=3)
    finish_plot(axes, title, grid="both")
    write_names(axes, names, points)
    return axes.figure


def break_even(choice: recommendation.Choice, deploy_s: pd.DataFrame, bandwidth_mbit: float) -> Plot:
    """Draw which cell takes the fewest seconds a day, by deploys and requests a day, both logarithmic; pale where that
    is not sure. `deploy_s` is `recommendation.deploy_seconds` at that bandwidth."""
    requests, deploys = np.meshgrid(np.logspace(1, 9, 141), np.logspace(0, 6, 121))
    seconds = recommendation.daily_seconds(choice.table, deploy_s["mean"], deploys, requests)
    axes = Plot(9, 5.6).subplots()
    axes.set(xlabel="requests per day", ylabel="deploys per day")
    how = "compressed size / bandwidth" if deploy_s.attrs["lacking"] else "deploy model"
    title = f"Cell with the fewest seconds per day at {bandwidth_mbit:g} Mbit/s (deploy time: {how})"
    draw_map(axes, requests, deploys, seconds.rename(columns=choice.name), title)
    sure = recommendation.map_sureness(choice, deploy_s, deploys.ravel(), requests.ravel()).reshape(requests.shape)
    if not np.isnan(sure).any():
        pale = np.ma.masked_greater_equal(sure, _SURE)
        axes.pcolormesh(requests, deploys, pale, cmap=ListedColormap(["white"]), alpha=0.6, rasterized=True)
        unsure = f"in under {_SURE:.0%} of draws"
        axes.scatter([], [], 80, marker="s", facecolor="white", edgecolor="grey", label=f"pale: {unsure}")
        legend_below(axes)
        axes.set_label(f"{axes.get_label()} {(sure < _SURE).mean():.0%} of the map is decided {unsure}.")
    return axes.figure
