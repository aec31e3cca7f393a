"""A grid of parameters, run through the command line; with notebooks that hang, die, fail and are interrupted."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from support.lab import NO_ENGINE, wait_for

from rustimg_lab.errors import LabError
from rustimg_lab.paths import NOTEBOOKS, REPORTS, ROOT
from rustimg_lab.report import batch
from rustimg_lab.report import notebooks as report_notebooks
from rustimg_lab.report.format import SENTINEL

pytestmark = pytest.mark.slow


def test_a_process_that_makes_a_page_makes_no_grammar_of_what_no_notebook_has():
    told = "import sys, rustimg_lab.report.batch; sys.exit('lark' in sys.modules)"
    subprocess.run([sys.executable, "-c", told], check=True)


def test_the_example_makes_every_combination_and_nothing_twice(lab):
    shutil.rmtree(REPORTS / "recorded" / "allocators", ignore_errors=True)
    done = lab("batch", "notebooks/batch.yaml", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    pages = sorted((REPORTS / "recorded" / "allocators").glob("*.html"))
    assert len(pages) == 2 * 2 and done.stdout.count(": running\n") == 1 + 2 + 4
    assert len(re.findall("done in|unchanged", done.stdout)) == 1 + 2 + 4 and done.stdout.count("done in") >= 4
    made = {page: page.stat().st_mtime_ns for page in pages}
    again = lab("batch", "notebooks/batch.yaml", **NO_ENGINE)
    assert again.returncode == 0 and again.stdout.count(": unchanged\n") == 1 + 2 + 4
    assert {page: page.stat().st_mtime_ns for page in pages} == made


def test_pages_that_are_made_at_once_take_each_others_kernels_for_none_of_theirs():
    started = []
    for run in ("recorded/fd", "recorded/bat", "recorded/miniserve", "recorded/ladder"):
        (REPORTS / run / "01_sizes.ipynb").unlink(missing_ok=True)  # or it would not be executed again
        command = [sys.executable, "-m", "rustimg_lab.report.batch", run, "01_sizes", "{}", "300"]
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
    _use(copy, tmp_path, monkeypatch)
    return copy


def _use(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a folder that of the notebooks, also for processes that begin below this one."""
    for module in (batch, report_notebooks):
        monkeypatch.setattr(module, "NOTEBOOKS", folder)
    package = tmp_path / "site"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        f"from rustimg_lab import paths\nfrom pathlib import Path\npaths.NOTEBOOKS = Path({str(folder)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{package}:{ROOT}")


def _grid(path: Path, *names: str) -> Path:
    path.write_text("".join(f"- {{notebook: {name}, run_name: recorded}}\n" for name in names))
    return path


def test_a_folder_for_temporary_files_may_have_a_long_name(tmp_path, monkeypatch):
    """As on clusters and in CI jobs: a socket's path may not."""
    (long := tmp_path / ("x" * 100)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(report_notebooks, "REPORTS", tmp_path)
    assert report_notebooks.execute("recorded/startup", "02_startup").cells
    assert list(long.iterdir()) == []


def test_a_style_of_the_users_own_does_not_reach_a_report(tmp_path, monkeypatch):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path))
    monkeypatch.setattr(report_notebooks, "REPORTS", tmp_path)
    document = report_notebooks.execute("recorded/startup", "02_startup")
    assert any("image/png" in each.get("data", {}) for cell in document.cells for each in cell.get("outputs", []))


