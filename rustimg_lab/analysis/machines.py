"""Runs on several machines -> the ratios on each, and what they say of other machines. Pure.

A session is a run on one machine. Cells are compared within a session alone, so that no absolute value
of two machines meets. The logarithms of the ratios are combined twice by `random_effects`: the sessions of a machine,
with one variance between sessions for all machines, and then the machines.
"""

from typing import Any

import numpy as np
import pandas as pd

from rustimg_lab.analysis import cells, comparison, random_effects
from rustimg_lab.analysis.regression import BESIDE
from rustimg_lab.analysis.variances import quantile
from rustimg_lab.model import metrics
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.store.environment import StudyPlan
from rustimg_lab.store.runs import AT, RunData

KIND = "throughput"  # of the studies that are combined
FACTS = ("cpus", "memory_gib", "architecture")  # with the CPU model, what two sessions of one machine have in common
MACHINE, ALL, ANOTHER = "machine", "all machines", "another machine"  # what a row of `combine` is of
_LEAST_ERROR = 1e-9  # of a logarithm, for trials without any noise: a weight needs one above 0
_RATIO = ("ratio", "low", "high")


def name_of(run: str, machine: dict[str, Any]) -> str:
    """Return the name of a run's machine: its CPU model and `FACTS`. For one machine's part of a run (`RUN@NAME`), the
    worker's name is added. Return "" where neither CPU model nor worker is known. Two machines with one name count as
    one, since counting one machine twice would make an interval too narrow."""
    formats = {"cpus": "{} CPUs", "memory_gib": "{} GiB"}
    facts = [formats.get(key, "{}").format(machine[key]) for key in FACTS if key in machine]
    mark = run.partition(AT)[2]
    worker = "" if mark in [architecture.debian for architecture in Architecture] else mark
    model = machine.get("cpu_model", "unknown")
    if model == "unknown" and not worker:  # as of an engine on another machine
        return ""
    return f"{model} ({', '.join(filter(None, [worker, *facts]))})"


def shared_studies(runs: dict[str, RunData]) -> list[str]:
    """Return the names of the throughput studies in which two machines have measured a cell and the baseline alike."""
    names = dict.fromkeys(name for run in runs.values() for name in comparison.find_studies(run, KIND))
    return [name for name in names if len(combine(sessions(runs, name)))]


def sessions(runs: dict[str, RunData], study: str) -> pd.DataFrame:
    """Return one row per session and cell of the runs (by name) that planned a study as most of them did. The baseline
    has no row.

    Columns: machine, cpu (its model), run, cell, pairs (blocks), log (of the ratio), error (its standard error), ratio,
    low and high (95% interval). `attrs`: metric, baseline, stand_ins (substitute bases), and the warning, with what is
    left out."""
    plans = {name: run.environment.studies[study] for name, run in runs.items() if study in run.environment.studies}
    usual = max(plans.values(), key=lambda plan: sum(not _plan_difference(plan, peer) for peer in plans.values()))
    tables, notes, stand_ins = [], [], set()
    for name, plan in plans.items():
        if difference := _plan_difference(usual, plan):
            notes.append(f"run {name} is left out, because its study differs: {difference}")
            continue
        machine = runs[name].environment.machine
        if not (machine_name := name_of(name, machine)) or not comparison.has_baseline(runs[name], study):
            notes.append(f"run {name} is left out: {'no baseline' if machine_name else 'its machine is not recorded'}")
            continue
        ratios = comparison.of_study(runs[name], study)
        tables.append(_with_errors(ratios).assign(machine=machine_name, cpu=machine["cpu_model"], run=name))
        stand_ins |= set(ratios.attrs["stand_ins"])
        notes += [f"run {name}: {ratios.attrs['warning']}"] if ratios.attrs["warning"] else []
    columns = ["machine", "cpu", "run", "cell", "pairs", "log", "error", *_RATIO]
    table = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    notes += [f"run {row.run}: {row.cell} has no ratio" for row in table[table["error"].isna()].itertuples()]
    table = table.dropna(subset="error").reset_index(drop=True)
    table.attrs = {"metric": metrics.find(usual.metric), "baseline": usual.baseline, "stand_ins": sorted(stand_ins)}
    locks = {runs[name].environment.app.get("lockfile_sha256", "") for name in table["run"].unique()}
    notes += ["the runs are of several Cargo.lock files, so their programs may differ"] if len(locks) > 1 else []
    apps = {cells.app_name(runs[name]) for name in table["run"].unique()}
    notes += [f"the runs are of several apps: {', '.join(sorted(apps))}"] if len(apps) > 1 else []
    table.attrs["warning"] = "; ".join(dict.fromkeys(notes))
    return table


