"""(DataFrame, Axes) -> Axes. Colours are Okabe and Ito's, which colour-blind readers can tell apart.

Each writes as the label of its axes what it shows, in words, for those who cannot see it; `show` hands that on.
"""

from collections.abc import Iterable, Sequence

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
from rustimg_lab.stats import MEGABYTE
from rustimg_lab.survival import FAILED, PASSED

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#9A9A9A"
TITLE = {"loc": "left", "fontsize": 11}
SCALE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", GREY)
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
    axes.set(xscale="log", xlim=(1, 200), xlabel="image, unpacked, MB (logarithmic)")
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.article_bytes, row, above=11)
        _number(axes, cell.unpacked_bytes, row, cell.reason, above=-13)
    axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.grid(axis="x", color="#E0E0E0", zorder=0)
    return _bases_below(axes, table, title, "image in MB, in the article and measured here", then, now)


def shares(table: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """What the base brings and what the app adds, unpacked, per cell."""
    base, app = table["base_bytes"] / MEGABYTE, table["app_bytes"] / MEGABYTE
    rows = range(len(table))
    axes.barh(rows, base, 0.6, color=ORANGE, label="base image")
    axes.barh(rows, app, 0.6, left=base, color=BLUE, label="app: binary, passwd, group")
    axes.set(xlim=(0, _room(table["unpacked_bytes"])), xlabel="image, unpacked, MB")
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row, cell.reason)
    return _bases_below(axes, table, title, "MB of the base image and of the app", base, app)


def transfer(table: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """Bytes on disk against bytes over the network, per cell."""
    unpacked, compressed = table["unpacked_bytes"] / MEGABYTE, table["compressed_bytes"] / MEGABYTE
    rows = np.arange(len(table))
    axes.barh(rows - 0.2, unpacked, 0.36, color=BLUE, label="unpacked")
    axes.barh(rows + 0.2, compressed, 0.36, color=GREEN, label="compressed")
    axes.set(xlim=(0, _room(table["unpacked_bytes"])), xlabel="image, MB")
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row - 0.2, cell.reason)
        _number(axes, cell.compressed_bytes, row + 0.2)
    return _bases_below(axes, table, title, "image in MB, unpacked and compressed", unpacked, compressed)


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
    axes.set(xlim=(0, whole / MEGABYTE), xlabel="MB, unpacked", yticks=[], ylim=(-0.5, 1.5))
    axes.spines["left"].set_visible(False)
    return _titled(axes, title)


def _part(axes: Axes, name: str, left: float, size: float, whole: float, row: int, colour: str, alpha: float) -> None:
    """One box, with its name where that has room: along it, or upright in a narrow one."""
    style = {"color": colour, "alpha": alpha, "edgecolor": "white", "linewidth": 0.6}
    axes.barh(row, size / MEGABYTE, 0.96, left / MEGABYTE, **style)
    share = size / whole
    if share < 0.012:
        return
    text = f"{name}\n{size / MEGABYTE:#.3g}" if share > 0.1 else f"{name}  {size / MEGABYTE:#.3g}"
    style = {"ha": "center", "va": "center", "fontsize": 8, "clip_on": True, "rotation": 0 if share > 0.1 else 90}
    axes.text((left + size / 2) / MEGABYTE, row, text, **style)


def front(found: choice.Choice, axes: Axes, across: str, up: str, title: str) -> Axes:
    """The cells by two of `choice.CRITERIA`; filled: on the Pareto front of all criteria; ringed: the one picked."""
    table = found.table[found.table[[across, up]].notna().all(axis=1)]
    criteria = [choice.CRITERIA[name] for name in (across, up)]
    points = table[[across, up]].to_numpy() / [each.divisor for each in criteria]
    for cell, (x, y), on_front in zip(table.index, points, table["on_front"], strict=True):
        axes.scatter([x], [y], 60, facecolor=BLUE if on_front else "white", edgecolor=BLUE, zorder=3)
        if cell == found.picked:
            axes.scatter([x], [y], 220, facecolor="none", edgecolor=ORANGE, linewidth=2.5, zorder=2, label="picked")
    axes.scatter([], [], 60, facecolor=BLUE, edgecolor=BLUE, label="on the Pareto front")
    axes.scatter([], [], 60, facecolor="white", edgecolor=BLUE, label="not on it, or not measured in all")
    _logarithmic(axes)
    xlabel, ylabel = (f"{each.label}, {each.unit} (logarithmic)" for each in criteria)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.18)
    names = [found.name(cell) for cell in table.index]
    _names(axes, names, points)
    told = f"{title}; on the Pareto front: {', '.join(table.index[table['on_front'].astype(bool)])}"
    told += f"; picked: {found.picked}" if found.picked else ""
    _tell(axes, told, f"{xlabel} and {ylabel}", names, *points.T)
    _legend(axes, columns=3)
    return _titled(axes, title, grid="both")


