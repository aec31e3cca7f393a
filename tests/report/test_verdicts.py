"""From a study's rows to what a reader sees: sentences, tables, plots; here of studies that are made up."""

import random

import pandas as pd
import pytest

from rustimg_lab.analysis import comparison
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import Lost, Study, Treatment
from rustimg_lab.model import matrix
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import plots, sections, terminal, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

CPU = "cpu_us_per_request"
CELLS = matrix.grid(["scratch"], ["optimized"], ["system", "jemalloc", "mimalloc"])
BASELINE = CELLS[0].slug
COST = {"system": 100.0, "jemalloc": 25.0, "mimalloc": 99.0}
SHARED = "server and load generator share the CPUs 0,1: they slow each other"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes a run with a study of six blocks in which jemalloc costs a quarter, and mimalloc is given up in one."""

    def make(warning: str = "", blocks: int = 6) -> tuple:
        monkeypatch.setattr(runs, "RUNS", tmp_path)
        treatments = [Treatment(cell, "sha256:1", cell.slug) for cell in CELLS]
        treatments.append(Treatment(CELLS[0], "sha256:1", BASELINE + TWIN))
        parameters = {"workload": "batch", "workers": 2, "connections": 16, "warning": warning}
        contents = {cell.slug: "0" for cell in CELLS}
        plan = Study("s", "throughput", parameters, tuple(treatments), BASELINE, CPU, blocks, 1, contents=contents)
        turns = iter(range(10_000))

        def measure(treatment: Treatment) -> list[Observation]:
            turn = next(turns)
            if treatment.cell.allocator == "mimalloc" and turn < len(treatments) + 2:
                raise Lost("<b>the container is gone</b>")
            noise = 1 + 0.02 * random.Random(turn).random()
            return [Observation(CPU, COST[treatment.cell.allocator] * noise, "us"), Observation("requests_per_s", 1e4)]

        with runs.open_run("a", {}) as run:
            trials.run_study(plan, run, measure)
        return runs.load("a"), comparison.of_study(runs.load("a"), "s", CPU)

    return make


def test_the_articles_sentence_has_its_verdict_with_a_ratio_and_an_interval(study):
    run, found = study()
    said = views.verdicts.allocator_verdict(run, "s")
    one = found.set_index("cell").loc["scratch-optimized-jemalloc"]
    assert f"**{one['ratio']:.2f}** times" in said and f"interval {one['low']:.2f} to {one['high']:.2f}" in said
    assert "**faster**" in said and "6 blocks" in said


def test_every_comparison_has_its_sentence_the_twin_included(study):
    _, found = study()
    lines = views.verdicts.ratios(found, "CPU time per request").splitlines()
    assert len(lines) == len(found) == 3
    by_cell = dict(zip(found["cell"], lines, strict=True))
    assert "**faster**" in by_cell["scratch-optimized-jemalloc"]
    failed = "17% of the trials of scratch-optimized-mimalloc failed and 0% of those of "
    assert failed in found.attrs["warning"]
    assert "minimum detectable effect" in by_cell["scratch-optimized-mimalloc"]
    assert "same image twice" in by_cell[BASELINE + TWIN] and "A/A control" in by_cell[BASELINE + TWIN]


def test_glibcs_malloc_is_not_called_musls(study):
    """A program with glibc linked in stands on scratch too."""
    run, _ = study()
    run.rows["profile"] = "glibc-static"
    assert "does not compare musl malloc with jemalloc" in views.verdicts.allocator_verdict(run, "s")


def test_how_well_counts_repeat_is_a_sentence_and_no_reason_to_have_no_report():
    names = ["scratch-optimized-system"] * 2 + ["scratch-optimized-system~twin"] * 2
    counts = pd.DataFrame({"cell": names, "value": [1000.0, 1000.0, 500.0, 510.0]})
    assert "at most **2.000%** (scratch-optimized-system (A/A control))" in views.verdicts.repeatability(counts)
    assert "not known" in views.verdicts.repeatability(counts.drop_duplicates("cell"))


def test_recorded_counts_repeat_within_a_thousandth():
    run = runs.load("recorded/allocators")
    (name,) = comparison.find_studies(run, "instructions", workload="batch")
    counts = comparison.samples(run, name, "instructions_per_request").groupby("cell")["value"]
    assert counts.size().min() > 1 and (counts.max() / counts.min()).max() < 1.001


def test_shared_cpus_are_said_in_every_table(study):
    run, found = study(warning=SHARED)
    summary = comparison.summarize(comparison.samples(run, "s", CPU))
    for table in (views.studies.ratios(found), views.studies.summary({"CPU": summary}), views.studies.studies(run)):
        assert SHARED in table.to_html()
    ((notebook, parameters),) = sections.parts(runs.load("a"))
    assert SHARED in str(terminal.summary("a", notebook, parameters).title)


def test_what_was_lost_is_in_a_table_as_text(study):
    run, _ = study()
    html = views.studies.lost(run).to_html()
    assert "&lt;b&gt;the container is gone&lt;/b&gt;" in html and "scratch-optimized-mimalloc" in html


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_studies_that_have_hardly_begun_have_their_tables_and_plots_too(study, blocks):
    run, found = study(blocks=blocks)
    samples = comparison.samples(run, "s", CPU)
    assert len(found) == 3  # also of the cell whose trials were all lost
    views.studies.ratios(found).to_html()
    views.studies.summary({"CPU": comparison.summarize(samples)}).to_html()
    views.verdicts.ratios(found, "CPU")
    for plot in (plots.studies.trials(samples, "CPU", ""), plots.studies.ratios(found, "CPU", "")):
        plot.canvas.draw()
    assert terminal.markdown("a", *sections.parts(runs.load("a"))[0]).count("\n") == 2 + len(found)


def test_a_study_that_is_not_there_is_told_with_those_that_are(study):
    run, _ = study()
    with pytest.raises(LabError, match=r"no throughput study with workload large; it has s"):
        comparison.find_study(run, "throughput", workload="large")


def test_published_measurements_have_their_sources():
    html = views.studies.published().to_html()
    assert html.count("https://github.com/") == 6
