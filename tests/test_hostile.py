"""What comes from strangers: runs, archives, lab.toml, profiles, batches. Each is read as what it is or refused in one
line; nothing is written beside what the lab calls its own; and no secret of the machine is in what goes out."""

import io
import json
import os
import tarfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from rustimg_lab.analysis import cells, factorials, regression, robustness
from rustimg_lab.build import archives, lab_toml
from rustimg_lab.engine import images
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix, probes, profiles
from rustimg_lab.paths import MYIP
from rustimg_lab.report import batch, sections, summary, terminal, views
from rustimg_lab.store import runs as store_runs
from rustimg_lab.store.rows import COLUMNS, Observation

pytestmark = pytest.mark.faults

SEED, INPUTS = 20261125, 200
CELL = matrix.cell("scratch", "baseline", "system")
# Names as somebody who means harm, or does not think of it, would choose them.
NAMES = (
    "../../x",
    "/etc/passwd",
    "-rf",
    "a b",
    "a'b\"c",
    "a\nb",
    "a\0b",
    "é\u202e",
    "<script>alert(1)</script>",
    "$(id)",
    "`id`",
    "%s{}",
    "x" * 5000,
    "",
    ".",
    "..",
    "|",
    "${HOME}",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture
def inputs(many):
    """Makes a test of a property: a seeded number of inputs, none of them kept from one call to the next."""

    def make(test):
        quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
        return seed(SEED)(
            settings(max_examples=many(INPUTS), deadline=None, database=None, suppress_health_check=quiet)(test)
        )

    return make


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(store_runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(
        store_runs, "RECORDED", tmp_path / "recorded"
    )  # all runs are listed, and none of ours is hostile
    with store_runs.open_run("a", {}) as run:
        run.append(CELL, "sha256:1", [Observation("runs", True), Observation("unpacked_bytes", 5, "B")])
        run.save_environment(images={}, bases={})
    return tmp_path / "runs" / "a"


def refused(call, *arguments) -> None:
    """A clear error in one line, or a correct load; nothing else."""
    try:
        call(*arguments)
    except LabError as error:
        assert str(error).strip()


OWN_METRICS = ["runs", "unpacked_bytes", "layer_bytes", "base_digest", "files", "tmp", "built", "rustc", "base", "note"]
METRICS = st.sampled_from([*OWN_METRICS, *NAMES])
CHANGES = st.one_of(
    st.tuples(st.sampled_from([*COLUMNS, "more"]), VALUES),
    st.tuples(st.just("metric"), METRICS),
    st.tuples(st.just("study"), st.just(probes.STUDY)),
)


def test_rows_that_a_stranger_has_changed(runs, inputs):
    good = (runs / "rows.jsonl").read_text().splitlines()

    @inputs
    @given(st.lists(CHANGES, max_size=4), st.binary(max_size=60))
    @example([("study", probes.STUDY), ("metric", "tmp")], b"")
    @example([("metric", "base")], b"")
    @example([("metric", "rustc"), ("value", 5)], b"")
    def changed(changes, junk):
        row = json.loads(good[0]) | dict(changes)
        (runs / "rows.jsonl").write_bytes("\n".join([json.dumps(row), *good]).encode() + b"\n" + junk)
        run = store_runs.load("a")
        assert len(run.rows) >= 2
        refused(cells.cell_table, run)
        refused(regression.changed_inputs, run, run)
        refused(regression.sizes, run, run)
        refused(factorials.find_factorials, run)
        refused(terminal.markdown, "a")
        refused(views.robustness.survival, run)
        refused(views.robustness.survival_facts, run)
        refused(views.provenance.runs)

    changed()


def test_an_environment_that_a_stranger_has_changed(runs, inputs):
    good = json.loads((runs / "environment.json").read_text())
    keys = [*good, "studies", "package_bytes", "app", "tools", "commands", "debian"]

    @inputs
    @given(st.lists(st.tuples(st.sampled_from(keys), VALUES), min_size=1, max_size=3) | st.binary(max_size=80))
    def changed(changes):
        text = changes if isinstance(changes, bytes) else json.dumps(good | dict(changes)).encode()
        (runs / "environment.json").write_bytes(text)
        try:
            run = store_runs.load("a")
        except LabError as error:
            assert "environment.json" in str(error) or "schema" in str(error)
            return
        for read in (
            views.provenance.environment,
            views.provenance.provenance,
            views.studies.studies,
            cells.cell_table,
        ):
            refused(read, run)
        refused(summary.notes, {"a": run})
        refused(lambda: sections.parts(store_runs.load("a")))

    changed()


def test_lines_without_an_end_and_numbers_that_are_none(runs):
    good = (runs / "rows.jsonl").read_text().splitlines()
    for line in (
        '{"x": ' + "9" * 10_000_000,
        "[" * 200_000,
        good[0].replace("true", "NaN"),
        good[0].replace("true", "1e999"),
        '{"run_id": "' + "x" * 100_000_000 + '"}',
    ):
        (runs / "rows.jsonl").write_text(line + "\n" + good[1] + "\n")
        run = store_runs.load("a")
        assert len(run.broken) == 1 and len(run.broken[0]) < 300
        assert run.rows["metric"].tolist() == ["unpacked_bytes"]


def test_a_run_is_never_followed_out_of_its_folder(runs):
    for name in NAMES:
        refused(store_runs.load, name)
        refused(store_runs.dockerfile, "a", name)
    with pytest.raises(LabError):
        store_runs.dockerfile("a", "x/../../environment.json")


def _open_run(name: str) -> None:
    with store_runs.open_run(name, {}):
        pass


@pytest.mark.parametrize("name", ["rows.jsonl", "environment.json", ".lock", "dockerfiles/Dockerfile.y", "logs"])
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_file_in_a_run_is_neither_read_nor_written(runs, tmp_path, name, what):
    if (name, what) == ("logs", "folder"):
        pytest.skip("which it is")
    target, place = tmp_path / "mine", runs / name
    target.write_text("precious")
    if place.is_dir():
        place.rmdir()
    place.unlink(missing_ok=True)
    if what == "link":
        place.symlink_to(target)
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    for call in (store_runs.load, store_runs.files, _open_run, lambda run: store_runs.dockerfile(run, "y")):
        with pytest.raises(LabError, match=f"holds {place.name}"):
            call("a")
    assert target.read_text() == "precious"


TABLES = st.dictionaries(
    st.sampled_from(
        ["binary", "package", "features", "packages", "allocators", "check", "serve", "default_features", "more"]
    ),
    VALUES,
    max_size=5,
)


def _toml(value) -> str:
    """As TOML has it, as far as that can say it; else as it stands."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return "nothing" if value is None else json.dumps(value)


def test_a_lab_toml_that_a_stranger_wrote(tmp_path, inputs):
    crate = tmp_path / "crate"
    crate.mkdir()
    for name in ("Cargo.toml", "Cargo.lock"):
        (crate / name).write_bytes((MYIP / name).read_bytes())

    @inputs
    @given(TABLES | st.binary(max_size=80))
    def changed(told):
        text = (
            told
            if isinstance(told, bytes)
            else "".join(f"{key} = {_toml(each)}\n" for key, each in told.items()).encode(errors="surrogatepass")
        )
        (crate / "lab.toml").write_bytes(text)
        try:
            app = lab_toml.load(crate)
        except LabError as error:
            assert str(crate / "lab.toml") in str(error)
            return
        # What becomes part of a Dockerfile cannot end the line that it is in.
        assert tomllib.loads(text.decode()) is not None
        for each in (app.name, app.package, *app.features, *app.system_packages, *dict(app.allocators).values()):
            assert not set(each) & set(" \n\"'$`;&|<>\\")

    changed()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Cargo.lock", "Cargo.toml", "crate", "lab.toml"]


def test_profiles_that_a_stranger_wrote(tmp_path, monkeypatch, inputs):
    file = tmp_path / "profiles.toml"
    monkeypatch.setattr(profiles, "PROFILES", file)
    keys = st.sampled_from(
        ["summary", "of", "settings", "rustflags", "cargo", "strip", "upx", "glibc", "auditable", "more"]
    )

    @inputs
    @given(st.sampled_from(["own", "own-2", *NAMES]), st.dictionaries(keys, VALUES, max_size=5))
    def changed(name, entry):
        lines = "".join(f"{key} = {_toml(each)}\n" for key, each in entry.items())
        file.write_bytes(f'[{json.dumps(name)}]\nsummary = "mine"\n{lines}'.encode(errors="surrogatepass"))
        profiles.all_profiles.cache_clear()
        refused(profiles.all_profiles)

    try:
        changed()
    finally:
        profiles.all_profiles.cache_clear()


def test_a_batch_that_a_stranger_wrote(tmp_path, inputs):
    file = tmp_path / "batch.yaml"
    keys = st.sampled_from(["notebook", "run_name", "max_transfer_mb", "workload", "more"])
    some = st.sampled_from(["05_choose", "recorded/service", *NAMES])

    @inputs
    @given(st.lists(st.dictionaries(keys, VALUES | some, max_size=4), max_size=3) | st.binary(max_size=80))
    def changed(entries):
        file.write_bytes(entries if isinstance(entries, bytes) else json.dumps(entries).encode())
        refused(batch.read, file)

    changed()


MEMBERS = st.tuples(
    st.sampled_from([*NAMES, "../../up", "/abs", "bin/ok", "manifest.json", "index.json", "./index.json"]).filter(bool),
    st.sampled_from(
        [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
    ),
    st.sampled_from(["/etc/passwd", "../../../etc/passwd", "bin/ok"]),
    st.binary(max_size=60)
    | st.sampled_from([b"[]", b"{}", b"[{}]", b'[{"Config": "../x", "Layers": ["/etc/passwd"]}]']),
)


@pytest.mark.engine
def test_an_archive_that_a_stranger_made(tmp_path, inputs, monkeypatch):
    """It is read, and never unpacked by the lab; what the engine would be given is what is looked at."""
    given_on = []
    monkeypatch.setattr(images, "import_rootfs", lambda path, *about: given_on.append(path))
    monkeypatch.setattr(images, "load_image", lambda path, name: given_on.append(path))
    file, before = tmp_path / "base.tar", sorted([*Path("/").iterdir(), *tmp_path.parent.iterdir()])

    @inputs
    @given(st.lists(MEMBERS, max_size=4), st.integers(0, 3000), st.binary(max_size=20))
    def changed(members, cut, junk):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as out:
            for name, kind, link, content in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode = kind, link, 0o4755
                member.size = len(content) if kind == tarfile.REGTYPE else 0
                out.addfile(member, io.BytesIO(content))
        text = held.getvalue()
        file.write_bytes((text[:cut] if cut < 2500 else text) + junk)
        refused(archives.load, file, "alpine", "test")

    changed()
    assert sorted([*Path("/").iterdir(), *tmp_path.parent.iterdir()]) == before
    assert [path.name for path in tmp_path.iterdir()] == ["base.tar"]


@pytest.mark.engine
def test_a_sparse_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """A program of a terabyte, of which the archive has a few bytes: it is looked at, and not unpacked."""
    file = tmp_path / "bomb.tar"
    size = 1 << 40
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as out:
        member = tarfile.TarInfo("bin/bomb")
        sparse = b"1\n%d\n0\n" % (size - 1)  # one piece of no bytes at its end, and a hole before
        member.mode, member.size = 0o755, 512
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "bin/bomb",
            "GNU.sparse.realsize": str(size),
        }
        out.addfile(member, io.BytesIO(sparse.ljust(512, b"\0")))
    with tarfile.open(file) as archive:
        assert archive.getmembers()[0].size == size
    given_on = []
    monkeypatch.setattr(images, "import_rootfs", lambda path, *about: given_on.append(path))
    refused(archives.load, file, "alpine", "test")


def test_probes_of_a_stranger_are_shown_and_do_nothing(runs):
    with store_runs.open_run("a", {}) as run:
        data = [
            Observation(name, "failed", detail="<script>alert(1)</script> | [x](javascript:1)")
            for name in probes.PROBES
        ]
        run.append(CELL, "sha256:1", [*data, Observation("unknown probe", "passed")], study=probes.STUDY)
    data = store_runs.load("a")
    shown = views.robustness.survival_failures(data).to_html()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert len(robustness.failures(data)) == len(probes.PROBES)
