"""From a study's rows to what a reader sees: sentences, tables, plots; here of studies that are made up."""

import random
from dataclasses import replace

import pandas as pd
import pytest

import rustimg_lab as lab
from rustimg_lab.analysis import attribution, comparison, deploy, factorials, recommendation
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import FailedTrial, Study, Treatment
from rustimg_lab.model import matrix
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import plots, sections, summary, terminal, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation
from rustimg_lab.widgets.images import Sizes

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
                raise FailedTrial("<b>the container is gone</b>")
            noise = 1 + 0.02 * random.Random(turn).random()
            return [Observation(CPU, COST[treatment.cell.allocator] * noise, "us"), Observation("requests_per_s", 1e4)]

        with runs.open_run("a", {}) as run:
            trials.run_in_turns([(plan, measure)], run)
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
    html = views.studies.missing_values(run).to_html()
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
    table, _, note = terminal.markdown("a", *sections.parts(runs.load("a"))[0]).partition("\n\n")
    assert table.count("\n") == 1 + len(found) and note == f"Note: CPU per request: {found.attrs['warning']}.\n"


def test_a_study_that_is_not_there_is_told_with_those_that_are(study):
    run, _ = study()
    with pytest.raises(LabError, match=r"no throughput study with workload large; it has s"):
        comparison.find_study(run, "throughput", workload="large")
    with pytest.raises(LabError, match=r"has no memory study; it has s"):
        comparison.find_study(run, "memory")


def test_of_studies_of_a_kind_one_with_its_baseline_comes_first_and_a_metric_without_a_phrase_has_its_name():
    run = runs.load("recorded/knobs")
    assert not comparison.has_baseline(run, "memory-connections-batch-1w")
    assert comparison.find_study(run, "memory").startswith("memory-load-")
    with pytest.raises(LabError, match=r"'memory-connections-batch-1w', idle_rss_bytes: the baseline"):
        comparison.of_study(run, "memory-connections-batch-1w", "idle_rss_bytes")


def test_published_measurements_have_their_sources():
    html = views.studies.published().to_html()
    assert html.count("https://github.com/") == 6


def test_the_farthest_from_a_baseline_may_be_the_fastest_and_what_hides_a_difference_is_named():
    run = runs.load("recorded/startup")
    said = views.verdicts.startup_verdict(run, "debian-optimized-system")
    assert "**scratch-optimized-jemalloc**: 0.50 times" in said and "seen through the engine's own work too" in said
    container = comparison.of_study(run, "startup-container", "host_first_byte_s")
    assert "slower" in set(container["verdict"]) and "hides this difference" in views.verdicts.startup_verdict(run)
    far = pd.Series({"cell": container["cell"][0], "verdict": "faster"})
    alike = container.assign(verdict="no difference detectable")
    assert "hides what the image changes" in views.verdicts._container_sentence(far, alike)
    assert views.verdicts._container_sentence(pd.Series({**far, "verdict": "too noisy"}), alike) == ""


def test_of_several_images_that_fail_most_probes_each_is_named():
    first = views.robustness.survival(runs.load("recorded/survival")).partition("\n")[0]
    most = first.partition("the fewest; ")[2]
    assert most.count("**") == 8 and most.endswith("fail **7**, the most.")


def test_one_base_is_not_compared_with_itself_and_a_run_without_sizes_says_what_makes_them():
    assert Sizes(runs.load("recorded/factorial")).article.words == "- One base of the article's grid works in this run."
    none = Sizes(runs.load("recorded/allocators"))
    with pytest.raises(LabError, match=r"has no sizes and checks of cells: nothing to show$"):
        assert none.words
    assert "no sizes" in none._repr_html_() and "no sizes" in none.binaries._repr_html_()


def test_a_plot_of_sizes_says_which_cells_of_the_run_are_in_it():
    assert Sizes(runs.load("recorded/factorial")).plot()[1] == "Drawn: the 1 of 64 cells that the article has."
    assert isinstance(Sizes(runs.load("recorded/article")).plot(), plots.style.Plot)


def test_a_target_that_is_the_start_is_told_as_that():
    quantity = factorials.find_factorials(runs.load("recorded/factorial"))[0][0]
    said = views.attribution.in_words(attribution.shares(quantity, quantity.start))
    assert "start and target are the same cell" in said and "none is below" not in said


