"""The lab on other engines than the machine's: each started from Debian's packages, and reached by its socket alone.

`./lab test --engines` runs all of them and writes docs/engines.md; without it one is run, in a few minutes.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from docker.models.containers import Container
from support import engines
from support.lab import SERVER, WITHOUT_PAGE, forget, passing_tiny

from rustimg_lab.analysis.cells import cell_table
from rustimg_lab.build import mmdebstrap
from rustimg_lab.engine import client, inspection
from rustimg_lab.engine.images import find_image
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine
from rustimg_lab.host import process as host_process
from rustimg_lab.paths import ROOT, RUNS
from rustimg_lab.store import runs

PAGE = ROOT / "docs" / "engines.md"
BEGIN, END = "<!-- written by ./lab test --engines -->", "<!-- end -->"
FEATURES = ("image store", "main job", "sizes", "throughput", "work", "startup", "memory", "latency", "build",
            "deploy", "probes", "kill and resume", "clean", "CPU accounting", "limits")  # fmt: skip
CELLS = ("--profiles", "baseline", "--allocators", "system")
STUDY = ("--app", str(SERVER), "--bases", "scratch", "--profiles", "optimized", "--allocators", "system")
WORK = '[work]\narguments = ["/input/below/one.txt"]\ninput = "data"\nprints = "it was read"\n'
LOAD = ("--seconds", "1", "--warmup", "1", "--connections", "8")
# What a run's rows say of an image, equal on every engine. `pushed_bytes` is each engine's own.
SAME = re.compile(r"binary_sha256|(?!pushed_)\w+_bytes")
# By engine and feature, what it may lack and must say; whatever else is missing is a failure.
LACKS: dict[tuple[str, str], str] = {
    # In a network namespace of its own no engine's port on 127.0.0.1 is ours.
    **{(name, "startup"): "yes, without .*host_first_byte_s" for name in engines.ENGINES if name != "machine"},
    ("28.5 rootless", "throughput"): "yes, without cpu_us_per_request: the engine does not tell the CPU time",
    ("28.5 rootless", "kill and resume"): "yes, without cpu_us_per_request",
    ("28.5 rootless", "CPU accounting"): "CPU time is not measured",
    ("28.5 rootless", "memory"): "yes, without .*smallest_limit_bytes",
    ("28.5 rootless", "build"): "yes, without cold_build_cpu_s: the engine does not tell the CPU time",
    ("28.5 rootless", "deploy"): "does not reach a registry on this machine's 127",
    ("Podman 5", "deploy"): ".",
    ("28.5 rootless", "limits"): "limits of cpus and memory and swap are ignored or refused",
}
SIZES = {"unpacked_bytes", "base_bytes", "app_bytes", "layer_bytes", "compressed_bytes", "compressed_app_bytes",
         "compressed_zstd_bytes", "binary_bytes", "binary_sha256"}  # fmt: skip
# Uses one second of CPU time, tells it, and waits.
BURN = (
    "$| = 1; my $used = 0; while ($used < 1) { $used += (times)[0] + (times)[1] - $used } print qq($used\n); sleep 60"
)
# Of a registry that has an image for two architectures under one name: what each is that the lab takes.
INDEX = """
from support import registry_faults
from rustimg_lab.build import bases
from rustimg_lab.build.origins import Sources
from rustimg_lab.engine import images

held = registry_faults.Images()
held.tag(*(held.image(architecture, architecture.encode()) for architecture in ("amd64", "arm64")))
with registry_faults.serve(held.answer) as address:
    for name in ("alpine", "alpine-arm64"):
        found = bases.resolve(name, Sources(registry=address), str)
        again = bases.resolve(name, Sources(recorded={name: found.as_dict()}), str)
        print(images.inspect(found.image).architecture, again == found)
