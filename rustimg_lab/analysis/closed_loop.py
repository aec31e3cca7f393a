"""A server in a closed loop -> whether its CPU time per request and its requests per second are one quantity.

Where a server uses all of its CPUs, the two multiply to those: a weight on both counts the same twice. Where it is
mostly idle, its rate is that of the load, and tells nothing of the cell.
"""

import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.model import metrics
from rustimg_lab.store.runs import RunData

BUSY, IDLE = 0.9, 0.5  # shares of its CPUs, from which and below which a server is called that


def busy(run: RunData, workload: str) -> pd.Series:
    """Return by cell the share of its CPUs that the server used: CPU time per request x requests per second / workers,
    of medians over the trials. Empty where no study has both, or a program is called and not asked."""
    study = comparison.study_of(run, metrics.REQUESTS_PER_S, workload)
    if not study or comparison.study_of(run, metrics.CPU_US_PER_REQUEST, workload) != study:
        return pd.Series(dtype=float)
    return busy_in(run, study)


def busy_in(run: RunData, study: str) -> pd.Series:
    """Return `busy` of one study; empty where it lacks one of the two metrics, or calls a program that never waits."""
    if "work" in run.environment.studies[study].parameters:
        return pd.Series(dtype=float)
    both = (metrics.CPU_US_PER_REQUEST, metrics.REQUESTS_PER_S)
    cpu_us, rate = (comparison.samples(run, study, each).groupby("cell")["value"].median() for each in both)
    return (cpu_us * rate / 1e6 / run.environment.studies[study].parameters.get("workers", 1)).dropna()


def is_one_quantity(used: pd.Series) -> bool:
    """Tell whether every server used nearly all of its CPUs. `used` is `busy`."""
    return bool(len(used) and used.min() >= BUSY)


def in_words(used: pd.Series) -> str:
    """Return a note on servers for which `is_one_quantity` holds."""
    return (
        f"CPU per request x requests per second is {used.min():.2f} to {used.max():.2f} of the server's CPUs: the two "
        "are one quantity, which counts once in how sure the choice is, and is better given one limit or weight"
    )


def idle(used: pd.Series) -> str:
    """Return why the servers have no share of the best throughput; "" where they have one. `used` is `busy`."""
    if used.empty or used.max() >= IDLE:
        return ""
    return (
        f"the server was busy for {used.min():.0%} to {used.max():.0%} of the time, so requests per second "
        "measure the load and not the cell: no cell can be compared with the best throughput"
    )
