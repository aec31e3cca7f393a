"""How far the studies of a command are on one machine of several: the blocks that are there already."""

from itertools import product

from rustimg_lab.measure.workloads import OWN
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import USUAL_LOAD
from rustimg_lab.store import runs

_LOAD = {"workload": USUAL_LOAD["workload"], "connections": str(USUAL_LOAD["connections"]), "workers": ""}


def blocks_done(run: str, machine: str, arguments: tuple[str, ...]) -> int:
    """Return how many blocks a machine's part of a run has of each study that `measure` with these arguments makes, at
    least; the last may lack trials. Studies with a number of blocks of their own do not count."""
    if machine not in runs.machines(run):
        return 0
    data, kind = runs.load(f"{run}{runs.AT}{machine}"), _option(arguments, "study", "throughput")
    trials = data.rows[data.rows["metric"] == metrics.TRIAL]
    done = trials.groupby("study")["block"].max() + 1
    plans = {
        name: {key: str(value) for key, value in plan.parameters.items()}
        for name, plan in data.environment.studies.items()
        if plan.kind == kind and plan.metric != metrics.SMALLEST_LIMIT_BYTES
    }
    asked = [_option(arguments, key, usual).split(",") for key, usual in _LOAD.items()]
    loads = [dict(zip(_LOAD, load, strict=True)) for load in product(*asked)]
    counts = [[done.get(name, 0) for name, plan in plans.items() if _is_under(load, plan)] for load in loads]
    return int(min(min(count, default=0) for count in counts))


def _is_under(load: dict[str, str], plan: dict[str, str]) -> bool:
    """Whether a study is under a load, as far as its plan tells: an app's own requests are all that it has."""
    return all(plan.get(key, value) in (value, OWN) for key, value in load.items() if value)


def _option(arguments: tuple[str, ...], name: str, usual: str) -> str:
    """Return what an option of a command is given, the last time that it stands there."""
    found = usual
    for place, argument in enumerate(arguments):
        if argument == f"--{name}":
            found = arguments[place + 1]
        elif argument.startswith(f"--{name}="):
            found = argument.partition("=")[2]
    return found
