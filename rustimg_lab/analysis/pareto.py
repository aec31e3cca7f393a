"""Cells to choose from -> which of them no other beats, and how sure that is."""

import numpy as np
import pandas as pd

from rustimg_lab.model import metrics

DRAWS = 400


def front(table: pd.DataFrame) -> np.ndarray:
    """Return which cells are on the Pareto front: bool, by row. Such a cell has every criterion of the run. No other
    cell is at least as good in all criteria and better in one. `table` is that of `recommendation.candidates`."""
    names = [name for name in metrics.CRITERIA if table[name].notna().any()]
    values = table[names].to_numpy(float)
    complete = ~np.isnan(values).any(axis=1)
    return complete & ~_is_beaten(values, values[complete])


def front_share(table: pd.DataFrame, paired: dict[str, np.ndarray]) -> np.ndarray:
    """Return the fraction of draws in which each cell is on the front; NaN for a cell that lacks a criterion. If a cell
    with all criteria has no interval, it may beat all, so the result is NaN for all. `paired`: draws of the criteria
    that were measured, (draws, cells)."""
    names = [name for name in metrics.CRITERIA if table[name].notna().any()]
    drawn = [paired.get(name, table[name].to_numpy(float)[None])[:DRAWS] for name in names]
    values = np.stack(np.broadcast_arrays(*drawn), axis=-1)
    unknown = np.isnan(values).any(axis=(0, 2))
    if (unknown & table[names].notna().all(axis=1).to_numpy()).any():
        return np.full(len(table), np.nan)
    return np.where(unknown, np.nan, 1 - _is_beaten(values, values).mean(axis=0))


def _is_beaten(values: np.ndarray, rivals: np.ndarray) -> np.ndarray:
    """Return whether another cell is at least as good in all criteria, and better in one. `values`: (..., cells,
    criteria)."""
    cells, rivals = values[..., :, None, :], rivals[..., None, :, :]
    return ((rivals <= cells).all(axis=-1) & (rivals < cells).any(axis=-1)).any(axis=-1)


def axis_pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of criteria that the front is drawn by: the first criterion that the run has measured
    (`transfer` where it has sizes), with each of the others."""
    criteria = [name for name in metrics.CRITERIA if table[name].notna().any()]
    return [(criteria[0], name) for name in criteria[1:]]
