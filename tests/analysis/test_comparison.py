"""Ratios and verdicts, worked by hand. What holds over many studies is in test_simulations.py."""

import math

import pandas as pd
import pytest

from rustimg_lab.analysis import comparison
from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.store import runs


def samples(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"cell": cell, "block": block, "value": v} for cell, all_ in values.items() for block, v in enumerate(all_)]
    )


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


def test_the_control_measures_the_baseline_a_second_time():
    """Of each block the mean of the two logarithms is what a cell is compared with."""
    frame = samples(a=[1.0, 1.0, 4.0], b=[2.0, 4.0, 4.0], **{f"a{TWIN}": [4.0, 1.0, 1.0]})
    found = comparison.compare(frame, "a").set_index("cell")
    assert found.loc["b", "ratio"] == pytest.approx(2)  # of 1, 4 and 2
    one_lost = comparison.compare(frame[~((frame["cell"] == "a") & (frame["block"] == 2))], "a").set_index("cell")
    assert one_lost.loc["b", "ratio"] == pytest.approx(16 ** (1 / 3)) and one_lost.loc["b", "pairs"] == 3
    assert one_lost.loc[f"a{TWIN}", "pairs"] == 2


def test_a_control_that_differs_from_its_image_is_an_alarm():
    """Then nothing is claimed that the control could explain, and the study says so."""
    frame = samples(a=[1.0] * 4, b=[1.15, 1.151, 1.149, 1.15], c=[3.0] * 4, **{f"a{TWIN}": [1.2, 1.21, 1.19, 1.2]})
    found = comparison.compare(frame, "a")
    by = found.set_index("cell")["verdict"]
    assert by[f"a{TWIN}"] == by["c"] == "slower" and by["b"] == Verdict.NO_DIFFERENCE
    assert found.attrs["floor"] == found.attrs["control"] > 1.2
    assert "the A/A control differs from its own image" in found.attrs["warning"]
    quiet = comparison.compare(frame.assign(value=frame["value"].where(~frame["cell"].str.endswith(TWIN), 1.0)), "a")
    assert quiet.set_index("cell").loc["b", "verdict"] == "slower" and quiet.attrs["floor"] == 1
    assert "control" not in quiet.attrs["warning"]


def test_with_another_baseline_the_twin_is_still_held_against_its_own_image():
    frame = samples(a=[1.0] * 4, b=[2, 2.01, 2, 1.99], **{f"a{TWIN}": [1.1, 0.9, 1.1, 0.9]})
    one, other = (comparison.compare(frame, baseline).set_index("cell") for baseline in ("a", "b"))
    assert other.loc[f"a{TWIN}", "ratio"] == one.loc[f"a{TWIN}", "ratio"]
    assert other.attrs["control"] == one.attrs["control"] > 1
    assert other.loc["a", "ratio"] == pytest.approx(1 / one.loc["b", "ratio"])


def test_a_lost_trial_takes_its_pair_with_it():
    frame = samples(a=[1.0] * 4, b=[2, 2, 2.1, 2], **{f"a{TWIN}": [1, 1, 1.01, 1]})
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


def limits(**values: list[float]) -> pd.DataFrame:
    frame = samples(**values)
    about = metrics.SMALLEST_LIMIT_BYTES
    frame.attrs = {"resolution": math.log(2) / 64, "at_least": set(frame.loc[frame["value"] <= about.least, "cell"])}
    return comparison.compare(frame, "a", about=about).set_index("cell")


def test_a_limit_at_the_engines_minimum_is_at_most_that():
    least = float(metrics.SMALLEST_LIMIT_BYTES.least)
    wide = [3 * least, 3.1 * least, 2.9 * least, 3 * least]
    found = limits(a=wide, b=[least] * 4, c=wide, **{f"a{TWIN}": wide})
    b = found.loc["b"]
    assert b["low"] == b["low_all"] == 0 and 0.3 < b["high_all"] < 0.4 and b["verdict"] == "less"
    other = limits(a=[least] * 4, b=wide, c=[least] * 4, **{f"a{TWIN}": [least] * 4})
    assert other.loc["b", "high"] == math.inf and other.loc["b", "verdict"] == "more"
    for unknown in ("c", f"a{TWIN}"):
        assert other.loc[unknown, "verdict"] == Verdict.AT_MINIMUM and math.isnan(other.loc[unknown, "ratio"])
    near = limits(a=[1.001 * least] * 4, b=[least] * 4, **{f"a{TWIN}": [1.001 * least] * 4})
    assert near.loc["b", "verdict"] == Verdict.AT_MINIMUM


