"""Random effects: published figures, intervals that cover what was drawn, and the limits in which the answer is known
from elsewhere."""

import numpy as np
import pytest
from scipy.special import stdtrit

from rustimg_lab.analysis import random_effects

pytestmark = pytest.mark.slow

STUDIES = 1000
# Trials of the BCG vaccine (Colditz et al., JAMA 271, 1994): with tuberculosis and without, vaccinated and not.
BCG = [
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
    (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
]  # fmt: skip


def drawn(machines: int, tau: float, kind: str = "known") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log ratios of many groups of machines, their standard errors, and the log ratio of one more machine. Errors are
    from .01 to .05; `estimated`: from 5 to 20 blocks each."""
    random = np.random.default_rng(20261127)
    errors = random.uniform(0.01, 0.05, (STUDIES, machines))
    logs = random.normal(0, tau, (STUDIES, machines)) + random.normal(0, errors)
    if kind == "estimated":
        freedom = random.integers(4, 20, errors.shape)
        errors = errors * np.sqrt(random.chisquare(freedom) / freedom)
    return logs, errors, random.normal(0, tau, STUDIES)


def test_the_figures_of_the_bcg_trials_are_those_of_metafor():
    """Of R's metafor (Viechtbauer, J. Stat. Softw. 36, 2010), by REML; the interval is that of PyMARE 0.0.13 too."""
    a, b, c, d = np.array(BCG, float).T
    logs, errors = np.log(a / (a + b) * (c + d) / c), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    found = random_effects.fit(logs, errors)
    assert found.variance == pytest.approx(0.3132, abs=5e-5)
    assert found.mean[0] == pytest.approx(-0.7145, abs=5e-5) and found.error[0] == pytest.approx(0.1808, abs=5e-5)
    assert found.mean[0] + found.half[0] * np.array([-1, 1]) == pytest.approx([-1.1084, -0.3206], abs=5e-5)
    assert random_effects.heterogeneity(errors, found.variance) == pytest.approx(0.9222, abs=5e-5)


def test_equal_errors_have_the_answer_of_an_analysis_of_variance():
    random = np.random.default_rng(1)
    logs, errors = random.normal(0, 0.1, (50, 6)), np.full((50, 6), 0.06)
    found = random_effects.fit(logs, errors)
    assert found.variance == pytest.approx(np.maximum(logs.var(axis=1, ddof=1) - 0.06**2, 0))
    assert (found.variance == 0).any() and found.freedom == 5
    groups = np.repeat(np.eye(3), 2, axis=0)
    within = random_effects.fit(logs, errors, groups)
    pairs = logs.reshape(50, 3, 2)
    assert within.mean == pytest.approx(pairs.mean(axis=2)) and within.freedom == 3
    assert within.variance == pytest.approx(np.maximum(pairs.var(axis=2, ddof=1).mean(axis=1) - 0.06**2, 0))


def test_of_two_optima_the_more_likely_one_is_the_fit():
    """Beside the one at 0, where scoring from 0 stays."""
    logs = np.array([-0.027, -0.096, 0.231, -0.022, 0.05, -0.015])
    errors = np.array([0.013, 0.093, 0.065, 0.011, 0.067, 0.054])

    def likelihood(variance: np.ndarray) -> np.ndarray:
        weights = 1 / (errors**2 + variance[:, None])
        mean = (weights * logs).sum(1) / weights.sum(1)
        rest = (weights * (logs - mean[:, None]) ** 2).sum(1)
        return np.log(weights).sum(1) - np.log(weights.sum(1)) - rest

    tried = np.linspace(0, 0.3, 3001) ** 2
    best = tried[likelihood(tried).argmax()]
    assert np.sqrt(best) == pytest.approx(0.083, abs=1e-3)
    assert random_effects.fit(logs, errors).variance == pytest.approx(best, rel=0.01)
    stacked = random_effects.fit(np.stack([logs, 0 * logs]), np.stack([errors, errors])).variance
    assert stacked == pytest.approx([best, 0], rel=0.01)


def test_groups_of_one_estimate_each_are_what_they_were():
    logs, errors = np.array([-1.0, 0.5]), np.array([0.01, 0.02])
    found = random_effects.fit(logs, errors, np.eye(2))
    assert (found.mean.tolist(), found.variance, found.freedom) == (logs.tolist(), 0, 0)
    assert found.error == pytest.approx(errors) and np.isnan(found.half).all()


@pytest.mark.parametrize("machines", [2, 3, 5, 8])
def test_without_errors_the_prediction_interval_is_students(machines):
    logs = np.random.default_rng(machines).normal(0, 0.25, machines)
    low, high = random_effects.predict(logs, np.full(machines, 1e-7))
    half = stdtrit(machines - 1, 0.975) * logs.std(ddof=1) * np.sqrt(1 + 1 / machines)
    assert (low, high) == pytest.approx((logs.mean() - half, logs.mean() + half), rel=0.01)


@pytest.mark.parametrize("kind", ["known", "estimated"])
@pytest.mark.parametrize("machines", [3, 5, 8])
def test_the_prediction_interval_covers_another_machine(machines, kind):
    for tau in (0, 0.05, 0.1, 0.25):
        logs, errors, another = drawn(machines, tau, kind)
        low, high = random_effects.predict(logs, errors)
        covered = ((low <= another) & (another <= high)).mean()
        found = random_effects.fit(logs, errors)
        mean, half = found.mean[:, 0], found.half[:, 0]
        held = (abs(mean) <= half).mean()
        print(f"{machines} machines, tau {tau}, {kind}: {covered:.3f} of predictions, {held:.3f} of means")
        assert covered >= 0.93 and held >= 0.93
        assert (low <= mean - half).all() and (mean + half <= high).all()


def test_the_one_variance_of_reml_would_cover_less():
    logs, errors, another = drawn(8, 0.02)
    found = random_effects.fit(logs, errors)
    half = stdtrit(7, 0.975) * np.sqrt(found.variance + found.error[:, 0] ** 2)
    assert (abs(another - found.mean[:, 0]) <= half).mean() < 0.9
    low, high = random_effects.predict(logs, errors)
    assert ((low <= another) & (another <= high)).mean() >= 0.93


@pytest.mark.parametrize(("machines", "factor"), [(2, 14.6), (3, 2.8), (5, 2.0), (8, 1.8)])
def test_a_prediction_narrows_with_the_machines(machines, factor):
    logs, errors, _ = drawn(machines, 0.25)
    low, high = random_effects.predict(logs, errors)
    assert np.median(high - low) / 2 == pytest.approx(np.log(factor), rel=0.1)


def test_a_prediction_from_sessions_covers_another_machine():
    random, machines = np.random.default_rng(20261127), 5
    errors = random.uniform(0.01, 0.05, (STUDIES, 2 * machines))
    for tau, between in ((0, 0.05), (0.05, 0.03), (0.25, 0.05)):
        true = np.repeat(random.normal(0, tau, (STUDIES, machines)), 2, axis=1)
        logs = true + random.normal(0, between, errors.shape) + random.normal(0, errors)
        within = random_effects.fit(logs, errors, np.repeat(np.eye(machines), 2, axis=0))
        low, high = random_effects.predict(within.mean, within.error)
        another = random.normal(0, tau, STUDIES)
        assert ((low <= another) & (another <= high)).mean() >= 0.93
        assert np.sqrt(within.variance.mean()) == pytest.approx(between, rel=0.15)  # one below 0 counts as 0
