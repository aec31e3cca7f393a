"""Widgets for a notebook: the trade-off of the cells that one selects, and tables that sort."""

from collections.abc import Callable
from dataclasses import replace
from html import escape

import ipywidgets as widgets
import pandas as pd
from IPython.core.pylabtools import print_figure

from rustimg_lab.analysis import recommendation
from rustimg_lab.model import metrics
from rustimg_lab.report import plots, views
from rustimg_lab.store.runs import RunData


def trade_off(run: RunData, workload: str = "") -> widgets.Widget:
    """Return a widget: factors and criteria are chosen, the Pareto front answers. Raises LabError without cells."""
    found = recommendation.choose(run, recommendation.Wishes(), workload)
    measured = {each.phrase: name for name, each in metrics.CRITERIA.items() if found.table[name].notna().any()}
    if len(measured) < 2:
        return widgets.HTML("This run has measured sizes alone; with a study of its cells there is a trade-off to see.")
    factors = {}
    for factor in ("base", "profile", "allocator"):
        names = list(found.table[factor].unique())
        height = min(len(names), 6)
        factors[factor] = widgets.SelectMultiple(options=names, value=names, description=factor, rows=height)
    across, up = (
        widgets.Dropdown(options=measured, value=list(measured.values())[place], description=word)
        for place, word in ((0, "across"), (1, "up"))
    )

    def draw(base: tuple[str, ...], profile: tuple[str, ...], allocator: tuple[str, ...], across: str, up: str) -> str:
        kept = recommendation.narrow(found, base, profile, allocator)
        both = kept.table.dropna(subset=[across, up])
        if both.empty or across == up:
            return "Nothing was measured in both of these; choose others."
        least = both[across].idxmin()
        kept = replace(kept, picked=least)
        front = plots.recommendation.front(kept, across, up)
        data = f"data:image/png;base64,{print_figure(front, base64=True)}"
        picture = f'<img src="{data}" alt="{escape(front.alt)}" style="max-width: 100%">'
        one = kept.table.loc[least]
        facts = (f"{each.phrase} {each.in_words(one[name])}" for name, each in metrics.CRITERIA.items())
        of = f"Of the {len(both)} cells (of {len(kept.table)}) measured in both"
        lowest = f"lowest {metrics.CRITERIA[across].phrase} (ringed): {kept.name(least)}"
        return f"{picture}<p>{escape(f'{of}, {lowest}: ')}{escape(', '.join(facts))}.</p>"

    drawn = _answering(draw, {**factors, "across": across, "up": up})
    lines = widgets.Layout(flex_flow="row wrap")
    return widgets.VBox([widgets.HBox([*factors.values(), widgets.VBox([across, up])], layout=lines), drawn])


def sortable(table: pd.DataFrame) -> widgets.Widget:
    """A table that sorts by the column that one chooses, the least or the most first; shown as `style.style` does."""
    column = widgets.Dropdown(options=["as it is", *table.columns], description="sort by")
    most = widgets.ToggleButtons(options={"least first": True, "most first": False})

    def draw(column: str, ascending: bool) -> str:
        shown = table if column == "as it is" else table.sort_values(column, ascending=ascending, kind="stable")
        # A table has JupyterLab's own style by that class.
        return f'<div class="jp-RenderedHTMLCommon">{views.style.style(shown).to_html()}</div>'

    drawn = _answering(draw, {"column": column, "ascending": most})
    return widgets.VBox([widgets.HBox([column, most]), drawn])


def _answering(draw: Callable[..., str], controls: dict[str, widgets.Widget]) -> widgets.HTML:
    """Return what shows the HTML that `draw` makes of the controls' values, which it gets by name, and of each change.

    It is no Output widget: nbclient, by which papermill executes a notebook, answers such a widget while the cell runs,
    and may then miss that the cell has ended. It waits for ever, on a busy machine (jupyter/nbclient#312).
    """

    def show(*_: object) -> None:
        shown.value = draw(**{name: control.value for name, control in controls.items()})

    shown = widgets.HTML()
    for control in controls.values():
        control.observe(show, "value")
    show()
    return shown
