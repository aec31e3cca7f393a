"""What changed between two runs, and whether one keeps its limits: on runs that are made up, and in the workflow."""

import html
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from support.lab import NO_ENGINE, TINY, forget, forget_images

import rustimg_lab as lab
from rustimg_lab.analysis import before_after, comparison, recommendation, regression
from rustimg_lab.analysis.limits import Limits, blocks_needed, check_ratio
from rustimg_lab.build import lab_toml
from rustimg_lab.cli import main, results
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import Study, Treatment
from rustimg_lab.model import matrix
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import BEFORE as BEFORE_MARK
from rustimg_lab.model.names import TWIN
from rustimg_lab.paths import ROOT
from rustimg_lab.report import views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

pytestmark = pytest.mark.slow

ONE, OTHER, THIRD = (matrix.cell("scratch", "optimized", name) for name in matrix.ALLOCATORS)
MACHINE = {"cpu_model": "a", "cpus": 2}
CPU = "cpu_us_per_request"
SERVER = ("--app", "tests/crates/server")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a run: bytes and CPU time by cell, of which None is one that does not work; `noise` as a factor."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)

    def run(name: str, cells: dict, machine: dict = MACHINE, blocks: int = 12, seed: int = 1) -> pd.DataFrame:
        generator, image = np.random.default_rng(seed), f"sha256:{name}"
        with runs.open_run(name, machine) as opened:
            for cell, found in cells.items():
                if found is None:
                    opened.append(cell, "", [Observation("built", False, ok=False, reason="error | no\n<b>")])
                    continue
                size, _ = found
                sizes = {"unpacked_bytes": size, "app_bytes": size, "base_bytes": 0, "compressed_bytes": size // 2,
                         "runs": True, "rustc": "1.96"}  # fmt: skip
                opened.append(cell, image, [Observation(key, value) for key, value in sizes.items()])
            treatments = [Treatment(cell, image, cell.slug) for cell, found in cells.items() if found]
            treatments.append(Treatment(ONE, image, ONE.slug + TWIN))

            def observe(treatment: Treatment) -> list[Observation]:
                _, cpu = cells[treatment.cell]
                return [Observation(CPU, cpu * float(np.exp(0.02 * generator.standard_normal())))]

            load = {"workload": "batch", "workers": 1, "connections": 16, "warning": ""}
            plan = Study("throughput-a", "throughput", load, tuple(treatments), ONE.slug, CPU, blocks, 1,
                         contents=dict.fromkeys((each.name for each in treatments), "0"))  # fmt: skip
            trials.run_in_turns([(plan, observe)], opened)
        return runs.load(name)

    return run


BEFORE = {ONE: (2_000_000, 50.0), OTHER: (3_000_000, 40.0)}


def test_sizes_are_told_exactly_and_cells_that_come_and_go_by_name(make):
    found = regression.sizes(make("a", BEFORE), make("b", {ONE: (2_000_010, 50.0), THIRD: (1_000_000, 9.0)}))
    by = found.set_index(["cell", "what"])
    unpacked = by.loc[(ONE.slug, "unpacked")]
    assert (unpacked["change"], unpacked["verdict"]) == (10, "larger")
    assert by.loc[(ONE.slug, "compressed"), "change"] == 5
    assert by.loc[(THIRD.slug, ""), "verdict"] == "new" and by.loc[(OTHER.slug, ""), "verdict"] == "gone"
    broken = regression.sizes(make("d", BEFORE), make("c", {ONE: BEFORE[ONE], OTHER: None})).set_index("cell")
    assert broken.loc[OTHER.slug, "verdict"] == "does not work: error | no\n<b>"
    assert set(broken.loc[ONE.slug, "verdict"]) == {"same"}


def test_speeds_have_intervals_and_verdicts(make):
    found = regression.speeds(make("a", BEFORE), make("b", {ONE: (1, 50.0), OTHER: (1, 60.0)}, seed=2))
    by = found.set_index("cell")
    assert by.loc[ONE.slug, "verdict"] == Verdict.NO_DIFFERENCE
    assert by.loc[OTHER.slug, "low"] < 1.5 < by.loc[OTHER.slug, "high"] and by.loc[OTHER.slug, "verdict"] == "slower"
    assert not any(cell.endswith(TWIN) for cell in by.index)


def test_two_machines_are_refused_with_what_differs_unless_asked(make):
    before, after = make("a", BEFORE), make("b", BEFORE, MACHINE | {"cpus": 4})
    with pytest.raises(LabError, match=r"two machines \(cpus 2 -> 4\).*--across-machines"):
        regression.speeds(before, after)
    assert len(regression.speeds(before, after, across_machines=True)) == 2
    assert regression.check(after, Limits(max_regression={"size": 0}), before).findings == []  # bytes are no machine's
    elsewhere = MACHINE | {"cpu_model": "unknown"}  # an engine behind SSH, and perhaps another one
    with pytest.raises(LabError, match=r"may be, of two machines \(cpu_model is not known of either\)"):
        regression.speeds(make("c", BEFORE, elsewhere), make("d", BEFORE, elsewhere))


