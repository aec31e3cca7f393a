"""Deploy studies -> the time until a machine without the image answers, at any bandwidth. Pure.

The model of a cell's time has two parts: what hangs on the line, its compressed bytes over the bandwidth times a factor
near 1, and what does not: unpacking and starting. Both parts come from the bandwidths that were measured, but one, by
least squares of the relative errors (scipy's nnls); the one that was held out says how good the model is.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy

from rustimg_lab.analysis import comparison
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.model import metrics, names, studies
from rustimg_lab.store.runs import RunData

HELD_OUT_MBIT = 100
_MEANS = [metrics.PULL_S, metrics.PULLED_BYTES, metrics.MANIFEST_BYTES, metrics.STORED_BYTES, metrics.BASE_STORED_BYTES]


def is_measured(run: RunData) -> bool:
    """Whether a run has deploys to machines that had nothing, at two bandwidths or more."""
    return len(comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY)) > 1


def times(run: RunData) -> pd.DataFrame:
    """A row per cell, what the machine had before, and bandwidth: study, cell, base, has, bandwidth_mbit, trials,
    seconds (geometric mean), low, high (95% interval), and means of `_MEANS`; the twin is left out. Machines that had
    nothing come first. Raises LabError without a study of deploys."""
    if not is_measured(run):
        raise LabError(f"run '{run.name}' has no study of deploys; `./lab measure --run NAME --study deploy` makes one")
    found = []
    for name in comparison.find_studies(run, studies.DEPLOY):
        about = run.environment.studies[name].parameters
        own = comparison.samples(run, name, metrics.FIRST_RESPONSE_S)
        table = comparison.summarize(own).rename(columns={"mean": "seconds"})
        table = table[~table["cell"].str.endswith(names.TWIN)].merge(own[["cell", "base"]].drop_duplicates("cell"))
        for metric in _MEANS:
            table[metric] = table["cell"].map(comparison.samples(run, name, metric).groupby("cell")["value"].mean())
        found.append(table.assign(study=name, has=about["has"], bandwidth_mbit=about["bandwidth_mbit"]))
    result = pd.concat(found, ignore_index=True)
    result = result.sort_values(["has", "bandwidth_mbit"], ascending=[False, True], kind="stable", ignore_index=True)
    result.attrs = {"stand_ins": run.environment.stand_ins}
    return result


def model(table: pd.DataFrame, held_out: int = HELD_OUT_MBIT) -> pd.DataFrame:
    """The model of each cell and of what the machine had before, fitted to all bandwidths but `held_out` (0 for none).
    `table` is `times`. Columns cell, base, has, bytes (pulled), fixed_s, factor, held_out_s (measured), predicted_s,
    error (predicted / measured - 1); these three are NaN where that bandwidth was not measured. What has fewer than two
    bandwidths to fit is left out."""
    lines = []
    for (cell, base, has), own in table.groupby(["cell", "base", "has"], sort=False):
        fitted = own[own["bandwidth_mbit"] != held_out]
        if len(fitted) < 2:
            continue
        size = own[metrics.PULLED_BYTES].mean()
        fixed, factor = _fit(size, fitted["bandwidth_mbit"], fitted["seconds"])
        apart = own.loc[own["bandwidth_mbit"] == held_out, "seconds"]
        measured, predicted = np.nan, np.nan
        if len(apart):
            measured, predicted = apart.iloc[0], fixed + factor * on_line_s(size, held_out)
        lines.append((cell, base, has, size, fixed, factor, measured, predicted, predicted / measured - 1))
    columns = ["cell", "base", "has", "bytes", "fixed_s", "factor", "held_out_s", "predicted_s", "error"]
    found = pd.DataFrame(lines, columns=columns)
    found.attrs = {**table.attrs, "held_out": held_out}
    return found


def _fit(size_bytes: float, bandwidth_mbit: pd.Series, seconds: pd.Series) -> tuple[float, float]:
    """The seconds that do not hang on the line, and the factor of those that do."""
    measured = seconds.to_numpy(float)
    on_line = on_line_s(size_bytes, bandwidth_mbit.to_numpy(float))
    (fixed, factor), _ = scipy.optimize.nnls(
        np.column_stack([1 / measured, on_line / measured]), np.ones(len(measured))
    )
    return fixed, factor


def on_line_s(size_bytes: float, bandwidth_mbit: np.ndarray | float) -> np.ndarray | float:
    """How long so many bytes are on a line of so many Mbit/s, in seconds."""
    return 8 * size_bytes / (bandwidth_mbit * studies.MEGABIT)


def at(cell: pd.Series, bandwidth_mbit: np.ndarray | float) -> np.ndarray | float:
    """Seconds until the first byte at a bandwidth, by one row of `model`."""
    return cell["fixed_s"] + cell["factor"] * on_line_s(cell["bytes"], bandwidth_mbit)


def shared(found: pd.DataFrame) -> pd.DataFrame:
    """Of `model` the cells of which both is known, a machine that had nothing and one that had the base."""
    return found[found.groupby("cell")["has"].transform("nunique") == 2]


def first_response(run: RunData, bandwidth_mbit: float) -> pd.DataFrame:
    """Seconds until a machine that had nothing answers, by a model of each block alone: trials (blocks), mean, low,
    high, by cell, as `comparison.summarize`. The interval is of the noise; `model` has the model's own error. Cells
    without a block of two bandwidths are left out. `run` are `is_measured`."""
    every = []
    for name in comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY):
        bandwidth = run.environment.studies[name].parameters["bandwidth_mbit"]
        seconds = comparison.samples(run, name, metrics.FIRST_RESPONSE_S)
        sizes = comparison.samples(run, name, metrics.PULLED_BYTES)
        both = seconds.merge(sizes[["cell", "block", "value"]], on=["cell", "block"], suffixes=("", "_bytes"))
        every.append(both.assign(bandwidth_mbit=bandwidth))
    lines = []
    for (cell, block), own in pd.concat(every).groupby(["cell", "block"], sort=False):
        if len(own) > 1:
            size = own["value_bytes"].mean()
            fixed, factor = _fit(size, own["bandwidth_mbit"], own["value"])
            lines.append((cell, block, fixed + factor * on_line_s(size, bandwidth_mbit)))
    found = comparison.summarize(pd.DataFrame(lines, columns=["cell", "block", "value"])).set_index("cell")
    return found.astype(float)  # also of no row


def seconds(found: pd.DataFrame, bandwidth_mbit: np.ndarray, services: np.ndarray) -> pd.DataFrame:
    """How long until so many services answer on a machine that had nothing, one after another: a column per cell, a row
    per pair of bandwidth and number (equal shapes). All but the first find the base there. `found` is `shared`."""
    result = {}
    for cell, own in found.groupby("cell", sort=False):
        by = own.set_index("has")
        first, further = (at(by.loc[has], np.ravel(bandwidth_mbit)) for has in (studies.EMPTY, studies.BASE_THERE))
        result[cell] = first + (np.ravel(services) - 1) * further
    return pd.DataFrame(result)


def stored(table: pd.DataFrame, services: Iterable[int]) -> pd.DataFrame:
    """What a machine stores and pulls, a row per cell: bytes on disk of so many services on one base, and bytes pulled
    in 1,000 deploys to machines with nothing and with the base. `table` is `times`."""
    lines = []
    for cell, own in table.groupby("cell", sort=False):
        cold, warm = (own[own["has"] == has] for has in (studies.EMPTY, studies.BASE_THERE))
        whole, base = own[metrics.STORED_BYTES].mean(), warm[metrics.BASE_STORED_BYTES].mean() if len(warm) else 0.0
        pulled = [1000 * each[metrics.PULLED_BYTES].mean() for each in (cold, warm if len(warm) else cold)]
        line = {"cell": cell, "pulled_cold": pulled[0], "pulled_warm": pulled[1]}
        lines.append(line | {f"stored_{count}": base + count * (whole - base) for count in services})
    found = pd.DataFrame(lines)
    found.attrs = dict(table.attrs)
    return found


def against(run: RunData, baseline: str = "", cell: str = "") -> pd.DataFrame:
    """Of a machine that had nothing, `cell` against `baseline` at each bandwidth: columns bandwidth_mbit, seconds and
    baseline_s (geometric means), and what `comparison.compare` tells, by bandwidth. Where one is "" it is the one of
    the others that pulls the most, or the studies' baseline. `attrs` has the substitutes and the warnings. Raises
    LabError for a cell that was not measured."""
    cold = times(run).query("has == @studies.EMPTY")
    baseline = baseline or run.environment.studies[cold["study"].iloc[0]].baseline
    if not cell:
        others = cold[cold["cell"] != baseline.removesuffix(names.TWIN)]
        cell = others.loc[others[metrics.PULLED_BYTES].idxmax(), "cell"] if len(others) else baseline
    for name in (baseline, cell):
        if name.removesuffix(names.TWIN) not in set(cold["cell"]):
            raise unknown("cell that was deployed", name, cold["cell"].unique())
    found, warnings = [], []
    for name in comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY):
        plan = run.environment.studies[name]
        means = comparison.summarize(comparison.samples(run, name, metrics.FIRST_RESPONSE_S)).set_index("cell")["mean"]
        if baseline not in means:
            continue
        ratios = comparison.of_study(run, name, metrics.FIRST_RESPONSE_S, baseline)
        own = ratios[ratios["cell"] == cell].assign(seconds=means.get(cell), baseline_s=means[baseline])
        found.append(own.assign(bandwidth_mbit=plan.parameters["bandwidth_mbit"]))
        if note := comparison.note_on(ratios, cell):
            warnings.append(f"{name}: {note}")
    if not found:  # of a control
        raise unknown("cell that was deployed", baseline, cold["cell"].unique())
    result = pd.concat(found, ignore_index=True).sort_values("bandwidth_mbit", ignore_index=True)
    result.attrs = {
        "stand_ins": run.environment.stand_ins, "baseline": baseline, "cell": cell,
        "warning": "; ".join(warnings),
    }  # fmt: skip
    return result
