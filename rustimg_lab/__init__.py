"""A lab that measures what a base image, a build profile and an allocator cost a Rust service.

In a notebook: `import rustimg_lab as lab`, then the verbs of `__all__`. Each verb imports what it needs when it is
called. A notebook shows what it returns, as a table; `.plot()` and `.words` are the plot and the verdicts of it.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rustimg_lab.model.matrix import Cell
    from rustimg_lab.widgets.results import Cells, Result
    from rustimg_lab.widgets.run import Change, Recommendation, Run

__all__ = ["build", "cells", "compare", "doctor", "load", "measure", "profiles", "recommend", "report", "runs"]


class _Face(ModuleType):
    """This module. Loading the wing `build`, `measure` or `report` does not replace the verb of its name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return __all__


def cells(
    bases: str | Iterable[str] = "scratch,alpine,distroless,debian",
    profiles: str | Iterable[str] = "optimized",
    allocators: str | Iterable[str] = "system",
    debian: str = "trixie",
) -> "Cells":
    """Return every combination of base images, build profiles and allocators: a tuple of cells.

    Names are a list, or text with commas; `debian` is the Debian release. Raises LabError, with the nearest name, for
    an unknown name, and when there is no combination."""
    from rustimg_lab.errors import NAMES, check_values
    from rustimg_lab.model.names import split_list
    from rustimg_lab.widgets.results import Cells

    check_values(NAMES, bases=bases, profiles=profiles, allocators=allocators)
    factors = (split_list(names) if isinstance(names, str) else list(names) for names in (bases, profiles, allocators))
    _some(combinations := Cells(*factors, debian))
    return combinations


def profiles() -> "Result":
    """Return a table of every build profile of data/profiles.toml: one row per profile, with its expected gain and
    cost."""
    from rustimg_lab.report import views
    from rustimg_lab.widgets.results import Result

    return Result.of(views.provenance.profiles_known())


def doctor() -> "Result":
    """Return a table of what this machine and its engine have, what they lack, and what to do about it."""
    from rustimg_lab.engine import doctor
    from rustimg_lab.report import views
    from rustimg_lab.widgets.results import Result

    return Result.of(views.provenance.machine(doctor.findings()))


def build(cells: "Iterable[Cell]", run: str, app: str | Path | None = None) -> "Run":
    """Build each cell's image, check that it works, measure its sizes (bytes), and record them in the run `run`.

    `app` is the folder of a crate with a `lab.toml` (default: the article's `myip`). What the run already has is not
    built again. `failures` of the result has one line per failed cell. Raises LabError when the machine or the input
    does not allow a start."""
    from rustimg_lab.build import lab_toml
    from rustimg_lab.errors import FOLDER, TEXT, check_values
    from rustimg_lab.host.files import readable_errors, resolve_path
    from rustimg_lab.paths import MYIP
    from rustimg_lab.pipeline import grid, session

    check_values(TEXT, run=run)
    check_values(FOLDER, app=app or MYIP)
    crate = lab_toml.load(resolve_path(app or MYIP))
    lab_toml.refuse_cells(crate, cells := _some(cells))
    command = f"# in Python, lab.build: {', '.join(map(str, cells))}"
    with readable_errors():
        failures = grid.run_grid(session.Request(crate, run, command=command), cells)
    return replace(load(run), failures=tuple(failures))


def measure(
    cells: "Iterable[Cell]", run: str, study: str = "throughput", blocks: int = 20, app: str | Path | None = None
) -> "Run":
    """Measure the cells in a study of `blocks` randomized blocks, and record the trials in the run `run`.

    `study` is throughput, memory, rest, latency, startup, deploy, build, or layouts. `app` is a crate's folder, as in
    `build`; of myip the server is measured. Raises LabError for a wrong name, and when the machine or the input does
    not allow a start."""
    from rustimg_lab.build import lab_toml
    from rustimg_lab.errors import COUNT, FOLDER, TEXT, check_known, check_values
    from rustimg_lab.host.files import readable_errors, resolve_path
    from rustimg_lab.measure.plan import Plan
    from rustimg_lab.model.studies import KINDS
    from rustimg_lab.paths import MYIP
    from rustimg_lab.pipeline import planner, session, studies

    check_values(TEXT, run=run, study=study)
    check_values(COUNT, blocks=blocks)
    check_values(FOLDER, app=app or MYIP)
    check_known("study", study, KINDS)
    crate, kind = lab_toml.load(resolve_path(app or MYIP)), KINDS[study]
    programs = planner.programs(crate, kind, Path(app) if app else None)
    lab_toml.refuse_cells(crate, cells := _some(cells))
    usual_load = planner.load_of(programs[0])
    loads = [replace(usual_load, workers=workers) for workers in planner.usual_workers(programs[0], kind)]
    plan = planner.planner(study, loads, Plan(blocks), programs[0])
    command = f"# in Python, lab.measure: {', '.join(map(str, cells))}; study {study}, {blocks} blocks"
    request = session.Request(programs[0], run, command=command)
    with readable_errors():
        failures = studies.run_studies(request, cells, programs, plan, kind)
    return replace(load(run), failures=tuple(failures))