@pytest.mark.parametrize(
    ("limits", "after", "said"),
    [
        (Limits(), BEFORE, []),
        (Limits(2e6), BEFORE, []),
        (Limits(1.2e6), BEFORE, ["compressed (pull) size 1.500 MB, more than 1.200 MB"]),
        (Limits(max_regression={"size": 0.01}), {**BEFORE, ONE: (2_019_000, 50.0)}, []),
        (
            Limits(max_regression={"size": 0.01}),
            {**BEFORE, ONE: (2_021_000, 50.0)},
            ["unpacked 2.000 MB -> 2.021 MB: +1.05%, more than +1%"],
        ),
        (Limits(max_regression={"cpu": 0.05}), {**BEFORE, ONE: (2_000_000, 50.5)}, []),
        (Limits(max_regression={"cpu": 0.05}), {**BEFORE, ONE: (2_000_000, 60.0)}, ["more than +5%"]),
        (Limits(), {ONE: BEFORE[ONE], OTHER: None}, ["does not work: error | no\n<b>"]),
        (Limits(), {ONE: BEFORE[ONE]}, ["gone: it is in the other run"]),
    ],
)
def test_what_is_not_kept_is_told(make, limits, after, said):
    before, after = make("a", BEFORE), make("b", after, seed=2)
    checked = regression.check(after, limits, before)
    for one, text in zip(checked.findings_with(Verdict.FAIL), said, strict=True):
        assert text in one.message
    assert checked.verdict is (Verdict.FAIL if said else Verdict.PASS)
    summary = views.regression.markdown("b", after, checked, before)
    assert summary.startswith("### Run b: " + ("all checks passed" if not said else f"{len(said)} check failed"))
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1  # a | in a reason makes no column
    told = len(checked.findings) + len(checked.notes)
    assert len(summary.splitlines()) == 2 + (told and told + 1) + len(rows) and "<b>" not in summary


def test_a_cell_that_is_not_known_to_have_kept_a_limit_has_not(make):
    before, limits = make("a", BEFORE), Limits(max_regression={"size": 0.01, "cpu": 0.05})
    alone = {ONE: BEFORE[ONE]}
    (one,) = regression.check(make("b", {ONE: BEFORE[ONE], OTHER: None}), limits, before).findings_with(Verdict.FAIL)
    assert one.message.startswith("does not work")
    whole = make("c", BEFORE)
    rows = whole.rows
    unmeasured = replace(whole, rows=rows[rows["cell"].ne(OTHER.slug) | rows["study"].eq("")])
    (one,) = regression.check(unmeasured, limits, before).findings_with(Verdict.FAIL)
    assert one.message == "throughput-a: CPU per request, µs: not measured in both runs alike"
    sized = make("d", alone)
    unsized = replace(sized, rows=sized.rows[sized.rows["metric"] != "compressed_bytes"])
    (gone, unknown) = regression.check(unsized, Limits(max_regression={"transfer": 0.01}), before).findings
    assert gone.message.startswith("gone") and unknown.message == "compressed not known after"
    (unknown,) = regression.check(unsized, Limits(max_transfer=1)).findings
    assert unknown.message == "compressed (pull) size not known" and unknown.verdict == Verdict.FAIL
    with pytest.raises(LabError, match=r"run 'a' has no .* to check; `\./lab run --run a` makes them"):
        regression.check(replace(before, rows=before.rows[before.rows["study"] != ""]), limits)


def test_studies_of_other_parameters_and_other_apps_are_not_mixed(make):
    before, after = make("a", BEFORE), make("b", BEFORE)
    after.environment.studies["throughput-a"].parameters["seconds"] = 9
    found = regression.speeds(before, after)
    assert found.empty and found.attrs["notes"] == ["throughput-a is left out: seconds None -> 9"]
    after = replace(after, environment=replace(after.environment, app={"name": "fd"}))
    with pytest.raises(LabError, match="one run is of no app, the other of fd: nothing to compare"):
        regression.check(after, Limits(), before)


def test_warnings_and_a_twin_without_its_original_are_no_reason_to_fail(make):
    before, after = make("a", BEFORE), make("b", BEFORE, seed=2)
    before.environment.studies["throughput-a"].parameters["warning"] = "the CPUs are shared"
    orphan = replace(after, rows=after.rows[(after.rows["cell"] != ONE.slug) | (after.rows["study"] == "")])
    found = regression.speeds(before, orphan)
    assert found.attrs["notes"][0] == "throughput-a: the CPUs are shared"
    assert found["cell"].tolist() == [OTHER.slug] and found["verdict"].tolist() == [Verdict.TOO_NOISY]  # no floor