@pytest.mark.usefixtures("notebooks")
def test_a_notebook_that_hangs_or_dies_is_named_and_the_rest_are_done(tmp_path):
    names = ["hangs", "dies", "stops", "01_sizes"]
    heard, pages = [], batch.read(_grid(tmp_path / "grid.yaml", *names))
    (REPORTS / "recorded" / "01_sizes.html").unlink(missing_ok=True)
    failed = batch.make(pages, 60, 1, lambda place, outcome, over: heard.append((names[place], outcome, over)))
    assert heard[::2] == [(name, "running", False) for name in names]
    assert [(name, over) for name, _, over in heard[1::2]] == [(name, True) for name in names]
    outcomes = {name: outcome for name, outcome, _ in heard[1::2]}
    assert outcomes["hangs"] == "FAILED: not done within 60 s"
    assert outcomes["dies"].startswith("FAILED: ") and "kernel" in outcomes["dies"].lower()
    assert "did not run to its end" in outcomes["stops"]
    assert outcomes["01_sizes"].startswith("done in")
    for name in ("dies", "stops"):
        (REPORTS / "recorded" / f"{name}.failed.ipynb").unlink()
    assert not [path for name in names[:3] for path in (REPORTS / "recorded").glob(f"*{name}*")]
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
        ("- {notebook: 05_choose, run_name: x, max_transfer_mb: .nan}", "'max_transfer_mb' is nan, and a finite"),
        ("- {notebook: 05_choose, run_name: x, max_transfer_mb: [1, .inf]}", "'max_transfer_mb' is inf, and a finite"),
        ("- {notebook: 05_choose, run_name: x, stable: true, stable: false}", "'stable' is there twice"),
        ("- {notebook: 05_choose, run_name: 2024-02-30}", "cannot be read as YAML: day is out of range"),
        (f"- {{notebook: 05_choose, run_name: {5000 * '9'}}}", "cannot be read as YAML: Exceeds the limit"),
        (3000 * "[", "cannot be read as YAML: maximum recursion depth"),
        ("- {notebook: 11_machines, run_name: x, others: 5}", "parameter 'others' is 5, and a text (in quotes"),
        ("- {notebook: 05_choose, run_name: x, stable: [true, 1]}", "'stable' is 1, and true or false is needed"),
        ("- {notebook: 03_throughput, run_name: x, workers: 1.5}", "'workers' is 1.5, and a whole number is needed"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_entry(tmp_path, text, said):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(LabError) as told:
        batch.read(file)
    assert said in str(told.value) and str(file) in str(told.value)


OTHER_KERNEL = {"kernelspec": {"name": "my-venv", "language": "python", "display_name": "my venv"}}


def test_a_notebook_is_executed_by_the_labs_python_whatever_kernel_it_was_saved_with(tmp_path, monkeypatch):
    monkeypatch.setattr(report_notebooks, "NOTEBOOKS", tmp_path)
    cells = [nbformat.v4.new_code_cell('run_name = ""', metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(f"import rustimg_lab; print({SENTINEL!r})"))
    (tmp_path / "own.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=OTHER_KERNEL)))
    try:
        document = report_notebooks.execute("recorded", "own")
    finally:
        (REPORTS / "recorded" / "own.ipynb").unlink(missing_ok=True)
    assert document.cells[-1]["outputs"][0]["text"] == f"{SENTINEL}\n"


NO_KERNEL = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]})])


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", nbformat.writes(NO_KERNEL)])
def test_a_notebook_that_cannot_be_read_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setattr(report_notebooks, "NOTEBOOKS", tmp_path)
    (tmp_path / "own.ipynb").write_text(text)
    with pytest.raises(LabError, match="notebook own cannot be read: "):
        report_notebooks.parameters_of("own")


def test_an_unknown_run_fails_its_page_alone(tmp_path, lab):
    file = tmp_path / "grid.yaml"
    file.write_text("- {notebook: 01_sizes, run_name: [recoded, recorded]}\n")
    done = lab("batch", str(file), **NO_ENGINE)
    assert done.returncode == 1
    assert "failed: 01_sizes recoded: unknown run 'recoded': did you mean 'recorded'" in done.stderr
    assert re.search("^  01_sizes recorded: (done in|unchanged)", done.stdout, re.MULTILINE)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Makes tiny notebooks of their lines by name. Each adds a line with its process to `NAME.log` in `tmp_path`."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    _use(folder, tmp_path, monkeypatch)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    made = []

    def make(**lines: str) -> Path:
        for name, line in lines.items():
            parameters = nbformat.v4.new_code_cell('run_name: str = ""', metadata={"tags": ["parameters"]})
            head = f"import os, time\nfrom pathlib import Path\nfolder = Path({str(tmp_path)!r})\n"
            log = f"with (folder / '{name}.log').open('a') as log:\n    print(os.getpid(), file=log, flush=True)\n"
            cells = [
                nbformat.v4.new_markdown_cell(f"# {name}"),
                parameters,
                nbformat.v4.new_code_cell(head + log + line),
            ]
            document = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(f"print({SENTINEL!r})")])
            document.metadata |= {
                "title": name,
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            }
            nbformat.write(document, folder / f"{name}.ipynb")
            made.append(name)
        return _grid(tmp_path / "grid.yaml", *lines)

    yield make
    for name in made:
        for path in (REPORTS / "recorded").glob(f"{name}.*"):
            path.unlink()


def _left_behind(tmp_path: Path) -> list[Path]:
    """Sockets of kernels, and files that are half written."""
    return [*(tmp_path / "tmp").iterdir(), *(REPORTS / "recorded").glob(".*")]


def _executed(tmp_path: Path, name: str) -> list[int]:
    """The processes of the kernels that have executed a notebook."""
    log = tmp_path / f"{name}.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


MEET = """(folder / "{own}.here").touch()
while not (folder / "{other}.here").exists():
    time.sleep(0.05)
"""


