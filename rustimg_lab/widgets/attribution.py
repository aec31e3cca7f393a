"""The contribution of each factor, as a notebook reads it."""

from rustimg_lab.analysis import attribution, factorials
from rustimg_lab.model import metrics
from rustimg_lab.report import plots, views
from rustimg_lab.widgets.results import Result, Words


class Attribution:
    """One quantity of a factorial. `contributions`: of each factor to the difference of two cells (Shapley values); its
    table is empty where the start has the least."""

    def __init__(self, found: factorials.Factorial, target: str) -> None:
        self._found, shares = found, attribution.shares(found, target)
        self.title = Words(f"**{found.quantity.phrase}**")
        shown = views.attribution.shares, plots.attribution.waterfall, views.attribution.in_words
        self.contributions = Result(shares, *shown)

    @property
    def effects(self) -> Result:
        """Return the ratio of each factor, and of each two together, over all settings of the others."""
        return Result(attribution.effects(self._found), views.attribution.knobs)

    @property
    def predictions(self) -> Result:
        """Return the cells that were predicted from a fraction and measured too. Of the app's bytes alone."""
        shown = views.attribution.predictions, plots.attribution.predictions, views.attribution.score_in_words
        return Result(factorials.score(self._found), *shown)

    @property
    def is_predicted(self) -> bool:
        """Return whether this is the quantity that predictions are scored by."""
        return self._found.quantity is metrics.QUANTITIES[metrics.APP]

    def check(self) -> None:
        """Raise AssertionError when contributions do not sum up to the difference, or a cell is missing or twice."""
        found, shares = self._found, self.contributions.table
        off = abs(shares["share"].sum() - shares.attrs["whole"])
        assert not len(shares) or off <= 1e-9 * abs(shares.attrs["from"]), "contributions are not the whole"
        assert not found.turned.duplicated().any(), "two cells have the same levels of all factors"
        assert len(found.turned) + len(found.predicted) == 2 ** len(found.knobs), "a cell is missing"