def test_a_limit_on_what_nobody_measured_is_told(make):
    with pytest.raises(LabError, match="limit 'memory': run 'b' has not measured this"):
        regression.check(make("a", BEFORE), Limits(max_regression={"memory": 0.05}), make("b", BEFORE))
    with pytest.raises(LabError, match="unknown limit 'sze': did you mean 'size'"):
        regression.check(make("a", BEFORE), Limits(max_regression={"sze": 0.05}))


def add_pairs(name: str, ratio: float, blocks: int = 20, before: str = "a") -> None:
    """Adds a study to a run: the image of run `before` and its own of cell ONE, in the same blocks."""
    generator = np.random.default_rng(5)
    images = {BEFORE_MARK: f"sha256:{before}", "": f"sha256:{name}", BEFORE_MARK + TWIN: f"sha256:{before}"}
    treatments = tuple(Treatment(ONE, image, ONE.slug + mark) for mark, image in images.items())
    load = {"workload": "batch", "workers": 2, "connections": 16, "warning": ""}
    plan = Study("throughput-b", "throughput", load, treatments, ONE.slug + BEFORE_MARK, CPU, blocks, 1,
                 contents=dict.fromkeys((each.name for each in treatments), "0"))  # fmt: skip

    def observe(treatment: Treatment) -> list[Observation]:
        own = 1 if BEFORE_MARK in treatment.name else ratio
        return [Observation(CPU, 50 * own * float(np.exp(0.02 * generator.standard_normal())))]

    with runs.open_run(name, MACHINE) as opened:
        trials.run_in_turns([(plan, observe)], opened)


@pytest.mark.parametrize(
    ("ratio", "blocks", "verdict", "said"),
    [
        (1.0, 20, Verdict.PASS, r"throughput-b: .*: [-+]0\.\d+% \(at least -\S+%, at most \+[0-4]\.\d+%, 20 blocks\)$"),
        (
            1.1,
            20,
            Verdict.FAIL,
            r"\+(9|10)\.\d+%, more than \+5% \(at least \+[89]\.\d+%, at most \+1\d\.\d+%, 20 blocks\)$",
        ),
        (1.05, 20, Verdict.CANNOT_TELL, r"more than \+5% or not: its ratio is near the limit, so more than these 20 b"),
        (1.1, 2, Verdict.CANNOT_TELL, r": 2 blocks, too few for an answer: about \d+ blocks needed$"),
        (3.0, 1, Verdict.CANNOT_TELL, r": 1 block, too few for an answer: at least 3 blocks needed$"),
    ],
)
def test_a_version_in_the_same_blocks_passes_fails_or_cannot_be_told(make, ratio, blocks, verdict, said):
    before, limits = make("a", {ONE: BEFORE[ONE]}, blocks=1), Limits(max_regression={"cpu": 0.05})
    make("b", {ONE: BEFORE[ONE]}, blocks=1)
    add_pairs("b", ratio, blocks)
    (one,) = (checked := regression.check(runs.load("b"), limits, before)).findings
    assert (one.cell, one.verdict) == (ONE.slug, verdict) and re.search(said, one.message), one
    told = ["A/A control" in note for note in checked.notes]  # nothing drifts between what shares its blocks
    assert told == [] or (told == [True] and blocks == 2)  # of two, this seed's control is apart by chance
    assert main.main(["check", "--run", "b", "--against", "a", "--max-regression", "cpu=5%"]) == {
        Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.CANNOT_TELL: 3
    }[verdict]  # fmt: skip


def test_a_cell_near_its_limit_needs_more_blocks_than_it_has_whatever_an_unchanged_one_needs():
    own = SimpleNamespace(cell="a", study="s", what="CPU", blocks=8, ratio=1.41, error=0.1, freedom=7, alarm=0.0)
    assert int(re.search(r"\d+", blocks_needed(own, 0.6))[0]) <= 8
    found = check_ratio(own, 0.6, 1)
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.message.endswith("or not: its ratio is near the limit, so more than these 8 blocks are needed")


def test_pairs_of_another_version_than_the_run_before_do_not_count(make):
    make("a", {ONE: BEFORE[ONE]})
    other = make("c", {ONE: BEFORE[ONE]}, seed=2)
    make("b", {ONE: BEFORE[ONE]}, seed=3)
    add_pairs("b", 1.5)
    checked = regression.check(runs.load("b"), Limits(max_regression={"cpu": 0.05}), other)
    assert checked.verdict is Verdict.PASS and "throughput-a" in checked.findings[0].message
    assert len(checked.notes) == 1 and "the two runs share no block" in checked.notes[0]


def test_one_image_in_both_runs_passes_without_a_measurement(make):
    run = make("a", BEFORE, blocks=1)
    checked = regression.check(run, Limits(max_regression={"cpu": 0.05, "memory": 0.01}), run)
    assert [each.verdict for each in checked.findings] == [Verdict.PASS] * 4 and not checked.notes
    assert "one image before and after" in checked.findings[0].message


