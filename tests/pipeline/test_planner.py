"""What a study refuses before anything is built, for how a server is asked."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.host.machine import Core
from rustimg_lab.measure import plan
from rustimg_lab.measure.plan import Treatment
from rustimg_lab.model import matrix, metrics, settings
from rustimg_lab.model.app import App, Image, Serve, Work
from rustimg_lab.model.studies import KINDS
from rustimg_lab.pipeline import planner
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation


def test_a_setting_that_the_app_sets_itself_is_refused_and_others_are_cells_beside_those_without():
    cells = matrix.grid(["scratch"], ["optimized"], ["system", "jemalloc"])
    one, many = settings.parse("narenas=1"), settings.parse("narenas=4")
    planner.refuse_settings((one, many), cells, App("a", Path(), "", "a"))
    own = {"image": Image(environment=(("MALLOC_CONF", "a"),))}, {"serve": Serve(environment=(("MALLOC_CONF", "a"),))}
    for changes in own:
        with pytest.raises(LabError, match=r"--settings narenas=1: lab.toml sets MALLOC_CONF itself"):
            planner.refuse_settings((one,), cells, App("a", Path(), "", "a", **changes))
    found = planner._with_settings([Treatment(cell, "", cell.slug) for cell in cells], (one, many))
    assert [each.name for each in found] == [*(names := [cell.slug for cell in cells]),
                                             f"{names[1]}~narenas=1", f"{names[1]}~narenas=4"]  # fmt: skip
    assert [each.setting for each in found] == [None, None, one, many]


def test_a_baseline_is_a_cell_of_the_study_with_or_without_a_setting_and_whatever_its_layout():
    plain = matrix.cell("scratch", "optimized", "jemalloc")
    cells, narrow = [replace(plain, layout=1), replace(plain, layout=2)], settings.parse("narenas=1")
    for own in ("", plain.slug, cells[0].slug, f"{cells[1].slug}~narenas=1"):
        planner.refuse_baseline(own, cells, (narrow,))
    for other in ("debian-optimized-jemalloc", f"{cells[1].slug}~narenas=2"):
        with pytest.raises(LabError, match=f"unknown baseline '{other}'"):
            planner.refuse_baseline(other, cells, (narrow,))


def test_a_load_that_the_machine_has_too_few_cpus_for_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(planner.load, "engine_cores", lambda: [Core((0,)), Core((1,))])
    loads = [planner.USUAL_LOAD, replace(planner.USUAL_LOAD, workers=8)]
    with pytest.raises(LabError, match="8 worker threads are measured on four CPUs or more, here are 2; use 1 or 2"):
        planner.refuse_loads(loads, KINDS["throughput"])
    planner.refuse_loads(loads[:1], KINDS["throughput"])
    monkeypatch.setattr(planner.load, "engine_cores", lambda: [Core((0,))])
    planner.refuse_loads(loads, KINDS["startup"])  # whose server has no CPUs of its own


def test_a_server_that_takes_no_number_of_workers_is_measured_once(monkeypatch):
    monkeypatch.setattr(planner.load, "engine_cores", lambda: [Core((0,)), Core((1,))])
    plain, told = Serve(), Serve(arguments=("--threads={workers}",))
    for serve, study, expected in (
        (None, "throughput", [1, 2]), (told, "memory", [1, 2]), (told, "latency", [1]), (plain, "throughput", [1]),
    ):  # fmt: skip
        assert planner.usual_workers(App("a", Path(), "", "a", serve=serve), KINDS[study]) == expected


def test_work_is_measured_by_calls_one_after_another_and_by_no_study_of_servers(monkeypatch):
    monkeypatch.setattr(planner.load, "engine_cores", lambda: [Core((0,))] * 4)
    app = App("a", Path(), "", "a", work=Work(("--threads", "{workers}")))
    assert planner.load_of(app).connections == 1
    assert planner.usual_workers(app, KINDS["throughput"]) == [1, 2, 4]
    assert planner.usual_workers(replace(app, work=Work(())), KINDS["throughput"]) == [1]
    for folder in (__file__, "/", "/none"):
        with pytest.raises(LabError, match=rf"^\[work\] in lab.toml, 'input': {folder} is no folder whose content can"):
            planner.load_of(replace(app, work=Work((), input=folder)))
    for name, kind in KINDS.items():
        if name in ("throughput", "layouts", "build"):
            assert planner.programs(app, kind, Path()) == [app]
        else:
            with pytest.raises(
                LabError, match=r"has \[work\]; this study is of servers, and --study throughput of work"
            ):
                planner.programs(app, kind, Path())


@pytest.mark.parametrize(
    ("serve", "studies"),
    [
        ({"http": 2, "grpc": ""}, {"build"}),
        ({"tls": True}, {"build", "throughput", "latency", "memory", "rest", "layouts"}),
        ({"http": 2}, {"build", "throughput", "latency", "memory", "rest", "layouts"}),
        ({"keep_alive": False, "status": 204, "start_timeout_s": 60}, set(KINDS)),
    ],
)
def test_a_study_that_cannot_ask_a_server_so_says_so_before_anything_is_built(serve, studies, monkeypatch):
    monkeypatch.setattr(planner.cold_engine, "check", lambda: None)  # this machine's part of a deploy study
    app = App("a", Path(), "", "a", check=None, serve=Serve(**serve))
    for name, kind in KINDS.items():
        if name in studies:
            assert planner.programs(app, kind, Path()) == [app]
        else:
            with pytest.raises(
                LabError, match=r"^(no study asks by gRPC|a start ends with the first byte by plain HTTP)"
            ):
                planner.programs(app, kind, Path())


def test_without_a_trial_in_a_closed_loop_there_is_no_rate_for_latency(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    load = SimpleNamespace(name="batch-1w-16c", workload=SimpleNamespace(name="batch"), workers=1, connections=16)
    cell = matrix.cell("scratch", "optimized", "system")
    parameters = {"warning": "", "workload": "batch", "workers": 1, "connections": 16}
    study = plan.Study(
        f"throughput-{load.name}", "throughput", parameters, (Treatment(cell, "sha256:1", cell.slug),), cell.slug,
        metrics.REQUESTS_PER_S, blocks=1, seed=1,
    )  # fmt: skip
    with runs.open_run("lost", {}) as run:
        with pytest.raises(LabError, match="has no throughput study of that load"):
            planner._rate(load, run)
        plan.record_plan(study, run)
        lost = [Observation(metrics.TRIAL, False, ok=False, reason="the server does not start")]
        run.append(cell, "sha256:1", lost, study=study.name)
        with pytest.raises(LabError, match="has no throughput study of that load with a trial"):
            planner._rate(load, run)
