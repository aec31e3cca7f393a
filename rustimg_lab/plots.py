"""(DataFrame, Axes) -> Axes. Colours are Okabe and Ito's, which colour-blind readers can tell apart.

Each writes as the label of its axes what it shows, in words, for those who cannot see it; `show` hands that on.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from rustimg_lab import attribution, choice, comparison, deployment, stats
from rustimg_lab.survival import FAILED, PASSED

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#9A9A9A"
SCALE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", GREY)
MEGABYTE = 1e6
_MISSING = "no number: "
_WIDE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50)  # ticks of ratios
_NARROW = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4)


def show(figure: Figure) -> None:
    """Displays a figure in a notebook, with what its plots say as the text for those who cannot see it."""
    display(figure, metadata={"image/png": {"alt": " ".join(axes.get_label() for axes in figure.axes)}})
    pyplot.close(figure)  # or it would be displayed again at the end of the cell


def then_and_now(table: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """The article's size and ours, per cell, on a logarithmic axis. `table` is `stats.article_grid`, one profile."""
    then, now, rows = table["article_bytes"] / MEGABYTE, table["unpacked_bytes"] / MEGABYTE, range(len(table))
    axes.hlines(rows, then, now, color=GREY, linewidth=2, zorder=1)
    axes.scatter(then, rows, 70, facecolor="white", edgecolor=GREY, linewidth=2, zorder=2, label="article, 2021")
    axes.scatter(now, rows, 70, color=BLUE, zorder=3, label="measured here")
    axes.set_xscale("log")
    axes.set_xlim(1, 200)
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.article_bytes, row, above=11)
        _number(axes, cell.unpacked_bytes, row, cell.reason, above=-13)
    axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.grid(axis="x", color="#E0E0E0", zorder=0)
    axes.set_xlabel("image, unpacked, MB (logarithmic)")
    _tell(axes, title, "image in MB, in the article and measured here", stats.bases_in_words(table), then, now)
    return _finish(axes, table, title)


def shares(table: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """What the base brings and what the app adds, unpacked, per cell."""
    base, app = table["base_bytes"] / MEGABYTE, table["app_bytes"] / MEGABYTE
    rows = range(len(table))
    axes.barh(rows, base, 0.6, color=ORANGE, label="base image")
    axes.barh(rows, app, 0.6, left=base, color=BLUE, label="app: binary, passwd, group")
    axes.set_xlim(0, _room(table["unpacked_bytes"]))
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row, cell.reason)
    axes.set_xlabel("image, unpacked, MB")
    _tell(axes, title, "MB of the base image and of the app", stats.bases_in_words(table), base, app)
    return _finish(axes, table, title)


def transfer(table: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """Bytes on disk against bytes over the network, per cell."""
    rows = range(len(table))
    column, label = "compressed_bytes", "compressed"
    axes.barh([row - 0.2 for row in rows], table["unpacked_bytes"] / MEGABYTE, 0.36, color=BLUE, label="unpacked")
    axes.barh([row + 0.2 for row in rows], table[column] / MEGABYTE, 0.36, color=GREEN, label=label)
    axes.set_xlim(0, _room(table["unpacked_bytes"]))
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row - 0.2, cell.reason)
        _number(axes, getattr(cell, column), row + 0.2)
    axes.set_xlabel("image, MB")
    sizes = table["unpacked_bytes"] / MEGABYTE, table[column] / MEGABYTE
    _tell(axes, title, f"image in MB, unpacked and {label}", stats.bases_in_words(table), *sizes)
    return _finish(axes, table, title)


