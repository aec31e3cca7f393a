"""What a second worker gains: of simulated studies that take turns, with noise that each pair of blocks shares."""

from dataclasses import replace

import numpy as np
import pytest

from rustimg_lab.analysis import scaling
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import Study, Treatment
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

CELLS = matrix.grid(["scratch"], ["optimized"], ["system", "jemalloc", "mimalloc"])
GAIN = {"system": 0.8, "jemalloc": 1.8, "mimalloc": 1.0}
SHARED = "server and load generator share the CPUs 0,1: they slow each other"


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Makes a run with a throughput study of each number of workers, in turns or one after the other."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)

    def make(workers: tuple[int, ...] = (1, 2), in_turns: bool = True, noise: float = 0.05, twin: float = 1.0):
        generator, blocks = np.random.default_rng(5), 8
        machine = generator.normal(0, 0.3, blocks)  # the same hour for blocks of one number

        def study(number: int):
            treatments = [Treatment(cell, "sha256:1", cell.slug) for cell in CELLS]
            treatments.append(Treatment(CELLS[0], "sha256:1", CELLS[0].slug + TWIN))
            warning = SHARED if number == 2 else ""
            about = {"workload": "batch", "workers": number, "connections": 16, "warning": warning}
            name, metric, turns = f"throughput-{number}w", metrics.CPU_US_PER_REQUEST, iter(range(10_000))
            planned = Study(name, "throughput", about, tuple(treatments), CELLS[0].slug, metric, blocks, 1)

            def measure(treatment: Treatment) -> list[Observation]:
                slow = machine[next(turns) // 4] + generator.normal(0, noise)
                gain = GAIN[treatment.cell.allocator] ** np.log2(number)
                cost = 100.0 * (2.0 if treatment.cell.allocator == "system" and number > 1 else 1.0)
                gain *= twin if treatment.name.endswith(TWIN) and number > 1 else 1.0
                per_s = float(1000 * gain * np.exp(slow))
                return [Observation(metrics.REQUESTS_PER_S, per_s), Observation(metric, cost)]

            return planned, measure

        with runs.open_run("a", {}) as run:
            studies = [study(number) for number in workers]
            for group in [studies] if in_turns else [[each] for each in studies]:
                trials.run_in_turns(group, run)
        return runs.load("a")

    return make


def test_a_load_that_does_not_keep_the_servers_busy_is_told(measured):
    warning = scaling.speed_up(measured((2, 4)), "batch", 16).attrs["warning"]
    assert "with 4 workers a server used 2% of its CPUs, so the load limits the gain: take more --conn" in warning


def test_each_cell_has_its_speed_up_with_an_interval_and_a_verdict(measured):
    found = scaling.speed_up(measured(), "batch", 16)
    assert found["cell"].tolist() == [*(cell.slug for cell in CELLS), CELLS[0].slug + TWIN]
    assert found["pairs"].eq(8).all() and found["workers"].eq(2).all()
    assert found["verdict"].tolist() == [Verdict.LOSES, Verdict.GAINS, Verdict.NO_DIFFERENCE, Verdict.LOSES]
    for cell, own in zip(CELLS, found.itertuples(), strict=False):
        assert own.low_all < own.low < GAIN[cell.allocator] < own.high < own.high_all
        assert own.high / own.low < 1.2  # though the machine's own noise between blocks is 0.3
    assert found["cpu"].tolist() == pytest.approx([2.0, 1.0, 1.0, 2.0])
    assert found.attrs["warning"] == SHARED
    said = views.verdicts.speed_up(found)
    assert said.count("**adding a core makes it slower**") == 2 and SHARED in said
    assert "adding a core makes it faster" in views.studies.speed_up(found).to_html()


def test_more_workers_are_more_steps_and_one_number_is_none(measured):
    found = scaling.speed_up(measured((1, 2, 4)), "batch", 16)
    assert found.groupby(["fewer", "workers"], sort=False).size().to_dict() == {(1, 2): 4, (2, 4): 4}
    none = scaling.speed_up(runs.load("recorded/allocators"), "batch", 16)
    assert none.empty and list(none) == list(found) == scaling.COLUMNS
    assert views.verdicts.speed_up(none) == ""


def test_a_control_that_gains_otherwise_than_its_image_limits_what_is_claimed(measured):
    table = scaling.speed_up(measured(twin=2.5), "batch", 16)
    assert "the A/A control differs from its own image" in table.attrs["warning"]
    verdicts = dict(zip(table["cell"], table["verdict"], strict=True))
    assert not {verdicts[cell.slug] for cell in CELLS} & {Verdict.GAINS, Verdict.LOSES}


def test_a_number_of_workers_whose_baseline_failed_keeps_the_speed_ups_of_other_cells(measured):
    run = measured()
    failed = (run.rows["study"] == "throughput-2w") & run.rows["cell"].eq(CELLS[0].slug)
    table = scaling.speed_up(replace(run, rows=run.rows[~failed]), "batch", 16)
    assert table["pairs"].tolist() == [0, 8, 8, 8]
    assert table.loc[1, "low"] < GAIN["jemalloc"] < table.loc[1, "high"]
    assert "without trials of the A/A control no difference is claimed" in table.attrs["warning"]


def test_what_is_too_noisy_and_what_took_no_turns_says_so(measured):
    found = scaling.speed_up(measured(in_turns=False, noise=1.0), "batch", 16)
    assert "did not take turns" in found.attrs["warning"]
    assert (found["verdict"] == Verdict.TOO_NOISY).any()
    assert not found["verdict"].eq(Verdict.NO_DIFFERENCE).any()
