"""Runs -> the answers that a reader wants first: the image to ship for each goal, and what holds of the article."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rustimg_lab.analysis import cells, comparison, recommendation, study_notes
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.metrics import CRITERIA, Verdict
from rustimg_lab.report import views
from rustimg_lab.store.runs import RunData

_SMALLEST = f"the smallest {CRITERIA['transfer'].phrase}"
# The first that a run can answer is the one that the page begins with.
GOALS = {
    f"{_SMALLEST}, at least 95% of the best throughput, exec to first byte within 10 ms, stable flags": Wishes(
        {"startup": 0.010}, min_throughput=0.95, stable=True
    ),
    f"{_SMALLEST}, at least 95% of the best throughput, stable flags": Wishes(min_throughput=0.95, stable=True),
    f"{_SMALLEST}, stable flags": Wishes(stable=True),
    f"{_SMALLEST}, unstable flags allowed": Wishes(),
    f"{_SMALLEST} of those with a shell, stable flags": Wishes(needs_shell=True, stable=True),
    "the soonest first byte after exec, stable flags": Wishes(stable=True, weights={"startup": 1.0}),
    "the least CPU time per request, stable flags": Wishes(stable=True, weights={"cpu": 1.0}),
    "the least memory under load, stable flags": Wishes(stable=True, weights={"memory": 1.0}),
}


TIE = 0.05  # a cell that so many of the draws select too cannot be told from the one that most select
FIRST = 3  # of a list in a sentence
_OF_SIZES = ("architecture", "compressed_with")  # what compressed sizes are compared only with equals of


@dataclass(frozen=True)
class Answer:
    """The cell to ship for a goal. `run` and `cell` lead to its Dockerfile. `name`: the cell in words, with what
    substitutes for another. `facts`: all that was measured of it; `measured`: the same, a text by quantity. `ties`: the
    cells, in words, that tie with it; None where nobody knows. `sure`, `decides`, `missed`, `note` (on the facts): a
    sentence or two each, or ""."""

    goal: str
    run: str
    cell: str
    name: str
    facts: str
    measured: dict[str, str]
    ties: list[str] | None
    sure: str
    decides: str
    missed: str
    note: str

    @property
    def heading(self) -> str:
        """Return what to ship, in words: with the cells that tie."""
        return f"Ship {self.name}" + (f", or {' or '.join(self.ties)}: they tie" if self.ties else "")


def best(runs: dict[str, RunData]) -> list[Answer]:
    """The cell to ship for each of `GOALS` that a run can answer. Of several runs where the goal is of sizes, which are
    exact, the one with the smallest of those that the first run's is compared with; else the one with the most cells
    that were measured for it, since what two runs measured need not be comparable. `runs` are by name."""
    found, by_run = [], {name: dict(_choices(run)) for name, run in runs.items()}
    for goal, wishes in GOALS.items():
        told = [(name, choices[goal]) for name, choices in by_run.items() if goal in choices]
        if told:
            if wishes.needed == ["transfer"]:  # of those alone that are for one architecture and compressed in one way
                known = {name: [_of_picked(each, of) for of in _OF_SIZES] for name, each in told}
                alike = [each for each in told if known[each[0]] == known[told[0][0]]]
                run, chosen = min(alike, key=lambda each: _of_picked(each[1], "transfer"))
            else:
                run, chosen = max(told, key=lambda each: _measured(each[1]))
            if wishes.stable or chosen.table.loc[chosen.picked, "unstable"]:  # or it is what a goal above says already
                found.append(_answer(goal, run, runs[run], chosen))
    return found


def _of_picked(found: recommendation.Choice, column: str) -> Any:
    """A value of the selected cell, by its column in `recommendation.candidates`."""
    return found.table.loc[found.picked, column]


def first_goal(run: RunData, workload: str) -> Wishes:
    """The first of `GOALS` that a run has a cell for: what its page begins with. The last where it has none."""
    return next((GOALS[goal] for goal, _ in _choices(run, workload)), Wishes(stable=True))


def allocators(runs: dict[str, RunData]) -> pd.DataFrame:
    """What each allocator changes against malloc of the C library, as text: a row per CPU, workload, workers, C library
    and allocator, a column per metric. The study with the most blocks counts, and its first profile; of memory, under
    the same load; a substitute base only without a real one. The profile has a column where runs have several."""
    rows, profiles = {}, set()
    for metric, of in ((metrics.CPU_US_PER_REQUEST, {}), (metrics.STEADY_RSS_BYTES, {"of": "load"})):
        studies = [(run, name) for run in runs.values() for name in comparison.find_studies(run, metric.study, **of)]
        pairs = [
            (run, name, each)
            for run, name in studies
            for each in cells.beside_malloc(comparison.samples(run, name, metric))
        ]
        # Real bases come first, and of those the study with the most blocks.
        pairs.sort(key=lambda each: (each[2].base in each[0].environment.stand_ins, -_blocks(*each[:2])))
        for run, name, pair in pairs:
            cpu = run.environment.machine.get("cpu_model", "not recorded")
            load = run.environment.studies[name].parameters
            told = f"{load['workload']}, {load['workers']} worker thread{'s' * (load['workers'] > 1)}"
            of_load = f"{told}, {load['connections']} connection{'s' * (load['connections'] > 1)}"
            same = {"CPU": cpu, "load": of_load, "profile": pair.profile}
            same |= {"allocator": pair.allocator, "instead of": pair.malloc}
            profiles.add(same["profile"])
            row = rows.setdefault((cpu, told, same["allocator"], same["instead of"]), dict(same))
            if metric.noun not in row and same.items() <= row.items():
                found = comparison.of_study(run, name, metric, pair.baseline).set_index("cell").loc[pair.cell]
                row[metric.noun] = _ratio_in_words(found)
    found = pd.DataFrame(list(rows.values())).fillna("not measured")
    return found if found.empty or len(profiles) > 1 else found.drop(columns="profile")


def _ratio_in_words(found: pd.Series) -> str:
    """A ratio of `comparison.compare` with its interval; or what it could have missed."""
    if found["pairs"] < 2:
        return "too few blocks"
    if found["verdict"] in (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY):
        seen = found["detectable"] <= comparison.HUGE_RATIO
        return found["verdict"] + (f" (minimum detectable effect {found['detectable'] - 1:.0%})" if seen else "")
    return f"{found['ratio']:.2f}x ({found['low']:.2f} to {found['high']:.2f})"


def trade_off(runs: dict[str, RunData]) -> dict[str, Any]:
    """What the trade-off plot is drawn from, by the run with the most cells of those with two criteria or more: its
    name, the criteria, and the cells with a value for each (None if not measured); {} for no such run."""
    found = {}
    for name, run in runs.items():
        chosen = _chosen(run, Wishes())
        known = {key: each for key, each in CRITERIA.items() if chosen and chosen.table[key].notna().any()}
        if len(known) > 1 and len(chosen.table) > len(found.get("cells", [])):
            criteria = [{"label": each.phrase, "unit": each.shown_unit} for each in known.values()]
            points = [_point(chosen, cell, row, known) for cell, row in chosen.table.to_dict("index").items()]
            found = {"run": name, "criteria": criteria, "cells": points}
    return found


def _point(chosen: recommendation.Choice, cell: str, row: dict[str, Any], known: dict[str, metrics.Metric]) -> dict:
    values = [None if pd.isna(row[key]) else row[key] / each.divisor for key, each in known.items()]
    texts = [each.in_words(row[key]) for key, each in known.items()]
    shell = isinstance(row["shell"], str) and row["shell"] != ""
    stable = not row["unstable"]
    return {"name": chosen.name(cell), "values": values, "texts": texts, "shell": shell, "stable": stable}


def article(runs: dict[str, RunData]) -> pd.DataFrame:
    """`cells.article_grid` of the first run that has most of it; empty where none has any."""
    return max((cells.article_grid(run) for run in runs.values()), key=len)


def notes(runs: dict[str, RunData]) -> list[str]:
    """What a reader must know of every number: substitutes, cells without any, studies left out, rows not read."""
    said = []
    for name, run in runs.items():
        for base in run.environment.stand_ins:
            label = run.environment.images[run.environment.bases[base]]["label"]
            own = f"its figures are not {base.capitalize()}'s"
            said.append(f"In run {name} {base} is a {label}, not the official image: {own}.")
        built_on = run.environment.machine.get("architecture", Architecture.X86_64.value)
        if foreign := sorted(set(run.rows["architecture"]) - {built_on}):
            said.append(f"The images of run {name} are for {foreign[0]} and were built, and checked, on {built_on}.")
        works = cells.cell_table(run)["ok"]
        if not works.all():
            said.append(f"In run {name} {(~works).sum()} of {len(works)} cells have no number; its tables say why.")
        said += [f"In run {name} {line}." for line in comparison.left_out(run).values()]
        said += [f"In run {name} {run.unread}: its numbers are those of the others."] if run.unread else []
    return said


def _choices(run: RunData, workload: str = "") -> Iterator[tuple[str, recommendation.Choice]]:
    """The goals that a run has a cell for, in their order, each with what it selects."""
    try:
        known = recommendation.candidates(run, workload)
    except LabError:  # no cell works
        return
    for goal, wishes in GOALS.items():
        if (found := _chosen(run, wishes, workload, known)) and found.picked:
            yield goal, found


def _chosen(
    run: RunData, wishes: Wishes, workload: str = "", known: recommendation.Candidates | None = None
) -> recommendation.Choice | None:
    try:
        return recommendation.choose(run, wishes, workload, known)
    except LabError:  # the run has not measured what is asked
        return None


def _measured(found: recommendation.Choice) -> int:
    """How many cells could have been selected."""
    return int(found.table[found.wishes.needed].notna().all(axis=1).sum())


def _answer(goal: str, run: str, data: RunData, found: recommendation.Choice) -> Answer:
    one = found.table.loc[found.picked]
    ties = [cell for cell, share in found.sureness.items() if cell != found.picked and share >= TIE]
    return Answer(
        goal,
        run,
        found.picked,
        found.name(found.picked),
        views.recommendation.facts(found),
        {about.phrase: about.in_words(one[key]) for key, about in CRITERIA.items() if pd.notna(one[key])},
        list(map(found.name, ties)) if found.sureness or found.is_of_sizes else None,
        _sure(found, ties) + views.recommendation.unmeasured(found),
        _decides(found),
        _missed(data, found),
        " ".join(filter(None, [views.recommendation.of_two_programs(found), *_failing(data, found)])),
    )


def _failing(run: RunData, found: recommendation.Choice) -> Iterator[str]:
    """A sentence on each study of the run in which trials of the selected cell failed more often than may be chance."""
    for study in run.environment.studies:
        share = study_notes.failed_trials(run, study).get(found.picked, 0)
        if share > study_notes.FAILURES_APART:
            trials = run.rows[(run.rows["study"] == study) & (run.rows["metric"] == metrics.TRIAL)]
            reason = study_notes.last_failure(trials[trials["cell"] == found.picked])
            yield f"In {study}, {share:.0%} of its trials failed: {reason}."


def _sure(found: recommendation.Choice, ties: list[str]) -> str:
    """How sure it is that no other cell is better, in a sentence, as `views.recommendation` says it too."""
    if found.is_of_sizes:
        if found.table["estimated"].any():
            return "Certain only as far as the sizes are, which are estimates."
        return "Certain: sizes are exact."
    if not found.sureness:
        return (
            "How sure this is cannot be computed: a study has too few blocks of a cell, no A/A control, or is missing."
        )
    said = [f"{found.name(cell)} in {found.sureness[cell]:.0%}" for cell in ties]
    tied = f"; {', '.join(said)}: the measurements do not separate them" if said else ""
    none = 1 - sum(found.sureness.values())
    rest = f"; in {none:.0%} no cell meets the goal" if none > TIE / 10 else ""
    share = found.sureness.get(found.picked, 0.0)
    return f"In {recommendation.DRAWS:,} draws from the measured intervals it is the best in {share:.0%}{tied}{rest}."


def _decides(found: recommendation.Choice) -> str:
    """The cells with a lower objective outside the goal, each with the reason, and the next best within it."""
    table, said = found.table, []
    objective = next(name for name in found.wishes.weights if name in CRITERIA)
    outside = table[~table["meets"] & (table[objective] < table.loc[found.picked, objective])].sort_values(objective)
    if len(outside):
        first = [
            f"{found.name(cell)} ({CRITERIA[objective].in_words(one[objective])}: {one['reason']})"
            for cell, one in outside.head(FIRST).iterrows()
        ]
        more = f", and {len(outside) - FIRST} more" if len(outside) > FIRST else ""
        said.append(f"Lower {CRITERIA[objective].phrase}, but outside the goal: {', '.join(first)}{more}.")
    others = table[table["meets"] & (table.index != found.picked)].sort_values("score")
    said += [f"Next within the goal: {found.name(others.index[0])}, {others['reason'].iloc[0]}."] if len(others) else []
    return " ".join(said)


def _missed(run: RunData, found: recommendation.Choice) -> str:
    """The differences that the studies of the goal could not have seen, in a sentence; "" where it needs none."""
    said = []
    for name in found.wishes.needed:
        metric = CRITERIA.get(name, metrics.REQUESTS_PER_S)
        if metric.study and (study := comparison.study_of(run, metric)):
            ratios = comparison.of_study(run, study, metric)
            least = ratios["detectable"].median()
            size = f"of less than {least - 1:.0%}" if least <= comparison.HUGE_RATIO else "of any size"
            blocks = int(ratios["pairs"].max())
            said.append(f"{size} in {metric.phrase} ({blocks} block{'s' * (blocks != 1)})")
    return f"A difference {', or '.join(said)} could be missed, in the median of the cells." if said else ""


def _blocks(run: RunData, study: str) -> int:
    return run.rows.loc[(run.rows["study"] == study) & run.rows["ok"], "block"].nunique()
