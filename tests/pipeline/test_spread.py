"""The lab on several machines: real workers of a real scheduler, which call the lab beside an engine."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import uuid

import pytest
from support import dask, engines, registry_faults
from support.lab import SERVER, as_root, forget, forget_images, passing_tiny

from rustimg_lab.build import lab_toml
from rustimg_lab.cli import output
from rustimg_lab.engine import client, images, local_registry
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine
from rustimg_lab.model import matrix, metrics
from rustimg_lab.paths import MYIP, RUNS
from rustimg_lab.pipeline import machines, session, worker
from rustimg_lab.store import runs, spread_record
from rustimg_lab.store.rows import Observation

pytestmark = pytest.mark.slow

CELL = matrix.cell("scratch", "baseline", "system")


@pytest.fixture
def run():
    """The name of a run, and of those that the workers have of it."""
    name = f"test-spread-{uuid.uuid4().hex[:8]}"
    yield name
    for each in RUNS.glob(f"{name}*"):
        forget(each.name)
    forget(name)


@pytest.fixture
def app(tmp_path):
    return passing_tiny(tmp_path / "app")


@pytest.fixture
def made(run, tmp_path):
    """An image of one file, which no other has."""
    with tarfile.open(tmp_path / "rootfs.tar", "w") as archive:
        files.add_file(archive, "program", io.BytesIO(run.encode()))
    return images.import_rootfs(tmp_path / "rootfs.tar", 10_000, "test-moved", run, [])


def spread(run: str) -> machines.Spread:
    return machines.Spread(run, (), "./lab run", None, "", False, output.console)


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """What a worker sends of a run with one row, which was begun by that name."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)

    def make(name: str) -> worker.Outcome:
        with runs.open_run(name, {"kernel": "6.1"}) as run:
            run.append(CELL, "", [Observation(metrics.BINARY_BYTES, 9)])
        texts = [(tmp_path / name / each).read_text() for each in ("rows.jsonl", "environment.json")]
        return worker.Outcome(0, "done", (), texts[0].encode(), texts[1], {"Dockerfile.a": "FROM scratch\n"})

    return make


def test_what_a_worker_sends_is_written_and_counts_once(sent, tmp_path):
    with runs.open_spread("a") as folder:
        assert machines._write_outcome(spread("a"), folder / "alpha", sent("a-alpha")) == ""
    data = runs.load("a@alpha")
    assert len(data.rows) == 1 and data.broken == () and runs.dockerfile("a", "a") == "FROM scratch\n"


def test_binaries_of_two_machines_are_compared_program_by_program(sent, tmp_path):
    with runs.open_spread("a") as folder:
        for name, client_, server in (("alpha", "1" * 64, "3" * 64), ("beta", "2" * 64, "3" * 64)):
            with runs.open_run(f"a-{name}", {"kernel": "6.1"}) as run:
                run.append(CELL, "", [Observation(metrics.BINARY_SHA256, client_)], study="client" * (name == "beta"))
                run.append(CELL, "", [Observation(metrics.BINARY_SHA256, server)], study="server")
            assert machines._write_outcome(spread("a"), folder / name, sent(f"a-{name}"), (), "one") == ""
        # The client of one machine and the grid's of the other are two programs.
        assert machines._other_binaries("a") == []
        said = "scratch-baseline-system: the machines built different binaries (alpha 333333333333, beta {})"
        for number, built_of, differs in (("4", "two", []), ("5", "one", [said.format("5" * 12)]), ("6", "two", [])):
            text = binary("a-beta", number)
            machines._write_outcome(spread("a"), folder / "beta", worker.Outcome(0, "done", (), text), (), built_of)
            assert machines._other_binaries("a") == differs
        # What a call before this one built, whose rows were not sent then, is of sources that are not known.
        outcome = worker.Outcome(0, "done", (), text := binary("a-beta", "7"), earlier=len(text))
        machines._write_outcome(spread("a"), folder / "beta", outcome, (), "one")
        assert machines._other_binaries("a") == []