def _logarithmic(axes: Axes) -> None:
    """Both axes, with plain numbers at 1, 2 and 5."""
    axes.set(xscale="log", yscale="log")
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
        left, middle = -7 - width, -width / 2
        places = [(7, 5), (7, -12), (left, 5), (left, -12), (7, 16), (7, -23), (middle, 13), (middle, -20)]
        boxes = [(x + right, y + above, x + right + width, y + above + height) for right, above in places]
        free = [
            a[0] > edge and not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken)
            for a in boxes
        ]
        chosen = free.index(True) if any(free) else 0
        taken.append(boxes[chosen])
        axes.annotate(name, point, places[chosen], textcoords="offset points", fontsize=7)


def break_even(found: choice.Choice, axes: Axes, deploy_s: pd.DataFrame, bandwidth_mbit: float) -> Axes:
    """Which cell takes the fewest seconds a day, by deploys and requests a day, both logarithmic; of
    `choice.daily_seconds`. `deploy_s` is `choice.deploy_seconds` at that bandwidth."""
    requests, deploys = np.meshgrid(np.logspace(1, 9, 141), np.logspace(0, 6, 121))
    seconds = choice.daily_seconds(found.table, deploy_s["mean"], deploys, requests)
    axes.set(xlabel="requests per day", ylabel="deploys per day")
    how = "compressed size / bandwidth" if deploy_s.attrs["lacking"] else "deploy model"
    title = f"Cell with the fewest seconds per day at {bandwidth_mbit:g} Mbit/s (deploy time: {how})"
    return _map(axes, requests, deploys, seconds.rename(columns=found.name), title)


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
        fitted, held_out = each[~held], each[held]
        name = comparison.in_words(cell, table.attrs)
        axes.scatter(fitted["bandwidth_mbit"], fitted["seconds"], 36, color=colour, zorder=3, marker=marker, label=name)
        ring = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.6, "marker": marker}
        axes.scatter(held_out["bandwidth_mbit"], held_out["seconds"], 44, zorder=3, **ring)
    _logarithmic(axes)
    axes.set(xlabel="bandwidth, Mbit/s (logarithmic)", ylabel="until the first byte, s (logarithmic)")
    names = [f"{comparison.in_words(each.cell, table.attrs)} at {each.bandwidth_mbit:,}" for each in own.itertuples()]
    what = "s until the first byte, by cell and Mbit/s, with its 95% interval"
    _tell(axes, title, what, names, own["seconds"], own["low"], own["high"])
    _legend(axes)
    return _titled(axes, title, grid="both")


def soonest(found: pd.DataFrame, axes: Axes) -> Axes:
    """Which cell has all of so many services answer first on a machine that had nothing, by bandwidth, both
    logarithmic; of `deployment.seconds`. `found` is `deployment.shared`."""
    bandwidth, services = np.meshgrid(np.logspace(0, 4, 121), np.logspace(0, 3, 101))
    cost = deployment.seconds(found, bandwidth, services)
    cost = cost.rename(columns=lambda cell: comparison.in_words(cell, found.attrs))
    axes.set(xlabel="bandwidth, Mbit/s", ylabel="services on the machine")
    _map(axes, bandwidth, services, cost, "whose services all answer first, on a machine that had nothing")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    return axes


