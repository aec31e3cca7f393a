"""Ratios on several machines: which rows are of which machine, sessions of one, what is combined and what is not, and
what the report says of two machines, and of none but one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rustimg_lab.analysis import comparison, machines
from rustimg_lab.analysis.machines import ALL, ANOTHER, MACHINE
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import notebooks, sections, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation
from rustimg_lab.widgets.run import Run

CPU = metrics.CPU_US_PER_REQUEST
CELLS = matrix.grid(["scratch"], ["optimized"], ["system", "jemalloc", "mimalloc"])
JEMALLOC = CELLS[1].slug
STUDY, LOAD = "throughput-batch", {"workload": "batch", "workers": 1, "connections": 4}
AMD = {"cpu_model": "AMD", "cpus": 2, "memory_gib": 24, "architecture": "x86_64", "kernel": "6.1"}
INTEL, ARM = AMD | {"cpu_model": "Intel"}, AMD | {"cpu_model": "Ampere", "cpus": 8}
RECORDED = ["recorded/allocators", "recorded/allocators-intel"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a run of a machine with a study of six blocks, in which jemalloc costs so much of what musl's malloc does,
    of which a request costs `cost`."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)

    def make(name: str, machine: dict, ratio: float, cost: float = 100.0, **parameters) -> runs.RunData:
        named = [(cell, cell.slug) for cell in CELLS[:2]] + [(CELLS[0], CELLS[0].slug + TWIN)]
        plan = {"kind": "throughput", "metric": str(CPU), "baseline": CELLS[0].slug, "seed": 1, "contents": {},
                "cells": [each for _, each in named], "stopping": {"blocks": 6},
                "parameters": LOAD | {"warning": ""} | parameters}  # fmt: skip
        noise = np.random.default_rng(len(name)).normal(0, 0.02, (6, 3))
        with runs.open_run(name, machine) as opened:
            opened.save_environment(studies={STUDY: plan})
            for block, own in enumerate(cost * np.exp(noise)):
                for (cell, slug), value in zip(named, own * [1, ratio, 1], strict=True):
                    seen = [Observation(CPU, float(value), block=block)]
                    opened.append(cell, "", seen, study=STUDY, name=slug)
        return runs.load(name)

    return make


def level(found: pd.DataFrame, name: str) -> pd.DataFrame:
    return found[found["level"] == name].reset_index(drop=True)


def test_each_machine_has_its_own_ratio_and_no_absolute_value_is_pooled(write):
    made = {"a": write("a", AMD, 0.5), "b": write("b", INTEL, 0.6), "c": write("c", ARM, 0.7)}
    found = machines.combine(machines.sessions(made, STUDY))
    own = level(found, MACHINE)
    assert own["machine"].tolist() == ["AMD (2 CPUs, 24 GiB, x86_64)", "Intel (2 CPUs, 24 GiB, x86_64)",
                                       "Ampere (8 CPUs, 24 GiB, x86_64)"]  # fmt: skip
    for run, row in zip(made.values(), own.itertuples(), strict=True):
        alone = comparison.of_study(run, STUDY).set_index("cell").loc[JEMALLOC]
        assert (row.ratio, row.low, row.high) == pytest.approx(tuple(alone[["ratio", "low", "high"]]))
    every, another = level(found, ALL).iloc[0], level(found, ANOTHER).iloc[0]
    assert 0.5 < every["ratio"] < 0.7 and every["machines"] == 3 and 0 < every["tau"] < 0.5
    assert another["low"] <= every["low"] < every["high"] <= another["high"]
    apart = machines.combine(machines.sessions(made | {"b": write("slower", INTEL, 0.6, cost=1000)}, STUDY))
    assert level(apart, ALL)["ratio"][0] == pytest.approx(every["ratio"], rel=0.02)


def test_runs_on_one_machine_are_sessions_and_no_machines_of_their_own(write):
    again = AMD | {"kernel": "6.12", "engine": "29"}
    made = {"a": write("a", AMD, 0.5), "a2": write("a2", again, 0.52), "b": write("b", INTEL, 0.7)}
    found = machines.combine(machines.sessions(made, STUDY))
    own, every = level(found, MACHINE), level(found, ALL).iloc[0]
    assert own["sessions"].tolist() == [2, 1] and (every["machines"], every["sessions"]) == (2, 3)
    assert 0.49 < own["ratio"][0] < 0.53 and every["session_sd"] >= 0
    assert "between sessions" in views.machines.ratios(found).to_html()
    alone = {name: made[name] for name in ("a", "a2")}
    assert machines.combine(machines.sessions(alone, STUDY)).empty and sections.studies_across_machines(alone) == []


def test_the_parts_of_a_run_of_several_workers_are_machines_by_their_names(write):
    ratios = {"r@node1": 0.5, "r@node2": 0.52, "r@node3": 0.54, "r@arm64": 0.9}
    made = {name: write(name.replace("@", "-"), AMD, ratio) for name, ratio in ratios.items()}
    assert machines.name_of("r@arm64", AMD) == machines.name_of("r", AMD) == "AMD (2 CPUs, 24 GiB, x86_64)"
    elsewhere = AMD | {"cpu_model": "unknown"}  # two engines of this kind are not taken for one machine
    assert machines.name_of("r", elsewhere) == "" and "(node1, 2 CPUs" in machines.name_of("r@node1", elsewhere)
    made.pop("r@arm64")  # an architecture, and no machine
    found = machines.combine(machines.sessions(made, STUDY))
    assert level(found, MACHINE)["machine"].tolist() == [
        f"AMD (node{number}, 2 CPUs, 24 GiB, x86_64)" for number in (1, 2, 3)
    ]
    assert level(found, ALL)[["machines", "models"]].to_numpy().tolist() == [[3, 1]]
    assert "All have one CPU model, so nothing follows for another." in views.machines.in_words(found)
    assert sections.studies_across_machines(made) == [("r@node1", "11_machines", {"others": "r@node2,r@node3", **LOAD})]


def test_a_run_that_measured_otherwise_or_names_no_machine_is_left_out_and_told(write):
    made = {"x": write("x", ARM, 0.9, seconds=9), "a": write("a", AMD, 0.5), "b": write("b", INTEL, 0.7),
            "none": write("none", {}, 0.5)}  # fmt: skip
    found = machines.sessions(made, STUDY)
    assert set(found["run"]) == {"a", "b"}
    assert "run x is left out, because its study differs: seconds 9, not None" in found.attrs["warning"]
    assert "run none is left out: its machine is not recorded" in found.attrs["warning"]
    assert sections.studies_across_machines(made) == [("a", "11_machines", {"others": "b", **LOAD})]
    assert "Cargo.lock" not in found.attrs["warning"]
    other = replace(made["b"].environment, app={"name": "myip", "lockfile_sha256": "1"})
    found = machines.sessions(made | {"b": replace(made["b"], environment=other)}, STUDY)
    assert "several Cargo.lock files" in found.attrs["warning"] and "several apps" not in found.attrs["warning"]
    other = replace(made["b"].environment, app={"name": "fd"})
    found = machines.sessions(made | {"b": replace(made["b"], environment=other)}, STUDY)
    assert "the runs are of several apps: fd, myip" in found.attrs["warning"]


def test_three_machines_tell_what_another_one_may_have(write):
    made = {"a": write("a", AMD, 0.5), "b": write("b", INTEL, 0.5), "c": write("c", ARM, 0.5)}
    found = machines.combine(machines.sessions(made, STUDY))
    said = views.machines.in_words(found)
    assert "A machine that was not measured has a ratio of 0." in said and "nothing follows" not in said
    assert "it is not known which" not in said
    wide = found.assign(high=found["high"].where(found["level"] != ANOTHER, 2.0))
    wide.attrs = found.attrs
    assert "so it is not known which of the two is better there" in views.machines.in_words(wide)


def test_two_machines_say_nothing_of_a_third():
    run = Run(RECORDED[0], runs.load(RECORDED[0]))
    found = run.machines(RECORDED[1], workload="batch", workers=1, connections=16)
    found.check()
    assert found.sessions.table["run"].unique().tolist() == RECORDED
    assert found.ratios.words.count("With two machines nothing follows for a third") == 2
    for cell in ("scratch-optimized-jemalloc", "scratch-optimized-mimalloc"):
        own = found.ratios.table[found.ratios.table["cell"] == cell]
        assert own["level"].tolist() == [MACHINE, MACHINE, ALL, ANOTHER]
        assert own["low"].iloc[-1] < 1 < own["high"].iloc[-1] and own["i_squared"].iloc[2] > 0.9
    assert "left out: 3" in found.ratios.table.attrs["warning"]  # those on debian, of which one run has none
    (forest, _) = found.ratios.plot()
    assert "2 machines combined" in forest.alt and "another machine, predicted" in forest.alt


def test_a_page_has_the_section_only_where_two_machines_measured_alike():
    one, two = (runs.load(name) for name in RECORDED)
    ((first, notebook, parameters),) = sections.studies_across_machines({RECORDED[0]: one, RECORDED[1]: two})
    assert (first, notebook, parameters["others"]) == (RECORDED[0], "11_machines", RECORDED[1])
    assert sections.studies_across_machines({RECORDED[0]: one}) == []
    many = {"others": ",".join([RECORDED[1]] * 30)}  # more than the name of a file can hold
    assert not notebooks.is_rendered(RECORDED[0], "11_machines", many)


def test_an_interval_beyond_all_sense_is_told_by_where_it_ends():
    assert [views.machines.end(value) for value in (1e-9, 0.00305, 0.5648, 66.39, 1e7)] == [
        "under 0.001", "0.00305", "0.565", "66.4", "over 1,000"
    ]  # fmt: skip
