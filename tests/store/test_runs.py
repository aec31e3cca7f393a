import json
from dataclasses import asdict, replace

import pytest

from rustimg_lab.analysis import cells
from rustimg_lab.errors import LabError
from rustimg_lab.measure import image
from rustimg_lab.model import matrix, metrics, probes
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.paths import CHOICE_RUN, RECORDED_RUN
from rustimg_lab.store import environment, spread_record
from rustimg_lab.store import runs as store_runs
from rustimg_lab.store.environment import SCHEMA
from rustimg_lab.store.rows import COLUMNS, Observation

MACHINE = {"architecture": "x86_64", "kernel": "6.1"}
CELL = matrix.cell("scratch", "baseline", "system")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(store_runs, "RUNS", tmp_path)
    return tmp_path


def test_rows_come_back_as_they_were_written():
    with store_runs.open_run("a", MACHINE) as run:
        run.append(
            CELL, "sha256:1", [Observation("size", 5, "B"), Observation("linkage", "static", ok=False, reason="x")]
        )
    data = store_runs.load("a")
    assert list(data.rows.columns) == list(COLUMNS)
    assert data.rows[["cell", "metric", "value", "unit", "ok", "reason"]].to_numpy().tolist() == [
        ["scratch-baseline-system", "size", 5, "B", True, ""],
        ["scratch-baseline-system", "linkage", "static", "", False, "x"],
    ]
    assert data.environment.machine == MACHINE


def test_a_broken_line_is_named_and_the_rest_loads(runs):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "", [Observation("one", 1)])
    path = runs / "a" / "rows.jsonl"
    good = path.read_text()
    broken = ['{"run_id": "a"', "{}\n", good.replace("1", "NaN", 1), good.replace('"ok": true', '"ok": "yes"'), "[]\n"]
    path.write_text(good + broken[0] + "\n" + "".join(broken[1:]) + good)
    data = store_runs.load("a")
    assert len(data.rows) == 2
    assert [line.split(": ")[0] for line in data.broken] == [f"a/rows.jsonl:{n}" for n in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("metric", ["unpacked_bytes", "instructions_per_request"])  # with a unit, and without
@pytest.mark.parametrize("value", [None, "many", True, -1, 5e-324])
def test_an_amount_that_is_none_is_named_and_left_out(runs, value, metric):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "", [Observation(metric, value), Observation(metric, 0)])
        run.append(CELL, "", [Observation(metric, None, ok=False, reason="no image")])
    data = store_runs.load("a")
    assert data.rows["value"].isna().tolist() == [False, True]
    assert data.broken == (f"a/rows.jsonl:1: {metric} is {str(value)!r}, and no amount; left out",)


@pytest.mark.parametrize(
    ("metric", "value", "kind"),
    [("rustc", 5, "text"), ("pie", "yes", "true or false"), ("rss_at_7_bytes", "", "amount"), ("shell", None, "text")],
)
def test_a_fact_of_another_kind_is_named_and_left_out(runs, metric, value, kind):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "", [Observation(metric, value, "B" if metric.endswith("_bytes") else "")])
    assert store_runs.load("a").broken == (f"a/rows.jsonl:1: {metric} is {str(value)!r}, and no {kind}; left out",)


@pytest.mark.parametrize("metric", ["base", "image", "cell", "note"])
def test_a_metric_of_another_lab_is_no_column_of_ours(runs, metric):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "sha256:1", [Observation(metric, "x"), Observation("runs", True)])
    (one,) = cells.cell_table(store_runs.load("a")).to_dict("records")
    assert (one["base"], one["image"], one["cell"], one["note"]) == ("scratch", "sha256:1", CELL.slug, "")


def test_a_size_that_was_not_pushed_is_whole(runs):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "sha256:1", [image._pushed("sha256:1", None)])
    assert store_runs.load("a").broken == ()


def test_half_a_line_of_a_killed_lab_is_not_joined_to_the_next_row(runs):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "", [Observation("one", 1)])
    with (runs / "a" / "rows.jsonl").open("a") as file:
        file.write('{"run_id": "a", "ce')
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "", [Observation("two", 2)])
    data = store_runs.load("a")
    assert data.rows["metric"].tolist() == ["one", "two"]
    assert len(data.broken) == 1


def test_a_second_lab_on_one_run_is_refused():
    with (
        store_runs.open_run("a", MACHINE),
        pytest.raises(LabError, match="another lab"),
        store_runs.open_run("a", MACHINE),
    ):
        pass