def _some(cells: "Iterable[Cell]") -> "list[Cell]":
    """Return cells as a list. Raises LabError when there are none, and for a value that is not a cell."""
    from rustimg_lab.errors import LabError
    from rustimg_lab.model.matrix import Cell

    cell_list = [cells] if not isinstance(cells, Iterable) else list(cells)
    if not cell_list or not all(isinstance(cell, Cell) for cell in cell_list):
        problem = f"{cells!r} are no cells" if cell_list else "there are no cells"
        raise LabError(f"{problem}: `lab.cells('scratch')` makes one, of a base, a profile and an allocator")
    return cell_list


def load(run: str) -> "Run":
    """Read a run by its name: `recorded/NAME`, or one of your own. Raises LabError when there is no such run."""
    from rustimg_lab.errors import TEXT, check_values
    from rustimg_lab.store import runs as store_runs
    from rustimg_lab.widgets.run import Run

    check_values(TEXT, run=run)
    return Run(run, store_runs.load(run))


def runs() -> "Result":
    """Return a table of all runs: one row per run, with its app, its studies and the numbers of its cells and rows."""
    from rustimg_lab.report import views
    from rustimg_lab.widgets.results import Result

    return Result.of(views.provenance.runs())


def compare(before: str, after: str) -> "Change":
    """Return what changed from one run to another: sizes in bytes, and speeds as ratios after / before. Raises LabError
    when the runs are of two apps or of two machines."""
    from rustimg_lab.analysis import regression
    from rustimg_lab.widgets.run import Change

    old, new = load(before), load(after)
    return Change(old, new, regression.sizes(old.data, new.data), regression.speeds(old.data, new.data))


def recommend(
    run: str, workload: str = "", min_throughput: float = 0, shell: bool = False, stable: bool | None = None,
    **most: float,
) -> "Recommendation":  # fmt: skip
    """Return the cell to ship: the smallest compressed (pull) size within the limits, with the reasons against others.

    Limits are `max_transfer_mb`, `max_memory_mb` and `max_startup_ms`; 0 is none. `min_throughput` is a fraction of the
    best cell's. `shell` requires a shell in the image; `stable` rules out unstable compiler flags (default: True).
    `workload` selects the studies (default: any workload). If no constraint is set, the objective is the first one in
    the report of the run. Raises LabError for an unknown limit, and for a constraint on what the run did not measure.
    """
    from rustimg_lab.analysis.recommendation import Wishes
    from rustimg_lab.errors import FRACTION, NUMBER, TEXT, TRUTH, check_known, check_values
    from rustimg_lab.model.metrics import CRITERIA
    from rustimg_lab.report import summary
    from rustimg_lab.widgets.run import Recommendation

    names = {"max_transfer_mb": "transfer", "max_memory_mb": "memory", "max_startup_ms": "startup"}
    for name in most:
        check_known("limit", name, names)
    check_values(NUMBER, **most)
    check_values(FRACTION, min_throughput=min_throughput)
    is_stable = stable is None or stable
    check_values(TRUTH, shell=shell, stable=is_stable)
    check_values(TEXT, run=run, workload=workload)
    limits = {names[name]: limit * CRITERIA[names[name]].divisor for name, limit in most.items() if limit}
    loaded_run, wishes = load(run), Wishes(limits, min_throughput, shell, is_stable)
    if stable is None and wishes == Wishes(stable=True):
        wishes = summary.first_goal(loaded_run.data, workload)
    return Recommendation(loaded_run, wishes, workload)


def report(run: str, form: str = "html") -> Path:
    """Write the page of a run, or of several with commas between, as html, pdf or md; return its path. Raises LabError
    when a run is unknown, has nothing to show, or the page cannot be written."""
    from rustimg_lab.errors import TEXT, check_known, check_values
    from rustimg_lab.host.files import readable_errors
    from rustimg_lab.report import publish

    check_values(TEXT, run=run, form=form)
    check_known("format", form, ("html", "pdf", "md"))
    with readable_errors():
        return publish.write_page(run, form, print)


sys.modules[__name__].__class__ = _Face
