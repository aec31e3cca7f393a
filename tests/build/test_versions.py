"""The version before of an app: of a real git repository, and of a folder."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.lab import TINY, work_folders

from rustimg_lab.build import lab_toml, versions
from rustimg_lab.errors import LabError
from rustimg_lab.host import process


def commit(folder: Path, message: str) -> str:
    """Commits all of a folder; the commit's name."""
    named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    process.run(["git", "add", "--all"], cwd=folder)
    process.run(["git", *named, "commit", "--quiet", "--message", message], cwd=folder)
    return process.run(["git", "rev-parse", "HEAD"], cwd=folder).strip()


@pytest.fixture
def crate(tmp_path) -> Path:
    """A crate in a folder of a repository whose first commit has another program, no lab.toml, and a file that
    `git archive` would leave out."""
    folder = tmp_path / "repository" / "service"
    shutil.copytree(TINY, folder, ignore=lambda _, names: {"lab.toml", "target"} & set(names))
    process.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=folder.parent)
    (folder / ".gitattributes").write_text("data.txt export-ignore\n")
    (folder / "data.txt").write_text("as it was\n")
    commit(folder, "first")
    shutil.copy2(TINY / "lab.toml", folder)
    (folder / "data.txt").write_text("as it is\n")
    commit(folder, "second")
    return folder


def test_a_revision_is_checked_out_whole_and_removed_and_the_repository_is_left_alone(crate):
    app = lab_toml.load(crate)
    (crate / "data.txt").write_text("not committed\n")
    status = process.run(["git", "status", "--porcelain"], cwd=crate)
    with versions.app_before(app, "HEAD~1") as before:
        folder = before.directory / before.subdirectory
        assert (folder / "data.txt").read_text() == "as it was\n"
        assert (before.package, before.date) == (app.package, app.date)
        assert (folder / "lab.toml").read_text() == (TINY / "lab.toml").read_text()  # of now: the revision has none
        assert not (before.directory / ".git").exists()
    assert not folder.exists() and work_folders(os.getpid()) == []
    assert process.run(["git", "status", "--porcelain"], cwd=crate) == status
    assert process.run(["git", "worktree", "list"], cwd=crate).count("\n") == 1


def test_a_hook_of_another_repository_and_a_users_own_git_settings_change_nothing(crate, tmp_path, monkeypatch):
    """As where a hook calls the lab, and where signatures are shown with each commit."""
    process.run(["git", "init", "--quiet", str(tmp_path / "another")])
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")])
    settings = {"log.showSignature": "true", "gpg.format": "ssh", "user.signingKey": f"{tmp_path}/key.pub"}
    for name, value in (settings | {"commit.gpgSign": "true"}).items():
        process.run(["git", "config", name, value], cwd=crate)
    (crate / "data.txt").write_text("signed\n")
    commit(crate, "third")
    app = lab_toml.load(crate)
    assert str(app.date) in process.run(["git", "log", "-1", "--format=%ct"], cwd=crate)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "another"))
    assert lab_toml.load(crate).date == app.date
    with versions.app_before(app, "HEAD~1") as before:
        assert (before.directory / before.subdirectory / "data.txt").read_text() == "as it is\n"


def test_an_interrupt_leaves_no_version_behind(crate):
    with pytest.raises(KeyboardInterrupt), versions.app_before(lab_toml.load(crate), "main"):
        raise KeyboardInterrupt
    assert work_folders(os.getpid()) == []


def test_a_folder_is_taken_as_it_is(crate, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(crate, other)
    app = replace(lab_toml.load(crate), git=True)  # which only a revision could not be built with
    with versions.app_before(app, str(other)) as before:
        assert (before.directory, before.date) == (other, app.date)
    assert other.is_dir()


def test_what_is_no_version_is_one_line(crate, tmp_path):
    app = lab_toml.load(crate)
    alone = tmp_path / "alone"
    shutil.copytree(TINY, alone)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "backend").mkdir()
    (tmp_path / "nothing" / "backend" / "Cargo.toml").write_text("")
    for of, named, said in (
        (app, "HEAD~9", "HEAD~9 is neither a folder nor a revision of"),
        (app, "--all", "--all is neither a folder nor a revision of"),
        (app, str(tmp_path / "nothing"), "nothing: no Cargo.toml there, but in .*/nothing/backend$"),
        (lab_toml.load(alone), "HEAD", "HEAD is no folder, and .*alone no git repository"),
        (replace(app, git=True), "HEAD", "git = true: name a clone's folder instead"),
    ):
        with pytest.raises(LabError, match=said) as refused, versions.app_before(of, named):
            pass
        assert len(str(refused.value).splitlines()) == 1
    moved = crate.parent / "moved"
    crate.rename(moved)
    with (
        pytest.raises(LabError, match=r"commit [0-9a-f]{12} has no Cargo.toml in before/moved"),
        versions.app_before(lab_toml.load(moved), "HEAD"),
    ):
        pass
