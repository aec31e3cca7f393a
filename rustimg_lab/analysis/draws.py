"""What a study has measured of each cell, and draws of it: about its own mean, and about its ratio to the baseline."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.variances import draw_means
from rustimg_lab.model.names import TWIN
from rustimg_lab.store.runs import RunData

DRAWS = 4000
Values = dict[str, np.ndarray]  # by what was measured, arrays (draws, cells)


@dataclass(frozen=True)
class Draws:
    """`DRAWS` draws of each cell: about the own means, and by the ratios to a baseline."""

    cell_draws: Values = field(default_factory=dict)
    ratio_draws: Values = field(default_factory=dict)


def draw_metric(
    run: RunData, study: str, metric: str, cells: pd.Index, generator: np.random.Generator
) -> tuple[pd.Series, np.ndarray, np.ndarray, str]:
    """Return by cell the metric's mean, draws about that mean, draws by the ratio to the baseline, and the study's
    warning. Draws are arrays (`DRAWS`, cells), in the unit of the metric.

    The mean is the baseline's times the ratio to the baseline, over the blocks that have both. Plain means of cells
    that failed in other blocks would be of other conditions of the machine. Without a ratio it is the plain mean. All
    ratios have the baseline's noise in them, so draws by ratios are correlated as the blocks are. Where the A/A control
    differs from its image, any draw may be wrong by that difference. Without a control draws are NaN.
    """
    samples = comparison.samples(run, study, metric)
    summary = comparison.summarize(samples).set_index("cell")
    ratios = comparison.of_study(run, study, metric)
    baseline, warning = ratios.attrs["baseline"], ratios.attrs["warning"]
    cell_summary = summary.reindex(cells)
    mean = np.exp(np.log(summary["mean"].reindex([baseline, baseline + TWIN])).mean())  # of the image's two names
    ratios = ratios[~ratios["is_twin"]].set_index("cell").reindex(cells)
    differences = comparison.differences(comparison.logarithms(samples), baseline).reindex(columns=cells).to_numpy()
    ratios = ratios.rename(columns={"ratio": "mean", "pairs": "trials"})
    paired = mean * draw_means(ratios, DRAWS, generator, differences)
    value = (mean * ratios["mean"]).fillna(cell_summary["mean"])
    if baseline in cells:
        paired[:, cells.get_loc(baseline)] = value[baseline] = mean
    own_draws = draw_means(cell_summary.assign(mean=value), DRAWS, generator)
    if (floor := ratios.attrs["floor"]) > 1:
        offset = np.log(floor) if np.isfinite(floor) else np.nan
        error = np.exp(offset * generator.uniform(-1, 1, paired.shape))
        own_draws, paired = own_draws * error, paired * error
    return value, own_draws, paired, warning
