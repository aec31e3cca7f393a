"""A grid of parameters in YAML -> one report page for each combination.

The file is a list. Each entry names a `notebook`, a `run_name`, and parameters of that notebook; where one of them is a
list, every combination is taken (see `notebooks/batch.yaml`).
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import papermill
import yaml

from rustimg_lab.errors import LabError, unknown
from rustimg_lab.paths import NOTEBOOKS, ROOT
from rustimg_lab.report.notebooks import render


@dataclass(frozen=True)
class Page:
    """One page to be made."""

    run: str
    notebook: str
    parameters: dict[str, str | int | float | bool]

    def __str__(self) -> str:
        told = (f"{name}={value}" for name, value in self.parameters.items())
        return " ".join([self.notebook, self.run, *told])


def read(path: Path) -> list[Page]:
    """The pages that a file asks for. Raises LabError, with the file and the entry, where it is not as above."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise LabError(f"{path} is no list of entries with `notebook`, `run_name` and parameters")
    pages = []
    for number, entry in enumerate(entries, 1):
        try:
            pages += _pages(entry)
        except LabError as error:
            raise LabError(f"{path}, entry {number}: {error}") from None
    return pages


def _pages(entry: object) -> list[Page]:
    if not isinstance(entry, dict) or not {"notebook", "run_name"} <= set(entry):
        raise LabError("an entry has `notebook` and `run_name`, and may have the notebook's parameters")
    notebooks = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    if entry["notebook"] not in notebooks:
        raise unknown("notebook", str(entry["notebook"]), notebooks)
    known = papermill.inspect_notebook(str(NOTEBOOKS / f"{entry['notebook']}.ipynb"))
    values = {}
    for name, value in entry.items():
        if name == "notebook":
            continue
        if name not in known:
            raise unknown("parameter", str(name), known)
        values[name] = value if isinstance(value, list) else [value]
        if not values[name] or not all(isinstance(each, str | int | float) for each in values[name]):
            raise LabError(f"parameter '{name}' is neither a value nor a list of values")
    combinations = (dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()))
    return [Page(str(each.pop("run_name")), entry["notebook"], each) for each in combinations]


def make(pages: list[Page], timeout_s: float, on_page: Callable[[int, Page, str], None]) -> list[str]:
    """Makes the pages, one after another, each in a process of its own that has `timeout_s`; returns a line on each
    that failed. `on_page` hears how each came out. A page that is newer than all that it is made of is not made again.
    """
    failures = []
    for number, page in enumerate(pages, 1):
        begun = time.monotonic()
        reason = _make_apart(page, timeout_s)
        on_page(number, page, f"FAILED: {reason}" if reason else f"done in {time.monotonic() - begun:.0f} s")
        failures += [f"{page}: {reason}"] if reason else []
    return failures


def _make_apart(page: Page, timeout_s: float) -> str:
    """Why a page could not be made; "" when it was. A notebook's kernel ends with the process that began it."""
    command = [sys.executable, "-m", "rustimg_lab.report.batch", page.run, page.notebook, json.dumps(page.parameters)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"not done within {timeout_s:.0f} s"
    said = done.stderr.strip().rpartition("\n")[2]
    return (said or f"its process ended with exit code {done.returncode}") if done.returncode else ""


if __name__ == "__main__":
    try:
        render(*sys.argv[1:3], json.loads(sys.argv[3]))
    except LabError as told:
        sys.exit(" ".join(str(told).split()))
