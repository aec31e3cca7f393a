"""Trials of a study -> ratios to a baseline, with intervals and a verdict. Pure.

Trials are paired by block, since what slows a machine for a minute slows a whole block. Of each pair the logarithm of
the ratio is taken, and of those the mean with Student's t-interval: bootstrap intervals (BCa) cover only 82 to 86% at
5 to 30 pairs of such noise, these 94 to 97% (tests/analysis/test_simulations.py). Standard errors are in `variances`.

The A/A control is the baseline's image under a second name. It measures the baseline a second time in each block, so
that cells are compared with the mean of the two. It is also the alarm: where the control differs from its own image,
something else than the image is measured. The study says so, and claims no difference that is not beyond that one.
"""

from collections.abc import Iterable
from math import ceil, inf, log, log2
from typing import Any

import numpy as np
import pandas as pd

from rustimg_lab.analysis import study_notes, variances
from rustimg_lab.analysis.variances import half_interval, quantile
from rustimg_lab.errors import LabError, check_known
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN, cell_in_words
from rustimg_lab.model.studies import USUAL_LOAD
from rustimg_lab.store.runs import RunData, trials

NOISY_RATIO = 1.25  # a study that could not have seen this much says so, in place of "no difference"
SHORT_BLOCKS, FINE_RATIO = 10, 1.05  # a study of fewer blocks that could not have seen this much is called short
HUGE_RATIO = 10  # what could only be told beyond this is not worth its digits

NUMBERS = ("ratio", "low", "high", "low_all", "high_all", "detectable")
NOTHING = dict.fromkeys(NUMBERS, np.nan) | {"verdict": Verdict.TOO_NOISY}

TIME = metrics.Metric("time")


def find_studies(run: RunData, kind: str, **parameters: Any) -> list[str]:
    """Return the names of the run's studies of that kind with those parameters whose baseline has a value."""
    return [name for name in planned_studies(run, kind, **parameters) if has_baseline(run, name)]


def find_study(run: RunData, kind: str, **parameters: Any) -> str:
    """Return the name of the run's study of that kind with those parameters: the first whose baseline has a value, else
    the first. Raises LabError when there is none."""
    matches = planned_studies(run, kind, **parameters)
    if not matches:
        options = ", ".join(f"{key} {value}" for key, value in parameters.items())
        studies = ", ".join(run.environment.studies) or "none"
        raise LabError(f"run '{run.name}' has no {kind} study{options and f' with {options}'}; it has {studies}")
    return next((name for name in matches if has_baseline(run, name)), matches[0])


def studies_of(run: RunData, metric: metrics.Metric, workload: str = "") -> list[str]:
    """Return the names of the studies that measured the metric of the most cells: a run may also have a short study of
    a few. Only studies of `workload` count, if named. The study under the usual load comes first."""
    plans = run.environment.studies
    measured = run.rows[(run.rows["metric"] == metric) & run.rows["ok"]].groupby("study")["cell"].nunique()
    names = [name for name in planned_studies(run, metric.study) if has_baseline(run, name, metric)]
    matches = [name for name in names if workload in ("", plans[name].parameters.get("workload", workload))]
    candidates = [name for name in matches if measured[name] == measured[matches].max()]
    return sorted(
        candidates, key=lambda name: sum(plans[name].parameters.get(key) != value for key, value in USUAL_LOAD.items())
    )


def study_of(run: RunData, metric: metrics.Metric, workload: str = "") -> str:
    """Return the first name that `studies_of` returns; "" for none."""
    return next(iter(studies_of(run, metric, workload)), "")


def planned_studies(run: RunData, kind: str, **parameters: Any) -> list[str]:
    """Return the names of the run's studies of that kind with those parameters, with values or without."""
    return [
        name
        for name, plan in run.environment.studies.items()
        if plan.kind == kind and all(plan.parameters.get(key) == value for key, value in parameters.items())
    ]


def check_workload(run: RunData, workload: str) -> None:
    """Raise LabError, with the nearest name, for a workload that no study of a run has; "" is any workload."""
    workloads = {plan.parameters.get("workload", "") for plan in run.environment.studies.values()} - {""}
    if workload:
        check_known(f"workload of run '{run.name}'", workload, sorted(workloads))


def has_baseline(run: RunData, study: str, metric: str = "") -> bool:
    """Return whether the baseline of a study has a value above 0 of a metric (default: the study's main metric)."""
    plan = run.environment.studies[study]
    trials = samples(run, study, metric or plan.metric)
    return bool((trials["value"][trials["cell"] == plan.baseline] > 0).any())


