"""Which knob bought what: shares against hand-computed ones, effects and predictions on runs that are made up."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lab import forget

from rustimg_lab.analysis import attribution, factorials
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import Study, Treatment
from rustimg_lab.model import factorial, matrix, metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.paths import REPORTS
from rustimg_lab.report import plots, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

pytestmark = pytest.mark.slow

KNOBS = ["strip", "lto-fat", "opt-z"]
BASE = {"debian": 80_000_000, "scratch": 0}


def sets(knobs: list) -> list[frozenset]:
    return [frozenset(chosen) for size in range(len(knobs) + 1) for chosen in combinations(knobs, size)]


def test_shares_of_two_knobs_are_those_by_hand():
    values = {frozenset(): 10.0, frozenset("a"): 7.0, frozenset("b"): 6.0, frozenset("ab"): 1.0}
    # a: (7 - 10 + 1 - 6) / 2, b: (6 - 10 + 1 - 7) / 2
    assert attribution.shapley(values, ["a", "b"]) == {"a": -4.0, "b": -5.0}


def test_shares_of_three_knobs_are_those_by_hand():
    told = {"": 0, "a": 12, "b": 6, "c": 3, "ab": 24, "ac": 15, "bc": 9, "abc": 36}
    found = attribution.shapley({frozenset(name): float(value) for name, value in told.items()}, ["a", "b", "c"])
    # a: 12/3 + (24 - 6)/6 + (15 - 3)/6 + (36 - 9)/3, and the others so
    assert found == pytest.approx({"a": 18.0, "b": 12.0, "c": 6.0})


@given(st.integers(2, 6).flatmap(
    lambda count: st.tuples(st.just(count), st.lists(st.floats(-1e9, 1e9), min_size=2**count, max_size=2**count))
))  # fmt: skip
def test_shares_sum_up_to_the_whole_and_hang_on_no_order(of):
    count, numbers = of
    knobs = list(range(count))
    values = dict(zip(sets(knobs), numbers, strict=True))
    found = attribution.shapley(values, knobs)
    whole = values[frozenset(knobs)] - values[frozenset()]
    assert sum(found.values()) == pytest.approx(whole, abs=1e-4)
    assert attribution.shapley(values, knobs[::-1]) == pytest.approx(found, abs=1e-4)


def app_bytes(cell, third: float = 0.0) -> float:
    """A size with known effects: ratios of the knobs, one of two together, and one of three, which no model has."""
    on = {*cell.profile.name.split("+"), cell.base.name, cell.allocator}
    ratios = {"strip": 0.7, "lto-fat": 0.85, "opt-z": 0.8, "unit-1": 0.95, "abort": 0.97, "scratch": 1.1,
              "jemalloc": 1.05}  # fmt: skip
    log = sum(np.log(ratio) for name, ratio in ratios.items() if name in on)
    log += np.log(0.9) * ({"strip", "opt-z"} <= on) + third * ({"strip", "opt-z", "lto-fat"} <= on)
    return 6e6 * np.exp(log)


def made_up(cells, monkeypatch, path, study: bool = False, third: float = 0.0, failed: tuple = ()):
    """A run of these cells, or of a study of them, of 12 blocks, with noise of 2%."""
    monkeypatch.setattr(runs, "RUNS", path)
    generator = np.random.default_rng(5)
    with runs.open_run("f", {}) as run:
        for cell in cells:
            if cell.slug in failed:
                run.append(cell, "", [Observation("built", False, ok=False, reason="no")])
                continue
            app, below = round(app_bytes(cell, third)), BASE[cell.base.name]
            sizes = {"app_bytes": app, "base_bytes": below, "unpacked_bytes": app + below, "runs": True}
            run.append(cell, "sha256:1", [Observation(name, value) for name, value in sizes.items()])
        if study:
            treatments = [Treatment(cell, "sha256:1", cell.slug) for cell in cells]
            treatments.append(Treatment(cells[0], "sha256:1", cells[0].slug + TWIN))

            def observe(treatment: Treatment) -> list[Observation]:
                noise = np.exp(0.02 * generator.standard_normal())
                return [Observation("cpu_us_per_request", app_bytes(treatment.cell) / 1e4 * noise)]

            load = {"workload": "batch", "workers": 1, "connections": 16, "of": "load", "warning": ""}
            names = [each.name for each in treatments]
            plan = Study("throughput-batch", "throughput", load, tuple(treatments), cells[0].slug,
                         "cpu_us_per_request", 12, 1, contents=dict.fromkeys(names, "0"))  # fmt: skip
            trials.run_in_turns([(plan, observe)], run)
    return runs.load("f")


@pytest.fixture
def whole(tmp_path, monkeypatch):
    cells = factorial.cells(["debian", "scratch"], KNOBS, ["system"], "trixie")
    return made_up(cells, monkeypatch, tmp_path, study=True)


def test_shares_lead_from_the_largest_plain_image_to_the_smallest(whole):
    found = attribution.shares(factorials.find_factorial(whole, metrics.IMAGE))
    assert (found.attrs["start"], found.attrs["target"]) == (
        "debian-baseline-system", "scratch-strip_lto-fat_opt-z-system",
    )  # fmt: skip
    assert found["share"].sum() == pytest.approx(found.attrs["to"] - found.attrs["from"])
    assert found["of_whole"].sum() == pytest.approx(1) and set(found["verdict"]) == {"exact"}
    by = found.set_index("knob")["share"]
    assert by.index[0] == "base" and by["base"] == pytest.approx(-80e6, rel=0.02)
    assert by["strip"] < by["lto-fat"] < 0
    told = views.attribution.in_words(found)
    assert told.startswith("**the image's bytes on disk**, from 86.00 MB (debian-baseline-system) to ")
    assert "base: scratch \u2212" in told and "; strip \u2212" in told


def test_a_target_that_is_named_leaves_out_what_it_has_in_common(whole):
    found = attribution.shares(factorials.find_factorial(whole, metrics.APP), "debian-strip_lto-fat-system")
    assert set(found["knob"]) == {"strip", "lto-fat"}
    # of two knobs that multiply: 6 MB, 4.2, 5.1, 3.57
    by = found.set_index("knob")["share"]
    assert by["strip"] == pytest.approx(((4.2 - 6) + (3.57 - 5.1)) / 2 * 1e6, abs=2)


def test_effects_are_the_ratios_that_were_put_in(whole):
    found = attribution.effects(factorials.find_factorial(whole, metrics.APP)).set_index("knobs")
    single = found[found["order"] == 1]
    assert single.loc["lto-fat", "ratio"] == pytest.approx(0.85, rel=1e-5)
    assert single.loc["strip", ["least", "most"]].tolist() == pytest.approx([0.63, 0.7], rel=1e-5)
    assert single.index[0] == "strip"
    pairs = found[found["order"] == 2]
    assert pairs.index[0] == "strip x opt-z" and pairs["ratio"].iloc[0] == pytest.approx(0.9, rel=1e-5)
    assert pairs["ratio"].iloc[1:].to_numpy() == pytest.approx(np.ones(len(pairs) - 1), rel=1e-5)


def test_shares_of_a_study_have_intervals_that_hold_what_was_put_in(whole):
    exact = attribution.shares(factorials.find_factorial(whole, metrics.APP)).set_index("knob")
    found = attribution.shares(factorials.find_factorial(whole, "cpu")).set_index("knob")
    assert (found.attrs["blocks"], found.attrs["chosen_on"]) == (9, 3) and found["share"].sum() == pytest.approx(
        found.attrs["whole"]
    )
    assert set(found["verdict"]) <= {"less", "more", Verdict.NO_DIFFERENCE}
    assert found.loc["strip", "verdict"] == "less" and found.loc["strip", "high"] < 0
    for knob in ("strip", "lto-fat", "opt-z"):
        low, high = found.loc[knob, ["low", "high"]]
        half = (high - low) / 2  # 95% hold it; twice as wide an interval all but one in ten thousand
        assert low - half < exact.loc[knob, "share"] / 1e4 < high + half
        assert half < 0.02 * found.attrs["from"]


def simulated(random: np.random.Generator, effects: dict[str, float], blocks: int = 8) -> factorials.Factorial:
    """A study of the eight cells of three knobs, with these effects and the noise of the recorded EPYC."""
    turned = pd.DataFrame([{knob: knob in chosen for knob in KNOBS} for chosen in sets(KNOBS)])
    turned.index = ["-".join(["cell", *chosen]) for chosen in map(sorted, sets(KNOBS))]
    logs = turned.astype(float) @ pd.Series([effects.get(knob, 0.0) for knob in KNOBS], KNOBS)
    noise = random.normal(0, 0.066, (8, blocks)) + random.normal(0, 0.05, blocks)
    values = pd.DataFrame(100 * np.exp(logs.to_numpy()[:, None] + noise), turned.index)
    knobs = dict.fromkeys(KNOBS, ("off", "on"))
    return factorials.Factorial("s", metrics.CPU_US_PER_REQUEST, "cell", ("", "", ""), knobs, turned, values)


def test_a_contribution_of_a_tenth_is_found_and_the_whole_is_not_overstated():
    """At 8 blocks, of which two choose the target: with all 8 it would be 0.82. Knobs that do nothing add 0, within
    three standard errors of 400 studies."""
    random = np.random.default_rng(20)
    found = [attribution.shares(simulated(random, {"strip": np.log(0.9)})) for _ in range(400)]
    claimed = [each.set_index("knob")["verdict"].get("strip") == Verdict.LESS for each in found]
    others = [each.loc[each["knob"] != "strip", "share"].sum() for each in found]
    print(f"claimed {np.mean(claimed):.3f}; what does nothing adds {np.mean(others):.2f} of 100")
    assert np.mean(claimed) >= 0.7
    assert abs(np.mean(others)) <= 3 * np.std(others) / np.sqrt(400)


def test_knobs_that_do_nothing_are_seldom_claimed_and_intervals_cover():
    random = np.random.default_rng(21)
    found = [attribution.shares(simulated(random, {})) for _ in range(400)]
    claims = np.mean([(each["verdict"] != Verdict.NO_DIFFERENCE).any() for each in found])
    rows = pd.concat(found)
    inside = ((rows["low"] < 0) & (rows["high"] > 0)).mean()
    print(f"false claims {claims:.3f}, coverage {inside:.3f}")
    assert claims <= 0.06 + 3 * np.sqrt(0.06 * 0.94 / 400)
    assert inside >= 0.93


@pytest.mark.parametrize("knobs", [6, 7, 8])
@pytest.mark.parametrize("four", [0.0, 0.2])
def test_prediction_intervals_cover_and_are_no_wider_than_they_must(knobs, four):
    """Sizes with interactions of three factors, and of four that are smaller by `four`. The fraction of 8 knobs takes
    some of three for some of two, that of 6 knobs some of four."""
    random = np.random.default_rng([22, knobs])
    whole = pd.DataFrame(np.indices((2,) * knobs).reshape(knobs, -1).T.astype(bool), columns=list("abcdefgh"[:knobs]))
    part = set(map(tuple, factorial.fraction(knobs).tolist()))
    fitted = [number for number, each in enumerate(whole.to_numpy().tolist()) if tuple(each) in part]
    rest = whole.drop(index=fitted)
    inside, half, missed = [], [], []
    for _ in range(40):
        logs = np.zeros(len(whole))
        for order, size in ((1, 0.1), (2, 0.03), (3, 0.01), (4, 0.01 * four)):
            terms = np.column_stack(factorials._products(whole, order))
            logs += terms @ random.normal(0, size, terms.shape[1])
        values = pd.DataFrame(1e6 * np.exp(logs), whole.index)
        made = factorials.Factorial("s", metrics.APP_BYTES, 0, ("", "", ""), {}, whole, values)
        found = factorials.predict(factorials._model(made, fitted), rest)
        inside.append(values[0][rest.index].between(found["low"], found["high"]).mean())
        half.append(np.log(found["high"] / found["low"]).mean() / 2)
        missed.append(np.log(found["predicted"] / values[0][rest.index]).std())
    print(f"{knobs} knobs: coverage {np.mean(inside):.3f}, half-width {np.mean(half) / np.mean(missed):.2f} errors")
    assert 0.92 <= np.mean(inside) <= 0.98
    assert np.mean(half) / np.mean(missed) <= 2.6


def test_where_a_study_was_broken_off_only_whole_blocks_count(whole):
    rows = whole.rows
    kept = rows[~((rows["study"] != "") & (rows["block"] == 3) & (rows["cell"] == "scratch-strip-system"))]
    assert factorials.find_factorial(replace(whole, rows=kept), "cpu").values.shape == (16, 11)


def test_a_cell_that_is_missing_is_told_in_a_line(tmp_path, monkeypatch):
    cells = factorial.cells(["debian", "scratch"], KNOBS, ["system"], "trixie")
    gone = "scratch-strip_opt-z-system"
    run = made_up(cells, monkeypatch, tmp_path, failed=(gone,))
    with pytest.raises(LabError, match=rf"lacks 1 of 16 cells of base x strip x lto-fat x opt-z: {gone}; build"):
        factorials.find_factorial(run, metrics.IMAGE)
    found, reasons = factorials.find_factorials(run)
    assert not found and "lacks 1 of 16" in reasons[metrics.IMAGE] and len(runs.load("f").rows.query("not ok")) == 1


def test_a_run_of_no_factorial_says_how_to_build_one():
    with pytest.raises(LabError, match=r"a factor has two levels"):
        factorials.find_factorial(runs.load("recorded/article"), metrics.IMAGE)
    with pytest.raises(LabError, match="run 'recorded/allocators' has measured the image's bytes on disk of no cell"):
        factorials.find_factorial(runs.load("recorded/allocators"), metrics.IMAGE)
    with pytest.raises(LabError, match=r"unknown quantity 'imag': did you mean 'image'"):
        factorials.find_factorial(runs.load("recorded/article"), "imag")


SEVEN = ["strip", "lto-fat", "unit-1", "opt-z", "abort"]


def test_what_is_not_measured_is_predicted_from_a_fraction(tmp_path, monkeypatch):
    cells = factorial.cells(["debian", "scratch"], SEVEN, ["system", "jemalloc"], "trixie", 16)
    assert len(cells) == 64 + 16 and cells[0].slug == "debian-baseline-system"
    run = made_up(cells, monkeypatch, tmp_path, third=0.01)
    found = factorials.find_factorial(run, metrics.APP)
    assert len(found.predicted) == 48 and len(found.missing) == 48
    scored = factorials.score(found)
    assert len(scored) == 16 and scored["inside"].mean() >= 0.9
    assert 0 < scored["error"].abs().median() < 0.01
    assert views.attribution.score_in_words(scored).startswith(
        "From 64 cells, 16 others that were measured too: median"
    )
    shares = attribution.shares(factorials.find_factorial(run, metrics.IMAGE))
    assert shares["share"].sum() == pytest.approx(shares.attrs["whole"])
    assert shares.attrs["target"] == "scratch-strip_lto-fat_unit-1_opt-z_abort-system"
    assert shares.set_index("knob").loc["strip", "verdict"] == "less, predicted"


def test_a_fraction_is_found_wherever_it_begins(tmp_path, monkeypatch):
    """The bases turned from another one than the largest image's, which is held out."""
    cells = factorial.cells(["scratch", "debian"], SEVEN, ["jemalloc", "system"], "trixie", 4)
    run = made_up(cells, monkeypatch, tmp_path)
    found = factorials.find_factorial(run, metrics.APP)
    assert len(found.values) == 68 and len(factorials.score(found)) == 4
    assert found.start not in {cells[0].slug}


