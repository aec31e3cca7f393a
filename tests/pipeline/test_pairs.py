"""Two versions of a server, built and measured in the same blocks by `./lab check --before`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.crates import crate
from support.lab import SERVER, forget, forget_images, ours

from rustimg_lab.build import lab_toml
from rustimg_lab.host import process
from rustimg_lab.model import matrix
from rustimg_lab.model.names import BEFORE
from rustimg_lab.paths import RUNS
from rustimg_lab.pipeline import pairs
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
NAME = "test-pairs"
LIMITS = ("--max-regression", "size=5%,cpu=4%")
# Each answer reads a table, which takes far more of a request's time than the limit, so that a machine that is busy
# with other tests finds it too. The program grows by the table as well.
SLOWER = """    loop {
        for byte in std::hint::black_box(&GROWN).iter().step_by(10) {
            std::hint::black_box(byte);
        }
"""
GROWN = "\nstatic GROWN: [u8; 400_000] = [7; 400_000];\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Path:
    """A small server in a repository; the files of now are slower than its commit, and larger."""
    folder = tmp_path_factory.mktemp("pairs") / "service"
    shutil.copytree(SERVER, folder, ignore=shutil.ignore_patterns("target"))
    told = (folder / "lab.toml").read_text()
    (folder / "lab.toml").write_text(told.replace('mimalloc = "mimalloc"', ""))
    named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*named, "commit", "--quiet", "--message", "before"]):
        process.run(["git", *words], cwd=folder)
    yield folder
    forget_images("answers-before")


def test_two_versions_go_on_with_their_run_until_the_lab_toml_is_another(tmp_path):
    app = lab_toml.load(crate(tmp_path))
    cells = [matrix.cell("scratch", "baseline", "system")]
    first = pairs.run_name(app, app, cells)
    assert pairs.run_name(app, app, cells) == first
    (tmp_path / "lab.toml").write_text("# another check\n")
    assert pairs.run_name(app, app, cells) != first


@pytest.fixture
def check(lab, service):
    """Calls the check; its two runs are removed afterwards."""
    used = []

    def call(run: str, *more: str) -> subprocess.CompletedProcess:
        used.extend([run, f"{run}-before"])
        return lab("check", "--app", str(service), "--before", "HEAD", "--run", run, *LIMITS, *more)

    yield call
    for run in used:
        forget(run)


def test_equal_sources_pass_and_a_slower_and_larger_program_fails_with_its_crate(check, service):
    equal = check(f"{NAME}-equal")
    assert equal.returncode == 0, equal.stderr
    assert re.search(
        r"all checks passed\n[^|]*pass: CPU per request: one image.* SHA-256 [0-9a-f]{64}$", equal.stdout, re.M
    )
    assert runs.load(f"{NAME}-equal").environment.studies == {}

    program = service / "src" / "main.rs"
    program.write_text(program.read_text().replace("    loop {\n", SLOWER, 1) + GROWN)
    few = check(f"{NAME}-slower", "--blocks", "2")
    assert few.returncode == 1 and "1 check failed, 1 check cannot tell" in few.stdout, few.stderr  # the size is known
    assert re.search(r"unpacked .*: \+\d+\.\d+%, more than \+5%; crate answers \+40\d,\d{3} bytes, section", few.stdout)
    assert re.search(r"cannot tell: scratch-optimized-system: throughput-own-1w-16c: .*: 2 blocks, too few", few.stderr)

    before = (RUNS / f"{NAME}-slower" / "rows.jsonl").read_text()
    more = check(f"{NAME}-slower", "--blocks", "8")  # the two blocks are there already
    assert (RUNS / f"{NAME}-slower" / "rows.jsonl").read_text().startswith(before)
    told = re.search(r"CPU per request, µs: \+(\S+)%, more than \+4% \(at least (\S+)%, .*, 8 blocks\)", more.stdout)
    assert more.returncode == 1 and told and float(told[2]) > 0, more.stdout + more.stderr
    cells = runs.load(f"{NAME}-slower").rows.query("study == 'throughput-own-1w-16c'")["cell"].unique()
    assert {cell.removeprefix("scratch-optimized-system") for cell in cells} == {"", BEFORE, f"{BEFORE}~twin"}
    assert ours() == []
