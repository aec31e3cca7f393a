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
    on_trial: Callable[[int, int, str], None] = lambda done, planned, what: None,
    is_enough: Callable[[plan.Study, Run, int], bool] = lambda study, run, blocks: False,
) -> list[str]:
    """Run what the run lacks of the studies, a block of each in turn, and return a line on trials given up, by
    treatment and reason. Blocks of one number are neighbours in time: what the machine does then is in all of them.

    A study comes with what measures one trial of it or raises Lost. `on_trial` hears how many trials of how many are
    done, and which is next. `is_enough` says before a block whether those that are there suffice. Raises PlanError,
    before the first trial, when the run has another plan for a study.
    """
    for study, _ in studies:
        plan.going_on(study, run)
    here = capabilities.holds(run.environment, "same_kernel")
    attempts, given_up = _attempts(run), defaultdict(list)
    done, planned, ended = 0, 0, set()
    for study, _ in studies:
        for block, treatment in product(range(study.blocks), study.treatments):
            planned += not _is_over(attempts[study.name, block, treatment.name])
    for block in range(max(study.blocks for study, _ in studies)):
        for study, measure in studies:
            if block >= study.blocks or study.name in ended or is_enough(study, run, block):
                ended.add(study.name)
                continue
            for order, treatment in enumerate(study.order(block)):
                if _is_over(tried := attempts[study.name, block, treatment.name]):
                    continue
                on_trial(done, planned, f"block {block + 1} of {study.blocks}, {treatment.name}")
                while not _is_over(tried):
                    found = [replace(each, block=block, order=order) for each in _trial(measure, treatment, here)]
                    run.append(
                        treatment.cell, treatment.image, found, study=study.name, name=treatment.name,
                        setting=str(treatment.setting or ""),
                    )  # fmt: skip
                    tried.append(found[-1].ok)
                if not tried[-1]:
                    given_up[study.name, treatment.name, found[-1].reason].append(str(block + 1))
                done += 1
    on_trial(done, planned, "done")
    return _in_words(given_up)


def _in_words(given_up: dict[tuple[str, str, str], list[str]]) -> list[str]:
    """A line on the blocks that lack a trial, by study, treatment and reason."""
    return [
        f"{study}, block{'s' * (len(blocks) > 1)} {', '.join(blocks)}, {name}: {reason}"
        for (study, name, reason), blocks in given_up.items()
    ]


def _is_over(tried: list[bool]) -> bool:
    """Whether a trial needs no further attempt, by how those before came out."""
    return any(tried) or len(tried) >= ATTEMPTS


def _trial(measure: plan.Measure, treatment: plan.Treatment, here: bool) -> list[Observation]:
    """The rows of a trial, the one that ends it last; what the machine did besides only where it was `here`."""
    load = os.getloadavg()[0]
    stolen, before = _steal_s() if here else 0.0, time.monotonic()
    try:
        found, reason = measure(treatment), ""
    except plan.Lost as lost:
        found, reason = [], str(lost)
    took = time.monotonic() - before
    if here:
        stolen = max(_steal_s() - stolen, 0.0)
        found = [*found, Observation(metrics.LOAD_AVERAGE, load), Observation(metrics.STEAL_S, stolen)]
    ending = Observation(metrics.TRIAL, not reason, ok=not reason, reason=reason)
    return [*found, Observation(metrics.TRIAL_S, took), ending]


def _attempts(run: Run) -> defaultdict[tuple[str, int, str], list[bool]]:
    """By study, block and treatment, how the attempts that are in the run came out."""
    found, rows = defaultdict(list), runs.load(run.name).rows
    for row in rows[rows["metric"] == metrics.TRIAL].itertuples():
        found[row.study, row.block, row.cell].append(row.ok)
    return found


def _steal_s() -> float:
    """CPU seconds that the hypervisor has given to others since this machine was started."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