def test_predicted_intervals_hold_nine_in_ten_and_more(tmp_path, monkeypatch):
    """Shares of a fraction, against those of the whole that it is of."""
    whole = factorial.cells(["debian", "scratch"], SEVEN, ["system"], "trixie")
    exact = attribution.shares(
        factorials.find_factorial(made_up(whole, monkeypatch, tmp_path / "1", third=0.02), metrics.APP)
    )
    some = factorial.cells(["debian", "scratch"], SEVEN, ["system"], "trixie", 0)
    run = made_up(some, monkeypatch, tmp_path / "2", third=0.02)
    found = attribution.shares(factorials.find_factorial(run, metrics.APP), exact.attrs["target"])
    both = found.merge(exact, on="knob", suffixes=("", "_exact"))
    assert len(both) == 6 - 1 and both["share_exact"].between(both["low"], both["high"]).all()


def test_where_the_start_has_the_least_there_is_no_share(whole):
    found = factorials.find_factorial(whole, metrics.APP, "scratch-strip_lto-fat_opt-z-system")
    best = found.values[0].idxmin()
    shares = attribution.shares(factorials.find_factorial(whole, metrics.APP, best))
    assert shares.empty and "none is below that of" in views.attribution.in_words(shares)


def test_a_profile_that_the_lab_knows_no_more_is_a_knob_like_others(whole):
    rows = whole.rows.assign(profile=whole.rows["profile"].str.replace("opt-z", "mine"))
    found = factorials.find_factorial(replace(whole, rows=rows), metrics.IMAGE)
    assert set(found.knobs) == {"base", "strip", "lto-fat", "mine"}
    gone = rows[rows["cell"] != "scratch-strip_opt-z-system"]
    with pytest.raises(LabError, match=r"lacks 1 of 16 cells .*: scratch-strip_mine-system; build"):
        factorials.find_factorial(replace(whole, rows=gone), metrics.IMAGE)