def test_a_deploy_is_compared_with_the_largest_of_the_others_and_differs_where_it_does():
    found = deploy.compare_cells(runs.load("recorded/deploy"), "debian-optimized-system")
    assert found.attrs["cell"] == "distroless-optimized-system"
    assert "every bandwidth" in views.deploy.in_words(found)
    found.loc[1, "verdict"] = "no difference detectable"
    said = views.deploy.in_words(found)
    assert "every bandwidth" not in said and "They differ at 10, 100, 1,000 Mbit/s" in said


def test_a_short_study_is_told_with_the_cells_own_effect_or_as_up_to_the_worst():
    found = deploy.compare_cells(runs.load("recorded/deploy"))
    for study, own in zip(("10mbit", "30mbit", "100mbit", "1000mbit"), found["detectable"], strict=True):
        assert (
            f"deploy-cold-{study}: a short study (8 blocks): its minimum detectable effect is {own - 1:.0%}"
            in (found.attrs["warning"])
        )
    whole = comparison.of_study(runs.load("recorded/deploy"), "deploy-cold-1000mbit")
    assert whole.attrs["warning"].endswith(f"is up to {whole['detectable'].max() - 1:.0%}")


def test_the_answer_names_two_programs_what_was_not_measured_and_a_substitute():
    run = runs.load("recorded/service")
    found = recommendation.choose(run, next(iter(summary.GOALS.values())))
    (first, *_) = summary.best({"recorded/service": run})
    assert first.note == views.recommendation.of_two_programs(found) != ""
    assert views.recommendation.of_two_programs(replace(found, notes=[])) == ""
    lacking = replace(found, unmeasured=["alpine-optimized-system"])
    assert "Not measured in all of this, so not among them: alpine-" in summary._answer("", "", run, lacking).sure
    marked = replace(found, table=found.table.assign(stand_in=True))
    assert "Selected: scratch (substitute)-optimized-jemalloc" in "".join(views.recommendation.evidence(marked))
    none = replace(marked, picked="")
    assert "(substitute)-" in views.recommendation.evidence(none)[-1]


def test_of_several_profiles_the_one_whose_ratios_are_told_is_named():
    table = summary.allocators({"recorded/knobs": runs.load("recorded/knobs")})
    assert table["profile"].unique().tolist() == ["baseline"] and not table.duplicated("instead of").any()
    assert "profile" not in summary.allocators({"recorded/allocators": runs.load("recorded/allocators")})


def test_axes_of_ratios_name_no_unit():
    run = lab.load("recorded/allocators")
    (axes,) = run.ratios("throughput-batch-1w-16c").plot().axes
    assert axes.get_xlabel() == "CPU per request, as a ratio to scratch-optimized-system"
    several = run.machines("recorded/allocators-intel, recorded/threads", workload="batch", workers=1, connections=16)
    assert "µs" not in several.ratios.plot()[0].axes[0].get_xlabel()


def test_compressed_sizes_of_two_runs_are_compared_only_where_they_were_compressed_in_one_way():
    one = runs.load("recorded/service")
    size = one.rows["metric"].eq("compressed_bytes")
    smaller = one.rows.assign(value=one.rows["value"].where(~size, one.rows["value"].where(size) * 0.9))
    other = smaller.assign(detail=smaller["detail"].mask(size, "gzip -6 by zlib-ng 2.2"))
    for rows, best in ((smaller, "other"), (other, "one")):
        answers = summary.best({"one": one, "other": replace(one, rows=rows)})
        of_sizes = [each for each in answers if each.sure == "Certain: sizes are exact."]
        assert len(of_sizes) > 1 and {each.run for each in of_sizes} == {best}


def test_a_table_in_markdown_has_the_note_that_the_terminal_has():
    (part,) = [each for each in sections.parts(runs.load("recorded/rest")) if each[0].startswith("03")]
    alarm = "the A/A control differs from its own image"
    assert alarm in str(terminal.summary("recorded/rest", *part).title).replace("\n", " ")
    assert f"{alarm}, so" in terminal.markdown("recorded/rest", *part).rpartition("|\n")[2]
    assert "Note" not in terminal.markdown("recorded/article")
