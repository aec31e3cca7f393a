"""What a user types and gets back, without an engine."""

import os
import re

import pytest

from rustimg_lab import choice, effects, findings, report, store
from rustimg_lab.choice import Wishes
from rustimg_lab.errors import LabError
from rustimg_lab.paths import MYIP, REPORTS, ROOT

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent"}
STUDIES = ("allocators", "startup", "memory")
RECORDED = ["recorded", *(f"recorded/{name}" for name in (*STUDIES, "service", "fd", "bat"))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dockerfile", "scrach"), "lab: unknown base 'scrach': did you mean 'scratch'?"),
        (("dockerfile", "scratch", "--profile", "optimised"), "lab: unknown profile 'optimised': did you mean"),
        (("dockerfile", "scratch", "--allocator", "jemaloc"), "lab: unknown allocator 'jemaloc': did you mean"),
        (("run", "--bases", "scratch,debain"), "lab: unknown base 'debain': did you mean 'debian'?"),
        (("run", "--base", "alpine"), "lab: --base alpine: give it as NAME=SOURCE"),
        (("report", "--run", "recoded"), "lab: unknown run 'recoded': did you mean 'recorded'?"),
        (("run",), "lab: no Docker engine answers at unix:///nonexistent: start it (systemctl start docker)"),
        (("clean",), "lab: no Docker engine answers at unix:///nonexistent"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, message, lab):
    done = lab(*arguments, **NO_ENGINE)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_dockerfile_is_printed_as_it_is_committed(lab):
    done = lab("dockerfile", "scratch", "--profile", "optimized", "--allocator", "jemalloc", **NO_ENGINE)
    assert done.returncode == 0
    assert done.stdout == (MYIP / "Dockerfile.scratch").read_text()


def test_the_recorded_report_needs_no_engine(lab):
    done = lab("report", "--run", "recorded", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" yes") == 8
    page = (REPORTS / "recorded" / "01_sizes.html").read_text()
    assert page.count("<img") == page.count('src="data:image/png;base64,') == 4


@pytest.mark.parametrize("run", RECORDED)
def test_the_page_loads_nothing_from_the_network(run):
    loads = r"""(?:src|srcset)\s*=\s*["']?(?!data:)[^"'\s>]+|<link\b|@import|url\((?!["']?data:)"""
    for notebook, parameters in report.parts(run):
        page = report.render(run, notebook, parameters).read_text()
        assert [found[:80] for found in re.findall(loads, page)] == []
        assert "<script" not in page
        assert len(page) < 3_000_000


def test_an_unknown_parameter_is_told_with_the_nearest():
    with pytest.raises(LabError, match="unknown parameter 'run_nam': did you mean 'run_name'"):
        report.render("recorded", parameters={"run_nam": "x"})


def test_a_notebook_that_does_not_reach_its_end_makes_no_page(monkeypatch):
    page = report.render("recorded")
    before = page.read_text()
    os.utime(page, (0, 0))  # older than what it is made of, or it would be left alone
    monkeypatch.setattr(report, "SENTINEL", "what no cell prints")
    with pytest.raises(LabError, match="did not run to its end"):
        report.render("recorded")
    assert page.read_text() == before


def test_the_readmes_verdicts_are_those_of_the_recorded_studies():
    allocators = findings.allocator_verdict(store.load("recorded/allocators"), "throughput-batch-1w-16c")
    memory = findings.memory_verdict(
        store.load("recorded/memory"), "memory-load-batch-1w-1000c", "memory-limit-batch-1w-1000c"
    )
    for verdict in (allocators, memory, findings.startup_verdict(store.load("recorded/startup"))):
        assert verdict in (ROOT / "README.md").read_text(), f"README.md should say:\n{verdict}"


@pytest.mark.parametrize("run", RECORDED[:4])
def test_the_readmes_tables_are_the_recorded_runs(run):
    for notebook, parameters in report.parts(run):
        table = report.markdown(run, notebook, parameters)
        assert table in (ROOT / "README.md").read_text(), f"README.md should have this table:\n{table}"


@pytest.mark.parametrize(
    ("run", "wishes"),
    [
        ("service", Wishes({"transfer": 3e6}, min_throughput=0.95)),
        ("fd", Wishes({"transfer": 3e6}, stable=True)),
        ("bat", Wishes(needs_shell=True)),
    ],
)
def test_the_readmes_choices_are_those_of_the_recorded_runs(run, wishes):
    readme = (ROOT / "README.md").read_text()
    for line in choice.evidence(choice.choose(store.load(f"recorded/{run}"), wishes))[1:]:
        assert line in readme, f"README.md should say:\n{line}"
    if run != "service":
        assert report.markdown(f"recorded/{run}") in readme


def test_the_readme_says_where_profiles_gain_and_lose():
    text = effects.in_words(effects.of_profiles(store.load("recorded/service")))
    assert text in (ROOT / "README.md").read_text(), f"README.md should say:\n{text}"
