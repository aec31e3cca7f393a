"""What the plots have in common: colours, axes, names beside points, and the text for those who cannot see them.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Each plot writes as the label of its axes what
it shows, in words: `Plot.alt`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator

from rustimg_lab.analysis import comparison
from rustimg_lab.model.names import CONTROL

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#9A9A9A"
TITLE = {"loc": "left", "fontsize": 11}
FARTHEST, BESIDE = 150, 10  # from a point to its name, and where that needs no line, in points of type
_WIDE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50)  # ticks of ratios
_NARROW = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.7)
_APART = 0.09  # of the axis, between two ticks, or their numbers run into each other
SCALE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", GREY)


class Plot(Figure):
    """A figure, as large as the plots of a report are; a notebook shows it with `alt`. Width and height in inches."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=104, layout="constrained")

    @property
    def alt(self) -> str:
        """Return what the plots show, in words, for readers who cannot see them."""
        return " ".join(axes.get_label() for axes in self.axes)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict, dict]:
        if not self.axes:  # nothing to draw yet: there is no picture of that
            return {"text/plain": ""}, {}
        return {"image/png": print_figure(self, base64=True)}, {"image/png": {"alt": self.alt}}


def logarithmic(axes: Axes) -> None:
    """Make both axes logarithmic, with plain numbers at 1, 2 and 5."""
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter("{x:g}")


def ratio_ticks(axes: Axes) -> None:
    """Write plain numbers along the logarithmic x axis of ratios. Call it after the ends of the axis are set."""
    low, high = axes.get_xlim()
    wide, narrow = ([tick for tick in ticks if low < tick < high] for ticks in (_WIDE, _NARROW))
    ticks: list[float] = []
    for tick in sorted(wide if len(wide) > 2 else narrow, key=lambda value: abs(np.log(value))):
        if all(abs(np.log(tick / neighbour)) > _APART * np.log(high / low) for neighbour in ticks):
            ticks.append(tick)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def write_names(axes: Axes, names: list[str], points: np.ndarray) -> None:
    """Write a name near each point (x, y), at the nearest place where it covers no name and no point. A line leads to a
    name that is not beside its point. Call it last, since whatever changes the axes moves the points. A name without a
    place in the axes is left out; `label_axes` has it."""
    axes.figure.draw_without_rendering()  # the layout
    positions = axes.transData.transform(points) * 72 / axes.figure.dpi  # in points of type, as all below
    left, bottom, right, top = axes.bbox.extents * 72 / axes.figure.dpi
    obstacles = np.array([(x - 5, y - 5, x + 5, y + 5) for x, y in positions])
    for name, point, (x, y) in zip(names, points, positions, strict=True):
        width, height = TextPath((0, 0), name, size=7).get_extents().width + 2, 8
        across, up = np.arange(-7 - width - FARTHEST, FARTHEST, 7), np.arange(-FARTHEST, FARTHEST, 3)
        a, b = map(np.ravel, np.meshgrid(across, up))
        gap = np.hypot(np.maximum(0, np.maximum(a, -a - width)), np.maximum(0, np.maximum(b, -b - height)))
        boxes = np.stack([x + a, y + b, x + a + width, y + b + height], axis=1)
        covers = (boxes[:, None, :2] < obstacles[:, 2:]) & (obstacles[:, :2] < boxes[:, None, 2:])
        is_free = ~covers.all(axis=2).any(axis=1) & (boxes[:, :2] > (left, bottom)).all(axis=1)
        is_free &= (boxes[:, 2:] < (right, top)).all(axis=1)
        if not is_free.any():
            continue
        nearest = np.where(is_free, gap, np.inf).argmin()
        obstacles = np.vstack([obstacles, boxes[nearest]])
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 4} if gap[nearest] > BESIDE else None
        place = a[nearest], b[nearest] + 1
        axes.annotate(name, point, place, textcoords="offset points", fontsize=7, arrowprops=line).set_in_layout(False)


def draw_map(axes: Axes, x: np.ndarray, y: np.ndarray, cost: pd.DataFrame, title: str) -> None:
    """Draw which column of `cost` is the least at each point of a grid, both axes logarithmic. `cost` has a row per
    point of `x` and `y`, flattened, and a column per cell as a reader sees it."""
    cheapest = cost.to_numpy().argmin(axis=1).reshape(x.shape)
    winners = np.unique(cheapest)
    colours = [SCALE[number % len(SCALE)] for number in range(len(winners))]
    scale = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": len(winners) - 0.5}
    axes.pcolormesh(x, y, np.searchsorted(winners, cheapest), rasterized=True, **scale)
    names = cost.columns[winners]
    for name, colour in zip(names, colours, strict=True):
        axes.scatter([], [], 80, marker="s", color=colour, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set_title(title, **TITLE)
    shares = [100 * (cheapest == number).mean() for number in winners]
    description = f"percent of the map by {axes.get_xlabel()} and {axes.get_ylabel()}, both logarithmic"
    label_axes(axes, title, description, names, shares)
    legend_below(axes)


def cells_below(axes: Axes, table: pd.DataFrame, title: str) -> Plot:
    """Write the cells' names along the y axis, from the top down, and return the plot."""
    names = [name.replace(CONTROL, f"\n{CONTROL.strip()}") for name in comparison.names(table)]
    return rows_below(axes, names, title, grid="x")


def rows_below(axes: Axes, names: Sequence[str], title: str, grid: str = "") -> Plot:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return finish_plot(axes, title, grid)


def write_beside(
    axes: Axes, text: str, x: float, y: float, away: tuple[int, int] = (4, 0), color: str = "black"
) -> None:
    """Write a text beside a point, `away` from it in points of type: to the right, or centred above or below."""
    align = "left" if away[0] else "center"
    axes.annotate(text, (x, y), away, textcoords="offset points", ha=align, va="center", fontsize=8, color=color)


def label_axes(axes: Axes, title: str, description: str, names: Iterable[str], *values: Iterable[float]) -> None:
    """Write in words, as the label of the axes, what the axes show: by name, the values of each."""
    entries = (
        f"{name} {' / '.join('none' if pd.isna(value) else f'{value:.4g}' for value in numbers)}"
        for name, *numbers in zip(names, *values, strict=True)
    )
    axes.set_label(f"{title}. {description}: {'; '.join(entries)}.")


def finish_plot(axes: Axes, title: str, grid: str = "") -> Plot:
    """Write the title, remove the frame above and on the right, and draw grid lines across the `grid` axis ("x", "y" or
    "both"). Return the plot."""
    axes.set_title(title, **TITLE)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, color="#E8E8E8", zorder=0)
    return axes.figure


def legend_below(axes: Axes, below: float = 0.14, columns: int = 2) -> None:
    """Draw the legend under the axes, at a distance `below` (a fraction of their height)."""
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -below), ncols=columns)
