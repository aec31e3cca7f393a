"""The schedule that every study keeps: randomized complete blocks, a twin, each trial a row or the reason why not.

A block holds each treatment once, in an order drawn from the study's seed and the block's number; so the order of a run
that goes on is the one that it began with. A trial that is lost is repeated once, in its place.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rustimg_lab import capabilities, comparison, engine, store
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.matrix import Cell
from rustimg_lab.store import Observation, Run

ATTEMPTS = 2
TRIAL = "trial"  # the metric of the row that ends a trial: there, and ok, when the trial has its numbers

Measure = Callable[["Treatment"], list[Observation]]  # the numbers of one trial; raises Lost
Studies = Iterator[tuple["Study", Measure]]  # each with how a trial of it is measured


class PlanError(LabError):
    """A study that cannot be made as it is asked for."""


class Lost(Exception):
    """A trial that gave no number; the text says why."""


@dataclass(frozen=True)
class Treatment:
    """What a block holds once: a cell's image, under the cell's name or as its twin."""

    cell: Cell
    image: str
    name: str


@dataclass(frozen=True)
class Plan:
    """What a user says of a study: see `Study`. No `baseline`: the first cell; no `seed`: the run's, or a new one."""

    blocks: int
    width: float | None = None
    baseline: str = ""
    seed: int | None = None


@dataclass(frozen=True)
class Study:
    """A study's plan. `parameters` are what its trials share; `metric` is the one that `width` is about.

    It ends after `blocks` blocks, or before, as soon as every interval's high / low - 1 is below `width`.
    """

    name: str
    kind: str
    parameters: dict[str, Any]
    treatments: tuple[Treatment, ...]
    baseline: str
    metric: str
    blocks: int
    seed: int
    width: float | None = None
    contents: dict[str, str] = field(default_factory=dict)  # by treatment: a digest of what its image holds

    def order(self, block: int) -> list[Treatment]:
        """The block's treatments in the order in which they have their turn."""
        return random.Random(f"{self.seed}:{block}").sample(self.treatments, len(self.treatments))

    def as_dict(self) -> dict[str, Any]:
        """For the environment of a run."""
        stopping = {"blocks": self.blocks} if self.width is None else {"width": self.width, "at_most": self.blocks}
        return {
            "kind": self.kind,
            "parameters": self.parameters,
            "cells": [treatment.name for treatment in self.treatments],
            "baseline": self.baseline,
            "metric": self.metric,
            "seed": self.seed,
            "stopping": stopping,
            "contents": self.contents,
        }


def plan_study(
    name: str, kind: str, metric: str, parameters: dict[str, Any], treatments: list[Treatment], plan: Plan, run: Run
) -> Study:
    """A study of the treatments, one at least, and of the baseline's twin. Raises PlanError when the baseline is none
    of them."""
    known = {treatment.name: treatment for treatment in treatments}
    baseline = plan.baseline or treatments[0].name
    if baseline not in known:
        raise PlanError(str(unknown("baseline", baseline, known)))
    twin = replace(known[baseline], name=baseline + comparison.TWIN)
    before = run.environment.get("studies", {}).get(name, {})
    seed = before.get("seed", random.randrange(1 << 32)) if plan.seed is None else plan.seed
    contents = {treatment.name: engine.contents_digest(treatment.image) for treatment in treatments}
    return Study(name, kind, parameters, (*treatments, twin), baseline, metric, plan.blocks, seed, plan.width, contents)


def going_on(study: Study, run: Run) -> None:
    """Records the plan. Raises PlanError when the run has the study with another plan: its trials would be mixed."""
    studies = run.environment.get("studies", {})
    if differs := _differences(studies[study.name], study.as_dict()) if study.name in studies else []:
        raise PlanError(
            f"study '{study.name}' of run '{run.name}' was begun otherwise ({'; '.join(differs)}); trials of two plans "
            "are not mixed: choose a new run with --run NAME"
        )
    run.save_environment(studies=studies | {study.name: study.as_dict()})


def run_study(
    study: Study,
    run: Run,
    measure: Measure,
    on_trial: Callable[[int, int, str], None] = lambda done, planned, what: None,
    is_enough: Callable[[Study, Run, int], bool] = lambda study, run, blocks: False,
) -> list[str]:
    """Runs what of the study is not in the run yet, and returns a line on each trial that was given up.

    `measure` returns the numbers of one trial or raises Lost. `on_trial` hears how many trials of how many this call
    has done, and which is next. `is_enough` says before each block whether those that are there, so many, suffice.
    Raises PlanError when the run has another plan for this study.
    """
    going_on(study, run)
    here = capabilities.holds(run.environment, "same_kernel")
    attempts = _attempts(study, run)
    given_up: list[str] = []
    todo: dict[int, list[tuple[int, Treatment]]] = {}
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


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of a plan may not change while a study goes on, and has."""
    flat = [{**plan["parameters"], "baseline": plan["baseline"], "seed": plan["seed"]} for plan in (before, now)]
    differs = [f"{key} {flat[0].get(key)}, now {value}" for key, value in flat[1].items() if flat[0].get(key) != value]
    cells = [plan["cells"] for plan in (before, now)]
    if set(cells[0]) != set(cells[1]):
        return [*differs, f"cells {', '.join(cells[0])}, now {', '.join(cells[1])}"]
    return differs + [
        f"{cell} was another image" for cell, digest in now["contents"].items() if before["contents"][cell] != digest
    ]


def _trial(measure: Measure, treatment: Treatment, here: bool) -> list[Observation]:
    """The rows of one trial, the one that ends it last. What the machine did meanwhile is told only where the trial was
    `here`, on the lab's own."""
    load = os.getloadavg()[0]
    stolen, before = _steal_s() if here else 0.0, time.monotonic()
    try:
        found, reason = measure(treatment), ""
    except Lost as lost:
        found, reason = [], str(lost)
    took = time.monotonic() - before
    if here:
        found = [*found, Observation("load_average", load), Observation("steal_s", max(_steal_s() - stolen, 0.0), "s")]
    ending = Observation(TRIAL, not reason, ok=not reason, reason=reason)
    return [*found, Observation("trial_s", took, "s"), ending]


def _attempts(study: Study, run: Run) -> dict[tuple[int, str], list[bool]]:
    """By block and treatment, how the attempts that are in the run came out."""
    rows = store.load(run.name)
    found: dict[tuple[int, str], list[bool]] = {}
    for row in rows[(rows["study"] == study.name) & (rows["metric"] == TRIAL)].itertuples():
        found.setdefault((row.block, row.cell), []).append(row.ok)
    return found


def _steal_s() -> float:
    """CPU seconds that the hypervisor has given to others since this machine was started."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
