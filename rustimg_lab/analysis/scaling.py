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
    """Return a row per cell and step to more workers: `COLUMNS`, with the ratio of requests per second, its 95%
    intervals (`low_all`, `high_all`: for all rows, Bonferroni), verdict, and the ratio of CPU time per request; none
    with one number of workers. `attrs`: the warning and the stand-ins."""
    found = comparison.find_studies(run, "throughput", workload=workload, connections=connections)
    about, rows, warnings = {name: run.environment.studies[name].parameters for name in found}, [], []
    for one, other in pairwise(sorted(found, key=lambda name: about[name]["workers"])):
        logs, cpu = (_ratios(run, one, other, each) for each in (metrics.REQUESTS_PER_S, metrics.CPU_US_PER_REQUEST))
        step = {"fewer": about[one]["workers"], "workers": about[other]["workers"]}
        costs = np.exp(cpu.mean()).reindex(logs.columns)  # NaN where the engine does not tell CPU time
        rows += [{**step, "cell": cell, "logs": own.dropna(), "cpu": costs[cell]} for cell, own in logs.items()]
        first, last = (run.rows.index[run.rows["study"] == name] for name in (one, other))
        apart = _APART if first.max() < last.min() or last.max() < first.min() else ""
        warnings += [apart, about[other]["warning"] or _limited(run, other)]
    table = pd.DataFrame([row | _judged(row["logs"], len(rows)) for row in rows], columns=COLUMNS)
    table.attrs = {"warning": "; ".join(dict.fromkeys(filter(None, warnings))), "stand_ins": run.environment.stand_ins}
    return table


def _limited(run: RunData, study: str) -> str:
    """A warning where servers with CPUs of their own do not use them: what is measured is the load then."""
    used, about = closed_loop.busy_in(run, study), run.environment.studies[study].parameters
    if used.empty or used.min() >= closed_loop.BUSY:
        return ""
    return (
        f"with {about['workers']} workers a server used {used.min():.0%} of its CPUs, so the load limits the gain: "
        f"take more --connections than {about['connections']}"
    )


def _ratios(run: RunData, one: str, other: str, metric: str) -> pd.DataFrame:
    """The logarithms of the second study's values over the first's, by block and cell, in the order of the cells."""
    wide = [
        comparison.samples(run, name, metric).pivot(index="block", columns="cell", values="value")
        for name in (one, other)
    ]
    logs = np.log(wide[1]) - np.log(wide[0])
    return logs.reindex(columns=[cell for cell in run.environment.studies[one].cells if cell in logs])


def _judged(logs: pd.Series, comparisons: int) -> dict[str, Any]:
    """Pairs, ratio, intervals and verdict of a cell."""
    mean, alone, together = logs.mean(), half_interval(logs), half_interval(logs, comparisons)
    ends = np.exp([mean, mean - alone, mean + alone, mean - together, mean + together])
    verdict = Verdict.NO_DIFFERENCE if together <= np.log(comparison.NOISY_RATIO) else Verdict.TOO_NOISY
    verdict = metrics.SPEED_UP.verdict_on(mean) if abs(mean) > together else verdict
    return {"pairs": len(logs), "verdict": verdict} | dict(zip(comparison.NUMBERS[:5], ends, strict=True))
