"""A run and what is wanted -> the cell to ship, why the others lost, and how sure that is. Pure.

Sizes are exact. How sure a choice is by what was measured in blocks, is the share of `DRAWS` repetitions that make the
same one, each with values drawn from Student's t distributions: about each cell's own mean where a limit is held
against it, and about its ratio to the study's baseline, paired by block, where cells are held against each other. What
deploys take of a day is not paired: it comes of several studies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rustimg_lab import comparison, deployment, matrix, stats, store
from rustimg_lab.errors import LabError, unknown

DRAWS = 4000
SURE = 0.95


@dataclass(frozen=True)
class Criterion:
    """What cells are compared by: in words, and the study and metric that it is measured in, "" for what is exact."""

    label: str
    kind: str
    metric: str
    shown: str
    divisor: float

    @property
    def unit(self) -> str:
        return self.shown.rpartition(" ")[2]

    def in_words(self, value: float) -> str:
        """A value in the unit of the metric, as a reader sees it."""
        return self.shown.format(value / self.divisor)


# Less is better in all of them, and so the Pareto front is of them.
CRITERIA = {
    "transfer": Criterion("transfer", "", "compressed_bytes", "{:.2f} MB", 1e6),
    "startup": Criterion("exec to first byte", "startup", "exec_to_first_byte_s", "{:.2f} ms", 1e-3),
    "cpu": Criterion("CPU per request", "throughput", "cpu_us_per_request", "{:.1f} µs", 1),
    "memory": Criterion("resident memory under load", "memory", "steady_rss_bytes", "{:.1f} MB", 1e6),
}
MEASURED = {name: each for name, each in CRITERIA.items() if each.kind}  # in blocks; the others are exact
THROUGHPUT = "requests_per_s"
# What a day takes, where a user says what it brings: of a host that waits for an image, and of a CPU that answers.
DAY = "day"
ALL = CRITERIA | {DAY: Criterion("seconds a day", deployment.KIND, "", "{:,.1f} s", 1)}


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

    @property
    def needed(self) -> list[str]:
        """What must be measured of a cell for them: criteria, and the throughput."""
        busy = DAY in self.weights and self.day and self.day.requests
        names = {**self.limits, **self.weights} | ({"cpu": 0} if busy else {})
        return [*(name for name in names if name != DAY), *([THROUGHPUT] if self.min_throughput else [])]


Values = dict[str, np.ndarray]  # by what was measured, arrays (draws, cells)


@dataclass(frozen=True)
class Draws:
    """`DRAWS` draws of each cell: about the own means, and by the ratios to a baseline."""

    own: Values = field(default_factory=dict)
    paired: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """`table`: a row per cell, as `candidates` has it, with meets, score, on_front, and reason (why it lost; "" for the
    one picked). `picked` is "" where no cell meets the wishes. `sureness`: by cell, the share of the draws that picked
    it; empty where that cannot be said."""

    table: pd.DataFrame
    wishes: Wishes
    picked: str
    sureness: dict[str, float]
    notes: list[str]

    def name(self, cell: str) -> str:
        """A cell as a reader sees it: a stand-in is called so."""
        return comparison.in_words(cell, {"stand_ins": set(self.table.loc[self.table["stand_in"], "base"])})


def candidates(rows: pd.DataFrame, workload: str = "") -> tuple[pd.DataFrame, Draws, list[str]]:
    """The cells that work, by cell: base, profile, allocator, stand_in, shell (its path, "" for none, NaN where the run
    does not tell), unstable, unpacked_bytes, and a column per criterion and for the throughput (geometric means), NaN
    where not measured; draws of those; and notes that a reader must see.

    Raises LabError when no cell works.
    """
    table = stats.cells(rows).query("ok").set_index("cell")
    if table.empty:
        raise LabError(f"run '{rows.attrs['environment']['run']}' has no cell that works: nothing to choose from")
    found = table[["base", "profile", "allocator", "stand_in", "unpacked_bytes", "shell"]].assign(
        unstable=table["unstable"].eq(True), transfer=table["compressed_bytes"]
    )
    notes = []
    if len(ways := sorted(set(table["compressed_with"]) - {""})) > 1 or store.ESTIMATE in ways:
        notes.append(f"transfer sizes are estimates, compressed in more than one way or not exactly: {'; '.join(ways)}")
    draws, generator = Draws(), np.random.default_rng(0)
    studies = {name: (each.kind, each.metric) for name, each in MEASURED.items()}
    for name, (kind, metric) in {**studies, THROUGHPUT: ("throughput", THROUGHPUT)}.items():
        found[name] = np.nan
        if study := study_of(rows, kind, metric, workload):
            mean, own, paired, warning = _measured(rows, study, metric, found.index, generator)
            found[name], draws.own[name], draws.paired[name] = mean, own, paired
            notes += [f"{study}: {warning}"] if warning else []
            measured = rows.loc[(rows["study"] == study) & rows["cell"].isin(found.index), ["cell", "image"]]
            if (measured["image"] != measured["cell"].map(table["image"])).any():
                notes.append("sizes are of the grid's images, speeds and memory of the same cells' servers")
    return found, draws, list(dict.fromkeys(notes))


def choose(rows: pd.DataFrame, wishes: Wishes, workload: str = "") -> Choice:
    """The cell that meets the wishes at the least weighted sum. Raises LabError when a wish is about what the run has
    not measured, and as `candidates` does."""
    table, draws, notes = candidates(rows, workload)
    if DAY in wishes.weights and not wishes.day:
        raise LabError(f"the weight '{DAY}' is of deploys a day, and none are named")
    for name in wishes.needed:
        if name not in (*CRITERIA, THROUGHPUT):
            raise unknown("criterion", name, CRITERIA)
        if table[name].isna().all():
            kind = CRITERIA[name].kind if name in CRITERIA else "throughput"
            raise LabError(
                f"run '{rows.attrs['environment']['run']}' has not measured {name.replace('_', ' ')} of any of its "
                f"cells: `./lab measure --run NAME --study {kind}` does, with the run's --bases, --profiles and "
                "--allocators, and --app if it is of an own one; or leave that wish out"
            )
    if wishes.day:
        table[DAY], drawn, note = _day(rows, table, draws, wishes.day)
        draws = replace(draws, paired=draws.paired | {DAY: drawn})
        notes.append(note)
    names = (*CRITERIA, THROUGHPUT, *([DAY] if wishes.day else []))
    values = {name: table[name].to_numpy(float)[None, :] for name in names}
    meets, score = _judge(table, values, values, wishes)
    table["meets"] = meets[0]
    table["score"] = np.where(meets[0], score[0], np.inf)
    table["on_front"] = _front(table)
    picked = table["score"].idxmin() if meets.any() else ""
    table["reason"] = [_reason(table, cell, picked, wishes) for cell in table.index]
    own, paired = values | draws.own, values | draws.paired
    sureness = {}
    if picked:
        named = [*wishes.needed, *([DAY] if DAY in wishes.weights else [])]
        drawn = [each[name][:, table.index.get_loc(picked)] for each in (own, paired) for name in named]
        if not np.isnan(np.concatenate([[], *drawn])).any():
            sureness = _sureness(table, own, paired, wishes)
    return Choice(table, wishes, picked, sureness, notes)


def narrow(found: Choice, bases: Iterable[str], profiles: Iterable[str], allocators: Iterable[str]) -> Choice:
    """The same with fewer cells, of these bases, profiles and allocators, and the Pareto front of those; nothing is
    picked."""
    kept = found.table.query("base in @bases and profile in @profiles and allocator in @allocators").copy()
    kept["on_front"] = _front(kept) if len(kept) else False
    return replace(found, table=kept, picked="", sureness={})


def evidence(found: Choice) -> list[str]:
    """What was picked, by what, and how sure that is, in lines."""
    wanted = [f"{CRITERIA[name].label} at most {in_words(name, limit)}" for name, limit in found.wishes.limits.items()]
    wanted += [f"at least {found.wishes.min_throughput:.0%} of the best throughput"] * bool(found.wishes.min_throughput)
    wanted += ["a shell"] * found.wishes.needs_shell + ["no unstable flags"] * found.wishes.stable
    weights = ", ".join(f"{ALL[name].label} x {weight:g}" for name, weight in found.wishes.weights.items())
    said = [f"Wanted: {'; '.join(wanted) or 'anything that works'}. Picked by the least {weights}."]
    if day := found.wishes.day:
        deploys = f"{day.deploys:,.0f} deploys to machines that lack the image, at {day.bandwidth_mbit:g} Mbit/s"
        said.append(f"A day brings {deploys}, and {day.requests:,.0f} requests.")
    said += [f"Note: {note}." for note in found.notes]
    if not found.picked:
        table = found.table.assign(failed=found.table["reason"].str.count(";")).sort_values(["failed", "transfer"])
        return [*said, f"No cell meets this. {table.index[0]} fails in the fewest wishes: {table['reason'].iloc[0]}."]
    return [*said, f"Picked: {found.picked}: {facts(found)}.", sure(found)]


def facts(found: Choice) -> str:
    """What was measured of the cell that was picked."""
    one = found.table.loc[found.picked]
    known = [name for name in ALL if name in one and not np.isnan(one[name])]
    said = [f"{ALL[name].label} {in_words(name, one[name])}" for name in known]
    return ", ".join(said + ["unstable flags"] * bool(one["unstable"]))


def sure(found: Choice) -> str:
    """How sure it is that the cell that was picked is the one, in a sentence."""
    by = {*found.wishes.limits, *found.wishes.weights}
    if not found.wishes.min_throughput and not any(ALL[name].kind for name in by):
        exact = not any("estimates" in note for note in found.notes)
        return f"Sure: it goes by sizes alone{', in which nothing is noise' if exact else ', as estimated'}."
    if not found.sureness:
        return "How sure that is cannot be said: a study that it goes by has too few blocks, or was not made."
    share = found.sureness.get(found.picked, 0.0)
    seldom = {cell: own for cell, own in found.sureness.items() if cell != found.picked and own > 0.005}
    others = ", ".join(f"{cell} in {own:.0%}" for cell, own in seldom.items())
    none = 1 - sum(found.sureness.values())
    rest = "; ".join(filter(None, [others, f"none meets it in {none:.0%}" if none > 0.005 else ""]))
    return (
        f"{'Sure' if share >= SURE else 'Not sure'}: with values drawn from the measured intervals it is picked in "
        f"{share:.0%}{f' ({rest})' if rest else ''}."
    )


def cargo_profile(base: str, profile_name: str, allocator: str) -> str:
    """How a cell is built, as a user writes it without the Dockerfile: Cargo.toml's `[profile.release]`, target and
    compiler's flags for `.cargo/config.toml`, and the rest in comments. Raises LabError when there is no such cell."""
    cell = matrix.cell(base, profile_name, allocator)
    profile = cell.profile
    settings = dict(profile.settings) | ({"strip": "true"} if profile.strip else {})
    lines = ["# Cargo.toml", "[profile.release]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
    lines += ["", "# .cargo/config.toml", "[build]", f'target = "{cell.target}"']
    if profile.rustflags:
        flags = ", ".join(f'"{flag}"' for flag in profile.rustflags)
        lines.append(f"rustflags = [{flags}]")
    if profile.unstable:
        lines += ["", f"# RUSTC_BOOTSTRAP=1 cargo build --release {' '.join(profile.cargo)}".rstrip()]
    if allocator != "system":
        lines += ["", f"# with the app's own feature for {allocator} as its global allocator"]
    if profile.upx:
        lines += ["", "# then: upx --best --lzma"]
    return "\n".join(lines) + "\n"


def deploy_seconds(rows: pd.DataFrame, table: pd.DataFrame, bandwidth_mbit: float) -> pd.DataFrame:
    """The seconds of one deploy of each cell to a machine that lacks its image: columns as `deployment.first_response`
    has them. `table` is that of `candidates`. `attrs["lacking"]` has the cells of which no deploy was measured; where
    there is one, the seconds of all cells are those of their transfer alone, without an interval."""
    columns = ["trials", "mean", "low", "high"]
    found = pd.DataFrame(np.nan, table.index, columns)
    if deployment.is_measured(rows):
        found = deployment.first_response(rows, bandwidth_mbit).reindex(table.index)
    lacking = list(found.index[found["mean"].isna()])
    if lacking:
        by_transfer = deployment.on_line_s(table["transfer"], bandwidth_mbit)
        found = pd.DataFrame({"mean": by_transfer}, table.index, columns, float)
    found.attrs = {"lacking": lacking}
    return found


def daily_seconds(table: pd.DataFrame, deploy_s: pd.Series, deploys: np.ndarray, requests: np.ndarray) -> pd.DataFrame:
    """The seconds that a day takes: of all deploys, each of which takes `deploy_s` (the mean of `deploy_seconds`), and
    of a CPU that answers all requests. A column per cell of which both are known, a row per pair of `deploys` and
    `requests` (equal shapes)."""
    known = table.index[table["cpu"].notna() & deploy_s.notna()]
    cpu_s = np.outer(requests, table.loc[known, "cpu"] / 1e6)
    return pd.DataFrame(np.outer(deploys, deploy_s[known]) + cpu_s, columns=known)


def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """What the front is drawn by: the transfer against each other criterion that the run has measured."""
    return [("transfer", name) for name in CRITERIA if name != "transfer" and table[name].notna().any()]


def in_words(name: str, value: float) -> str:
    """A criterion's value with its unit; "not measured" for none."""
    if np.isnan(value):
        return "not measured"
    return ALL[name].in_words(value)


def study_of(rows: pd.DataFrame, kind: str, metric: str, workload: str) -> str:
    """The run's study of that kind that has the metric of the most cells (a run may have a short one of a few too), of
    that workload where one is named; "" for none."""
    plans = rows.attrs["environment"].get("studies", {})
    measured = rows[(rows["metric"] == metric) & rows["ok"]].groupby("study")["cell"].nunique()
    names = [name for name in comparison.find_studies(rows, kind) if name in measured]
    fit = [name for name in names if workload in ("", plans[name]["parameters"].get("workload", workload))]
    return max(fit, key=lambda name: measured[name], default="")


def _day(rows: pd.DataFrame, table: pd.DataFrame, draws: Draws, day: Day) -> tuple[pd.Series, np.ndarray, str]:
    """The seconds of a day per cell, draws of them, and what a reader must know of them."""
    one = deploy_seconds(rows, table, day.bandwidth_mbit)
    note = "deploys are of the same cells' servers, by a model of each block; how far models are off is in 08_deploy"
    if lacking := one.attrs["lacking"]:
        note = f"deploys go by the transfer alone, with no unpacking and no start: none was measured of {lacking[0]}"
        note += f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
    drawn = day.deploys * _drawn(one, np.random.default_rng(1))
    seconds = day.deploys * one["mean"]
    if day.requests:
        seconds = seconds + day.requests * table["cpu"] / 1e6
        drawn = drawn + day.requests * draws.paired.get("cpu", np.nan) / 1e6
    return seconds, drawn, note


def _measured(
    rows: pd.DataFrame, study: str, metric: str, cells: pd.Index, generator: np.random.Generator
) -> tuple[pd.Series, np.ndarray, np.ndarray, str]:
    """Per cell the metric's mean, its draws about that, those by the ratio to the baseline, and the study's warning."""
    everything = comparison.summarize(comparison.samples(rows, study, metric)).set_index("cell")
    ratios = comparison.of_study(rows, study, metric)
    baseline, warning = ratios.attrs["baseline"], ratios.attrs["warning"]
    own, mean = everything.reindex(cells), everything.loc[baseline, "mean"]
    ratios = ratios[~ratios["is_twin"]].set_index("cell").reindex(cells)
    about_own = _drawn(own, generator)
    paired = mean * _drawn(ratios.rename(columns={"ratio": "mean", "pairs": "trials"}), generator)
    if baseline in cells:
        paired[:, cells.get_loc(baseline)] = mean
    return own["mean"], about_own, paired, warning


def _drawn(found: pd.DataFrame, generator: np.random.Generator) -> np.ndarray:
    """Values about geometric means with 95% t-intervals over so many trials, by the columns of `comparison.summarize`;
    NaN where there is no interval."""
    freedom = (found["trials"] - 1).clip(lower=1).fillna(1)
    errors = np.log(found["high"] / found["low"]) / 2 / stdtrit(freedom, (1 + comparison.CONFIDENCE) / 2)
    noise = generator.standard_t(freedom, (DRAWS, len(found)))
    # Of two blocks Student's t has no mean: what is drawn a thousandfold away is no nearer to the truth for that.
    return found["mean"].to_numpy() * np.exp(np.clip(noise * errors.to_numpy(), -7, 7))


def _judge(table: pd.DataFrame, own: Values, paired: Values, wishes: Wishes) -> tuple[np.ndarray, np.ndarray]:
    """Whether each cell meets the wishes, and its weighted sum, by draw and cell."""
    meets = np.ones((1, len(table)), bool)
    for name, limit in wishes.limits.items():
        meets = meets & (own[name] <= limit)
    if wishes.min_throughput:
        rate = paired[THROUGHPUT]
        meets = meets & (rate >= wishes.min_throughput * np.nanmax(rate, axis=1, keepdims=True))
    if wishes.needs_shell:
        meets = meets & table["shell"].fillna("").ne("").to_numpy()
    if wishes.stable:
        meets = meets & ~table["unstable"].to_numpy()
    score = sum(weight * np.log(paired[name]) for name, weight in wishes.weights.items())
    return meets & ~np.isnan(score), score


def _front(table: pd.DataFrame) -> np.ndarray:
    """Which cells no other is at least as good as in every criterion that the run has, and better in one."""
    names = [name for name in CRITERIA if table[name].notna().any()]
    values = table[names].to_numpy(float)
    complete = ~np.isnan(values).any(axis=1)
    others = values[complete]
    beaten = [((others <= own).all(axis=1) & (others < own).any(axis=1)).any() for own in values]
    return complete & ~np.array(beaten)


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
            more = "" if np.isnan(own[name]) else f", more than {in_words(name, limit)}"
            said.append(f"{CRITERIA[name].label} {in_words(name, own[name])}{more}")
    if wishes.min_throughput:
        best = table[THROUGHPUT].max()
        if np.isnan(own[THROUGHPUT]):
            said.append("throughput not measured")
        elif own[THROUGHPUT] < wishes.min_throughput * best:
            said.append(f"{own[THROUGHPUT] / best:.0%} of the best throughput")
    if wishes.needs_shell and not isinstance(own["shell"], str):
        said.append("not recorded whether it has a shell")
    elif wishes.needs_shell and not own["shell"]:
        said.append("no shell")
    if wishes.stable and own["unstable"]:
        said.append("unstable flags")
    unmeasured = [name for name in wishes.weights if np.isnan(own[name]) and name not in wishes.limits]
    said += [f"{ALL[name].label} not measured" for name in unmeasured]
    if said:
        return "; ".join(said)
    worse = [name for name in wishes.weights if own[name] > table.loc[picked, name]]
    told = ", ".join(f"{ALL[n].label} {own[n] / table.loc[picked, n]:.2f} times" for n in worse)
    return f"{told} that of the one picked" if told else "equal to the one picked"


def _toml(value: str) -> str:
    return value if value in ("true", "false") or value.isdecimal() else f'"{value}"'
