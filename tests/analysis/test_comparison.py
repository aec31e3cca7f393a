"""Ratios and verdicts: worked by hand where that can be done, and by simulation with seeds fixed in advance.

The simulated noise is this kind of machine's: per trial normal on the logarithmic scale with sd 0.064, and one trial in
ten slowed by an exponential of mean 0.3 more.
"""

import math

import numpy as np
import pandas as pd
import pytest

from rustimg_lab.analysis import comparison
from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN

SPECIAL = ["base", "one", "two", "three", "four", f"base{TWIN}"]


def samples(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"cell": cell, "block": block, "value": v} for cell, all_ in values.items() for block, v in enumerate(all_)]
    )


def study(random: np.random.Generator, cells: list[str], blocks: int, effects: dict[str, float]) -> pd.DataFrame:
    """A simulated study: what a block's machine does to all, the noise of each trial, and the cells' true ratios."""
    shape = blocks, len(cells)
    logs = random.normal(0, 0.064, shape) + (random.random(shape) < 0.1) * random.exponential(0.3, shape)
    logs += random.normal(0, 0.3, (blocks, 1)) + np.log([effects.get(cell, 1) for cell in cells])
    frame = pd.DataFrame(np.exp(logs), columns=cells).rename_axis("block").reset_index()
    return frame.melt("block", var_name="cell")


def test_a_ratio_and_its_interval_worked_by_hand():
    found = comparison.compare(
        samples(a=[1, 1, 1], b=[2, 2 * math.e, 2 / math.e], **{f"a{TWIN}": [1, 1, 1]}), "a"
    ).set_index("cell")
    half = 4.302652729749462 * 1 / math.sqrt(3)  # t(0.975, 2 degrees of freedom), sd of log 2 + {0, 1, -1}
    together = 6.205346816570711 / math.sqrt(3)  # t(1 - 0.05 / 4, 2 degrees of freedom): two comparisons
    b = found.loc["b"]
    assert b[["ratio", "low", "high", "low_all", "high_all"]].tolist() == pytest.approx(
        [2, *(2 * math.exp(x) for x in (-half, half, -together, together))]
    )
    assert b["pairs"] == 3 and b["verdict"] == Verdict.TOO_NOISY
    assert found.loc[f"a{TWIN}", "verdict"] == Verdict.NO_DIFFERENCE and found.loc[f"a{TWIN}", "is_twin"]


@pytest.mark.parametrize(("lower_is_better", "words"), [(True, ("slower", "faster")), (False, ("faster", "slower"))])
def test_what_is_faster_depends_on_what_is_measured(lower_is_better, words):
    frame = samples(a=[1.0] * 4, up=[2.0, 2.01, 1.99, 2], down=[0.5] * 4, **{f"a{TWIN}": [1, 1.01, 0.99, 1]})
    found = comparison.compare(frame, "a", about=metrics.Metric("", lower_is_better=lower_is_better)).set_index("cell")
    assert (found.loc["up", "verdict"], found.loc["down", "verdict"]) == words


def test_what_is_inside_the_twins_noise_is_no_difference():
    """An interval that excludes 1, by less than the same image differs from itself."""
    frame = samples(a=[1.0] * 4, b=[1.02, 1.021, 1.019, 1.02], **{f"a{TWIN}": [1.05, 0.96, 1.04, 0.97]})
    found = comparison.compare(frame, "a").set_index("cell")
    assert found.loc["b", "low_all"] > 1 and found.loc["b", "verdict"] == Verdict.NO_DIFFERENCE
    assert found.loc["b", "detectable"] == found_floor(frame) > 1.02


def found_floor(frame: pd.DataFrame) -> float:
    return comparison.compare(frame, "a").attrs["floor"]


def test_the_twins_own_test_does_not_use_the_floor_that_it_defines():
    frame = samples(a=[1.0] * 4, **{f"a{TWIN}": [1.2, 1.21, 1.19, 1.2]})
    assert comparison.compare(frame, "a").loc[0, "verdict"] == "slower"


def test_with_another_baseline_the_twin_is_still_held_against_its_own_image():
    frame = samples(a=[1.0] * 4, b=[2, 2.01, 2, 1.99], **{f"a{TWIN}": [1.1, 0.9, 1.1, 0.9]})
    one, other = (comparison.compare(frame, baseline).set_index("cell") for baseline in ("a", "b"))
    assert other.loc[f"a{TWIN}", "ratio"] == one.loc[f"a{TWIN}", "ratio"]
    assert other.attrs["floor"] == one.attrs["floor"] > 1
    assert other.loc["a", "ratio"] == pytest.approx(1 / one.loc["b", "ratio"])