def _plan_difference(first: StudyPlan, second: StudyPlan) -> str:
    """Return what two plans of a study of one name differ by, as text; "" where their ratios are of one kind."""
    plans = [
        {"metric": plan.metric, "baseline": plan.baseline}
        | {key: value for key, value in plan.parameters.items() if key not in BESIDE}
        for plan in (first, second)
    ]
    differ = [key for key in plans[0] | plans[1] if plans[0].get(key) != plans[1].get(key)]
    return ", ".join(f"{key} {plans[1].get(key)}, not {plans[0].get(key)}" for key in differ)


def _with_errors(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return the ratios of `comparison.compare` without the control, with their logarithms and standard errors."""
    rows = ratios[~ratios["is_twin"]]
    half = np.log(rows["high"] / rows["low"]) / 2
    error = half.replace(np.inf, np.nan) / quantile(rows["freedom"].to_numpy(float))
    return rows.assign(log=np.log(rows["ratio"]), error=error.clip(lower=_LEAST_ERROR))


def combine(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return the ratios of each cell that two machines or more have measured. `ratios` is what `sessions` returns.

    `level` is `MACHINE` for each machine, then `ALL`, then `ANOTHER` for a machine that was not measured: one row each.
    Columns: cell, level, machine, machines, models and sessions (numbers of machines, CPU models and sessions), ratio,
    low and high (95%; for `ANOTHER` the prediction interval), tau, session_sd, i_squared. Only `ALL` has the last
    three: standard deviations of the logarithm between machines and between sessions of one (NaN where no machine has
    two), and a fraction. `attrs` are those of `ratios`; the warning counts the cells that only one machine has."""
    counts = ratios.groupby("cell", sort=False)["machine"].nunique()
    names = counts.index[counts > 1]
    rows = [{"cell": cell} | row for cell in names for row in _combine_cell(ratios[ratios["cell"] == cell])]
    counted, spread = ("machine", "machines", "models", "sessions"), ("tau", "session_sd", "i_squared")
    table = pd.DataFrame(rows, columns=["cell", "level", *counted, *_RATIO, *spread])
    count = len(counts) - len(names)
    warnings = [ratios.attrs["warning"], f"cells measured on one machine alone, left out: {count}" if count else ""]
    table.attrs = ratios.attrs | {"warning": "; ".join(filter(None, warnings))}
    return table


def _combine_cell(ratios: pd.DataFrame) -> list[dict[str, Any]]:
    names = list(ratios["machine"].unique())
    groups = (ratios["machine"].to_numpy()[:, None] == names).astype(float)
    within = random_effects.fit(ratios["log"].to_numpy(), ratios["error"].to_numpy(), groups)
    among = random_effects.fit(within.mean, within.error)
    half = within.half if within.freedom else np.log(ratios["high"] / ratios["low"]).to_numpy() / 2
    counts = groups.sum(axis=0).astype(int)
    of_all = {"machine": "", "machines": len(names), "models": ratios["cpu"].nunique(), "sessions": len(ratios)}
    rows = [
        {"level": MACHINE, "machine": name, "machines": 1, "models": 1, "sessions": count} | _interval(mean, end)
        for name, count, mean, end in zip(names, counts, within.mean, half, strict=True)
    ]
    spread = {
        "tau": among.variance**0.5,
        "session_sd": within.variance**0.5 if within.freedom else np.nan,
        "i_squared": random_effects.heterogeneity(within.error, among.variance),
    }
    low, high = np.exp(random_effects.predict(within.mean, within.error))
    rows.append({"level": ALL} | of_all | _interval(among.mean[0], among.half[0]) | spread)
    return [*rows, {"level": ANOTHER} | of_all | {"ratio": np.exp(among.mean[0]), "low": low, "high": high}]


def _interval(mean: float, half: float) -> dict[str, float]:
    return dict(zip(_RATIO, np.exp([mean, mean - half, mean + half]), strict=True))