def test_a_study_of_another_image_than_the_sizes_is_compared_where_that_has_changed(make):
    """A server is put under load, and the sizes are those of the client beside it."""
    run, slower = make("a", {ONE: BEFORE[ONE]}), make("b", {ONE: (BEFORE[ONE][0], 3 * BEFORE[ONE][1])}, seed=2)
    for each, server in ((run, "sha256:1"), (slower, "sha256:2")):
        each.rows["image"] = each.rows["image"].where(each.rows["study"].eq(""), server)
        each.rows.loc[each.rows["study"].eq(""), "image"] = "sha256:0"
    checked = regression.check(slower, Limits(max_regression={"cpu": 0.05}), run)
    assert checked.verdict is Verdict.FAIL and "one image" not in str(checked.findings)


def test_a_server_that_was_not_measured_again_is_not_the_image_of_the_client_beside_it(make):
    run = make("a", {ONE: BEFORE[ONE]})
    run.rows["image"] = run.rows["image"].where(run.rows["study"].eq(""), "sha256:server")
    sizes_alone = replace(run, rows=run.rows[run.rows["study"].eq("")])
    for after, before in ((sizes_alone, run), (run, sizes_alone)):
        try:
            checked = regression.check(after, Limits(max_regression={"cpu": 0.05}), before)
        except LabError as error:
            assert "has not measured this" in str(error)
        else:
            assert checked.verdict is Verdict.FAIL and "not measured in both runs alike" in checked.findings[0].message
    own = replace(run, rows=run.rows.assign(image="sha256:one"))  # a crate whose server is what has the sizes
    after = replace(own, rows=own.rows[own.rows["study"].eq("")])
    assert regression.check(after, Limits(max_regression={"cpu": 0.05}), own).verdict is Verdict.PASS


CPU_LIMIT = Limits(max_regression={"cpu": 0.05})


def test_limits_with_nothing_to_compare_are_no_pass(make):
    after = make("b", {ONE: BEFORE[ONE]}, blocks=1)
    with runs.open_run("a", MACHINE) as opened:
        opened.append(ONE, "", [Observation("built", False, ok=False, reason="error")])
    failed = runs.load("a")
    gone = replace(failed, rows=failed.rows.assign(cell=OTHER.slug))
    for before, said in (
        (failed, rf"no cell of run 'b' works in run 'a' \({ONE.slug}: error"),
        (replace(after, rows=after.rows[after.rows["study"].ne("")]), "run 'b' has no cell with a size"),
        (replace(after, rows=after.rows[after.rows["cell"].eq("")]), "run 'b' has no cell with a size"),
        (gone, "run 'b' has no cell that run 'a' has"),
    ):
        with pytest.raises(LabError, match=f"(?s){said}.*: nothing is compared$"):
            regression.check(after, Limits(max_regression={"size": 0.01}), before)
        assert regression.check(after, Limits(), before).findings_with(Verdict.CANNOT_TELL) == []


def test_a_cell_that_works_again_escapes_no_limit(make):
    limits = Limits(max_regression={"size": 0.01, "cpu": 0.05})
    checked = regression.check(make("b", BEFORE, seed=2), limits, make("a", BEFORE | {OTHER: None}))
    assert [(each.cell, each.message) for each in checked.findings_with(Verdict.CANNOT_TELL)] == [
        (OTHER.slug, f"{what}: not compared: it did not work in the other run")
        for what in ("the image's bytes on disk", "CPU per request")
    ]


def test_a_cell_that_the_other_run_has_no_trials_of_cannot_be_told(make):
    before, after = make("a", BEFORE), make("b", {**BEFORE, OTHER: (3_000_000, 400.0)}, seed=2)
    lost = replace(before, rows=before.rows[before.rows["cell"].ne(OTHER.slug) | before.rows["study"].eq("")])
    (one,) = regression.check(after, CPU_LIMIT, lost).findings_with(Verdict.CANNOT_TELL)
    assert (one.cell, one.message.endswith("not measured in both runs alike")) == (OTHER.slug, True)


def slower(rows: pd.DataFrame, where: pd.Series) -> pd.DataFrame:
    """Rows with values that are a fifth higher in some of them."""
    return rows.assign(value=[value * 1.2 if own else value for value, own in zip(rows["value"], where, strict=True)])


@pytest.mark.parametrize("ratio", [1.0, 1.08, 1.5])
def test_what_an_apart_control_hides_is_no_answer(make, ratio):
    before = make("a", {ONE: BEFORE[ONE]}, blocks=1)
    make("b", {ONE: BEFORE[ONE]}, blocks=1)
    add_pairs("b", ratio)
    rows = (run := runs.load("b")).rows
    twin = rows["cell"].str.endswith(BEFORE_MARK + TWIN) & rows["metric"].eq(CPU)
    apart = replace(run, rows=slower(rows, twin))
    checked = regression.check(apart, CPU_LIMIT, before)
    # 1.5 times is 1.37 times the mean of the two names, which is beyond what the control is apart by
    assert checked.verdict is (Verdict.FAIL if ratio > 1.2 else Verdict.CANNOT_TELL)
    assert "the A/A control differs from its own image" in checked.notes[0]
    lost = regression.check(replace(run, rows=rows[~twin]), CPU_LIMIT, before)
    assert lost.verdict is Verdict.CANNOT_TELL and "the A/A control has no trials" in lost.findings[0].message