def test_a_lost_trial_takes_its_pair_with_it():
    frame = samples(a=[1.0] * 4, b=[2, 2, 2.1, 2], **{f"a{TWIN}": [1, 1.01, 1, 1]})
    found = comparison.compare(frame[~((frame["cell"] == "b") & (frame["block"] == 2))], "a").set_index("cell")
    assert found["pairs"].to_dict() == {"b": 3, f"a{TWIN}": 4}
    assert found.loc["b", "ratio"] == pytest.approx(2)


@pytest.mark.parametrize("blocks", [0, 1])
def test_with_fewer_than_two_pairs_nothing_is_claimed(blocks):
    frame = samples(a=[1.0, 1.0], **{"b": [2.0, 2.0][:blocks], f"a{TWIN}": [1.0, 1.0]})
    frame = pd.concat([frame, samples(b=[2.0]).assign(block=9)])
    found = comparison.compare(frame, "a").set_index("cell")
    assert found.loc["b", "pairs"] == blocks and found.loc["b", "verdict"] == Verdict.TOO_NOISY


def test_without_a_twin_there_is_no_floor_and_no_claim():
    found = comparison.compare(samples(a=[1.0] * 5, b=[2, 2.01, 2, 1.99, 2]), "a")
    assert found.loc[0, "verdict"] == Verdict.TOO_NOISY and found.attrs["floor"] == math.inf


def test_what_repeats_to_the_last_digit_has_an_interval_of_no_width():
    frame = samples(a=[7.0] * 3, b=[8.0] * 3, **{f"a{TWIN}": [7.0] * 3})
    found = comparison.compare(frame, "a").set_index("cell")
    assert found.loc["b", ["low", "high"]].tolist() == pytest.approx([8 / 7, 8 / 7])
    assert found["verdict"].to_dict() == {"b": "slower", f"a{TWIN}": Verdict.NO_DIFFERENCE}


def test_a_baseline_that_is_not_there_and_a_value_without_a_logarithm():
    with pytest.raises(LabError, match="baseline c has no trial"):
        comparison.compare(samples(a=[1.0], b=[1.0]), "c")
    with pytest.raises(LabError, match="0 or below"):
        comparison.compare(samples(a=[1.0], b=[0.0]), "a")


@pytest.mark.parametrize("blocks", [10, 20, 40])
def test_nominal_95_percent_intervals_cover_at_least_93(blocks):
    random = np.random.default_rng(20261124 + blocks)
    held = held_all = 0
    for _ in range(1000):
        found = comparison.compare(study(random, ["base", "one", f"base{TWIN}"], blocks, {"one": 1.1}), "base")
        one = found.set_index("cell").loc["one"]
        held += one["low"] <= 1.1 <= one["high"]
        held_all += one["low_all"] <= 1.1 <= one["high_all"]
    print(f"{blocks} blocks: coverage {held / 1000:.3f}, for all comparisons at once {held_all / 1000:.3f}")
    assert held_all >= held >= 930


def test_of_400_studies_of_identical_cells_few_claim_a_difference():
    """At most 29: the 97.5% limit of a true 5%. A claim on the twin, where nothing can differ, counts too."""
    random = np.random.default_rng(20261125)
    claims = 0
    for _ in range(400):
        verdicts = comparison.compare(study(random, SPECIAL, 20, {}), "base")["verdict"]
        claims += verdicts.isin(["faster", "slower"]).any()
    print(f"{claims} of 400 claim a difference")
    assert claims <= 29


def test_a_true_difference_of_a_quarter_is_found_at_20_blocks():
    random = np.random.default_rng(20261126)
    found = {}
    for ratio in (1.05, 1.1, 1.25):
        verdicts = [
            comparison.compare(study(random, SPECIAL, 20, {"one": ratio}), "base").set_index("cell")["verdict"]
            for _ in range(300)
        ]
        found[ratio] = np.mean([each["one"] == "slower" for each in verdicts])
    print("power:", found)
    assert found[1.25] >= 0.8
    assert found[1.05] <= found[1.1] <= found[1.25]


def test_a_summary_has_the_geometric_mean_and_its_interval():
    found = comparison.summarize(samples(a=[1.0, 4.0], b=[3.0])).set_index("cell")
    assert found.loc["a", "mean"] == pytest.approx(2)
    half = 12.706204736432095 * math.log(2)  # t(0.975, 1 degree of freedom) x sd / sqrt(2)
    assert found.loc["a", ["low", "high"]].tolist() == pytest.approx([2 * math.exp(-half), 2 * math.exp(half)])
    assert found.loc["b", "trials"] == 1 and math.isnan(found.loc["b", "low"])