"""
TIED = ("setpriv", "--pdeathsig=INT", "--")
SEEN: dict[str, "Subject"] = {}  # by engine, once it is done with


@dataclass
class Subject:
    """An engine that runs, and what the tests have seen of it: by feature "yes", or what it lacks; what went wrong."""

    name: str
    engine: engines.Engine
    version: str = ""
    seen: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    facts: dict[tuple, object] = field(default_factory=dict)
    metrics: dict[str, set[str]] = field(default_factory=dict)  # by kind of study

    def run(self, kind: str) -> str:
        """The name of a run on this engine."""
        return f"test-engines-{re.sub('[^a-z0-9]+', '-', self.name.lower())}-{kind}"

    def lab(self, *arguments: str, page: bool = False) -> subprocess.CompletedProcess:
        """Call the lab on this engine; no traceback is ever shown. A study of deploys takes the engine's 127.0.0.1."""
        inside = self.engine.inside if "deploy" in arguments else ()
        command = [*inside, *self.command(*arguments, page=page)]
        done = subprocess.run(command, cwd=ROOT, env=self.environment(), capture_output=True, text=True, timeout=3000)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def command(self, *arguments: str, page: bool = False) -> list[str]:
        return [*TIED, sys.executable, *(("-m", "rustimg_lab") if page else ("-c", WITHOUT_PAGE)), *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **self.engine.environment()}

    def see(self, feature: str, look: Callable[..., str], *arguments: object) -> None:
        """Note what a feature lacks, "" for nothing, and whether that is expected."""
        began = time.monotonic()
        try:
            lack = look(self, *arguments)
        except Exception as error:  # the other features have their turn all the same
            lack = " ".join(f"{type(error).__name__}: {error}".split())[:300]  # one line of the table
        lack = re.sub(r" at unix://\S+", "", lack)  # a place of this machine
        self.seen[feature] = lack if lack.startswith("yes") else f"no: {lack}" if lack else "yes"
        expected = LACKS.get((self.name, feature), "")
        if self.seen[feature].startswith(("no", "yes, without")) != bool(expected) or not re.search(expected, lack):
            self.wrong.append(f"{feature}: {lack or 'works, and was said not to'}")
        print(f"{self.name}: {feature}: {self.seen[feature]} ({time.monotonic() - began:.0f} s)", flush=True)


def missing(done: subprocess.CompletedProcess, run: str, studies: str = "") -> str:
    """What a call could not do, in its own words, "" for nothing: its last line, or what its rows lack."""
    if done.returncode == 2 or not (RUNS / run / "rows.jsonl").exists():
        return done.stderr.strip().splitlines()[-1].removeprefix("lab: ")
    rows = runs.load(run).rows
    # The server of the studies has no handler for SIGTERM: as process 1 it does not end by it, on any engine.
    bad = rows[~rows["ok"] & rows["study"].str.startswith(studies) & ~rows["metric"].str.endswith("_exit_s")]
    told = [f"{metric}: {reason}" for metric, reason in zip(bad["metric"], bad["reason"], strict=True)]
    lack = "; ".join(dict.fromkeys(told))
    if done.returncode:
        return lack or " ".join(done.stderr.split())
    return f"yes, without {lack}" if lack else ""


def facts(run: str) -> dict[tuple[str, str, int, str], object]:
    """What a run says of its images that no engine may change, by cell and metric."""
    rows = runs.load(run).rows
    rows = rows[rows["study"].eq("") & rows["metric"].map(lambda name: bool(SAME.fullmatch(name)))]
    order = rows.groupby(["cell", "metric"]).cumcount()
    return dict(zip(zip(rows["cell"], rows["metric"], order, strict=True), rows["value"], strict=True))


