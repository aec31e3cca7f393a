"""The version before of an app: in a folder, or at a revision of its git repository."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rustimg_lab.build import lab_toml
from rustimg_lab.errors import LabError
from rustimg_lab.host import process
from rustimg_lab.host.files import resolve_path
from rustimg_lab.model.app import App


@contextmanager
def app_before(app: App, version: str) -> Iterator[App]:
    """Yield an app as it is in the folder `version`, or at that revision of its repository. The revision is checked out
    below `.lab` while the block lasts; if it has no `lab.toml`, it gets the current one. The app has the current date
    (SOURCE_DATE_EPOCH), so that a date in the program is no difference. Raises LabError when there is no such version,
    or it cannot be built alone."""
    if Path(version).is_dir():
        yield replace(lab_toml.load(resolve_path(version)), date=app.date)
        return
    if app.git:
        raise LabError(f"--before {version}: {lab_toml.FILE} has git = true: name a clone's folder instead")
    with process.work_folder() as work:
        folder = _check_out(app.directory / app.subdirectory, version, work)
        yield replace(lab_toml.load(folder), date=app.date)


def _check_out(folder: Path, revision: str, work: Path) -> Path:
    """Write a revision's files below `work` through an index of its own, and return where the app's folder is there.
    In contrast to `git archive` this leaves out nothing that .gitattributes says (git-scm.com/docs/gitattributes)."""

    def git(*words: str) -> str:
        return process.run(["git", *words], cwd=folder, env={"GIT_INDEX_FILE": str(work / "index")}).strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
    except LabError as error:
        raise LabError(f"--before {revision} is no folder, and {folder} no git repository: {error}") from None
    try:
        commit = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except LabError:
        raise LabError(f"--before {revision} is neither a folder nor a revision of {top}; see `git log`") from None
    git("read-tree", commit)
    git("-C", str(top), "checkout-index", "--all", f"--prefix={work / 'before'}/")
    app_folder = work / "before" / folder.resolve().relative_to(top.resolve())
    if not (app_folder / "Cargo.toml").is_file():
        raise LabError(f"--before {revision}: commit {commit[:12]} has no Cargo.toml in {app_folder.relative_to(work)}")
    if not (app_folder / lab_toml.FILE).is_file():
        shutil.copy2(folder / lab_toml.FILE, app_folder)
    return app_folder
