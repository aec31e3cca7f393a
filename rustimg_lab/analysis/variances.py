"""Differences of cells by block -> means, standard errors that the cells share, and the minimum detectable effect.

With few blocks a cell's own variance is itself little known. So it is moderated: drawn towards what the other cells of
the study have, as far as they agree (Smyth, Linear Models and Empirical Bayes Methods, 2004,
doi:10.2202/1544-6115.1027: fitFDist of limma). Two bounds keep false claims at 5% of studies
(tests/analysis/test_simulations.py). A cell that is noisier than that allows keeps its own variance (after Phipson et
al., 2016, doi:10.1214/16-AOAS920). No more degrees of freedom are counted than the cells have independent ones, since
all are compared with one baseline.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # its parts are loaded when they are first called: a call that analyses nothing takes 0.2 s less

CONFIDENCE = 0.95
POWER = 0.8  # with which the minimum detectable effect is found
FEWEST = 5  # pairs of a cell, and cells, from which on variances are moderated
NOISIER = 0.85  # quantile of what the others allow, above which a cell keeps its own variance
_MANY = 1e6  # degrees of freedom that stand for infinitely many


@dataclass(frozen=True)
class Estimates:
    """Of each cell: the mean difference, its standard error, their degrees of freedom, and the number of pairs. Arrays
    (..., cells); mean and error are NaN with fewer than two pairs."""

    mean: np.ndarray
    error: np.ndarray
    freedom: np.ndarray
    pairs: np.ndarray

    def by_cell(self, cells: list[str]) -> dict[str, "Estimates"]:
        """Return the estimates of one study by the name of the cell, each with numbers in place of arrays."""
        rows = zip(self.mean, self.error, self.freedom, self.pairs, strict=True)
        return {cell: Estimates(*row) for cell, row in zip(cells, rows, strict=True)}


def mean_of_two(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean of two measurements of each block; where one is NaN, the other one. Arrays of equal shape."""
    return np.where(np.isnan(first), second, np.where(np.isnan(second), first, (first + second) / 2))


def estimate(differences: np.ndarray) -> Estimates:
    """Return the estimates of each cell's mean difference. `differences`: logarithms of ratios, (..., blocks, cells),
    NaN where a trial failed. The cells of one study are moderated together."""
    is_measured = ~np.isnan(differences)
    pairs = is_measured.sum(axis=-2)
    is_enough = pairs > 1
    freedom = np.where(is_enough, pairs - 1.0, 1.0)
    mean = np.where(is_measured, differences, 0).sum(axis=-2) / np.maximum(pairs, 1)
    residuals = np.where(is_measured, differences - mean[..., None, :], 0)
    variance = (residuals**2).sum(axis=-2) / freedom
    shared = (pairs >= FEWEST) & (variance > 0)
    shared &= shared.sum(axis=-1, keepdims=True) >= FEWEST
    if shared.any():
        independent = _independent_cells(residuals, is_measured, shared)
        moderated, moderated_freedom = _moderate(variance, freedom, shared, independent)
        variance, freedom = np.where(shared, moderated, variance), np.where(shared, moderated_freedom, freedom)
    error = np.sqrt(variance / np.maximum(pairs, 1))
    return Estimates(*(np.where(is_enough, values, np.nan) for values in (mean, error)), freedom, pairs)