def test_a_control_at_the_minimum_leaves_the_ratios_open_too():
    """Cells are compared with the mean of the baseline and its control, of which one may be less than it reads."""
    least = float(metrics.SMALLEST_LIMIT_BYTES.least)
    table = limits(a=[1.002 * least] * 4, b=[3 * least] * 4, **{f"a{TWIN}": [least] * 4})
    assert table.loc["b", "high"] == table.loc["b", "high_all"] == math.inf
    assert table.loc["b", "low"] > 2.9


def test_no_interval_is_narrower_than_the_resolution():
    many = 3.0 * metrics.SMALLEST_LIMIT_BYTES.least
    found = limits(a=[many] * 4, b=[1.005 * many] * 4, c=[1.05 * many] * 4, **{f"a{TWIN}": [many] * 4})
    step = 2 ** (1 / 64)
    for cell in ("b", "c", f"a{TWIN}"):
        one = found.loc[cell]
        assert one["low"] == pytest.approx(one["ratio"] / step) and one["high"] == pytest.approx(one["ratio"] * step)
    assert found.loc["b", "verdict"] == Verdict.NO_DIFFERENCE and found.loc["b", "detectable"] >= step
    assert found.loc["c", "verdict"] == "more"


@pytest.mark.parametrize("study", ["memory-limit-batch-1w-16c", "memory-limit-batch-1w-1000c"])
def test_recorded_limits_are_bounded_by_what_could_be_measured(study):
    run = runs.load("recorded/memory")
    trials = comparison.samples(run, study, metrics.SMALLEST_LIMIT_BYTES)
    assert math.exp(trials.attrs["resolution"]) == pytest.approx(1.0109, abs=1e-4)
    found = comparison.of_study(run, study)
    known = found[found["ratio"].notna()]
    assert (known["high"] / known["low"] >= 1.0109**2 * 0.9999).all()
    at_least = trials["value"].le(metrics.SMALLEST_LIMIT_BYTES.least).groupby(trials["cell"]).any()
    assert at_least.any() == ("16c" in study)
    summary = comparison.summarize(trials).set_index("cell")
    assert (summary["low"].eq(0) == at_least[summary.index]).all()
    both = at_least[found.attrs["baseline"]] & found["cell"].map(at_least)
    assert found.loc[both, "verdict"].eq(Verdict.AT_MINIMUM).all()


def test_a_summary_has_the_geometric_mean_and_its_interval():
    found = comparison.summarize(samples(a=[1.0, 4.0], b=[3.0])).set_index("cell")
    assert found.loc["a", "mean"] == pytest.approx(2)
    half = 12.706204736432095 * math.log(2)  # t(0.975, 1 degree of freedom) x sd / sqrt(2)
    assert found.loc["a", ["low", "high"]].tolist() == pytest.approx([2 * math.exp(-half), 2 * math.exp(half)])
    assert found.loc["b", "trials"] == 1 and math.isnan(found.loc["b", "low"])


def test_the_note_on_few_blocks_names_the_effect_and_claims_nothing_else():
    noisy = samples(a=[1, 1.01, 0.99], b=[2, 2.02, 1.99], c=[1, 9, 0.2], **{f"a{TWIN}": [1, 1, 1.01]})
    table = comparison.compare(noisy, "a").set_index("cell")
    assert table.loc["b", "verdict"] == Verdict.SLOWER
    assert table.attrs["warning"].endswith("a short study (3 blocks): its minimum detectable effect is over 900%")
