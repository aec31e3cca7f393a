"""What a study has measured of each cell, and draws of what that may be by its noise.

About each cell's own mean where it is checked against a limit, and about its ratio to the study's baseline, paired by
block, where cells are compared.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.variances import drawn
from rustimg_lab.model.names import TWIN
from rustimg_lab.store.runs import RunData

DRAWS = 4000
Values = dict[str, np.ndarray]  # by what was measured, arrays (draws, cells)


@dataclass(frozen=True)
class Draws:
    """`DRAWS` draws of each cell: about the own means, and by the ratios to a baseline."""

    own: Values = field(default_factory=dict)
    paired: Values = field(default_factory=dict)


def measured(
    run: RunData, study: str, metric: str, cells: pd.Index, generator: np.random.Generator
) -> tuple[pd.Series, np.ndarray, np.ndarray, str]:
    """Per cell the metric's mean, its draws about that, those by the ratio to the baseline, and the study's warning.

    The mean is the baseline's times the ratio to it, over the blocks that have both: of cells that lost other blocks
    the plain means would be of other conditions of the machine. Where there is no ratio it is the plain mean. Where the
    A/A control is apart from its own image, what it is apart by, and all below, may be the error of any draw; without
    one no draw is known.
    """
    everything = comparison.summarize(comparison.samples(run, study, metric)).set_index("cell")
    ratios = comparison.of_study(run, study, metric)
    baseline, warning = ratios.attrs["baseline"], ratios.attrs["warning"]
    own = everything.reindex(cells)
    mean = np.exp(np.log(everything["mean"].reindex([baseline, baseline + TWIN])).mean())  # of the image's two names
    ratios = ratios[~ratios["is_twin"]].set_index("cell").reindex(cells)
    paired = mean * drawn(ratios.rename(columns={"ratio": "mean", "pairs": "trials"}), DRAWS, generator)
    value = (mean * ratios["ratio"]).fillna(own["mean"])
    if baseline in cells:
        paired[:, cells.get_loc(baseline)] = value[baseline] = mean
    about_own = drawn(own.assign(mean=value), DRAWS, generator)
    if (floor := ratios.attrs["floor"]) > 1:
        apart = np.log(floor) if np.isfinite(floor) else np.nan
        error = np.exp(apart * generator.uniform(-1, 1, paired.shape))
        about_own, paired = about_own * error, paired * error
    return value, about_own, paired, warning
