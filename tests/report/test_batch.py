"""A grid of parameters, run through the command line; with notebooks that hang, die and fail."""

import shutil
import subprocess
import sys

import nbformat
import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.paths import NOTEBOOKS, REPORTS, ROOT
from rustimg_lab.report import batch
from rustimg_lab.report import notebooks as report_notebooks

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent"}


def test_the_example_makes_every_combination_and_nothing_twice(lab):
    shutil.rmtree(REPORTS / "recorded" / "allocators", ignore_errors=True)
    done = lab("batch", "notebooks/batch.yaml", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    pages = sorted((REPORTS / "recorded" / "allocators").glob("*.html"))
    assert len(pages) == 2 * 2 and done.stdout.count("done in") == 2 * (1 + 2 + 4)
    made = {page: page.stat().st_mtime_ns for page in pages}
    assert lab("batch", "notebooks/batch.yaml", **NO_ENGINE).returncode == 0
    assert {page: page.stat().st_mtime_ns for page in pages} == made


def test_pages_that_are_made_at_once_take_each_others_kernels_for_none_of_theirs():
    started = []
    for run in ("recorded/fd", "recorded/bat", "recorded/miniserve", "recorded/ladder"):
        (REPORTS / run / "01_sizes.ipynb").unlink(missing_ok=True)  # or it would not be executed again
        command = [sys.executable, "-m", "rustimg_lab.report.batch", run, "01_sizes", "{}"]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    for process in started:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A copy of the notebooks' folder, with three more: one hangs, one's kernel dies, one ends too early."""
    copy = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, copy)
    lines = {"hangs": "import time\ntime.sleep(600)", "dies": "import os\nos._exit(9)", "stops": "1 + 1"}
    for name, line in lines.items():
        document = nbformat.read(NOTEBOOKS / "01_sizes.ipynb", as_version=4)
        last = 4 if name == "stops" else len(document.cells)
        document.cells = [*document.cells[:3], nbformat.v4.new_code_cell(line), *document.cells[4:last]]
        nbformat.write(document, copy / f"{name}.ipynb")
    monkeypatch.setattr(batch, "NOTEBOOKS", copy)
    monkeypatch.setattr(report_notebooks, "NOTEBOOKS", copy)
    return copy


def test_a_notebook_that_hangs_or_dies_is_named_and_the_rest_are_done(notebooks, tmp_path, monkeypatch):
    package = tmp_path / "site"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        f"from rustimg_lab import paths\nfrom pathlib import Path\npaths.NOTEBOOKS = Path({str(notebooks)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{package}:{ROOT}")
    file = tmp_path / "grid.yaml"
    names = ["hangs", "dies", "stops", "01_sizes"]
    file.write_text("".join(f"- {{notebook: {name}, run_name: recorded}}\n" for name in names))
    heard = []
    failed = batch.make(batch.read(file), 60, lambda number, page, outcome: heard.append((page.notebook, outcome)))
    assert [name for name, _ in heard] == names
    outcomes = dict(heard)
    assert outcomes["hangs"] == "FAILED: not done within 60 s"
    assert outcomes["dies"].startswith("FAILED: ") and "kernel" in outcomes["dies"].lower()
    assert "did not run to its end" in outcomes["stops"]
    assert outcomes["01_sizes"].startswith("done in")
    for name in ("hangs", "dies", "stops"):
        (REPORTS / "recorded" / f"{name}.ipynb").unlink(missing_ok=True)
    assert len(failed) == 3 and all(f"{name} recorded: " in line for name, line in zip(names, failed, strict=False))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no list of entries"),
        ("notebook: 01_sizes", "is no list of entries"),
        ("- [", "cannot be read as YAML"),
        ("- notebook: 01_sizes", "entry 1: an entry has `notebook` and `run_name`"),
        ("- {notebook: 01_size, run_name: recorded}", "entry 1: unknown notebook '01_size': did you mean '01_sizes'"),
        ("- {notebook: ../x, run_name: recorded}", "unknown notebook '../x'"),
        ("- {notebook: 03_throughput, run_name: x, workloads: a}", "did you mean 'workload'"),
        ("- {notebook: 03_throughput, run_name: x, workload: []}", "parameter 'workload' is neither"),
        ("- {notebook: 03_throughput, run_name: x, workload: {a: 1}}", "parameter 'workload' is neither"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_entry(tmp_path, text, said):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(LabError) as told:
        batch.read(file)
    assert said in str(told.value) and str(file) in str(told.value)


def test_an_unknown_run_fails_its_page_alone(tmp_path, lab):
    file = tmp_path / "grid.yaml"
    file.write_text("- {notebook: 01_sizes, run_name: [recoded, recorded]}\n")
    done = lab("batch", str(file), **NO_ENGINE)
    assert done.returncode == 1
    assert "unknown run 'recoded': did you mean 'recorded'" in done.stderr and "1 of 2" in done.stdout
