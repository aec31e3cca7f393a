"""A run, constraints and an objective -> the cell to ship, why the others lost, and how sure that is. Pure.

Sizes are exact. How sure a choice is by what was measured in blocks, is the share of `DRAWS` repetitions that make the
same one, each with values drawn from Student's t distributions: about each cell's own mean where a limit is held
against it, and about its ratio to the study's baseline, paired by block, where cells are held against each other. What
deploys take of a day is not paired: it comes of several studies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from rustimg_lab.analysis import closed_loop, comparison, deploy, pareto
from rustimg_lab.analysis.cells import OPTIONS_OF_A_RUN, made_otherwise, working_cells
from rustimg_lab.analysis.draws import DRAWS, Draws, Values, measured
from rustimg_lab.analysis.variances import drawn
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.model import metrics
from rustimg_lab.model.names import additions_of, cell_in_words
from rustimg_lab.store.rows import ESTIMATE
from rustimg_lab.store.runs import RunData, current

FEW_DRAWS = 400  # of a map, which takes them at many points
SURE = 0.95
TWO_PROGRAMS = "sizes are of the grid's images, speeds and memory of the same cells' servers"  # a note of a choice


@dataclass(frozen=True)
class Day:
    """What a day brings: deploys to machines that have nothing, over a line of so many Mbit/s, and requests."""

    deploys: float
    bandwidth_mbit: float
    requests: float = 0


@dataclass(frozen=True)
class Wishes:
    """What the cell must keep to, and by what the one is picked: the weighted sum of the logarithms of the criteria."""

    limits: dict[str, float] = field(default_factory=dict)  # by criterion, in bytes, seconds, µs: at most
    min_throughput: float = 0  # as a share of the best cell's
    needs_shell: bool = False
    stable: bool = False
    weights: dict[str, float] = field(default_factory=lambda: {"transfer": 1.0})
    day: Day | None = None
    additions: tuple[str, ...] = ()  # what the image must have beside the program

    def lacks(self, cell: str) -> list[str]:
        """The additions that a cell, which has its own in its name, does not have."""
        return sorted({*self.additions} - {*additions_of(cell)})

    @property
    def needed(self) -> list[str]:
        """What must be measured of a cell for them: criteria, and the throughput."""
        of_day = ["cpu"] if metrics.DAY in self.weights and self.day and self.day.requests else []
        rate = [metrics.REQUESTS_PER_S] if self.min_throughput else []
        return [name for name in dict.fromkeys([*self.limits, *self.weights, *of_day, *rate]) if name != metrics.DAY]


@dataclass(frozen=True)
class Choice:
    """`table`: a row per cell, as `candidates` has it, with meets, score, on_front, and reason (why it lost; "" for the
    one picked). `picked` is "" where no cell meets the wishes. `sureness`: by cell, the share of the draws that picked
    it; empty where that cannot be said. `unmeasured`: cells that might have been picked, had all been measured of them.
    `paired`: draws of the criteria that were measured."""

    table: pd.DataFrame
    wishes: Wishes
    picked: str
    sureness: dict[str, float]
    notes: list[str]
    unmeasured: list[str] = field(default_factory=list)
    paired: Values = field(default_factory=dict)

    @property
    def is_of_sizes(self) -> bool:
        """Whether it depends on sizes alone, which have no noise."""
        by = {*self.wishes.limits, *self.wishes.weights}
        return not self.wishes.min_throughput and not any(metrics.ALL[name].study for name in by)

    def name(self, cell: str) -> str:
        """Return a cell as a reader sees it: a substitute base is marked."""
        return cell_in_words(cell, {"stand_ins": set(self.table.loc[self.table["stand_in"], "base"])})


Candidates = tuple[pd.DataFrame, Draws, list[str]]


def _of_other_sources(run: RunData, works: pd.Index) -> str:
    """That some of the cells were built of other sources or settings than the last; "" where none was."""
    found = made_otherwise(current(run), works)
    said = [f"cells {differs} than the last: {len(cells)}" for differs, (_, cells) in found.items() if cells]
    return f"{'; '.join(said)}; `./lab run` with all cells builds them anew" if said else ""


def candidates(run: RunData, workload: str = "") -> Candidates:
    """The working cells: architecture, base, profile, allocator, stand_in, shell (path, "" for none, NaN if not
    recorded), unstable, stable (neither if not recorded), estimated (sizes), unpacked_bytes, compressed_with, and a
    column per criterion and the throughput (`draws.measured`), or NaN; their draws; and notes for a reader. Raises
    LabError without any."""
    table = working_cells(run, "choose from")
    comparison.check_workload(run, workload)
    ways = sorted(set(table["compressed_with"]) - {""})
    kept = ["architecture", "base", "profile", "allocator", "stand_in", metrics.UNPACKED_BYTES, "shell"]
    found = table[[*kept, "compressed_with"]].assign(
        unstable=table["unstable"].eq(True),
        stable=table["unstable"].eq(False),
        estimated=len(ways) > 1 or ESTIMATE in ways,
        transfer=table[metrics.COMPRESSED_BYTES],
    )
    of_run = run.environment.app.get("note"), run.unread, run.left_out, _of_other_sources(run, found.index)
    notes = list(filter(None, of_run))
    notes += comparison.left_out(run).values()
    if found["estimated"].any():
        notes.append(f"compressed sizes are estimates, made in more than one way or not exactly: {'; '.join(ways)}")
    draws, generator, asked, told = Draws(), np.random.default_rng(0), {}, {}
    for name, metric in {**metrics.MEASURED, metrics.REQUESTS_PER_S: metrics.REQUESTS_PER_S}.items():
        found[name] = np.nan
        if fit := comparison.studies_of(run, metric, workload):
            study, others = fit[0], ", ".join(fit[1:])
            notes += [f"{name.replace('_', ' ')} is of {study}; the run also has {others}"] if others else []
            mean, own, paired, warning = measured(run, study, metric, found.index, generator)
            found[name], draws.own[name], draws.paired[name] = mean, own, paired
            told.setdefault((study, warning), []).append(metric.phrase)
            asked[study] = run.environment.studies[study].parameters.get("workload", "")
            rows = run.rows[(run.rows["study"] == study) & run.rows["cell"].isin(found.index)]
            if (rows["image"] != rows["cell"].map(table["image"])).any():
                notes.append(TWO_PROGRAMS)
    notes += [f"{study}, {' and '.join(of)}: {warning}" for (study, warning), of in told.items() if warning]
    if len({*asked.values()} - {""}) > 1:
        several = ", ".join(name for name, of in asked.items() if of)
        notes.append(f"of several workloads: {several}; --workload names one")
    used = closed_loop.busy(run, workload)
    if idle := closed_loop.idle(used):
        found[metrics.REQUESTS_PER_S] = np.nan
        notes.append(idle)
    elif closed_loop.is_one_quantity(used):
        rate = found[metrics.REQUESTS_PER_S] * found["cpu"]
        draws.paired[metrics.REQUESTS_PER_S] = rate.to_numpy() / draws.paired["cpu"]
    return found, draws, list(dict.fromkeys(notes))


def choose(run: RunData, wishes: Wishes, workload: str = "", known: Candidates | None = None) -> Choice:
    """The cell that meets the wishes at the least weighted sum. `known`: `candidates` of that run and workload, for
    several wishes. Raises LabError for a wish about what was not measured, and as `candidates`."""
    table, draws, notes = known or candidates(run, workload)
    table, notes = table.copy(), [*notes]
    if metrics.DAY in wishes.weights and not wishes.day:
        raise LabError(f"the weight '{metrics.DAY}' is of deploys a day, and none are named")
    for name in wishes.needed:
        if name not in (*metrics.CRITERIA, metrics.REQUESTS_PER_S):
            raise unknown("criterion", name, metrics.CRITERIA)
        if table[name].isna().all():
            raise _not_measured(run, name, workload)
    if wishes.day:
        table[metrics.DAY], of_day, note = _day(run, table, draws, wishes.day)
        draws = replace(draws, paired=draws.paired | {metrics.DAY: of_day})
        notes.append(note)
    if wishes.min_throughput and "cpu" in wishes.needed:
        used = closed_loop.busy(run, workload)
        notes += [closed_loop.in_words(used)] if closed_loop.is_one_quantity(used) else []
    names = (*metrics.CRITERIA, metrics.REQUESTS_PER_S, *([metrics.DAY] if wishes.day else []))
    values = {name: table[name].to_numpy(float)[None, :] for name in names}
    meets, score = _judge(table, values, values, wishes)
    table["meets"] = meets[0]
    table["score"] = np.where(meets[0], score[0], np.inf)
    table["on_front"], table["front_share"] = pareto.front(table), pareto.share(table, draws.paired)
    picked = table["score"].idxmin() if meets.any() else ""
    table["reason"] = [_reason(table, cell, picked, wishes) for cell in table.index]
    own, paired = values | draws.own, values | draws.paired
    sureness = {}
    if picked:
        named = [*wishes.needed, *([metrics.DAY] if metrics.DAY in wishes.weights else [])]
        rivals = table[wishes.needed].notna().all(axis=1) & ~_fails(table, wishes, exact=True)
        of_rivals = [each[name][:, rivals] for each in (own, paired) for name in named]
        if not any(np.isnan(each).any() for each in of_rivals):  # an unknown one may be the best
            sureness = _sureness(table, own, paired, wishes)
    unmeasured = table.index[table[wishes.needed].isna().any(axis=1) & ~_fails(table, wishes)]
    return Choice(table, wishes, picked, sureness, notes, list(unmeasured), draws.paired)


def _not_measured(run: RunData, name: str, workload: str) -> LabError:
    """The error for a wish about what no cell of a run has a number of: a criterion, or the throughput."""
    if name == metrics.REQUESTS_PER_S and (idle := closed_loop.idle(closed_loop.busy(run, workload))):
        return LabError(f"run '{run.name}': {idle}; leave that constraint out")
    kind = metrics.CRITERIA.get(name, metrics.REQUESTS_PER_S).study
    plans = run.environment.studies
    if lines := [line for study, line in comparison.left_out(run).items() if plans[study].kind == kind]:
        return LabError(f"run '{run.name}': {lines[0]}; leave that criterion out")
    command = f"measure --run NAME --study {kind}" if kind else "run --run NAME"
    return LabError(
        f"run '{run.name}' has not measured {name.replace('_', ' ')} of any of its cells: `./lab {command}` does, with "
        f"{OPTIONS_OF_A_RUN}; or leave that criterion out"
    )


def narrow(found: Choice, bases: Iterable[str], profiles: Iterable[str], allocators: Iterable[str]) -> Choice:
    """The choice among these bases, profiles and allocators alone, with their Pareto front; nothing is picked."""
    kept = found.table.query("base in @bases and profile in @profiles and allocator in @allocators").copy()
    at = found.table.index.get_indexer(kept.index)
    paired = {name: each[:, at] for name, each in found.paired.items()}
    kept["on_front"], kept["front_share"] = (
        (pareto.front(kept), pareto.share(kept, paired)) if len(kept) else (False, np.nan)
    )
    return replace(found, table=kept, picked="", sureness={}, paired=paired)


def deploy_seconds(run: RunData, table: pd.DataFrame, bandwidth_mbit: float) -> pd.DataFrame:
    """The seconds of one deploy of each cell of `candidates` to a machine that lacks its image: columns as
    `deploy.first_response`. `attrs["lacking"]`: cells without a measured deploy; where there is one, the seconds of all
    are of the transfer alone, without an interval. Raises LabError for a bandwidth that is not above 0."""
    if not bandwidth_mbit > 0:
        raise LabError(f"a bandwidth of {bandwidth_mbit:g} Mbit/s is not above 0: no image is pulled over it")
    columns = ["trials", "mean", "low", "high"]
    found = pd.DataFrame(np.nan, table.index, columns)
    if deploy.is_measured(run):
        found = deploy.first_response(run, bandwidth_mbit).reindex(table.index)
    lacking = list(found.index[found["mean"].isna()])
    if lacking:
        by_transfer = deploy.on_line_s(table["transfer"], bandwidth_mbit)
        found = pd.DataFrame({"mean": by_transfer}, table.index, columns, float)
    found.attrs = {"lacking": lacking}
    return found


def daily_seconds(table: pd.DataFrame, deploy_s: pd.Series, deploys: np.ndarray, requests: np.ndarray) -> pd.DataFrame:
    """The seconds of all deploys of a day, of `deploy_s` each (the mean of `deploy_seconds`), and of a CPU that answers
    all requests: a column per cell with both, a row per pair of `deploys` and `requests` (equal shapes)."""
    known = table.index[table["cpu"].notna() & deploy_s.notna()]
    cpu_s = np.outer(requests, table.loc[known, "cpu"] / 1e6)
    return pd.DataFrame(np.outer(deploys, deploy_s[known]) + cpu_s, columns=known)


def map_sureness(found: Choice, deploy_s: pd.DataFrame, deploys: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """How sure the cell with the fewest seconds a day is: its share of draws by pair of `deploys` and `requests` (flat
    arrays); NaN where CPU time has no interval. `deploy_s` (`deploy_seconds`) is exact without."""
    names = daily_seconds(found.table, deploy_s["mean"], deploys, requests)
    at = found.table.index.get_indexer(names.columns)
    cpu = found.paired["cpu"][:FEW_DRAWS, at] / 1e6
    if np.isnan(cpu).any():
        return np.full(len(deploys), np.nan)
    one = drawn(deploy_s.loc[names.columns], FEW_DRAWS, np.random.default_rng(2))
    one = np.where(np.isnan(one), deploy_s.loc[names.columns, "mean"].to_numpy(), one)
    best = names.to_numpy().argmin(axis=1)
    days = (np.outer(deploys, deploy) + np.outer(requests, busy) for deploy, busy in zip(one, cpu, strict=True))
    return sum(day.argmin(axis=1) == best for day in days) / len(cpu)


def _day(run: RunData, table: pd.DataFrame, draws: Draws, day: Day) -> tuple[pd.Series, np.ndarray, str]:
    """The seconds of a day per cell, draws of them, and what a reader must know of them."""
    one = deploy_seconds(run, table, day.bandwidth_mbit)
    note = "deploys are of the same cells' servers, by a model of each block; how far models are off is in 08_deploy"
    if lacking := one.attrs["lacking"]:
        note = f"deploys count the compressed bytes alone, no unpacking and no start: none was measured of {lacking[0]}"
        note += f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
    seconds_drawn = day.deploys * drawn(one, DRAWS, np.random.default_rng(1))
    seconds = day.deploys * one["mean"]
    if day.requests:
        seconds = seconds + day.requests * table["cpu"] / 1e6
        seconds_drawn = seconds_drawn + day.requests * draws.paired.get("cpu", np.nan) / 1e6
    return seconds, seconds_drawn, note


def _judge(table: pd.DataFrame, own: Values, paired: Values, wishes: Wishes) -> tuple[np.ndarray, np.ndarray]:
    """Whether each cell meets the wishes, and its weighted sum, by draw and cell."""
    meets = np.ones((1, len(table)), bool)
    for name, limit in wishes.limits.items():
        meets = meets & (own[name] <= limit)
    if wishes.min_throughput:
        rate = paired[metrics.REQUESTS_PER_S]
        meets = meets & (rate >= wishes.min_throughput * np.nanmax(rate, axis=1, keepdims=True))
    if wishes.needs_shell:
        meets = meets & table["shell"].fillna("").ne("").to_numpy()
    if wishes.stable:
        meets = meets & table["stable"].to_numpy()
    meets = meets & np.array([not wishes.lacks(cell) for cell in table.index])
    score = sum(weight * np.log(paired[name]) for name, weight in wishes.weights.items())
    return meets & ~np.isnan(score), score


def _fails(table: pd.DataFrame, wishes: Wishes, exact: bool = False) -> np.ndarray:
    """Whether each cell fails in something that is known of it; of what has no noise alone where `exact`."""
    fails = table["shell"].eq("") & wishes.needs_shell | table["unstable"] & wishes.stable
    fails |= np.array([bool(wishes.lacks(cell)) for cell in table.index])
    for name, limit in wishes.limits.items():
        if not (exact and name in metrics.MEASURED):
            fails |= table[name] > limit
    rate = table[metrics.REQUESTS_PER_S]
    return (fails | (rate < (0 if exact else wishes.min_throughput) * rate.max())).to_numpy()


def _sureness(table: pd.DataFrame, own: Values, paired: Values, wishes: Wishes) -> dict[str, float]:
    meets, score = _judge(table, own, paired, wishes)
    score = np.where(meets, score, np.inf)
    best = np.where(np.isfinite(score).any(axis=1), score.argmin(axis=1), -1)
    counts = pd.Series(best[best >= 0]).value_counts() / len(best)
    return {table.index[number]: float(share) for number, share in counts.items()}


def _reason(table: pd.DataFrame, cell: str, picked: str, wishes: Wishes) -> str:
    """Why a cell was not picked; "" for the one that was."""
    if cell == picked:
        return ""
    own = table.loc[cell]
    said = []
    for name, limit in wishes.limits.items():
        if not own[name] <= limit:
            more = "" if np.isnan(own[name]) else f", more than {metrics.CRITERIA[name].exactly(limit)}"
            said.append(f"{metrics.CRITERIA[name].phrase} {metrics.CRITERIA[name].in_words(own[name])}{more}")
    if wishes.min_throughput:
        best = table[metrics.REQUESTS_PER_S].max()
        if np.isnan(own[metrics.REQUESTS_PER_S]):
            said.append("throughput not measured")
        elif own[metrics.REQUESTS_PER_S] < wishes.min_throughput * best:
            said.append(f"{own[metrics.REQUESTS_PER_S] / best:.0%} of the best throughput")
    if wishes.needs_shell and not isinstance(own["shell"], str):
        said.append("not recorded whether it has a shell")
    elif wishes.needs_shell and not own["shell"]:
        said.append("no shell")
    if wishes.stable and not own["stable"]:
        said.append("unstable flags" if own["unstable"] else "not recorded whether its flags are stable")
    said += [f"built without --with {','.join(lacking)}"] if (lacking := wishes.lacks(cell)) else []
    unmeasured = [name for name in wishes.weights if np.isnan(own[name]) and name not in wishes.limits]
    said += [f"{metrics.ALL[name].phrase} not measured" for name in unmeasured]
    if said:
        return "; ".join(said)
    worse = [name for name in wishes.weights if own[name] > table.loc[picked, name]]
    told = ", ".join(f"{metrics.ALL[n].phrase} {own[n] / table.loc[picked, n]:.2f} times" for n in worse)
    return f"{told} the selected cell's" if told else "equal to the selected cell"
