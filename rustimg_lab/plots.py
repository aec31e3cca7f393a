"""(DataFrame, Axes) -> Axes. Colours are Okabe and Ito's, which colour-blind readers can tell apart."""

import pandas as pd
from matplotlib.axes import Axes

from rustimg_lab import comparison

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#9A9A9A"
MEGABYTE = 1e6
_MISSING = "no number: "
_WIDE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50)  # ticks of ratios
_NARROW = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4)


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
    return _finish(axes, table, title)


def transfer(table: pd.DataFrame, axes: Axes, title: str) -> Axes:
    """Bytes on disk against bytes over the network, per cell; an estimate where no registry told."""
    rows = range(len(table))
    told = table["compressed_bytes"].notna().any()
    column = "compressed_bytes" if told else "compressed_estimate_bytes"
    label = "compressed, as a registry sends it" if told else "compressed, estimated"
    axes.barh([row - 0.2 for row in rows], table["unpacked_bytes"] / MEGABYTE, 0.36, color=BLUE, label="unpacked")
    axes.barh([row + 0.2 for row in rows], table[column] / MEGABYTE, 0.36, color=GREEN, label=label)
    axes.set_xlim(0, _room(table["unpacked_bytes"]))
    for row, cell in enumerate(table.itertuples()):
        _number(axes, cell.unpacked_bytes, row - 0.2, cell.reason)
        _number(axes, getattr(cell, column), row + 0.2)
    axes.set_xlabel("image, MB")
    return _finish(axes, table, title)


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
    return _cells_below(axes, found, title)


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


def _finish(axes: Axes, table: pd.DataFrame, title: str) -> Axes:
    names = table["base"].where(~table["stand_in"], table["base"] + "\n(stand-in)")
    axes.set_yticks(range(len(table)), names)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return axes