def test_two_studies_with_an_apart_control_are_told_apart_no_finer_than_that(make):
    before, after = make("a", BEFORE), make("b", {**BEFORE, OTHER: (3_000_000, 40.0 * 1.08)}, seed=2)
    assert regression.check(after, CPU_LIMIT, before).verdict is Verdict.FAIL
    twin = after.rows["cell"].str.endswith(TWIN) & after.rows["metric"].eq(CPU)
    checked = regression.check(replace(after, rows=slower(after.rows, twin)), CPU_LIMIT, before)
    assert {each.verdict for each in checked.findings} == {Verdict.CANNOT_TELL}
    assert "the A/A control differs from its own image" in checked.notes[0]


def test_a_value_without_a_ratio_leaves_the_other_metrics(make):
    before, after = make("a", BEFORE), make("b", BEFORE, seed=2)
    more = after.rows[after.rows["metric"].eq(CPU)].assign(metric="requests_per_s")
    both = [replace(each, rows=pd.concat([each.rows, more.assign(value=0)])) for each in (before, after)]
    found = regression.speeds(*both)
    assert set(found["metric"]) == {CPU}
    assert "throughput-a: requests per second, closed loop: a value of 0 or below" in found.attrs["notes"][-1]


def test_a_trial_whose_value_was_too_small_to_measure_is_left_out_with_a_warning(make):
    run = make("a", BEFORE)
    (whole, *_), rows = comparison.find_studies(run, "throughput"), run.rows
    lost = rows.index[rows["metric"].eq(CPU) & rows["cell"].eq(OTHER.slug)][0]
    part = replace(run, rows=rows.assign(value=rows["value"].mask(rows.index == lost, 0.0)))
    before, after = (comparison.of_study(each, whole).set_index("cell").loc[OTHER.slug] for each in (run, part))
    assert after["pairs"] == before["pairs"] - 1
    warning = comparison.of_study(part, whole).attrs["warning"]
    assert re.search(r"in 1 of \d+ trials the CPU per request was 0: less than could be measured", warning)


def test_rows_that_could_not_be_read_are_no_pass(make, capsys):
    make("a", BEFORE)
    make("b", BEFORE)
    rows = runs.RUNS / "a" / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join("{\n" if f'"{OTHER.slug}"' in line and "app_bytes" in line else line for line in lines))
    with rows.open("a") as file:
        file.write("{\n" * 20)
    assert main.main(["check", "--run", "a"]) == 3
    said = capsys.readouterr()
    assert f"- **run a**: {Verdict.CANNOT_TELL}: 21 rows could not be read" in said.out
    assert said.err.count("not JSON; left out") == 10 and "11 more rows of run 'a' cannot be read" in said.err
    rows.write_text("".join(line for line in lines if OTHER.slug not in line) + "{\n")
    assert main.main(["compare", "b", "a"]) == 0
    assert "gone, or among the rows that could not be read" in " ".join(capsys.readouterr().out.split())
    rows.write_text("{\n")
    assert main.main(["compare", "b", "a"]) == 2
    assert "no row of run 'a' can be read: a/rows.jsonl:1: not JSON" in capsys.readouterr().err


def test_an_architecture_that_is_gone_or_new_is_told(make, capsys):
    sizes = [
        Observation(key, value) for key, value in {"unpacked_bytes": 5, "compressed_bytes": 3, "runs": True}.items()
    ]
    machine = MACHINE | {"architecture": "x86_64"}
    for name in ("a", "b"):
        make(name, BEFORE, machine)
    with runs.open_run("b", machine) as opened:
        opened.append(replace(ONE, architecture=Architecture.AARCH64), "sha256:arm64", sizes)
    assert main.main(["check", "--run", "a", "--against", "b"]) == 1
    assert "1 check failed\n\n- **run a@arm64**: fail: gone: there is b@arm64" in capsys.readouterr().out
    assert main.main(["check", "--run", "b", "--against", "a"]) == 0
    assert "- note: not compared: there is no a@arm64" in capsys.readouterr().out
    assert main.main(["check", "--run", "b", "--against", "a", "--max-regression", "size=1%"]) == 3
    assert "- **run b@arm64**: cannot tell: not compared: there is no a@arm64" in capsys.readouterr().out