def binary(name: str, digit: str) -> bytes:
    """The row of another binary of a run's server."""
    before = (runs.RUNS / name / "rows.jsonl").stat().st_size
    with runs.open_run(name, {"kernel": "6.1"}) as run:
        run.append(CELL, "", [Observation(metrics.BINARY_SHA256, digit * 64)], study="server")
    return (runs.RUNS / name / "rows.jsonl").read_bytes()[before:]


def test_a_cell_is_of_the_machine_that_was_the_last_to_build_it(sent, tmp_path):
    with runs.open_spread("a") as folder:
        for name, code in (("beta", 0), ("alpha", 1), ("beta", 2)):  # the last could not go on
            outcome = worker.Outcome(**vars(sent(f"a-{name}")) | {"code": code, "last_line": "no engine"})
            machines._write_outcome(spread("a"), folder / name, outcome, (CELL.slug,))
            assert spread_record.read(tmp_path / "a").cells == {CELL.slug: "alpha" if code else "beta"}
        # Its image is the one that it had before, of which nothing is sent again.
        machines._write_outcome(spread("a"), folder / "beta", worker.Outcome(0, "done"), (CELL.slug,))
        assert spread_record.read(tmp_path / "a").cells == {CELL.slug: "beta"}


def test_rows_that_cannot_be_read_are_kept_with_a_note_and_the_others_count(sent, capsys):
    outcome = sent("a-alpha")
    rows = outcome.rows[:-37] + b"\n" + outcome.rows  # a worker's lab was killed, and the next one ended its line
    with runs.open_spread("a") as folder:
        assert (
            machines._write_outcome(spread("a"), folder / "alpha", worker.Outcome(**vars(outcome) | {"rows": rows}))
            == ""
        )
        assert (folder / "alpha" / "rows.jsonl").read_bytes() == rows  # which the next rows are behind
    assert "note: alpha sent rows that cannot be read: 1; reports leave them out" in capsys.readouterr().out
    data = runs.load("a@alpha")
    assert len(data.rows) == 1 and len(data.broken) == 1


@pytest.mark.parametrize(
    "change, said",
    [
        ({"rows": b"\xff"}, "it sent what is no run"),
        ({"environment": "{}"}, "it sent what is no run"),
        ({"environment": "half"}, "it sent what is no run"),
        ({"code": 2, "last_line": "no Docker engine answers"}, "no Docker engine answers"),
    ],
)
def test_what_is_no_run_is_left_out_in_one_line(sent, change, said):
    outcome = sent("a-alpha")
    outcome = worker.Outcome(**vars(outcome) | change)
    with runs.open_spread("a") as folder:
        reason = machines._write_outcome(spread("a"), folder / "alpha", outcome)
        assert said in reason and "\n" not in reason
        assert (folder / "alpha" / "rows.jsonl").exists() == (outcome.code == 2)


def test_workers_that_cannot_be_used_are_told_why():
    own = machine.identity()
    both = f"it has {own[0]} (files 999999999999), this is {own[0]} (files {own[1][:12]})"
    assert machines._refusal("alpha", own, "amd64", "amd64") == ""
    for name, lab, architecture, said in (
        ("alpha", "rustimg_lab 9", "amd64", "it has rustimg_lab 9 (files unknown), this is rustimg_lab"),
        ("alpha", (own[0], "9" * 64), "amd64", both),
        ("arm64", own, "amd64", "no machine can have this name"),
        ("", own, "amd64", "no machine can have this name"),
        ("beta", own, "arm64", "it is arm64, and others are amd64"),
    ):  # fmt: skip
        assert machines._refusal(name, lab, architecture, "amd64").startswith(said)
    assert machines._refusal("alpha", ("rustimg_lab, of a folder without git", own[1]), "amd64", "amd64") == ""


