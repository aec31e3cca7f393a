"""The schedule of every study: randomized complete blocks with an A/A control; each trial is a row.

A block holds each treatment once, in an order drawn from the study's seed (see `measure/plan.py`); so the order of a run
that goes on is the one that it began with. A trial that is lost is repeated once, in its place.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rustimg_lab.engine import capabilities
from rustimg_lab.measure import plan
from rustimg_lab.model import metrics
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation
from rustimg_lab.store.runs import Run

ATTEMPTS = 2


def run_study(
    study: plan.Study,
    run: Run,
    measure: plan.Measure,
    on_trial: Callable[[int, int, str], None] = lambda done, planned, what: None,
    is_enough: Callable[[plan.Study, Run, int], bool] = lambda study, run, blocks: False,
) -> list[str]:
    """Runs what of the study is not in the run yet, and returns a line on each trial that was given up.

    `measure` returns the numbers of one trial or raises Lost. `on_trial` hears how many trials of how many this call
    has done, and which is next. `is_enough` says before each block whether those that are there, so many, suffice.
    Raises PlanError when the run has another plan for this study.
    """
    plan.going_on(study, run)
    here = capabilities.holds(run.environment, "same_kernel")
    attempts = _attempts(study, run)
    given_up: list[str] = []
    todo: dict[int, list[tuple[int, plan.Treatment]]] = {}
    for block in range(study.blocks):
        turns = enumerate(study.order(block))
        todo[block] = [each for each in turns if not _is_over(attempts.get((block, each[1].name), []))]
    done, planned = 0, sum(map(len, todo.values()))
    for block, turns in todo.items():
        if is_enough(study, run, block):
            break
        for order, treatment in turns:
            on_trial(done, planned, f"block {block + 1} of {study.blocks}, {treatment.name}")
            tried = attempts.get((block, treatment.name), [])
            while not _is_over(tried):
                found = [replace(each, block=block, order=order) for each in _trial(measure, treatment, here)]
                run.append(treatment.cell, treatment.image, found, study=study.name, name=treatment.name)
                tried = [*tried, found[-1].ok]
            if not tried[-1]:
                given_up.append(f"{study.name}, block {block + 1}, {treatment.name}: {found[-1].reason}")
            done += 1
    on_trial(done, planned, "done")
    return given_up


def _is_over(tried: list[bool]) -> bool:
    """Whether a trial needs no further attempt, by how those before came out."""
    return any(tried) or len(tried) >= ATTEMPTS


def _trial(measure: plan.Measure, treatment: plan.Treatment, here: bool) -> list[Observation]:
    """The rows of one trial, the one that ends it last. What the machine did meanwhile is told only where the trial was
    `here`, on the lab's own."""
    load = os.getloadavg()[0]
    stolen, before = _steal_s() if here else 0.0, time.monotonic()
    try:
        found, reason = measure(treatment), ""
    except plan.Lost as lost:
        found, reason = [], str(lost)
    took = time.monotonic() - before
    if here:
        found = [
            *found,
            Observation(metrics.LOAD_AVERAGE, load),
            Observation(metrics.STEAL_S, max(_steal_s() - stolen, 0.0)),
        ]
    ending = Observation(metrics.TRIAL, not reason, ok=not reason, reason=reason)
    return [*found, Observation(metrics.TRIAL_S, took), ending]


def _attempts(study: plan.Study, run: Run) -> dict[tuple[int, str], list[bool]]:
    """By block and treatment, how the attempts that are in the run came out."""
    data = runs.load(run.name)
    found: dict[tuple[int, str], list[bool]] = {}
    for row in data.rows[(data.rows["study"] == study.name) & (data.rows["metric"] == metrics.TRIAL)].itertuples():
        found.setdefault((row.block, row.cell), []).append(row.ok)
    return found


def _steal_s() -> float:
    """CPU seconds that the hypervisor has given to others since this machine was started."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
