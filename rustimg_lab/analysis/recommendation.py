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
from rustimg_lab.analysis.cells import OPTIONS_OF_A_RUN, built_otherwise, working_cells
from rustimg_lab.analysis.draws import DRAWS, Draws, Values, draw_metric
from rustimg_lab.analysis.variances import draw_means
from rustimg_lab.errors import LabError, unknown_name
from rustimg_lab.model import metrics
from rustimg_lab.model.names import additions_of, cell_in_words
from rustimg_lab.store.rows import ESTIMATE
from rustimg_lab.store.runs import RunData, newest_rows

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
        """Return the required additions that a cell lacks, sorted. The name of a cell has its additions."""
        return sorted({*self.additions} - {*additions_of(cell)})

    @property
    def needed(self) -> list[str]:
        """Return what must be measured of a cell for constraints and objective: criteria, and the throughput."""
        of_day = ["cpu"] if metrics.DAY in self.weights and self.day and self.day.requests else []
        rate = [metrics.REQUESTS_PER_S] if self.min_throughput else []
        return [name for name in dict.fromkeys([*self.limits, *self.weights, *of_day, *rate]) if name != metrics.DAY]


@dataclass(frozen=True)
class Choice:
    """`table`: a row per cell, as `candidates` has it, with meets, score, on_front, and reason (why it lost; "" for the
    one picked). `picked` is "" where no cell meets the wishes. `sureness`: by cell, the share of the draws that picked
    it; empty where that cannot be said. `unmeasured`: cells that might have been picked, had all been measured of them.
    `ratio_draws`: draws of the criteria that were measured."""

    table: pd.DataFrame
    wishes: Wishes
    picked: str
    sureness: dict[str, float]
    notes: list[str]
    unmeasured: list[str] = field(default_factory=list)
    ratio_draws: Values = field(default_factory=dict)

    @property
    def is_of_sizes(self) -> bool:
        """Return whether the choice depends on sizes alone, which have no noise."""
        by = {*self.wishes.limits, *self.wishes.weights}
        return not self.wishes.min_throughput and not any(metrics.ALL[name].study for name in by)

    def name(self, cell: str) -> str:
        """Return a cell as a reader sees it: a substitute base is marked."""
        return cell_in_words(cell, {"stand_ins": set(self.table.loc[self.table["stand_in"], "base"])})


Candidates = tuple[pd.DataFrame, Draws, list[str]]


def _other_sources_note(run: RunData, working_cells: pd.Index) -> str:
    """Return a note that some of the working cells were built of other sources or settings than the last one; "" where
    none was."""
    groups = built_otherwise(newest_rows(run), working_cells)
    notes = [f"cells {phrase} than the last: {len(cells)}" for phrase, (_, cells) in groups.items() if cells]
    return f"{'; '.join(notes)}; `./lab run` with all cells builds them anew" if notes else ""


def candidates(run: RunData, workload: str = "") -> Candidates:
    """Return the cells that work, draws of their measured values, and notes that a reader must see. Columns:
    architecture, base, profile, allocator, stand_in, shell (path, "" for none, NaN if not recorded), unstable, stable
    (both False if not recorded), estimated (sizes), unpacked_bytes, compressed_with. Each criterion and the throughput
    has a column too (means of `draws.draw_metric`, NaN if not measured). Raises LabError when no cell works."""
    table = working_cells(run, "choose from")
    comparison.check_workload(run, workload)
    ways = sorted(set(table["compressed_with"]) - {""})
    columns = ["architecture", "base", "profile", "allocator", "stand_in", metrics.UNPACKED_BYTES, "shell"]
    cells = table[[*columns, "compressed_with"]].assign(
        unstable=table["unstable"].eq(True),
        stable=table["unstable"].eq(False),
        estimated=len(ways) > 1 or ESTIMATE in ways,
        transfer=table[metrics.COMPRESSED_BYTES],
    )
    run_notes = run.environment.app.get("note"), run.unread, run.left_out, _other_sources_note(run, cells.index)
    notes = list(filter(None, run_notes))
    notes += comparison.excluded_studies(run).values()
    if cells["estimated"].any():
        notes.append(f"compressed sizes are estimates, made in more than one way or not exactly: {'; '.join(ways)}")
    draws, generator, workloads, warnings = Draws(), np.random.default_rng(0), {}, {}
    use = _cpu_use(run, workload)
    no_best = closed_loop.no_best_note(use)
    for name, metric in {**metrics.MEASURED, metrics.REQUESTS_PER_S: metrics.REQUESTS_PER_S}.items():
        cells[name] = np.nan
        is_of_load = no_best and name == metrics.REQUESTS_PER_S
        if studies := [] if is_of_load else comparison.studies_of(run, metric, workload):
            study, siblings = studies[0], ", ".join(studies[1:])
            notes += [f"{name.replace('_', ' ')} is of {study}; the run also has {siblings}"] if siblings else []
            mean, own_draws, paired, warning = draw_metric(run, study, metric, cells.index, generator)
            cells[name], draws.cell_draws[name], draws.ratio_draws[name] = mean, own_draws, paired
            warnings.setdefault((study, warning), []).append(metric.phrase)
            workloads[study] = run.environment.studies[study].parameters.get("workload", "")
            rows = run.rows[(run.rows["study"] == study) & run.rows["cell"].isin(cells.index)]
            if (rows["image"] != rows["cell"].map(table["image"])).any():
                notes.append(TWO_PROGRAMS)
    notes += [f"{study}, {' and '.join(texts)}: {warning}" for (study, warning), texts in warnings.items() if warning]
    if len({*workloads.values()} - {""}) > 1:
        names = ", ".join(name for name, load in workloads.items() if load)
        notes.append(f"of several workloads: {names}; --workload names one")
    notes += [no_best] if no_best else []
    if closed_loop.is_one_quantity(use):
        rate = cells[metrics.REQUESTS_PER_S] * cells["cpu"]
        draws.ratio_draws[metrics.REQUESTS_PER_S] = rate.to_numpy() / draws.ratio_draws["cpu"]
    return cells, draws, list(dict.fromkeys(notes))


