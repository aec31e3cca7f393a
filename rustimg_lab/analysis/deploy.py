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
from rustimg_lab.errors import LabError, unknown_name
from rustimg_lab.model import metrics, names, studies
from rustimg_lab.store.runs import RunData

HELD_OUT_MBIT = 100
_MEANS = [metrics.PULL_S, metrics.PULLED_BYTES, metrics.MANIFEST_BYTES, metrics.STORED_BYTES, metrics.BASE_STORED_BYTES]


def is_measured(run: RunData) -> bool:
    """Return whether a run has deploys to machines that had nothing, at two bandwidths or more."""
    return len(comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY)) > 1


def times(run: RunData) -> pd.DataFrame:
    """Return one row per cell, what the machine had before, and bandwidth; machines that had nothing come first.
    Columns: study, cell, base, has, bandwidth_mbit, trials, seconds (geometric mean), low and high (its 95% interval).
    Further columns are the means pull_s, pulled_bytes, manifest_bytes, stored_bytes and base_stored_bytes. The A/A
    control is left out. Raises LabError unless `is_measured`."""
    if not is_measured(run):
        count = len(comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY))
        extent = "deploys at one bandwidth only, and needs two" if count else "no study of deploys"
        raise LabError(f"run '{run.name}' has {extent}; `./lab measure --run NAME --study deploy` makes them")
    tables = []
    for name in comparison.find_studies(run, studies.DEPLOY):
        parameters = run.environment.studies[name].parameters
        trials = comparison.samples(run, name, metrics.FIRST_RESPONSE_S)
        table = comparison.summarize(trials).rename(columns={"mean": "seconds"})
        table = table[~table["cell"].str.endswith(names.TWIN)].merge(trials[["cell", "base"]].drop_duplicates("cell"))
        for metric in _MEANS:
            table[metric] = table["cell"].map(comparison.samples(run, name, metric).groupby("cell")["value"].mean())
        tables.append(table.assign(study=name, has=parameters["has"], bandwidth_mbit=parameters["bandwidth_mbit"]))
    result = pd.concat(tables, ignore_index=True)
    result = result.sort_values(["has", "bandwidth_mbit"], ascending=[False, True], kind="stable", ignore_index=True)
    result.attrs = {"stand_ins": run.environment.stand_ins}
    return result


def model(table: pd.DataFrame, held_out: int = HELD_OUT_MBIT) -> pd.DataFrame:
    """Return the model of each cell and of what the machine had before, fitted to all bandwidths but `held_out` (0 for
    none). `table` is what `times` returns. Columns: cell, base, has, bytes (pulled), fixed_s, factor, held_out_s
    (measured), predicted_s, error (predicted / measured - 1). The last three are NaN where that bandwidth was not
    measured. A cell with fewer than two bandwidths to fit is left out."""
    lines = []
    for (cell, base, has), rows in table.groupby(["cell", "base", "has"], sort=False):
        fitted = rows[rows["bandwidth_mbit"] != held_out]
        if len(fitted) < 2:
            continue
        size = rows[metrics.PULLED_BYTES].mean()
        fixed, factor = _fit(size, fitted["bandwidth_mbit"], fitted["seconds"])
        held_out_s = rows.loc[rows["bandwidth_mbit"] == held_out, "seconds"]
        measured, predicted = np.nan, np.nan
        if len(held_out_s):
            measured, predicted = held_out_s.iloc[0], fixed + factor * transfer_s(size, held_out)
        lines.append((cell, base, has, size, fixed, factor, measured, predicted, predicted / measured - 1))
    columns = ["cell", "base", "has", "bytes", "fixed_s", "factor", "held_out_s", "predicted_s", "error"]
    models = pd.DataFrame(lines, columns=columns)
    models.attrs = {**table.attrs, "held_out": held_out}
    return models


def _fit(size_bytes: float, bandwidth_mbit: pd.Series, seconds: pd.Series) -> tuple[float, float]:
    """Return the seconds that do not depend on the link, and the factor of those that do."""
    measured = seconds.to_numpy(float)
    on_line = transfer_s(size_bytes, bandwidth_mbit.to_numpy(float))
    (fixed, factor), _ = scipy.optimize.nnls(
        np.column_stack([1 / measured, on_line / measured]), np.ones(len(measured))
    )
    return fixed, factor


def transfer_s(size_bytes: float, bandwidth_mbit: np.ndarray | float) -> np.ndarray | float:
    """Return how long so many bytes take on a link of so many Mbit/s, in seconds."""
    return 8 * size_bytes / (bandwidth_mbit * studies.MEGABIT)


def seconds_at(cell: pd.Series, bandwidth_mbit: np.ndarray | float) -> np.ndarray | float:
    """Return the seconds until the first byte at a bandwidth (Mbit/s), by one row of `model`."""
    return cell["fixed_s"] + cell["factor"] * transfer_s(cell["bytes"], bandwidth_mbit)


