"""Trials of two versions, or of two runs -> ratios after / before, with intervals and verdicts. Pure."""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.variances import standard_error, welch
from rustimg_lab.model import metrics
from rustimg_lab.model.names import TWIN


def between(
    before: pd.DataFrame, after: pd.DataFrame, about: metrics.Metric = comparison.TIME, paired: bool = False
) -> pd.DataFrame:
    """Compare the cells that two sets of trials (`comparison.samples`) have both: one row per cell, as ratios after /
    before.

    `paired` trials are of one study: a ratio is the mean over the blocks that have both, and the twin is a second
    measurement of its cell before. Others share no block: the interval is Welch's for the difference of the mean
    logarithms, with the noise within each study and no shift of the machine between them. Columns: cell, trials (of
    both), blocks (the fewer), error (standard error of the ratio's logarithm), freedom, alarm (`comparison.alarm`, the
    larger), and what `compare` returns of a ratio. `attrs`: the floor that a claim must be beyond, and a warning about
    the alarm. Raises LabError when a value is not above 0.
    """
    tables = [comparison.logarithms(each) for each in (before, after)]
    alarm, floor = _noise_of(*tables, paired, before.attrs.get("resolution", 0.0))
    cells = [cell for cell in before["cell"].unique() if cell in tables[1] and not cell.endswith(TWIN)]
    rows = []
    for cell in cells:
        trials = [table[cell].count() for table in tables]
        mean, error, freedom, blocks = (_of_pairs if paired else _of_two)(cell, *tables)
        row = {"cell": cell, "trials": sum(trials), "blocks": blocks, "error": error, "freedom": freedom}
        row["alarm"] = alarm
        row |= comparison.NOTHING
        if blocks > 1:
            row |= comparison.judged(mean, error, freedom, len(cells), floor, about)
        rows.append(row)
    columns = ["cell", "trials", "blocks", "error", "freedom", "alarm", *comparison.NUMBERS, "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    warning = comparison.alarm_in_words(alarm) if table["blocks"].gt(1).any() else ""
    table.attrs = {"floor": float(np.exp(floor)), "warning": warning}
    return table


def block_sd(samples: pd.DataFrame) -> float:
    """Return the standard deviation of what the machine does to a whole block, on the logarithmic scale: the variance
    component of blocks in a two-way layout (Searle, Casella, McCulloch: Variance Components, 1992), of complete blocks
    of `comparison.samples`. NaN with fewer than two blocks or names."""
    table = comparison.logarithms(samples).dropna().to_numpy()
    blocks, names = table.shape
    if min(blocks, names) < 2:
        return np.nan
    means = table.mean(axis=1)
    rest = table - means[:, None] - table.mean(axis=0) + table.mean()
    noise = (rest**2).sum() / ((blocks - 1) * (names - 1))
    return float(np.sqrt(max(0.0, means.var(ddof=1) - noise / names)))


def _of_pairs(cell: str, before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, float, int]:
    """The mean logarithm of a cell's ratio over the blocks, its standard error, degrees of freedom, and the blocks."""
    same_image = [each for each in (cell, cell + TWIN) if each in before]
    logs = (after[cell] - before[same_image].mean(axis=1)).dropna().to_numpy()
    return logs.mean() if len(logs) else np.nan, standard_error(logs), len(logs) - 1, len(logs)


def _of_two(cell: str, before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, float, int]:
    """As `_of_pairs`, of two studies that share no block."""
    both = [table[cell].dropna().to_numpy() for table in (after, before)]
    fewest = min(map(len, both))
    return (*welch(*both), fewest) if fewest > 1 else (np.nan, np.nan, np.nan, fewest)


def _noise_of(before: pd.DataFrame, after: pd.DataFrame, paired: bool, resolution: float) -> tuple[float, float]:
    """The alarm and what a claim must be beyond, as logarithms: of one study, or the larger of two (`logarithms`)."""
    if paired:
        alarm = comparison.alarm(_control(before), before.shape[1] + after.shape[1] - 1, resolution)
        return alarm, alarm
    controls = [(_control(table), table.shape[1] - 1) for table in (before, after)]
    alarm = max(comparison.alarm(control, comparisons, resolution) for control, comparisons in controls)
    return alarm, max(comparison.control_end(control) for control, _ in controls)


def _control(table: pd.DataFrame) -> np.ndarray:
    """What the control of a study differs by from its image in each block; nothing where it has none."""
    twin = next((cell for cell in table if cell.endswith(TWIN) and cell.removesuffix(TWIN) in table), "")
    return comparison.control_differences(table, twin) if twin else np.array([])