def _cpu_use(run: RunData, workload: str) -> pd.Series:
    """Return `closed_loop.cpu_use` of the study of requests per second and CPU per request. Empty where no study has
    both."""
    study = comparison.study_of(run, metrics.REQUESTS_PER_S, workload)
    if not study or comparison.study_of(run, metrics.CPU_US_PER_REQUEST, workload) != study:
        return pd.Series(dtype=float)
    return closed_loop.cpu_use(run, study)


def choose(run: RunData, wishes: Wishes, workload: str = "", pool: Candidates | None = None) -> Choice:
    """Return the choice of the cell that meets the constraints at the least weighted sum. `pool`: what `candidates`
    returned of that run and workload, for a caller with several objectives. Raises LabError when a constraint or weight
    is on what the run has not measured, and as `candidates` does."""
    table, draws, notes = pool or candidates(run, workload)
    table, notes = table.copy(), [*notes]
    if metrics.DAY in wishes.weights and not wishes.day:
        raise LabError(f"the weight '{metrics.DAY}' is of deploys a day, and none are named")
    for name in wishes.needed:
        if name not in (*metrics.CRITERIA, metrics.REQUESTS_PER_S):
            raise unknown_name("criterion", name, metrics.CRITERIA)
        if table[name].isna().all():
            raise _unmeasured_error(run, name, workload)
    if wishes.day:
        table[metrics.DAY], day_draws, note = _day(run, table, draws, wishes.day)
        draws = replace(draws, ratio_draws=draws.ratio_draws | {metrics.DAY: day_draws})
        notes.append(note)
    if wishes.min_throughput and "cpu" in wishes.needed:
        use = _cpu_use(run, workload)
        notes += [closed_loop.in_words(use)] if closed_loop.is_one_quantity(use) else []
    names = (*metrics.CRITERIA, metrics.REQUESTS_PER_S, *([metrics.DAY] if wishes.day else []))
    values = {name: table[name].to_numpy(float)[None, :] for name in names}
    meets, score = _judge(table, values, values, wishes)
    table["meets"] = meets[0]
    table["score"] = np.where(meets[0], score[0], np.inf)
    table["on_front"], table["front_share"] = pareto.front(table), pareto.front_share(table, draws.ratio_draws)
    picked = table["score"].idxmin() if meets.any() else ""
    table["reason"] = [_reason(table, cell, picked, wishes) for cell in table.index]
    own_draws, paired = values | draws.cell_draws, values | draws.ratio_draws
    sureness = {}
    if picked:
        criteria = [*wishes.needed, *([metrics.DAY] if metrics.DAY in wishes.weights else [])]
        rivals = table[wishes.needed].notna().all(axis=1) & ~_fails(table, wishes, exact=True)
        known = dict.fromkeys(criteria, rivals)
        if wishes.min_throughput:  # the best throughput may be that of another cell
            known[metrics.REQUESTS_PER_S] = table[metrics.REQUESTS_PER_S].notna()
        rival_draws = [source[name][:, mask] for source in (own_draws, paired) for name, mask in known.items()]
        if not any(np.isnan(array).any() for array in rival_draws):  # an unknown one may be the best
            sureness = _sureness(table, own_draws, paired, wishes)
    unmeasured = table.index[table[wishes.needed].isna().any(axis=1) & ~_fails(table, wishes)]
    return Choice(table, wishes, picked, sureness, notes, list(unmeasured), draws.ratio_draws)


