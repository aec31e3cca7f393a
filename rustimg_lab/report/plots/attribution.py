"""Plots of the contribution of each factor, and of predictions."""

import pandas as pd

from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.report import views
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.plots.style import BLUE, GREY, ORANGE, Plot, finish_plot, label_axes, write_beside


def waterfall(shares: pd.DataFrame) -> Plot:
    """Draw a bar for each factor's contribution with its 95% interval, from the start's value to the target's. The
    largest reduction comes first. `shares` is `attribution.shares`."""
    metric, attrs = shares.attrs["quantity"], shares.attrs
    axes = Plot(9, 0.42 * len(shares) + 1.9).subplots()
    unit, divisor = metric.shown_unit, metric.divisor
    ends = [attrs["from"], *(attrs["from"] + shares["share"].cumsum())]
    names = views.attribution.factor_settings(shares)
    start, target = (cell_in_words(attrs[name], attrs) for name in ("start", "target"))
    rows = range(1, len(shares) + 1)
    for row, value in ((0, attrs["from"]), (len(shares) + 1, attrs["to"])):
        axes.barh(row, value / divisor, 0.6, color=GREY, zorder=2)
        write_beside(axes, metric.in_words(value), value / divisor, row)
    for row, bar, before, after in zip(rows, shares.itertuples(), ends[:-1], ends[1:], strict=True):
        colour = GREY if bar.verdict == Verdict.NO_DIFFERENCE else BLUE if bar.share < 0 else ORANGE
        axes.barh(row, bar.share / divisor, 0.6, before / divisor, color=colour, zorder=2)
        axes.plot([after / divisor] * 2, [row - 0.3, row + 1.3], color="#606060", linewidth=0.8, zorder=1)
        right = max(before, after)
        if not pd.isna(bar.low):
            low, high = (before + value for value in (bar.low, bar.high))
            axes.plot([low / divisor, high / divisor], [row] * 2, color="black", linewidth=1.5, zorder=3)
            right = max(right, high)
        write_beside(axes, f"{metric.signed(bar.share)}  ({bar.of_whole:.1%})", right / divisor, row)
    axes.set_yticks(range(len(shares) + 2), [start, *names, target])
    axes.set(xlim=(0, 1.22 * max(ends) / divisor), ylim=(len(shares) + 1.6, -0.6), xlabel=f"{metric.phrase}, {unit}")
    first_value, last_value = (metric.in_words(attrs[name]) for name in ("from", "to"))
    description = f"from {start}, {first_value}, to {target}, {last_value}; contributions in {unit}"
    label_axes(axes, metric.phrase, description, names, shares["share"] / divisor)
    return finish_plot(axes, metric.phrase, grid="x")


def predictions(scores: pd.DataFrame) -> Plot:
    """Draw the error of each prediction (percent) with its 95% interval, by the measured size (MB). `scores` is
    `factorials.score`."""
    axes = Plot(9, 4).subplots()
    ordered = scores.sort_values("measured", ignore_index=True)
    x = ordered["measured"] / MEGABYTE
    low, high, error = (100 * (ordered[name] / ordered["measured"] - 1) for name in ("low", "high", "predicted"))
    colours = ordered["inside"].map({True: BLUE, False: "#D55E00"})
    axes.vlines(x, low, high, color=colours, linewidth=1.2, alpha=0.7, zorder=2)
    axes.scatter(x, error, 22, color=colours, zorder=3)
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    axes.set(xlabel="measured, MB", ylabel="predicted against measured, %")
    summary = f"{len(scores)} cells held out, {int(scores['inside'].sum())} inside their 95% prediction interval; "
    summary += f"median error {scores['error'].abs().median():.1%}"
    title = "predicted without having been measured, with 95% prediction intervals"
    axes.set_label(f"{title}. {summary}.")
    return finish_plot(axes, title, grid="both")