def ladder(found: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """Bytes on disk and over the network of each profile on one base. `found` is of `stats.ladder`."""
    names = found["profile"] + found["unstable"].map({True: " (unstable)"}).fillna("")
    return transfer(found.assign(base=names), axes, title)


def icicle(parts: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """A cell's image from left to right: above whose bytes they are, below the packages and crates of each, widest
    first. `parts` is `stats.composition`."""
    colours = {"base image": ORANGE, "binary": BLUE, "other files": GREY}
    whole = parts["size_bytes"].sum()
    left = 0.0
    for owner, own in parts.groupby("owner", sort=False):
        _part(axes, owner, left, own["size_bytes"].sum(), whole, 1, colours[owner], 0.8)
        for number, (name, size) in enumerate(own.nlargest(len(own), "size_bytes")[["name", "size_bytes"]].to_numpy()):
            _part(axes, name, left, size, whole, 0, colours[owner], 0.6 if number % 2 else 0.4)
            left += size
    largest = parts.nlargest(8, "size_bytes")
    _tell(axes, title, "the largest parts of the image in MB", largest["name"], largest["size_bytes"] / MEGABYTE)
    axes.set_xlim(0, whole / MEGABYTE)
    axes.set_ylim(-0.5, 1.5)
    axes.set_yticks([])
    axes.set_xlabel("MB, unpacked")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return axes


def _part(
    axes: Axes, name: str, left: float, size: float, whole: float, row: int, colour: str, strength: float
) -> None:
    """One box, with its name where that has room: along it, or upright in a narrow one."""
    axes.barh(
        row, size / MEGABYTE, 0.96, left / MEGABYTE, color=colour, alpha=strength, edgecolor="white", linewidth=0.6
    )
    share = size / whole
    if share < 0.012:
        return
    text = f"{name}\n{size / MEGABYTE:#.3g}" if share > 0.1 else f"{name}  {size / MEGABYTE:#.3g}"
    axes.text(
        (left + size / 2) / MEGABYTE, row, text, ha="center", va="center", fontsize=8, clip_on=True,
        rotation=0 if share > 0.1 else 90,
    )  # fmt: skip


def front(found: choice.Choice, axes: Axes, across: str, up: str, title: str) -> Axes:
    """The cells by two of `choice.CRITERIA`; filled: on the Pareto front of all criteria; ringed: the one picked."""
    table = found.table[found.table[[across, up]].notna().all(axis=1)]
    attrs = {"stand_ins": set(table.loc[table["stand_in"], "base"])}
    for cell in table.itertuples():
        x, y = (getattr(cell, name) / choice.CRITERIA[name].divisor for name in (across, up))
        axes.scatter([x], [y], 60, facecolor=BLUE if cell.on_front else "white", edgecolor=BLUE, zorder=3)
        if cell.Index == found.picked:
            axes.scatter([x], [y], 220, facecolor="none", edgecolor=ORANGE, linewidth=2.5, zorder=2, label="picked")
    axes.scatter([], [], 60, facecolor=BLUE, edgecolor=BLUE, label="on the Pareto front")
    axes.scatter([], [], 60, facecolor="white", edgecolor=BLUE, label="not on it, or not measured in all")
    _logarithmic(axes)
    for name, axis in ((across, axes.xaxis), (up, axes.yaxis)):
        unit = choice.CRITERIA[name].shown.rpartition(" ")[2]
        axis.set_label_text(f"{choice.CRITERIA[name].label}, {unit} (logarithmic)")
    axes.margins(0.18)
    units = [choice.CRITERIA[name].divisor for name in (across, up)]
    names = [comparison.in_words(cell, attrs) for cell in table.index]
    _names(axes, names, table[[across, up]].to_numpy() / units)
    picked = f"; picked: {found.picked}" if found.picked else ""
    on_front = f"; on the Pareto front: {', '.join(table.index[table['on_front'].astype(bool)])}{picked}"
    what = f"{axes.get_xlabel()} and {axes.get_ylabel()}"
    _tell(axes, title + on_front, what, names, table[across] / units[0], table[up] / units[1])
    axes.grid(color="#E8E8E8", zorder=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    return axes


def _logarithmic(axes: Axes) -> None:
    """Both axes, with plain numbers at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter("{x:g}")


def _names(axes: Axes, names: list[str], points: np.ndarray) -> None:
    """Writes a name beside each point (x, y), where it hides none that is there already, as far as there is such a
    place."""
    at = axes.transData.transform(points) * 72 / axes.figure.dpi  # in points of type
    edge = axes.transAxes.transform((0, 0))[0] * 72 / axes.figure.dpi
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    for name, point, (x, y) in zip(names, points, at, strict=True):
        width, height = 3.9 * len(name), 8
        places = [
            (7, 5),
            (7, -12),
            (-7 - width, 5),
            (-7 - width, -12),
            (7, 16),
            (7, -23),
            (-width / 2, 13),
            (-width / 2, -20),
        ]
        boxes = [(x + right, y + above, x + right + width, y + above + height) for right, above in places]
        free = [
            a[0] > edge and not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken)
            for a in boxes
        ]
        chosen = free.index(True) if any(free) else 0
        taken.append(boxes[chosen])
        axes.annotate(name, point, places[chosen], textcoords="offset points", fontsize=7)


def break_even(table: pd.DataFrame, axes: Axes, prices: dict[str, float]) -> Axes:
    """Which cell costs the least a day, by pulls and requests a day, both logarithmic; of `choice.daily_cost`."""
    title = f"cheapest cell a day, at {prices['gb']:g} per GB sent, {prices['cpu_hour']:g} per hour of a CPU, "
    title += f"{prices['gb_hour']:g} per hour of a GB of memory"
    requests, pulls = np.meshgrid(np.logspace(3, 10, 141), np.logspace(0, 6, 121))
    cost = choice.daily_cost(table, pulls, requests, prices)
    cost.attrs = {"stand_ins": set(table.loc[table["stand_in"], "base"])}
    axes.set_xlabel("requests a day")
    axes.set_ylabel("pulls a day")
    return _map(axes, requests, pulls, cost, title)


def deploys(table: pd.DataFrame, found: pd.DataFrame, axes: Axes, has: str, title: str) -> Axes:
    """Time until the first byte by bandwidth, both logarithmic: a point for what was measured, with its 95% interval, a
    ring for what was held out, and the model as a line. `table` is `deployment.times`, `found` `deployment.model`."""
    own, models = table[table["has"] == has], found[found["has"] == has].set_index("cell")
    line = np.geomspace(own["bandwidth_mbit"].min(), own["bandwidth_mbit"].max(), 60)
    for number, (cell, each) in enumerate(own.groupby("cell", sort=False)):
        colour, marker = SCALE[number % len(SCALE)], "os^D"[number // len(SCALE) % 4]
        if cell in models.index:
            axes.plot(line, deployment.at(models.loc[cell], line), color=colour, linewidth=1.2)
        axes.vlines(each["bandwidth_mbit"], each["low"], each["high"], color=colour, linewidth=2)
        held = each["bandwidth_mbit"] == found.attrs["held_out"]
        axes.scatter(each.loc[~held, "bandwidth_mbit"], each.loc[~held, "seconds"], 36, color=colour, zorder=3,
                     marker=marker, label=comparison.in_words(cell, table.attrs))  # fmt: skip
        axes.scatter(each.loc[held, "bandwidth_mbit"], each.loc[held, "seconds"], 44, facecolor="white", marker=marker,
                     edgecolor=colour, linewidth=1.6, zorder=3)  # fmt: skip
    _logarithmic(axes)
    axes.set_xlabel("bandwidth, Mbit/s (logarithmic)")
    axes.set_ylabel("until the first byte, s (logarithmic)")
    names = [f"{comparison.in_words(each.cell, table.attrs)} at {each.bandwidth_mbit:,}" for each in own.itertuples()]
    _tell(axes, title, "s until the first byte, by cell and Mbit/s, with its 95% interval", names, own["seconds"],
          own["low"], own["high"])  # fmt: skip
    axes.grid(color="#E8E8E8", zorder=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return axes


def soonest(found: pd.DataFrame, axes: Axes) -> Axes:
    """Which cell has all of so many services answer first on a machine that had nothing, by bandwidth, both
    logarithmic; of `deployment.seconds`. `found` is `deployment.shared`."""
    bandwidth, services = np.meshgrid(np.logspace(0, 4, 121), np.logspace(0, 3, 101))
    cost = deployment.seconds(found, bandwidth, services)
    cost.attrs = dict(found.attrs)
    axes.set_xlabel("bandwidth, Mbit/s")
    axes.set_ylabel("services on the machine")
    _map(axes, bandwidth, services, cost, "whose services all answer first, on a machine that had nothing")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    return axes


def _map(axes: Axes, x: np.ndarray, y: np.ndarray, cost: pd.DataFrame, title: str) -> Axes:
    """Which column of `cost` is the least at each point, both axes logarithmic."""
    cheapest = cost.to_numpy().argmin(axis=1).reshape(x.shape)
    shown = np.unique(cheapest)
    colours = [SCALE[number % len(SCALE)] for number in range(len(shown))]
    axes.pcolormesh(x, y, np.searchsorted(shown, cheapest), cmap=ListedColormap(colours), vmin=-0.5,
                    vmax=len(shown) - 0.5, rasterized=True)  # fmt: skip
    names = [comparison.in_words(cost.columns[number], cost.attrs) for number in shown]
    for name, colour in zip(names, colours, strict=True):
        axes.scatter([], [], 80, marker="s", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=11)
    shares = [100 * (cheapest == number).mean() for number in shown]
    what = f"percent of the map by {axes.get_xlabel()} and {axes.get_ylabel()}, both logarithmic"
    _tell(axes, title, what, names, shares)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return axes


def trials(samples: pd.DataFrame, axes: Axes, label: str, title: str) -> Axes:
    """Every trial as a point, and per cell the geometric mean with its 95% interval, of `comparison.samples`."""
    summary = comparison.summarize(samples)
    for row, cell in enumerate(summary.itertuples()):
        values = samples.loc[samples["cell"] == cell.cell, "value"]
        spread = [
            row + 0.16 * ((5 * number) % 7 - 3) / 3 for number in range(len(values))
        ]  # so that none hides another
        colour = GREY if cell.cell.endswith(comparison.TWIN) else BLUE
        axes.scatter(values, spread, 12, color=colour, alpha=0.45, linewidth=0, zorder=2)
        axes.plot([cell.low, cell.high], [row + 0.32] * 2, color="black", linewidth=1.5, zorder=3)
        axes.scatter([cell.mean], [row + 0.32], 26, color="black", zorder=4)
        axes.annotate(f"{cell.mean:#.3g}".rstrip("."), (cell.mean, row + 0.32), (0, -9), textcoords="offset points",
                      ha="center", va="center", fontsize=8)  # fmt: skip
    axes.set_xlim(0, 1.08 * samples["value"].max())
    axes.set_xlabel(label)
    names = [comparison.in_words(cell, summary.attrs) for cell in summary["cell"]]
    _tell(axes, title, f"{label}, mean with its 95% interval", names, summary["mean"], summary["low"], summary["high"])
    return _cells_below(axes, summary, title)


def ratios(found: pd.DataFrame, axes: Axes, label: str, title: str) -> Axes:
    """Each cell's ratio to the baseline with its intervals, and the verdict. `found` is what `comparison.compare` is.

    The thick line is the 95% interval of this ratio alone, the thin one holds for all at once; the band is the noise
    floor, by which the same image differs from itself.
    """
    known = found[found["pairs"] > 1]
    low = max(min([0.95, *known["low_all"]]) / 1.08, 0.02)
    high = min(max([1.05, *known["high_all"]]) * 1.08, 50)
    floor = found.attrs["floor"]
    if floor < high:
        axes.axvspan(1 / floor, floor, color="#E0E0E0", linewidth=0, zorder=0, label="noise floor (A/A twin)")
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    axes.axvline(1, color="black", linewidth=0.8, zorder=1)
    for row, cell in enumerate(found.itertuples()):
        if cell.pairs > 1:
            colour = GREY if cell.is_twin else BLUE
            axes.plot([cell.low_all, cell.high_all], [row] * 2, color=colour, linewidth=1.2, zorder=2)
            axes.plot([cell.low, cell.high], [row] * 2, color=colour, linewidth=4, zorder=3)
            axes.scatter([cell.ratio], [row], 34, color=colour, edgecolor="white", zorder=4)
        text = f"{cell.ratio:.2f}  {cell.verdict}" if cell.pairs > 1 else cell.verdict
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    wide, narrow = ([tick for tick in ticks if low < tick < high] for ticks in (_WIDE, _NARROW))
    ticks = wide if len(wide) > 2 else narrow
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    names = [f"{comparison.in_words(cell.cell, found.attrs)}, {cell.verdict}," for cell in found.itertuples()]
    _tell(axes, title, f"{label}, with its 95% interval", names, found["ratio"], found["low"], found["high"])
    return _cells_below(axes, found, title)


def survival(outcomes: pd.DataFrame, names: dict[str, str], axes: Axes, title: str) -> Axes:
    """Every probe against every cell: passed, failed or not applicable, by mark and by colour. `outcomes` is
    `survival.matrix`, `names` the cells as a reader sees them."""
    marks = {PASSED: ("\u2713", "white", "#00684E"), FAILED: ("\u2717", "#D55E00", "white"), "": ("?", "white", GREY)}
    for row, probe in enumerate(outcomes.index):
        for column, cell in enumerate(outcomes.columns):
            mark, fill, ink = marks.get(outcomes.loc[probe, cell], ("\u2013", "#F0F0F0", "#606060"))
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=fill, edgecolor="#D0D0D0", linewidth=0.6)
            )
            axes.text(column, row, mark, ha="center", va="center", color=ink, fontsize=9, fontweight="bold")
    axes.set_xlim(-0.5, len(outcomes.columns) - 0.5)
    axes.set_ylim(len(outcomes) - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(
        range(len(outcomes.columns)),
        [names[cell].replace(" with ", "\n  with ") for cell in outcomes.columns],
        rotation=55,
        rotation_mode="anchor",
        ha="left",
        fontsize=8,
    )
    axes.set_yticks(range(len(outcomes)), outcomes.index, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{title}\n\u2713 passed   \u2717 failed   \u2013 not applicable   ? could not be made", fontsize=9)
    failed = {cell: outcomes.index[outcomes[cell] == FAILED] for cell in outcomes.columns}
    said = "; ".join(f"{names[cell]} fails {', '.join(each) or 'none'}" for cell, each in failed.items())
    axes.set_label(f"{title}. {len(outcomes)} probes: {said}.")
    return axes


def waterfall(found: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """From the start's value to the target's, a bar for each knob's share with its 95% interval, the largest first.
    `found` is `attribution.shares`."""
    about, of_all = found.attrs["quantity"], found.attrs
    unit, divisor = about.shown.rpartition(" ")[2], about.divisor
    ends = [of_all["from"], *(of_all["from"] + found["share"].cumsum())]
    names = attribution.turned(found)
    start, target = (comparison.in_words(of_all[name], of_all) for name in ("start", "target"))
    rows = range(1, len(found) + 1)
    for row, value in ((0, of_all["from"]), (len(found) + 1, of_all["to"])):
        axes.barh(row, value / divisor, 0.6, color=GREY, zorder=2)
        axes.annotate(about.shown.format(value / divisor), (value / divisor, row), (4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    for row, each, before, after in zip(rows, found.itertuples(), ends[:-1], ends[1:], strict=True):
        colour = GREY if each.verdict == comparison.NO_DIFFERENCE else BLUE if each.share < 0 else ORANGE
        axes.barh(row, each.share / divisor, 0.6, before / divisor, color=colour, zorder=2)
        axes.plot([after / divisor] * 2, [row - 0.3, row + 1.3], color="#606060", linewidth=0.8, zorder=1)
        right = max(before, after)
        if not pd.isna(each.low):
            low, high = (before + value for value in (each.low, each.high))
            axes.plot([low / divisor, high / divisor], [row] * 2, color="black", linewidth=1.5, zorder=3)
            right = max(right, high)
        axes.annotate(f"{attribution.signed(about, each.share)}  ({each.of_whole:.1%})", (right / divisor, row), (4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(found) + 2), [start, *names, target])
    axes.set_ylim(len(found) + 1.6, -0.6)
    axes.set_xlim(0, 1.22 * max(ends) / divisor)
    axes.set_xlabel(f"{about.label}, {unit}")
    first, last = (about.shown.format(of_all[name] / divisor) for name in ("from", "to"))
    what = f"from {start}, {first}, to {target}, {last}; shares in {unit}"
    _tell(axes, title, what, names, found["share"] / divisor)
    axes.grid(axis="x", color="#E8E8E8", zorder=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def predictions(found: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """The error of each prediction with its 95% interval, by the size that was measured. `found` is
    `attribution.score`."""
    ordered = found.sort_values("measured", ignore_index=True)
    x = ordered["measured"] / MEGABYTE
    low, high, error = (100 * (ordered[name] / ordered["measured"] - 1) for name in ("low", "high", "predicted"))
    colours = ordered["inside"].map({True: BLUE, False: "#D55E00"})
    axes.vlines(x, low, high, color=colours, linewidth=1.2, alpha=0.7, zorder=2)
    axes.scatter(x, error, 22, color=colours, zorder=3)
    axes.axhline(0, color="black", linewidth=0.8, zorder=1)
    axes.set_xlabel("measured, MB")
    axes.set_ylabel("predicted against measured, %")
    told = f"{len(found)} cells held out, {int(found['inside'].sum())} inside their 95% prediction interval; "
    told += f"median error {found['error'].abs().median():.1%}"
    axes.set_label(f"{title}. {told}.")
    axes.grid(color="#E8E8E8", zorder=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _cells_below(axes: Axes, found: pd.DataFrame, title: str) -> Axes:
    """The cells' names, from the top down."""
    names = [comparison.in_words(cell, found.attrs).replace(" again", "\nagain") for cell in found["cell"]]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color="#E8E8E8", zorder=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _room(size_bytes: pd.Series) -> float:
    """Where an axis in MB ends: behind the longest bar and its number, also where there is no bar."""
    return 1.2 * max(size_bytes.fillna(0).max() / MEGABYTE, 1) if len(size_bytes) else 1


def _number(axes: Axes, size_bytes: float, row: float, reason: str = "", above: float | None = None) -> None:
    """Writes a size beside a bar, or `above` a point (in points of type); a cell without one keeps its place."""
    place, at = (size_bytes / MEGABYTE, row), (4, 0) if above is None else (0, above)
    text, align, colour = f"{size_bytes / MEGABYTE:#.3g}", "left" if above is None else "center", "black"
    if pd.isna(size_bytes):
        if not reason:
            return
        place, at, align, colour = (axes.get_xlim()[0], row), (4, 0), "left", "#B00020"
        text = _MISSING + reason[:60]
    axes.annotate(text, place, at, textcoords="offset points", ha=align, va="center", fontsize=8, color=colour)


def _tell(axes: Axes, title: str, what: str, names: Iterable[str], *values: Iterable[float]) -> None:
    """Writes as the label of the axes what they show: by name, the values of each."""
    said = (
        f"{name} {' / '.join('none' if pd.isna(value) else f'{value:.4g}' for value in each)}"
        for name, *each in zip(names, *values, strict=True)
    )
    axes.set_label(f"{title}. {what}: {'; '.join(said)}.")


def _finish(axes: Axes, table: pd.DataFrame, title: str) -> Axes:
    axes.set_yticks(range(len(table)), stats.bases_in_words(table).str.replace(" (stand-in)", "\n(stand-in)"))
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return axes
