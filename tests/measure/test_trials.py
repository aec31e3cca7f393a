"""The schedule: what is measured in which order, what happens to a trial that is lost, and to a lab that is killed."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice, pairwise

import pytest

from rustimg_lab.analysis import comparison
from rustimg_lab.errors import LabError
from rustimg_lab.measure import context, plan, trials
from rustimg_lab.measure.plan import FailedTrial, Study, Treatment
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.names import TWIN
from rustimg_lab.paths import ROOT
from rustimg_lab.pipeline import studies
from rustimg_lab.store import environment, runs
from rustimg_lab.store.rows import Observation

CELLS = matrix.grid(["scratch", "debian"], ["optimized"], ["system", "jemalloc"])
TREATMENTS = [Treatment(cell, f"sha256:{cell.slug}", cell.slug) for cell in CELLS]
BASELINE = TREATMENTS[0].name
LOAD = {"workload": "batch", "workers": 1, "connections": 16, "warning": ""}


def study(blocks: int = 3, **changes: object) -> Study:
    twin = Treatment(CELLS[0], TREATMENTS[0].image, BASELINE + TWIN)
    contents = {treatment.name: "0" for treatment in TREATMENTS}
    settings = {"name": "s", "kind": "throughput", "parameters": LOAD, "seed": 7,
                "treatments": (*TREATMENTS, twin), "baseline": BASELINE, "metric": "cpu_us_per_request",
                "blocks": blocks, "contents": contents}  # fmt: skip
    return Study(**settings | changes)


def good(treatment: Treatment) -> list[Observation]:
    return [
        Observation("cpu_us_per_request", 100.0, "us", is_warmup=True),
        Observation("cpu_us_per_request", 5.0, "us"),
    ]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {}) as opened:
        yield opened


def trial_rows():
    run = runs.load("a")
    return run.rows[run.rows["metric"] == metrics.TRIAL]


def test_every_block_holds_each_treatment_once_in_an_order_of_its_own():
    planned = study()
    orders = [[treatment.name for treatment in planned.order(block)] for block in range(50)]
    assert all(sorted(order) == sorted(orders[0]) and len(set(order)) == 5 for order in orders)
    assert len(set(map(tuple, orders))) >= 10
    assert orders == [[treatment.name for treatment in study().order(block)] for block in range(50)]
    assert orders != [[treatment.name for treatment in study(seed=8).order(block)] for block in range(50)]
    first = Counter(order[0] for order in orders)
    assert set(first) == set(orders[0])  # nobody is always first, or never


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 13, 24])
@pytest.mark.parametrize("seed", [0, 7])
def test_each_treatment_follows_each_other_equally_often_within_blocks_and_none_itself_across_them(count, seed):
    rows = count * (2 if count % 2 else 1)  # of a Williams square
    orders = list(islice(plan._orders(count, seed), 3 * rows))
    for begin in range(0, len(orders), rows):
        square = orders[begin : begin + rows]
        pairs = Counter(pair for order in square for pair in pairwise(order))
        assert len(pairs) == count * (count - 1) and set(pairs.values()) == {rows // count}
        for place in (0, -1):  # each is as often first, and as often last
            assert set(Counter(order[place] for order in square).values()) == {rows // count}
        across = [(before[-1], after[0]) for before, after in pairwise(square)]
        if count > 3:
            assert len(set(across)) == len(across) and all(before != after for before, after in across)
    assert count == 3 or orders[:rows] != orders[rows : 2 * rows]  # three have few such orders


def test_a_study_that_was_begun_by_an_older_lab_keeps_its_order(run, monkeypatch):
    monkeypatch.setattr(context.images, "contents_digest", lambda image: "0")  # there is no engine in this test
    begun = context.StudyContext([TREATMENTS], plan.Plan(3, seed=7), run)

    def planned() -> Study:
        return begun.study("s", "throughput", "cpu_us_per_request", LOAD)

    assert planned().design == plan.WILLIAMS
    trials.run_in_turns([(study(design=plan.SHUFFLED), good)], run)
    del run.environment["studies"]["s"]["design"]  # as labs recorded it that had one design
    resumed = planned()
    assert resumed.as_dict()["design"] == plan.SHUFFLED
    for block in range(9):
        expected = random.Random(f"7:{block}").sample(resumed.treatments, len(resumed.treatments))
        assert resumed.order(block) == expected
    assert trials.run_in_turns([(resumed, good)], run) == [] and len(trial_rows()) == 15
    assert environment.parse_fields(run.environment).studies["s"].design == plan.SHUFFLED


def test_a_study_resumes_where_the_lab_warns_of_more_than_when_it_began(run):
    trials.run_in_turns([(study(blocks=1), good)], run)
    warned = study(blocks=2, parameters=LOAD | {"warning": "the engine cannot keep it from swap"})
    assert trials.run_in_turns([(warned, good)], run) == [] and len(trial_rows()) == 10
    assert run.environment["studies"]["s"]["parameters"]["warning"] == warned.parameters["warning"]


def test_studies_that_take_turns_run_a_block_of_each_and_refuse_before_the_first_trial(run):
    seen, one, other = [], study(name="one", blocks=2), study(name="other", blocks=3)

    def measured(name: str) -> plan.Measure:
        return lambda treatment: seen.append(name) or good(treatment)

    progress = []
    pair = [(one, measured("one")), (other, measured("other"))]
    assert trials.run_in_turns(pair, run, lambda *told: progress.append(told[:2])) == []
    assert seen == ["one"] * 5 + ["other"] * 5 + ["one"] * 5 + ["other"] * 10
    assert progress[0] == (0, 25) and progress[-1] == (25, 25)
    changed = [(study(name="new"), good), (study(name="other", blocks=3, seed=8), good)]
    with pytest.raises(LabError, match="seed 7, now 8"):
        trials.run_in_turns(changed, run)
    assert not runs.load("a").rows["study"].eq("new").any()


def test_a_trial_is_stored_with_its_place_its_load_and_the_cpu_time_that_was_stolen(run):
    assert trials.run_in_turns([(study(), good)], run) == []
    data = runs.load("a")
    assert data.rows["study"].eq("s").all() and data.rows["ok"].all()
    for metric in ("load_average", "steal_s", "trial_s", metrics.TRIAL):
        assert len(data.rows[data.rows["metric"] == metric]) == 15
    for block, own in trial_rows().groupby("block"):
        assert own.sort_values("order")["cell"].tolist() == [each.name for each in study().order(block)]
    assert run.environment["studies"]["s"]["seed"] == 7
    assert run.environment["studies"]["s"]["stopping"] == {"blocks": 3}


def test_a_warm_up_is_in_no_sample_and_a_study_in_no_table_of_cells(run):
    trials.run_in_turns([(study(), good)], run)
    data = runs.load("a")
    assert comparison.samples(data, "s", "cpu_us_per_request")["value"].eq(5.0).all()
    assert runs.newest_rows(data).empty


def test_a_lost_trial_is_repeated_once_and_never_averaged_in(run):
    calls = Counter()

    def measure(treatment: Treatment) -> list[Observation]:
        calls[treatment.name] += 1
        if treatment.name == BASELINE and calls[BASELINE] == 2:
            raise FailedTrial("the container is gone")
        if treatment.name == TREATMENTS[1].name:
            raise FailedTrial("wrong body")
        return good(treatment)

    given_up = trials.run_in_turns([(study(), measure)], run)
    assert calls == {
        BASELINE: 4,
        TREATMENTS[1].name: 6,
        TREATMENTS[2].name: 3,
        TREATMENTS[3].name: 3,
        BASELINE + TWIN: 3,
    }
    assert given_up == [f"s, blocks 1, 2, 3, {TREATMENTS[1].name}: wrong body"]
    lost = trial_rows().query("not ok")
    assert Counter(lost["reason"]) == {"the container is gone": 1, "wrong body": 6}
    found = comparison.samples(runs.load("a"), "s", "cpu_us_per_request")
    assert Counter(found["cell"]) == {name: 3 for name in calls if name != TREATMENTS[1].name}
    # Given up is given up: the same call does not try again, and says nothing twice.
    assert trials.run_in_turns([(study(), measure)], run) == []
    assert sum(calls.values()) == 19


def test_a_study_that_was_interrupted_goes_on_where_it_was_and_can_be_made_longer(run):
    seen = []

    def measure(treatment: Treatment) -> list[Observation]:
        seen.append(treatment.name)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return good(treatment)

    with pytest.raises(KeyboardInterrupt):
        trials.run_in_turns([(study(), measure)], run)
    progress = []
    trials.run_in_turns([(study(blocks=4), measure)], run, lambda done, planned, what: progress.append((done, planned)))
    assert len(seen) == 21  # 4 blocks of 5, and the one that was in flight once more
    assert trial_rows().groupby(["block", "cell"]).size().eq(1).all() and len(trial_rows()) == 20
    assert progress[0] == (0, 14) and progress[-1] == (14, 14)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 8}, "seed 7, now 8"),
        ({"baseline": TREATMENTS[1].name}, f"baseline {BASELINE}, now {TREATMENTS[1].name}"),
        ({"parameters": LOAD | {"workload": "root"}}, "workload batch, now root"),
        ({"contents": {each.name: "1" for each in TREATMENTS}}, f"{BASELINE} was another image"),
        ({"treatments": TREATMENTS[:1], "contents": {BASELINE: "0"}}, f"now {BASELINE}"),
    ],
)
def test_trials_of_two_plans_are_not_mixed(run, changes, said):
    trials.run_in_turns([(study(), good)], run)
    with pytest.raises(LabError, match="--run NAME") as error:
        trials.run_in_turns([(study(**changes), good)], run)
    assert said in str(error.value)
    assert len(trial_rows()) == 15


@pytest.mark.parametrize(("width", "blocks"), [(0.5, studies.MINIMUM_BLOCKS), (1e-9, 9)])
def test_a_study_ends_when_its_intervals_are_narrow_or_at_its_cap(run, width, blocks):
    random_ = random.Random(1)

    def measure(treatment: Treatment) -> list[Observation]:
        return [Observation("cpu_us_per_request", random_.uniform(5.0, 5.1), "us")]

    trials.run_in_turns([(study(blocks=9, width=width), measure)], run, is_enough=studies.is_narrow)
    assert trial_rows()["block"].nunique() == blocks
    assert run.environment["studies"]["s"]["stopping"] == {"width": width, "at_most": 9}


KILLED = """
import pathlib, sys, time
from rustimg_lab.store import runs
runs.RUNS = pathlib.Path(sys.argv[1])
sys.path.insert(0, "tests/measure")
import test_trials

