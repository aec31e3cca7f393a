"""Two runs -> what changed; a run and its limits -> the checks that it fails. Pure.

Sizes are exact. What was measured in blocks is held against what the other run's study of the same name and parameters
measured, on the same machine unless asked otherwise (`comparison.between`).
"""

from dataclasses import dataclass, field

import pandas as pd

from rustimg_lab.analysis import cells, comparison
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.model import metrics
from rustimg_lab.store.rows import ESTIMATE
from rustimg_lab.store.runs import RunData

# What of a study's parameters its numbers do not depend on, or is told beside them.
_BESIDE = ("warning", "server_cpus", "generator_cpus")


@dataclass(frozen=True)
class Limits:
    """What every cell of a run must keep: bytes in transfer, and by name of `GUARDED` the share by which each may grow
    over another run's."""

    max_transfer: float = 0
    max_regression: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    """A check that a cell does not pass, and why."""

    cell: str
    what: str


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
        if differs := _differences(plans[0][study].parameters, plans[1][study].parameters, _BESIDE):
            notes.append(f"{study} is left out: {', '.join(differs)}")
            continue
        for metric in metrics.COMPARED:
            one, other = (comparison.samples(run, study, metric) for run in (before, after))
            if len(one) and len(other):
                each = comparison.between(one, other, metric)
                found.append(each.assign(study=study, metric=metric, what=metric.title))
                notes += [f"{study}: {trials.attrs['warning']}" for trials in (one, other) if trials.attrs["warning"]]
                stand_ins |= {*one.attrs["stand_ins"], *other.attrs["stand_ins"]}
    columns = ["study", "metric", "what", "cell", "trials", "ratio", "low", "high", "detectable", "verdict"]
    table = pd.concat(found)[columns].reset_index(drop=True) if found else pd.DataFrame(columns=columns)
    table.attrs = {"notes": list(dict.fromkeys(notes)), "stand_ins": sorted(stand_ins)}
    return table


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


def check(after: RunData, limits: Limits, before: RunData | None = None, across_machines: bool = False) -> list[Broken]:
    """The checks that a run does not pass: a cell that does not work, is above a limit, is gone, has grown by more than
    it may, or is not known to have not. What was measured with noise has grown where `comparison` says so too.

    Raises LabError on a run without cells, and on a limit that is not known or that the other run has measured nothing
    of.
    """
    for name in limits.max_regression:
        if name not in metrics.GUARDED:
            raise unknown("limit", name, metrics.GUARDED)
    table = cells.cell_table(after)
    if table.empty:
        raise LabError(f"run '{after.name}' has no cell with a size: nothing to check")
    broken = [Broken(each.cell, f"does not work: {each.reason}") for each in table[~table["ok"]].itertuples()]
    if limits.max_transfer:
        for each in table[table["ok"]].itertuples():
            if not each.compressed_bytes <= limits.max_transfer:
                transfer = about_in_words(each) + _mb(each.compressed_bytes)
                broken.append(Broken(each.cell, f"transfer {transfer}, more than {_mb(limits.max_transfer)}"))
    if before is None:
        return broken
    exact = sizes(before, after)
    gone = exact.loc[~exact["cell"].isin(table["cell"]), "cell"]
    broken += [Broken(cell, "gone: it is in the other run") for cell in gone]
    noisy = {
        name: _had(before, table, name) for name in limits.max_regression if metrics.GUARDED[name] not in metrics.SIZES
    }
    measured = speeds(before, after, across_machines) if noisy else None
    for name, share in limits.max_regression.items():
        if name in noisy:
            broken += _slower(measured, noisy[name], metrics.GUARDED[name], share)
        else:
            broken += _grown(exact[exact["metric"] == metrics.GUARDED[name]], share)
    return broken


def _grown(own: pd.DataFrame, share: float) -> list[Broken]:
    """Cells whose size, of `sizes`, has grown by more than a share or is not known."""
    unsure = [Broken(each.cell, f"{each.what} {each.verdict}") for each in own[own["ratio"].isna()].itertuples()]
    return unsure + [
        Broken(each.cell, f"{each.what} {_mb(each.before)} -> {_mb(each.after)}: {_more(each.ratio, share)}")
        for each in own[own["ratio"] > 1 + share].itertuples()
    ]


def _had(before: RunData, table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The studies and cells that the other run has measured a limit's metric of, of those that work in this one's
    `table`. Raises LabError when there is none."""
    works = table.loc[table["ok"], "cell"]
    rows = before.rows
    found = rows[(rows["metric"] == metrics.GUARDED[name]) & rows["ok"] & rows["cell"].isin(works)]
    if found.empty:
        raise LabError(f"limit '{name}': run '{before.name}' has not measured this of any cell that works in the other")
    return found[["study", "cell"]].drop_duplicates()


def _slower(measured: pd.DataFrame, had: pd.DataFrame, about: metrics.Metric, share: float) -> list[Broken]:
    """Cells that cost more by a share or more, by the verdict of `comparison`, or that only the other run has."""
    own = measured[(measured["metric"] == about) & measured["ratio"].notna()]
    both = set(own[["study", "cell"]].itertuples(index=False, name=None))
    lost = [each for each in had.itertuples(index=False, name=None) if each not in both]
    broken = [Broken(cell, f"{study}: {about.title}: not measured in both runs alike") for study, cell in lost]
    grown = own[(own["ratio"] > 1 + share) & (own["verdict"] == about.words[1])]
    for each in grown.itertuples():
        interval = f"95% interval {each.low:.3f} to {each.high:.3f}"
        broken.append(Broken(each.cell, f"{each.study}: {about.title}: {_more(each.ratio, share)} ({interval})"))
    return broken


def about_in_words(cell: tuple) -> str:
    """Of a row of `cells.cell_table`: what stands before its compressed size."""
    return "about " if cell.compressed_with == ESTIMATE else ""


def _more(ratio: float, share: float) -> str:
    return f"{ratio - 1:+.2%}, more than +{100 * share:g}%"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3f} MB"
