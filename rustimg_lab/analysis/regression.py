"""Two runs -> what changed; a run and its limits -> the checks that it passes, fails, or cannot tell. Pure.

Sizes are exact. What was measured in blocks is compared with the version before in the same blocks where the run has
that, or else with the other run's study of the same name and parameters, on the same machine unless requested otherwise
(`comparison.between`). A limit on it is kept by two one-sided tests (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987).
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import chdtri, stdtrit

from rustimg_lab.analysis import before_after, cells, comparison
from rustimg_lab.analysis.variances import CONFIDENCE, POWER
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import BEFORE, TWIN
from rustimg_lab.store.rows import ESTIMATE
from rustimg_lab.store.runs import RunData

# What of a study's parameters its numbers do not depend on, or is told beside them.
BESIDE = ("warning", "server_cpus", "generator_cpus")
FEWEST_BLOCKS = 3  # of fewer, a standard error is too uncertain for any answer
_MOST_BLOCKS = 10_000  # a need of more is not worth its digits


@dataclass(frozen=True)
class Limits:
    """What every cell of a run must keep: bytes in transfer, and by name of `GUARDED` the share by which each may grow
    over another run's. Raises LabError for an unknown name, and for a share of 0 of what has noise."""

    max_transfer: float = 0
    max_regression: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, share in self.max_regression.items():
            if name not in metrics.GUARDED:
                raise unknown("limit", name, metrics.GUARDED)
            if metrics.GUARDED[name].study and not share:
                raise LabError(f"limit '{name}=0%': what has noise is never sure to have grown by nothing; allow more")


@dataclass(frozen=True)
class Finding:
    """What a check finds of a cell: `verdict` is FAIL, CANNOT_TELL or, of what has noise, PASS."""

    cell: str
    what: str
    verdict: Verdict = Verdict.FAIL


@dataclass(frozen=True)
class Checked:
    """What a check finds of a run, and what a reader must know of its numbers."""

    findings: list[Finding]
    notes: list[str] = field(default_factory=list)

    def of(self, verdict: Verdict) -> list[Finding]:
        """Return the findings with that verdict."""
        return [each for each in self.findings if each.verdict == verdict]

    @property
    def verdict(self) -> Verdict:
        """Return FAIL where one limit is broken, else CANNOT_TELL where one is uncertain, else PASS."""
        return next((each for each in (Verdict.FAIL, Verdict.CANNOT_TELL) if self.of(each)), Verdict.PASS)


def sizes(before: RunData, after: RunData) -> pd.DataFrame:
    """A row per cell of two runs and size that both have, and one per cell that has none in one of them: cell, metric,
    what, before and after (bytes), change (bytes), ratio, verdict.

    Raises LabError when the two runs are of two apps.
    """
    names = [run.environment.app.get("name", "") for run in (before, after)]
    if names[0] != names[1]:
        raise LabError(f"one run is of {names[0] or 'no app'}, the other of {names[1] or 'no app'}: nothing to compare")
    one, other = (cells.cell_table(run).set_index("cell") for run in (before, after))
    rows = []
    for cell in dict.fromkeys([*other.index, *one.index]):
        if cell not in one.index or cell not in other.index:
            rows.append((cell, "", "", None, None, "new" if cell in other.index else "gone"))
        elif not other.loc[cell, "ok"]:
            rows.append((cell, "", "", None, None, f"does not work: {other.loc[cell, 'reason']}"))
        elif not one.loc[cell, "ok"]:
            rows.append((cell, "", "", None, None, "works again"))
        else:
            for metric in metrics.SIZES:
                was, now = one.loc[cell, metric], other.loc[cell, metric]
                ways = one.loc[cell, "compressed_with"], other.loc[cell, "compressed_with"]
                verdict = "same" if was == now else "smaller" if now < was else "larger"
                if metric == metrics.COMPRESSED_BYTES and all(ways) and ways[0] != ways[1]:
                    was, now, verdict = None, None, f"not known: before by {ways[0]}, after by {ways[1]}"
                elif pd.isna(was) or pd.isna(now):
                    verdict = f"not known {'before' if pd.isna(was) else 'after'}"
                rows.append((cell, metric, metric.label, was, now, verdict))
    found = pd.DataFrame(rows, columns=["cell", "metric", "what", "before", "after", "verdict"])
    found[["before", "after"]] = found[["before", "after"]].astype(float)
    found = found.assign(change=found["after"] - found["before"], ratio=found["after"] / found["before"])
    stand_ins = [table.loc[table["stand_in"], "base"] for table in (one, other)]
    found.attrs = {"stand_ins": sorted(set(pd.concat(stand_ins)))}
    return found


