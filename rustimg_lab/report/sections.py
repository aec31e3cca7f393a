"""The notebooks of a run's page, and where the page is. A new study needs one entry in `SECTIONS`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustimg_lab.analysis import cells, comparison, deploy, factorials, machines, robustness
from rustimg_lab.errors import LabError
from rustimg_lab.host.files import short_name
from rustimg_lab.model import metrics
from rustimg_lab.model.names import listed
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
    """A notebook. `label`: in the contents of a page. `parts`: the parameters of each part with data. `summary`: its
    short table, if any. `draws`: the kind of studies ("" for sizes) of which it plots each cell."""

    label: str
    parts: Callable[[RunData], list[dict[str, Any]]]
    summary: Callable[..., short.Short] | None = None
    draws: str | None = None


def _once(applies: Callable[[RunData], bool]) -> Callable[[RunData], list[dict[str, Any]]]:
    return lambda run: [{}] if applies(run) else []


def _studies(kind: str, keys: tuple[str, ...] = (), **of: str) -> Callable[[RunData], list[dict[str, Any]]]:
    """A part for each study of that kind whose baseline has a number, with these of its parameters."""
    return lambda run: [
        {key: run.environment.studies[name].parameters.get(key) for key in keys}
        for name in comparison.find_studies(run, kind, **of)
    ]


def _has_sizes(run: RunData) -> bool:
    return run.rows.empty or bool((run.rows["study"] == "").any())


def _has_choice(run: RunData) -> bool:
    measured = (comparison.study_of(run, each) for each in metrics.MEASURED.values())
    return bool(cells.cell_table(run)["ok"].any() and any(measured))


def _has_factorial(run: RunData) -> bool:
    """Of one that was requested, also where there is none: the notebook says why."""
    return any(f" {KNOBS}" in command for command in run.environment.commands) or bool(factorials.everything(run)[0])


# In the order of the page.
SECTIONS = {
    "05_choose": Section("Choice", _once(_has_choice)),
    SIZES: Section("Size", _once(_has_sizes), short.of_sizes, draws=""),
    STARTUP: Section("Start", _studies("startup", program="server"), short.of_startup, draws="startup"),
    UNDER_LOAD: Section("Throughput", _studies("throughput", LOAD), short.of_load, draws="throughput"),
    MACHINES: Section("Across machines", lambda run: []),  # of all runs of a page: see `across`
    MEMORY: Section("Memory", _studies("memory", LOAD, of="load"), short.of_memory, draws="memory"),
    SURVIVAL: Section("Robustness", _once(robustness.is_probed), short.of_survival),
    ATTRIBUTION: Section("Attribution", _once(_has_factorial)),
    "08_deploy": Section("Deploy", _once(deploy.is_measured)),
    BUILD: Section("Build", _studies("build"), short.of_build),
    LAYOUT: Section("Layout", _studies(LAYOUTS, LOAD)),
}


def names(name: str) -> list[str]:
    """The runs of a page, by architecture and machine (`runs.parts`). Raises LabError for none, or an unknown one."""
    if name == RECORDED_RUN:
        return _recorded()
    wanted = dict.fromkeys(filter(None, listed(name)))
    if not wanted:
        raise LabError(f"'{name}' names no run")
    return [part for each in wanted for part in runs.parts(each)]


def parts(run: RunData) -> list[tuple[str, dict]]:
    """The notebooks that a run has data for, with parameters: studies once all have a number of their baseline."""
    return [(notebook, own) for notebook, section in SECTIONS.items() for own in section.parts(run)]


def across(runs: dict[str, RunData]) -> list[tuple[str, str, dict]]:
    """For each study that two machines have measured alike: the first of its runs, `MACHINES`, and its parameters."""
    made = []
    for study in machines.shared(runs):
        first, *others = machines.sessions(runs, study)["run"].unique()
        load = {key: runs[first].environment.studies[study].parameters.get(key) for key in LOAD}
        made.append((first, MACHINES, {"others": ",".join(others), **load}))
    return made


def parts_of_page(run: RunData) -> list[tuple[str, dict]]:
    """Return `parts` without plots of each of many cells, where `ATTRIBUTION` shows what the cells have in common."""
    found = parts(run)
    if ATTRIBUTION not in dict(found):
        return found
    told = {each.quantity.study for each in factorials.everything(run)[0] if len(each.values) >= MANY_CELLS}
    plans = run.environment.studies.values()
    few = {plan.kind for plan in plans if len(plan.cells) - 1 < MANY_CELLS}  # the twin is one of the cells
    return [each for each in found if SECTIONS[each[0]].draws not in told - few]


def _recorded() -> list[str]:
    """The recorded runs of the article's app, its grid first; of a grid for two architectures the other one's part."""
    first = f"{RECORDED_RUN}/{DEFAULT_RUN}"
    found = [name for name, path in runs.runs().items() if path.is_relative_to(RECORDED)]
    found = [name for name in found if cells.app_name(runs.load(name)) == cells.ARTICLES_APP]
    return [runs.parts(name)[-1] for name in sorted(found, key=lambda name: (name != first, name))]


def folder(name: str) -> Path:
    """Return the folder of the page of a run, or of several with commas between them."""
    return REPORTS / (name if "," not in name else short_name("+".join(names(name)).replace("/", "-")))


def kept_page(name: str) -> Path | None:
    """Return the page where it is newer than all that it is made of, else None. Raises LabError for an unknown run."""
    page = folder(name) / "report.html"
    if not page.exists():
        return None
    of_page = names(name)
    texts = [path for each in of_page for path in (runs.run_path(each) / "dockerfiles").rglob("*")]
    of_runs = [path for each in of_page for path in runs.files(each)]
    own = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
    every = [*of_runs, *texts, *own, *NOTEBOOKS.glob("*.ipynb"), *PROFILES.parent.glob("*.*")]
    newest = max(path.stat().st_mtime_ns for path in every)
    return page if page.stat().st_mtime_ns > newest else None
