"""What the verbs return of runs that are not as the recorded ones: interrupted, of an older lab, with broken rows."""

import re
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure

import rustimg_lab as lab
from rustimg_lab.analysis import comparison
from rustimg_lab.model import metrics
from rustimg_lab.model.names import TWIN
from rustimg_lab.report import summary
from rustimg_lab.widgets.run import Run


@pytest.fixture
def given(monkeypatch) -> Callable:
    """A recorded run with other rows, as `lab.load` then returns it too."""

    def make(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Run:
        run = lab.load(f"recorded/{name}")
        changed = replace(run, data=replace(run.data, rows=change(run.rows)))
        monkeypatch.setattr(lab, "load", lambda _: changed)
        return changed

    return make


def test_stable_flags_are_required_also_of_a_run_that_does_not_tell_which_are(given):
    given("service", lambda rows: rows[rows["metric"] != metrics.UNSTABLE])
    found = lab.recommend("", stable=True)
    assert found.cell == "" and "Constraints: no unstable flags" in found.words
    assert lab.recommend("").cell != "" and lab.recommend("", stable=False).cell != ""


def begun(rows: pd.DataFrame) -> pd.DataFrame:
    """One block of each study."""
    return rows[rows["study"].eq("") | rows["block"].eq(0)]


def uncontrolled(rows: pd.DataFrame) -> pd.DataFrame:
    """What a study has before its first trial of the A/A control."""
    return begun(rows[~rows["cell"].str.endswith(TWIN)])


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Studies that share no block, nor do their cells."""
    place = rows["study"].map({name: place for place, name in enumerate(rows["study"].unique())})
    return rows[rows["study"].eq("") | (rows["block"] + place + rows["cell"].str.len()).mod(2).eq(0)]


def no_trial(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["study"].eq("")]


@pytest.mark.parametrize("change", [begun, uncontrolled, apart, no_trial])
@pytest.mark.parametrize("name", ["threads", "startup", "memory", "allocators", "layouts", "deploy"])
def test_a_study_that_has_hardly_begun_passes_its_checks_and_its_words_have_numbers_or_none(given, name, change):
    run = given(name, change)
    said = []
    for study in map(run.study, run.studies):
        study.check()
        said.append(study.trials().words)
        study.trials().plot()
        if not study.trials().table["cell"].eq(study.plan.baseline).any():
            continue
        said += [study.words, study.ratios().words, study.ratios()._repr_html_()]
        assert isinstance(study.ratios().plot(), Figure)
        if study.plan.kind == "throughput":
            said += [study.speed_up.words, study.speed_up._repr_html_()]
        if study.plan.parameters.get("of") == "connections":
            said.append(study.connections._repr_html_())
    if name == "deploy" and change is not no_trial:
        said += [run.deploys().ratios.words, run.deploys().ratios._repr_html_()]
    assert not [each for each in said if re.search(r"\bnan\b", each)]


def test_idle_connections_that_were_not_measured_yet_are_an_empty_table(given):
    study = given("memory", no_trial).study("memory-connections-batch-1w")
    assert study.connections.table.empty and "resident at 100, MB" in study.connections._repr_html_()
    assert study.means({}).table.empty


def test_a_study_that_was_planned_without_its_control_fails_its_check(given):
    study = given("startup", lambda rows: rows).study("startup-server")
    study.plan = replace(study.plan, cells=[each for each in study.plan.cells if not each.endswith(TWIN)])
    with pytest.raises(AssertionError, match="without its A/A control"):
        study.check()


def test_a_study_of_two_blocks_without_a_trial_of_its_control_fails_its_check(given):
    study = given("startup", lambda rows: rows[~rows["cell"].str.endswith(TWIN)]).study("startup-server")
    with pytest.raises(AssertionError, match="without its A/A control"):
        study.check()


def test_rows_that_could_not_be_read_are_told_where_a_run_is_shown_and_where_a_cell_is_chosen(given):
    run = given("service", lambda rows: rows)
    told = "2 rows could not be read"
    assert told not in run._repr_html_() + lab.recommend("").words + str(summary.notes({"a": run.data}))
    broken = replace(run, data=replace(run.data, broken=("rows.jsonl:1", "rows.jsonl:2")))
    lab.load = lambda _: broken
    assert told in broken._repr_html_() and f"Note: {told}." in lab.recommend("").words
    assert summary.notes({"a": broken.data})[-1].startswith(f"In run a {told}: ")


def nothing(rows: pd.DataFrame, cells: str = "") -> pd.DataFrame:
    """What is 0 in all trials of the cells whose name begins so."""
    is_zero = rows["study"].ne("") & rows["metric"].isin(metrics.COMPARED) & rows["cell"].str.startswith(cells)
    return rows.assign(value=rows["value"].mask(is_zero, 0))


@pytest.mark.parametrize("name", ["threads", "startup", "memory"])
def test_a_study_in_which_nothing_could_be_measured_has_words(given, name):
    run = given(name, nothing)
    assert all(study.words.endswith(" was 0, less than could be measured.") for study in map(run.study, run.studies))


def test_a_study_whose_baseline_is_0_in_each_trial_is_told(given):
    base = lab.load("recorded/startup").study("startup-server").plan.baseline
    (told, *_) = comparison.excluded_studies(given("startup", lambda rows: nothing(rows, base)).data).values()
    assert told.endswith(f"baseline {base} has a number (each is 0, less than could be measured)")


def test_a_note_names_the_metric_that_it_is_of_and_the_baseline():
    found = lab.recommend("recorded/service")
    for notes in (found.choice.notes, found.profiles.table.attrs["notes"]):
        short = [note.rpartition(": a short study")[0] for note in notes if "a short study" in note]
        assert len(short) > 1 and len(set(short)) == len(short)
        assert all(any(each.phrase in note for each in metrics.COMPARED) for note in short)


def test_a_run_without_compressed_sizes_is_drawn_by_what_else_it_has(given):
    given("service", lambda rows: rows[rows["metric"] != metrics.COMPRESSED_BYTES])
    found = lab.recommend("")
    first, second = found.candidates.plot()
    assert first.axes[0].get_xlabel().startswith(metrics.CRITERIA["startup"].phrase)
    assert second.axes[0].get_ylabel().startswith(metrics.CRITERIA["memory"].phrase) and found.cell


def test_where_no_cell_meets_the_limits_there_is_no_profile_and_no_dockerfile_and_limits_have_their_digits():
    found = lab.recommend("recorded/service", max_startup_ms=0.0001, max_transfer_mb=2.345)
    assert found.cell == "" and found.cargo_profile == found.dockerfile and "no cell was selected" in found.dockerfile
    assert "at most 0.0001 ms" in found.words and "at most 2.345 MB" in found.words
    assert found.candidates.table["reason"].str.contains("more than 0.0001 ms", regex=False).all()
    found.check()
