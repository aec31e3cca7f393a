"""Real starts: inside the image without the engine, and of containers."""

from dataclasses import replace

import pytest
from support.lab import adds_nothing, measured

from rustimg_lab.analysis import comparison
from rustimg_lab.build import bake, lab_toml
from rustimg_lab.engine import images
from rustimg_lab.measure import workloads
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.studies import startup
from rustimg_lab.model import matrix
from rustimg_lab.paths import MYIP, REPORTS
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
NAME = "test-startup"
MEASURE = ("measure", "--study", "startup", "--run", NAME, "--bases", "scratch", "--blocks", "3")


@pytest.fixture(scope="module")
def study(lab):
    """A short study through the command line."""
    with measured(lab, NAME, MEASURE) as done:
        yield done


def values(study: str, metric: str):
    return comparison.samples(runs.load(NAME), study, metric)["value"]


def test_every_part_of_a_start_is_measured_in_every_trial(study):
    run = runs.load(NAME)
    assert run.rows["ok"].all()
    for name, metrics in (
        ("startup-server", ("exec_to_first_byte_s", "noop_exec_to_exit_s", "longest_poll_s")),
        ("startup-client", ("exec_to_exit_s", "noop_exec_to_exit_s")),
        (
            "startup-container",
            ("host_create_s", "host_first_byte_s", "bridge_first_byte_s", "host_exit_s", "noop_container_s"),
        ),
    ):
        for metric in metrics:
            assert len(values(name, metric)) == 3 * 2, metric  # the cell and its twin
    starts = run.rows[run.rows["metric"] == "exec_to_first_byte_s"]
    assert len(starts) == 3 * 2 * startup.STARTS and starts["is_warmup"].sum() == 3 * 2
    assert (REPORTS / NAME / "report.html").exists()


def test_a_program_takes_longer_than_nothing_and_an_engine_longer_than_a_program(study):
    floor, program = (
        values("startup-server", name).median() for name in ("noop_exec_to_exit_s", "exec_to_first_byte_s")
    )
    container = values("startup-container", "host_first_byte_s").median()
    assert 0 < floor < program < container


def test_the_first_byte_is_looked_for_more_often_than_twice_before_it_comes_or_the_study_says_so(study):
    """What else is on the machine decides it; the table says so where it is too rarely."""
    first = comparison.samples(runs.load(NAME), "startup-server", "exec_to_first_byte_s")
    share = values("startup-server", "longest_poll_s") / first["value"]
    assert len(share) == 3 * 2 and share.between(0, 1, inclusive="neither").all()
    assert (share.median() >= 0.5) == ("nobody looked for the first byte" in first.attrs["warning"])


def test_the_same_call_measures_nothing_again_and_leaves_no_container(study, pageless):
    adds_nothing(pageless, NAME, MEASURE)


@pytest.fixture
def server(study) -> Treatment:
    cell = matrix.cell("scratch", "optimized", "jemalloc")
    return Treatment(cell, images.find_image(bake.image_tag(cell, lab_toml.load(MYIP).server)).id, cell.slug)


def test_a_program_that_is_no_server_is_told(study, tools):
    cell = matrix.cell("scratch", "optimized", "jemalloc")
    client = images.find_image(bake.image_tag(cell, lab_toml.load(MYIP))).id
    with pytest.raises(FailedTrial, match=r"exit code 1; .*the program ended before it answered"):
        treatment = Treatment(cell, client, cell.slug)
        startup.measure_process(treatment, "first-byte", ([], {}), tools, workloads.find_workload("root"))


def test_a_container_that_never_answers_is_told(server, monkeypatch):
    monkeypatch.setattr(startup, "free_port", lambda: 1)  # which an unprivileged server may not listen on
    with pytest.raises(FailedTrial, match=r"no answer within 1 s; .*127\.0\.0\.1:1: Permission denied"):
        root = workloads.find_workload("root")
        startup._container(server.image, "host", replace(root, serve=replace(root.serve, start_timeout_s=1)))
