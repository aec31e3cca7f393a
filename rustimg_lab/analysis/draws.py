"""What a study has measured of each cell, and draws of it: about its own mean, and about its ratio to the baseline."""

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

    The mean is the baseline's times the ratio, over shared blocks (else the plain mean): cells that lost other blocks
    were measured in other conditions. What an A/A control is apart from its image may be the error of any draw; without
    a control no draw is known.
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
