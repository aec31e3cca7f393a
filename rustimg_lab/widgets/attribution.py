"""The contribution of each factor, as a notebook reads it."""

from rustimg_lab.analysis import attribution, factorials
from rustimg_lab.model import metrics
from rustimg_lab.report import plots, views
from rustimg_lab.widgets.results import Result, Words


class Attribution:
    """One quantity of a factorial. `contributions`: of each factor to the difference of two cells (Shapley values); its
    table is empty where the start has the least."""

    def __init__(self, factorial: factorials.Factorial, target: str) -> None:
        self._found, shares = factorial, attribution.shares(factorial, target)
        self.title = Words(f"**{factorial.quantity.phrase}**")
        renderers = views.attribution.shares, plots.attribution.waterfall, views.attribution.in_words
        self.contributions = Result(shares, *renderers)

    @property
    def effects(self) -> Result:
        """Return the ratio of each factor, and of each pair of factors, over all settings of the others."""
        return Result(attribution.effects(self._found), views.attribution.knobs)

    @property
    def predictions(self) -> Result:
        """Return the cells that were both measured and predicted from a fraction: one row per cell. Sizes are of the
        app's part."""
        renderers = views.attribution.predictions, plots.attribution.predictions, views.attribution.score_in_words
        return Result(factorials.score(self._found), *renderers)

    @property
    def is_predicted(self) -> bool:
        """Return whether the quantity is the one that predictions are scored by: the app's bytes."""
        return self._found.quantity is metrics.QUANTITIES[metrics.APP]

    def check(self) -> None:
        """Raise AssertionError when contributions do not sum to the difference, or a cell is missing or there twice."""
        factorial, shares = self._found, self.contributions.table
        error = abs(shares["share"].sum() - shares.attrs["whole"])
        assert not len(shares) or error <= 1e-9 * abs(shares.attrs["from"]), "contributions are not the whole"
        assert not factorial.switches.duplicated().any(), "two cells have the same levels of all factors"
        assert len(factorial.switches) + len(factorial.predicted) == 2 ** len(factorial.knobs), "a cell is missing"