def complete_models(models: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `model` for cells with both kinds of machine: those with nothing, and those with the base."""
    return models[models.groupby("cell")["has"].transform("nunique") == 2]


def first_response(run: RunData, bandwidth_mbit: float) -> pd.DataFrame:
    """Return the seconds until a machine that had nothing answers, by cell, from a model of each block's times alone.
    Columns: trials (blocks), mean, low and high, as in `comparison.summarize`. The interval is of the noise; the error
    of the model itself is in `model`. A cell without two bandwidths in any block is left out. `run` must be
    `is_measured`."""
    tables = []
    for name in comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY):
        bandwidth = run.environment.studies[name].parameters["bandwidth_mbit"]
        responses = comparison.samples(run, name, metrics.FIRST_RESPONSE_S)
        sizes = comparison.samples(run, name, metrics.PULLED_BYTES)
        pairs = responses.merge(sizes[["cell", "block", "value"]], on=["cell", "block"], suffixes=("", "_bytes"))
        tables.append(pairs.assign(bandwidth_mbit=bandwidth))
    lines = []
    for (cell, block), rows in pd.concat(tables).groupby(["cell", "block"], sort=False):
        if len(rows) > 1:
            size = rows["value_bytes"].mean()
            fixed, factor = _fit(size, rows["bandwidth_mbit"], rows["value"])
            lines.append((cell, block, fixed + factor * transfer_s(size, bandwidth_mbit)))
    summary = comparison.summarize(pd.DataFrame(lines, columns=["cell", "block", "value"])).set_index("cell")
    return summary.astype(float)  # also of no row


def service_seconds(models: pd.DataFrame, bandwidth_mbit: np.ndarray, services: np.ndarray) -> pd.DataFrame:
    """Return the seconds until so many services answer on a machine that had nothing: one column per cell, one row per
    pair of bandwidth (Mbit/s) and number (equal shapes). Services come one after another; all but the first find the
    base there. `models` is what `shared` returns."""
    result = {}
    for cell, group in models.groupby("cell", sort=False):
        rows = group.set_index("has")
        first, further = (
            seconds_at(rows.loc[has], np.ravel(bandwidth_mbit)) for has in (studies.EMPTY, studies.BASE_THERE)
        )
        result[cell] = first + (np.ravel(services) - 1) * further
    return pd.DataFrame(result)


def stored_bytes(table: pd.DataFrame, services: Iterable[int]) -> pd.DataFrame:
    """Return what a machine stores and pulls, in bytes: one row per cell. `stored_N` is on disk for N services on one
    base, which counts once. `pulled_cold` and `pulled_warm` are pulled in 1,000 deploys, to machines that have nothing
    and to machines that have the base. `table` is what `times` returns."""
    lines = []
    for cell, rows in table.groupby("cell", sort=False):
        cold, warm = (rows[rows["has"] == has] for has in (studies.EMPTY, studies.BASE_THERE))
        total, base = rows[metrics.STORED_BYTES].mean(), warm[metrics.BASE_STORED_BYTES].mean() if len(warm) else 0.0
        pulled = [1000 * part[metrics.PULLED_BYTES].mean() for part in (cold, warm if len(warm) else cold)]
        line = {"cell": cell, "pulled_cold": pulled[0], "pulled_warm": pulled[1]}
        lines.append(line | {f"stored_{count}": base + count * (total - base) for count in services})
    storage = pd.DataFrame(lines)
    storage.attrs = dict(table.attrs)
    return storage


def compare_cells(run: RunData, baseline: str = "", cell: str = "") -> pd.DataFrame:
    """Return `cell` compared with `baseline` on a machine that had nothing: one row per bandwidth. Columns:
    bandwidth_mbit, seconds and baseline_s (geometric means), and those of `comparison.compare`. Defaults: the studies'
    baseline, and the other cell that pulls the most. `attrs`: stand_ins, baseline, cell, warning. Raises LabError for a
    cell that was not deployed."""
    cold = times(run).query("has == @studies.EMPTY")
    baseline = baseline or run.environment.studies[cold["study"].iloc[0]].baseline
    if not cell:
        candidates = cold[cold["cell"] != baseline.removesuffix(names.TWIN)]
        cell = candidates.loc[candidates[metrics.PULLED_BYTES].idxmax(), "cell"] if len(candidates) else baseline
    for name in (baseline, cell):
        if name.removesuffix(names.TWIN) not in set(cold["cell"]):
            raise unknown_name("cell that was deployed", name, cold["cell"].unique())
    tables, warnings = [], []
    for name in comparison.find_studies(run, studies.DEPLOY, has=studies.EMPTY):
        plan = run.environment.studies[name]
        means = comparison.summarize(comparison.samples(run, name, metrics.FIRST_RESPONSE_S)).set_index("cell")["mean"]
        if baseline not in means:
            continue
        ratios = comparison.of_study(run, name, metrics.FIRST_RESPONSE_S, baseline)
        row = ratios[ratios["cell"] == cell].assign(seconds=means.get(cell), baseline_s=means[baseline])
        tables.append(row.assign(bandwidth_mbit=plan.parameters["bandwidth_mbit"]))
        if note := comparison.ratio_note(ratios, cell):
            warnings.append(f"{name}: {note}")
    if not tables:  # of a control
        raise unknown_name("cell that was deployed", baseline, cold["cell"].unique())
    result = pd.concat(tables, ignore_index=True).sort_values("bandwidth_mbit", ignore_index=True)
    result.attrs = {
        "stand_ins": run.environment.stand_ins, "baseline": baseline, "cell": cell,
        "warning": "; ".join(warnings),
    }  # fmt: skip
    return result