def excluded_studies(run: RunData) -> dict[str, str]:
    """Return a message by study for each study whose baseline has trials and no number above 0: its
    cells cannot be compared."""
    messages = {}
    for study, plan in run.environment.studies.items():
        baseline_rows = run.rows[(run.rows["study"] == study) & (run.rows["cell"] == plan.baseline)]
        if len(baseline_rows) and not has_baseline(run, study):
            reason = study_notes.last_failure(baseline_rows) or "each is 0, less than could be measured"
            messages[study] = f"{study} is left out: no trial of its baseline {plan.baseline} has a number ({reason})"
    return messages


def of_study(run: RunData, study: str, metric: str = "", baseline: str = "") -> pd.DataFrame:
    """Return the ratios of a study's cells to a baseline, a frame of `compare`, for one metric (default: the main
    metric). The baseline is the study's own unless another cell is named. Raises LabError as `compare` does."""
    plan = run.environment.studies[study]
    metric = metric or plan.metric
    trials = samples(run, study, metric)
    try:
        return compare(trials, baseline or plan.baseline, cells=plan.cells, about=metrics.find(metric))
    except LabError as error:
        phrase = metrics.find(metric).phrase or metric
        raise LabError(f"run '{run.name}', study '{study}', {phrase}: {error}") from None


def samples(run: RunData, study: str, metric: str) -> pd.DataFrame:
    """Return the successful trials of a study without warm-ups, one row per cell and block, as `compare` takes them. A
    trial with several values has their median. A value of 0 of a compared metric is left out with a warning, unless all
    are 0.

    `run` is what `runs.load` returns. Columns: cell, base, profile, allocator, block, order, value (float), by cell.
    `attrs`: warning (what a reader of any number of this study must see, "" for none); stand_ins (substitute bases);
    at_least (cells with a value at the least that can be measured). Values in steps also have `resolution`: the
    logarithm of a step."""
    columns = ["cell", "base", "profile", "allocator", "block", "order"]
    plan = run.environment.studies[study]
    rank = {cell: place for place, cell in enumerate(plan.cells)}
    table = trials(run, study, metric)[[*columns, "value"]].astype({"value": float})
    table = table.groupby(["cell", "block"], sort=False, as_index=False)
    table = table.agg({**dict.fromkeys(columns, "last"), "value": "median"})[[*columns, "value"]]
    table = table.sort_values("cell", key=lambda cells: cells.map(rank), kind="stable", ignore_index=True)
    notes = study_notes.trial_notes(run, study, metric)
    is_zero = table["value"] == 0
    if metric in metrics.COMPARED and is_zero.any() and not is_zero.all():
        reason = "less than could be measured, and is left out"
        notes += [f"in {is_zero.sum()} of {len(table)} trials the {metrics.find(metric).phrase} was 0: {reason}"]
        table = table[~is_zero].reset_index(drop=True)
    at_least = table.loc[table["value"] <= metrics.find(metric).least, "cell"]
    table.attrs = {
        "warning": "; ".join(notes), "stand_ins": run.environment.stand_ins,
        "at_least": list(at_least.unique()),
    }  # fmt: skip
    if metric == metrics.SMALLEST_LIMIT_BYTES and (step := plan.parameters.get("step")):
        halvings = ceil(log2(log(2) / log(step)))  # of the bisection, between a limit and its double
        table.attrs["resolution"] = log(2) / 2**halvings
    return table