def measure(treatment):
    time.sleep(0.005)
    return test_trials.good(treatment)

with runs.open_run("a", {}) as run:
    test_trials.trials.run_in_turns([(test_trials.study(blocks=40), measure)], run)
"""


@pytest.mark.slow
def test_a_lab_that_is_killed_at_any_moment_counts_no_trial_twice_and_loses_one_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    random_, kills = random.Random(20261124), 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
        if kills < 4:
            _wait_for_rows(tmp_path / "a" / "rows.jsonl", 100 * (kills + 1))
            time.sleep(random_.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        kills += 1
    assert kills == 4
    run = runs.load("a")
    assert run.broken == ()
    ends = run.rows[run.rows["metric"] == metrics.TRIAL]
    assert len(ends) == 200 and ends.groupby(["block", "cell"]).size().eq(1).all() and ends["ok"].all()
    found = comparison.samples(run, "s", "cpu_us_per_request")
    assert len(found) == 200


def _wait_for_rows(path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_of_a_run_from_before_there_were_studies_load(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {}) as run:
        run.append(CELLS[0], "sha256:1", [Observation("size", 1)])
        run.save_environment(schema=1)
    path = tmp_path / "a" / "rows.jsonl"
    row = json.loads(path.read_text())
    del row["study"]
    path.write_text(json.dumps(row) + "\n")
    assert runs.load("a").rows["study"].tolist() == [""]
    with runs.open_run("a", {}) as run:
        assert run.environment["schema"] == environment.SCHEMA
