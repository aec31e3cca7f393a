"""The lab on other engines than the machine's: each started from Debian's packages, and reached by its socket alone.

`./lab test --engines` runs all of them and writes docs/engines.md; without it one is run, in a few minutes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import engines
import pandas as pd
import pytest
from conftest import TINY, forget

from rustimg_lab import engine, stats, store
from rustimg_lab.errors import LabError
from rustimg_lab.paths import ROOT, RUNS

PAGE = ROOT / "docs" / "engines.md"
BEGIN, END = "<!-- written by ./lab test --engines -->", "<!-- end -->"
FEATURES = ("image store", "main job", "sizes", "throughput", "startup", "memory", "latency", "build", "deploy",
            "probes", "kill and resume", "clean", "CPU accounting", "limits")  # fmt: skip
SERVER = TINY.with_name("server")
CHECKED = '\n[check]\nprints = "answer 42"\n'  # what the tiny crate does well
CELLS = ("--profiles", "baseline", "--allocators", "system")
STUDY = ("--app", str(SERVER), "--bases", "scratch", "--profiles", "optimized", "--allocators", "system")
LOAD = ("--seconds", "1", "--warmup", "1", "--connections", "8")
# What a run's rows say of an image, equal on every engine. `pushed_bytes` is each engine's own.
SAME = re.compile(r"binary_sha256|(?!pushed_)\w+_bytes")
# The lab without its page at the end, which takes ten seconds; the main job has it.
WITHOUT_PAGE = """
import sys
from rustimg_lab import __main__ as lab
lab._report = print
sys.exit(lab.main(sys.argv[1:]))
"""
# By engine and feature, what it may lack and must say; whatever else is missing is a failure.
LACKS: dict[tuple[str, str], str] = {}


@dataclass
class Subject:
    """An engine that runs, and what the tests have seen of it: by feature "yes", or what it lacks; what went wrong."""

    name: str
    engine: engines.Engine
    seen: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def run(self, kind: str) -> str:
        """The name of a run on this engine."""
        return f"test-engines-{re.sub('[^a-z0-9]+', '-', self.name.lower())}-{kind}"

    def lab(self, *arguments: str, page: bool = False) -> subprocess.CompletedProcess:
        """Call the lab on this engine; no traceback is ever shown."""
        done = subprocess.run(
            self.command(*arguments, page=page), cwd=ROOT, env=self.environment(), capture_output=True, text=True,
            timeout=1500,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def command(self, *arguments: str, page: bool = False) -> list[str]:
        return [sys.executable, *(("-m", "rustimg_lab") if page else ("-c", WITHOUT_PAGE)), *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **self.engine.environment()}

    def saw(self, feature: str, lack: str) -> None:
        """Note what a feature lacks, "" for nothing, and whether that is expected."""
        self.seen[feature] = f"no: {lack}" if lack else "yes"
        expected = LACKS.get((self.name, feature), "")
        if bool(lack) != bool(expected) or not re.search(expected, lack):
            self.wrong.append(f"{feature}: {lack or 'works, and was said not to'}")


def missing(done: subprocess.CompletedProcess, run: str, studies: str = "") -> str:
    """What a call could not do, in its own words, "" for nothing: its last line, or what its rows lack."""
    if done.returncode == 2 or not (RUNS / run / "rows.jsonl").exists():
        return done.stderr.strip().splitlines()[-1].removeprefix("lab: ")
    rows = store.load(run)
    bad = rows[~rows["ok"] & rows["study"].str.startswith(studies)]
    told = [f"{metric}: {reason}" for metric, reason in zip(bad["metric"], bad["reason"], strict=True)]
    return "; ".join(dict.fromkeys(told)) or (done.stderr.strip() if done.returncode else "")


def facts(run: str) -> dict[tuple[str, str, int, str], object]:
    """What a run says of its images that no engine may change, by cell and metric."""
    rows = store.load(run)
    rows = rows[rows["study"].eq("") & rows["metric"].map(lambda name: bool(SAME.fullmatch(name)))]
    order = rows.groupby(["cell", "metric"]).cumcount()
    return dict(zip(zip(rows["cell"], rows["metric"], order, strict=True), rows["value"], strict=True))


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny crate, with a check that it passes."""
    folder = tmp_path_factory.mktemp("crate") / "tiny"
    shutil.copytree(TINY, folder)
    text = (folder / "lab.toml").read_text()
    (folder / "lab.toml").write_text(text.partition("# It prints")[0] + CHECKED)
    return folder