def compare(
    samples: pd.DataFrame, baseline: str, *, cells: Iterable[str] = (), about: metrics.Metric = TIME
) -> pd.DataFrame:
    """Return one row per cell other than `baseline`, as ratios cell / baseline; and one for the A/A control, as control
    / its image. If the control's image is the baseline or the cell, the mean of the two in each block counts.

    `samples` has the columns cell, block and value (> 0), one row per trial; only blocks with both of a pair count.
    Columns: cell, is_twin (A/A control), pairs (blocks), freedom (degrees of freedom), ratio (geometric mean), low and
    high (95% interval), low_all and high_all (simultaneous 95% CI: Bonferroni), `detectable`, verdict. `detectable` is
    the minimum detectable effect: the ratio above 1 that such a study finds with a probability of 0.8. `attrs`:
    baseline, those of `samples`, notes (the warning without that on a short study), control, floor, warning (what is
    wrong with the study). `control` is the farthest end of the control's interval, as a ratio above 1. `floor` is the
    ratio that a claim must exceed: 1, `control` where the control differs from its image, or infinite without a
    control.

    Fewer than two pairs have no ratio and no interval (NaN), and the verdict "too noisy". `cells` orders the rows, and
    may name cells without a trial. Without a control all verdicts are "too noisy". A cell in
    `samples.attrs["at_least"]` has an interval open at one end (0 or infinite): its value may be less. No interval is
    narrower than `samples.attrs["resolution"]` (a logarithm) to either side. Raises LabError when the baseline has no
    trial, or a value is not above 0."""
    measured_cells = sorted(samples["cell"].unique())
    if baseline not in measured_cells:
        hint = f"; choose one of {', '.join(measured_cells)}" if measured_cells else ""
        raise LabError(f"the baseline {baseline} has no trial{hint}")
    order = [cell for cell in dict.fromkeys([*cells, *samples["cell"]]) if cell != baseline]
    resolution = samples.attrs.get("resolution", 0.0)
    at_least = samples.attrs.get("at_least", ())
    estimates, control = _estimates(logarithms(samples), baseline, order)
    threshold = alarm(control, len(order), resolution)
    rows = []
    for cell, estimate in zip(order, estimates, strict=True):
        is_twin = cell.endswith(TWIN)
        row = {"cell": cell, "is_twin": is_twin, "pairs": int(estimate.pairs), "freedom": estimate.freedom, **NOTHING}
        if estimate.pairs > 1:
            floor = max(resolution, 0.0 if is_twin else threshold)
            row |= judge(estimate.mean, estimate.error, estimate.freedom, len(order), floor, about)
            references = {cell.removesuffix(TWIN)} if is_twin else {baseline, baseline + TWIN}  # one mean of the two
            row |= _limit_to_resolution(row, resolution, cell in at_least, not references.isdisjoint(at_least))
        rows.append(row)
    ratios = pd.DataFrame(rows, columns=["cell", "is_twin", "pairs", "freedom", *NUMBERS, "verdict"])
    notes = [*filter(None, [samples.attrs.get("warning"), alarm_in_words(threshold)])]
    attrs = {"floor": float(np.exp(threshold)), "control": float(np.exp(control_end(control))), "baseline": baseline}
    ratios.attrs = {**attrs, **samples.attrs, "notes": notes}
    ratios.attrs["warning"] = ratio_note(ratios)
    return ratios


def ratio_note(ratios: pd.DataFrame, cell: str = "") -> str:
    """Return what a reader must know of all ratios of `compare`, or of one cell's; "" for nothing. For a short study,
    that includes the minimum detectable effect of those cells."""
    warning = _few_blocks_note(ratios[ratios["cell"] == cell] if cell else ratios)
    return "; ".join(filter(None, [*ratios.attrs["notes"], warning]))


def _estimates(table: pd.DataFrame, baseline: str, order: list[str]) -> tuple[list[variances.Estimates], np.ndarray]:
    """Return the estimates of each cell of `order`, and the control's differences from its image by block. `table` is
    `logarithms`. A control whose image has no trial has no difference."""
    twins = [cell for cell in order if cell.endswith(TWIN)]
    cells = [cell for cell in order if not cell.endswith(TWIN)]
    table = table.reindex(columns=dict.fromkeys([baseline, *order, *(twin.removesuffix(TWIN) for twin in twins)]))
    controls = {twin: control_differences(table, twin) for twin in twins}
    estimates = variances.estimate(differences(table, baseline)[cells].to_numpy()).by_cell(cells)
    for twin, logs in controls.items():
        estimates |= variances.estimate(logs[:, None]).by_cell([twin])
    return [estimates[cell] for cell in order], next(iter(controls.values()), np.array([]))