def both_of_an_index(subject: Subject) -> list[list[str]]:
    """The architectures of a base that a registry has for two, pulled for each, and whether a run that goes on has the
    image again; in the engine's network namespace, where its 127.0.0.1 is the registry's."""
    done = subprocess.run(
        [*subject.engine.inside, sys.executable, "-c", INDEX], cwd=ROOT, capture_output=True, text=True,
        env=subject.environment() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny crate, which prints the files that it is called with; and work, on one in its input."""
    folder = passing_tiny(tmp_path_factory.mktemp("crate") / "tiny")
    main, told = folder / "src" / "main.rs", folder / "lab.toml"
    prints = 'std::env::args().skip(1).for_each(|path| print!("{}", std::fs::read_to_string(path).unwrap()));'
    main.write_text(main.read_text().replace("fn main() {", f"fn main() {{ {prints}"))
    (folder / "data" / "below").mkdir(parents=True)
    (folder / "data" / "below" / "one.txt").write_text("it was read\n")
    told.write_text(f"{told.read_text()}{WORK}")
    return folder


@pytest.fixture(scope="module")
def archive(images: dict, tools: str) -> Iterator[Callable[..., Path]]:
    """Saves the lab's images of the machine's engine, and others by name, in one archive on disk."""
    with host_process.work_folder() as folder:

        def save(*others: str) -> Path:
            path = folder / f"{len(others)}.tar"
            if not path.exists():
                own = [*(image.image for image in images.values()), *find_image(tools).tags]
                host_process.run(["docker", "save", "--output", str(path), *own, *others])
            return path

        yield save


@contextmanager
def started(name: str, archive: Callable[[], Path]) -> Iterator[Subject]:
    """An engine that runs, with the images of the machine's."""
    try:
        engines.check()
    except LabError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs engines: {error}")
        pytest.skip(str(error))
    with ExitStack() as stack:
        try:
            found = stack.enter_context(engines.ENGINES[name]())
        except LabError as error:
            if not name.startswith(engines.BUILT):
                raise
            pytest.skip(str(error))
        if name != "machine":
            with archive().open("rb") as file:
                # The SDK's own reading of the answer does not know how Podman lists several images.
                errors = [event for event in found.client().api.load_image(file) if "error" in event]
            assert not errors, errors
        subject = Subject(name, found)
        forget_runs(subject)
        yield subject
        forget_runs(subject)


def forget_runs(subject: Subject) -> None:
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
    assert cell_table(runs.load(run))["ok"].tolist() == [True] * len(bases)
    before = (RUNS / run / "rows.jsonl").read_text()
    again = subject.lab(*call)
    assert again.returncode == 0, again.stderr
    assert (RUNS / run / "rows.jsonl").read_text() == before
    return ""


def both_grids(subject: Subject, crate: Path) -> str:
    """The tiny crate on four bases; and the two scratch cells of myip, which do a client's job: TLS to a server of the
    lab's."""
    run, bases = subject.run("myip"), ("scratch", "alpine", "distroless", "debian")
    return main_job(subject, crate, *bases) or missing(
        subject.lab("run", "--run", run, "--bases", "scratch", "--blocks", "0"), run
    )


def study(subject: Subject, kind: str, *arguments: str) -> str:
    """A short study of one block."""
    run = subject.run("builds" if kind == "build" else "studies")  # of another crate
    done = subject.lab("measure", "--study", kind, "--run", run, "--blocks", "1", *arguments)
    if lack := missing(done, run, studies=kind):
        return lack
    rows = runs.load(run).rows
    own = subject.metrics[kind] = set(rows.loc[rows["study"].str.startswith(kind) & rows["value"].notna(), "metric"])
    assert "trial" in own, done.stdout
    absent = SEEN["machine"].metrics.get(kind, set()) - own if "machine" in SEEN else set()
    if not absent:
        return ""
    notes = re.findall(r"^lab: note: (.*)$", done.stdout, re.MULTILINE)
    return f"yes, without {', '.join(sorted(absent))}: {'; '.join(notes)}"


def work(subject: Subject, crate: Path) -> str:
    """Calls of a program that reads its input."""
    run = subject.run("work")
    call = ("measure", "--app", str(crate), "--run", run, "--bases", "scratch", *CELLS, "--blocks", "1")
    return missing(subject.lab(*call, "--seconds", "1"), run)


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
    label = f"{client.CONTAINER_LABEL}={client.lab_id()}"
    found = subject.engine.client().containers.list(all=True, ignore_removed=True, filters={"label": label})
    return [each.name for each in found] if subject.name != "machine" else []  # others' labs may use that one


def clean(subject: Subject) -> str:
    """Clean-up takes what is the lab's and leaves what is the user's. On the machine's engine it is a lab that owns
    one image and no more."""
    owner = "testtest" if subject.name == "machine" else client.lab_id()
    api = subject.engine.client()
    for name, label in ((f"rustimg-lab-{owner}/own", owner), ("rustimg-lab-test-user/own", "nobody")):
        changes = [f"LABEL {client.IMAGE_LABEL}={label}"]
        api.api.import_image_from_data(bytes(1024), repository=name, tag="1", changes=changes)
    script = f"from rustimg_lab.engine import client\nclient.lab_id = lambda: {owner!r}{WITHOUT_PAGE}"
    done = subprocess.run([sys.executable, "-c", script, "clean"], cwd=ROOT, env=subject.environment(), text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [tag for image in api.images.list(filters={"label": f"{client.IMAGE_LABEL}={owner}"}) for tag in image.tags]
    api.images.remove("rustimg-lab-test-user/own:1")  # it is still there
    return f"left {' '.join(left)}" if left else ""


def cpu_accounting(subject: Subject, image: str) -> str:
    """A second of CPU time is a second in what the engine tells; or it is recorded that it is not."""
    found = recorded(subject)
    created = subject.engine.client().containers.create(image, ["perl", "-e", BURN], mem_limit=64 << 20)
    with removed_after(created) as burner:
        burner.start()
        used = float(next(burner.logs(stream=True)))
        told = burner.stats(stream=False)["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    assert found["counts_cpu"] == (0.9 * used < told < 1.1 * used), f"{told} s told of {used:.2f}"
    return "" if found["counts_cpu"] else "what the engine tells is not the container's: CPU time is not measured"


def limits(subject: Subject) -> str:
    found = recorded(subject)
    ignored = [name for name in ("cpus", "memory", "swap") if not found[f"limits_{name}"]]
    return f"limits of {' and '.join(ignored)} are ignored or refused" if ignored else ""


def recorded(subject: Subject) -> dict[str, object]:
    """What the lab found that the engine can do."""
    return runs.load(subject.run("tiny")).environment.capabilities


@contextmanager
def removed_after(container: Container) -> Iterator[Container]:
    """A container that goes at the end."""
    try:
        yield container
    finally:
        container.remove(force=True)


def image_store(subject: Subject) -> str:
    about = inspection.engine(subject.engine.client().info())
    return f"yes: {'containerd' if about.keeps_in_containerd else 'classic'} ({about.driver})"


def sizes(subject: Subject) -> str:
    """Every size and every binary's hash is that of the machine's engine."""
    subject.facts = {**facts(subject.run("tiny")), **facts(subject.run("myip"))}
    assert {metric for _, metric, _ in subject.facts} >= SIZES and None not in subject.facts.values()
    reference = SEEN["machine"].facts if "machine" in SEEN else subject.facts
    differ = [key for key in {**reference, **subject.facts} if reference.get(key) != subject.facts.get(key)]
    return "; ".join(f"{key[0]} {key[1]}: {reference.get(key)}, here {subject.facts.get(key)}" for key in differ)


@pytest.fixture(scope="module")
def oha(images: dict) -> str:
    """The image of the load generator of the latency study, by a name of it."""
    made = mmdebstrap.make_tools("oha", images["debian"].image, images["rust"].image, print, machine.ca_bundle())
    return made.tags[0]


@pytest.mark.engine
@pytest.mark.engines
@pytest.mark.parametrize("name", engines.ENGINES)
def test_every_engine(name, crate, archive, images, oha):
    with started(name, lambda: archive(oha)) as subject:
        about = subject.engine.client().version()
        subject.version = f"{name} ({about['Version']}, API {about['ApiVersion']})"
        subject.see("image store", image_store)
        subject.see("main job", both_grids, crate)
        subject.see("sizes", sizes)
        subject.see("throughput", study, "throughput", *STUDY, *LOAD)
        subject.see("work", work, crate)
        subject.see("latency", study, "latency", *STUDY, *LOAD)
        subject.see("memory", study, "memory", *STUDY, *LOAD)
        subject.see("startup", study, "startup", *STUDY)
        subject.see("deploy", study, "deploy", *STUDY)
        subject.see("build", study, "build", "--app", str(crate), "--bases", "scratch", "--profiles", "baseline")
        subject.see("probes", probes, crate)
        subject.see("kill and resume", kill_and_resume)
        subject.see("CPU accounting", cpu_accounting, images["debian"].image)
        subject.see("limits", limits)
        subject.see("clean", clean)
        SEEN[name] = subject
    assert not subject.wrong, "\n".join(subject.wrong)


def table() -> list[list[str]]:
    """The table of docs/engines.md: its lines, each a list of cells; without the ruler."""
    lines = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[:1] + lines[2:]]


@pytest.mark.engines
def test_the_table_of_engines_is_written():
    """The columns of the engines that were run, compared with the machine's in the same call; the others stay."""
    if "machine" not in SEEN:
        pytest.skip("the machine's engine, with which the others are compared, was not run")
    lines = table()
    for place, name in enumerate(engines.ENGINES, 1):
        if name in SEEN:
            lines[0][place] = SEEN[name].version
            for line in lines[1:]:
                line[place] = SEEN[name].seen[line[0]].removeprefix("yes: ").replace("|", "\\|")
    ruler = "| --- " * len(lines[0]) + "|"
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    before, _, after = PAGE.read_text().partition(BEGIN)
    PAGE.write_text("\n".join([before + BEGIN, head, ruler, *rest, END + after.partition(END)[2]]))


def test_the_page_of_engines_has_every_engine_and_feature():
    head, *rows = table()
    assert [cell.partition(" (")[0] for cell in head[1:]] == list(engines.ENGINES)
    assert [row[0] for row in rows] == list(FEATURES)
    assert all(
        re.fullmatch("(not run|yes)(, .+)?|no: .+|(classic|containerd) .+", cell) for row in rows for cell in row[1:]
    )


@pytest.mark.engine
@pytest.mark.builds
def test_an_engine_with_containerds_store_is_reached_by_its_socket_alone(crate, archive):
    """28.5 in a network namespace: its 127.0.0.1 is not ours. What it measures is what the machine's engine does."""
    bases = ("scratch", "debian")
    with started("machine", archive) as own, started("28.5 containerd", archive) as subject:
        for each in (own, subject):
            assert main_job(each, crate, *bases) == ""
        assert facts(subject.run("tiny")) == facts(own.run("tiny"))
        assert not recorded(subject)["host_network"] and recorded(subject)["image_store"] == "containerd"
        assert study(subject, "throughput", *STUDY, *LOAD) == ""
        assert work(subject, crate) == ""
        assert both_of_an_index(subject) == [["amd64", "True"], ["arm64", "True"]]
        assert not containers(subject)
        assert clean(subject) == ""
