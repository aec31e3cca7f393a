"""The page of a run, as long as nothing that it was made of is newer."""

from pathlib import Path

from rustimg_lab.host.files import short_name
from rustimg_lab.paths import NOTEBOOKS, PACKAGE, PROFILES, REPORTS
from rustimg_lab.report import sections
from rustimg_lab.store import runs


def folder(name: str) -> Path:
    """Return the folder of the page of a run, or of several with commas between them."""
    return REPORTS / (name if "," not in name else short_name("+".join(sections.names(name)).replace("/", "-")))


def page(name: str) -> Path | None:
    """Return the page that was made before, where it is newer than the runs, their Dockerfiles, the notebooks, `data/`
    and the package; else None. Raises LabError when a run is unknown."""
    written = folder(name) / "report.html"
    if not written.exists():
        return None
    names = sections.names(name)
    texts = [path for each in names for path in (runs.run_path(each) / "dockerfiles").rglob("*")]
    of_runs = [path for each in names for path in runs.files(each)]
    own = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
    every = [*of_runs, *texts, *own, *NOTEBOOKS.glob("*.ipynb"), *PROFILES.parent.glob("*.*")]
    newest = max(path.stat().st_mtime_ns for path in every)
    return written if written.stat().st_mtime_ns > newest else None
