"""How far a command is on one machine of several: which studies of the machine's run it asks for."""

from types import SimpleNamespace

import pytest

from rustimg_lab.measure.plan import Treatment
from rustimg_lab.model import matrix, metrics
from rustimg_lab.pipeline import studies as pipeline
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

LOAD = {"workload": "batch", "connections": 16, "workers": 1}
OWN = {"workload": "own", "connections": 16, "workers": 1}
HELD = {"workload": "batch", "connections": [1, 100], "workers": 1}
LIMIT, CPU = metrics.SMALLEST_LIMIT_BYTES, metrics.CPU_US_PER_REQUEST
STUDIES = [  # kind, metric, parameters, blocks that are there
    ("throughput", CPU, LOAD, 20),
    ("throughput", CPU, LOAD | {"workers": 2}, 19),
    ("instructions", metrics.INSTRUCTIONS_PER_REQUEST, {"workload": "batch", "workers": 1}, 2),
    ("memory", metrics.STEADY_RSS_BYTES, {"of": "load", **LOAD}, 7),
    ("memory", metrics.rss_at(100), {"of": "connections", **HELD}, 7),
    ("memory", LIMIT, {"of": "limit", **LOAD}, 5),
    ("startup", "first_byte_s", {"program": "server"}, 3),
    ("startup", "first_byte_s", {"program": "container"}, 2),
]


@pytest.fixture
def done(monkeypatch, tmp_path):
    """How many blocks a command need not ask for on a machine that has these studies."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    plan = {"baseline": "a", "cells": [], "seed": 1, "stopping": {"blocks": 20}, "contents": {}}

    def count(studies, kind: str, **asked) -> int:
        with runs.open_run("alpha", {"kernel": "6.1"}) as run:
            for number, (_, _, _, blocks) in enumerate(studies):
                trials = [Observation(metrics.TRIAL, True, block=block) for block in range(blocks)]
                run.append(matrix.cell("scratch", "baseline", "system"), "", trials, study=str(number))
            plans = {
                str(number): plan | {"kind": kind, "metric": metric, "parameters": parameters | {"warning": ""}}
                for number, (kind, metric, parameters, _) in enumerate(studies)
            }
            run.save_environment(studies=plans)
        with runs.open_spread("a") as folder:
            (tmp_path / "alpha").rename(folder / "alpha")
        asked = {"workload": ["batch"], "connections": [16]} | asked
        assert pipeline.blocks_done("a", "beta", kind, asked) == 0
        return pipeline.blocks_done("a", "alpha", kind, asked)

    return count


@pytest.mark.parametrize(
    "kind, asked, blocks",
    [
        ("throughput", {}, 19),
        ("throughput", {"workers": [1]}, 20),
        ("throughput", {"workers": [1, 2]}, 19),
        ("throughput", {"workers": [1, 4]}, 0),
        ("throughput", {"workload": ["root"]}, 0),
        ("throughput", {"workload": ["batch", "root"]}, 0),
        ("throughput", {"connections": [100]}, 0),
        ("memory", {}, 7),
        ("startup", {}, 2),
        ("latency", {}, 0),
    ],
)
def test_blocks_are_counted_in_the_studies_that_are_asked_for(done, kind, asked, blocks):
    assert done(STUDIES, kind, **asked) == blocks


def test_the_studies_of_an_own_app_are_of_its_own_requests(done):
    assert done([("throughput", CPU, OWN, 4)], "throughput") == 4


def test_a_study_that_has_a_plan_and_no_trial_is_begun_anew(done):
    assert done([("throughput", CPU, LOAD, 0)], "throughput") == 0


def test_a_cell_whose_image_has_failed_its_check_in_the_run_is_not_measured_and_told(monkeypatch, tmp_path):
    """As in the short study of `./lab run`, whose plan `./lab measure` resumes."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    good, bad = (matrix.cell(base, "baseline", "system") for base in ("debian", "scratch"))
    with runs.open_run("a", {}) as run:
        for cell, ok in ((good, True), (bad, False)):
            run.append(cell, "sha256:1", [Observation(metrics.RUNS, ok, ok=ok, reason="" if ok else "no /pages")])
        session = SimpleNamespace(run=run)
        treatments = [Treatment(cell, "sha256:1", cell.slug) for cell in (good, bad)]
        works, (line,) = pipeline._working_treatments(treatments, session)
        assert works == treatments[:1]
        assert line.startswith("scratch-baseline-system: its image failed its check in this run") and "/pages" in line
        built_anew = [Treatment(bad, "sha256:2", bad.slug)]
        assert pipeline._working_treatments(built_anew, session) == (built_anew, [])
