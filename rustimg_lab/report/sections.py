"""Which notebooks a run has data for: the sections of its page."""

from rustimg_lab.analysis import cells, comparison, deploy, factorials, robustness
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import BUILD, MEMORY, SIZES, STARTUP, SURVIVAL, UNDER_LOAD
from rustimg_lab.paths import DEFAULT_RUN, RECORDED, RECORDED_RUN
from rustimg_lab.store import runs
from rustimg_lab.store.runs import RunData

KNOBS = "--knobs"
MANY_CELLS = 8  # of a factorial: from there on what its knobs do is read sooner than a plot of each cell
# What plots each cell, by the kind of its studies; sizes have none.
ONE_BY_ONE = {SIZES: "", STARTUP: "startup", UNDER_LOAD: "throughput", MEMORY: "memory"}
CHOOSE, ATTRIBUTION, DEPLOY = "05_choose", "07_attribution", "08_deploy"
LOAD = ("workload", "workers", "connections")  # what tells the studies of a load apart


def names(name: str) -> list[str]:
    """The runs of a page that is asked for as that."""
    return _recorded() if name == RECORDED_RUN else list(dict.fromkeys(name.split(",")))


def parts(run: str) -> list[tuple[str, dict]]:
    """The notebooks that a run has data for, each with its parameters; of several studies, once all have a number of
    the cell that the others are held against."""
    data = runs.load(run)
    found = [(SIZES, {})] if data.rows.empty or (data.rows["study"] == "").any() else []
    for name, plan in data.environment.studies.items():
        about = plan.parameters
        load = {key: about.get(key) for key in LOAD}
        if not comparison.has_baseline(data, name):
            continue
        if plan.kind == "throughput":
            found.append((UNDER_LOAD, load))
        elif plan.kind == "memory" and about["of"] == "limit":
            found.append((MEMORY, load))
        elif name == "startup-container":
            found.append((STARTUP, {}))
        elif plan.kind == "build":
            found.append((BUILD, {}))
    measured = (comparison.study_of(data, each.kind, each.metric, "") for each in metrics.MEASURED.values())
    if cells.cell_table(data)["ok"].any() and any(measured):
        found.append((CHOOSE, {}))
    asked = any(f" {KNOBS}" in command for command in data.environment.commands)
    if asked or factorials.everything(data)[0]:  # of one that was asked for, also why there is none
        found.append((ATTRIBUTION, {}))
    if deploy.is_measured(data):
        found.append((DEPLOY, {}))
    if robustness.is_probed(data):
        found.append((SURVIVAL, {}))
    return sorted(found, key=lambda part: part[0])


def parts_of_page(run: str, data: RunData) -> list[tuple[str, dict]]:
    """The same without what of many cells plots each by itself, where `ATTRIBUTION` tells what they have in common."""
    found = parts(run)
    if ATTRIBUTION not in dict(found):
        return found
    told = {each.quantity.kind for each in factorials.everything(data)[0] if len(each.values) >= MANY_CELLS}
    plans = data.environment.studies.values()
    few = {plan.kind for plan in plans if len(plan.cells) - 1 < MANY_CELLS}  # the twin is one of the cells
    left_out = {notebook for notebook, kind in ONE_BY_ONE.items() if kind in told - few}
    return [each for each in found if each[0] not in left_out]


def _recorded() -> list[str]:
    """The recorded runs of the article's app, the article's grid first."""
    first = f"{RECORDED_RUN}/{DEFAULT_RUN}"
    found = [name for name, path in runs.runs().items() if path.is_relative_to(RECORDED)]
    found = [name for name in found if cells.app_name(runs.load(name)) == cells.ARTICLES_APP]
    return sorted(found, key=lambda name: (name != first, name))
