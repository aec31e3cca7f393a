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
    """Return two frames on the main metric of a study of layouts: `components` of each cell, with `cell` and `mean`
    (geometric, in the metric's unit), and `differences`. Both have the `attrs` of `comparison.samples`, baseline and
    metric.

    Only blocks with every layout count, and cells with two or more blocks and layouts; the warning says what is left
    out. Raises LabError when a value is not above 0."""
    plan = run.environment.studies[study]
    trials = comparison.samples(run, study, plan.metric)
    if not (trials["value"] > 0).all():
        raise LabError(f"study '{study}' has a value of 0 or below, which has no logarithm; no layouts are compared")
    rows = run.rows[run.rows["study"] == study]
    seeds = dict(zip(rows["cell"], rows["layout"], strict=True))
    layout_trials = trials[~trials["cell"].str.endswith(TWIN)]
    blocks = comparison.logarithms(layout_trials)[list(layout_trials["cell"].unique())]
    full_blocks = blocks.dropna()
    cells = [without_layout(layout, seeds[layout]) for layout in full_blocks]
    logs = {cell: full_blocks.loc[:, [name == cell for name in cells]].to_numpy() for cell in dict.fromkeys(cells)}
    notes = [trials.attrs["warning"]]
    if missing := len(blocks) - len(full_blocks):
        notes.append(f"{missing} of {len(blocks)} blocks lack a layout and are left out")
    notes += [f"{cell} has fewer than two layouts or blocks" for cell, array in logs.items() if min(array.shape) < 2]
    usable_logs = {cell: array for cell, array in logs.items() if min(array.shape) > 1}
    baseline, metric = without_layout(plan.baseline, seeds.get(plan.baseline, 0)), metrics.find(plan.metric)
    records = [{"cell": cell, "mean": np.exp(array.mean())} | components(array) for cell, array in usable_logs.items()]
    notes += [
        f"the layouts of {record['cell']} differ by less than chance alone would have it, as in one study in "
        f"{1 / _TAIL:.0f} where layouts have no effect: the upper limit of 0 limits nothing"
        for record in records
        if record["between_high"] == 0 < record["within"]
    ]
    tables = pd.DataFrame(records), differences(usable_logs, baseline, metric)
    for table in tables:
        table.attrs = trials.attrs | {"warning": "; ".join(filter(None, notes)), "baseline": baseline, "metric": metric}
    return tables


def components(logs: np.ndarray) -> dict[str, float]:
    """Return the numbers `layouts` and `blocks`, and the standard deviations `between` layouts and `within` one, with
    95% intervals (`between_low` and so on). `logs`: logarithms, (blocks, layouts), two of each or more. A deviation of
    0.01 is 1%.

    Two-way analysis of variance: what a block does to all layouts is in neither. The interval between layouts is that
    of Williams (Biometrika 49, 1962; compared with others by Boardman, Biometrics 30, 1974), cut off at 0."""
    blocks, layouts = logs.shape
    layout_freedom, error_freedom = layouts - 1, (layouts - 1) * (blocks - 1)
    means = logs.mean(axis=0)
    residuals = logs - logs.mean(axis=1, keepdims=True) - means + logs.mean()
    between, within = blocks * means.var(ddof=1), (residuals**2).sum() / error_freedom
    variances = {"between": (between - within) / blocks, "within": within}
    for end, tail in (("low", _TAIL), ("high", 1 - _TAIL)):  # chdtri takes the upper tail
        excess = between - within * scipy.special.fdtri(layout_freedom, error_freedom, 1 - tail)
        variances[f"between_{end}"] = layout_freedom * excess / (blocks * scipy.special.chdtri(layout_freedom, tail))
        variances[f"within_{end}"] = error_freedom * within / scipy.special.chdtri(error_freedom, tail)
    return {"layouts": layouts, "blocks": blocks} | {key: max(value, 0.0) ** 0.5 for key, value in variances.items()}


def differences(logs: dict[str, np.ndarray], baseline: str, metric: metrics.Metric) -> pd.DataFrame:
    """Return one row per cell but the baseline; no row without the baseline. `logs`: by cell, logarithms (blocks,
    layouts) of common blocks.

    Columns: cell; ratio (geometric mean, cell / baseline); low, high, verdict; fixed_low, fixed_high, fixed_verdict;
    `survives` (both verdicts claim a difference); least, most (ratios of one layout each). `low` to `verdict` take
    layout as a random effect: Welch's t of the means of N layouts, with N - 1 to 2 (N - 1) degrees of freedom.
    `fixed_*` are of the trials alone, by the t-interval of the paired blocks. Intervals are simultaneous 95% CI
    (Bonferroni)."""
    cells = [cell for cell in logs if cell != baseline and baseline in logs]
    rows, base = [], logs.get(baseline)
    for cell in cells:
        means, base_means = logs[cell].mean(axis=0), base.mean(axis=0)
        mean, error, freedom = welch(means, base_means)
        row = {"cell": cell, "ratio": np.exp(mean)}
        paired = logs[cell].mean(axis=1) - base.mean(axis=1)
        fixed = standard_error(paired), len(paired) - 1
        for kind, (kind_error, degrees) in {"": (error, freedom), "fixed_": fixed}.items():
            half = quantile(degrees, len(cells)) * kind_error
            row |= {f"{kind}low": np.exp(mean - half), f"{kind}high": np.exp(mean + half)}
            row[f"{kind}verdict"] = metric.verdict_on(mean) if abs(mean) > half else Verdict.NO_DIFFERENCE
        row["survives"] = Verdict.NO_DIFFERENCE not in (row["verdict"], row["fixed_verdict"])
        rows.append(
            row | {"least": np.exp(means.min() - base_means.max()), "most": np.exp(means.max() - base_means.min())}
        )
    return pd.DataFrame(rows)