def test_two_cells_with_the_same_knobs_are_told(tmp_path, monkeypatch):
    cells = matrix.grid(["scratch"], ["baseline", "strip", "lto-fat", "strip+lto-fat", "lto-fat+strip"], ["system"])
    run = made_up(cells, monkeypatch, tmp_path)
    with pytest.raises(LabError, match="scratch-strip_lto-fat-system and scratch-lto-fat_strip-system have the same"):
        factorials.find_factorial(run, metrics.IMAGE)


def test_a_fraction_with_a_cell_that_failed_predicts_nothing(tmp_path, monkeypatch):
    cells = factorial.cells(["debian", "scratch"], SEVEN, ["system"], "trixie", 4)
    run = made_up(cells, monkeypatch, tmp_path, failed=(cells[3].slug,))
    with pytest.raises(LabError, match=f"the fraction lacks 1 of 32 cells, {cells[3].slug} the first of them"):
        factorials.find_factorial(run, metrics.APP)


def test_without_cells_held_out_nothing_is_scored(tmp_path, monkeypatch):
    cells = factorial.cells(["debian", "scratch"], SEVEN, ["system"], "trixie", 0)
    run = made_up(cells, monkeypatch, tmp_path)
    found = factorials.score(factorials.find_factorial(run, metrics.APP))
    assert found.empty and "holds N more out" in views.attribution.score_in_words(found)


