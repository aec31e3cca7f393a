"""Runs -> the answers that a reader wants first: the image to ship for each goal, and what holds of the article."""

from dataclasses import dataclass

import pandas as pd

from rustimg_lab.analysis import cells, comparison, recommendation
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.errors import LabError
from rustimg_lab.model.metrics import CRITERIA
from rustimg_lab.report import views
from rustimg_lab.store.runs import RunData

# The first that a run can answer is the one that the page begins with.
GOALS = {
    "the smallest transfer, at least 95% of the best throughput, exec to first byte within 10 ms, stable flags": Wishes(
        {"startup": 0.010}, min_throughput=0.95, stable=True
    ),
    "the smallest transfer, at least 95% of the best throughput, stable flags": Wishes(
        min_throughput=0.95, stable=True
    ),
    "the smallest transfer, stable flags": Wishes(stable=True),
    "the smallest transfer, unstable flags allowed": Wishes(),
    "the smallest transfer of those with a shell, stable flags": Wishes(needs_shell=True, stable=True),
    "the soonest first byte after exec, stable flags": Wishes(stable=True, weights={"startup": 1.0}),
    "the least CPU time per request, stable flags": Wishes(stable=True, weights={"cpu": 1.0}),
    "the least memory under load, stable flags": Wishes(stable=True, weights={"memory": 1.0}),
}


@dataclass(frozen=True)
class Answer:
    """The cell to ship for a goal. `run` and `cell` lead to its Dockerfile; `name` is the cell in words, with what
    stands in for another; `measured` has a text by quantity, `facts` all of them; `beaten` is the next best, and by
    what."""

    goal: str
    run: str
    cell: str
    name: str
    facts: str
    measured: dict[str, str]
    sure: str
    beaten: str


def best(runs: dict[str, RunData]) -> list[Answer]:
    """The cell to ship for each of `GOALS` that a run can answer; of several the one with the most cells that were
    measured for it, since cells of two runs need not be comparable. `runs` are `runs.load`'s, by name."""
    found = []
    for goal, wishes in GOALS.items():
        told = [(name, chosen) for name, run in runs.items() if (chosen := _chosen(run, wishes)) and chosen.picked]
        if told:
            run, chosen = max(told, key=lambda each: _measured(each[1]))
            if wishes.stable or chosen.table.loc[chosen.picked, "unstable"]:  # or it is what a goal above says already
                found.append(_answer(goal, run, chosen))
    return found


def allocator(runs: dict[str, RunData]) -> str:
    """The article's sentence on allocators against the study with the most blocks that holds musl malloc beside
    jemalloc, and what jemalloc takes in memory, as Markdown; "" where no run can tell."""
    told = []
    verdicts = ("throughput", {}, views.verdicts.allocator_verdict), ("memory", {"of": "load"}, memory_verdict)
    for kind, of, verdict in verdicts:
        studies = [
            (run, name)
            for run in runs.values()
            for name in comparison.find_studies(run, kind, **of)
            if views.verdicts.holds_musl_beside_jemalloc(run, name) and _blocks(run, name) > 1
        ]
        if studies:
            run, name = max(studies, key=lambda each: _blocks(*each))
            told.append(verdict(run, name).partition("\n\n")[0])
    return "\n\n".join(told)


def article(runs: dict[str, RunData]) -> pd.DataFrame:
    """`cells.article_grid` of the first run that has most of it; empty where none has any."""
    return max((cells.article_grid(run) for run in runs.values()), key=len)


def notes(runs: dict[str, RunData]) -> list[str]:
    """What a reader must know of every number: which bases are stand-ins, and how many cells have none."""
    said = []
    for name, run in runs.items():
        for base in run.environment.stand_ins:
            label = run.environment.images[run.environment.bases[base]]["label"]
            own = f"its figures are not {base.capitalize()}'s"
            said.append(f"In run {name} {base} is a {label}, not the official image: {own}.")
        works = cells.cell_table(run)["ok"]
        if not works.all():
            said.append(f"In run {name} {(~works).sum()} of {len(works)} cells have no number; its tables say why.")
    return said


def _chosen(run: RunData, wishes: Wishes) -> recommendation.Choice | None:
    try:
        return recommendation.choose(run, wishes)
    except LabError:  # the run has not measured what is asked
        return None


def _measured(found: recommendation.Choice) -> int:
    """How many cells could have been picked."""
    return int(found.table[found.wishes.needed].notna().all(axis=1).sum())


def _answer(goal: str, run: str, found: recommendation.Choice) -> Answer:
    table = found.table
    others = table[table["meets"] & (table.index != found.picked)].sort_values("score")
    beaten = f"{found.name(others.index[0])}: {others['reason'].iloc[0]}" if len(others) else ""
    name, one = found.name(found.picked), table.loc[found.picked]
    measured = {about.phrase: about.in_words(one[key]) for key, about in CRITERIA.items() if pd.notna(one[key])}
    return Answer(
        goal,
        run,
        found.picked,
        name,
        views.recommendation.facts(found),
        measured,
        views.recommendation.sure(found),
        beaten,
    )


def memory_verdict(run: RunData, study: str) -> str:
    """What jemalloc costs in memory in a study under load, and in that of the smallest limits of that load."""
    load = run.environment.studies[study].parameters
    same = {key: load[key] for key in ("workload", "workers", "connections")}
    limits = comparison.find_studies(run, "memory", of="limit", **same)
    return views.verdicts.memory_verdict(run, study, limits[0] if limits else "")


def _blocks(run: RunData, study: str) -> int:
    return run.rows.loc[(run.rows["study"] == study) & run.rows["ok"], "block"].nunique()
