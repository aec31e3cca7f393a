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
    """The names of the run's studies of that kind with those parameters whose baseline has a number."""
    return [name for name in _planned(run, kind, parameters) if has_baseline(run, name)]


def find_study(run: RunData, kind: str, **parameters: Any) -> str:
    """The first of such studies, with a number of its baseline if any has. Raises LabError when there is none."""
    fit = _planned(run, kind, parameters)
    if not fit:
        asked = ", ".join(f"{key} {value}" for key, value in parameters.items())
        known = ", ".join(run.environment.studies) or "none"
        raise LabError(f"run '{run.name}' has no {kind} study{asked and f' with {asked}'}; it has {known}")
    return next((name for name in fit if has_baseline(run, name)), fit[0])


def studies_of(run: RunData, metric: metrics.Metric, workload: str = "") -> list[str]:
    """The run's studies of the metric's kind that have it of the most cells (a run may have a short one of a few too),
    of that workload where one is named; the one under the usual load first."""
    plans = run.environment.studies
    measured = run.rows[(run.rows["metric"] == metric) & run.rows["ok"]].groupby("study")["cell"].nunique()
    names = [name for name in _planned(run, metric.study, {}) if has_baseline(run, name, metric)]
    fit = [name for name in names if workload in ("", plans[name].parameters.get("workload", workload))]
    most = [name for name in fit if measured[name] == measured[fit].max()]
    return sorted(most, key=lambda name: sum(plans[name].parameters.get(key) != of for key, of in USUAL_LOAD.items()))


def study_of(run: RunData, metric: metrics.Metric, workload: str = "") -> str:
    """The first of `studies_of`; "" for none."""
    return next(iter(studies_of(run, metric, workload)), "")


def _planned(run: RunData, kind: str, parameters: dict[str, Any]) -> list[str]:
    return [
        name
        for name, plan in run.environment.studies.items()
        if plan.kind == kind and all(plan.parameters.get(key) == value for key, value in parameters.items())
    ]


def check_workload(run: RunData, workload: str) -> None:
    """Raises LabError, with the nearest name, for a workload that no study of a run is of; "" is any."""
    known = {plan.parameters.get("workload", "") for plan in run.environment.studies.values()} - {""}
    if workload:
        check_known(f"workload of run '{run.name}'", workload, sorted(known))


def has_baseline(run: RunData, study: str, metric: str = "") -> bool:
    """Whether the baseline of a study has a number of one metric, of its main one unless another is named."""
    plan = run.environment.studies[study]
    return bool((samples(run, study, metric or plan.metric)["cell"] == plan.baseline).any())


def left_out(run: RunData) -> dict[str, str]:
    """By study whose baseline has trials and no number, so that its cells cannot be compared: a line on it."""
    said = {}
    for study, plan in run.environment.studies.items():
        own = run.rows[(run.rows["study"] == study) & (run.rows["cell"] == plan.baseline)]
        if len(own) and not has_baseline(run, study):
            why = study_notes.last_failure(own) or "each is 0, less than could be measured"
            said[study] = f"{study} is left out: no trial of its baseline {plan.baseline} has a number ({why})"
    return said


def of_study(run: RunData, study: str, metric: str = "", baseline: str = "") -> pd.DataFrame:
    """`compare` for a metric of a study (default: its main one), against its own baseline or another of its cells."""
    plan = run.environment.studies[study]
    metric = metric or plan.metric
    trials = samples(run, study, metric)
    try:
        return compare(trials, baseline or plan.baseline, cells=plan.cells, about=metrics.find(metric))
    except LabError as error:
        what = metrics.find(metric).phrase or metric
        raise LabError(f"run '{run.name}', study '{study}', {what}: {error}") from None


def samples(run: RunData, study: str, metric: str) -> pd.DataFrame:
    """The trials of a study that have a metric, as `compare` takes them: without warm-ups and lost trials, the median
    of a trial's values, and without values of 0 that would have ratios, with a warning.

    Columns: cell, base, profile, allocator, block, order, value (float), by cell. `attrs`: `warning` on any number of
    this study ("" for none), `stand_ins` (bases), `at_least` (cells with a value at the measurable minimum), and
    `resolution` where values have one: the logarithm of a step.
    """
    columns = ["cell", "base", "profile", "allocator", "block", "order"]
    plan = run.environment.studies[study]
    rank = {cell: place for place, cell in enumerate(plan.cells)}
    found = trials(run, study, metric)[[*columns, "value"]].astype({"value": float})
    found = found.groupby(["cell", "block"], sort=False, as_index=False)
    found = found.agg({**dict.fromkeys(columns, "last"), "value": "median"})[[*columns, "value"]]
    found = found.sort_values("cell", key=lambda cells: cells.map(rank), kind="stable", ignore_index=True)
    notes = study_notes.of_trials(run, study, metric)
    is_zero = found["value"] == 0
    if metric in metrics.COMPARED and is_zero.any() and not is_zero.all():
        less = "less than could be measured, and is left out"
        notes += [f"in {is_zero.sum()} of {len(found)} trials the {metrics.find(metric).phrase} was 0: {less}"]
        found = found[~is_zero].reset_index(drop=True)
    at_least = found.loc[found["value"] <= metrics.find(metric).least, "cell"]
    found.attrs = {
        "warning": "; ".join(notes), "stand_ins": run.environment.stand_ins,
        "at_least": list(at_least.unique()),
    }  # fmt: skip
    if metric == metrics.SMALLEST_LIMIT_BYTES and (step := plan.parameters.get("step")):
        halvings = ceil(log2(log(2) / log(step)))  # of the bisection, between a limit and its double
        found.attrs["resolution"] = log(2) / 2**halvings
    return found


