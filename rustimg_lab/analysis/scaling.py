"""Throughput studies of one load with several numbers of worker threads -> what each step to more workers gains.

Values are paired by block: blocks of one number are neighbours in time, since such studies take turns. On fewer than
four CPUs two workers share theirs with the load generator, which takes from their requests per second, not from their
CPU time per request.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from rustimg_lab.analysis import closed_loop, comparison, variances
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.store.runs import RunData, trials

COLUMNS = ["cell", "fewer", "workers", "pairs", "ratio", "low", "high", "low_all", "high_all", "cpu", "verdict"]
_APART = "the studies did not take turns: what the machine did in between is in the speed-up"


def speed_up(run: RunData, workload: str, connections: int) -> pd.DataFrame:
    """Return one row per cell and step from fewer workers to more: `COLUMNS`. `ratio` is that of requests per second,
    with 95% intervals (`low_all`, `high_all`: simultaneous, Bonferroni) and verdict, by the rules of
    `comparison.compare`: the A/A control counts, by its speed-up. `cpu` is the ratio of CPU time per request (NaN if
    unknown). Empty where the run has one number of workers. `attrs`: warning, stand_ins (substitutes).
    """
    load = {"workload": workload, "connections": connections}
    planned = comparison.planned_studies(run, "throughput", **load)
    parameters, rows, warnings = {name: run.environment.studies[name].parameters for name in planned}, [], []
    studies = [name for name in planned if len(trials(run, name, metrics.REQUESTS_PER_S))]
    for first, second in pairwise(sorted(studies, key=lambda name: parameters[name]["workers"])):
        logs, cpu = (_ratios(run, first, second, name) for name in (metrics.REQUESTS_PER_S, metrics.CPU_US_PER_REQUEST))
        step = {"fewer": parameters[first]["workers"], "workers": parameters[second]["workers"]}
        cells = [cell for cell in run.environment.studies[first].cells if cell in logs]
        costs = np.exp(cpu.mean()).reindex(cells)  # NaN where the engine does not tell CPU time
        twins = [cell for cell in logs if cell.endswith(TWIN) and cell.removesuffix(TWIN) in logs]
        control = comparison.control_differences(logs, twins[0]) if twins else np.array([])
        step["floor"] = comparison.alarm(control, len(cells), 0.0)
        rows += [{**step, "cell": cell, "logs": logs[cell].dropna(), "cpu": costs[cell]} for cell in cells]
        first_rows, second_rows = (run.rows.index[run.rows["study"] == name] for name in (first, second))
        note = _APART if first_rows.max() < second_rows.min() or second_rows.max() < first_rows.min() else ""
        warnings += [
            note,
            comparison.alarm_in_words(step["floor"]),
            parameters[second]["warning"] or _load_limit_note(run, second),
        ]
    table = pd.DataFrame([row | _judge(row["logs"], len(rows), row["floor"]) for row in rows], columns=COLUMNS)
    table.attrs = {"warning": "; ".join(dict.fromkeys(filter(None, warnings))), "stand_ins": run.environment.stand_ins}
    return table


def _load_limit_note(run: RunData, study: str) -> str:
    """Return a warning where servers with CPUs of their own do not use them: the load limits what is measured then."""
    use, parameters = closed_loop.cpu_use(run, study), run.environment.studies[study].parameters
    if use.empty or use.min() >= closed_loop.BUSY:
        return ""
    return (
        f"with {parameters['workers']} workers a server used {use.min():.0%} of its CPUs, so the load limits the gain: "
        f"take more --connections than {parameters['connections']}"
    )


def _ratios(run: RunData, first: str, second: str, metric: str) -> pd.DataFrame:
    """Return the logarithms of the second study's values over the first's, by block and cell."""
    tables = [
        comparison.samples(run, name, metric).pivot(index="block", columns="cell", values="value")
        for name in (first, second)
    ]
    return np.log(tables[1]) - np.log(tables[0])


def _judge(logs: pd.Series, comparisons: int, floor: float) -> dict[str, Any]:
    """Return the pairs, ratio, intervals and verdict of a cell."""
    mean, error = logs.mean(), variances.standard_error(logs)
    row = {"pairs": len(logs), "ratio": np.exp(mean), "verdict": Verdict.TOO_NOISY}
    return row | (
        comparison.judge(mean, error, len(logs) - 1, comparisons, floor, metrics.SPEED_UP) if len(logs) > 1 else {}
    )
