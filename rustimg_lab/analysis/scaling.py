"""Throughput studies of one load with several numbers of worker threads -> what each step to more workers gains.

Values are paired by block: blocks of one number are neighbours in time, since such studies take turns. On fewer than
four CPUs two workers share theirs with the load generator, which takes from their requests per second, not from their
CPU time per request.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from rustimg_lab.analysis import closed_loop, comparison
from rustimg_lab.analysis.variances import half_interval
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.store.runs import RunData

COLUMNS = ["cell", "fewer", "workers", "pairs", "ratio", "low", "high", "low_all", "high_all", "cpu", "verdict"]
_APART = "the studies did not take turns: what the machine did in between is in the speed-up"


def speed_up(run: RunData, workload: str, connections: int) -> pd.DataFrame:
    """Return one row per cell and step from fewer workers to more: `COLUMNS`. `ratio` is that of requests per second,
    with 95% intervals (`low_all`, `high_all`: simultaneous, Bonferroni) and verdict. `cpu` is the ratio of CPU time per
    request (NaN if unknown). Empty where the run has one number of workers. `attrs`: warning, stand_ins (substitutes).
    """
    studies = comparison.find_studies(run, "throughput", workload=workload, connections=connections)
    parameters, rows, warnings = {name: run.environment.studies[name].parameters for name in studies}, [], []
    for first, second in pairwise(sorted(studies, key=lambda name: parameters[name]["workers"])):
        logs, cpu = (_ratios(run, first, second, name) for name in (metrics.REQUESTS_PER_S, metrics.CPU_US_PER_REQUEST))
        step = {"fewer": parameters[first]["workers"], "workers": parameters[second]["workers"]}
        costs = np.exp(cpu.mean()).reindex(logs.columns)  # NaN where the engine does not tell CPU time
        rows += [{**step, "cell": cell, "logs": column.dropna(), "cpu": costs[cell]} for cell, column in logs.items()]
        first_rows, second_rows = (run.rows.index[run.rows["study"] == name] for name in (first, second))
        note = _APART if first_rows.max() < second_rows.min() or second_rows.max() < first_rows.min() else ""
        warnings += [note, parameters[second]["warning"] or _load_limit_note(run, second)]
    table = pd.DataFrame([row | _judge(row["logs"], len(rows)) for row in rows], columns=COLUMNS)
    table.attrs = {"warning": "; ".join(dict.fromkeys(filter(None, warnings))), "stand_ins": run.environment.stand_ins}
    return table


def _load_limit_note(run: RunData, study: str) -> str:
    """Return a warning where servers with CPUs of their own do not use them: the load limits what is measured then."""
    use, parameters = closed_loop.cpu_use_in_study(run, study), run.environment.studies[study].parameters
    if use.empty or use.min() >= closed_loop.BUSY:
        return ""
    return (
        f"with {parameters['workers']} workers a server used {use.min():.0%} of its CPUs, so the load limits the gain: "
        f"take more --connections than {parameters['connections']}"
    )


def _ratios(run: RunData, first: str, second: str, metric: str) -> pd.DataFrame:
    """Return the logarithms of the second study's values over the first's, by block and cell, in the order of the
    cells."""
    tables = [
        comparison.samples(run, name, metric).pivot(index="block", columns="cell", values="value")
        for name in (first, second)
    ]
    logs = np.log(tables[1]) - np.log(tables[0])
    return logs.reindex(columns=[cell for cell in run.environment.studies[first].cells if cell in logs])


def _judge(logs: pd.Series, comparisons: int) -> dict[str, Any]:
    """Return the pairs, ratio, intervals and verdict of a cell."""
    mean, half_one, half_all = logs.mean(), half_interval(logs), half_interval(logs, comparisons)
    ends = np.exp([mean, mean - half_one, mean + half_one, mean - half_all, mean + half_all])
    verdict = Verdict.NO_DIFFERENCE if half_all <= np.log(comparison.NOISY_RATIO) else Verdict.TOO_NOISY
    verdict = metrics.SPEED_UP.verdict_on(mean) if abs(mean) > half_all else verdict
    return {"pairs": len(logs), "verdict": verdict} | dict(zip(comparison.NUMBERS[:5], ends, strict=True))
