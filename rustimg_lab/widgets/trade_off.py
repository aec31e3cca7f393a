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
    """Return a widget to select bases, profiles, allocators and two criteria. It plots the Pareto front and names the
    cell with the least of the first criterion. Raises LabError when no cell of the run works."""
    choice = recommendation.choose(run, recommendation.Wishes(), workload)
    options = {metric.phrase: name for name, metric in metrics.CRITERIA.items() if choice.table[name].notna().any()}
    if len(options) < 2:
        return widgets.HTML("This run has measured sizes alone; with a study of its cells there is a trade-off to see.")
    factors = {}
    for factor in ("base", "profile", "allocator"):
        names = list(choice.table[factor].unique())
        height = min(len(names), 6)
        factors[factor] = widgets.SelectMultiple(options=names, value=names, description=factor, rows=height)
    across, up = (
        widgets.Dropdown(options=options, value=list(options.values())[place], description=word)
        for place, word in ((0, "across"), (1, "up"))
    )

    def draw(base: tuple[str, ...], profile: tuple[str, ...], allocator: tuple[str, ...], across: str, up: str) -> str:
        subset = recommendation.narrow(choice, base, profile, allocator)
        rows = subset.table.dropna(subset=[across, up])
        if rows.empty or across == up:
            return "Nothing was measured in both of these; choose others."
        least = rows[across].idxmin()
        subset = replace(subset, picked=least)
        front = plots.recommendation.front(subset, across, up)
        data = f"data:image/png;base64,{print_figure(front, base64=True)}"
        picture = f'<img src="{data}" alt="{escape(front.alt)}" style="max-width: 100%">'
        row = subset.table.loc[least]
        facts = (f"{metric.phrase} {metric.in_words(row[name])}" for name, metric in metrics.CRITERIA.items())
        scope = f"Of the {len(rows)} cells (of {len(subset.table)}) measured in both"
        lowest = f"lowest {metrics.CRITERIA[across].phrase} (ringed): {subset.name(least)}"
        return f"{picture}<p>{escape(f'{scope}, {lowest}: ')}{escape(', '.join(facts))}.</p>"

    answer = _answer_widget(draw, {**factors, "across": across, "up": up})
    lines = widgets.Layout(flex_flow="row wrap")
    return widgets.VBox([widgets.HBox([*factors.values(), widgets.VBox([across, up])], layout=lines), answer])


def sortable(table: pd.DataFrame) -> widgets.Widget:
    """Return a widget with a table that sorts by the selected column, least or most first; styled by `style.style`."""
    column = widgets.Dropdown(options=["as it is", *table.columns], description="sort by")
    most = widgets.ToggleButtons(options={"least first": True, "most first": False})

    def draw(column: str, ascending: bool) -> str:
        rows = table if column == "as it is" else table.sort_values(column, ascending=ascending, kind="stable")
        # A table has JupyterLab's own style by that class.
        return f'<div class="jp-RenderedHTMLCommon">{views.style.style(rows).to_html()}</div>'

    answer = _answer_widget(draw, {"column": column, "ascending": most})
    return widgets.VBox([widgets.HBox([column, most]), answer])


def _answer_widget(draw: Callable[..., str], controls: dict[str, widgets.Widget]) -> widgets.HTML:
    """Return a widget that shows the HTML that `draw` makes of the controls' values, passed by name, and updates on
    each change.

    It is no Output widget: nbclient, by which papermill executes a notebook, answers such a widget while the cell runs,
    and may then miss that the cell has ended. It waits for ever, on a busy machine (jupyter/nbclient#312)."""

    def show(*_: object) -> None:
        answer.value = draw(**{name: control.value for name, control in controls.items()})

    answer = widgets.HTML()
    for control in controls.values():
        control.observe(show, "value")
    show()
    return answer
