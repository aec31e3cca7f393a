"""Plots of the contribution of each factor, and of predictions."""

import pandas as pd

from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.report import views
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.plots.style import BLUE, GREY, ORANGE, Plot, tell, titled, write_beside


def waterfall(found: pd.DataFrame) -> Plot:
    """From start to target, a bar per contribution with its 95% interval. `found` is `attribution.shares`."""
    about, of_all = found.attrs["quantity"], found.attrs
    axes = Plot(9, 0.42 * len(found) + 1.9).subplots()
    unit, divisor = about.shown_unit, about.divisor
    ends = [of_all["from"], *(of_all["from"] + found["share"].cumsum())]
    names = views.attribution.turned(found)
    start, target = (cell_in_words(of_all[name], of_all) for name in ("start", "target"))
    rows = range(1, len(found) + 1)
    for row, value in ((0, of_all["from"]), (len(found) + 1, of_all["to"])):
        axes.barh(row, value / divisor, 0.6, color=GREY, zorder=2)
        write_beside(axes, about.in_words(value), value / divisor, row)
    for row, each, before, after in zip(rows, found.itertuples(), ends[:-1], ends[1:], strict=True):
        colour = GREY if each.verdict == Verdict.NO_DIFFERENCE else BLUE if each.share < 0 else ORANGE
        axes.barh(row, each.share / divisor, 0.6, before / divisor, color=colour, zorder=2)
        axes.plot([after / divisor] * 2, [row - 0.3, row + 1.3], color="#606060", linewidth=0.8, zorder=1)
        right = max(before, after)
        if not pd.isna(each.low):
            low, high = (before + value for value in (each.low, each.high))
            axes.plot([low / divisor, high / divisor], [row] * 2, color="black", linewidth=1.5, zorder=3)
            right = max(right, high)
        write_beside(axes, f"{about.signed(each.share)}  ({each.of_whole:.1%})", right / divisor, row)
    axes.set_yticks(range(len(found) + 2), [start, *names, target])
    axes.set(xlim=(0, 1.22 * max(ends) / divisor), ylim=(len(found) + 1.6, -0.6), xlabel=f"{about.phrase}, {unit}")
    first, last = (about.in_words(of_all[name]) for name in ("from", "to"))
    what = f"from {start}, {first}, to {target}, {last}; contributions in {unit}"
    tell(axes, about.phrase, what, names, found["share"] / divisor)
    return titled(axes, about.phrase, grid="x")


def predictions(found: pd.DataFrame) -> Plot:
    """The error of each prediction with its 95% interval, by measured size. `found` is `factorials.score`."""
    axes = Plot(9, 4).subplots()
    ordered = found.sort_values("measured", ignore_index=True)
    x = ordered["measured"] / MEGABYTE
    low, high, error = (100 * (ordered[name] / ordered["measured"] - 1) for name in ("low", "high", "predicted"))
    colours = ordered["inside"].map({True: BLUE, False: "#D55E00"})
    axes.vlines(x, low, high, color=colours, linewidth=1.2, alpha=0.7, zorder=2)
    axes.scatter(x, error, 22, color=colours, zorder=3)
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    axes.set(xlabel="measured, MB", ylabel="predicted against measured, %")
    told = f"{len(found)} cells held out, {int(found['inside'].sum())} inside their 95% prediction interval; "
    told += f"median error {found['error'].abs().median():.1%}"
    title = "predicted without having been measured, with 95% prediction intervals"
    axes.set_label(f"{title}. {told}.")
    return titled(axes, title, grid="both")