def _map(axes: Axes, x: np.ndarray, y: np.ndarray, cost: pd.DataFrame, title: str) -> Axes:
    """Which column of `cost` is the least at each point, both axes logarithmic; columns are cells as a reader sees
    them."""
    cheapest = cost.to_numpy().argmin(axis=1).reshape(x.shape)
    shown = np.unique(cheapest)
    colours = [SCALE[number % len(SCALE)] for number in range(len(shown))]
    scale = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": len(shown) - 0.5}
    axes.pcolormesh(x, y, np.searchsorted(shown, cheapest), rasterized=True, **scale)
    names = cost.columns[shown]
    for name, colour in zip(names, colours, strict=True):
        axes.scatter([], [], 80, marker="s", color=colour, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set_title(title, **TITLE)
    shares = [100 * (cheapest == number).mean() for number in shown]
    what = f"percent of the map by {axes.get_xlabel()} and {axes.get_ylabel()}, both logarithmic"
    _tell(axes, title, what, names, shares)
    _legend(axes)
    return axes


def trials(samples: pd.DataFrame, axes: Axes, label: str, title: str) -> Axes:
    """Every trial as a point, and per cell the geometric mean with its 95% interval, of `comparison.samples`."""
    summary = comparison.summarize(samples)
    for row, cell in enumerate(summary.itertuples()):
        values = samples.loc[samples["cell"] == cell.cell, "value"]
        spread = row + 0.16 * (5 * np.arange(len(values)) % 7 - 3) / 3  # so that none hides another
        colour = GREY if cell.cell.endswith(comparison.TWIN) else BLUE
        axes.scatter(values, spread, 12, color=colour, alpha=0.45, linewidth=0, zorder=2)
        axes.plot([cell.low, cell.high], [row + 0.32] * 2, color="black", linewidth=1.5, zorder=3)
        axes.scatter([cell.mean], [row + 0.32], 26, color="black", zorder=4)
        _beside(axes, f"{cell.mean:#.3g}".rstrip("."), cell.mean, row + 0.32, (0, -9))
    axes.set(xlim=(0, 1.08 * samples["value"].max()), xlabel=label)
    ends = summary["mean"], summary["low"], summary["high"]
    _tell(axes, title, f"{label}, mean with its 95% interval", comparison.names(summary), *ends)
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
        _legend(axes, 0.2, columns=1)
    axes.axvline(1, color="black", linewidth=0.8, zorder=1)
    for row, cell in enumerate(found.itertuples()):
        if cell.pairs > 1:
            colour = GREY if cell.is_twin else BLUE
            axes.plot([cell.low_all, cell.high_all], [row] * 2, color=colour, linewidth=1.2, zorder=2)
            axes.plot([cell.low, cell.high], [row] * 2, color=colour, linewidth=4, zorder=3)
            axes.scatter([cell.ratio], [row], 34, color=colour, edgecolor="white", zorder=4)
        text = f"{cell.ratio:.2f}  {cell.verdict}" if cell.pairs > 1 else cell.verdict
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set(xscale="log", xlim=(low, high), xlabel=label)
    wide, narrow = ([tick for tick in ticks if low < tick < high] for ticks in (_WIDE, _NARROW))
    ticks = wide if len(wide) > 2 else narrow
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
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
            corner = column - 0.5, row - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, edgecolor="#D0D0D0", linewidth=0.6))
            axes.text(column, row, mark, ha="center", va="center", color=ink, fontsize=9, fontweight="bold")
    axes.set(xlim=(-0.5, len(outcomes.columns) - 0.5), ylim=(len(outcomes) - 0.5, -0.5))
    axes.xaxis.tick_top()
    cells = [names[cell].replace(" with ", "\n  with ") for cell in outcomes.columns]
    axes.set_xticks(range(len(cells)), cells, rotation=55, rotation_mode="anchor", ha="left", fontsize=8)
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
    unit, divisor = about.unit, about.divisor
    ends = [of_all["from"], *(of_all["from"] + found["share"].cumsum())]
    names = attribution.turned(found)
    start, target = (comparison.in_words(of_all[name], of_all) for name in ("start", "target"))
    rows = range(1, len(found) + 1)
    for row, value in ((0, of_all["from"]), (len(found) + 1, of_all["to"])):
        axes.barh(row, value / divisor, 0.6, color=GREY, zorder=2)
        _beside(axes, about.in_words(value), value / divisor, row)
    for row, each, before, after in zip(rows, found.itertuples(), ends[:-1], ends[1:], strict=True):
        colour = GREY if each.verdict == comparison.NO_DIFFERENCE else BLUE if each.share < 0 else ORANGE
        axes.barh(row, each.share / divisor, 0.6, before / divisor, color=colour, zorder=2)
        axes.plot([after / divisor] * 2, [row - 0.3, row + 1.3], color="#606060", linewidth=0.8, zorder=1)
        right = max(before, after)
        if not pd.isna(each.low):
            low, high = (before + value for value in (each.low, each.high))
            axes.plot([low / divisor, high / divisor], [row] * 2, color="black", linewidth=1.5, zorder=3)
            right = max(right, high)
        _beside(axes, f"{attribution.signed(about, each.share)}  ({each.of_whole:.1%})", right / divisor, row)
    axes.set_yticks(range(len(found) + 2), [start, *names, target])
    axes.set(xlim=(0, 1.22 * max(ends) / divisor), ylim=(len(found) + 1.6, -0.6), xlabel=f"{about.label}, {unit}")
    first, last = (about.in_words(of_all[name]) for name in ("from", "to"))
    what = f"from {start}, {first}, to {target}, {last}; shares in {unit}"
    _tell(axes, title, what, names, found["share"] / divisor)
    return _titled(axes, title, grid="x")


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
    axes.set(xlabel="measured, MB", ylabel="predicted against measured, %")
    told = f"{len(found)} cells held out, {int(found['inside'].sum())} inside their 95% prediction interval; "
    told += f"median error {found['error'].abs().median():.1%}"
    axes.set_label(f"{title}. {told}.")
    return _titled(axes, title, grid="both")


