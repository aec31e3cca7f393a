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
    substitutes for another. `facts`: all that was measured of the cell; `measured`: these facts, a text by quantity.
    `ties`: the cells, in words, that tie with it; None where nobody knows. `sure`, `decides`, `missed`, `note` (on the
    facts): a sentence or two each, or "" for none."""

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
        """Return what to ship, in words, with the cells that tie."""
        return f"Ship {self.name}" + (f", or {' or '.join(self.ties)}: they tie" if self.ties else "")


def best(runs: dict[str, RunData]) -> list[Answer]:
    """Return the cell to ship for each of `GOALS` that a run can answer. `runs` are by name. A goal of sizes alone
    takes the smallest image, among runs with the architecture and compression of the first. Another goal takes the run
    with the most cells measured for it, since measurements of two runs need not be comparable. Where unstable flags are
    allowed, a cell with stable flags is left out: a goal above has it."""
    answers, by_run = [], {name: dict(_choices(run)) for name, run in runs.items()}
    for goal, wishes in GOALS.items():
        candidates = [(name, choices[goal]) for name, choices in by_run.items() if goal in choices]
        if candidates:
            if wishes.needed == ["transfer"]:  # of those alone that are for one architecture and compressed in one way
                traits = {
                    name: [_selected_value(choice, column) for column in _OF_SIZES] for name, choice in candidates
                }
                alike = [candidate for candidate in candidates if traits[candidate[0]] == traits[candidates[0][0]]]
                run, choice = min(alike, key=lambda candidate: _selected_value(candidate[1], "transfer"))
            else:
                run, choice = max(candidates, key=lambda candidate: _measured(candidate[1]))
            if wishes.stable or choice.table.loc[choice.picked, "unstable"]:  # or it is what a goal above says already
                answers.append(_answer(goal, run, runs[run], choice))
    return answers


def _selected_value(choice: recommendation.Choice, column: str) -> Any:
    """Return a value of the selected cell, by its column in `recommendation.candidates`."""
    return choice.table.loc[choice.picked, column]


def first_goal(run: RunData, workload: str) -> Wishes:
    """Return the first of `GOALS` that a run has a cell for: the goal with which the page of the run begins. Without
    such a goal, return the smallest compressed size with stable flags."""
    return next((GOALS[goal] for goal, _ in _choices(run, workload)), Wishes(stable=True))


def allocators(runs: dict[str, RunData]) -> pd.DataFrame:
    """Return the ratios of each allocator to malloc of the C library as text, with a column per metric. There is a row
    per CPU, workload, worker threads, allocator and C library; no row when no run compares allocators. A real base
    precedes a substitute, then the study with the most blocks, then the first profile. Memory is that under the load of
    the throughput. With several profiles in the rows there is a column `profile`."""
    rows, profiles = {}, set()
    for metric, query in ((metrics.CPU_US_PER_REQUEST, {}), (metrics.STEADY_RSS_BYTES, {"of": "load"})):
        studies = [(run, name) for run in runs.values() for name in comparison.find_studies(run, metric.study, **query)]
        pairs = [
            (run, name, pair)
            for run, name in studies
            for pair in cells.beside_malloc(comparison.samples(run, name, metric))
        ]
        # Real bases come first, and of those the study with the most blocks.
        pairs.sort(key=lambda item: (item[2].base in item[0].environment.stand_ins, -_blocks(*item[:2])))
        for run, name, pair in pairs:
            cpu = run.environment.machine.get("cpu_model", "not recorded")
            load = run.environment.studies[name].parameters
            workload = f"{load['workload']}, {load['workers']} worker thread{'s' * (load['workers'] > 1)}"
            of_load = f"{workload}, {load['connections']} connection{'s' * (load['connections'] > 1)}"
            facts = {"CPU": cpu, "load": of_load, "profile": pair.profile}
            facts |= {"allocator": pair.allocator, "instead of": pair.malloc}
            profiles.add(facts["profile"])
            row = rows.setdefault((cpu, workload, facts["allocator"], facts["instead of"]), dict(facts))
            if metric.noun not in row and facts.items() <= row.items():
                result = comparison.of_study(run, name, metric, pair.baseline).set_index("cell").loc[pair.cell]
                row[metric.noun] = _ratio_in_words(result)
    result = pd.DataFrame(list(rows.values())).fillna("not measured")
    return result if result.empty or len(profiles) > 1 else result.drop(columns="profile")


def _ratio_in_words(row: pd.Series) -> str:
    """Return a ratio with its 95% interval, or a verdict with the minimum detectable effect. `row` is of
    `comparison.compare`."""
    if row["pairs"] < 2:
        return "too few blocks"
    if row["verdict"] in (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY):
        is_detectable = row["detectable"] <= comparison.HUGE_RATIO
        return row["verdict"] + (f" (minimum detectable effect {row['detectable'] - 1:.0%})" if is_detectable else "")
    return f"{row['ratio']:.2f}x ({row['low']:.2f} to {row['high']:.2f})"


def trade_off(runs: dict[str, RunData]) -> dict[str, Any]:
    """Return what the plot of the trade-off is drawn from; {} when no run has measured two criteria. The run is the one
    with the most cells. Keys: run (name), criteria (label and unit of each), cells (by criterion a value in that unit,
    None where not measured)."""
    plot = {}
    for name, run in runs.items():
        choice = _chosen(run, Wishes())
        quantities = {key: metric for key, metric in CRITERIA.items() if choice and choice.table[key].notna().any()}
        if len(quantities) > 1 and len(choice.table) > len(plot.get("cells", [])):
            criteria = [{"label": metric.phrase, "unit": metric.shown_unit} for metric in quantities.values()]
            points = [_point(choice, cell, row, quantities) for cell, row in choice.table.to_dict("index").items()]
            plot = {"run": name, "criteria": criteria, "cells": points}
    return plot


def _point(choice: recommendation.Choice, cell: str, row: dict[str, Any], criteria: dict[str, metrics.Metric]) -> dict:
    values = [None if pd.isna(row[key]) else row[key] / metric.divisor for key, metric in criteria.items()]
    texts = [metric.in_words(row[key]) for key, metric in criteria.items()]
    has_shell = isinstance(row["shell"], str) and row["shell"] != ""
    is_stable = not row["unstable"]
    return {"name": choice.name(cell), "values": values, "texts": texts, "shell": has_shell, "stable": is_stable}


def article(runs: dict[str, RunData]) -> pd.DataFrame:
    """Return `cells.article_grid` of the first run with the most rows of it; empty when no run has a cell of the
    article's grid."""
    return max((cells.article_grid(run) for run in runs.values()), key=len)


