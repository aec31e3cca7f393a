"""The notebooks of a run's page, and where the page is. A new study needs one entry in `SECTIONS`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustimg_lab.analysis import cells, comparison, deploy, factorials, machines, robustness
from rustimg_lab.errors import LabError
from rustimg_lab.host.files import short_name
from rustimg_lab.model import metrics
from rustimg_lab.model.names import split_list
from rustimg_lab.model.studies import BUILD, LAYOUT, LAYOUTS, MACHINES, MEMORY, SIZES, STARTUP, SURVIVAL, UNDER_LOAD
from rustimg_lab.paths import DEFAULT_RUN, NOTEBOOKS, PACKAGE, PROFILES, RECORDED, RECORDED_RUN, REPORTS
from rustimg_lab.report import short
from rustimg_lab.store import runs
from rustimg_lab.store.runs import RunData

KNOBS = "--knobs"
MANY_CELLS = 8  # of a factorial: from there on what its knobs do is read sooner than a plot of each cell
ATTRIBUTION = "07_attribution"
LOAD = ("workload", "workers", "connections")  # what tells the studies of a load apart


@dataclass(frozen=True)
class Section:
    """A notebook. `label`: what the contents of a page call it. `parts`: the parameters of each part that a run has
    data for. `summary`: the table that says it in a few lines, where there is one. `draws`: the kind of the studies (""
    for sizes) of which it plots each cell."""

    label: str
    parts: Callable[[RunData], list[dict[str, Any]]]
    summary: Callable[..., short.Short] | None = None
    draws: str | None = None


def _once(applies: Callable[[RunData], bool]) -> Callable[[RunData], list[dict[str, Any]]]:
    return lambda run: [{}] if applies(run) else []


def _studies(kind: str, keys: tuple[str, ...] = (), **parameters: str) -> Callable[[RunData], list[dict[str, Any]]]:
    """Return a function of a run. It gives a part for each study of that kind whose baseline has a number, with the
    parameters in `keys`."""
    return lambda run: [
        {key: run.environment.studies[name].parameters.get(key) for key in keys}
        for name in comparison.find_studies(run, kind, **parameters)
    ]


def _has_sizes(run: RunData) -> bool:
    return run.rows.empty or bool((run.rows["study"] == "").any())


def _has_choice(run: RunData) -> bool:
    studies = (comparison.study_of(run, metric) for metric in metrics.MEASURED.values())
    return bool(cells.cell_table(run)["ok"].any() and any(studies))


def _has_factorial(run: RunData) -> bool:
    """Return whether a factorial is there, or was requested. When it is not there, the notebook says why."""
    return any(f" {KNOBS}" in command for command in run.environment.commands) or bool(
        factorials.find_factorials(run)[0]
    )


# In the order of the page.
SECTIONS = {
    "05_choose": Section("Choice", _once(_has_choice)),
    SIZES: Section("Size", _once(_has_sizes), short.of_sizes, draws=""),
    STARTUP: Section("Start", _studies("startup", program="server"), short.of_startup, draws="startup"),
    UNDER_LOAD: Section("Throughput", _studies("throughput", LOAD), short.of_load, draws="throughput"),
    MACHINES: Section("Across machines", lambda run: []),  # of all runs of a page: see `studies_across_machines`
    MEMORY: Section("Memory", _studies("memory", LOAD, of="load"), short.of_memory, draws="memory"),
    SURVIVAL: Section("Robustness", _once(robustness.is_probed), short.of_survival),
    ATTRIBUTION: Section("Attribution", _once(_has_factorial)),
    "08_deploy": Section("Deploy", _once(deploy.is_measured)),
    BUILD: Section("Build", _studies("build"), short.of_build),
    LAYOUT: Section("Layout", _studies(LAYOUTS, LOAD)),
}


def names(name: str) -> list[str]:
    """Return the runs of the page that `name` requests, one for each architecture and machine (`runs.parts`).
    `recorded` requests all recorded runs of the article's app. Raises LabError when `name` names no run, or an unknown
    one."""
    if name == RECORDED_RUN:
        return _recorded()
    run_names = dict.fromkeys(filter(None, split_list(name)))
    if not run_names:
        raise LabError(f"'{name}' names no run")
    return [part for run_name in run_names for part in runs.parts(run_name)]


def parts(run: RunData) -> list[tuple[str, dict]]:
    """Return the notebooks that a run has data for, each with its parameters. A notebook on studies is there once for
    each study whose baseline has a number."""
    return [(notebook, parameters) for notebook, section in SECTIONS.items() for parameters in section.parts(run)]


def studies_across_machines(runs: dict[str, RunData]) -> list[tuple[str, str, dict]]:
    """Return a call for each study that two machines of the runs have measured alike. A call has the first of its runs,
    `MACHINES`, and the notebook's parameters; `others` has the other runs. `runs` are by name."""
    calls = []
    for study in machines.shared_studies(runs):
        first_run, *other_runs = machines.sessions(runs, study)["run"].unique()
        load = {key: runs[first_run].environment.studies[study].parameters.get(key) for key in LOAD}
        calls.append((first_run, MACHINES, {"others": ",".join(other_runs), **load}))
    return calls


def parts_of_page(run: RunData) -> list[tuple[str, dict]]:
    """Return `parts` without the notebooks that plot each of many cells by itself, where `ATTRIBUTION` shows what the
    cells have in common."""
    every_part = parts(run)
    if ATTRIBUTION not in dict(every_part):
        return every_part
    attributed = {
        design.quantity.study for design in factorials.find_factorials(run)[0] if len(design.values) >= MANY_CELLS
    }
    plans = run.environment.studies.values()
    small_kinds = {plan.kind for plan in plans if len(plan.cells) - 1 < MANY_CELLS}  # the twin is one of the cells
    return [part for part in every_part if SECTIONS[part[0]].draws not in attributed - small_kinds]


def _recorded() -> list[str]:
    """Return the recorded runs of the article's app, the article's grid first. Of a run for two architectures only the
    last part counts: the article's grid covers this machine's architecture."""
    grid_run = f"{RECORDED_RUN}/{DEFAULT_RUN}"
    run_names = [name for name, path in runs.runs().items() if path.is_relative_to(RECORDED)]
    run_names = [name for name in run_names if cells.app_name(runs.load(name)) == cells.ARTICLES_APP]
    return [runs.parts(name)[-1] for name in sorted(run_names, key=lambda name: (name != grid_run, name))]


def folder(name: str) -> Path:
    """Return the folder of the page of a run, or of several with commas between them."""
    return REPORTS / (name if "," not in name else short_name("+".join(names(name)).replace("/", "-")))


def find_page(name: str) -> Path | None:
    """Return the page that was made before, or None when an input is newer: the runs, their Dockerfiles, the notebooks,
    `data/`, or the package. Raises LabError when a run is unknown."""
    page = folder(name) / "report.html"
    if not page.exists():
        return None
    run_names = names(name)
    dockerfiles = [path for run_name in run_names for path in (runs.run_path(run_name) / "dockerfiles").rglob("*")]
    run_files = [path for run_name in run_names for path in runs.files(run_name)]
    modules = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
    inputs = [*run_files, *dockerfiles, *modules, *NOTEBOOKS.glob("*.ipynb"), *PROFILES.parent.glob("*.*")]
    newest = max(path.stat().st_mtime_ns for path in inputs)
    return page if page.stat().st_mtime_ns > newest else None