def speeds(before: RunData, after: RunData, across_machines: bool = False) -> pd.DataFrame:
    """A row per cell and metric of the studies that two runs both have: study, metric, what it is in words, and what
    `comparison.between` tells. `attrs`: the bases that are stand-ins, and notes that a reader must see, among them
    why a study of both was left out. Raises LabError when they are of two machines and nobody asked for that."""
    plans = [run.environment.studies for run in (before, after)]
    shared = [name for name in plans[0] if name in plans[1]]
    if shared and (differs := other_machine(before, after)) and not across_machines:
        raise LabError(
            f"the two runs are of two machines ({', '.join(differs)}), so that a difference in speed may be theirs: "
            "measure both on one, or say --across-machines"
        )
    found, notes, stand_ins = [], [], set()
    for study in shared:
        if differs := _differences(plans[0][study].parameters, plans[1][study].parameters, BESIDE):
            notes.append(f"{study} is left out: {', '.join(differs)}")
            continue
        for metric in metrics.COMPARED:
            one, other = (comparison.samples(run, study, metric) for run in (before, after))
            if len(one) and len(other):
                each = before_after.between(one, other, metric)
                found.append(each.assign(study=study, metric=metric, what=metric.title))
                notes += [f"{study}: {trials.attrs['warning']}" for trials in (one, other) if trials.attrs["warning"]]
                stand_ins |= {*one.attrs["stand_ins"], *other.attrs["stand_ins"]}
                if metric in metrics.MEASURED.values():
                    notes.append(f"{study}: {_drift(one, other)}")
    return _joined(found, notes, stand_ins)


def paired(before: RunData, after: RunData) -> pd.DataFrame:
    """Compare the versions of an app that a run has measured in the same blocks: a row per cell and metric, as `speeds`
    has them. Trials count whose image is the one that the two runs have of the cell now."""
    tables = [cells.cell_table(run).set_index("cell")["image"] for run in (before, after)]
    images = {
        cell + mark: image for table, mark in zip(tables, (BEFORE, ""), strict=True) for cell, image in table.items()
    }
    rows = after.rows[after.rows["study"].ne("")]
    rows = rows[rows["image"].eq(rows["cell"].str.removesuffix(TWIN).map(images))]
    found, notes = [], []
    for study in rows.loc[rows["cell"].str.contains(BEFORE), "study"].unique():
        for metric in metrics.COMPARED:
            trials = comparison.samples(replace(after, rows=rows), study, metric)
            was = trials["cell"].str.contains(BEFORE)
            if was.any():
                one = trials[was].assign(cell=trials["cell"].str.replace(BEFORE, "", regex=False))
                each = before_after.between(one, trials[~was], metric, paired=True)
                found.append(each.assign(study=study, metric=metric, what=metric.title))
                notes += [f"{study}: {trials.attrs['warning']}"] if trials.attrs["warning"] else []
    return _joined(found, notes, set())


def _joined(found: list[pd.DataFrame], notes: list[str], stand_ins: set[str]) -> pd.DataFrame:
    columns = ["study", "metric", "what", "cell", "trials", "blocks", "ratio", "low", "high", "error", "freedom",
               "detectable", "verdict"]  # fmt: skip
    table = pd.concat(found)[columns].reset_index(drop=True) if found else pd.DataFrame(columns=columns)
    table.attrs = {"notes": list(dict.fromkeys(notes)), "stand_ins": sorted(stand_ins)}
    return table


def _drift(*studies: pd.DataFrame) -> str:
    """What an interval between two studies does not contain, with what the blocks within them say of it."""
    found = np.sqrt(2) * max(map(comparison.block_sd, studies))
    by = "by how much is unknown, for want of blocks"
    if not np.isnan(found):
        by = f"two blocks within a run differ by {found:.1%} (standard deviation of what all cells of a block share)"
    return (
        "the two runs share no block, so no interval has what the machine did in between: "
        f"{by}; `./lab check --app PATH --before REVISION` measures both versions in the same blocks"
    )


def other_machine(before: RunData, after: RunData) -> list[str]:
    """What differs between the machines of two runs, each as `key before -> after`."""
    return _differences(*(run.environment.machine for run in (before, after)))


def _differences(one: dict, other: dict, but: tuple[str, ...] = ()) -> list[str]:
    keys = [key for key in {**one, **other} if key not in but]
    return [f"{key} {one.get(key)} -> {other.get(key)}" for key in keys if one.get(key) != other.get(key)]