def _unmeasured_error(run: RunData, name: str, workload: str) -> LabError:
    """Return the error for a constraint on what no cell of a run has a value of: a criterion, or the throughput."""
    if name == metrics.REQUESTS_PER_S and (idle := closed_loop.no_best_note(_cpu_use(run, workload))):
        return LabError(f"run '{run.name}': {idle}; leave that constraint out")
    kind = metrics.CRITERIA.get(name, metrics.REQUESTS_PER_S).study
    plans = run.environment.studies
    if lines := [line for study, line in comparison.excluded_studies(run).items() if plans[study].kind == kind]:
        return LabError(f"run '{run.name}': {lines[0]}; leave that criterion out")
    command = f"measure --run NAME --study {kind}" if kind else "run --run NAME"
    return LabError(
        f"run '{run.name}' has not measured {name.replace('_', ' ')} of any of its cells: `./lab {command}` does, with "
        f"{OPTIONS_OF_A_RUN}; or leave that criterion out"
    )


def narrow(choice: Choice, bases: Iterable[str], profiles: Iterable[str], allocators: Iterable[str]) -> Choice:
    """Return the choice with only the cells of these bases, profiles and allocators, and their Pareto front; no cell is
    selected."""
    table = choice.table.query("base in @bases and profile in @profiles and allocator in @allocators").copy()
    positions = choice.table.index.get_indexer(table.index)
    paired = {name: draws[:, positions] for name, draws in choice.ratio_draws.items()}
    table["on_front"], table["front_share"] = (
        (pareto.front(table), pareto.front_share(table, paired)) if len(table) else (False, np.nan)
    )
    return replace(choice, table=table, picked="", sureness={}, ratio_draws=paired)


def deploy_seconds(run: RunData, table: pd.DataFrame, bandwidth_mbit: float) -> pd.DataFrame:
    """Return the seconds of one deploy of each cell to a machine that lacks its image: one row per cell, columns as in
    `deploy.first_response`. `table` is that of `candidates`. `attrs["lacking"]` has the cells without a measured
    deploy. If there are any, all cells have the seconds of their compressed bytes on the link alone, without an
    interval. Raises LabError for a bandwidth (Mbit/s) that is not above 0."""
    if not bandwidth_mbit > 0:
        raise LabError(f"a bandwidth of {bandwidth_mbit:g} Mbit/s is not above 0: no image is pulled over it")
    columns = ["trials", "mean", "low", "high"]
    seconds = pd.DataFrame(np.nan, table.index, columns)
    if deploy.is_measured(run):
        seconds = deploy.first_response(run, bandwidth_mbit).reindex(table.index)
    lacking = list(seconds.index[seconds["mean"].isna()])
    if lacking:
        by_transfer = deploy.transfer_s(table["transfer"], bandwidth_mbit)
        seconds = pd.DataFrame({"mean": by_transfer}, table.index, columns, float)
    seconds.attrs = {"lacking": lacking}
    return seconds


def daily_seconds(table: pd.DataFrame, deploy_s: pd.Series, deploys: np.ndarray, requests: np.ndarray) -> pd.DataFrame:
    """Return the seconds that a day takes: of all deploys, and of a CPU that answers all requests. One row per pair of
    `deploys` and `requests` (a day, equal shapes), one column per cell with a known deploy and CPU time. `deploy_s`:
    seconds of one deploy, the mean of `deploy_seconds`."""
    cells = table.index[table["cpu"].notna() & deploy_s.notna()]
    cpu_s = np.outer(requests, table.loc[cells, "cpu"] / 1e6)
    return pd.DataFrame(np.outer(deploys, deploy_s[cells]) + cpu_s, columns=cells)


