"""Estimates with known standard errors -> the mean of all, the standard deviation between them, and what another one
will be: a random-effects model. Pure; arrays (..., estimates), for many such models at once.

The variance between estimates is that of restricted maximum likelihood (REML; Viechtbauer, J. Educ. Behav. Stat. 30,
2005). The interval of the mean is that of Hartung and Knapp (Statistics in Medicine 20, 2001), never narrower than the
plain one (Röver, Knapp, Friede, BMC Med. Res. Methodol. 15, 2015).

The prediction interval does not rest on that one number: of few estimates REML is often 0, and intervals by it
(Higgins, Thompson, Spiegelhalter, J. R. Stat. Soc. A 172, 2009; Partlett, Riley, Statistics in Medicine 36, 2017) then
cover as little as 84% at eight machines. It takes every variance that fits, by its confidence distribution: that of
the generalized Q statistic, which is exact (Viechtbauer, Statistics in Medicine 26, 2007; Iyer, Wang, Mathew, J. Am.
Stat. Assoc. 99, 2004; Nagashima, Noma, Furukawa, Stat. Methods Med. Res. 28, 2019 have it with another statistic). For
estimates without an error it is Student's t-interval. In simulations it covers 93.8% or more
(tests/analysis/test_random_effects.py).
"""

from dataclasses import dataclass

import numpy as np
import scipy

from rustimg_lab.analysis.variances import CONFIDENCE, quantile

_STEPS = 200  # of REML; it ends far sooner
_CLOSE = 1e-10  # of variances on the logarithmic scale: far below that of any measurement
_NEWTONS = 30  # likewise, for each variance of the confidence distribution
_DRAWS = 200  # quantiles of the confidence distribution
_FAR, _HALVINGS = 9, 35  # standard deviations to the ends of a bisection, and its steps
_TAIL = (1 - CONFIDENCE) / 2


@dataclass(frozen=True)
class Fit:
    """A random-effects model. `mean` and `error` (standard error) of each group, (..., groups); `variance` between the
    estimates of one group, and `freedom`, its degrees of freedom."""

    mean: np.ndarray
    error: np.ndarray
    variance: np.ndarray
    freedom: int

    @property
    def half(self) -> np.ndarray:
        """Return half the width of the 95% interval of the means; NaN without a degree of freedom."""
        return quantile(self.freedom) * self.error


def fit(estimates: np.ndarray, errors: np.ndarray, groups: np.ndarray | None = None) -> Fit:
    """Fit by REML what `estimates` with these standard errors (above 0) have in common. `groups`: one row per estimate,
    one column per group, 1 where the estimate is in the group (default: one group). All groups have one variance; it is
    0 where no group has two estimates. Fisher scoring starts from 0 and from the variance of the estimates themselves,
    and raises a variance below 0 to 0. Of two optima the more likely one counts."""
    groups = np.ones((estimates.shape[-1], 1)) if groups is None else groups
    freedom, error_variances = groups.shape[0] - groups.shape[1], errors**2
    _, _, residuals = _weighted(estimates, np.ones_like(error_variances), np.zeros(estimates.shape[:-1]), groups)
    variance = np.stack([np.zeros(estimates.shape[:-1]), (residuals**2).sum(-1) / max(freedom, 1)])
    for _ in range(_STEPS if freedom else 0):
        weights, _, residuals = _weighted(estimates, error_variances, variance, groups)
        sums = [weights**power @ groups for power in (1, 2, 3)]
        trace = weights.sum(-1) - (sums[1] / sums[0]).sum(-1)
        square = (weights**2).sum(-1) - 2 * (sums[2] / sums[0]).sum(-1) + ((sums[1] / sums[0]) ** 2).sum(-1)
        next_variance = np.maximum(variance + (((weights * residuals) ** 2).sum(-1) - trace) / square, 0)
        variance, step = next_variance, np.abs(next_variance - variance).max(initial=0)
        if step < _CLOSE:
            break
    weights, _, residuals = _weighted(estimates, error_variances, variance, groups)
    likelihoods = np.log(weights).sum(-1) - np.log(weights @ groups).sum(-1) - (weights * residuals**2).sum(-1)
    variance = np.where(likelihoods[1] > likelihoods[0], variance[1], variance[0])
    weights, mean, residuals = _weighted(estimates, error_variances, variance, groups)
    spread = (weights * residuals**2).sum(-1) / freedom if freedom else np.ones(estimates.shape[:-1])
    error = np.sqrt(np.maximum(spread, 1)[..., None] / (weights @ groups))
    return Fit(mean, error, variance, freedom)


def _weighted(
    estimates: np.ndarray, error_variances: np.ndarray, variance: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights of the estimates, the means of the groups, and the difference of each estimate from its
    group's mean."""
    weights = 1 / (error_variances + variance[..., None])
    mean = ((weights * estimates) @ groups) / (weights @ groups)
    return weights, mean, estimates - mean @ groups.T


def heterogeneity(errors: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return I squared: the fraction of the variance of the estimates that is between them (Higgins, Thompson,
    Statistics in Medicine 21, 2002). `variance` is the one between estimates."""
    weights = errors**-2.0
    typical = (errors.shape[-1] - 1) * weights.sum(-1) / (weights.sum(-1) ** 2 - (weights**2).sum(-1))
    return variance / (variance + typical)


def predict(estimates: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high end of the 95% prediction interval of another true value, from two estimates or more.
    The interval contains that of the mean."""
    means, deviations = _confidence(estimates, errors)
    lower_bound, upper_bound = (means - _FAR * deviations).min(-1), (means + _FAR * deviations).max(-1)

    def quantile_of(tail: float) -> np.ndarray:
        low, high = lower_bound, upper_bound
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_below = scipy.special.ndtr((middle[..., None] - means) / deviations).mean(-1) < tail
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        return (low + high) / 2

    model = fit(estimates, errors)
    mean, half = model.mean[..., 0], model.half[..., 0]
    return np.minimum(quantile_of(_TAIL), mean - half), np.maximum(quantile_of(1 - _TAIL), mean + half)


def _confidence(estimates: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence distribution of another true value, as equally likely normal distributions: means and
    standard deviations, (..., `_DRAWS`). Each is of a variance for which Q is a quantile of its chi-squared
    distribution. Newton's method finds that variance on 1 / Q, which is linear for equal errors."""
    estimates, error_variances = estimates[..., None, :], errors[..., None, :] ** 2
    quantiles = scipy.special.chdtri(estimates.shape[-1] - 1, (np.arange(_DRAWS) + 0.5) / _DRAWS)
    one_group = np.ones((estimates.shape[-1], 1))
    variance = np.zeros((*estimates.shape[:-2], _DRAWS))
    for _ in range(_NEWTONS):
        weights, mean, residuals = _weighted(estimates, error_variances, variance, one_group)
        statistic, slope = (weights * residuals**2).sum(-1), ((weights * residuals) ** 2).sum(-1)
        step = np.divide(statistic**2 / quantiles - statistic, slope, out=np.zeros_like(slope), where=slope > 0)
        variance, before = np.maximum(variance + step, 0), variance
        if (np.abs(variance - before) / (1 + variance)).max(initial=0) < _CLOSE:
            break
    weights, mean, _ = _weighted(estimates, error_variances, variance, one_group)
    return mean[..., 0], np.sqrt(variance + 1 / weights.sum(-1))