def test_another_machine_is_refused_and_what_differs_is_named():
    with store_runs.open_run("a", MACHINE):
        pass
    with (
        pytest.raises(LabError, match=r"kernel 6.1 -> 6.2.*--run NAME"),
        store_runs.open_run("a", MACHINE | {"kernel": "6.2"}),
    ):
        pass


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "recorded", "a b"])
def test_a_name_that_is_no_folder_of_ours_is_refused(name):
    with pytest.raises(LabError, match="cannot be a run's name"), store_runs.open_run(name, MACHINE):
        pass


def test_a_misspelt_run_is_told_with_the_nearest():
    with store_runs.open_run("nightly", MACHINE):
        pass
    with pytest.raises(LabError, match="did you mean 'nightly'"):
        store_runs.load("nigtly")


@pytest.mark.faults
def test_a_run_of_a_newer_lab_is_refused(runs):
    with store_runs.open_run("a", MACHINE) as run:
        run.save_environment(schema=SCHEMA + 1)
    with pytest.raises(LabError, match="update the lab"):
        store_runs.load("a")


def test_what_is_no_number_cannot_be_written(runs):
    with store_runs.open_run("a", MACHINE) as run:
        with pytest.raises(ValueError):
            run.append(CELL, "", [Observation("one", 1), Observation("two", float("nan"))])
        assert not (runs / "a" / "rows.jsonl").exists()


def test_current_rows_are_those_of_each_cells_newest_image():
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "sha256:1", [Observation("size", 1), Observation("only before", 1)])
        run.append(CELL, "sha256:2", [Observation("size", 2)])
        run.append(CELL, "sha256:2", [Observation("size", 3)])
    assert store_runs.newest_rows(store_runs.load("a"))[["metric", "value"]].to_numpy().tolist() == [["size", 3]]


def test_a_failed_build_hides_what_an_earlier_one_measured():
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "sha256:1", [Observation("size", 1)])
        run.append(CELL, "", [Observation("built", False, ok=False, reason="error: no")])
    assert store_runs.newest_rows(store_runs.load("a"))["metric"].tolist() == ["built"]


@pytest.mark.parametrize(
    ("run", "more"),
    [
        (RECORDED_RUN, {"package_bytes", "commands"}),
        ("recorded/miniserve", {"package_bytes", "studies", "commands"}),
        *(
            (f"recorded/{name}", {"studies", "commands"})
            for name in ("allocators", "allocators-intel", "knobs", "memory", "startup")
        ),
        ("recorded/survival", {"commands"}),
        *((f"recorded/{name}", {"package_bytes"}) for name in ("fd", "bat", "ladder")),
        (CHOICE_RUN, {"package_bytes", "studies"}),
    ],
)
def test_the_environment_names_no_host_and_no_path(run, more):
    environment = {name: value for name, value in asdict(store_runs.load(run).environment).items() if value}
    text = json.dumps(environment)
    assert set(environment) == {"schema", "run", "machine", "tools", "app", "images", "bases", "debian"} | more
    assert "/home/" not in text and "/root" not in text and "://" not in text


def test_an_empty_run_loads(runs):
    with store_runs.open_run("a", MACHINE):
        pass
    rows = store_runs.newest_rows(store_runs.load("a"))
    assert rows.empty and list(rows.columns) == list(COLUMNS)


def test_cells_that_only_their_additions_tell_apart_do_not_share_a_run():
    more = replace(CELL, additions=("ca-certificates", "tmp"))
    with store_runs.open_run("a", MACHINE) as run:
        store_runs.refuse_mixed(run, [more])
        run.append(more, "", [Observation("runs", True)], study=probes.STUDY)  # where both are compared
        store_runs.refuse_mixed(run, [CELL])
        run.append(more, "", [Observation("runs", True)], name=f"{more.slug}~twin", study="throughput")
        store_runs.refuse_mixed(run, [more])
        with pytest.raises(LabError, match="run 'a' was begun with --with ca-certificates,tmp: call it so, or choose"):
            store_runs.refuse_mixed(run, [CELL])
    with store_runs.open_run("b", MACHINE) as run:
        run.append(CELL, "", [Observation("runs", True)])
        with pytest.raises(LabError, match="run 'b' was begun without --with"):
            store_runs.refuse_mixed(run, [more])