def compare(
    samples: pd.DataFrame, baseline: str, *, cells: Iterable[str] = (), about: metrics.Metric = TIME
) -> pd.DataFrame:
    """One row per cell other than `baseline`, as ratios cell / baseline, and one for the A/A control, as control / its
    image. What the control repeats counts as the mean of the two in each block.

    `samples`: cell, block and value (> 0), one row per trial; only blocks with both of a pair count. Columns: cell,
    is_twin, pairs, freedom (degrees of freedom), ratio (geometric mean), low and high (95% interval), low_all and
    high_all (95% for all comparisons: Bonferroni), detectable (the minimum detectable effect: the ratio above 1 found
    with a probability of 0.8), verdict. `attrs`: those of `samples`, the baseline, notes (the warning without that of a
    short study), control (the farthest end of its interval, above 1), floor (what a claim must be beyond: 1, `control`
    where it differs from its image, or infinite without one), and the warning. Without two pairs ratio and interval are
    NaN and the verdict is "too noisy"; so it is for `cells`, which order the rows, without a trial, and without a
    control. Values of cells in `samples.attrs["at_least"]` are at most that: the interval is open at that end (0 or
    infinite). No interval is narrower than `samples.attrs["resolution"]` to both sides. Raises LabError when the
    baseline has no trial, or a value is not above 0.
    """
    known = sorted(samples["cell"].unique())
    if baseline not in known:
        others = f"; choose one of {', '.join(known)}" if known else ""
        raise LabError(f"the baseline {baseline} has no trial{others}")
    order = [cell for cell in dict.fromkeys([*cells, *samples["cell"]]) if cell != baseline]
    resolution = samples.attrs.get("resolution", 0.0)
    at_least = samples.attrs.get("at_least", ())
    estimates, control = _estimates(logarithms(samples), baseline, order)
    apart = alarm(control, len(order), resolution)
    rows = []
    for cell, own in zip(order, estimates, strict=True):
        is_twin = cell.endswith(TWIN)
        row = {"cell": cell, "is_twin": is_twin, "pairs": int(own.pairs), "freedom": own.freedom, **NOTHING}
        if own.pairs > 1:
            floor = max(resolution, 0.0 if is_twin else apart)
            row |= judged(own.mean, own.error, own.freedom, len(order), floor, about)
            against = cell.removesuffix(TWIN) if is_twin else baseline
            row |= _within_reach(row, resolution, cell in at_least, against in at_least)
        rows.append(row)
    found = pd.DataFrame(rows, columns=["cell", "is_twin", "pairs", "freedom", *NUMBERS, "verdict"])
    notes = [*filter(None, [samples.attrs.get("warning"), alarm_in_words(apart)])]
    attrs = {"floor": float(np.exp(apart)), "control": float(np.exp(control_end(control))), "baseline": baseline}
    found.attrs = {**attrs, **samples.attrs, "notes": notes}
    found.attrs["warning"] = note_on(found)
    return found


def note_on(found: pd.DataFrame, cell: str = "") -> str:
    """What a reader must know of all ratios of `compare`, or of one cell's: a short study's detectable effect."""
    short = _short(found[found["cell"] == cell] if cell else found)
    return "; ".join(filter(None, [*found.attrs["notes"], short]))


def _estimates(table: pd.DataFrame, baseline: str, order: list[str]) -> tuple[list[variances.Estimates], np.ndarray]:
    """Estimates of each cell of `order`, and the control's differences from its image by block, none without trials."""
    twins = [cell for cell in order if cell.endswith(TWIN)]
    cells = [cell for cell in order if not cell.endswith(TWIN)]
    table = table.reindex(columns=dict.fromkeys([baseline, *order, *(twin.removesuffix(TWIN) for twin in twins)]))
    controls = {twin: control_differences(table, twin) for twin in twins}
    for twin in twins:
        own = twin.removesuffix(TWIN)
        table[own] = variances.measured_twice(table[own].to_numpy(), table[twin].to_numpy())
    found = variances.estimate(table[cells].sub(table[baseline], axis=0).to_numpy()).by_cell(cells)
    for twin, logs in controls.items():
        found |= variances.estimate(logs[:, None]).by_cell([twin])
    return [found[cell] for cell in order], next(iter(controls.values()), np.array([]))