@pytest.fixture(scope="module")
def archive(images: dict, tools: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves images of the machine's engine, all but what only builds others, in one archive."""
    folder = tmp_path_factory.mktemp("images")

    def save(*also: str) -> Path:
        names = [*(image.image for image in images.values()), *engine.find_image(tools).tags, *also]
        path = folder / f"{len(names)}.tar"
        if not path.exists():
            engine.run(["docker", "save", "--output", str(path), *names])
        return path

    yield save
    shutil.rmtree(folder)


@contextmanager
def started(name: str, archive: Callable[[], Path]) -> Iterator[Subject]:
    """An engine that runs, with the images of the machine's."""
    try:
        engines.check()
    except LabError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs engines: {error}")
        pytest.skip(str(error))
    with engines.ENGINES[name]() as found:
        if name != "machine":
            with archive().open("rb") as file:
                found.client().images.load(file)
        subject = Subject(name, found)
        try:
            yield subject
        finally:
            for run in RUNS.glob(subject.run("*")):
                forget(run.name)


def main_job(subject: Subject, crate: Path, *bases: str) -> str:
    """The grid of the tiny crate, with its report; and again, which builds and measures nothing."""
    run = subject.run("tiny")
    call = ("run", "--app", str(crate), "--run", run, "--bases", ",".join(bases), *CELLS, "--blocks", "0")
    done = subject.lab(*call, page=True)
    if lack := missing(done, run):
        return lack
    assert f"report: reports/{run}/report.html" in done.stdout
    assert stats.cells(store.load(run))["ok"].tolist() == [True] * len(bases)
    before = (RUNS / run / "rows.jsonl").read_text()
    again = subject.lab(*call)
    assert again.returncode == 0, again.stderr
    assert (RUNS / run / "rows.jsonl").read_text() == before
    return ""


def article_cells(subject: Subject) -> str:
    """The two scratch cells of myip, which do what a client does: TLS to a server of ours."""
    run = subject.run("myip")
    return missing(subject.lab("run", "--run", run, "--bases", "scratch", "--blocks", "0"), run)


def study(subject: Subject, kind: str, *arguments: str) -> str:
    """A short study of one block."""
    run = subject.run("studies")
    done = subject.lab("measure", "--study", kind, "--run", run, "--blocks", "1", *arguments)
    lack = missing(done, run, studies=kind)
    rows = store.load(run) if (RUNS / run / "rows.jsonl").exists() else pd.DataFrame({"study": []})
    assert lack or rows["study"].str.startswith(kind).any(), done.stdout
    return lack


def probes(subject: Subject, crate: Path) -> str:
    run = subject.run("probes")
    return missing(subject.lab("probe", "--app", str(crate), "--run", run, "--bases", "scratch", *CELLS), run)


def kill_and_resume(subject: Subject) -> str:
    """A study whose lab is killed in its midst: the same call goes on, and leaves no container."""
    run = subject.run("killed")
    call = ("measure", *STUDY, *LOAD, "--run", run, "--blocks", "2")
    rows = RUNS / run / "rows.jsonl"
    process = subprocess.Popen(subject.command(*call), cwd=ROOT, env=subject.environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and not (rows.exists() and '"trial"' in rows.read_text()):
        time.sleep(0.1)
    process.kill()
    process.wait()
    if not rows.exists():
        return "no study of servers"
    before = rows.read_text()
    done = subject.lab(*call)
    assert rows.read_text().startswith(before[: before.rindex("\n") + 1])
    assert not containers(subject)
    return missing(done, run)


def containers(subject: Subject) -> list[str]:
    label = f"{engine.CONTAINER_LABEL}={engine.lab_id()}"
    found = subject.engine.client().containers.list(all=True, ignore_removed=True, filters={"label": label})
    return [each.name for each in found] if subject.name != "machine" else []  # others' labs may use that one


def clean(subject: Subject) -> str:
    """Clean-up takes what is the lab's and leaves what is the user's. On the machine's engine it is a lab that owns
    one image and no more."""
    owner = "testtest" if subject.name == "machine" else engine.lab_id()
    api = subject.engine.client()
    for name, label in ((f"rustimg-lab-{owner}/own", owner), ("rustimg-lab-test-user/own", "nobody")):
        changes = [f"LABEL {engine.IMAGE_LABEL}={label}"]
        api.api.import_image_from_data(bytes(1024), repository=name, tag="1", changes=changes)
    script = f"from rustimg_lab import engine\nengine.lab_id = lambda: {owner!r}{WITHOUT_PAGE}"
    done = subprocess.run([sys.executable, "-c", script, "clean"], cwd=ROOT, env=subject.environment(), text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [tag for image in api.images.list(filters={"label": f"{engine.IMAGE_LABEL}={owner}"}) for tag in image.tags]
    api.images.remove("rustimg-lab-test-user/own:1")  # it is still there
    return f"left {' '.join(left)}" if left else ""


def capabilities(subject: Subject, image: str) -> dict[str, object]:
    """What the lab finds that the engine can do."""
    code = f"import json\nfrom rustimg_lab import capabilities as c\nprint(json.dumps(c.detect({image!r}).as_dict()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=subject.environment(), text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.engine
def test_an_engine_with_containerds_store_is_reached_by_its_socket_alone(crate, archive):
    """28.5 in a network namespace: its 127.0.0.1 is not ours. What it measures is what the machine's engine does."""
    name, bases = "28.5 containerd", ("scratch", "debian")
    with started("machine", archive) as own, started(name, archive) as subject:
        for each in (own, subject):
            assert main_job(each, crate, *bases) == ""
        assert facts(subject.run("tiny")) == facts(own.run("tiny"))
        assert study(subject, "throughput", *STUDY, *LOAD) == ""
        assert not containers(subject)
        assert clean(subject) == ""
