"""Two runs -> what changed; a run and its limits -> the checks that it passes, fails, or cannot tell. Pure.

Sizes are exact. What was measured in blocks is compared with the version before in the same blocks where the run has
that, or else with the other run's study of the same name and parameters, on the same machine unless requested otherwise
(`before_after.between`). Whether that keeps a limit is in `limits`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from rustimg_lab.analysis import before_after, cells, comparison
from rustimg_lab.analysis.limits import Checked, Finding, Limits, answer, more
from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import BEFORE, TWIN
from rustimg_lab.store.rows import ESTIMATE
from rustimg_lab.store.runs import RunData

# What of a study's parameters its numbers do not depend on, or is told beside them.
BESIDE = ("warning", "server_cpus", "generator_cpus")


def sizes(before: RunData, after: RunData) -> pd.DataFrame:
    """A row per cell of two runs and size, or one per cell that lacks it in one of them: cell, metric, what, before,
    after, change (bytes), ratio, verdict. Raises LabError when the two runs are of two apps."""
    names = [run.environment.app.get("name", "") for run in (before, after)]
    if names[0] != names[1]:
        raise LabError(f"one run is of {names[0] or 'no app'}, the other of {names[1] or 'no app'}: nothing to compare")
    one, other = (cells.cell_table(run).set_index("cell") for run in (before, after))
    rows = []
    for cell in dict.fromkeys([*other.index, *one.index]):
        verdict = ""
        if cell not in one.index:
            verdict = "new" + _or_not_read(before)
        elif cell not in other.index:
            verdict = "gone" + _or_not_read(after)
        elif not other.loc[cell, "ok"]:
            verdict = f"does not work: {other.loc[cell, 'reason']}"
        elif not one.loc[cell, "ok"]:
            verdict = "works again"
        if verdict:
            rows.append((cell, "", "", None, None, verdict))
            continue
        ways = one.loc[cell, "compressed_with"], other.loc[cell, "compressed_with"]
        for metric in metrics.SIZES:
            was, now = one.loc[cell, metric], other.loc[cell, metric]
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
            f"the two runs are, or may be, of two machines ({', '.join(differs)}), so that a difference in speed may "
            "be theirs: measure both on one, or say --across-machines"
        )
    found, notes, stand_ins = [], [run.left_out for run in (before, after) if run.left_out], set()
    for study in shared:
        if differs := _differences(plans[0][study].parameters, plans[1][study].parameters, BESIDE):
            notes.append(f"{study} is left out: {', '.join(differs)}")
            continue
        for metric in metrics.COMPARED:
            one, other = (comparison.samples(run, study, metric) for run in (before, after))
            if len(one) and len(other):
                each, told = _between(study, metric, one, other)
                found, notes = found + each, notes + told
                stand_ins |= {*one.attrs["stand_ins"], *other.attrs["stand_ins"]}
                if each and metric in metrics.MEASURED.values():
                    notes.append(f"{study}: {_drift(one, other)}")
    return _joined(found, notes, stand_ins)


def paired(before: RunData, after: RunData) -> pd.DataFrame:
    """Compare an app's versions that share blocks, as `speeds` has them. Trials of the runs' present images count."""
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
                each, told = _between(study, metric, one, trials[~was], paired=True)
                found, notes = found + each, notes + told
    return _joined(found, notes, set())


def _between(
    study: str, metric: metrics.Metric, before: pd.DataFrame, after: pd.DataFrame, paired: bool = False
) -> tuple[list[pd.DataFrame], list[str]]:
    """`before_after.between` as a list of one, and what a reader must know; no table where a value has no ratio."""
    try:
        found = before_after.between(before, after, metric, paired)
    except LabError as error:
        return [], [f"{study}: {metric.phrase}: {error}"]
    notes = [f"{study}: {each.attrs['warning']}" for each in (before, after, found) if each.attrs["warning"]]
    return [found.assign(study=study, metric=metric, what=metric.title)], notes


def _joined(found: list[pd.DataFrame], notes: list[str], stand_ins: set[str]) -> pd.DataFrame:
    columns = ["study", "metric", "what", "cell", "trials", "blocks", "ratio", "low", "high", "error", "freedom",
               "alarm", "detectable", "verdict"]  # fmt: skip
    table = pd.concat(found)[columns].reset_index(drop=True) if found else pd.DataFrame(columns=columns)
    table.attrs = {"notes": list(dict.fromkeys(notes)), "stand_ins": sorted(stand_ins)}
    return table


def _drift(*studies: pd.DataFrame) -> str:
    """What an interval between two studies does not contain, with what the blocks within them say of it."""
    found = np.sqrt(2) * max(map(before_after.block_sd, studies))
    by = "by how much is unknown, for want of blocks"
    if not np.isnan(found):
        by = f"two blocks within a run differ by {found:.1%} (standard deviation of what all cells of a block share)"
    return (
        "the two runs share no block, so no interval has what the machine did in between: "
        f"{by}; `./lab check --app PATH --before REVISION --max-regression cpu=5%` measures both versions in the same "
        "blocks"
    )


def other_machine(before: RunData, after: RunData) -> list[str]:
    """How the machines of two runs differ, each as `key before -> after`; CPUs that neither run knows may differ."""
    one, other = (run.environment.machine for run in (before, after))
    unknown = one.get("cpu_model") == other.get("cpu_model") == "unknown"
    return _differences(one, other) + ["cpu_model is not known of either"] * unknown


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
    """Check a run: findings on cells that do not work, are above a limit, are gone, or have grown too much, or may
    have; on each limit of what has noise; and on rows that could not be read. Raises LabError without cells, for a
    limit that the other run has not measured, and for growth where no cell works in both."""
    table = cells.some_cells(after, "check")
    found = [Finding(each.cell, f"does not work: {each.reason}") for each in table[~table["ok"]].itertuples()]
    if limits.max_transfer:
        for each in table[table["ok"]].itertuples():
            if pd.isna(each.compressed_bytes):
                found.append(Finding(each.cell, f"{metrics.COMPRESSED_BYTES.phrase} not known"))
            elif each.compressed_bytes > limits.max_transfer:
                size = f"{metrics.COMPRESSED_BYTES.phrase} {about_in_words(each)}{_mb(each.compressed_bytes)}"
                found.append(Finding(each.cell, f"{size}, more than {_mb(limits.max_transfer)}"))
    if before is None:
        return Checked(found + list(_unreadable(after)))
    exact, was = sizes(before, after), cells.cell_table(before)
    if limits.max_regression and not found:
        _refuse_nothing(before, after)
    gone = f"gone: it is in the other run{_or_not_read(after)}"
    found += [Finding(cell, gone) for cell in was["cell"] if cell not in set(table["cell"])]
    again = set(was.loc[~was["ok"], "cell"]) & set(table.loc[table["ok"], "cell"])
    for name, share in limits.max_regression.items():
        not_compared = f"{metrics.GUARDED[name].phrase}: not compared: it did not work in the other run"
        found += [Finding(cell, not_compared, Verdict.CANNOT_TELL) for cell in sorted(again)]
        if name not in limits.noisy:
            found += _grown(exact[exact["metric"] == metrics.GUARDED[name]], share, before, after)
    noise = check_noise(after, limits, before, across_machines)
    return Checked(found + noise.findings + list(_unreadable(before, after)), noise.notes)


def _or_not_read(lacks: RunData) -> str:
    """What is said of a cell that a run lacks, where some of its rows could not be read."""
    return ", or among the rows that could not be read" if lacks.broken else ""


def _unreadable(*runs: RunData) -> Iterator[Finding]:
    for run in runs:
        if run.unread:
            yield Finding(f"run {run.name}", run.unread, Verdict.CANNOT_TELL)


def _refuse_nothing(before: RunData, after: RunData) -> None:
    """Raise LabError where no cell works in both runs."""
    one, other = (cells.cell_table(run).set_index("cell") for run in (before, after))
    both = [cell for cell in other.index if cell in one.index]
    if any(one.loc[cell, "ok"] and other.loc[cell, "ok"] for cell in both):
        return
    why = f"run '{after.name}' has no cell that run '{before.name}' has"
    if one.empty:
        why = f"run '{before.name}' has no cell with a size"
    elif both:
        why = f"no cell of run '{after.name}' works in run '{before.name}' ({both[0]}: {one.loc[both[0], 'reason']})"
    raise LabError(f"{why}: nothing is compared")


def with_cells(part: RunData, whole: RunData) -> RunData:
    """Return what a machine measured in studies, with what the cells of a run are that is spread over machines."""
    rows = [whole.rows[whole.rows["study"].eq("")], part.rows[part.rows["study"].ne("")]]
    return replace(part, rows=pd.concat(rows, ignore_index=True))


def check_noise(after: RunData, limits: Limits, before: RunData, across_machines: bool = False) -> Checked:
    """Return the findings of limits on what was measured in blocks. What is one image in both runs has not
    changed, so none of that is measured. A study may be of another image than the sizes: a server beside a client."""
    tables = [cells.cell_table(run).query("ok").set_index("cell") for run in (before, after)]
    both = [cell for cell in tables[1].index if cell in tables[0].index]
    studied = [run.rows[run.rows["metric"].isin(metrics.GUARDED.values())] for run in (before, after)]
    studied = [rows[rows["study"].ne("")].groupby("cell")["image"].agg(frozenset) for rows in studied]
    equal = []
    for cell in both:
        images, measured_in = {table.loc[cell, "image"] for table in tables}, [of[cell] for of in studied if cell in of]
        is_other = len(measured_in) == 1 and not images <= measured_in[0]  # than what the other run has not measured
        if len(images) == 1 and len({*measured_in}) < 2 and not is_other:
            equal.append(cell)
    rest, found = [cell for cell in both if cell not in equal], []
    for name in limits.noisy:
        for cell in equal:
            same = f"one image before and after, its binary of SHA-256 {tables[1].loc[cell, metrics.BINARY_SHA256]}"
            found.append(Finding(cell, f"{metrics.GUARDED[name].phrase}: {same}", Verdict.PASS))
    if limits.noisy and not both:
        found.append(Finding(f"run {after.name}", "no cell works in both runs: not compared", Verdict.CANNOT_TELL))
    if not limits.noisy or not rest:
        return Checked(found)
    measured = paired(before, after)
    is_paired = not measured.empty
    measured = measured if is_paired else speeds(before, after, across_machines)
    for name, share in limits.noisy.items():
        about = metrics.GUARDED[name]
        own = measured[measured["metric"].eq(about) & measured["cell"].isin(rest)]
        has = {(about.study if is_paired else each.study, each.cell) for each in own.itertuples()}
        lost = [(about.study, cell) for cell in rest] if is_paired else _measured(before, rest, name)
        unsure = [] if is_paired else _planned(before, after, rest, about)
        for study, cell in dict.fromkeys([*lost, *unsure]):
            if (study, cell) not in has:
                verdict = Verdict.FAIL if (study, cell) in lost else Verdict.CANNOT_TELL
                found.append(Finding(cell, f"{study}: {about.title}: not measured in both runs alike", verdict))
        found += [answer(each, share, len(own)) for each in own.itertuples()]
    return Checked(found, measured.attrs["notes"])


def _grown(own: pd.DataFrame, share: float, before: RunData, after: RunData) -> list[Finding]:
    """Cells whose size, of `sizes`, is not known or has grown by more than a share, and in which part of the binary."""
    unsure = [Finding(each.cell, f"{each.what} {each.verdict}") for each in own[own["ratio"].isna()].itertuples()]
    return unsure + [
        Finding(
            each.cell,
            f"{each.what} {_mb(each.before)} -> {_mb(each.after)}: {more(each.ratio, share)}"
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


def _measured(before: RunData, works: list[str], name: str) -> list[tuple[str, str]]:
    """By study and cell of `works`, where a run has measured a limit's metric. Raises LabError when it has nowhere."""
    rows = before.rows
    found = rows[(rows["metric"] == metrics.GUARDED[name]) & rows["ok"] & rows["cell"].isin(works)]
    if found.empty:
        raise LabError(f"limit '{name}': run '{before.name}' has not measured this of any cell that works in the other")
    return list(found[["study", "cell"]].drop_duplicates().itertuples(index=False, name=None))


def _planned(before: RunData, after: RunData, works: list[str], metric: metrics.Metric) -> list[tuple[str, str]]:
    """The studies and cells that one of two runs at least has planned to measure a metric of, or has measured; of a
    study that is in one run alone, the cells that are in no other."""
    found: dict[str, set[str]] = {}
    runs = [run.rows[(run.rows["metric"] == metric) & run.rows["ok"]] for run in (before, after)]
    for run, rows in zip((before, after), runs, strict=True):
        for study, own in rows.groupby("study")["cell"]:
            plan = run.environment.studies.get(study)
            found.setdefault(study, set()).update(own, plan.cells if plan else [])
    shared = [study for study in found if all(rows["study"].eq(study).any() for rows in runs)]
    elsewhere = set().union(*(found[study] for study in shared))
    pairs = ((study, found[study] - (set() if study in shared else elsewhere)) for study in found)
    return [(study, cell) for study, own in pairs for cell in works if cell in own]


def about_in_words(cell: tuple) -> str:
    """Of a row of `cells.cell_table`: what stands before its compressed size."""
    return "about " if cell.compressed_with == ESTIMATE else ""


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3f} MB"
