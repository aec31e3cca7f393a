"""What the intervals, verdicts and the minimum detectable effect promise, over many simulated studies.

Noise is on the logarithmic scale: each block has a shift of its own (sd 0.05) and each trial noise (sd 0.066), as the
recorded EPYC has; trials are in random order within a block, as the lab runs them. Seeds are fixed in advance, by the
model of noise, blocks and cells. A bound is missed when it is beyond three standard errors of what was simulated.
"""

from math import log, sqrt

import numpy as np
import pandas as pd
import pytest

from rustimg_lab.analysis import comparison, recommendation, variances
from rustimg_lab.model.names import TWIN

pytestmark = pytest.mark.slow

STUDIES = 2000
BLOCK_SD, TRIAL_SD = 0.05, 0.066
BLOCKS, CELLS = (3, 5, 8, 20), (2, 6, 24)
SIDES = {"low": -1, "high": 1}


def iid(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape)


def autoregressive(weight: float, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    found = random.standard_normal((shape[0], shape[1] * shape[2]))
    for trial in range(1, found.shape[1]):
        found[:, trial] = weight * found[:, trial - 1] + sqrt(1 - weight**2) * found[:, trial]
    return found.reshape(shape)


def random_walk(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    steps = 0.3 * random.standard_normal((shape[0], shape[1] * shape[2]))
    return 0.7 * random.standard_normal(shape) + steps.cumsum(axis=1).reshape(shape)


def bursts(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Four trials in a row are slowed, again and again."""
    begins = random.random((shape[0], shape[1] * shape[2])) < 0.03
    slowed = begins.copy()
    for later in range(1, 4):
        slowed[:, later:] |= begins[:, :-later]
    return 0.7 * random.standard_normal(shape) + slowed.reshape(shape) * random.exponential(3, shape)


def t3(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_t(3, shape) / sqrt(3)


def trend(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape) + np.linspace(-3, 3, shape[1] * shape[2]).reshape(shape[1:])


def first_in_block(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    found = random.standard_normal(shape)
    found[..., 0] += 2
    return found


def ar_5(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return autoregressive(0.5, random, shape)


def ar_9(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return autoregressive(0.9, random, shape)


NOISES = [iid, ar_5, ar_9, random_walk, bursts, t3, trend, first_in_block]
SPECIAL = ["unequal variances", "one noisy cell", "noisy baseline", "failed trials"]
MODELS = [*(noise.__name__ for noise in NOISES), *SPECIAL]


def simulate(model: str, blocks: int, cells: int, studies: int = STUDIES, seed: int = 0) -> np.ndarray:
    """Logarithms of trials, (studies, blocks, cells + 1): the baseline first, its control last, and all alike."""
    random = np.random.default_rng([seed, MODELS.index(model), blocks, cells])
    shape = studies, blocks, cells + 1
    noise = dict(zip(MODELS, NOISES, strict=False)).get(model, iid)(random, shape)
    found = np.empty(shape)
    np.put_along_axis(found, random.random(shape).argsort(axis=-1), noise, axis=-1)  # from the order in time
    if model == "unequal variances":
        scales = np.geomspace(0.5, 2, cells + 1)
        found *= random.permuted(np.tile(scales, (studies, 1)), axis=1)[:, None, :]
    if model == "one noisy cell":
        found[..., 1] *= 3
    if model == "noisy baseline":
        found[..., [0, -1]] *= 3
    if model == "failed trials":
        found[random.random(shape) < 0.2] = np.nan
    return BLOCK_SD * random.standard_normal((studies, blocks, 1)) + TRIAL_SD * found


def estimates(trials: np.ndarray) -> tuple[variances.Estimates, variances.Estimates]:
    """As `comparison.compare` makes them: of the cells, and of the control."""
    baseline = variances.mean_of_two(trials[..., 0], trials[..., -1])
    control = trials[..., -1:] - trials[..., :1]
    return variances.estimate(trials[..., 1:-1] - baseline[..., None]), variances.estimate(control)


def is_apart(found: variances.Estimates, comparisons: int) -> np.ndarray:
    return (found.pairs > 1) & (np.abs(found.mean) > variances.quantile(found.freedom, comparisons) * found.error)


@pytest.mark.parametrize("model", MODELS)
def test_intervals_cover_and_few_studies_of_equal_cells_claim_a_difference(model):
    """A claim on the control, where nothing can differ, counts too. One bound is not kept: with 2 cells, 5 blocks and a
    first trial that is slower by two sds, 0.063 of studies claim a difference (of 60,000; the bound is 0.06): the
    differences have three values and little else, for which Student's t is not made."""
    for blocks in BLOCKS:
        for cells in CELLS:
            found, control = estimates(simulate(model, blocks, cells))
            inside = (np.abs(found.mean) <= variances.quantile(found.freedom) * found.error)[found.pairs > 1]
            claims = (is_apart(found, cells).any(axis=-1) | is_apart(control, cells).any(axis=-1)).mean()
            print(f"{model}, {blocks} blocks, {cells} cells: coverage {inside.mean():.3f}, false claims {claims:.3f}")
            assert claims <= 0.06 + 3 * sqrt(0.06 * 0.94 / STUDIES)
            assert blocks < 5 or inside.mean() >= 0.93


def power(trials: np.ndarray, effect: float) -> float:
    """How often the last cell, that much slower, is found so."""
    trials[..., -2] += effect
    found, _ = estimates(trials)
    slower = is_apart(found, trials.shape[-1] - 1) & (found.mean > 0)
    return slower[..., -1].mean()


def test_a_tenth_is_found_at_ten_blocks():
    found = power(simulate("iid", 10, 6, 8000), log(1.1))
    print(f"power {found:.3f}")
    assert found >= 0.75


@pytest.mark.parametrize(("blocks", "cells"), [(3, 2), (5, 6), (8, 6), (10, 2), (10, 6), (20, 24)])
def test_the_minimum_detectable_effect_is_found_with_the_power_that_it_promises(blocks, cells):
    """What a study without an effect promises, in the next ones of its kind."""
    before, _ = estimates(simulate("iid", blocks, cells, 1000))
    promised = [
        variances.minimum_effect(error, freedom, cells)
        for error, freedom in zip(before.error[:, -1], before.freedom[:, -1], strict=True)
    ]
    found = power(simulate("iid", blocks, cells, 4000, seed=1), np.mean(promised))
    print(f"{blocks} blocks, {cells} cells: minimum detectable effect {np.mean(promised):.3f} found in {found:.3f}")
    assert 0.77 <= found <= 0.88


def test_equal_variances_are_known_better_and_a_noisy_cell_keeps_its_own():
    differences = np.random.default_rng(7).normal(0, 1, (500, 8, 12))
    found = variances.estimate(differences)
    own = differences.std(axis=1, ddof=1) / sqrt(8)
    assert (found.freedom >= 7).all() and np.median(found.freedom) > 14
    assert found.error.std() < 0.8 * own.std()
    differences[..., 0] *= 5
    noisy = variances.estimate(differences)
    assert np.quantile(noisy.error[:, 0] / (5 * own[:, 0]), 0.1) > 0.95


@pytest.mark.parametrize(("blocks", "cells"), [(4, 12), (8, 4)])
def test_of_few_blocks_or_cells_each_variance_is_its_own(blocks, cells):
    differences = np.random.default_rng(8).normal(0, 1, (blocks, cells))
    found = variances.estimate(differences)
    assert found.error == pytest.approx(differences.std(axis=0, ddof=1) / sqrt(blocks))
    assert (found.freedom == blocks - 1).all()


def test_a_study_is_compared_as_the_simulated_ones_are():
    """The frame of `compare`, of one simulated study with failed trials, cell by cell."""
    trials = simulate("failed trials", 12, 6)[0]
    names = ["a", *"bcdef", f"a{TWIN}"]
    frame = pd.DataFrame(np.exp(trials), columns=names).rename_axis("block").reset_index()
    compared = comparison.compare(frame.melt("block", var_name="cell").dropna(), "a", cells=names).set_index("cell")
    found, control = estimates(trials)
    for at, cell in enumerate("bcdef"):
        assert log(compared.loc[cell, "ratio"]) == pytest.approx(found.mean[at])
        assert compared.loc[cell, "freedom"] == pytest.approx(found.freedom[at]) and found.freedom[at] > 11
        half = variances.quantile(found.freedom[at]) * found.error[at]
        assert log(compared.loc[cell, "high"]) == pytest.approx(found.mean[at] + half)
    assert log(compared.loc[f"a{TWIN}", "ratio"]) == pytest.approx(control.mean[0])


@pytest.mark.parametrize("model", ["iid", "unequal variances", "failed trials"])
@pytest.mark.parametrize("blocks", [5, 20])
def test_a_sure_choice_of_the_fastest_is_right(model, blocks):
    """Cells differ by 5% (sd). Draws that ignore what the ratios have in common are sure of fewer studies."""
    random, cells, studies, sure = np.random.default_rng(9), 6, 600, {"joint": [], "independent": []}
    effects = random.normal(0, 0.05, (studies, cells + 1))
    effects[:, -1] = effects[:, 0]  # the control
    trials = simulate(model, blocks, cells, studies) + effects[:, None]
    means, _ = estimates(trials)
    known = np.insert(means.pairs > 1, 0, True, axis=1)  # a cell with fewer is not among those that can be selected
    fastest = np.where(known, effects[:, :-1], np.inf).argmin(axis=1)
    is_right = fastest == np.nanargmin(np.insert(means.mean, 0, 0, axis=1), axis=1)
    for study in range(studies):
        mean, error, freedom, pairs = (getattr(means, name)[study] for name in ("mean", "error", "freedom", "pairs"))
        ends = {side: np.exp(mean + sign * variances.quantile(freedom) * error) for side, sign in SIDES.items()}
        summary = pd.DataFrame({"mean": np.exp(mean), **ends, "freedom": freedom, "trials": pairs})
        baseline = variances.mean_of_two(trials[study, :, 0], trials[study, :, -1])
        differences = trials[study, :, 1:-1] - baseline[:, None]
        for kind, logs in (("joint", differences), ("independent", None)):
            drawn = np.nanargmin(np.insert(variances.draw_means(summary, 500, random, logs), 0, 1, axis=1), axis=1)
            sure[kind].append((drawn == np.nanargmin(np.insert(mean, 0, 0))).mean() >= recommendation.SURE)
    joint, independent = (np.array(sure[kind]) for kind in ("joint", "independent"))
    right = is_right[joint].mean()
    print(
        f"{model}, {blocks} blocks: sure in {joint.mean():.3f} (before {independent.mean():.3f}), right in {right:.3f}"
    )
    assert right >= recommendation.SURE - 3 * sqrt(0.05 * 0.95 / joint.sum())
    assert joint.mean() >= independent.mean()


def test_draws_of_two_cells_differ_by_the_interval_of_their_own_ratio():
    """Neither is the baseline, and both ratios have its noise in them."""
    trials = simulate("noisy baseline", 8, 3)[0]
    frame = pd.DataFrame(np.exp(trials), columns=["a", "b", "c", f"a{TWIN}"]).rename_axis("block").reset_index()
    frame = frame.melt("block", var_name="cell")
    table = comparison.compare(frame, "a").set_index("cell").loc[["b", "c"]]
    logs = comparison.differences(comparison.logarithms(frame), "a")[["b", "c"]].to_numpy()
    summary = table.rename(columns={"ratio": "mean", "pairs": "trials"})
    drawn = variances.draw_means(summary, 100_000, np.random.default_rng(3), logs)
    own = comparison.compare(frame[frame["cell"].isin(["b", "c"])], "b").set_index("cell").loc["c"]
    assert np.quantile(drawn[:, 1] / drawn[:, 0], [0.025, 0.975]) == pytest.approx(
        own[["low", "high"]].tolist(), rel=0.01
    )
    for place, cell in enumerate(["b", "c"]):
        assert np.quantile(drawn[:, place], [0.025, 0.975]) == pytest.approx(
            table.loc[cell, ["low", "high"]].tolist(), rel=0.01
        )
    far = variances.draw_means(summary, 100_000, np.random.default_rng(3))
    assert np.ptp(np.quantile(far[:, 1] / far[:, 0], [0.025, 0.975])) > 1.5 * (own["high"] - own["low"])
