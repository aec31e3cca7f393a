"""The schedule of every study: randomized complete blocks with an A/A control; each trial is a row.

A block holds each treatment once, in an order drawn from the study's seed (see `measure/plan.py`); so the order of a
run that goes on is the one that it began with. A trial that is lost is repeated once, in its place.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

from rustimg_lab.engine import capabilities
from rustimg_lab.measure import plan
from rustimg_lab.model import metrics
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation
from rustimg_lab.store.runs import Run

ATTEMPTS = 2


def run_in_turns(
    studies: list[tuple[plan.Study, plan.Measure]],
    run: Run,
    on_trial: Callable[[int, int, str], None] = lambda done, planned, message: None,
    is_enough: Callable[[plan.Study, Run, int], bool] = lambda study, run, blocks: False,
) -> list[str]:
    """Run the trials that the run lacks, one block of each study in turn, so that blocks of one number are neighbours
    in time. Returns a line per treatment and reason on the trials that failed.

    A study comes with the function that returns the rows of a trial, or raises FailedTrial. `on_trial` gets the numbers
    of trials done and planned in this call, and a text on the next one. `is_enough` decides before each block whether
    the given number of blocks suffices. Raises PlanError, before the first trial, when the run has another plan for a
    study."""
    for study, _ in studies:
        plan.record_plan(study, run)
    is_local = capabilities.has_ability(run.environment, "same_kernel")
    attempts, failures = _attempts(run), defaultdict(list)
    done_count, planned_count, ended_names = 0, 0, set()
    for study, _ in studies:
        for block, treatment in product(range(study.blocks), study.treatments):
            planned_count += not _is_over(attempts[study.name, block, treatment.name])
    for block in range(max(study.blocks for study, _ in studies)):
        for study, measure in studies:
            if block >= study.blocks or study.name in ended_names or is_enough(study, run, block):
                ended_names.add(study.name)
                continue
            for order, treatment in enumerate(study.order(block)):
                if _is_over(results := attempts[study.name, block, treatment.name]):
                    continue
                on_trial(done_count, planned_count, f"block {block + 1} of {study.blocks}, {treatment.name}")
                while not _is_over(results):
                    rows = [replace(row, block=block, order=order) for row in _trial(measure, treatment, is_local)]
                    run.append(
                        treatment.cell, treatment.image, rows, study=study.name, name=treatment.name,
                        setting=str(treatment.setting or ""),
                    )  # fmt: skip
                    results.append(rows[-1].ok)
                if not results[-1]:
                    failures[study.name, treatment.name, rows[-1].reason].append(str(block + 1))
                done_count += 1
    on_trial(done_count, planned_count, "done")
    return _in_words(failures)


def _in_words(failures: dict[tuple[str, str, str], list[str]]) -> list[str]:
    """A line on the blocks that lack a trial, by study, treatment and reason."""
    return [
        f"{study}, block{'s' * (len(blocks) > 1)} {', '.join(blocks)}, {name}: {reason}"
        for (study, name, reason), blocks in failures.items()
    ]


def _is_over(results: list[bool]) -> bool:
    """Whether a trial needs no further attempt, by how those before came out."""
    return any(results) or len(results) >= ATTEMPTS


def _trial(measure: plan.Measure, treatment: plan.Treatment, is_local: bool) -> list[Observation]:
    """Return the rows of one trial, with the row that ends it as the last. Rows on the machine's load are there only if
    the trial `is_local`, on the lab's own machine."""
    load = os.getloadavg()[0]
    stolen_s, start_s = _steal_s() if is_local else 0.0, time.monotonic()
    try:
        rows, reason = measure(treatment), ""
    except plan.FailedTrial as lost:
        rows, reason = [], str(lost)
    duration_s = time.monotonic() - start_s
    if is_local:
        stolen_s = max(_steal_s() - stolen_s, 0.0)
        rows = [*rows, Observation(metrics.LOAD_AVERAGE, load), Observation(metrics.STEAL_S, stolen_s)]
    ending = Observation(metrics.TRIAL, not reason, ok=not reason, reason=reason)
    return [*rows, Observation(metrics.TRIAL_S, duration_s), ending]


def _attempts(run: Run) -> defaultdict[tuple[str, int, str], list[bool]]:
    """By study, block and treatment, how the attempts that are in the run came out."""
    attempts, rows = defaultdict(list), runs.load(run.name).rows
    for row in rows[rows["metric"] == metrics.TRIAL].itertuples():
        attempts[row.study, row.block, row.cell].append(row.ok)
    return attempts


def _steal_s() -> float:
    """CPU seconds that the hypervisor has given to others since this machine was started."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
