"""A grid of parameters in YAML -> one report page for each combination.

The file is a list. Each entry names a `notebook`, a `run_name`, and parameters of that notebook; where one of them is a
list, every combination is taken (see `notebooks/batch.yaml`).
"""

import itertools
import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from rustimg_lab.errors import LabError, located, unknown
from rustimg_lab.host import process
from rustimg_lab.host.files import readable_errors
from rustimg_lab.paths import NOTEBOOKS
from rustimg_lab.report import notebooks

# By the type of a value, those of the parameters that take it; and what such a parameter takes, in words.
_KINDS = {str: ("str",), bool: ("bool",), int: ("int", "float"), float: ("float",)}
_IN_WORDS = {"str": 'a text (in quotes: "5")', "bool": "true or false", "int": "a whole number", "float": "a number"}
_MEASURES = re.compile(r"\blab\.(build|measure)\(")


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: the loader of YAML itself takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        known: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in known:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
            known.add(str(key.value))
        return super().construct_mapping(node, deep)


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
        entries = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LabError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise LabError(f"{path} is no list of entries with `notebook`, `run_name` and parameters")
    pages = []
    for number, entry in enumerate(entries, 1):
        with located(f"{path}, entry {number}"):
            pages += _pages(entry)
    return pages


def _pages(entry: object) -> list[Page]:
    if not isinstance(entry, dict) or not {"notebook", "run_name"} <= set(entry):
        raise LabError("an entry has `notebook` and `run_name`, and may have the notebook's parameters")
    there = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    if entry["notebook"] not in there:
        raise unknown("notebook", str(entry["notebook"]), there)
    known = notebooks.parameters_of(entry["notebook"])
    values = {}
    for name, value in entry.items():
        if name == "notebook":
            continue
        if name not in known:
            raise unknown("parameter", str(name), known)
        values[name] = value if isinstance(value, list) else [value]
        if not values[name] or not all(isinstance(each, str | int | float) for each in values[name]):
            raise LabError(f"parameter '{name}' is neither a value nor a list of values")
        for each in values[name]:
            if isinstance(each, float) and not math.isfinite(each):
                raise LabError(f"parameter '{name}' is {each}, and a finite number is needed")
            kind = known[name]["inferred_type_name"]
            if kind in _IN_WORDS and kind not in _KINDS[type(each)]:
                raise LabError(f"parameter '{name}' is {json.dumps(each)}, and {_IN_WORDS[kind]} is needed")
    combinations = (dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()))
    return [Page(str(each.pop("run_name")), entry["notebook"], each) for each in combinations]


def make(pages: list[Page], timeout_s: int, jobs: int, on_page: Callable[[int, str, bool], None]) -> list[str]:
    """Makes the pages, `jobs` at once, each in a process that has `timeout_s`; returns a line on each failure.
    `on_page` gets a page's place, what it is doing, and whether that is all. Pages newer than what they are made of
    stay. Raises LabError when a notebook would build or measure beside others. Ctrl-C stops all kernels first."""
    for page in pages:
        if jobs > 1 and _MEASURES.search((NOTEBOOKS / f"{page.notebook}.ipynb").read_text(encoding="utf-8")):
            raise LabError(
                f"{page.notebook} builds or measures, and notebooks beside it would disturb it; leave out --jobs"
            )
    calls = [(page, timeout_s, partial(on_page, place)) for place, page in enumerate(pages)]
    with closing(process.side_by_side(_make, calls, jobs)) as done:
        reasons = dict(done)
    return [f"{page}: {reasons[place]}" for place, page in enumerate(pages) if reasons[place]]


def _make(page: Page, timeout_s: int, on_page: Callable[[str, bool], None]) -> str:
    """Why a page could not be made; "" when it was, or is there."""
    on_page("running", False)
    begun, reason = time.monotonic(), ""
    try:
        unchanged = notebooks.is_rendered(page.run, page.notebook, page.parameters)
        reason = "" if unchanged else _make_apart(page, timeout_s)
        outcome = "unchanged" if unchanged else f"done in {time.monotonic() - begun:.0f} s"
    except LabError as error:
        reason = " ".join(str(error).split())
    on_page(f"FAILED: {reason}" if reason else outcome, True)
    return reason


def _make_apart(page: Page, timeout_s: int) -> str:
    """Why a page could not be made by a process of its own; "" when it was."""
    about, printed = [page.run, page.notebook, json.dumps(page.parameters), str(timeout_s)], []
    code = process.stream([sys.executable, "-m", __name__, *about], printed.append)
    return ("".join(printed).strip().rpartition("\n")[2] or f"its process ended with exit code {code}") if code else ""


def _main(run: str, notebook: str, parameters: str, timeout_s: str) -> None:
    """Makes one page, within so many seconds. Whatever ends it, its kernel is stopped first."""

    def expire(*_: object) -> None:
        raise KeyboardInterrupt(f"not done within {timeout_s} s")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGALRM, expire)
    signal.alarm(int(timeout_s))
    try:
        with readable_errors():
            notebooks.render(run, notebook, json.loads(parameters))
    except LabError as error:
        sys.exit(" ".join(str(error).split()))
    except KeyboardInterrupt as ended:  # no other exception comes through the event loop of papermill
        sys.exit(str(ended) or "interrupted")


if __name__ == "__main__":
    _main(*sys.argv[1:])