def test_a_run_for_two_architectures_is_read_in_two_parts():
    """So that no table, plot or choice can mix them."""
    other = replace(CELL, architecture=Architecture.AARCH64)
    with store_runs.open_run("a", MACHINE) as run:
        for cell, size in ((CELL, 5), (other, 6)):
            run.append(cell, "sha256:1", [Observation("size", size)])
        texts = dict.fromkeys(["digest", "label", "manifest", "name", "reference", "release", "source"], "")
        images = {"sha256:d": {"stand_in": False}, "sha256:e": {"stand_in": True}}
        digests = {digest: texts | {"packages": {}} | told for digest, told in images.items()}
        run.save_environment(images=digests, bases={"alpine": "sha256:d", "alpine-arm64": "sha256:e"})
    names = store_runs.parts("a")
    assert names == ["a", "a@arm64"] and store_runs.parts("a@arm64") == ["a@arm64"]
    own, foreign = map(store_runs.load, names)
    assert [part.rows["value"].tolist() for part in (own, foreign)] == [[5], [6]]
    assert [part.name for part in (own, foreign)] == names
    assert [part.environment.stand_ins for part in (own, foreign)] == [[], ["alpine"]]
    assert store_runs.load("a", whole=True).rows["value"].tolist() == [5, 6]
    with pytest.raises(LabError, match="unknown architecture 'arm'"):
        store_runs.load("a@arm")


def test_a_run_for_another_architecture_alone_is_read_by_its_own_name():
    with store_runs.open_run("a", MACHINE) as run:
        run.append(replace(CELL, architecture=Architecture.AARCH64), "", [Observation("size", 6)])
    assert store_runs.parts("a") == ["a"] and store_runs.load("a").rows["value"].tolist() == [6]
    with pytest.raises(LabError, match="run 'a' has no image for amd64"):
        store_runs.load("a@amd64")


def test_rows_of_an_older_lab_are_of_x86_64_and_an_unknown_architecture_is_a_broken_line(runs):
    with store_runs.open_run("a", MACHINE) as run:
        run.append(CELL, "", [Observation("size", 5)])
    path = runs / "a" / "rows.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"architecture": "x86_64", ', "") + good.replace('"x86_64"', '"vax"'))
    data = store_runs.load("a")
    assert data.rows["architecture"].tolist() == ["x86_64"]
    assert data.broken == ("a/rows.jsonl:2: 'vax' is no architecture that the lab builds for; left out",)


def test_a_run_of_several_machines_is_what_its_cells_are_and_a_run_of_each(runs):
    other = matrix.cell("debian", "baseline", "system")
    for name, cell, seconds in (("alpha", CELL, 5.0), ("beta", other, 7.0)):
        with store_runs.open_run(name, MACHINE | {"cpu_model": name}) as run:
            facts = [Observation(metrics.BINARY_BYTES, 9), Observation(metrics.BUILD_CPU_S, seconds)]
            run.append(cell, "sha256:1", facts)
            run.append(cell, "sha256:1", [Observation(metrics.TRIAL, True)], study="throughput")
        (runs / name / "dockerfiles" / f"Dockerfile.{cell}").write_text(name)
    with store_runs.open_spread("a") as folder:
        for name in ("alpha", "beta"):
            (runs / name).rename(folder / name)
    assert store_runs.parts("a") == ["a", "a@alpha", "a@beta"] and store_runs.machines("a") == ["alpha", "beta"]
    together = store_runs.load("a")
    assert together.name == "a" and together.environment.studies == {}
    # Sizes are of the images; seconds and trials are of a machine, and are never put together.
    assert together.rows[["cell", "metric"]].to_numpy().tolist() == [[c.slug, "binary_bytes"] for c in (CELL, other)]
    alone = store_runs.load("a@beta")
    assert alone.name == "a@beta" and alone.environment.machine["cpu_model"] == "beta" and len(alone.rows) == 3
    assert store_runs.dockerfile("a", str(other)) == "beta" == store_runs.dockerfile("a@beta", str(other))
    assert len(store_runs.files("a")) == 5 and len(store_runs.files("a@beta")) == 2
    with store_runs.open_run("c", MACHINE):
        for cell, text in ((CELL, "alpha"), (other, "gamma")):
            (runs / "c" / "dockerfiles" / f"Dockerfile.{cell}").write_text(text)
    assert store_runs.changed_dockerfiles("a", "c") == [other.slug]
    for name, said in (
        ("a@gamma", "unknown machine of run 'a' 'gamma': known are alpha, beta"),
        ("b@alpha", "unknown run"),
    ):
        with pytest.raises(LabError, match=said):
            store_runs.load(name)