def inputs(before: RunData, after: RunData) -> list[str]:
    """What the two runs were made from that differs: the app's lockfile, each base image of both, the compiler."""
    environments = before.environment, after.environment
    locks = [each.app.get("lockfile_sha256", "")[:12] for each in environments]
    compilers = [" and ".join(sorted(set(cells.cell_table(run)["rustc"].dropna()))) for run in (before, after)]
    pairs = [("Cargo.lock", *locks), ("rustc", *compilers)]
    bases = [each.bases for each in environments]
    pairs += [(name, digest[:19], bases[1].get(name, "")[:19]) for name, digest in bases[0].items()]
    return [f"{what} {was} -> {now}" for what, was, now in pairs if was and now and was != now]


def check(after: RunData, limits: Limits, before: RunData | None = None, across_machines: bool = False) -> Checked:
    """Check a run: a finding for each cell that does not work, is above a limit, is gone, has grown by more than it
    may, or is not known to have not; and one for each cell and limit on what has noise.

    Raises LabError on a run without cells, and on another run with which nothing of it can be compared.
    """
    table = cells.cell_table(after)
    if table.empty:
        raise LabError(f"run '{after.name}' has no cell with a size: nothing to check")
    found = [Finding(each.cell, f"does not work: {each.reason}") for each in table[~table["ok"]].itertuples()]
    if limits.max_transfer:
        for each in table[table["ok"]].itertuples():
            if not each.compressed_bytes <= limits.max_transfer:
                size = f"{metrics.COMPRESSED_BYTES.phrase} {about_in_words(each)}{_mb(each.compressed_bytes)}"
                found.append(Finding(each.cell, f"{size}, more than {_mb(limits.max_transfer)}"))
    if before is None:
        return Checked(found)
    exact = sizes(before, after)
    had = cells.cell_table(before).query("ok")["cell"]
    if not table["cell"].isin(had).any():
        raise LabError(
            f"run '{after.name}' has no cell that run '{before.name}' has a size of: nothing is compared; "
            "name another run with --against"
        )
    gone = exact.loc[~exact["cell"].isin(table["cell"]), "cell"]
    found += [Finding(cell, "gone: it is in the other run") for cell in gone]
    noisy = {name: share for name, share in limits.max_regression.items() if metrics.GUARDED[name].study}
    for name, share in limits.max_regression.items():
        if name not in noisy:
            found += _grown(exact[exact["metric"] == metrics.GUARDED[name]], share, before, after)
    return _with_noise(found, noisy, before, after, across_machines)


def _with_noise(
    found: list[Finding], limits: dict[str, float], before: RunData, after: RunData, across_machines: bool
) -> Checked:
    """The findings, and those of limits on what was measured in blocks. What is one image in both runs has not
    changed, so none of that is measured. A study may be of another image than the sizes: a server beside a client."""
    tables = [cells.cell_table(run).query("ok").set_index("cell") for run in (before, after)]
    both = [cell for cell in tables[1].index if cell in tables[0].index]
    studied = [run.rows[run.rows["study"].ne("")].groupby("cell")["image"].agg(frozenset) for run in (before, after)]
    other = {cell for cell in both if len({of[cell] for of in studied if cell in of}) > 1}
    was, now = (table["image"] for table in tables)
    equal = [cell for cell in both if was[cell] == now[cell] and cell not in other]
    rest = [cell for cell in both if cell not in equal]
    for name in limits:
        for cell in equal:
            same = f"one image before and after, its binary of SHA-256 {tables[1].loc[cell, metrics.BINARY_SHA256]}"
            found.append(Finding(cell, f"{metrics.GUARDED[name].phrase}: {same}", Verdict.PASS))
    if not limits or not rest:
        return Checked(found)
    measured = paired(before, after)
    is_paired = not measured.empty
    measured = measured if is_paired else speeds(before, after, across_machines)
    for name, share in limits.items():
        about = metrics.GUARDED[name]
        own = measured[measured["metric"].eq(about) & measured["cell"].isin(rest)]
        has = [(about.study if is_paired else each.study, each.cell) for each in own.itertuples()]
        had = [(about.study, cell) for cell in rest] if is_paired else _had(before, rest, name)
        lost = [each for each in had if each not in has]
        found += [Finding(cell, f"{study}: {about.title}: not measured in both runs alike") for study, cell in lost]
        found += [_answer(each, share, len(own)) for each in own.itertuples()]
    return Checked(found, measured.attrs["notes"])