@pytest.mark.parametrize(("knobs", "cells"), [(6, 32), (7, 64), (8, 64)])
def test_a_fraction_tells_any_two_knobs_from_any_other_two(knobs, cells):
    chosen = factorial.fraction(knobs)
    assert len(chosen) == cells and not chosen[0].any() and len(np.unique(chosen, axis=0)) == len(chosen)
    signs = np.where(chosen, 1, -1)
    terms = [signs[:, [one, other]].prod(axis=1) for one, other in combinations(range(knobs), 2)]
    terms = np.array([*signs.T, *terms])
    assert (terms @ terms.T == len(chosen) * np.eye(len(terms))).all()


@pytest.mark.parametrize(
    ("bases", "knobs", "allocators", "held_out", "said"),
    [
        (["debian"], ["lto"], ["system"], None, "unknown knob 'lto': did you mean 'lto-fat'"),
        (["debian"], ["baseline"], ["system"], None, "unknown knob 'baseline'"),
        (["debian"], ["opt-s", "opt-z"], ["system"], None, "cannot be combined: opt-level is s and z"),
        (["debian", "scratch", "alpine"], ["strip"], ["system"], None, "name two bases at most"),
        (["debian"], [*SEVEN, "relr", "no-pie", "cpu-v3", "auditable"], ["system"], None, "9 factors have 512 cells"),
        (["debian"], ["strip"], ["system"], 2, "1 factors have no fraction"),
        (["debian"], SEVEN, ["system", "system"], 2, "5 factors have no fraction"),
        (["debian", "scratch"], SEVEN, ["system"], 40, "have 32 cells beside their fraction, not 40"),
        (["debian"], ["strip"], ["article"], None, "'article' is another allocator on each base"),
    ],
)
def test_knobs_that_cannot_be_are_told_in_a_line(bases, knobs, allocators, held_out, said):
    with pytest.raises(LabError, match=said):
        factorial.cells(bases, knobs, allocators, "trixie", held_out)


