"""Layouts: the variance components cover what was drawn, layout as a random effect keeps false claims rare where the
trials alone do not, and a run without enough of either is told so."""

from dataclasses import replace

import numpy as np
import pytest

from rustimg_lab.analysis import layouts
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import sections, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

pytestmark = pytest.mark.slow

CPU = metrics.CPU_US_PER_REQUEST
STUDIES = 1000


def cell(random, blocks: np.ndarray, number: int, between: float, within: float, mean: float = 0) -> np.ndarray:
    """Logarithms of trials: blocks as they are, so many layouts, deviations between and within them."""
    drawn = random.normal(0, between, number) + random.normal(0, within, (len(blocks), number))
    return mean + blocks[:, None] + drawn


def walk(random, blocks: int) -> np.ndarray:
    """What a machine does to whole blocks: a random walk, far larger than what is looked for."""
    return random.normal(0, 0.1, blocks).cumsum()


@pytest.mark.parametrize(("between", "within"), [(0.05, 0.03), (0.02, 0.066), (0.0, 0.066)])
@pytest.mark.parametrize(("number", "blocks"), [(4, 8), (10, 5)])
def test_intervals_of_the_deviations_cover_what_was_drawn(number, blocks, between, within):
    random, held = np.random.default_rng(20261127), np.zeros(2)
    for _ in range(STUDIES):
        found = layouts.components(cell(random, walk(random, blocks), number, between, within))
        assert found["between_low"] <= found["between"] <= found["between_high"]
        held += [found[f"{key}_low"] <= true <= found[f"{key}_high"] for key, true in
                 (("between", between), ("within", within))]  # fmt: skip
    print(
        f"{number} layouts, {blocks} blocks: coverage between {held[0] / STUDIES:.3f}, within {held[1] / STUDIES:.3f}"
    )
    assert (held >= 0.93 * STUDIES).all()


def test_the_deviations_are_found_where_there_is_enough_of_both():
    random = np.random.default_rng(1)
    found = layouts.components(cell(random, walk(random, 200), 400, 0.05, 0.03))
    assert found["between"] == pytest.approx(0.05, rel=0.1) and found["within"] == pytest.approx(0.03, rel=0.02)
    assert (found["layouts"], found["blocks"]) == (400, 200)


def claims(number: int, blocks: int, between: float, mean: float) -> tuple[float, float, float]:
    """Of many studies of two cells that differ by this mean: how often the trials alone claim it, how often it
    survives, and how often the interval with layout as a random effect holds it."""
    random, told = np.random.default_rng(20261127), np.zeros(3)
    for _ in range(STUDIES):
        common = walk(random, blocks)
        drawn = {
            "a": cell(random, common, number, between, 0.03),
            "b": cell(random, common, number, between, 0.03, mean),
        }
        one = layouts.differences(drawn, "a", CPU).iloc[0]
        claimed = one["fixed_verdict"] != Verdict.NO_DIFFERENCE
        told += [claimed, one["survives"], one["low"] <= np.exp(mean) <= one["high"]]
    print(f"{number} layouts, deviation {between}, difference {mean}: claimed, survives, covered {told / STUDIES}")
    return tuple(told / STUDIES)


@pytest.mark.parametrize("number", [4, 10])
def test_equal_cells_differ_by_their_layouts_and_this_does_not_survive(number):
    claimed, survives, covered = claims(number, 8, 0.03, 0.0)
    assert claimed > 0.2  # what a study of few layouts would publish
    assert survives <= 0.06 and covered >= 0.93


def test_a_difference_of_ten_per_cent_survives_and_is_covered():
    claimed, survives, covered = claims(10, 8, 0.03, np.log(1.1))
    assert min(claimed, survives) > 0.95 and covered >= 0.93


def test_without_any_effect_of_layout_both_claim_alike():
    claimed, survives, _ = claims(10, 8, 0.0, 0.0)
    assert claimed <= 0.07 and survives <= 0.06


def test_better_is_told_by_the_metric_():
    random = np.random.default_rng(3)
    drawn = {"a": cell(random, walk(random, 8), 6, 0.001, 0.001)}
    drawn |= {name: drawn["a"] + np.log(ratio) for name, ratio in (("less", 1 / 1.05), ("more", 1.05), ("far", 1.3))}
    found = layouts.differences(drawn, "a", CPU).set_index("cell")
    assert found["verdict"].to_dict() == {"less": "faster", "more": "slower", "far": "slower"}
    assert found["survives"].all()
    assert layouts.differences(drawn, "a", metrics.REQUESTS_PER_S).set_index("cell").loc["more", "verdict"] == "faster"
    assert found.loc["more", "ratio"] == pytest.approx(1.05)
    assert found.loc["more", "least"] < 1.05 < found.loc["more", "most"]


def test_without_the_baseline_there_is_no_difference():
    assert layouts.differences({"b": np.ones((4, 4))}, "a", CPU).empty


