"""Cells to choose from -> which of them no other beats, and how sure that is."""

import numpy as np
import pandas as pd

from rustimg_lab.model import metrics

DRAWS = 400


def front(table: pd.DataFrame) -> np.ndarray:
    """Return which cells no other beats in the run's criteria: bool, by row of `recommendation.candidates`."""
    names = [name for name in metrics.CRITERIA if table[name].notna().any()]
    values = table[names].to_numpy(float)
    complete = ~np.isnan(values).any(axis=1)
    return complete & ~_beaten(values, values[complete])


def share(table: pd.DataFrame, paired: dict[str, np.ndarray]) -> np.ndarray:
    """Return the share of draws in which each cell is on the front: NaN where it lacks a criterion, and for all where
    another has no interval. `paired`: draws of the criteria that were measured, (draws, cells)."""
    names = [name for name in metrics.CRITERIA if table[name].notna().any()]
    drawn = [paired.get(name, table[name].to_numpy(float)[None])[:DRAWS] for name in names]
    values = np.stack(np.broadcast_arrays(*drawn), axis=-1)
    unknown = np.isnan(values).any(axis=(0, 2))
    if (unknown & table[names].notna().all(axis=1).to_numpy()).any():
        return np.full(len(table), np.nan)
    return np.where(unknown, np.nan, 1 - _beaten(values, values).mean(axis=0))


def _beaten(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(..., cells, criteria) -> whether one of the others is at least as good in all, and better in one."""
    own, others = values[..., :, None, :], others[..., None, :, :]
    return ((others <= own).all(axis=-1) & (others < own).any(axis=-1)).any(axis=-1)


def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the criteria of each plot: the first that the run has measured, with each of the others."""
    known = [name for name in metrics.CRITERIA if table[name].notna().any()]
    return [(known[0], name) for name in known[1:]]
