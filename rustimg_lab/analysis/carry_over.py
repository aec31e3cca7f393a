"""Trials of a study -> what the cell that was measured before does to the next one: first-order carry-over.

The logarithm of a value is taken as the sum of effects of its block, of its cell and of the cell before it in the block
(Jones, Kenward, Design and Analysis of Cross-Over Trials, 2014, chapter 4), fitted by least squares. A block's first
trial follows none of its block and is left out.
"""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.variances import quantile
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.store.runs import RunData


def of_study(run: RunData, study: str) -> tuple[str, float, float, float, Verdict] | None:
    """Return the clearest carry-over in the main metric of a study; None where the trials cannot separate the effects.
    The tuple has: the cell that came before, the ratio of the values after that cell to the average, both ends of its
    95% interval, and the verdict. The interval is simultaneous for all cells (Bonferroni)."""
    metric, rows = metrics.find(run.environment.studies[study].metric), run.rows
    turns = rows[(rows["study"] == study) & (rows["metric"] == metrics.TRIAL)].drop_duplicates(["block", "order"])
    turns = turns.assign(order=turns["order"] + 1)[["block", "order", "cell"]].rename(columns={"cell": "before"})
    trials = comparison.samples(run, study, metric).merge(turns, on=["block", "order"])
    block, cell, before = (pd.get_dummies(trials[name], dtype=float) for name in ("block", "cell", "before"))
    contrasts = before.iloc[:, :-1].sub(before.iloc[:, -1:].squeeze(axis=1), axis=0)  # the effects sum to 0
    terms, count = np.hstack([block, cell.iloc[:, 1:], contrasts]), contrasts.shape[1]
    freedom = len(terms) - terms.shape[1]
    if not count or freedom < 1 or np.linalg.matrix_rank(terms) < terms.shape[1] or not (trials["value"] > 0).all():
        return None
    logs, inverse = np.log(trials["value"].to_numpy()), np.linalg.inv(terms.T @ terms)
    fitted = inverse @ terms.T @ logs
    basis = np.vstack([np.eye(count), -np.ones(count)])  # the effects of all cells, from those of all but the last
    variance = ((logs - terms @ fitted) ** 2).sum() / freedom * np.diag(basis @ inverse[-count:, -count:] @ basis.T)
    half = quantile(freedom, len(basis)) * np.sqrt(variance)
    effects = basis @ fitted[-count:]
    clearest = int(np.argmax(np.abs(effects) - half))
    effect, reach = effects[clearest], half[clearest]
    verdict = metric.verdict_on(effect) if abs(effect) > reach else Verdict.NO_DIFFERENCE
    return before.columns[clearest], *np.exp([effect, effect - reach, effect + reach]).tolist(), verdict
