"""The choice, on a run that is made up: four cells, of which one is small and slow, one large, one never measured."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rustimg_lab.analysis import comparison, pareto, recommendation
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import Study, Treatment
from rustimg_lab.model import cargo_profile, matrix, metrics, names
from rustimg_lab.model.metrics import CRITERIA
from rustimg_lab.report import plots, summary, terminal, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import ESTIMATE, Observation

pytestmark = pytest.mark.slow

FAST, SLOW, LARGE = "scratch-optimized-jemalloc", "scratch-smallest-system", "debian-optimized-system"
UNMEASURED = "scratch-smallest-unstable-system"
#         transfer MB, CPU µs, requests/s, exec to first byte ms, resident MB
VALUES = {FAST: (1.7, 64, 15000, 1.1, 9.0), SLOW: (1.1, 300, 3300, 1.0, 6.0), LARGE: (32.0, 70, 14500, 1.3, 7.0)}
CELLS = {
    cell.slug: cell
    for cell in (
        matrix.cell("scratch", "optimized", "jemalloc"),
        matrix.cell("scratch", "smallest", "system"),
        matrix.cell("debian", "optimized", "system"),
        matrix.cell("scratch", "smallest-unstable", "system"),
    )
}


def sizes(slug: str) -> list[Observation]:
    transfer = VALUES[slug][0] * 1e6 if slug in VALUES else 0.9e6
    return [
        Observation("compressed_bytes", int(transfer), "B"),
        Observation("unpacked_bytes", int(2 * transfer), "B"),
        Observation("shell", "usr/bin/sh" if slug == LARGE else ""),
        Observation("unstable", slug == UNMEASURED),
        Observation("runs", True),
    ]


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Makes the run, with so much noise on what is measured (a factor), and reads it."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)

    def make(noise: float = 0.01, kinds: tuple = ("throughput", "startup", "memory")) -> object:
        generator = np.random.default_rng(7)
        treatments = [Treatment(CELLS[slug], "sha256:1", slug) for slug in VALUES]
        treatments.append(Treatment(CELLS[FAST], "sha256:1", FAST + names.TWIN))
        contents = dict.fromkeys(VALUES, "0")

        def observe(treatment: Treatment) -> list[Observation]:
            _, cpu, rate, first_byte, memory = VALUES[treatment.cell.slug]
            factor = float(np.exp(noise * generator.standard_normal()))
            return [
                Observation("cpu_us_per_request", cpu * factor),
                Observation("requests_per_s", rate / factor),
                Observation("exec_to_first_byte_s", first_byte * factor / 1e3),
                Observation("steady_rss_bytes", memory * factor * 1e6),
            ]

        main = {
            "throughput": "cpu_us_per_request", "startup": "exec_to_first_byte_s", "memory": "steady_rss_bytes"
        }  # fmt: skip
        with runs.open_run("service", {}) as run:
            for slug, cell in CELLS.items():
                run.append(cell, "sha256:1", sizes(slug))
            for kind in kinds:
                load = {"workload": "batch", "workers": 1, "connections": 16, "of": "load"}
                parameters = {"warning": ""} | (load if kind != "startup" else {})
                plan = Study(kind, kind, parameters, tuple(treatments), FAST, main[kind], 10, 1, contents=contents)
                trials.run_in_turns([(plan, observe)], run)
        folder = tmp_path / "service" / "dockerfiles"
        folder.mkdir(exist_ok=True)
        (folder / f"Dockerfile.{FAST}").write_text("FROM scratch\n")
        return runs.load("service")

    return make


@pytest.mark.parametrize(
    ("wishes", "picked"),
    [
        (Wishes(), UNMEASURED),  # the smallest of all
        (Wishes(stable=True), SLOW),
        (Wishes(min_throughput=0.95), FAST),
        (Wishes({"transfer": 3e6}, min_throughput=0.95), FAST),
        (Wishes({"memory": 8e6}, min_throughput=0.9), LARGE),
        (Wishes(needs_shell=True), LARGE),
        (Wishes(weights={"memory": 1.0}), SLOW),
        (Wishes(weights={"transfer": 1.0, "cpu": 1.0}), FAST),
    ],
)
def test_the_one_that_meets_the_wishes_at_the_least_is_picked(service, wishes, picked):
    found = recommendation.choose(service(), wishes)
    assert found.picked == picked
    assert found.sureness[picked] > 0.99
    assert found.table.loc[picked, "reason"] == "" and found.table.drop(picked)["reason"].ne("").all()


def without(run: runs.RunData, text: str) -> runs.RunData:
    """A run without the rows that a condition is true of."""
    return replace(run, rows=run.rows.drop(run.rows.query(text).index))


def test_cells_that_lost_other_blocks_are_held_against_each_other_in_the_blocks_that_they_share(service):
    """The machine is three times as slow in the later blocks; the faster cell has lost most of the others."""
    run = service()
    rows, late = run.rows, (run.rows["study"] == "throughput") & (run.rows["block"] > 5)
    values = rows["value"].where(~(late & (rows["metric"] == "cpu_us_per_request")), rows["value"] * 3)
    run = without(replace(run, rows=rows.assign(value=values)), "study == 'throughput' and cell == @FAST and block < 5")
    plain = comparison.summarize(comparison.samples(run, "throughput", metrics.CPU_US_PER_REQUEST)).set_index("cell")
    assert plain.loc[FAST, "mean"] > plain.loc[LARGE, "mean"]
    found = recommendation.choose(run, Wishes(weights={"cpu": 1.0}))
    assert found.picked == FAST and found.sureness[FAST] > 0.99
    assert found.table.loc[LARGE, "cpu"] / found.table.loc[FAST, "cpu"] == pytest.approx(70 / 64, rel=0.02)
    assert found.table.loc[FAST, "reason"] == ""


def test_with_every_block_a_cell_has_its_own_mean(service):
    run = service(noise=0.1)
    plain = comparison.summarize(comparison.samples(run, "memory", metrics.STEADY_RSS_BYTES)).set_index("cell")["mean"]
    found = recommendation.choose(run, Wishes()).table["memory"]
    assert found[[SLOW, LARGE]].tolist() == pytest.approx(plain[[SLOW, LARGE]].tolist())


def test_studies_of_several_workloads_are_told(service):
    run = service()
    assert not any("workloads" in note for note in recommendation.choose(run, Wishes()).notes)
    run.environment.studies["memory"].parameters["workload"] = "root"
    told = "of several workloads: throughput, memory; --workload names one"
    assert told in recommendation.choose(run, Wishes()).notes


def test_servers_that_answered_with_unlike_sizes_are_told_to_have_done_other_work(service):
    run = service()
    answered = run.rows[run.rows["metric"] == "cpu_us_per_request"].assign(metric="answer_body_bytes", value=1582)
    assert not comparison.of_study(replace(run, rows=pd.concat([run.rows, answered])), "throughput").attrs["warning"]
    answered.loc[answered["cell"].str.startswith("debian"), "value"] = 3819
    told = comparison.of_study(replace(run, rows=pd.concat([run.rows, answered])), "throughput").attrs["warning"]
    assert told.startswith("cells answered with 1582 to 3819 bytes, and so did other work for a request")


def test_a_load_of_few_requests_is_told_and_one_that_waits_for_all_is_not(service):
    run = service()
    of_cpu = run.rows["metric"] == "cpu_us_per_request"

    def requests(value: object) -> runs.RunData:
        return replace(run, rows=pd.concat([run.rows, run.rows[of_cpu].assign(metric="requests", value=value)]))

    def told(found: runs.RunData) -> str:
        return comparison.of_study(found, "throughput").attrs["warning"]

    assert "few requests were answered in a trial (1599 over 16 connections)" in told(requests(1599))
    assert not told(requests(1600)) and not told(requests("many"))
    for about in ({"asked": '{"http": 2}'}, {"work": "{}"}):
        run.environment.studies["throughput"].parameters.update(about)
        assert not told(requests(1599))
        run.environment.studies["throughput"].parameters.pop(*about)


def test_a_study_whose_baseline_lacks_the_metric_is_none_of_that_metric(service):
    run = without(service(), "study == 'throughput' and cell.str.startswith(@FAST) and metric == 'requests_per_s'")
    assert recommendation.choose(run, Wishes(weights={"cpu": 1.0})).picked == FAST
    with pytest.raises(LabError, match="has not measured requests per s"):
        recommendation.choose(run, Wishes(min_throughput=0.9))
    with pytest.raises(LabError, match=r"run 'service', study 'throughput', .*baseline scratch.* has no trial; choose"):
        comparison.of_study(run, "throughput", metrics.REQUESTS_PER_S)


def test_why_the_others_lost_is_told_with_figures(service):
    reasons = recommendation.choose(service(), Wishes({"transfer": 3e6}, min_throughput=0.95, stable=True)).table[
        "reason"
    ]
    assert reasons[SLOW] == "22% of the best throughput"
    assert reasons[LARGE] == "compressed (pull) size 32.00 MB, more than 3.00 MB"
    assert reasons[UNMEASURED] == "throughput not measured; unstable flags"
    assert (
        recommendation.choose(service(), Wishes()).table["reason"][FAST]
        == "compressed (pull) size 1.89 times the selected cell's"
    )


def test_the_pareto_front_has_those_that_nothing_beats(service):
    front = recommendation.choose(service(), Wishes()).table["on_front"]
    assert front[[FAST, SLOW, LARGE]].tolist() == [True, True, True]  # the large one needs less memory than the fast
    assert not front[UNMEASURED]
    table = recommendation.candidates(service())[0]
    table.loc[LARGE, "memory"] = 9.5e6  # more than the fast one, which is better in all else too
    assert not dict(zip(table.index, pareto.front(table), strict=True))[LARGE]


def test_noise_makes_a_choice_unsure(service):
    wishes = Wishes({"memory": 9.0e6}, min_throughput=0.5)
    found = recommendation.choose(service(noise=0.1), wishes)
    assert found.picked in (FAST, LARGE)
    assert 0.02 < found.sureness[FAST] < 0.98
    assert views.recommendation.evidence(found)[-1].startswith("Not sure")


def test_cpu_per_request_and_throughput_are_one_quantity_and_drawn_as_one(service):
    """Both are measured with the same noise here, so that a limit on either is as sure."""
    run = service(noise=0.05)
    table, draws, _ = recommendation.candidates(run)
    product = draws.ratio_draws["cpu"] * draws.ratio_draws[metrics.REQUESTS_PER_S]
    known = table["cpu"].notna().to_numpy()
    assert np.ptp(product[:, known], axis=0) == pytest.approx(np.zeros(known.sum()), abs=1e-3)
    note = "are one quantity, which counts once"
    both = recommendation.choose(run, Wishes(min_throughput=0.5, weights={"cpu": 1.0}))
    assert any(note in each for each in both.notes)
    assert not any(note in each for each in recommendation.choose(run, Wishes(min_throughput=0.5)).notes)


def test_a_server_that_is_mostly_idle_has_no_share_of_the_best_throughput():
    run = runs.load("recorded/miniserve")
    with pytest.raises(
        LabError, match=r"busy for 8% to 10% of the time.*no cell can be compared with the best throughput; leave"
    ):
        recommendation.choose(run, Wishes(min_throughput=0.95))
    found = recommendation.choose(run, Wishes(weights={"cpu": 1.0}))
    assert "of the best throughput" not in views.recommendation.candidates_in_words(found)
    assert any("no cell can be compared with the best throughput" in note for note in found.notes)


def test_one_busy_server_hides_no_idle_ones():
    """In `rest` four of five servers wait: one keeps its memory and is busier."""
    run = runs.load("recorded/rest")
    note = "4 of 5 servers were busy for 32% to 45% of the time, so requests per second measure the load and not the"
    rates, costs = (
        comparison.of_study(run, "throughput-batch-1w-16c", metric).attrs["warning"]
        for metric in (metrics.REQUESTS_PER_S, metrics.CPU_US_PER_REQUEST)
    )
    assert note in rates and note not in costs


def test_cells_that_were_not_measured_are_named_beside_how_sure(service):
    found = recommendation.choose(service(), Wishes(min_throughput=0.95))
    assert found.unmeasured == [UNMEASURED]
    assert views.recommendation.sure(found).endswith(f"Not measured in all of this, so not among them: {UNMEASURED}.")
    assert recommendation.choose(service(), Wishes(min_throughput=0.95, stable=True)).unmeasured == []
    assert recommendation.choose(service(), Wishes({"transfer": 0.5e6}, min_throughput=0.95)).unmeasured == []


ENDS = np.array([1e4, 1.0]), np.array([1.0, 1e9])  # a map's deploys and requests: nearly all is the one, or the other


def test_without_noise_the_front_and_the_map_are_sure(service):
    run = service(noise=0.001)
    found = recommendation.choose(run, Wishes())
    assert found.table.loc[[FAST, SLOW, LARGE], "front_share"].tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(found.table.loc[UNMEASURED, "front_share"])
    deploy_s = recommendation.deploy_seconds(run, found.table, 100)
    assert recommendation.map_sureness(found, deploy_s, *ENDS).tolist() == [1.0, 1.0]


def test_with_noise_the_front_and_the_map_show_how_unsure_they_are(service):
    """The large cell needs less memory than the fast one in some draws, and less CPU time in some."""
    run = service(noise=0.9)
    found = recommendation.choose(run, Wishes())
    share = found.table.loc[LARGE, "front_share"]
    assert 0 < share < 1 and f"yes ({share:.0%})" in set(
        views.recommendation.candidates_in_words(found)["Pareto front"]
    )
    fewer = recommendation.narrow(found, ["debian"], ["optimized"], ["system"])
    assert fewer.table["front_share"].tolist() == [1.0]
    deploy_s = recommendation.deploy_seconds(run, found.table, 100)
    deploys, requests = recommendation.map_sureness(found, deploy_s, *ENDS)
    assert deploys == 1.0 and 0 < requests < 1  # of deploys nothing has an interval here
    assert "of the map is decided in under 80% of draws" in plots.recommendation.break_even(found, deploy_s, 100).alt


def test_of_two_studies_the_one_of_more_cells_counts(service):
    run = service()
    rows, studies = run.rows, run.environment.studies
    few = rows[(rows["study"] == "throughput") & rows["cell"].isin([FAST, SLOW])].assign(study="short")
    environment = replace(run.environment, studies={"short": studies["throughput"], **studies})
    both = replace(run, rows=pd.concat([few, rows], ignore_index=True), environment=environment)
    assert comparison.study_of(both, metrics.CPU_US_PER_REQUEST) == "throughput"


def test_a_choice_by_sizes_alone_says_so(service):
    assert views.recommendation.evidence(recommendation.choose(service(), Wishes({"transfer": 3e6})))[-1].startswith(
        "Sure: it depends on sizes"
    )


def test_when_none_meets_the_wishes_the_nearest_is_named(service):
    found = recommendation.choose(service(), Wishes({"transfer": 3e6}, needs_shell=True))
    assert found.picked == "" and found.sureness == {}
    assert views.recommendation.evidence(found)[-1].startswith(
        f"No cell meets all constraints. {UNMEASURED} fails the fewest: no shell"
    )


def test_a_cell_that_keeps_all_limits_but_was_not_measured_has_its_reason(service):
    found = recommendation.choose(service(), Wishes({"transfer": 1e6}, weights={"cpu": 1.0}))
    assert found.picked == "" and found.table["reason"][UNMEASURED] == "CPU per request not measured"


def test_with_one_block_nothing_is_said_of_how_sure(service):
    run = service()
    one_block = replace(run, rows=run.rows[(run.rows["study"] == "") | (run.rows["block"] == 0)])
    found = recommendation.choose(one_block, Wishes(min_throughput=0.95))
    assert found.picked == FAST and found.sureness == {}
    assert "cannot be computed" in views.recommendation.evidence(found)[-1]


def test_a_rival_that_was_measured_once_leaves_the_choice_and_the_front_unsure(service):
    run, wishes = service(), Wishes(weights={"cpu": 1.0}, stable=True)
    once = without(run, "study == 'throughput' and cell == @LARGE and block > 0")
    found = recommendation.choose(once, wishes)
    assert found.picked == FAST and found.sureness == {} and found.table["front_share"].isna().all()
    assert recommendation.choose(once, Wishes({"transfer": 3e6}, weights={"cpu": 1.0})).sureness[FAST] > 0.99
    never = recommendation.choose(without(run, "study == 'throughput' and cell == @LARGE"), wishes)
    assert never.sureness[FAST] > 0.99 and never.unmeasured == [LARGE]


def test_a_choice_is_no_surer_than_the_control_of_its_study(service):
    run, wishes = service(), Wishes(weights={"cpu": 1.0}, stable=True)
    assert recommendation.choose(run, wishes).sureness[FAST] > 0.99
    twin = run.rows["cell"].eq(FAST + names.TWIN) & run.rows["metric"].eq("cpu_us_per_request")
    values = [1.3 * value if own else value for value, own in zip(run.rows["value"], twin, strict=True)]
    apart = recommendation.choose(replace(run, rows=run.rows.assign(value=values)), wishes)
    assert 0.3 < apart.sureness[apart.picked] < 0.9 and any("A/A control differs" in note for note in apart.notes)
    alone = recommendation.choose(replace(run, rows=run.rows[~twin]), wishes)
    assert alone.picked == FAST and alone.sureness == {} and alone.table["front_share"].isna().all()


def test_of_several_loads_the_usual_one_counts_and_the_others_are_told(service):
    run = service()
    studies = run.environment.studies
    more = run.rows[run.rows["study"] == "memory"].assign(study="crowded")
    crowded = replace(studies["memory"], parameters=studies["memory"].parameters | {"connections": 1000})
    environment = replace(run.environment, studies={"crowded": crowded, **studies})
    both = replace(run, rows=pd.concat([more, run.rows], ignore_index=True), environment=environment)
    notes = recommendation.candidates(both)[2]
    assert "memory is of memory; the run also has crowded" in notes
    assert not any("also has" in note for note in recommendation.candidates(run)[2])


def test_what_a_run_does_not_tell_is_not_taken_for_absent(service):
    run = service()
    told_less = replace(run, rows=run.rows[run.rows["metric"] != "shell"])
    found = recommendation.choose(told_less, Wishes(needs_shell=True))
    assert found.picked == "" and (found.table["reason"] == "not recorded whether it has a shell").all()


def test_an_estimate_stands_in_only_where_nothing_exact_is(service):
    run = service()
    slow = (run.rows["cell"] == SLOW) & (run.rows["metric"] == "compressed_bytes")
    run.rows.loc[slow, "detail"] = ESTIMATE
    table, _, notes = recommendation.candidates(run)
    assert table["transfer"].notna().all() and "estimates" in notes[0]
    found = recommendation.choose(run, Wishes())
    assert views.recommendation.sure(found) == "Sure: it depends on sizes alone, as estimated."
    assert "estimates" in summary._sureness_sentence(found, [])


def test_a_note_of_an_app_changes_nothing_of_how_sure_a_choice_is_whatever_its_words(service):
    run = service()
    noted = replace(run, environment=replace(run.environment, app={"note": "sizes are of a program that estimates pi"}))
    found = recommendation.choose(noted, Wishes())
    assert views.recommendation.sure(found).endswith("in which nothing is noise.")
    assert summary._sureness_sentence(
        found, []
    ) == "Certain: sizes are exact." and not views.recommendation.of_two_programs(found)


def test_a_wish_for_what_was_not_measured_is_told_with_what_measures_it(service):
    run = service(kinds=("startup",))
    with pytest.raises(LabError, match=r"has not measured memory of any .* --study memory` does"):
        recommendation.choose(run, Wishes({"memory": 1e6}))
    with pytest.raises(LabError, match=r"has not measured requests per s of any .* --study throughput` does"):
        recommendation.choose(run, Wishes(min_throughput=0.5))
    with pytest.raises(LabError, match="unknown criterion 'transfr': did you mean 'transfer'"):
        recommendation.choose(run, Wishes({"transfr": 1}))
    unsized = replace(run, rows=run.rows[run.rows["metric"] != metrics.COMPRESSED_BYTES])
    with pytest.raises(LabError, match=r"not measured transfer of any of its cells: `\./lab run --run NAME` does"):
        recommendation.choose(unsized, Wishes())


def test_a_run_in_which_nothing_works_has_nothing_to_choose_from(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("none", {}) as run:
        run.append(CELLS[FAST], "", [Observation("built", False, ok=False, reason="no")])
    with pytest.raises(LabError, match=f"run 'none' has no cell that works: nothing to choose from; {FAST}: no$"):
        recommendation.choose(runs.load("none"), Wishes())


def test_a_run_of_studies_alone_is_told_what_gives_it_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("studied", {}) as run:
        run.append(CELLS[FAST], "sha256:1", [Observation(metrics.EXEC_TO_FIRST_BYTE_S, 0.001, "s")], study="startup-1")
    with pytest.raises(LabError, match=r"has no sizes and checks of cells: .*`\./lab run --run studied` makes them"):
        recommendation.choose(runs.load("studied"), Wishes())


def test_the_profile_is_as_cargo_reads_it():
    assert cargo_profile.cargo_profile("scratch", "smallest", "system").splitlines() == [
        "# Cargo.toml", "[profile.release]", "codegen-units = 1", "lto = true", 'opt-level = "z"', 'panic = "abort"',
        "strip = true", "", "# .cargo/config.toml", "[build]", 'target = "x86_64-unknown-linux-musl"',
        'rustflags = ["-Cforce-unwind-tables=no", "-Clink-arg=-Wl,-z,pack-relative-relocs"]',
    ]  # fmt: skip
    on_arm64 = cargo_profile.cargo_profile("scratch", "baseline", "system", "aarch64")
    assert 'target = "aarch64-unknown-linux-musl"' in on_arm64
    said = cargo_profile.cargo_profile("debian", "std-size+cpu-v3+upx", "system")
    assert 'target = "x86_64-unknown-linux-gnu"' in said
    assert 'rustflags = ["-Ctarget-cpu=x86-64-v3", "-Zfmt-debug=none", "-Zlocation-detail=none"]' in said
    assert "# RUSTC_BOOTSTRAP=1 cargo build --release -Zbuild-std" in said and "# then: upx" in said
    assert (
        "feature for jemalloc" in cargo_profile.cargo_profile("debian", "optimized", "jemalloc")
        and "feature for" not in said
    )


def test_the_seconds_of_a_day_worked_by_hand(service):
    run = service(noise=0.0)
    table = recommendation.candidates(run)[0]
    one = recommendation.deploy_seconds(run, table, 100)
    assert one.attrs["lacking"] == list(table.index) and one["low"].isna().all()
    assert one.loc[[FAST, SLOW], "mean"].tolist() == pytest.approx([8 * 1.7 / 100, 8 * 1.1 / 100])
    seconds = recommendation.daily_seconds(table, one["mean"], np.array([1000.0, 1.0]), np.array([0.0, 1e6]))
    assert seconds[FAST].tolist() == pytest.approx([136.0, 0.136 + 64.0])
    assert (seconds.idxmin(axis=1) == [SLOW, FAST]).all()
    assert UNMEASURED not in seconds
    for none in (0, -1.0, float("nan")):
        with pytest.raises(LabError, match="Mbit/s is not above 0"):
            recommendation.deploy_seconds(run, table, none)


def test_the_map_has_the_seconds_that_a_choice_goes_by(service):
    run = service()
    found = recommendation.choose(run, Wishes(weights={metrics.DAY: 1.0}, day=recommendation.Day(10, 50, 1e5)))
    one = recommendation.deploy_seconds(run, found.table, 50)
    (seconds,) = recommendation.daily_seconds(found.table, one["mean"], np.array([10]), np.array([1e5])).to_dict(
        "records"
    )
    assert seconds == pytest.approx(found.table[metrics.DAY].dropna().to_dict())


def test_the_tables_name_what_was_picked(service):
    found = recommendation.choose(service(), Wishes(min_throughput=0.95))
    shown = views.recommendation.candidates_in_words(found)
    assert shown["verdict"].tolist().count("SELECTED") == 1 and shown["cell"].iloc[0] == FAST
    assert set(CRITERIA[name].phrase for name in CRITERIA) <= set(shown)
    assert terminal.of_frame("service", views.recommendation.candidates_in_words(found)).row_count == 4
    assert "SELECTED" in views.recommendation.candidates(found).to_html()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-transfer", "512KiB", "--run", "nosuch"], "unknown run 'nosuch'"),
        (["--max-transfer", "3"], "'3' is no size, as 3MB"),
        (["--max-transfer", "0MB"], "'0MB' is no size"),
        (["--max-startup", "5"], "'5' is no time in milliseconds"),
        (["--min-throughput", "95"], "'95' is no fraction between 0 and 1"),
        (["--weights", "transfr=1"], "'transfr=1' is no weight, as transfer=1; known are transfer, startup, cpu"),
        (["--run", "nosuch"], "unknown run 'nosuch'"),
    ],
)
def test_bad_input_is_one_line(lab, arguments, said):
    done = lab("choose", *arguments)
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1]


def test_the_notebook_picks_draws_and_prints(service, tmp_path, monkeypatch):
    """The same calls as in 05_choose, on a run that has everything."""
    run = service()
    found = recommendation.choose(run, Wishes(min_throughput=0.95))
    for across, up in pareto.axis_pairs(found.table):
        plots.recommendation.front(found, across, up)
    deploy_s = recommendation.deploy_seconds(run, found.table, 100)
    plot = plots.recommendation.break_even(found, deploy_s, 100)
    assert FAST in [text.get_text() for text in plot.axes[0].get_legend().get_texts()] and FAST in plot.alt
    assert len(pareto.axis_pairs(found.table)) == 3


def test_how_sure_a_choice_is_cannot_be_said_while_the_best_throughput_may_be_that_of_a_cell_with_one_block():
    """Also where that cell meets no other constraint, and so cannot be selected."""
    run, fastest = runs.load("recorded/service"), "scratch-optimized-jemalloc"
    wishes = recommendation.Wishes(needs_shell=True, min_throughput=0.7)
    assert recommendation.choose(run, wishes).sureness
    is_lost = run.rows["cell"].eq(fastest) & run.rows["study"].str.startswith("throughput") & run.rows["block"].ge(1)
    assert not recommendation.choose(replace(run, rows=run.rows[~is_lost]), wishes).sureness


def test_a_study_that_is_0_in_all_trials_is_left_out():
    run = runs.load("recorded/service")
    rows = run.rows.copy()
    rows.loc[rows["metric"].eq(metrics.EXEC_TO_FIRST_BYTE_S) & rows["study"].ne(""), "value"] = 0.0
    run = replace(run, rows=rows)
    assert recommendation.choose(run, recommendation.Wishes()).picked
    assert any("each is 0" in line for line in comparison.excluded_studies(run).values())
