"""Carry-over from one trial to the next: found where there is some, and seldom claimed where there is none."""

import numpy as np
import pytest

from rustimg_lab.analysis import carry_over
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import SHUFFLED, WILLIAMS, Study, Treatment
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import views
from rustimg_lab.store import rows, runs
from rustimg_lab.store.rows import Observation

pytestmark = pytest.mark.slow

CELLS = matrix.grid(["scratch", "debian"], ["optimized"], ["system", "jemalloc"])
DIRTY = CELLS[2].slug
ABOUT = metrics.CPU_US_PER_REQUEST


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Makes a run with a simulated study: noise of blocks and trials, and what `carried` adds to the trial after
    `DIRTY`, on the logarithmic scale."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(rows.os, "fsync", lambda descriptor: None)  # these runs need not outlive a crash

    def make(seed: int, blocks: int, carried: float, design: str = WILLIAMS):
        generator, before, name = np.random.default_rng(seed), "", f"s{seed}-{design}"
        treatments = tuple(Treatment(cell, "sha256:1", cell.slug) for cell in CELLS)
        treatments += (Treatment(CELLS[0], "sha256:1", CELLS[0].slug + TWIN),)
        about = {"workload": "batch", "workers": 1, "connections": 16, "warning": ""}
        planned = Study(name, "throughput", about, treatments, CELLS[0].slug, ABOUT, blocks, seed, design=design)
        machine = generator.normal(0, 0.05, blocks)
        turn = 0

        def measure(treatment: Treatment) -> list[Observation]:
            nonlocal before, turn
            effect = {CELLS[0].slug: 0.0, CELLS[1].slug: -0.5}.get(treatment.name, 0.2)
            log = effect + machine[turn // 5] + generator.normal(0, 0.066) + carried * (before == DIRTY)
            before, turn = treatment.name, turn + 1
            return [Observation(ABOUT, float(np.exp(log)))]

        with runs.open_run(name, {}) as run:
            trials.run_in_turns([(planned, measure)], run)
        return runs.load(name), name

    return make


@pytest.mark.parametrize("design", [WILLIAMS, SHUFFLED])
def test_what_a_cell_leaves_behind_for_the_next_is_found_with_its_size(measured, design):
    after, ratio, low, high, verdict = carry_over.of_study(*measured(1, 30, 0.2, design))
    assert after == DIRTY and verdict == Verdict.SLOWER
    # As a ratio to the average of what five cells leave behind, of which one leaves something.
    assert low < np.exp(0.2 * 4 / 5) < high and low > 1 and ratio == pytest.approx((low * high) ** 0.5)


def test_where_nothing_is_left_behind_it_is_seldom_claimed(measured):
    """40 studies of seeds fixed in advance: at .05, more than 5 claims come with a probability of .014."""
    verdicts = [carry_over.of_study(*measured(seed, 6, 0.0))[4] for seed in range(40)]
    assert sum(verdict != Verdict.NO_DIFFERENCE for verdict in verdicts) <= 5


def test_too_few_trials_tell_nothing_and_the_table_of_studies_has_all_that_is_told(measured):
    assert carry_over.of_study(*measured(2, 2, 0.0)) is None
    run, _ = measured(3, 20, 0.2)
    html = views.studies.studies(run).to_html()
    assert f"after {DIRTY}: slower" in html


def test_a_row_of_an_older_run_tells_its_carry_over_too():
    run = runs.load("recorded/allocators-intel")
    after, ratio, low, high, _ = carry_over.of_study(run, "throughput-batch-1w-16c")
    assert after in run.environment.studies["throughput-batch-1w-16c"].cells and low < ratio < high < 1.02