@pytest.mark.parametrize(("grown", "code"), [(6, 1), (5, 0)])
def test_a_version_before_is_compared_on_every_architecture_that_was_built(make, monkeypatch, capsys, grown, code):
    """Nothing is built here: the two runs are there already."""
    machine = MACHINE | {"architecture": "x86_64"}
    for name, size in (("a", grown), ("a-before", 5)):
        make(name, BEFORE, machine)
        found = {"unpacked_bytes": size, "compressed_bytes": 3, "runs": True}
        with runs.open_run(name, machine) as opened:
            arm64 = replace(ONE, architecture=Architecture.AARCH64)
            opened.append(arm64, f"sha256:{size}", [Observation(key, value) for key, value in found.items()])

    def measured(options: SimpleNamespace) -> list[str]:
        options.run, options.against = "a", "a-before"
        return []

    monkeypatch.setattr(results, "_measure_both", measured)
    asked = ("--before", "HEAD", "--app", "tests/crates/tiny", "--arch", "amd64,arm64", "--max-regression", "size=1%")
    assert main.main(["check", *asked]) == code
    said = capsys.readouterr().out
    assert "Run a@arm64: " in said and (code == 0) == (": fail: " not in said)


def test_which_machine_of_several_built_a_cell_is_no_matter(make, capsys):
    """One has the study in both runs, and built the second cell in the one alone."""
    for name, cpu, lent in (("a", 40.0, False), ("b", 60.0, True)):
        whole = make(f"{name}-one", {**BEFORE, OTHER: (3_000_000, cpu)}, seed=len(name) + lent)
        for machine in ("m1", "m2", "m3"):
            folder = runs.RUNS / name / runs.MACHINES / machine
            shutil.copytree(runs.RUNS / f"{name}-one", folder)
            is_here = whole.rows["study"].ne("") if machine == "m1" else whole.rows["cell"].eq("")
            if machine != "m3":
                own = [ONE.slug] * (machine == "m1") + [OTHER.slug] * ((machine == "m2") == lent)
                is_here |= whole.rows["study"].eq("") & whole.rows["cell"].isin(own)
            lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
            (folder / "rows.jsonl").write_text("".join(line for line, kept in zip(lines, is_here, strict=True) if kept))
    assert main.main(["check", "--run", "b", "--against", "a", "--max-regression", "size=1%"]) == 0
    assert capsys.readouterr().out.startswith("### Run b: all checks passed")
    assert main.main(["check", "--run", "b", "--against", "a", "--max-regression", "cpu=5%,size=1%"]) == 1
    (failed,) = [line for line in capsys.readouterr().out.splitlines() if ": fail: " in line]
    assert failed.startswith(f"- **{OTHER.slug}**: fail: throughput-a")
    assert main.main(["compare", "a", "b"]) == 0
    told = "the studies of run 'b' are left out, since each is of one machine: b@m1, b@m2, b@m3"
    shown = html.unescape(lab.compare("a", "b")._repr_html_())
    assert f"note: {told}" in capsys.readouterr().out and f"Note: {told}" in shown
    assert told in recommendation.candidates(runs.load("b"))[2] and runs.load("b@m1").left_out == ""


def test_a_limit_that_noise_never_keeps_is_refused():
    with pytest.raises(LabError, match="limit 'cpu=0%': what has noise"):
        Limits(max_regression={"cpu": 0.0})


def test_the_crate_and_the_section_that_grew_are_named(make):
    limits, parts = Limits(max_regression={"size": 0.01}), {"a": (1000, 500, 90), "b": (1100, 9500, 80)}
    grown = {ONE: (2_100_000, 50.0)}
    for name, sizes in (("a", {ONE: BEFORE[ONE]}), ("b", grown)):
        make(name, sizes, blocks=1)
    (one,) = regression.check(runs.load("b"), limits, runs.load("a")).findings
    assert one.message.endswith("more than +1%; crate not recorded in both runs, section not recorded in both runs")
    for name, (tokio, serde, text) in parts.items():
        with runs.open_run(name, MACHINE) as opened:
            found = [
                Observation("crate_bytes", size, detail=crate) for crate, size in (("tokio", tokio), ("serde", serde))
            ]
            opened.append(ONE, f"sha256:{name}", [*found, Observation("section_bytes", text, detail=".text")])
    (one,) = regression.check(runs.load("b"), limits, runs.load("a")).findings
    assert one.message.endswith("more than +1%; crate serde +9,000 bytes")


def trials_of(generator, noise: str, blocks: int, names: list[str], ratio: float = 1.0) -> pd.DataFrame:
    """Trials of many cells of a study, each of them a study of its own to a check, without what a block shares."""
    shape = blocks, len(names)
    logs = {
        "epyc": lambda: generator.normal(0, 0.066, shape),
        "service": lambda: generator.normal(0, 0.10, shape),
        "t3": lambda: generator.standard_t(3, shape) * 0.066 / np.sqrt(3),
        "tests": lambda: (
            generator.normal(0, 0.064, shape) + (generator.random(shape) < 0.1) * generator.exponential(0.3, shape)
        ),
    }[noise]()
    frame = pd.DataFrame(np.exp(logs) * ratio, columns=names).rename_axis("block").reset_index()
    return frame.melt("block", var_name="cell")