def test_a_run_of_one_machine_and_one_of_several_are_not_mixed():
    with store_runs.open_run("one", MACHINE) as run:
        run.append(CELL, "", [Observation("one", 1)])
    with store_runs.open_spread("several"):
        pass
    with pytest.raises(LabError, match="run 'several' has no rows yet: no machine has sent any"):
        store_runs.load("several")
    with pytest.raises(LabError, match="'one' is of one machine"), store_runs.open_spread("one"):
        pass
    with pytest.raises(LabError, match="'several' is of several machines"), store_runs.open_run("several", MACHINE):
        pass
    second = store_runs.open_spread("several")
    with store_runs.open_spread("several"), pytest.raises(LabError, match="being written by another lab"), second:
        pass


@pytest.fixture
def both(runs):
    """A run of two machines that have one cell each from other sources: what beta has of it, and what alpha has."""

    def make(alpha: Observation, beta: Observation) -> None:
        with store_runs.open_spread("a") as folder:
            for name, own in (("alpha", alpha), ("beta", beta)):
                with store_runs.open_run(f"a-{name}", MACHINE) as run:
                    run.append(CELL, f"sha256:{name}" if own.ok else "", [own])
                (runs / f"a-{name}" / "dockerfiles" / f"Dockerfile.{CELL}").write_text(name)
                (runs / f"a-{name}").rename(folder / name)

    return make


WORKS, FAILS = Observation(metrics.RUNS, True), Observation(metrics.BUILT, False, ok=False, reason="error: no")


@pytest.mark.parametrize("alpha, beta", [(WORKS, WORKS), (WORKS, FAILS), (FAILS, WORKS)])
def test_of_a_cell_that_several_machines_built_the_last_one_counts_whatever_its_name(runs, both, alpha, beta):
    both(alpha, beta)
    assert len(store_runs.load("a").rows) == 2  # as older labs wrote it, who built a cell last was not recorded
    for last, own in (("alpha", alpha), ("beta", beta), ("alpha", alpha)):
        before = [path.read_bytes() for path in store_runs.files("a")]
        spread_record.note(runs / "a", last, [CELL.slug], {})
        (row,) = store_runs.newest_rows(store_runs.load("a")).itertuples()
        assert (row.metric, row.ok) == (own.metric, own.ok) and row.image in ("", f"sha256:{last}")
        assert store_runs.dockerfile("a", CELL.slug) == last
        assert [path.read_bytes() for path in store_runs.files("a")] != before  # so that reports are made anew


def test_a_record_of_a_spread_run_that_cannot_be_read_is_refused_in_one_line(runs, both):
    both(WORKS, WORKS)
    for text in ("half", "[]", '{"cells": []}', '{"cells": {"a": 1}}', '{"sources": {"a": "b"}}', '{"more": 1}'):
        (runs / "a" / spread_record.FILE).write_text(text)
        with pytest.raises(
            LabError, match=r"^a/spread.json cannot be read \([^\n]+\); restore it, or use another run$"
        ):
            store_runs.load("a")


def test_half_a_line_of_a_spread_run_is_cut_off_also_where_an_older_lab_has_ended_it(runs, both):
    both(WORKS, WORKS)
    rows = runs / "a" / "machines" / "alpha" / "rows.jsonl"
    whole = rows.read_bytes()
    for text, left in ((whole, whole), (whole + whole[:9], whole), (whole + b'{"run_id"\n', whole), (whole[:9], b"")):
        rows.write_bytes(text)
        with store_runs.open_spread("a"):
            assert rows.read_bytes() == left
    assert store_runs.load("a").broken == ()


def test_a_spread_run_keeps_the_id_that_it_was_begun_with(runs):
    found = set()
    for _ in range(2):
        with store_runs.open_spread("a"):
            found.add(spread_record.read(runs / "a").id)
    assert len(found) == 1 and len(found.pop()) == 32


def test_an_environment_that_cannot_be_read_is_told_with_what_to_do(tmp_path):
    for make in (lambda: environment.parse_environment("{", "a"), lambda: environment.read_environment(tmp_path)):
        with pytest.raises(LabError, match=r"environment.json cannot be read .*: put a copy of that file in its place"):
            make()
