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

from rustimg_lab.errors import LabError, located, unknown_name
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
        keys: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in keys:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Page:
    """One page to be made."""

    run: str
    notebook: str
    parameters: dict[str, str | int | float | bool]

    def __str__(self) -> str:
        settings = (f"{name}={value}" for name, value in self.parameters.items())
        return " ".join([self.notebook, self.run, *settings])


def read(path: Path) -> list[Page]:
    """Return the pages that a YAML file requests, one for each combination of an entry's lists. Raises LabError, with
    the file and the number of the entry, when the file cannot be read or an entry is wrong."""
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
    names = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    if entry["notebook"] not in names:
        raise unknown_name("notebook", str(entry["notebook"]), names)
    parameters = notebooks.parameters_of(entry["notebook"])
    values = {}
    for name, value in entry.items():
        if name == "notebook":
            continue
        if name not in parameters:
            raise unknown_name("parameter", str(name), parameters)
        values[name] = value if isinstance(value, list) else [value]
        if not values[name] or not all(isinstance(item, str | int | float) for item in values[name]):
            raise LabError(f"parameter '{name}' is neither a value nor a list of values")
        for item in values[name]:
            if isinstance(item, float) and not math.isfinite(item):
                raise LabError(f"parameter '{name}' is {item}, and a finite number is needed")
            kind = parameters[name]["inferred_type_name"]
            if kind in _IN_WORDS and kind not in _KINDS[type(item)]:
                raise LabError(f"parameter '{name}' is {json.dumps(item)}, and {_IN_WORDS[kind]} is needed")
    combinations = (dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values()))
    return [Page(str(combination.pop("run_name")), entry["notebook"], combination) for combination in combinations]


def make(pages: list[Page], timeout_s: int, jobs: int, on_page: Callable[[int, str, bool], None]) -> list[str]:
    """Make the pages, `jobs` at a time, each in a process of its own with at most `timeout_s` seconds. Return a message
    for each page that failed. `on_page` gets the place of a page, what the page is doing, and whether the page has
    ended. A page that is newer than its inputs is not made again.

    Raises LabError when `jobs` is above 1 and a notebook builds or measures. On Ctrl-C all kernels are stopped before
    the interrupt is raised.
    """
    for page in pages:
        if jobs > 1 and _MEASURES.search((NOTEBOOKS / f"{page.notebook}.ipynb").read_text(encoding="utf-8")):
            raise LabError(
                f"{page.notebook} builds or measures, and notebooks beside it would disturb it; leave out --jobs"
            )
    calls = [(page, timeout_s, partial(on_page, place)) for place, page in enumerate(pages)]
    with closing(process.side_by_side(_make, calls, jobs)) as results:
        reasons = dict(results)
    return [f"{page}: {reasons[place]}" for place, page in enumerate(pages) if reasons[place]]


def _make(page: Page, timeout_s: int, on_page: Callable[[str, bool], None]) -> str:
    """Return why a page could not be made; "" when the page was made or is unchanged."""
    on_page("running", False)
    start, reason = time.monotonic(), ""
    try:
        is_unchanged = notebooks.is_rendered(page.run, page.notebook, page.parameters)
        reason = "" if is_unchanged else _make_apart(page, timeout_s)
        outcome = "unchanged" if is_unchanged else f"done in {time.monotonic() - start:.0f} s"
    except LabError as error:
        reason = " ".join(str(error).split())
    on_page(f"FAILED: {reason}" if reason else outcome, True)
    return reason


def _make_apart(page: Page, timeout_s: int) -> str:
    """Make a page in a process of its own. Return why that failed; "" when the page was made."""
    arguments, lines = [page.run, page.notebook, json.dumps(page.parameters), str(timeout_s)], []
    code = process.stream([sys.executable, "-m", __name__, *arguments], lines.append)
    return ("".join(lines).strip().rpartition("\n")[2] or f"its process ended with exit code {code}") if code else ""


def _main(run: str, notebook: str, parameters: str, timeout_s: str) -> None:
    """Make one page within `timeout_s` seconds. The kernel is stopped first, whatever ends this process."""

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
