"""Trials of two versions, or of two runs -> ratios after / before, with intervals and verdicts. Pure."""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.variances import standard_error, welch
from rustimg_lab.model import metrics
from rustimg_lab.model.names import TWIN


def compare(
    before: pd.DataFrame, after: pd.DataFrame, metric: metrics.Metric = comparison.TIME, paired: bool = False
) -> pd.DataFrame:
    """Compare the cells that two sets of trials have in common: one row per cell, as ratios after / before.

    `before` and `after` are frames of `comparison.samples`. With `paired` they are of one study: a ratio is the mean
    over the blocks that have both, and the A/A control measures its cell before a second time. Otherwise they have no
    common block, and the interval is Welch's for the difference of the mean logarithms. Welch's interval has the noise
    within each study, but no drift of the machine between the two. Columns: cell; trials (of both); blocks (the fewer
    of the two); error (standard error of the ratio's logarithm); freedom (its degrees of freedom); alarm (the larger
    `comparison.alarm` of the controls); and the ratio, intervals and verdict of `compare`, NaN below two blocks.
    `attrs`: floor (the ratio that a claim must exceed; of two studies the farther end of their controls), and a warning
    on the alarm. Raises LabError when a value is not above 0."""
    tables = [comparison.logarithms(samples) for samples in (before, after)]
    alarm, floor = _noise_bounds(*tables, paired, before.attrs.get("resolution", 0.0))
    cells = [cell for cell in before["cell"].unique() if cell in tables[1] and not cell.endswith(TWIN)]
    rows = []
    for cell in cells:
        trials = [table[cell].count() for table in tables]
        mean, error, freedom, blocks = (_paired_estimate if paired else _unpaired_estimate)(cell, *tables)
        row = {"cell": cell, "trials": sum(trials), "blocks": blocks, "error": error, "freedom": freedom}
        row["alarm"] = alarm
        row |= comparison.NOTHING
        if blocks > 1:
            row |= comparison.judge(mean, error, freedom, len(cells), floor, metric)
        rows.append(row)
    columns = ["cell", "trials", "blocks", "error", "freedom", "alarm", *comparison.NUMBERS, "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    warning = comparison.alarm_in_words(alarm) if table["blocks"].gt(1).any() else ""
    table.attrs = {"floor": float(np.exp(floor)), "warning": warning}
    return table


def block_sd(samples: pd.DataFrame) -> float:
    """Return the standard deviation, on the logarithmic scale, of what the machine does to a whole block. This is the
    variance component of blocks in a two-way layout of complete blocks and cells (Searle, Casella, McCulloch: Variance
    Components, 1992). NaN with fewer than two blocks or names. `samples` is what `comparison.samples` returns."""
    table = comparison.logarithms(samples).dropna().to_numpy()
    blocks, names = table.shape
    if min(blocks, names) < 2:
        return np.nan
    means = table.mean(axis=1)
    residuals = table - means[:, None] - table.mean(axis=0) + table.mean()
    noise = (residuals**2).sum() / ((blocks - 1) * (names - 1))
    return float(np.sqrt(max(0.0, means.var(ddof=1) - noise / names)))


def _paired_estimate(cell: str, before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, float, int]:
    """Return the mean logarithm of a cell's ratio over the blocks, standard error, degrees of freedom and blocks."""
    same_image = [name for name in (cell, cell + TWIN) if name in before]
    logs = (after[cell] - before[same_image].mean(axis=1)).dropna().to_numpy()
    return logs.mean() if len(logs) else np.nan, standard_error(logs), len(logs) - 1, len(logs)


def _unpaired_estimate(cell: str, before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, float, int]:
    """Return the four numbers of `_paired_estimate` for two studies that have no common block."""
    logs = [table[cell].dropna().to_numpy() for table in (after, before)]
    fewest = min(map(len, logs))
    return (*welch(*logs), fewest) if fewest > 1 else (np.nan, np.nan, np.nan, fewest)


def _noise_bounds(before: pd.DataFrame, after: pd.DataFrame, paired: bool, resolution: float) -> tuple[float, float]:
    """Return the alarm of the A/A control and the floor that a claim must exceed, as logarithms: of one study, or the
    larger of two. The tables are `comparison.logarithms`."""
    if paired:
        alarm = comparison.alarm(_control_differences(before), before.shape[1] + after.shape[1] - 1, resolution)
        return alarm, alarm
    controls = [(_control_differences(table), table.shape[1] - 1) for table in (before, after)]
    alarm = max(comparison.alarm(control, comparisons, resolution) for control, comparisons in controls)
    return alarm, max(comparison.control_end(control) for control, _ in controls)


def _control_differences(table: pd.DataFrame) -> np.ndarray:
    """Return the difference between a study's control and its image in each block; empty without a control."""
    twin = next((cell for cell in table if cell.endswith(TWIN) and cell.removesuffix(TWIN) in table), "")
    return comparison.control_differences(table, twin) if twin else np.array([])