def notes(runs: dict[str, RunData]) -> list[str]:
    """Return sentences on what a reader must know of every number: substitute bases, foreign architectures, cells
    without a number, studies left out, and unreadable rows."""
    texts = []
    for name, run in runs.items():
        for base in run.environment.stand_ins:
            label = run.environment.images[run.environment.bases[base]]["label"]
            caveat = f"its figures are not {base.capitalize()}'s"
            texts.append(f"In run {name} {base} is a {label}, not the official image: {caveat}.")
        built_on = run.environment.machine.get("architecture", Architecture.X86_64.value)
        if foreign := sorted(set(run.rows["architecture"]) - {built_on}):
            texts.append(f"The images of run {name} are for {foreign[0]} and were built, and checked, on {built_on}.")
        is_ok = cells.cell_table(run)["ok"]
        if not is_ok.all():
            texts.append(f"In run {name} {(~is_ok).sum()} of {len(is_ok)} cells have no number; its tables say why.")
        texts += [f"In run {name} {line}." for line in comparison.excluded_studies(run).values()]
        texts += [f"In run {name} {run.unread}: its numbers are those of the others."] if run.unread else []
    return texts


def _choices(run: RunData, workload: str = "") -> Iterator[tuple[str, recommendation.Choice]]:
    """Yield each goal that a run has a cell for, in the order of `GOALS`, with what the goal selects."""
    try:
        candidates = recommendation.candidates(run, workload)
    except LabError:  # no cell works
        return
    for goal, wishes in GOALS.items():
        if (choice := _chosen(run, wishes, workload, candidates)) and choice.picked:
            yield goal, choice


def _chosen(
    run: RunData, wishes: Wishes, workload: str = "", candidates: recommendation.Candidates | None = None
) -> recommendation.Choice | None:
    try:
        return recommendation.choose(run, wishes, workload, candidates)
    except LabError:  # the run has not measured what is asked
        return None


def _measured(choice: recommendation.Choice) -> int:
    """Return how many cells could have been selected."""
    return int(choice.table[choice.wishes.needed].notna().all(axis=1).sum())