def _moderate(
    variance: np.ndarray, freedom: np.ndarray, shared: np.ndarray, independent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return moderated variances and degrees of freedom; where `shared` is False they mean nothing."""
    prior, prior_freedom = _prior(variance, freedom, shared)
    weight = prior_freedom / (prior_freedom + freedom)
    moderated = weight * prior + (1 - weight) * variance
    is_noisier = variance > prior * scipy.special.fdtri(freedom, prior_freedom, NOISIER)
    moderated = np.where(is_noisier, np.maximum(variance, moderated), moderated)
    return moderated, np.maximum(np.minimum(freedom + prior_freedom, freedom * independent), freedom)


def _prior(variance: np.ndarray, freedom: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance that the cells of a study have in common, and the degrees of freedom of that variance, (...,
    1). A scaled F distribution is fitted by the moments of the logarithms (Smyth, section 6.2)."""

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.where(shared, values, 0).sum(axis=-1, keepdims=True)
        return total / np.maximum(shared.sum(axis=-1, keepdims=True), 2)

    logs = np.log(np.where(shared, variance, 1)) - scipy.special.digamma(freedom / 2) + np.log(freedom / 2)
    count = np.maximum(shared.sum(axis=-1, keepdims=True), 2)
    spread = mean((logs - mean(logs)) ** 2) * count / (count - 1) - mean(scipy.special.polygamma(1, freedom / 2))
    half = np.where(spread > 0, _inverse_trigamma(np.where(spread > 0, spread, 1)), _MANY / 2)
    half = np.minimum(half, _MANY / 2)
    return np.exp(mean(logs) + scipy.special.digamma(half) - np.log(half)), 2 * half


def _inverse_trigamma(values: np.ndarray) -> np.ndarray:
    """Return the inverse of trigamma by Newton's method on 1 / trigamma, which is convex (Smyth, appendix)."""
    root = 0.5 + 1 / values
    for _ in range(10):
        trigamma = scipy.special.polygamma(1, root)
        root = root + trigamma * (1 - trigamma / values) / scipy.special.polygamma(2, root)
    return root


def _independent_cells(residuals: np.ndarray, is_measured: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Return how many independent cells those of a study count as, (..., 1): 1 over the mean squared correlation of any
    two of them, each with itself too."""
    products = residuals.swapaxes(-1, -2) @ residuals
    squares = (residuals**2).swapaxes(-1, -2) @ is_measured.astype(float)  # of the blocks that both have
    scale = squares * squares.swapaxes(-1, -2)
    is_shared = shared[..., None] & shared[..., None, :] & (scale > 0)
    squared = np.where(is_shared, products**2 / np.where(is_shared, scale, 1), 0).sum(axis=(-1, -2))
    return (np.maximum(is_shared.sum(axis=(-1, -2)), 1) / np.maximum(squared, 1e-12))[..., None]


def welch(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of `first` minus that of `second`, its standard error, and its degrees of freedom (Welch,
    Biometrika 34, 1947). Samples have two values or more."""
    squares = np.array([sample.var(ddof=1) / len(sample) for sample in (first, second)])
    parts = (squares**2 / [len(first) - 1, len(second) - 1]).sum()
    freedom = squares.sum() ** 2 / parts if parts else len(first) + len(second) - 2
    return first.mean() - second.mean(), np.sqrt(squares.sum()), freedom


def quantile(freedom: np.ndarray | float, comparisons: int = 1) -> np.ndarray | float:
    """Return Student's t for two-sided 95% intervals, simultaneous for so many comparisons (Bonferroni); NaN without a
    degree of freedom."""
    freedom = np.where(np.asarray(freedom) > 0, freedom, np.nan)
    return scipy.special.stdtrit(freedom, 1 - (1 - CONFIDENCE) / (2 * comparisons))[()]


def minimum_effect(error: float, freedom: float, comparisons: int, floor: float = 0) -> float:
    """Return the difference, as a logarithm, that a study with this standard error finds with probability `POWER`, by
    the noncentral t distribution. A difference must also exceed `floor` (a logarithm) to be claimed."""
    # Without the bias of a standard deviation of few.
    error = error * np.sqrt(freedom / 2) / scipy.special.poch(freedom / 2, 0.5)
    by_noise = scipy.special.nctdtrinc(freedom, 1 - POWER, quantile(freedom, comparisons)) * error
    return max(by_noise, floor + scipy.special.stdtrit(freedom, POWER) * error if floor else 0)


def draw_means(
    summary: pd.DataFrame, draws: int, generator: np.random.Generator, differences: np.ndarray | None = None
) -> np.ndarray:
    """Return so many values about each geometric mean with a 95% t-interval, by the columns of `comparison.summarize`:
    (draws, rows); NaN where there is no interval. `differences` are the logarithms that each mean is of, (blocks,
    rows), NaN where a trial failed: draws of two rows are then correlated as those are."""
    freedom = (summary["freedom"] if "freedom" in summary else summary["trials"] - 1).clip(lower=1).fillna(1)
    errors = np.log(summary["high"] / summary["low"]) / 2 / quantile(freedom)
    if differences is None:
        noise = generator.standard_t(freedom, (draws, len(summary)))
    else:
        noise = _joint_noise(differences, freedom.to_numpy(), draws, generator)
    # Of two blocks Student's t has no mean: what is drawn a thousandfold away is no nearer to the truth for that.
    return summary["mean"].to_numpy() * np.exp(np.clip(noise * errors.to_numpy(), -7, 7))


def _joint_noise(differences: np.ndarray, freedom: np.ndarray, draws: int, generator: np.random.Generator):
    """Return draws of Student's t, an array (draws, columns), of which two columns are correlated as the columns of
    `differences` are. The mean of a difference of two columns then has the t-interval of that difference."""
    is_measured = ~np.isnan(differences)
    mean = np.where(is_measured, differences, 0).sum(axis=0) / np.maximum(is_measured.sum(axis=0), 1)
    residuals = np.where(is_measured, differences - mean, 0)
    length = np.sqrt((residuals**2).sum(axis=0))
    normal = generator.standard_normal((draws, len(differences))) @ (residuals / np.where(length > 0, length, 1))
    normal = np.where(length > 0, normal, generator.standard_normal(normal.shape))
    chi_squared = 2 * scipy.special.gammaincinv(freedom / 2, generator.uniform(size=(draws, 1)))
    return normal / np.sqrt(chi_squared / freedom)


def half_interval(values: np.ndarray, comparisons: int = 1) -> float:
    """Return half the width of the 95% interval of a mean, by Student's t, simultaneous for so many comparisons
    (Bonferroni)."""
    return quantile(len(values) - 1, comparisons) * standard_error(values)


def standard_error(logs: np.ndarray) -> float:
    """Return the standard error of a mean; NaN for fewer than two values."""
    return logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
