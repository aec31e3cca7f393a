"""The lab under faults that are made for real: killed at any moment, an engine that fails, stops, or answers late.

`./lab test --faults` makes all of them; otherwise a tenth of the many, by the same seeds.
"""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.engine_proxy import Proxy
from support.lab import as_root, ours, small_builder, wait_for, work_folders
from support.short_study import CELLS

from rustimg_lab.engine import images as engine_images
from rustimg_lab.engine.client import connect
from rustimg_lab.host.process import work_folder
from rustimg_lab.measure import trials
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.plan import Plan, Treatment
from rustimg_lab.model import matrix, metrics, names
from rustimg_lab.model.bases import BUILDER
from rustimg_lab.paths import ROOT
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

pytestmark = [pytest.mark.engine, pytest.mark.faults]

SEED, KILLS = 20261125, 100
NAMES = {*(cell.slug for cell in CELLS), CELLS[0].slug + names.TWIN}
HOW = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def study(folder: Path, image: str, blocks: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tests" / "support" / "short_study.py"), str(folder), image, str(blocks)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, image: str, blocks: int) -> None:
    """The same command once more, to its end; then what must hold of the run and of the machine."""
    _, said = (process := study(folder, image, blocks)).communicate(timeout=600)
    assert process.returncode == 0, said
    whole(folder, blocks)


def whole(folder: Path, blocks: int) -> None:
    lines = (folder / "short" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]  # each is whole
    ends = [(row["block"], row["cell"]) for row in rows if row["metric"] == metrics.TRIAL and row["ok"]]
    assert len(ends) == len(set(ends)) == blocks * len(NAMES) and {cell for _, cell in ends} == NAMES
    assert ours() == []
    assert sorted(path.name for path in (folder / "short").iterdir() if path.is_file()) == [
        ".lock", "environment.json", "rows.jsonl",
    ]  # fmt: skip


def test_a_lab_that_is_ended_at_random_moments_goes_on_and_counts_nothing_twice(images, tmp_path, many):
    """The moments, and the signals, are drawn from a recorded seed; the run is long enough for all of them."""
    drawn, image, blocks = random.Random(SEED), images["alpine"].image, 3 * many(KILLS)
    networks = {each.id for each in connect().networks.list()}
    for number in range(many(KILLS)):
        process, how = study(tmp_path, image, blocks), drawn.choice(HOW)
        time.sleep(drawn.uniform(0.2, 4))
        assert process.poll() is None, f"the study was over before kill {number}"
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode != 0
    finish(tmp_path, image, blocks)
    assert {each.id for each in connect().networks.list()} == networks


def test_two_labs_at_once_do_not_take_each_others_containers(images, tmp_path):
    """Two runs: each ends its own. One run: the second is refused."""
    image = images["alpine"].image
    one, other = study(tmp_path / "one", image, 8), study(tmp_path / "other", image, 8)
    assert wait_for(lambda: (tmp_path / "one" / "short" / "rows.jsonl").exists(), 60)
    again = study(tmp_path / "one", image, 8)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 1 and "is being written by another lab" in said
    for process in (one, other):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    for name in ("one", "other"):
        whole(tmp_path / name, 8)


@pytest.fixture
def proxy(tmp_path, monkeypatch) -> Iterator[Proxy]:
    found = Proxy(tmp_path / "proxy.sock")
    monkeypatch.setenv("DOCKER_HOST", found.address)
    yield found
    found.close()


@pytest.mark.parametrize(("fault", "said"), [
    ("500", "lab: the Docker engine refused: the database of images is locked"),
    ("drop", "lab: the Docker engine at unix://"),
])  # fmt: skip
def test_an_engine_that_fails_in_the_middle_of_a_study_is_one_line_and_the_study_goes_on(
    images, proxy, tmp_path, fault, said
):
    proxy.fault, proxy.after = fault, 40
    _, told = (process := study(tmp_path, images["alpine"].image, 6)).communicate(timeout=120)
    assert process.returncode == 1 and said in told and "Traceback" not in told, told
    assert told.count("\n") == 1
    proxy.fault = ""
    finish(tmp_path, images["alpine"].image, 6)


def test_an_engine_that_answers_slowly_is_waited_for(images, proxy, tmp_path):
    proxy.fault = "slow"
    finish(tmp_path, images["alpine"].image, 1)


@pytest.mark.parametrize("fault", ["500", "drop"])
@pytest.mark.parametrize("command", [["clean"], ["run", "--run", "test-faults"], ["probe", "--run", "test-faults"]])
def test_a_command_with_an_engine_that_does_not_work_is_one_line(lab, proxy, command, fault):
    proxy.fault = fault
    done = lab(*command, DOCKER_HOST=proxy.address)
    assert done.returncode == 2 and "no Docker engine answers" in done.stderr
    assert done.stderr.count("\n") == 1


@as_root
def test_an_engine_that_ends_in_the_middle_of_a_study_and_of_a_build(small_engine, images, tiny, builds, tmp_path):
    """An engine of the test's own: killed, started again on what it had, and the same call goes on."""
    cargo = "#!/bin/sh\n[ -e /target/slow ] || { busybox touch /target/slow; busybox sleep 60; }\nexec busybox false\n"
    rootfs = small_builder(images["alpine"].image, cargo, tmp_path / "rootfs.tar")
    small_engine.start(300)
    image = engine_images.import_rootfs(rootfs, 0, "rust", "test", ["ENV PATH=/usr/bin"])

    process = study(tmp_path, image.id, 4)
    assert wait_for(lambda: (tmp_path / "short" / "rows.jsonl").exists(), 60)
    small_engine.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "stopped answering" in said and said.count("\n") == 1, said
    small_engine.again()
    finish(tmp_path, image.id, 4)

    only_builder = {BUILDER: replace(images["rust"], image=image.tags[0])}
    cells = matrix.grid(["scratch"], ["baseline"], ["system"])
    killer = threading.Timer(6, small_engine.kill)
    killer.start()
    (built,) = builds(cells, tiny, images=only_builder)
    killer.join()
    assert not built.image and built.reason, "the build that was under way when the engine ended"
    small_engine.again()
    (built,) = builds(cells, tiny, images=only_builder)
    assert "exit code: 1" in built.reason, "the one behind it is made anew, by this engine"


@as_root
def test_a_lab_that_is_killed_while_a_base_is_made_leaves_no_process_no_mount_and_no_file(tmp_path):
    code = ("from rustimg_lab.build import mmdebstrap as m; from rustimg_lab.engine import images; "
            "images.find_image = lambda name: None; m.make('debian', 'trixie', print, None)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    own = f"work-{process.pid}-"  # another test may have mmdebstrap mount something at any time
    assert wait_for(lambda: [line for line in _mounts(own) if own in line and "/mmdebstrap." in line], 60)
    process.kill()
    process.wait()
    time.sleep(1)
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if own in line]
    assert subprocess.run(["pgrep", "--full", own], stdout=subprocess.DEVNULL).returncode == 1
    with work_folder():
        assert not work_folders(process.pid)


def _mounts(named: str) -> list[str]:
    """What is mounted in the namespaces of the processes whose command line has this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if named in (path / "cmdline").read_text():
                found += (path / "mounts").read_text().splitlines()
    return found


def test_a_clock_that_jumps_back_in_the_middle_of_a_study_makes_no_time_negative(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    clock = iter(range(10_000, 0, -60))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    treatments = [Treatment(cell, "sha256:0", cell.slug) for cell in CELLS]
    monkeypatch.setattr(engine_images, "contents_digest", lambda image: image)
    with runs.open_run("short", {}) as run:
        plan = StudyContext([treatments], Plan(3), run).study("short", "startup", "x", {"warning": ""})
        trials.run_in_turns([(plan, lambda treatment: [Observation("x", 1)])], run)
    took = runs.load("short").rows.query("metric == 'trial_s'")
    assert len(took) == 9 and (took["value"] >= 0).all() and (took["value"] < 60).all()
