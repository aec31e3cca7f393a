"""Widgets for a notebook: the trade-off of the cells that one selects, and tables that sort."""

from dataclasses import replace

import ipywidgets as widgets
import pandas as pd
from IPython.display import display

from rustimg_lab.analysis import recommendation
from rustimg_lab.model import metrics
from rustimg_lab.report import plots, views
from rustimg_lab.store.runs import RunData


def trade_off(run: RunData, workload: str = "") -> widgets.Widget:
    """Choose bases, profiles, allocators and two criteria: the plot of the Pareto front answers, and says which cell
    has the least of the first. Raises LabError when no cell of the run works."""
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

    def draw(base: tuple[str, ...], profile: tuple[str, ...], allocator: tuple[str, ...], across: str, up: str) -> None:
        kept = recommendation.narrow(found, base, profile, allocator)
        both = kept.table.dropna(subset=[across, up])
        if both.empty or across == up:
            print("Nothing was measured in both of these; choose others.")
            return
        least = both[across].idxmin()
        kept = replace(kept, picked=least)
        display(plots.recommendation.front(kept, across, up))
        one = kept.table.loc[least]
        facts = (f"{each.phrase} {each.in_words(one[name])}" for name, each in metrics.CRITERIA.items())
        of = f"Of the {len(both)} cells (of {len(kept.table)}) measured in both"
        lowest = f"lowest {metrics.CRITERIA[across].phrase} (ringed): {kept.name(least)}"
        print(f"{of}, {lowest}: {', '.join(facts)}.")

    drawn = widgets.interactive_output(draw, {**factors, "across": across, "up": up})
    return widgets.VBox([widgets.HBox([*factors.values(), widgets.VBox([across, up])]), drawn])


def sortable(table: pd.DataFrame) -> widgets.Widget:
    """A table that sorts by the column that one chooses, the least or the most first; shown as `style.style` does."""
    column = widgets.Dropdown(options=["as it is", *table.columns], description="sort by")
    most = widgets.ToggleButtons(options={"least first": True, "most first": False})

    def draw(column: str, ascending: bool) -> None:
        shown = table if column == "as it is" else table.sort_values(column, ascending=ascending, kind="stable")
        display(views.style.style(shown))

    drawn = widgets.interactive_output(draw, {"column": column, "ascending": most})
    return widgets.VBox([widgets.HBox([column, most]), drawn])