def test_rows_of_another_run_are_refused(sent):
    with runs.open_spread("a") as folder:
        said = machines._write_outcome(spread("a"), folder / "alpha", sent("b-alpha"))
        assert said.startswith("it sent rows of run 'b-alpha', which is not 'a-alpha'")
        assert list(folder.iterdir()) == []


def test_a_workers_run_that_does_not_begin_as_the_clients_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "RUNS", tmp_path)
    assert worker.prepare("a", b"", "one\n", "{}", "id") == ""  # a worker that has lost its folder gets the rows back
    assert (tmp_path / "a" / "rows.jsonl").read_bytes() == b"one\n"
    assert worker.prepare("a", b"", "", "", "id") == ""  # the client has lost them, and gets them all
    for rows in ("other\n", "one\ntwo\n"):
        assert "does not begin with the rows that are here" in worker.prepare("a", b"", rows, "{}", "id")


def test_a_run_that_a_worker_has_of_another_of_the_clients_runs_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(worker, "APPS", tmp_path / "apps")
    said = "its run 'a' is of another run of that name: remove data/runs/a there, or choose another with --run NAME"
    (tmp_path / "runs" / "a").mkdir(parents=True)
    rows = tmp_path / "runs" / "a" / "rows.jsonl"
    rows.write_text("one\ntwo\n")  # as a lab wrote it that recorded no id, or as its user did
    assert worker.prepare("a", b"", "", "", "id") == said and not (tmp_path / "apps").exists()
    assert worker.prepare("a", b"", "one\n", "{}", "id") == ""  # the client has its first rows
    for known in ("", "one\n"):
        assert worker.prepare("a", b"", known, "{}", "id") == ""
        assert worker.prepare("a", b"", known, "{}", "another") == said
    rows.unlink()
    assert worker.prepare("a", b"", "", "", "another") == said  # begun, and ended before its first row


def test_a_client_that_was_killed_in_a_write_goes_on(monkeypatch, sent, tmp_path):
    monkeypatch.setattr(worker, "RUNS", tmp_path)
    rows = sent("a-alpha").rows
    with runs.open_spread("a") as folder:
        machines._write_outcome(spread("a"), folder / "alpha", sent("a-alpha"))
    here = folder / "alpha" / "rows.jsonl"
    here.write_bytes(rows + rows[:-37])
    (tmp_path / "a-alpha" / "rows.jsonl").write_bytes(2 * rows)
    with runs.open_spread("a"):
        environment = (folder / "alpha" / "environment.json").read_text()
        assert (
            worker.prepare("a-alpha", b"", here.read_text(), environment, spread_record.read(tmp_path / "a").id) == ""
        )


@pytest.mark.parametrize("whole", [True, False])
def test_a_worker_sends_whole_lines_and_says_which_a_call_before_wrote(monkeypatch, tmp_path, whole):
    monkeypatch.setattr(worker, "RUNS", tmp_path)
    monkeypatch.setattr("distributed.get_worker", lambda: None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "environment.json").write_text("{}")
    rows = tmp_path / "a" / "rows.jsonl"
    rows.write_bytes(b"known\nearlier\n")

    def call(*_):
        rows.write_bytes(rows.read_bytes() + (b"now\n" if whole else b"now"))
        return 0

    monkeypatch.setattr(worker.process, "stream", call)
    outcome = worker.perform(worker.Call((), "a", len(b"known\n"), ""))
    assert outcome.rows == b"earlier\n" + b"now\n" * whole
    assert outcome.rows[: outcome.earlier] == b"earlier\n"


@as_root
def test_a_worker_whose_disk_is_full_is_left_out_in_one_line(monkeypatch, tmpfs, app):
    disk = tmpfs("disk", 1)
    monkeypatch.setattr(worker, "APPS", disk / "apps")
    monkeypatch.setattr(worker, "RUNS", disk / "runs")
    (app / "large").write_bytes(bytes(2_000_000))
    archive = machines._archive(lab_toml.load(app))
    said = worker.prepare("a", archive, "", "", "id")
    assert said == "it cannot keep the run or its sources ([Errno 28] No space left on device)"
    said = worker.prepare("a", b"", "x" * 2_000_000, "{}", "id")
    assert "the disk that holds" in said and "\n" not in said and not (disk / "runs" / "a" / "rows.jsonl").exists()


