"""The contribution of each factor, as a notebook reads it."""

from collections.abc import Callable, Iterable

import pandas as pd

from rustimg_lab.analysis import attribution, factorials
from rustimg_lab.model import metrics
from rustimg_lab.report import plots, views
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.results import Result, Several, Words


class Attribution:
    """A factorial: the contribution of each factor to the difference of two cells, for every quantity."""

    def __init__(self, run: RunData, workload: str = "", start: str = "", target: str = "") -> None:
        self._found, self._reasons = factorials.everything(run, start, workload)
        self._shares = [attribution.shares(each, target) for each in self._found]

    @property
    def words(self) -> Words:
        """Return the contributions in sentences, or why there are none."""
        said = map(views.attribution.in_words, self._shares)
        return Words("\n\n".join(said) if self._found else self._reasons[metrics.IMAGE])

    @property
    def contributions(self) -> Several:
        """Return the contribution of each factor (Shapley values), by quantity."""
        return _headed(self._shares, views.attribution.shares, plots.attribution.waterfall)

    @property
    def effects(self) -> Several:
        """Return the ratio of each factor and of each two together over all settings of the others, by quantity."""
        return _headed(map(attribution.effects, self._found), views.attribution.knobs)

    @property
    def predictions(self) -> Several:
        """Return cells that were predicted from a fraction and measured too: how far off, the plot, the table."""
        apps = [each for each in self._found if each.quantity is metrics.QUANTITIES[metrics.APP]]
        scored = list(map(factorials.score, apps))
        said = [Words("\n\n".join(map(views.attribution.score_in_words, scored)))]
        shown = [Result(each, views.attribution.predictions, plots.attribution.predictions) for each in scored]
        return Several(said + [part for each in shown if len(each.table) for part in (each.plot(), each)])

    def check(self) -> None:
        """Raise AssertionError when contributions do not sum up to the difference, or a cell is missing or twice."""
        for each in filter(len, self._shares):
            off = abs(each["share"].sum() - each.attrs["whole"])
            assert off <= 1e-9 * abs(each.attrs["from"]), "shares are not the whole"
        for each in self._found:
            assert not each.turned.duplicated().any(), "two cells have the same knobs turned"
            assert len(each.turned) + len(each.predicted) == 2 ** len(each.knobs), "a cell is missing"


def _headed(tables: Iterable[pd.DataFrame], style: Callable, draw: Callable | None = None) -> Several:
    """The tables that have a row, each below the name of its quantity."""
    shown = [Result(each, style, draw) for each in tables if len(each)]
    headed = ((Words(f"**{each.table.attrs['quantity'].label}**"), each) for each in shown)
    return Several(part for pair in headed for part in pair)