def test_plots_and_tables_say_what_they_show(tmp_path, monkeypatch):
    cells = factorial.cells(["debian", "scratch"], SEVEN, ["system"], "trixie", 8)
    run = made_up(cells, monkeypatch, tmp_path, third=0.02)
    shares = attribution.shares(factorials.find_factorial(run, metrics.IMAGE))
    scored = factorials.score(factorials.find_factorial(run, metrics.APP))
    assert "base: scratch -79" in plots.attribution.waterfall(shares).alt
    assert f"{len(scored)} cells" in plots.attribution.predictions(scored).alt
    assert "less, predicted" in views.attribution.shares(shares).to_html()
    assert (
        "strip x opt-z"
        in views.attribution.knobs(attribution.effects(factorials.find_factorial(run, metrics.APP))).to_html()
    )
    assert "inside" in views.attribution.predictions(scored).to_html()


@pytest.mark.engine
def test_a_factorial_of_an_own_app_is_built_and_told(lab, tiny):
    run = "test-knobs"
    forget(run)
    told = tiny.directory / "lab.toml"
    told.write_text(told.read_text().partition("# It prints no address")[0])  # without a check that it does not pass
    named = ("--bases", "scratch", "--allocators", "system", "--knobs", "lto-fat,strip")
    done = lab("run", "--app", str(tiny.directory), "--run", run, *named)
    assert done.returncode == 0, done.stderr
    shares = attribution.shares(factorials.find_factorial(runs.load(run), metrics.IMAGE)).set_index("knob")
    assert shares.attrs["start"] == "scratch-baseline-system" and shares["share"].sum() == shares.attrs["whole"]
    assert shares.loc["strip", "share"] < 0
    assert "Which flag saves what" in (REPORTS / run / "report.html").read_text()
    forget(run)