def alarm(control: np.ndarray, comparisons: int, resolution: float) -> float:
    """What a claim must be beyond, as a logarithm: 0, unless the control differs from its image; inf without one."""
    if len(control) < 2:
        return inf
    is_apart = abs(control.mean()) > max(half_interval(control, comparisons), resolution)
    return control_end(control) if is_apart else 0.0


def alarm_in_words(apart: float) -> str:
    """What a reader must know of an `alarm`; "" where there is none."""
    if apart in (0, inf):
        return "" if not apart else "without trials of the A/A control no difference is claimed"
    return (
        "the A/A control differs from its own image, so something else than the image was measured: no difference of "
        f"{np.exp(apart) - 1:.1%} or less is claimed"
    )


def _within_reach(row: dict, resolution: float, cell_is_least: bool, baseline_is_least: bool) -> dict:
    """What changes of a row where values have a resolution, or are only known to be at most the measurable minimum."""
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
    """The logarithms of the values, by block and cell. Raises LabError when a value is not above 0."""
    if not (samples["value"] > 0).all():
        raise LabError("a value of 0 or below has no ratio; the trials cannot be compared")
    # As `DataFrame.pivot`, in a sixth of its time: simulations compare thousands of studies.
    blocks, row = np.unique(samples["block"], return_inverse=True)
    cells, column = np.unique(samples["cell"], return_inverse=True)
    table = np.full((len(blocks), len(cells)), np.nan)
    table[row, column] = np.log(samples["value"])
    return pd.DataFrame(table, pd.Index(blocks, name="block"), pd.Index(cells, name="cell"))


def names(found: pd.DataFrame) -> list[str]:
    """The cells of a frame as a reader sees them."""
    return [cell_in_words(cell, found.attrs) for cell in found["cell"]]


def summarize(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: trials, the geometric mean of its values, and its 95% interval, low and high. The interval is
    of this cell alone, with all that its machine did meanwhile, and no narrower than the resolution; low is 0 where a
    value is at most that."""
    rows = []
    for cell, values in samples.groupby("cell", sort=False)["value"]:
        logs = np.log(values.to_numpy())
        half = np.maximum(half_interval(logs), samples.attrs.get("resolution", 0.0))
        low = 0.0 if cell in samples.attrs.get("at_least", ()) else np.exp(logs.mean() - half)
        rows.append((cell, len(logs), np.exp(logs.mean()), low, np.exp(logs.mean() + half)))
    found = pd.DataFrame(rows, columns=["cell", "trials", "mean", "low", "high"])
    found.attrs = dict(samples.attrs)
    return found


def judged(mean: float, error: float, freedom: float, comparisons: int, floor: float, about: metrics.Metric) -> dict:
    """Ratio, intervals and verdict of a mean logarithm with its standard error, of so many degrees of freedom."""
    alone, together = quantile(freedom), quantile(freedom, comparisons)
    detectable = variances.minimum_effect(error, freedom, comparisons, floor)
    ends = [0.0, -alone * error, alone * error, -together * error, together * error]
    with np.errstate(over="ignore"):  # an interval may have no end
        *ratios, detectable = np.exp([*(mean + end for end in ends), detectable])
    if abs(mean) > max(together * error, floor):
        verdict = about.verdict_on(mean)
    else:
        verdict = Verdict.NO_DIFFERENCE if detectable <= NOISY_RATIO else Verdict.TOO_NOISY
    return dict(zip(NUMBERS, [*ratios, detectable], strict=True)) | {"verdict": verdict}


def _short(found: pd.DataFrame) -> str:
    """What a reader must know of a study of few blocks; "" where they were enough."""
    if found.empty:
        return ""
    cells = found if found["is_twin"].all() else found[~found["is_twin"]]
    pairs, detectable = int(found["pairs"].max()), float(cells["detectable"].max())
    if pairs >= SHORT_BLOCKS or detectable <= FINE_RATIO:
        return ""
    told = "it tells no difference"
    if detectable <= HUGE_RATIO:
        told = f"its minimum detectable effect is {'up to ' * (len(cells) > 1)}{detectable - 1:.0%}"
    return f"a short study ({pairs} block{'' if pairs == 1 else 's'}): {told}"


def control_differences(table: pd.DataFrame, twin: str) -> np.ndarray:
    """Return what a control differs by from its image in each block that has both. `table` is `logarithms`."""
    return (table[twin] - table[twin.removesuffix(TWIN)]).dropna().to_numpy()


def control_end(twin: np.ndarray) -> float:
    """The farthest end of the twin's own interval, as a logarithm; infinite where there is none."""
    if len(twin) < 2:
        return np.inf
    return abs(twin.mean()) + half_interval(twin)
