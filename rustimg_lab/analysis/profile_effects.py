"""What a build profile changes compared with a reference profile: sizes, speed, memory. Pure.

A profile is held against a reference profile on the same base with the same allocator: what it adds to its base
exactly, the rest by the run's studies of the same cells, with the intervals and verdicts of `comparison`.
"""

import numpy as np
import pandas as pd

from rustimg_lab.analysis import cells, comparison
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.store.runs import RunData

REFERENCE = "optimized"
COLUMNS = ["profile", "base", "allocator", "stand_in", "criterion", "ratio", "low", "high", "verdict"]


def of_profiles(run: RunData, workload: str = "", reference: str = REFERENCE) -> pd.DataFrame:
    """Return one row per cell of another profile and criterion: `COLUMNS`, with the ratio to the reference's cell, the
    95% interval (NaN where exact) and the verdict. Less is better in all criteria. Without the reference in the run,
    and for what was not measured of both cells, there is no row. `attrs`: reference, and notes of the studies. Raises
    LabError when no cell works."""
    table = cells.working_cells(run, "compare")
    is_reference = table["profile"] == reference
    studies = [(metric, comparison.study_of(run, metric, workload)) for metric in metrics.MEASURED.values()]
    rows, notes = [], []
    for baseline, row in table[is_reference].iterrows():
        variants = table[table["base"].eq(row["base"]) & table["allocator"].eq(row["allocator"]) & ~is_reference]
        for metric in metrics.EXACT:
            for cell, ratio in (variants[metric] / row[metric]).dropna().items():
                verdict = Verdict.LESS if ratio < 1 else Verdict.MORE if ratio > 1 else Verdict.EQUAL
                rows.append((cell, metric.phrase, ratio, np.nan, np.nan, verdict))
        for metric, study in studies:
            if not study or baseline not in set(comparison.samples(run, study, metric)["cell"]):
                continue
            ratios = comparison.of_study(run, study, metric, baseline)
            subject = f"{metric.phrase} beside {cell_in_words(baseline, ratios.attrs)}"
            notes.append(f"{subject}: {ratios.attrs['warning']}" if ratios.attrs["warning"] else "")
            ratios = ratios[ratios["cell"].isin(variants.index) & (ratios["pairs"] > 1)].assign(criterion=metric.phrase)
            rows += ratios[["cell", *COLUMNS[4:]]].itertuples(index=False, name=None)
    result = pd.DataFrame(rows, columns=["cell", *COLUMNS[4:]])
    result = table[COLUMNS[:4]].merge(result, left_index=True, right_on="cell")[COLUMNS].reset_index(drop=True)
    result.attrs = {"reference": reference, "notes": list(dict.fromkeys(filter(None, notes)))}
    return result