def _answer(goal: str, run: str, data: RunData, choice: recommendation.Choice) -> Answer:
    row = choice.table.loc[choice.picked]
    ties = [cell for cell, share in choice.sureness.items() if cell != choice.picked and share >= TIE]
    return Answer(
        goal,
        run,
        choice.picked,
        choice.name(choice.picked),
        views.recommendation.facts(choice),
        {metric.phrase: metric.in_words(row[key]) for key, metric in CRITERIA.items() if pd.notna(row[key])},
        list(map(choice.name, ties)) if choice.sureness or choice.is_of_sizes else None,
        _sureness_sentence(choice, ties) + views.recommendation.unmeasured(choice),
        _deciding_sentence(choice),
        _missed_sentence(data, choice),
        " ".join(filter(None, [views.recommendation.of_two_programs(choice), *_failing(data, choice)])),
    )


def _failing(run: RunData, choice: recommendation.Choice) -> Iterator[str]:
    """Yield a sentence on each study of the run in which trials of the selected cell failed more often than may be
    chance."""
    for study in run.environment.studies:
        share = study_notes.failed_trials(run, study).get(choice.picked, 0)
        if share > study_notes.FAILURES_APART:
            trials = run.rows[(run.rows["study"] == study) & (run.rows["metric"] == metrics.TRIAL)]
            reason = study_notes.last_failure(trials[trials["cell"] == choice.picked])
            yield f"In {study}, {share:.0%} of its trials failed: {reason}."


def _sureness_sentence(choice: recommendation.Choice, ties: list[str]) -> str:
    """Return how sure it is that no other cell is better, in a sentence, as `views.recommendation.sure` also does."""
    if choice.is_of_sizes:
        if choice.table["estimated"].any():
            return "Certain only as far as the sizes are, which are estimates."
        return "Certain: sizes are exact."
    if not choice.sureness:
        return (
            "How sure this is cannot be computed: a study has too few blocks of a cell, no A/A control, or is missing."
        )
    alternatives = [f"{choice.name(cell)} in {choice.sureness[cell]:.0%}" for cell in ties]
    tied = f"; {', '.join(alternatives)}: the measurements do not separate them" if alternatives else ""
    unmet_share = 1 - sum(choice.sureness.values())
    unmet = f"; in {unmet_share:.0%} no cell meets the goal" if unmet_share > TIE / 10 else ""
    share = choice.sureness.get(choice.picked, 0.0)
    return f"In {recommendation.DRAWS:,} draws from the measured intervals it is the best in {share:.0%}{tied}{unmet}."


def _deciding_sentence(choice: recommendation.Choice) -> str:
    """Return the cells with less of the objective that do not meet the goal, each with the reason. Add the next best
    cell that meets the goal."""
    table, texts = choice.table, []
    objective = next(name for name in choice.wishes.weights if name in CRITERIA)
    outside = table[~table["meets"] & (table[objective] < table.loc[choice.picked, objective])].sort_values(objective)
    if len(outside):
        examples = [
            f"{choice.name(cell)} ({CRITERIA[objective].in_words(row[objective])}: {row['reason']})"
            for cell, row in outside.head(FIRST).iterrows()
        ]
        more = f", and {len(outside) - FIRST} more" if len(outside) > FIRST else ""
        texts.append(f"Lower {CRITERIA[objective].phrase}, but outside the goal: {', '.join(examples)}{more}.")
    peers = table[table["meets"] & (table.index != choice.picked)].sort_values("score")
    texts += [f"Next within the goal: {choice.name(peers.index[0])}, {peers['reason'].iloc[0]}."] if len(peers) else []
    return " ".join(texts)


def _missed_sentence(run: RunData, choice: recommendation.Choice) -> str:
    """Return the differences that the studies of the goal could not have detected, in a sentence; "" when there is no
    such study."""
    effects = []
    for name in choice.wishes.needed:
        metric = CRITERIA.get(name, metrics.REQUESTS_PER_S)
        if metric.study and (study := comparison.study_of(run, metric)):
            ratios = comparison.of_study(run, study, metric)
            least = ratios["detectable"].median()
            size = f"of less than {least - 1:.0%}" if least <= comparison.HUGE_RATIO else "of any size"
            blocks = int(ratios["pairs"].max())
            effects.append(f"{size} in {metric.phrase} ({blocks} block{'s' * (blocks != 1)})")
    return f"A difference {', or '.join(effects)} could be missed, in the median of the cells." if effects else ""


def _blocks(run: RunData, study: str) -> int:
    return run.rows.loc[(run.rows["study"] == study) & run.rows["ok"], "block"].nunique()
