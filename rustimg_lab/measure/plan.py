"""The plan of a study: its treatments, its seed, its order of trials, and when it ends."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from rustimg_lab.errors import LabError
from rustimg_lab.model.matrix import Cell
from rustimg_lab.model.settings import Setting
from rustimg_lab.model.studies import REST_S
from rustimg_lab.store.rows import Observation
from rustimg_lab.store.runs import Run

Measure = Callable[["Treatment"], list[Observation]]  # the numbers of one trial; raises FailedTrial
Studies = Iterator[tuple["Study", Measure]]  # each with how a trial of it is measured

SHUFFLED, WILLIAMS = "shuffled", "Williams"  # how the order of a block is drawn; the first in runs of older labs
DRAWS = 50  # of a Williams square, of which the one with the best neighbours across blocks is taken


class PlanError(LabError):
    """A study that cannot be made as it is asked for."""


class FailedTrial(Exception):
    """A trial that gave no number; the text says why."""


@dataclass(frozen=True)
class Treatment:
    """What a block holds once: a cell's image, under the cell's name, with a setting of its allocator, or as a twin."""

    cell: Cell
    image: str
    name: str
    setting: Setting | None = None  # of its allocator, when it is started


@dataclass(frozen=True)
class Plan:
    """What a user says of a study: see `Study`. No `baseline`: the first cell; no `seed`: the run's, or a new one.
    `settings`: those of allocators that cells have in turn; `rest_s`: from the end of a load until memory is read."""

    blocks: int
    width: float | None = None
    baseline: str = ""
    seed: int | None = None
    settings: tuple[Setting, ...] = ()
    rest_s: int = REST_S


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
    design: str = WILLIAMS
    continues: bool = False  # whether the study that is planned next takes turns with this one, block by block

    def order(self, block: int) -> list[Treatment]:
        """Return the treatments of a block in the order of their trials."""
        if self.design == SHUFFLED:
            return random.Random(f"{self.seed}:{block}").sample(self.treatments, len(self.treatments))
        (places,) = islice(_orders(len(self.treatments), self.seed), block, block + 1)
        return [self.treatments[place] for place in places]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as the environment of a run records it."""
        stopping = {"blocks": self.blocks} if self.width is None else {"width": self.width, "at_most": self.blocks}
        return {
            "kind": self.kind,
            "parameters": self.parameters,
            "cells": [treatment.name for treatment in self.treatments],
            "baseline": self.baseline,
            "metric": self.metric,
            "seed": self.seed,
            "design": self.design,
            "stopping": stopping,
            "contents": self.contents,
        }


def _orders(count: int, seed: int) -> Iterator[list[int]]:
    """Yield the order of each block: rows of Williams squares (Aust. J. Sci. Res. A 2, 149, 1949), in which each of
    `count` treatments follows each other equally often. Names and rows are drawn anew for each square. As far as
    possible, no row begins with what the row before ended with, and no pair meets twice where two rows meet."""
    base = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(count)]
    square = [[(start + step) % count for step in base] for start in range(count)]
    square += [row[::-1] for row in square] if count % 2 else []
    generator, last_rows = random.Random(f"{seed}:{WILLIAMS}"), [[-1]]

    def unlike(rows: list[list[int]]) -> int:
        return len({(row[-1], next_row[0]) for row, next_row in pairwise(last_rows + rows) if row[-1] != next_row[0]})

    while True:
        squares = []
        for _ in range(DRAWS):
            names, rows = generator.sample(range(count), count), generator.sample(square, len(square))
            squares.append([[names[place] for place in row] for row in rows])
        yield from (last_rows := max(squares, key=unlike))
        last_rows = last_rows[-1:]


def record_plan(study: Study, run: Run) -> None:
    """Record the plan of a study in a run. Raises PlanError when the run has the study with another plan: trials of two
    plans are not mixed."""
    studies = run.environment.get("studies", {})
    if changes := _differences(studies[study.name], study.as_dict()) if study.name in studies else []:
        raise PlanError(
            f"study '{study.name}' of run '{run.name}' was begun otherwise ({'; '.join(changes)}); trials of two plans "
            "are not mixed: choose a new run with --run NAME"
        )
    run.save_environment(studies=studies | {study.name: study.as_dict()})


def _differences(old_plan: dict[str, Any], new_plan: dict[str, Any]) -> list[str]:
    """Return the differences between two plans of a study that must not be there while the study runs. A warning may
    differ: a newer lab knows of more."""
    keys = ("baseline", "seed")
    old, new = (
        plan["parameters"] | {key: plan[key] for key in keys} | {"warning": ""} for plan in (old_plan, new_plan)
    )
    differences = [f"{key} {old.get(key)}, now {new.get(key)}" for key in old | new if old.get(key) != new.get(key)]
    if set(old_plan["cells"]) != set(new_plan["cells"]):
        return [*differences, f"cells {', '.join(old_plan['cells'])}, now {', '.join(new_plan['cells'])}"]
    return differences + [
        f"{cell} was another image"
        for cell, digest in new_plan["contents"].items()
        if old_plan["contents"][cell] != digest
    ]
