"""A server in a closed loop -> whether its CPU time per request and its requests per second are one quantity.

Where a server uses all of its CPUs, the two multiply to those: a weight on both counts the same twice. Where it is
mostly idle, its rate is that of the load, and tells nothing of the cell.
"""

import pandas as pd

from rustimg_lab.model import metrics
from rustimg_lab.store.runs import RunData, trials

BUSY, IDLE = 0.9, 0.5  # shares of its CPUs, from which and below which a server is called that


def cpu_use(run: RunData, study: str) -> pd.Series:
    """Return by cell the fraction of its CPUs that the server used in a study: CPU time per request x requests per
    second / workers, of medians over the trials. Empty where the study lacks one of the two metrics, or calls a
    program, which waits for nobody."""
    if "work" in run.environment.studies[study].parameters:
        return pd.Series(dtype=float)
    cpu_us, rate = (
        trials(run, study, metric).astype({"value": float}).groupby("cell")["value"].median()
        for metric in (metrics.CPU_US_PER_REQUEST, metrics.REQUESTS_PER_S)
    )
    return (cpu_us * rate / 1e6 / run.environment.studies[study].parameters.get("workers", 1)).dropna()


def is_one_quantity(use: pd.Series) -> bool:
    """Return whether every server used nearly all of its CPUs (`BUSY`). `use` is what `cpu_use` returns; False if it is
    empty."""
    return bool(len(use) and use.min() >= BUSY)


def in_words(use: pd.Series) -> str:
    """Return a note on servers for which `is_one_quantity` holds. `use` is what `cpu_use` returns."""
    return (
        f"CPU per request x requests per second is {use.min():.2f} to {use.max():.2f} of the server's CPUs: the two "
        "are one quantity, which counts once in how sure the choice is, and is better given one limit or weight"
    )


def idle_note(use: pd.Series) -> str:
    """Return why requests per second tell nothing of some cells: their servers were mostly idle. Return "" where each
    server used `IDLE` of its CPUs or more, and where `use` (`cpu_use`) is empty."""
    idle = use[use < IDLE]
    if idle.empty:
        return ""
    servers = "the server was" if len(idle) == len(use) else f"{len(idle)} of {len(use)} servers were"
    return (
        f"{servers} busy for {idle.min():.0%} to {idle.max():.0%} of the time, so requests per second measure the load "
        "and not the cell"
    )


def no_best_note(use: pd.Series) -> str:
    """Return why no cell can be compared with the best throughput (see `idle_note`); "" where each can."""
    idle = idle_note(use)
    return idle and f"{idle}: no cell can be compared with the best throughput"
