"""The wheel, installed into an environment of its own outside of the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import uuid
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.lab import NO_ENGINE, as_root

from rustimg_lab.host import process
from rustimg_lab.paths import ROOT, RUNS

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LARGEST_WHEEL_BYTES = 5_000_000  # the recorded runs of November 2026 and all else are 1.7 MB


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built while there is a run of the user's."""
    run = RUNS / f"test-{uuid.uuid4().hex[:8]}"
    run.mkdir(parents=True)
    (run / "rows.jsonl").touch()
    folder = tmp_path_factory.mktemp("wheel")
    try:
        process.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    finally:
        shutil.rmtree(run)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel. What it depends on is the checkout's, by a .pth file: to install it anew takes
    minutes."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(folder, symlinks=True)
    python = str(folder / "bin" / "python")
    process.run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel)])
    next(folder.glob("lib/*/site-packages")).joinpath("dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.fixture
def command(installed: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Calls `rustimg-lab` in an empty folder, or in another. Jupyter's own files are the checkout's too."""
    environment = os.environ | NO_ENGINE | {"JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter")}

    def call(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess:
        line = [str(installed / "bin" / "rustimg-lab"), *arguments]
        return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return call


def share(installed: Path) -> Path:
    """What the wheel has beside its modules."""
    return next(installed.glob("lib/*/site-packages/rustimg_lab/_share"))


def test_the_wheel_is_small_and_has_data_notebooks_and_licences_but_no_run_of_the_users(wheel):
    assert wheel.stat().st_size < LARGEST_WHEEL_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "/runs/" in name or "/tests/test_" in name or "__pycache__" in name]
    tracked = process.run(["git", "ls-files", "notebooks", "data", "examples"], cwd=ROOT).splitlines()
    assert {f"rustimg_lab/_share/{name}" for name in tracked} <= set(names)
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= {Path(name).name for name in names}


def test_the_wheel_asks_for_what_requirements_txt_pins():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    for text in [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]:
        asked = Requirement(text)
        assert asked.specifier.contains(pins[asked.name]), text


def test_all_that_describes_the_package_says_the_same_version_and_licence():
    project, text = PROJECT["project"], (ROOT / "CITATION.cff").read_text()
    citation = yaml.safe_load(text)
    codemeta, zenodo = (json.loads((ROOT / name).read_text()) for name in ("codemeta.json", ".zenodo.json"))
    assert {project["version"]} == {citation["version"], codemeta["version"], zenodo["version"]}
    assert f"## {project['version']} " in (ROOT / "CHANGELOG.md").read_text()
    licences = project["license"].split(" OR ")
    assert citation["license"] == [url.rpartition("/")[2] for url in codemeta["license"]] == licences
    assert project["license"] in zenodo["notes"]


def test_the_recorded_answer_is_shown_without_an_engine(command, installed):
    done = command("demo")
    assert done.returncode == 0, done.stderr
    path = Path(re.search(r"The Dockerfile: (\S+)", done.stdout)[1])
    assert path.is_relative_to(share(installed)) and "FROM" in path.read_text()
    assert f"Ship {path.name.removeprefix('Dockerfile.')}" in done.stdout
    assert "rustimg-lab init" in done.stdout and "./lab" not in done.stdout


def test_a_report_goes_to_the_current_folder_and_nothing_to_the_installed_one(command, installed, tmp_path):
    def files() -> set[Path]:
        return {path for path in share(installed).parent.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    done = command("report", "recorded/article")
    assert done.returncode == 0, done.stderr
    assert "scratch" in (tmp_path / "reports" / "recorded" / "article" / "report.html").read_text()
    assert files() == before and [path.name for path in tmp_path.iterdir()] == ["reports"]


def test_notebooks_are_copied_to_where_the_user_wants_them_and_never_over_others(command, installed, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "01_sizes.ipynb").write_text("mine")
    done = command("notebook", "--copy-to", "mine", "--version")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in mine.iterdir()} == {path.name for path in (share(installed) / "notebooks").iterdir()}
    assert (mine / "01_sizes.ipynb").read_text() == "mine"


@as_root
@pytest.mark.parametrize("arguments", [["report", "recorded/article"], ["export", "recorded/article"], ["notebook"]])
def test_where_the_folder_cannot_be_written_to_one_line_says_so(command, tmpfs, arguments):
    folder = tmpfs("read-only", 1)
    process.run(["mount", "-o", "remount,ro", str(folder)])
    done = command(*arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "RUSTIMG_LAB_HOME" in done.stderr and str(folder) in done.stderr


def test_commands_on_the_lab_itself_are_refused_in_one_line(command):
    done = command("test")
    assert done.returncode == 2 and done.stderr.startswith("lab: test and docs work on a checkout")


def test_the_launcher_empties_no_environment_that_another_clone_has_made(tmp_path):
    shutil.copy(ROOT / "lab", tmp_path / "lab")
    shutil.copy(ROOT / "requirements.txt", tmp_path / "requirements.txt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kept").touch()
    (tmp_path / ".venv").symlink_to("other")
    done = subprocess.run([tmp_path / "lab", "doctor"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "is a link to what another clone made" in done.stderr
    assert (tmp_path / "other/kept").exists()


def test_a_folder_in_which_no_environment_can_be_made_is_told_in_one_line(tmp_path):
    """Here root, who may write to every folder, cannot write to the lock either."""
    for name in ("lab", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv.lock").mkdir()
    done = subprocess.run([tmp_path / "lab", "doctor"], capture_output=True, text=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("lab: ") and f"{tmp_path} cannot be written to" in line


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path):
    """As an upgrade of the system leaves it. No Python is found here to make it with, so nothing is installed."""
    for name in ("lab", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "cat", "cmp", "dirname", "flock"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "requirements.txt", tmp_path / ".venv/requirements.txt")
    (tmp_path / ".venv/root").write_text(str(tmp_path))
    (tmp_path / ".venv/bin/python").symlink_to("/nonexistent/python3")
    done = subprocess.run(
        [tmp_path / "lab", "doctor"], capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")}
    )
    assert done.returncode == 2 and done.stderr.startswith("lab: no Python 3.11 or newer found"), done.stderr