def differences(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the logarithm of each cell's ratio to the baseline in each block, NaN without it; an image that has an A/A
    control has the mean of the two. `table` is `logarithms`."""
    means = table.copy()
    for twin in (cell for cell in table if cell.endswith(TWIN)):
        cell = twin.removesuffix(TWIN)
        means[cell] = variances.mean_of_two(table[cell].to_numpy(), table[twin].to_numpy())
    return means.sub(means[baseline], axis=0)


def alarm(control: np.ndarray, comparisons: int, resolution: float) -> float:
    """Return the logarithm that a difference must exceed to be claimed. It is 0, or the control's far end where the
    control differs from its image beyond chance; infinite with fewer than two blocks of a control."""
    if len(control) < 2:
        return inf
    is_apart = abs(control.mean()) > max(half_interval(control, comparisons), resolution)
    return control_end(control) if is_apart else 0.0


def alarm_in_words(threshold: float) -> str:
    """Return what a reader must know of a result of `alarm`; "" where that is 0."""
    if threshold in (0, inf):
        return "" if not threshold else "without trials of the A/A control no difference is claimed"
    return (
        "the A/A control differs from its own image, so something else than the image was measured: no difference of "
        f"{np.exp(threshold) - 1:.1%} or less is claimed"
    )


def _limit_to_resolution(row: dict, resolution: float, cell_is_least: bool, baseline_is_least: bool) -> dict:
    """Return the entries of a row that change where values have a resolution, or are at the measurable minimum."""
    low, high = row["ratio"] / np.exp(resolution), row["ratio"] * np.exp(resolution)
    changed = {name: 0.0 if cell_is_least else min(row[name], low) for name in ("low", "low_all")}
    changed |= {name: inf if baseline_is_least else max(row[name], high) for name in ("high", "high_all")}
    if cell_is_least and baseline_is_least:
        return NOTHING | {"verdict": Verdict.AT_MINIMUM}
    is_apart = changed["low_all"] > 1 or changed["high_all"] < 1
    if (cell_is_least or baseline_is_least) and not is_apart:
        changed |= {"detectable": np.nan, "verdict": Verdict.AT_MINIMUM}
    return changed


def logarithms(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the logarithms of the values: one row per block, one column per cell, NaN without a trial. Raises LabError
    when a value is not above 0."""
    if not (samples["value"] > 0).all():
        raise LabError("a value of 0 or below has no ratio; the trials cannot be compared")
    # As `DataFrame.pivot`, in a sixth of its time: simulations compare thousands of studies.
    blocks, row = np.unique(samples["block"], return_inverse=True)
    cells, column = np.unique(samples["cell"], return_inverse=True)
    table = np.full((len(blocks), len(cells)), np.nan)
    table[row, column] = np.log(samples["value"])
    return pd.DataFrame(table, pd.Index(blocks, name="block"), pd.Index(cells, name="cell"))


def names(table: pd.DataFrame) -> list[str]:
    """Return the names of a frame's cells as a reader sees them."""
    return [cell_in_words(cell, table.attrs) for cell in table["cell"]]


def summarize(samples: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell: columns cell, trials, mean (geometric), low and high (95% interval, NaN with one trial).

    The interval includes the drift of the machine, and is no narrower than the resolution; ratios are in `compare`.
    `low` is 0 for cells in `samples.attrs["at_least"]`, whose values may be less."""
    rows = []
    for cell, values in samples.groupby("cell", sort=False)["value"]:
        logs = np.log(values.to_numpy())
        half = np.maximum(half_interval(logs), samples.attrs.get("resolution", 0.0))
        low = 0.0 if cell in samples.attrs.get("at_least", ()) else np.exp(logs.mean() - half)
        rows.append((cell, len(logs), np.exp(logs.mean()), low, np.exp(logs.mean() + half)))
    summary = pd.DataFrame(rows, columns=["cell", "trials", "mean", "low", "high"])
    summary.attrs = dict(samples.attrs)
    return summary


def judge(mean: float, error: float, freedom: float, comparisons: int, floor: float, metric: metrics.Metric) -> dict:
    """Return the entries of `NUMBERS` and the verdict for a mean logarithm with its standard error and degrees of
    freedom. `floor` is the logarithm that a claim must exceed."""
    t_one, t_all = quantile(freedom), quantile(freedom, comparisons)
    detectable = variances.minimum_effect(error, freedom, comparisons, floor)
    ends = [0.0, -t_one * error, t_one * error, -t_all * error, t_all * error]
    with np.errstate(over="ignore"):  # an interval may have no end
        *ratios, detectable = np.exp([*(mean + end for end in ends), detectable])
    if abs(mean) > max(t_all * error, floor):
        verdict = metric.verdict_on(mean)
    else:
        verdict = Verdict.NO_DIFFERENCE if detectable <= NOISY_RATIO else Verdict.TOO_NOISY
    return dict(zip(NUMBERS, [*ratios, detectable], strict=True)) | {"verdict": verdict}


def _few_blocks_note(ratios: pd.DataFrame) -> str:
    """Return what a reader must know of a study with few blocks; "" where there were enough."""
    if ratios.empty:
        return ""
    cells = ratios if ratios["is_twin"].all() else ratios[~ratios["is_twin"]]
    pairs, detectable = int(ratios["pairs"].max()), float(cells["detectable"].max())
    if pairs >= SHORT_BLOCKS or detectable <= FINE_RATIO:
        return ""
    if cells["verdict"].eq(Verdict.AT_MINIMUM).all():
        return ""
    detail = f"its minimum detectable effect is over {HUGE_RATIO - 1:.0%}"
    if detectable <= HUGE_RATIO:
        detail = f"its minimum detectable effect is {'up to ' * (len(cells) > 1)}{detectable - 1:.0%}"
    return f"a short study ({pairs} block{'' if pairs == 1 else 's'}): {detail}"


def control_differences(table: pd.DataFrame, twin: str) -> np.ndarray:
    """Return the difference of logarithms between a control and its image in each block that has both. `table` is
    `logarithms`."""
    return (table[twin] - table[twin.removesuffix(TWIN)]).dropna().to_numpy()


def control_end(twin: np.ndarray) -> float:
    """Return the farthest end of the control's interval, as a logarithm; infinite with fewer than two blocks."""
    if len(twin) < 2:
        return np.inf
    return abs(twin.mean()) + half_interval(twin)
