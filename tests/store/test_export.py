"""Runs as RO-Crates, which the community's own validator accepts."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import rocrate
from support.lab import NO_ENGINE, forget

from rustimg_lab.errors import LabError
from rustimg_lab.host import process
from rustimg_lab.paths import RECORDED, REPORTS, ROOT, RUNS, STATE
from rustimg_lab.store import export, runs

SUPPORT = ROOT / "tests" / "support"
CONTEXT = Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld"


@pytest.fixture(scope="session")
def validator() -> Path:
    """The Python of an environment with roc-validator, which is made once."""
    folder, pins = STATE / "roc-validator", SUPPORT / "roc_validator.txt"
    made = folder / pins.name
    if not made.exists() or made.read_bytes() != pins.read_bytes():
        process.run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "pip"), "install", "--disable-pip-version-check", "--require-hashes"]
        process.run([*pip, "-r", str(pins)])
        shutil.copyfile(pins, made)
    return folder / "bin" / "python"


@pytest.fixture
def copied():
    """A copy of a recorded run as one of the user's own: its name."""
    name = "test-export"
    forget(name)
    shutil.copytree(RECORDED / "fd", RUNS / name)
    yield name
    forget(name)


def described(archive: Path) -> dict[str, dict]:
    """The entities of an RO-Crate by their ids."""
    text = zipfile.ZipFile(archive).read("ro-crate-metadata.json")
    return {each["@id"]: each for each in json.loads(text)["@graph"]}


def test_recorded_runs_are_valid_crates(validator, lab):
    archives = []
    for name in ("recorded/article", "recorded/survival"):  # sizes, and probes
        done = lab("export", name, **NO_ENGINE)
        assert done.returncode == 0, done.stderr
        archives.append(str(ROOT / done.stdout.strip().removeprefix("RO-Crate: ")))
    said = process.run([str(validator), str(SUPPORT / "roc_validate.py"), str(CONTEXT), *archives]).splitlines()
    assert said == [f"{archive}: valid" for archive in archives]


@pytest.mark.slow
def test_a_crate_that_names_no_licence_is_not_valid(validator, tmp_path):
    archive = export.export("recorded/article")
    with zipfile.ZipFile(archive) as crate:
        crate.extractall(tmp_path)
    path = tmp_path / "ro-crate-metadata.json"
    told = json.loads(path.read_text())
    next(each for each in told["@graph"] if each["@id"] == "./").pop("license")
    path.write_text(json.dumps(told))
    said = process.run([str(validator), str(SUPPORT / "roc_validate.py"), str(CONTEXT), str(tmp_path)])
    assert said.endswith(": INVALID\n") and "license" in said


def test_a_crate_has_the_runs_files_byte_for_byte_and_says_what_they_are():
    archive = export.export("recorded/allocators")
    folder, entities = RECORDED / "allocators", described(archive)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(archive) as crate:
        assert set(crate.namelist()) == {*files, "ro-crate-metadata.json"}
        assert all(crate.read(name) == path.read_bytes() for name, path in files.items())
    root, run = entities["./"], runs.load("recorded/allocators")
    assert {each["@id"] for each in root["hasPart"]} == set(files)
    assert len(root["variableMeasured"]) == run.rows["metric"].nunique()
    assert f"{len(run.rows):,} observations" in root["description"]
    assert entities[root["license"]["@id"]]["name"] == "MIT OR Apache-2.0"


def test_a_run_of_the_users_own_is_passed_on_under_the_licence_that_the_user_names(copied):
    (RUNS / copied / "logs").mkdir()
    (RUNS / copied / "logs" / "cell.log").write_text("a folder of this machine")
    with pytest.raises(LabError, match=r"names a licence: .* add --license"):
        export.export(copied)
    with pytest.raises(LabError, match="is no SPDX expression"):
        export.export(copied, "<b>mine</b>")
    archive = export.export(copied, "CC-BY-4.0")
    assert described(archive)["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert not [name for name in zipfile.ZipFile(archive).namelist() if "log" in name]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("MIT", True), ("GPL-2.0+", True), ("(MIT OR Apache-2.0) AND BSD-3-Clause", True), ("((MIT) OR ISC)", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True), ("  ", False), ("MIT OR", False), ("OR", False),
        ("MIT ISC", False), ("(MIT", False), ("MIT)", False), ("()", False), ("(MIT)ISC", False), ("MIT(ISC)", False),
    ],
)  # fmt: skip
def test_a_licence_has_the_form_of_an_spdx_expression(copied, text, is_one):
    if is_one:
        assert export.export(copied, text).is_file()
    else:
        with pytest.raises(LabError, match="is no SPDX expression"):
            export.export(copied, text)


def test_a_part_of_a_run_is_not_passed_on_under_the_name_of_the_part():
    with pytest.raises(LabError, match=r"exported with all its architectures: export recorded/arm64$"):
        export.export("recorded/arm64@arm64")


def test_a_broken_run_is_refused_in_one_line_and_an_earlier_crate_stays(copied, lab):
    archive = export.export(copied, "CC0-1.0")
    before = archive.read_bytes()
    with (RUNS / copied / "rows.jsonl").open("a") as rows:
        rows.write("{not a row\n")
    done = lab("export", copied, "--license", "CC0-1.0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "rows.jsonl:" in done.stderr
    (RUNS / copied / "rows.jsonl").write_text("")
    done = lab("export", copied, "--license", "CC0-1.0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no rows" in done.stderr
    (RUNS / copied / "environment.json").unlink()
    done = lab("export", copied, "--license", "CC0-1.0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "environment" in done.stderr
    assert archive.read_bytes() == before and [each.name for each in (REPORTS / copied).iterdir()] == [archive.name]