def test_nothing_of_dask_is_loaded_without_a_scheduler():
    absent = "assert not {'dask', 'distributed'} & set(sys.modules)"
    for arguments in (["dockerfile"], ["measure", "--study", "none"], ["demo"]):
        code = f"import sys; from rustimg_lab.cli.main import main; main({arguments}); {absent}"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    code = f"import sys; from rustimg_lab.pipeline import grid, machines, studies; {absent}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_workers_without_engine_or_of_another_lab_are_left_out_in_one_line_each(lab, run, tmp_path):
    other = tmp_path / "other" / "rustimg_lab-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: rustimg_lab\nVersion: 9.9\n")
    path = os.pathsep.join([str(other.parent), str(engines.__file__).rpartition("/support/")[0]])
    with (
        dask.scheduler(tmp_path / "log") as address,
        dask.worker(address, "down", tmp_path / "log", DOCKER_HOST="unix:///nowhere.sock"),
        dask.worker(address, "old", tmp_path / "log", PYTHONPATH=path),
    ):
        dask.wait_for_workers(tmp_path / "log", 2)
        refused = lab("run", "--run", run, "--scheduler", address)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "no worker that can be used: " in refused.stderr
    assert "down: no Docker engine answers at unix:///nowhere.sock" in refused.stderr
    assert "old: it has rustimg_lab 9.9" in refused.stderr and not (RUNS / run / "rows.jsonl").exists()


@pytest.mark.engine
@pytest.mark.builds
def test_a_grid_is_spread_over_two_workers_and_the_same_call_adds_nothing(lab, pageless, run, app, tmp_path):
    options = ["--app", str(app), "--run", run, "--bases", "scratch", "--profiles", "baseline,opt-s"]
    options += ["--allocators", "system"]
    with (
        dask.scheduler(tmp_path / "log") as address,
        dask.worker(address, "alpha", tmp_path / "log"),
        dask.worker(address, "beta", tmp_path / "log"),
    ):
        dask.wait_for_workers(tmp_path / "log", 2)
        done = lab("run", *options, "--scheduler", address)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [path.read_bytes() for path in runs.files(run)]
        again = pageless("run", *options, "--scheduler", address)
    assert again.returncode == 0 and [path.read_bytes() for path in runs.files(run)] == rows
    data = runs.load(run)
    works = data.rows[data.rows["metric"] == metrics.RUNS]
    assert sorted(works["cell"]) == ["scratch-baseline-system", "scratch-opt-s-system"] and works["ok"].all()
    assert len(data.environment.commands) == 1 and "--scheduler" in data.environment.commands[0]
    assert "alpha" in done.stdout and "beta" in done.stdout and f"reports/{run}/report.html" in done.stdout
    refused = lab("run", *options)
    assert refused.returncode == 2 and "is of several machines" in refused.stderr


@pytest.mark.engine
@pytest.mark.builds
def test_an_image_of_another_machine_is_measured_without_a_build_and_clean_knows_it(run, made):
    brought = worker.bring(run, CELL.slug, worker.save(made.id))
    assert worker.find_image(brought) == brought and worker.find_image(f"{run}:none") == ""
    assert images.contents_digest(brought) == images.contents_digest(made.id)
    assert any(tag.startswith(client.repository(run)) for tag in client.connect().images.get(brought).tags)
    with runs.open_run(run, client.machine()) as opened:
        request = session.Request(lab_toml.load(MYIP), run, console=output.console, brought={CELL.slug: brought})
        batch = session.Batch([CELL], request.app)
        treatments, failures = session.build_treatments(batch, session.Session(request, opened, None), "myip")
    assert [each.image for each in treatments] == [brought] and failures == []
    for name in {*made.tags, *client.connect().images.get(brought).tags}:
        client.connect().images.remove(name)


