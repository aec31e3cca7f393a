"""Trials of layouts of each cell -> the variance between and within layouts, and the differences that remain. Pure.

The order of functions changes the speed of equal code, and each build draws an order anew (Mytkowicz et al., "Producing
Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS 2009; Curtsinger and Berger, "Stabilizer", ASPLOS 2013). So
layout is a random effect: those measured are a sample. A difference that holds for them alone is none of the cells.
"""

import numpy as np
import pandas as pd
import scipy

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.variances import CONFIDENCE, quantile, standard_error, welch
from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN, without_layout
from rustimg_lab.store.runs import RunData

_TAIL = (1 - CONFIDENCE) / 2


def of_study(run: RunData, study: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `components` of each cell, with `cell` and `mean` (geometric, in the metric's unit), and `differences`, of
    a study of layouts. Both have the `attrs` of `comparison.samples`, `baseline` and `metric`. Only whole blocks count,
    and cells with two layouts and blocks. Raises LabError when a value is not above 0."""
    plan = run.environment.studies[study]
    trials = comparison.samples(run, study, plan.metric)
    if not (trials["value"] > 0).all():
        raise LabError(f"study '{study}' has a value of 0 or below, which has no logarithm; no layouts are compared")
    rows = run.rows[run.rows["study"] == study]
    seeds = dict(zip(rows["cell"], rows["layout"], strict=True))
    own = trials[~trials["cell"].str.endswith(TWIN)]
    every = comparison.logarithms(own)[list(own["cell"].unique())]
    whole = every.dropna()
    cells = [without_layout(layout, seeds[layout]) for layout in whole]
    logs = {cell: whole.loc[:, [each == cell for each in cells]].to_numpy() for cell in dict.fromkeys(cells)}
    notes = [trials.attrs["warning"]]
    if lost := len(every) - len(whole):
        notes.append(f"{lost} of {len(every)} blocks lack a layout and are left out")
    notes += [f"{cell} has fewer than two layouts or blocks" for cell, each in logs.items() if min(each.shape) < 2]
    enough = {cell: each for cell, each in logs.items() if min(each.shape) > 1}
    baseline, about = without_layout(plan.baseline, seeds.get(plan.baseline, 0)), metrics.find(plan.metric)
    made = [{"cell": cell, "mean": np.exp(each.mean())} | components(each) for cell, each in enough.items()]
    notes += [
        f"the layouts of {each['cell']} differ by less than chance alone would have it, as in one study in "
        f"{1 / _TAIL:.0f} where layouts have no effect: the upper limit of 0 limits nothing"
        for each in made
        if each["between_high"] == 0 < each["within"]
    ]
    found = pd.DataFrame(made), differences(enough, baseline, about)
    for each in found:
        each.attrs = trials.attrs | {"warning": "; ".join(filter(None, notes)), "baseline": baseline, "metric": about}
    return found


def components(logs: np.ndarray) -> dict[str, float]:
    """Return `layouts` and `blocks` of logarithms of shape (blocks, layouts), two of each or more, and the standard
    deviations `between` layouts and `within` one, with 95% intervals (`between_low` and so on). 0.01 is 1%.

    Two-way analysis of variance: what a block does to all layouts is in neither. The interval between layouts is that
    of Williams (Biometrika 49, 1962; compared with others by Boardman, Biometrics 30, 1974), cut off at 0.
    """
    blocks, layouts = logs.shape
    few, many = layouts - 1, (layouts - 1) * (blocks - 1)
    means = logs.mean(axis=0)
    residuals = logs - logs.mean(axis=1, keepdims=True) - means + logs.mean()
    between, within = blocks * means.var(ddof=1), (residuals**2).sum() / many
    variances = {"between": (between - within) / blocks, "within": within}
    for end, tail in (("low", _TAIL), ("high", 1 - _TAIL)):  # chdtri takes the upper tail
        excess = between - within * scipy.special.fdtri(few, many, 1 - tail)
        variances[f"between_{end}"] = few * excess / (blocks * scipy.special.chdtri(few, tail))
        variances[f"within_{end}"] = many * within / scipy.special.chdtri(many, tail)
    return {"layouts": layouts, "blocks": blocks} | {key: max(each, 0.0) ** 0.5 for key, each in variances.items()}


def differences(logs: dict[str, np.ndarray], baseline: str, about: metrics.Metric) -> pd.DataFrame:
    """Return a row for each cell but the baseline, of logarithms of shape (blocks, layouts) that share their blocks.

    Columns: cell; ratio (geometric mean, cell / baseline); low, high, verdict: with layout as a random effect, by
    Welch's t of the means of N layouts, of N - 1 to 2 (N - 1) degrees of freedom; fixed_low,
    fixed_high, fixed_verdict: of the trials alone, by the t-interval of the paired blocks; survives: both claim it;
    least, most: the ratios of one layout each. Intervals are 95% for all rows at once (Bonferroni). No row without the
    baseline.
    """
    others = [cell for cell in logs if cell != baseline and baseline in logs]
    rows, base = [], logs.get(baseline)
    for cell in others:
        one, other = logs[cell].mean(axis=0), base.mean(axis=0)
        mean, error, freedom = welch(one, other)
        row = {"cell": cell, "ratio": np.exp(mean)}
        paired = logs[cell].mean(axis=1) - base.mean(axis=1)
        fixed = standard_error(paired), len(paired) - 1
        for kind, (own_error, degrees) in {"": (error, freedom), "fixed_": fixed}.items():
            half = quantile(degrees, len(others)) * own_error
            row |= {f"{kind}low": np.exp(mean - half), f"{kind}high": np.exp(mean + half)}
            row[f"{kind}verdict"] = about.verdict_on(mean) if abs(mean) > half else Verdict.NO_DIFFERENCE
        row["survives"] = Verdict.NO_DIFFERENCE not in (row["verdict"], row["fixed_verdict"])
        rows.append(row | {"least": np.exp(one.min() - other.max()), "most": np.exp(one.max() - other.min())})
    return pd.DataFrame(rows)
