"""What memory real servers take, in containers with and without a limit."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.lab import measured

from rustimg_lab.analysis import comparison
from rustimg_lab.build import bake, lab_toml
from rustimg_lab.engine import client, images
from rustimg_lab.measure import load, plan, workloads
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.studies import memory
from rustimg_lab.model import matrix, metrics
from rustimg_lab.paths import MYIP, REPORTS
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
NAME = "test-memory"
LARGE = Load(workloads.find_workload("large"), workers=1, connections=64, warmup_s=1, seconds=1)
MEASURE = (
    "measure",
    "--study",
    "memory",
    "--run",
    NAME,
    "--bases",
    "scratch",
    "--allocators",
    "system",
    "--seconds",
    "1",
    "--workload",
    "large",
    "--connections",
    "64",
    "--workers",
    "1",
    "--blocks",
    "2",
)


@pytest.fixture(scope="module")
def study(lab):
    """A short study through the command line."""
    with measured(lab, NAME, MEASURE) as done:
        yield done


@pytest.fixture
def server(study) -> Treatment:
    cell = matrix.cell("scratch", "optimized", "system")
    return Treatment(cell, images.find_image(bake.image_tag(cell, lab_toml.load(MYIP).server)).id, cell.slug)


def values(study: str, metric: str):
    return comparison.samples(runs.load(NAME), study, metric)["value"]


def test_resident_memory_before_and_under_load_and_its_peak(study):
    assert runs.load(NAME).rows["ok"].all()
    idle, steady, peak, anonymous = (
        values("memory-load-large-1w-64c", metric)
        for metric in (
            metrics.IDLE_RSS_BYTES,
            metrics.STEADY_RSS_BYTES,
            metrics.PEAK_RSS_BYTES,
            metrics.STEADY_ANONYMOUS_BYTES,
        )
    )
    assert len(idle) == len(peak) == 2 * 2  # blocks, the cell and its twin
    assert (anonymous < steady).all() and (idle < steady).all()
    assert (peak > 0.9 * steady).all()  # the kernel's high-water mark may lag by some pages
    assert steady.median() > 2 * workloads.LARGE_BYTES  # 64 connections wait for a quarter of a mebibyte each


def test_more_connections_take_more_memory(study):
    held = [values("memory-connections-large-1w", f"rss_at_{count}_bytes").median() for count in (0, 100, 1000)]
    assert held == sorted(held) and held[0] < held[2]
    each = values("memory-connections-large-1w", "bytes_per_connection_at_1000").median()
    assert each == pytest.approx((held[2] - held[0]) / 1000, rel=0.2)


def test_the_smallest_limit_is_found_and_there_the_load_is_answered(study):
    limits, there, free = (
        values("memory-limit-large-1w-64c", metric)
        for metric in (metrics.SMALLEST_LIMIT_BYTES, "requests_per_s_at_limit", "requests_per_s")
    )
    assert len(limits) == 2 * 2 and (limits >= memory.SMALLEST_BYTES).all()
    assert (there >= memory.KEPT * free).all()
    assert (REPORTS / NAME / "report.html").exists()


def test_a_server_under_too_small_a_limit_is_lost_and_the_bisection_goes_up(server, tools, monkeypatch):
    monkeypatch.setattr(memory, "SMALLEST_BYTES", 2 << 20)  # which the engine refuses: that counts as too small
    found = {each.metric: each for each in memory.measure_limit(server, LARGE, tools)}
    assert found[metrics.SMALLEST_LIMIT_BYTES].value >= 6 << 20 and not found[metrics.SMALLEST_LIMIT_BYTES].detail
    monkeypatch.setattr(memory, "LARGEST_BYTES", 3 << 20)
    with pytest.raises(
        FailedTrial, match=r"a limit of 2 MiB is too small too: the server does not start: .*[Mm]emory limit"
    ):
        memory.measure_limit(server, LARGE, tools)


def test_a_server_that_its_limit_slows_down_has_too_little(server, tools):
    many = replace(LARGE, workload=workloads.find_workload("batch"), connections=512)
    found = {each.metric: each for each in memory.measure_limit(server, many, tools)}
    assert (
        found[metrics.SMALLEST_LIMIT_BYTES].value > memory.SMALLEST_BYTES
        and not found[metrics.SMALLEST_LIMIT_BYTES].detail
    )
    with pytest.raises(
        FailedTrial, match=r"requests per second, where .* are needed|requests failed|does not start|ended"
    ):
        memory._rate(server, many, tools, memory.SMALLEST_BYTES, memory.KEPT * found["requests_per_s"].value)


def test_an_engine_that_limits_no_memory_is_told(server, tools, monkeypatch):
    """No engine here is one: its answer is replaced."""
    info = client.connect().info()
    monkeypatch.setattr(client.connect(), "info", lambda: info | {"MemoryLimit": False})
    run = SimpleNamespace(environment={})
    planned = [
        study.parameters for study, _ in memory.plan(StudyContext([[server]], plan.Plan(1), run, tools, (LARGE,)))
    ]
    assert [each["of"] for each in planned] == ["load", "connections"]
    assert "this engine keeps no container to a memory limit: the smallest is not measured" in planned[0]["warning"]


def test_memory_after_a_load_without_its_throughput_is_refused(server, tools):
    context = StudyContext([[server]], plan.Plan(1), SimpleNamespace(environment={}, name="a"), tools, (LARGE,))
    with pytest.raises(plan.PlanError, match=r"no throughput study of the load large-1w-64c: call `\./lab measure"):
        next(memory.plan_rest(context))


def test_what_the_kernel_does_not_tell_is_absent_with_its_reason(server, tools, monkeypatch):
    """No kernel here lacks it: another file is read in its place."""
    monkeypatch.setattr(memory, "_FIND", memory._FIND.replace("smaps_rollup", "no-such-file"))
    found = {each.metric: each for each in memory.measure_load(server, LARGE, tools)}
    assert not found[metrics.STEADY_RSS_BYTES].ok and "does not tell" in found[metrics.STEADY_RSS_BYTES].reason
    assert found[metrics.PEAK_RSS_BYTES].ok and found[metrics.PEAK_RSS_BYTES].value > 0


def test_a_server_that_is_gone_takes_its_generator_along_and_is_lost(server, tools):
    with load.serve(server, LARGE, tools, shares_processes=True) as found:
        found.container.kill()
        found.container.wait()
        with pytest.raises(FailedTrial, match="the server is gone"):
            memory._resident(found.client, images.inspect(server.image).user)
        with pytest.raises(FailedTrial, match=r"the load generator (is gone|failed)"):
            load.ask(found, LARGE, 1)


def test_too_few_open_files_for_the_connections_are_told(server, tools, monkeypatch):
    monkeypatch.setattr(memory, "OPEN_FILES", 50)
    with pytest.raises(FailedTrial, match=r"connection \d\d of 99 more: .*Too many open files"):
        memory.measure_connections(server, LARGE, tools)