CELLS = [matrix.cell("scratch", "opt-s+strip", allocator, additions=("init",)) for allocator in ("system", "jemalloc")]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Writes a run with a study of three layouts of two cells and the A/A control, of which `value` makes the values by
    cell, layout and block; None is a trial that was lost."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)

    def write(value, blocks: int = 4) -> runs.RunData:
        every = [replace(cell, layout=seed) for cell in CELLS for seed in (1, 2, 3)]
        named = [(each, each.slug) for each in every] + [(every[0], every[0].slug + TWIN)]
        plan = {"kind": "layouts", "metric": str(CPU), "baseline": every[0].slug, "cells": [name for _, name in named],
                "parameters": {"warning": "", "workload": "own", "workers": 1, "connections": 4}, "seed": 1,
                "stopping": {"blocks": blocks}, "contents": {}}  # fmt: skip
        with runs.open_run("a", {}) as opened:
            opened.save_environment(studies={"layouts-own": plan})
            for block in range(blocks):
                for each, name in named:
                    if (number := value(each, block)) is not None:
                        opened.append(each, "", [Observation(CPU, number, block=block)], study="layouts-own", name=name)
        return runs.load("a")

    return write


def test_a_run_tells_its_layouts_apart_by_the_seeds_in_its_rows(run):
    effect = {1: 0.99, 2: 1.0, 3: 1.01}
    noise = [1.0, 1.001, 0.999, 1.002]
    ratio = {"system": 1.0, "jemalloc": 1.2}
    data = run(lambda cell, block: 50 * ratio[cell.allocator] * effect[cell.layout] * noise[(block + cell.layout) % 4])
    cells, found = layouts.of_study(data, "layouts-own")
    names = [f"scratch-opt-s_strip-{each}-with_init" for each in ("system", "jemalloc")]
    assert cells["cell"].tolist() == names and cells.attrs["baseline"] == names[0]
    assert cells["layouts"].tolist() == [3, 3] and cells["blocks"].tolist() == [4, 4]
    assert cells["mean"].to_numpy() == pytest.approx([50, 60], rel=0.01)
    assert cells["between"].to_numpy() == pytest.approx(0.01, rel=0.1)
    one = found.iloc[0]
    assert (one["cell"], one["verdict"], one["survives"]) == (names[1], "slower", True)
    assert cells.attrs["warning"] == ""
    words = views.layouts.in_words(cells, found)
    assert (
        "3 layouts of the same code" in words
        and "The difference remains." in words
        and "Differences of" not in words
        and "1.200 times" in words
    )
    assert ("10_layouts", {"workload": "own", "workers": 1, "connections": 4}) in sections.parts(data)
    for view, table in ((views.layouts.components, cells), (views.layouts.differences, found)):
        assert names[1] in view(table).to_html()


def test_an_upper_limit_of_0_is_said_to_limit_nothing(run):
    """Trials that scatter about equal means of all layouts: the whole of Williams's interval is below 0."""
    noise = {"system": [1.0, 1.1, 0.9, 1.2], "jemalloc": [1.0] * 4}
    data = run(lambda cell, block: noise[cell.allocator][(block + cell.layout) % 4])
    cells, _ = layouts.of_study(data, "layouts-own")
    assert cells["between_high"].tolist() == [0, 0] and (cells["within"] > 0).tolist() == [True, False]
    assert cells.attrs["warning"].startswith(f"the layouts of {cells['cell'][0]} differ by less than chance alone")
    assert "one study in 40 " in cells.attrs["warning"] and cells["cell"][1] not in cells.attrs["warning"]


def test_a_difference_that_the_layouts_undo_is_told_so(run):
    effect = {
        ("system", 1): 0.97,
        ("system", 3): 1.03,
        ("jemalloc", 1): 1.0,
        ("jemalloc", 2): 1.04,
        ("jemalloc", 3): 1.1,
    }
    noise = [1.0, 1.001, 0.999, 1.002]
    data = run(lambda cell, block: effect.get((cell.allocator, cell.layout), 1.0) * noise[(block + cell.layout) % 4])
    cells, found = layouts.of_study(data, "layouts-own")
    one = found.iloc[0]
    assert one["fixed_verdict"] == "slower" and one["verdict"] == Verdict.NO_DIFFERENCE
    assert not one["survives"]
    words = views.layouts.in_words(cells, found)
    assert "does not remain" in words and "Differences of 3 to 10%: 1, of which 0 remain." in words


def test_a_block_that_lacks_a_layout_is_left_out_and_told(run):
    lost = (1, "jemalloc", 2)
    data = run(lambda cell, block: None if (block, cell.allocator, cell.layout) == lost else 1.0 + 0.01 * cell.layout)
    cells, _ = layouts.of_study(data, "layouts-own")
    assert cells["blocks"].tolist() == [3, 3]
    assert cells.attrs["warning"] == "1 of 4 blocks lack a layout and are left out"


def test_what_cannot_be_compared_is_told_in_a_line(run):
    with pytest.raises(LabError, match="has a value of 0 or below"):
        layouts.of_study(run(lambda cell, block: 0.0), "layouts-own")


def test_a_study_of_one_block_says_that_it_tells_nothing(run):
    cells, found = layouts.of_study(run(lambda cell, block: 1.0, blocks=1), "layouts-own")
    assert cells.empty and found.empty
    said = f"{CELLS[0]} has fewer than two layouts or blocks"
    assert views.layouts.in_words(cells, found).startswith(f"- Too few to say anything: {said}; ")
    assert said in views.layouts.differences(found).to_html() and said in views.layouts.components(cells).to_html()


def test_rows_of_older_labs_have_the_layout_of_the_linker():
    assert runs.load("recorded/allocators").rows["layout"].eq(0).all()
