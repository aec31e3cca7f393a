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
    """Mean difference, standard error, degrees of freedom, pairs: (..., cells); mean and error NaN below two pairs."""

    mean: np.ndarray
    error: np.ndarray
    freedom: np.ndarray
    pairs: np.ndarray

    def by_cell(self, cells: list[str]) -> dict[str, "Estimates"]:
        """Return the same of each cell by its name, of one study."""
        own = zip(self.mean, self.error, self.freedom, self.pairs, strict=True)
        return {cell: Estimates(*each) for cell, each in zip(cells, own, strict=True)}


def measured_twice(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean of two measurements of each block; where one is NaN, the other. Arrays of equal shape."""
    return np.where(np.isnan(one), other, np.where(np.isnan(other), one, (one + other) / 2))


def estimate(differences: np.ndarray) -> Estimates:
    """Return mean differences of cells, moderated together. `differences`: logarithms, (..., blocks, cells), or NaN."""
    there = ~np.isnan(differences)
    pairs = there.sum(axis=-2)
    enough = pairs > 1
    freedom = np.where(enough, pairs - 1.0, 1.0)
    mean = np.where(there, differences, 0).sum(axis=-2) / np.maximum(pairs, 1)
    residuals = np.where(there, differences - mean[..., None, :], 0)
    variance = (residuals**2).sum(axis=-2) / freedom
    shared = (pairs >= FEWEST) & (variance > 0)
    shared &= shared.sum(axis=-1, keepdims=True) >= FEWEST
    if shared.any():
        independent = _independent_cells(residuals, there, shared)
        moderated, more = _moderate(variance, freedom, shared, independent)
        variance, freedom = np.where(shared, moderated, variance), np.where(shared, more, freedom)
    error = np.sqrt(variance / np.maximum(pairs, 1))
    return Estimates(*(np.where(enough, each, np.nan) for each in (mean, error)), freedom, pairs)


def _moderate(
    variance: np.ndarray, freedom: np.ndarray, shared: np.ndarray, independent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Variances and degrees of freedom, moderated; where `shared` is False they mean nothing."""
    prior, prior_freedom = _prior(variance, freedom, shared)
    weight = prior_freedom / (prior_freedom + freedom)
    moderated = weight * prior + (1 - weight) * variance
    is_noisier = variance > prior * scipy.special.fdtri(freedom, prior_freedom, NOISIER)
    moderated = np.where(is_noisier, np.maximum(variance, moderated), moderated)
    return moderated, np.maximum(np.minimum(freedom + prior_freedom, freedom * independent), freedom)


def _prior(variance: np.ndarray, freedom: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variance that cells share, and its degrees of freedom, by moments of logarithms (Smyth, 6.2). (..., 1)."""

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
    """By Newton's method on 1 / trigamma, which is convex (Smyth, appendix)."""
    found = 0.5 + 1 / values
    for _ in range(10):
        trigamma = scipy.special.polygamma(1, found)
        found = found + trigamma * (1 - trigamma / values) / scipy.special.polygamma(2, found)
    return found


def _independent_cells(residuals: np.ndarray, there: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """How many independent cells a study has: 1 over the mean squared correlation of any two, (..., 1)."""
    products = residuals.swapaxes(-1, -2) @ residuals
    squares = (residuals**2).swapaxes(-1, -2) @ there.astype(float)  # of the blocks that both have
    scale = squares * squares.swapaxes(-1, -2)
    both = shared[..., None] & shared[..., None, :] & (scale > 0)
    squared = np.where(both, products**2 / np.where(both, scale, 1), 0).sum(axis=(-1, -2))
    return (np.maximum(both.sum(axis=(-1, -2)), 1) / np.maximum(squared, 1e-12))[..., None]


def welch(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two means, its standard error and degrees of freedom (Welch, Biometrika 34, 1947)."""
    squares = np.array([each.var(ddof=1) / len(each) for each in (one, other)])
    parts = (squares**2 / [len(one) - 1, len(other) - 1]).sum()
    freedom = squares.sum() ** 2 / parts if parts else len(one) + len(other) - 2
    return one.mean() - other.mean(), np.sqrt(squares.sum()), freedom


def quantile(freedom: np.ndarray | float, comparisons: int = 1) -> np.ndarray | float:
    """Return Student's t for two-sided 95% intervals, for so many comparisons (Bonferroni); NaN without freedom."""
    freedom = np.where(np.asarray(freedom) > 0, freedom, np.nan)
    return scipy.special.stdtrit(freedom, 1 - (1 - CONFIDENCE) / (2 * comparisons))[()]


def minimum_effect(error: float, freedom: float, comparisons: int, floor: float = 0) -> float:
    """Return the difference, as a logarithm, that a study with this standard error finds with probability `POWER`: by
    the noncentral t distribution. `floor` is what a difference must be beyond besides."""
    # Without the bias of a standard deviation of few.
    error = error * np.sqrt(freedom / 2) / scipy.special.poch(freedom / 2, 0.5)
    by_noise = scipy.special.nctdtrinc(freedom, 1 - POWER, quantile(freedom, comparisons)) * error
    return max(by_noise, floor + scipy.special.stdtrit(freedom, POWER) * error if floor else 0)


def drawn(found: pd.DataFrame, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Return draws about each mean by its 95% t-interval, as `comparison.summarize` has them: (draws, rows), or NaN."""
    freedom = (found["freedom"] if "freedom" in found else found["trials"] - 1).clip(lower=1).fillna(1)
    errors = np.log(found["high"] / found["low"]) / 2 / quantile(freedom)
    noise = generator.standard_t(freedom, (draws, len(found)))
    # Of two blocks Student's t has no mean: what is drawn a thousandfold away is no nearer to the truth for that.
    return found["mean"].to_numpy() * np.exp(np.clip(noise * errors.to_numpy(), -7, 7))


def half_interval(values: np.ndarray, comparisons: int = 1) -> float:
    """Half of the 95% interval of a mean, by Student's t, that holds for so many comparisons at once (Bonferroni)."""
    return quantile(len(values) - 1, comparisons) * standard_error(values)


def standard_error(logs: np.ndarray) -> float:
    """The standard error of a mean; NaN for fewer than two values."""
    return logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