@pytest.mark.engine
@pytest.mark.builds
def test_an_image_goes_through_a_registry_by_digest(run, made):
    contents, own = images.contents_digest(made.id), f"{client.repository(run)}:{CELL.slug}"
    with local_registry.serve() as registry:
        reference = worker.push(made.id, repository := f"{registry.address}/team/lab")
        assert reference.startswith(f"{repository}@sha256:") and images.inspect(made.id).names == tuple(made.tags)
        client.connect().images.remove(made.tags[0])
        assert not worker.find_image(made.id)
        pulled = worker.pull(run, CELL.slug, reference)
    assert images.contents_digest(pulled) == contents and images.inspect(pulled).names == (own,)
    with registry_faults.serve(lambda path: None) as dropping:  # it closes each connection
        for address in (dropping, "127.0.0.1:1"):
            with pytest.raises(LabError, match=rf"^the registry at {address} did not take an image: [^\n]+$"):
                worker.push(pulled, f"{address}/team/lab")
            with pytest.raises(LabError, match=rf"^[^\n]*{address}[^\n]+$"):
                worker.pull(run, CELL.slug, f"{address}/team/lab@{reference.partition('@')[2]}")
    assert images.inspect(pulled).names == (own,)
    client.connect().images.remove(own)


@pytest.mark.engine
@pytest.mark.engines
def test_two_engines_share_a_grid_and_a_study_and_one_that_is_killed_leaves_the_rest(lab, run, tmp_path):
    """A server that compiles in seconds, on the machine's engine and on one in a namespace, killed in the middle."""
    engines.check()
    options = ["--app", str(SERVER), "--run", run, "--bases", "scratch", "--profiles", "baseline"]
    study = ["measure", *options, "--study", "throughput", "--workers", "1", "--seconds", "2", "--warmup", "1"]
    with (
        engines.dockerd("sid", containerd_store=True) as other,
        dask.scheduler(tmp_path / "log") as address,
        dask.worker(address, "alpha", tmp_path / "log"),
        dask.worker(address, "beta", tmp_path / "log", **other.environment()),
    ):
        to = ["--scheduler", address]
        dask.wait_for_workers(tmp_path / "log", 2)
        grid = lab("run", *options, *to)
        assert grid.returncode == 0, grid.stdout + grid.stderr
        measured = lab(*study, "--blocks", "2", *to)
        assert measured.returncode == 0, measured.stdout + measured.stderr
        assert {name: _blocks(f"{run}@{name}") for name in ("alpha", "beta")} == {"alpha": 2, "beta": 2}
        assert "could not be brought" not in measured.stdout
        for name, at in (("alpha", client.connect()), ("beta", other.client())):  # each built one, and got one
            brought = at.images.list(name=client.repository(f"{run}-{name}"))
            assert len(brought) == 1, measured.stdout
        contents = [_contents(f"{run}@{name}") for name in ("alpha", "beta")]
        assert contents[0] == contents[1] and contents[0]
        first = other.inside[1].removeprefix("--net=/proc/").partition("/")[0]
        threading.Timer(60, os.kill, (int(first), signal.SIGKILL)).start()
        broken = lab(*study, "--blocks", "12", *to)
    assert broken.returncode == 1 and "failed: beta: " in broken.stderr and "resumes the run" in broken.stderr
    assert _blocks(f"{run}@alpha") == 12 and 2 <= _blocks(f"{run}@beta") < 12
    forget_images(f"{run}-alpha")


def _contents(name: str) -> dict[str, dict[str, str]]:
    return {study: plan.contents for study, plan in runs.load(name).environment.studies.items()}


def _blocks(name: str) -> int:
    """How many whole blocks a run has, in which no trial is double."""
    rows = runs.load(name).rows
    trials = rows[rows["metric"] == metrics.TRIAL]
    assert not trials.duplicated(["study", "cell", "block"]).any()
    return int((trials.groupby("block")["cell"].nunique() == trials["cell"].nunique()).sum())