def _grown(own: pd.DataFrame, share: float, before: RunData, after: RunData) -> list[Finding]:
    """Cells whose size, of `sizes`, is not known or has grown by more than a share, and in which part of the binary."""
    unsure = [Finding(each.cell, f"{each.what} {each.verdict}") for each in own[own["ratio"].isna()].itertuples()]
    return unsure + [
        Finding(
            each.cell,
            f"{each.what} {_mb(each.before)} -> {_mb(each.after)}: {_more(each.ratio, share)}"
            f"{_where(before, after, each.cell)}",
        )
        for each in own[own["ratio"] > 1 + share].itertuples()
    ]


def _where(before: RunData, after: RunData, cell: str) -> str:
    """Name the crate and the section of a cell's binary that grew most, with their bytes; what a run lacks is named."""
    told = []
    for metric, kind in ((metrics.CRATE_BYTES, "crate"), (metrics.SECTION_BYTES, "section")):
        parts = [cells.parts(run, metric) for run in (before, after)]
        was, now = (each[each["cell"] == cell].set_index("name")["size_bytes"] for each in parts)
        if was.empty or now.empty:
            told.append(f"{kind} not recorded in both runs")
            continue
        change = now.sub(was, fill_value=0)
        if change.max() > 0:
            told.append(f"{kind} {change.idxmax()} {change.max():+,.0f} bytes")
    return f"; {', '.join(told) or 'not in the binary: the base image or other files grew'}"


def _had(before: RunData, works: list[str], name: str) -> list[tuple[str, str]]:
    """The studies and cells that the other run has measured a limit's metric of, of those that work in both. Raises
    LabError when there is none."""
    rows = before.rows
    found = rows[(rows["metric"] == metrics.GUARDED[name]) & rows["ok"] & rows["cell"].isin(works)]
    if found.empty:
        raise LabError(f"limit '{name}': run '{before.name}' has not measured this of any cell that works in the other")
    return list(found[["study", "cell"]].drop_duplicates().itertuples(index=False, name=None))


def _answer(own: tuple, share: float, comparisons: int) -> Finding:
    """Whether a cell keeps a limit on the ratio of one of its metrics, a row of `paired` or `speeds`.

    PASS when the upper one-sided 95% bound is below the limit. FAIL when the ratio is above the limit, and the lower
    bound, which holds for all `comparisons` at once (Bonferroni), above 1. Else CANNOT_TELL.
    """
    about = f"{own.study}: {own.what}: "
    if own.blocks < FEWEST_BLOCKS:
        few = f"{own.blocks} block{'s' * (own.blocks != 1)}, too few for an answer"
        need = _blocks_needed(own, share) if own.blocks > 1 else f"at least {FEWEST_BLOCKS} blocks"
        return Finding(own.cell, f"{about}{few}: {need} needed", Verdict.CANNOT_TELL)
    lower = 1 - (1 - CONFIDENCE) / comparisons
    low = own.ratio * np.exp(-stdtrit(own.freedom, lower) * own.error)
    high = own.ratio * np.exp(stdtrit(own.freedom, CONFIDENCE) * own.error)
    told = f" (at least {low - 1:+.2%}, at most {high - 1:+.2%}, {own.blocks} blocks)"
    if high < 1 + share:
        return Finding(own.cell, f"{about}{own.ratio - 1:+.2%}{told}", Verdict.PASS)
    if own.ratio > 1 + share and low > 1:
        return Finding(own.cell, f"{about}{_more(own.ratio, share)}{told}")
    unsure = f"{own.ratio - 1:+.2%}{told}, more than +{100 * share:g}% or not"
    return Finding(own.cell, f"{about}{unsure}: {_blocks_needed(own, share)} needed", Verdict.CANNOT_TELL)


def _blocks_needed(own: tuple, share: float) -> str:
    """How many blocks show with a probability of 0.8 that an unchanged cell keeps the limit. By the standard error of
    those that there are, at the upper 80% limit of it, since that of few blocks may be far too small by chance (Browne,
    Statistics in Medicine 14, 1995)."""
    error = own.error * np.sqrt(own.freedom / chdtri(own.freedom, POWER))
    counts = np.arange(FEWEST_BLOCKS, _MOST_BLOCKS + 1)
    quantiles = stdtrit(counts - 1, CONFIDENCE) + stdtrit(counts - 1, POWER)
    enough = counts[quantiles * error * np.sqrt(own.blocks / counts) < np.log1p(share)]
    return f"about {enough[0]} blocks" if len(enough) else f"more than {_MOST_BLOCKS:,} blocks"


def about_in_words(cell: tuple) -> str:
    """Of a row of `cells.cell_table`: what stands before its compressed size."""
    return "about " if cell.compressed_with == ESTIMATE else ""


def _more(ratio: float, share: float) -> str:
    return f"{ratio - 1:+.2%}, more than +{100 * share:g}%"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3f} MB"