def _bases_below(axes: Axes, table: pd.DataFrame, title: str, what: str, *values: pd.Series) -> Axes:
    """The bases' names, from the top down, the legend, and in the label of the axes these values of each."""
    names = stats.bases_in_words(table)
    _tell(axes, title, what, names, *values)
    _legend(axes, 0.16)
    return _rows_below(axes, names.str.replace(" (stand-in)", "\n(stand-in)"), title)


def _cells_below(axes: Axes, found: pd.DataFrame, title: str) -> Axes:
    """The cells' names, from the top down."""
    return _rows_below(axes, [name.replace(" again", "\nagain") for name in comparison.names(found)], title, grid="x")


def _rows_below(axes: Axes, names: Sequence[str], title: str, grid: str = "") -> Axes:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return _titled(axes, title, grid)


def _room(size_bytes: pd.Series) -> float:
    """Where an axis in MB ends: behind the longest bar and its number, also where there is no bar."""
    return 1.2 * max(size_bytes.fillna(0).max() / MEGABYTE, 1) if len(size_bytes) else 1


def _number(axes: Axes, size_bytes: float, row: float, reason: str = "", above: int = 0) -> None:
    """Writes a size beside a bar, or `above` a point (in points of type); a cell without one keeps its place."""
    if not pd.isna(size_bytes):
        _beside(axes, f"{size_bytes / MEGABYTE:#.3g}", size_bytes / MEGABYTE, row, (0, above) if above else (4, 0))
    elif reason:
        _beside(axes, f"no number: {reason[:60]}", axes.get_xlim()[0], row, color="#B00020")


def _beside(axes: Axes, text: str, x: float, y: float, away: tuple[int, int] = (4, 0), color: str = "black") -> None:
    """Writes a text so far away (in points of type) from a point: to the right of it, or centred above or below."""
    align = "left" if away[0] else "center"
    axes.annotate(text, (x, y), away, textcoords="offset points", ha=align, va="center", fontsize=8, color=color)


def _tell(axes: Axes, title: str, what: str, names: Iterable[str], *values: Iterable[float]) -> None:
    """Writes as the label of the axes what they show: by name, the values of each."""
    said = (
        f"{name} {' / '.join('none' if pd.isna(value) else f'{value:.4g}' for value in each)}"
        for name, *each in zip(names, *values, strict=True)
    )
    axes.set_label(f"{title}. {what}: {'; '.join(said)}.")


def _titled(axes: Axes, title: str, grid: str = "") -> Axes:
    """The end of a plot: its title, no frame above and on the right, and grid lines across an axis, or both."""
    axes.set_title(title, **TITLE)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, color="#E8E8E8", zorder=0)
    return axes


def _legend(axes: Axes, below: float = 0.14, columns: int = 2) -> None:
    """The legend under the axes, so far below as a share of their height."""
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -below), ncols=columns)