def map_sureness(choice: Choice, deploy_s: pd.DataFrame, deploys: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """Return how sure the cell with the fewest seconds a day is: the fraction of draws in which that cell has the
    fewest. One value per pair of `deploys` and `requests` (flat arrays). NaN where the CPU time per request has no
    interval. `deploy_s` is what `deploy_seconds` returns; without an interval it is taken as exact."""
    seconds = daily_seconds(choice.table, deploy_s["mean"], deploys, requests)
    positions = choice.table.index.get_indexer(seconds.columns)
    cpu = choice.ratio_draws["cpu"][:FEW_DRAWS, positions] / 1e6
    if np.isnan(cpu).any():
        return np.full(len(deploys), np.nan)
    draws = draw_means(deploy_s.loc[seconds.columns], FEW_DRAWS, np.random.default_rng(2))
    draws = np.where(np.isnan(draws), deploy_s.loc[seconds.columns, "mean"].to_numpy(), draws)
    best = seconds.to_numpy().argmin(axis=1)
    days = (np.outer(deploys, delay) + np.outer(requests, cpu_s) for delay, cpu_s in zip(draws, cpu, strict=True))
    return sum(day.argmin(axis=1) == best for day in days) / len(cpu)


def _day(run: RunData, table: pd.DataFrame, draws: Draws, day: Day) -> tuple[pd.Series, np.ndarray, str]:
    """Return the seconds of a day by cell, draws of them, and what a reader must know of them."""
    deploy_s = deploy_seconds(run, table, day.bandwidth_mbit)
    note = "deploys are of the same cells' servers, by a model of each block; how far models are off is in 08_deploy"
    if lacking := deploy_s.attrs["lacking"]:
        note = f"deploys count the compressed bytes alone, no unpacking and no start: none was measured of {lacking[0]}"
        note += f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
    seconds_drawn = day.deploys * draw_means(deploy_s, DRAWS, np.random.default_rng(1))
    seconds = day.deploys * deploy_s["mean"]
    if day.requests:
        seconds = seconds + day.requests * table["cpu"] / 1e6
        seconds_drawn = seconds_drawn + day.requests * draws.ratio_draws.get("cpu", np.nan) / 1e6
    return seconds, seconds_drawn, note


def _judge(table: pd.DataFrame, own_draws: Values, paired: Values, wishes: Wishes) -> tuple[np.ndarray, np.ndarray]:
    """Return by draw and cell whether the cell meets the constraints, and the weighted sum of the objective."""
    meets = np.ones((1, len(table)), bool)
    for name, limit in wishes.limits.items():
        meets = meets & (own_draws[name] <= limit)
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
    """Return whether each cell fails in something that is known of it; with `exact`, only in what has no noise."""
    fails = table["shell"].eq("") & wishes.needs_shell | table["unstable"] & wishes.stable
    fails |= np.array([bool(wishes.lacks(cell)) for cell in table.index])
    for name, limit in wishes.limits.items():
        if not (exact and name in metrics.MEASURED):
            fails |= table[name] > limit
    rate = table[metrics.REQUESTS_PER_S]
    return (fails | (rate < (0 if exact else wishes.min_throughput) * rate.max())).to_numpy()


def _sureness(table: pd.DataFrame, own_draws: Values, paired: Values, wishes: Wishes) -> dict[str, float]:
    meets, score = _judge(table, own_draws, paired, wishes)
    score = np.where(meets, score, np.inf)
    best = np.where(np.isfinite(score).any(axis=1), score.argmin(axis=1), -1)
    counts = pd.Series(best[best >= 0]).value_counts() / len(best)
    return {table.index[number]: float(share) for number, share in counts.items()}


def _reason(table: pd.DataFrame, cell: str, picked: str, wishes: Wishes) -> str:
    """Return why a cell was not selected; "" for the selected cell."""
    if cell == picked:
        return ""
    row = table.loc[cell]
    reasons = []
    for name, limit in wishes.limits.items():
        if not row[name] <= limit:
            excess = "" if np.isnan(row[name]) else f", more than {metrics.CRITERIA[name].exactly(limit)}"
            reasons.append(f"{metrics.CRITERIA[name].phrase} {metrics.CRITERIA[name].in_words(row[name])}{excess}")
    if wishes.min_throughput:
        best = table[metrics.REQUESTS_PER_S].max()
        if np.isnan(row[metrics.REQUESTS_PER_S]):
            reasons.append("throughput not measured")
        elif row[metrics.REQUESTS_PER_S] < wishes.min_throughput * best:
            reasons.append(f"{row[metrics.REQUESTS_PER_S] / best:.0%} of the best throughput")
    if wishes.needs_shell and not isinstance(row["shell"], str):
        reasons.append("not recorded whether it has a shell")
    elif wishes.needs_shell and not row["shell"]:
        reasons.append("no shell")
    if wishes.stable and not row["stable"]:
        reasons.append("unstable flags" if row["unstable"] else "not recorded whether its flags are stable")
    reasons += [f"built without --with {','.join(lacking)}"] if (lacking := wishes.lacks(cell)) else []
    unmeasured = [name for name in wishes.weights if np.isnan(row[name]) and name not in wishes.limits]
    reasons += [f"{metrics.ALL[name].phrase} not measured" for name in unmeasured]
    if reasons:
        return "; ".join(reasons)
    worse = [name for name in wishes.weights if row[name] > table.loc[picked, name]]
    ratios = ", ".join(f"{metrics.ALL[name].phrase} {row[name] / table.loc[picked, name]:.2f} times" for name in worse)
    return f"{ratios} the selected cell's" if ratios else "equal to the selected cell"