def answers(noise: str, blocks: int, ratio: float, machine: tuple = (), paired: bool = True) -> pd.Series:
    """The share of each answer in 400 checks of one cell with a limit of 5%. `machine`: how much slower it is in each
    block before, and in each block after."""
    generator, names = np.random.default_rng(20261127), [f"c{number}" for number in range(400)]
    twins = [name + TWIN for name in names]
    before = trials_of(generator, noise, blocks, [*names, *twins])
    after = trials_of(generator, noise, blocks, names if paired else [*names, *twins], ratio)
    for trials_, slower in zip((before, after), machine, strict=False):
        trials_["value"] *= np.asarray(slower)[trials_["block"]]
    of_cell = [dict(iter(each.groupby(each["cell"].str.removesuffix(TWIN)))) for each in (before, after)]
    found = [before_after.compare(*(each[name] for each in of_cell), paired=paired) for name in names]
    rows = pd.concat(found).assign(study="s", what="w").itertuples()
    told = pd.Series([check_ratio(each, 0.05, 1).verdict for each in rows])
    return told.value_counts(normalize=True).reindex([Verdict.PASS, Verdict.FAIL, Verdict.CANNOT_TELL], fill_value=0)


@pytest.mark.parametrize("noise", ["epyc", "service"])
def test_a_check_of_20_blocks_finds_twice_its_limit(noise):
    assert answers(noise, 20, 1.10)[Verdict.FAIL] >= 0.9


@pytest.mark.parametrize("noise", ["epyc", "service", "t3", "tests"])
@pytest.mark.parametrize("blocks", [3, 20])
def test_a_check_rarely_gives_a_wrong_answer(noise, blocks):
    assert answers(noise, blocks, 1.0)[Verdict.FAIL] <= 0.06
    assert answers(noise, blocks, 1.05)[Verdict.PASS] <= 0.08  # 0.05, and three times the error of 400 checks
    assert answers(noise, blocks, 1.25)[Verdict.PASS] <= 0.01


def test_a_shift_of_the_machine_is_no_regression_to_blocks_that_share_it():
    slower = np.where(np.arange(20) < 10, 1.0, 1.05) * np.exp(np.random.default_rng(1).normal(0, 0.05, 20))
    assert answers("epyc", 20, 1.0, (slower, slower))[Verdict.FAIL] <= 0.06
    assert answers("epyc", 20, 1.0, (np.ones(20), np.full(20, 1.05)), paired=False)[Verdict.FAIL] > 0.1


@pytest.mark.parametrize("noise", ["epyc", "service", "t3", "tests"])
def test_a_check_of_2_blocks_cannot_tell(noise):
    assert answers(noise, 2, 3.0)[Verdict.CANNOT_TELL] == 1


def test_as_many_blocks_as_a_check_needs_are_enough_four_times_in_five():
    one = SimpleNamespace(error=0.10 * np.sqrt(1.5 / 400), blocks=400, freedom=399)  # one of a pair has a twin
    (needed,) = map(int, re.findall(r"\d+", blocks_needed(one, 0.05)))
    assert 30 < needed < 60 and 0.75 <= answers("service", needed, 1.0)[Verdict.PASS] <= 0.88
    few = SimpleNamespace(error=0.10 * np.sqrt(1.5 / 2), blocks=2, freedom=1)  # so few are trusted less
    assert int(re.search(r"\d+", blocks_needed(few, 0.05))[0]) > 5 * needed
    far = SimpleNamespace(error=9.0, blocks=5, freedom=4)
    assert blocks_needed(far, 0.05) == "more than 10,000 blocks"


@pytest.mark.parametrize("shared", [0.0, 0.05, 0.2])
def test_the_drift_between_blocks_is_told_from_the_noise_of_trials(shared):
    generator, names = np.random.default_rng(3), ["a", "b", "c", "d"]
    found = []
    for _ in range(60):
        samples = trials_of(generator, "epyc", 20, names)
        samples["value"] *= np.exp(generator.normal(0, shared, 20))[samples["block"]]
        found.append(before_after.block_sd(samples) ** 2)
    assert np.sqrt(np.mean(found)) == pytest.approx(shared, rel=0.1, abs=0.015)
    assert np.isnan(before_after.block_sd(trials_of(generator, "epyc", 20, ["a"])))