def test_notebooks_are_executed_side_by_side_and_one_that_fails_stops_no_other(tiny, tmp_path, lab):
    file = tiny(
        one=MEET.format(own="one", other="two"), fails="raise ValueError('no\\nluck')",
        two=MEET.format(own="two", other="one"), last="1",
    )  # fmt: skip
    done = lab("batch", "--jobs", "2", "--timeout", "120", str(file))
    assert done.returncode == 1
    failed = REPORTS / "recorded" / "fails.failed.ipynb"
    said = f"{failed}: cell 3 failed with ValueError: no luck"
    assert done.stderr == f"lab: failed: fails recorded: {said}\n"
    lines = done.stdout.splitlines()
    assert lines.count(f"  fails recorded: FAILED: {said}") == 1
    for name in ("one", "two", "last"):
        assert lines.count(f"  {name} recorded: running") == 1
        assert len([line for line in lines if line.startswith(f"  {name} recorded: done in ")]) == 1
        assert (REPORTS / "recorded" / f"{name}.html").exists()
    assert len(lines) == 2 * 4 and _left_behind(tmp_path) == []
    again = lab("batch", "--jobs", "2", str(file))
    assert again.stdout.count("recorded: unchanged\n") == 3 and again.stdout.count("FAILED") == 1
    assert [len(_executed(tmp_path, name)) for name in ("one", "two", "last", "fails")] == [1, 1, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_batch_that_is_ended_leaves_no_process_and_resumes(tiny, tmp_path, lab, number):
    wait = 'while not (folder / "go").exists():\n    time.sleep(0.05)'
    file = tiny(first="1", waits=wait, stays=wait, pending="1")
    command = [sys.executable, "-m", "rustimg_lab", "batch", "--jobs", "2", str(file)]
    begun = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: _executed(tmp_path, "waits") and _executed(tmp_path, "stays"), 120)
        below = _descendants(begun.pid)
        assert len(below) >= 4  # two pages, two kernels
        begun.send_signal(number)
        said = begun.communicate(timeout=60)[1]
    finally:
        begun.kill()
    assert wait_for(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()], 20)
    assert (REPORTS / "recorded" / "first.html").exists()
    assert [path for name in ("waits", "stays") for path in (REPORTS / "recorded").glob(f"*{name}*")] == []
    assert _left_behind(tmp_path) == [] and _executed(tmp_path, "pending") == []
    if number != signal.SIGKILL:
        assert begun.returncode == 130 and said == "lab: interrupted; run the same command to resume\n"
    (tmp_path / "go").touch()
    done = lab("batch", "--jobs", "2", str(file))
    assert done.returncode == 0, done.stderr
    counts = {name: len(_executed(tmp_path, name)) for name in ("first", "waits", "stays", "pending")}
    assert counts == {"first": 1, "waits": 2, "stays": 2, "pending": 1}


def _descendants(pid: int) -> list[int]:
    """The processes below a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [
        each for task in tasks for child in map(int, task.read_text().split()) for each in (child, *_descendants(child))
    ]


def test_two_batches_at_once_on_one_folder_leave_whole_pages(tiny, tmp_path):
    names = ["one", "two", "three"]
    file = tiny(**dict.fromkeys(names, "print('x' * 100_000)\ntime.sleep(1)"))
    command = [sys.executable, "-m", "rustimg_lab", "batch", "--jobs", "2", str(file)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for each in both:
        said = each.communicate(timeout=300)
        assert each.returncode == 0, said
    assert any(len(_executed(tmp_path, name)) == 2 for name in names)  # or they did not meet
    for name in names:
        nbformat.validate(nbformat.read(REPORTS / "recorded" / f"{name}.ipynb", as_version=4))
        assert (REPORTS / "recorded" / f"{name}.html").read_text().endswith("</html>")
    assert _left_behind(tmp_path) == []


def test_on_a_terminal_there_is_a_live_table(tiny):
    file = tiny(one="1", two="raise ValueError('no luck')")
    reading, writing = pty.openpty()
    command = [sys.executable, "-m", "rustimg_lab", "batch", str(file)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    begun = subprocess.Popen(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    shown = b""
    with suppress(OSError):  # EIO: there is nobody left who writes to it
        while some := os.read(reading, 4096):
            shown += some
    os.close(reading)
    assert begun.wait(60) == 1 and b"no luck" in begun.stderr.read()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"one recorded +\d:\d\d:\d\d running .*\n.*two recorded +-:--:-- waiting ", text)
    assert re.search(r"pages +\S+ all .*\n.*one recorded +\S+ done in \d+ s.*\n.*two recorded +\S+ FAILED: ", text)


def test_a_notebook_that_measures_is_not_executed_beside_others(tiny):
    pages = batch.read(tiny(one="1", measures="if False:\n    lab.measure([], 'x')"))
    with pytest.raises(LabError, match="measures builds or measures, and notebooks beside it would disturb it"):
        batch.make(pages, 60, 2, lambda *about: pytest.fail("something was begun"))