@pytest.mark.parametrize("count", [10, 20])
def test_the_interval_between_two_studies_covers_the_truth(count):
    """With the noise that the issue of the studies fixed; nominal 95%."""
    generator, covered = np.random.default_rng(20261124), 0
    for _ in range(400):
        studies = []
        for _ in range(2):
            noise = np.exp(0.064 * generator.standard_normal(count))
            slowed = (generator.random(count) < 0.1) * generator.exponential(0.3, count)
            studies.append(pd.DataFrame({"cell": "a", "block": range(count), "value": noise * (1 + slowed)}))
        (one,) = before_after.compare(*studies).itertuples()
        covered += one.low <= 1 <= one.high
    assert covered / 400 >= 0.93


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compare", "recorded", "recoded"), "unknown run 'recoded'"),
        (("compare", "recorded", "recorded"), "compare: recorded is named twice; name two runs"),
        (("compare", "recorded", "recorded/allocators"), ""),
        (("check", "--run", "recorded", "--max-regression", "size=1%"), "over which run? name it with --against"),
        (("check", "--run", "recorded", "--blocks", "9"), "--blocks applies with --before alone: name that too"),
        (("check", "--bases", "debian"), "--bases applies with --before alone: name that too"),
        (("check", "--before", "HEAD", "--max-regression", "cpu=5%"), "--before goes with --app PATH"),
        (("check", *SERVER, "--before", "HEAD", "--max-regression", "cpu=0%"), "limit 'cpu=0%': what has noise"),
        (("check", *SERVER, "--before", "nonesuch", "--max-regression", "cpu=5%"), "neither a folder nor a"),
        (("check", *SERVER, "--before", "docs", "--max-regression", "cpu=5%"), "docs: no Cargo.toml there"),
        (("check", *SERVER, "--before", "HEAD", "--max-regression", "cpu=5%"), "no Docker engine answers"),
        (("check", "--app", "tests/crates/tiny", "--before", "HEAD", "--max-regression", "cpu=5%"), "has no [serve]"),
        (("check", "--run", "recorded", "--max-regression", "size=1"), "'size=1' is no limit, as size=1%"),
        (("check", "--run", "recorded", "--max-transfer", "2"), "'2' is no size"),
        (
            ("check", "--run", "recorded", "--against", "recorded/allocators", "--max-regression", "size=0%,cpu=1%"),
            "run 'recorded/allocators' has no cell with a size: nothing is compared",
        ),
    ],
)
def test_bad_input_is_one_line(lab, arguments, said):
    done = lab(*arguments, **NO_ENGINE)
    if said:
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1] and done.stdout == ""
    else:
        assert done.returncode == 0 and "measured no cell alike" in done.stdout


def test_exit_codes_are_for_ci(lab):
    kept = lab("check", "--run", "recorded", "--against", "recorded", "--max-transfer", "40MB", "--max-regression",
               "size=0%,transfer=0%")  # fmt: skip
    assert kept.returncode == 0 and kept.stdout.startswith("### Run recorded: all checks passed") and not kept.stderr
    broken = lab("check", "--run", "recorded", "--max-transfer", "2MB")
    assert broken.returncode == 1 and "lab: failed: debian-optimized-system: compressed (pull) size" in broken.stderr
    assert broken.stdout.count("more than 2.000 MB") == broken.stderr.count("more than 2.000 MB") == 7


@pytest.mark.engine
def test_the_example_workflow_fails_where_an_image_has_grown(tmp_path):
    """Its own steps, on the tiny crate; GitHub's are the checkouts."""
    job = yaml.safe_load((ROOT / "examples" / "ci" / "image-size.yml").read_text())["jobs"]["image-size"]
    steps = [step for step in job["steps"] if "run" in step]
    assert {step["working-directory"] for step in steps} == {"rustimg_lab"}  # beside the two checkouts
    (tmp_path / "rustimg_lab").symlink_to(ROOT)
    names = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in ("before", "after")}
    for name in names:
        folder = tmp_path / name
        shutil.copytree(TINY, folder)
        (folder / lab_toml.FILE).write_text('binary = "tiny"\n[check]\nprints = "answer 42"\n')
        with (folder / "Cargo.lock").open("a") as lock:
            lock.write(f"# {uuid.uuid4()}\n")
    main = tmp_path / "after" / "src" / "main.rs"
    main.write_text(main.read_text() + "\n#[used]\nstatic GROWN: [u8; 40_000] = [7; 40_000];\n")
    summary = tmp_path / "summary.md"
    environment = os.environ | job["env"] | {"GITHUB_STEP_SUMMARY": str(summary)}
    try:
        for step in steps:
            script = step["run"].replace("../", f"{tmp_path}/")  # bash goes up from where the link leads to
            for name, own in names.items():
                script = script.replace(f"--run {name} ", f"--run {own} ").replace(
                    f"--against {name} ", f"--against {own} "
                )
            done = subprocess.run(
                ["bash", "-e", "-c", script],
                cwd=tmp_path / step["working-directory"],
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == (1 if step is steps[-1] else 0), done.stdout + done.stderr
    finally:
        for own in names.values():
            forget(own)
        forget_images("tiny")
    said = summary.read_text()
    assert (
        "1 check failed" in said and "**: fail: unpacked " in said and said.count("more than +1%") == 1
    )  # it compresses well
