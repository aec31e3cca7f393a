"""Two runs -> what changed; a run and its limits -> the checks that it passes, fails, or cannot tell. Pure.

Sizes are exact. What was measured in blocks is compared with the version before in the same blocks where the run has
that, or else with the other run's study of the same name and parameters, on the same machine unless requested otherwise
(`before_after.compare`). Whether that keeps a limit is in `limits`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from rustimg_lab.analysis import before_after, cells, comparison
from rustimg_lab.analysis.limits import Checked, Finding, Limits, check_ratio, growth_in_words
from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import BEFORE, TWIN
from rustimg_lab.store.rows import ESTIMATE
from rustimg_lab.store.runs import RunData

# What of a study's parameters its numbers do not depend on, or is told beside them.
BESIDE = ("warning", "server_cpus", "generator_cpus")


def sizes(before: RunData, after: RunData) -> pd.DataFrame:
    """Return one row per cell and size that two runs both have, and one row per cell without sizes in one of them.
    Columns: cell, metric, what, before, after and change (bytes, NaN if not known), ratio (after / before), verdict.

    Raises LabError when the two runs are of two apps."""
    names = [run.environment.app.get("name", "") for run in (before, after)]
    if names[0] != names[1]:
        raise LabError(f"one run is of {names[0] or 'no app'}, the other of {names[1] or 'no app'}: nothing to compare")
    old_table, new_table = (cells.cell_table(run).set_index("cell") for run in (before, after))
    rows = []
    for cell in dict.fromkeys([*new_table.index, *old_table.index]):
        verdict = ""
        if cell not in old_table.index:
            verdict = "new" + _unread_note(before)
        elif cell not in new_table.index:
            verdict = "gone" + _unread_note(after)
        elif not new_table.loc[cell, "ok"]:
            verdict = f"does not work: {new_table.loc[cell, 'reason']}"
        elif not old_table.loc[cell, "ok"]:
            verdict = "works again"
        if verdict:
            rows.append((cell, "", "", None, None, verdict))
            continue
        ways = old_table.loc[cell, "compressed_with"], new_table.loc[cell, "compressed_with"]
        for metric in metrics.SIZES:
            old_value, new_value = old_table.loc[cell, metric], new_table.loc[cell, metric]
            verdict = "same" if old_value == new_value else "smaller" if new_value < old_value else "larger"
            if metric == metrics.COMPRESSED_BYTES and all(ways) and ways[0] != ways[1]:
                old_value, new_value, verdict = None, None, f"not known: before by {ways[0]}, after by {ways[1]}"
            elif pd.isna(old_value) or pd.isna(new_value):
                verdict = f"not known {'before' if pd.isna(old_value) else 'after'}"
            rows.append((cell, metric, metric.label, old_value, new_value, verdict))
    changes = pd.DataFrame(rows, columns=["cell", "metric", "what", "before", "after", "verdict"])
    changes[["before", "after"]] = changes[["before", "after"]].astype(float)
    changes = changes.assign(change=changes["after"] - changes["before"], ratio=changes["after"] / changes["before"])
    stand_ins = [table.loc[table["stand_in"], "base"] for table in (old_table, new_table)]
    changes.attrs = {"stand_ins": sorted(set(pd.concat(stand_ins)))}
    return changes


def speeds(before: RunData, after: RunData, across_machines: bool = False) -> pd.DataFrame:
    """Return one row per cell and metric of the studies that two runs both have: study, metric, what (in words), and
    the numbers of `before_after.between`. `attrs`: stand_ins (substitute bases), and notes that a reader must see, such
    as why a study was left out. Raises LabError when the runs are of two machines, unless `across_machines`."""
    plans = [run.environment.studies for run in (before, after)]
    shared = [name for name in plans[0] if name in plans[1]]
    if shared and (changes := machine_differences(before, after)) and not across_machines:
        raise LabError(
            f"the two runs are, or may be, of two machines ({', '.join(changes)}), so that a difference in speed may "
            "be theirs: measure both on one, or say --across-machines"
        )
    tables, notes, stand_ins = [], [run.left_out for run in (before, after) if run.left_out], set()
    for study in shared:
        if changes := _differences(plans[0][study].parameters, plans[1][study].parameters, BESIDE):
            notes.append(f"{study} is left out: {', '.join(changes)}")
            continue
        for metric in metrics.COMPARED:
            old_trials, new_trials = (comparison.samples(run, study, metric) for run in (before, after))
            if len(old_trials) and len(new_trials):
                comparisons, warnings = _compare_trials(study, metric, old_trials, new_trials)
                tables, notes = tables + comparisons, notes + warnings
                stand_ins |= {*old_trials.attrs["stand_ins"], *new_trials.attrs["stand_ins"]}
                if comparisons and metric in metrics.MEASURED.values():
                    notes.append(f"{study}: {_drift(old_trials, new_trials)}")
    return _join_tables(tables, notes, stand_ins)


def paired(before: RunData, after: RunData) -> pd.DataFrame:
    """Compare the versions of an app that a run has measured in the same blocks: one row per cell and metric, with the
    columns of `speeds`. Only trials count whose image is the one that the two runs have of the cell now."""
    columns = [cells.cell_table(run).set_index("cell")["image"] for run in (before, after)]
    images = {
        cell + mark: image for table, mark in zip(columns, (BEFORE, ""), strict=True) for cell, image in table.items()
    }
    rows = after.rows[after.rows["study"].ne("")]
    rows = rows[rows["image"].eq(rows["cell"].str.removesuffix(TWIN).map(images))]
    tables, notes = [], []
    for study in rows.loc[rows["cell"].str.contains(BEFORE), "study"].unique():
        for metric in metrics.COMPARED:
            trials = comparison.samples(replace(after, rows=rows), study, metric)
            is_before = trials["cell"].str.contains(BEFORE)
            if is_before.any():
                old_trials = trials[is_before].assign(cell=trials["cell"].str.replace(BEFORE, "", regex=False))
                comparisons, warnings = _compare_trials(study, metric, old_trials, trials[~is_before], paired=True)
                tables, notes = tables + comparisons, notes + warnings
    return _join_tables(tables, notes, set())


def _compare_trials(
    study: str, metric: metrics.Metric, before: pd.DataFrame, after: pd.DataFrame, paired: bool = False
) -> tuple[list[pd.DataFrame], list[str]]:
    """Return the frame of `before_after.compare` in a list, and what a reader must know; no frame where a value has no
    ratio."""
    try:
        ratios = before_after.compare(before, after, metric, paired)
    except LabError as error:
        return [], [f"{study}: {metric.phrase}: {error}"]
    notes = [f"{study}: {table.attrs['warning']}" for table in (before, after, ratios) if table.attrs["warning"]]
    return [ratios.assign(study=study, metric=metric, what=metric.title)], notes


def _join_tables(tables: list[pd.DataFrame], notes: list[str], stand_ins: set[str]) -> pd.DataFrame:
    columns = ["study", "metric", "what", "cell", "trials", "blocks", "ratio", "low", "high", "error", "freedom",
               "alarm", "detectable", "verdict"]  # fmt: skip
    table = pd.concat(tables)[columns].reset_index(drop=True) if tables else pd.DataFrame(columns=columns)
    table.attrs = {"notes": list(dict.fromkeys(notes)), "stand_ins": sorted(stand_ins)}
    return table


def _drift(*studies: pd.DataFrame) -> str:
    """Return a note on what an interval between two studies does not contain, with what the blocks within them show of
    it."""
    spread = np.sqrt(2) * max(map(before_after.block_sd, studies))
    gap = "by how much is unknown, for want of blocks"
    if not np.isnan(spread):
        gap = f"two blocks within a run differ by {spread:.1%} (standard deviation of what all cells of a block share)"
    return (
        "the two runs share no block, so no interval has what the machine did in between: "
        f"{gap}; `./lab check --app PATH --before REVISION --max-regression cpu=5%` measures both versions in the same "
        "blocks"
    )


def machine_differences(before: RunData, after: RunData) -> list[str]:
    """Return what differs between the machines of two runs, each as `key before -> after`. A CPU model that neither run
    knows, as with an engine on another machine, counts as a difference."""
    old_machine, new_machine = (run.environment.machine for run in (before, after))
    is_unknown = old_machine.get("cpu_model") == new_machine.get("cpu_model") == "unknown"
    return _differences(old_machine, new_machine) + ["cpu_model is not known of either"] * is_unknown


def _differences(old: dict, new: dict, excluded: tuple[str, ...] = ()) -> list[str]:
    keys = [key for key in {**old, **new} if key not in excluded]
    return [f"{key} {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


def changed_inputs(before: RunData, after: RunData) -> list[str]:
    """Return what two runs were made from that differs, each as `name before -> after`: Cargo.lock, compiler, base
    images."""
    environments = before.environment, after.environment
    locks = [environment.app.get("lockfile_sha256", "")[:12] for environment in environments]
    compilers = [" and ".join(sorted(set(cells.cell_table(run)["rustc"].dropna()))) for run in (before, after)]
    pairs = [("Cargo.lock", *locks), ("rustc", *compilers)]
    bases = [environment.bases for environment in environments]
    pairs += [(name, digest[:19], bases[1].get(name, "")[:19]) for name, digest in bases[0].items()]
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old and new and old != new]


def check(after: RunData, limits: Limits, before: RunData | None = None, across_machines: bool = False) -> Checked:
    """Check a run against limits. A cell has a finding if it does not work, is above a limit, is gone, or has grown by
    too much. Growth by an unknown amount is a finding too. Each cell and limit on what has noise has a finding. So has
    a run with unreadable rows.

    Raises LabError on a run without cells, and on a limit that the other run has measured nothing of. Raises LabError
    on limits of growth where no cell works in both."""
    table = cells.some_cells(after, "check")
    findings = [Finding(row.cell, f"does not work: {row.reason}") for row in table[~table["ok"]].itertuples()]
    if limits.max_transfer:
        for row in table[table["ok"]].itertuples():
            if pd.isna(row.compressed_bytes):
                findings.append(Finding(row.cell, f"{metrics.COMPRESSED_BYTES.phrase} not known"))
            elif row.compressed_bytes > limits.max_transfer:
                size = f"{metrics.COMPRESSED_BYTES.phrase} {about_in_words(row)}{_mb(row.compressed_bytes)}"
                findings.append(Finding(row.cell, f"{size}, more than {_mb(limits.max_transfer)}"))
    if before is None:
        return Checked(findings + list(_unread_findings(after)))
    changes, old_table = sizes(before, after), cells.cell_table(before)
    if limits.max_regression and not findings:
        _refuse_no_common_cell(before, after)
    message = f"gone: it is in the other run{_unread_note(after)}"
    findings += [Finding(cell, message) for cell in old_table["cell"] if cell not in set(table["cell"])]
    repaired_cells = set(old_table.loc[~old_table["ok"], "cell"]) & set(table.loc[table["ok"], "cell"])
    for name, share in limits.max_regression.items():
        not_compared = f"{metrics.GUARDED[name].phrase}: not compared: it did not work in the other run"
        findings += [Finding(cell, not_compared, Verdict.CANNOT_TELL) for cell in sorted(repaired_cells)]
        if name not in limits.noisy:
            findings += _growth_findings(changes[changes["metric"] == metrics.GUARDED[name]], share, before, after)
    noise = check_noise(after, limits, before, across_machines)
    return Checked(findings + noise.findings + list(_unread_findings(before, after)), noise.notes)


def _unread_note(run: RunData) -> str:
    """Return what to add to a message on a cell that a run lacks, where some of its rows could not be read."""
    return ", or among the rows that could not be read" if run.broken else ""


def _unread_findings(*runs: RunData) -> Iterator[Finding]:
    for run in runs:
        if run.unread:
            yield Finding(f"run {run.name}", run.unread, Verdict.CANNOT_TELL)


def _refuse_no_common_cell(before: RunData, after: RunData) -> None:
    """Raise LabError where no cell works in both runs."""
    old, new = (cells.cell_table(run).set_index("cell") for run in (before, after))
    names = [cell for cell in new.index if cell in old.index]
    if any(old.loc[cell, "ok"] and new.loc[cell, "ok"] for cell in names):
        return
    why = f"run '{after.name}' has no cell that run '{before.name}' has"
    if old.empty:
        why = f"run '{before.name}' has no cell with a size"
    elif names:
        why = f"no cell of run '{after.name}' works in run '{before.name}' ({names[0]}: {old.loc[names[0], 'reason']})"
    raise LabError(f"{why}: nothing is compared")


def with_cells(part: RunData, run: RunData) -> RunData:
    """Return what one machine measured in studies, with the rows on cells of the whole run, which is spread over
    machines."""
    rows = [run.rows[run.rows["study"].eq("")], part.rows[part.rows["study"].ne("")]]
    return replace(part, rows=pd.concat(rows, ignore_index=True))


def check_noise(after: RunData, limits: Limits, before: RunData, across_machines: bool = False) -> Checked:
    """Return the findings of limits on what was measured in blocks. A cell with one image in both runs has not changed
    and passes. A study may be of another image than the sizes: a server beside a client."""
    tables = [cells.cell_table(run).query("ok").set_index("cell") for run in (before, after)]
    shared_cells = [cell for cell in tables[1].index if cell in tables[0].index]
    image_sets = [run.rows[run.rows["metric"].isin(metrics.GUARDED.values())] for run in (before, after)]
    image_sets = [rows[rows["study"].ne("")].groupby("cell")["image"].agg(frozenset) for rows in image_sets]
    equal_cells = []
    for cell in shared_cells:
        images, sets = (
            {table.loc[cell, "image"] for table in tables},
            [series[cell] for series in image_sets if cell in series],
        )
        is_other = len(sets) == 1 and not images <= sets[0]  # than what the other run has not measured
        if len(images) == 1 and len({*sets}) < 2 and not is_other:
            equal_cells.append(cell)
    changed_cells, findings = [cell for cell in shared_cells if cell not in equal_cells], []
    for name in limits.noisy:
        for cell in equal_cells:
            reason = f"one image before and after, its binary of SHA-256 {tables[1].loc[cell, metrics.BINARY_SHA256]}"
            findings.append(Finding(cell, f"{metrics.GUARDED[name].phrase}: {reason}", Verdict.PASS))
    if limits.noisy and not shared_cells:
        findings.append(Finding(f"run {after.name}", "no cell works in both runs: not compared", Verdict.CANNOT_TELL))
    if not limits.noisy or not changed_cells:
        return Checked(findings)
    measured = paired(before, after)
    is_paired = not measured.empty
    measured = measured if is_paired else speeds(before, after, across_machines)
    for name, share in limits.noisy.items():
        metric = metrics.GUARDED[name]
        rows = measured[measured["metric"].eq(metric) & measured["cell"].isin(changed_cells)]
        pairs = {(metric.study if is_paired else row.study, row.cell) for row in rows.itertuples()}
        lost = (
            [(metric.study, cell) for cell in changed_cells]
            if is_paired
            else _measured_pairs(before, changed_cells, name)
        )
        unsure = [] if is_paired else _planned_pairs(before, after, changed_cells, metric)
        for study, cell in dict.fromkeys([*lost, *unsure]):
            if (study, cell) not in pairs:
                verdict = Verdict.FAIL if (study, cell) in lost else Verdict.CANNOT_TELL
                findings.append(Finding(cell, f"{study}: {metric.title}: not measured in both runs alike", verdict))
        findings += [check_ratio(row, share, len(rows)) for row in rows.itertuples()]
    return Checked(findings, measured.attrs["notes"])


def _growth_findings(changes: pd.DataFrame, share: float, before: RunData, after: RunData) -> list[Finding]:
    """Return findings on the cells whose size, of `sizes`, is not known or has grown by more than a fraction, with the
    part that grew."""
    unsure = [Finding(row.cell, f"{row.what} {row.verdict}") for row in changes[changes["ratio"].isna()].itertuples()]
    return unsure + [
        Finding(
            row.cell,
            f"{row.what} {_mb(row.before)} -> {_mb(row.after)}: {growth_in_words(row.ratio, share)}"
            f"{_name_grown_part(before, after, row.cell)}",
        )
        for row in changes[changes["ratio"] > 1 + share].itertuples()
    ]


def _name_grown_part(before: RunData, after: RunData, cell: str) -> str:
    """Name the crate and the section of a cell's binary that grew most, with their bytes; what a run lacks is named."""
    details = []
    for metric, kind in ((metrics.CRATE_BYTES, "crate"), (metrics.SECTION_BYTES, "section")):
        parts = [cells.parts(run, metric) for run in (before, after)]
        old_sizes, new_sizes = (part[part["cell"] == cell].set_index("name")["size_bytes"] for part in parts)
        if old_sizes.empty or new_sizes.empty:
            details.append(f"{kind} not recorded in both runs")
            continue
        change = new_sizes.sub(old_sizes, fill_value=0)
        if change.max() > 0:
            details.append(f"{kind} {change.idxmax()} {change.max():+,.0f} bytes")
    return f"; {', '.join(details) or 'not in the binary: the base image or other files grew'}"


def _measured_pairs(before: RunData, names: list[str], name: str) -> list[tuple[str, str]]:
    """Return the studies and cells of which the other run has measured a limit's metric, of those that work in both.
    Raises LabError when there is none."""
    rows = before.rows
    trials = rows[(rows["metric"] == metrics.GUARDED[name]) & rows["ok"] & rows["cell"].isin(names)]
    if trials.empty:
        raise LabError(f"limit '{name}': run '{before.name}' has not measured this of any cell that works in the other")
    return list(trials[["study", "cell"]].drop_duplicates().itertuples(index=False, name=None))


def _planned_pairs(before: RunData, after: RunData, names: list[str], metric: metrics.Metric) -> list[tuple[str, str]]:
    """Return the studies and cells for which at least one of two runs has planned or measured a metric. Of a study that
    is in one run alone, only cells that are in no common study count."""
    planned_cells: dict[str, set[str]] = {}
    runs = [run.rows[(run.rows["metric"] == metric) & run.rows["ok"]] for run in (before, after)]
    for run, rows in zip((before, after), runs, strict=True):
        for study, measured_cells in rows.groupby("study")["cell"]:
            plan = run.environment.studies.get(study)
            planned_cells.setdefault(study, set()).update(measured_cells, plan.cells if plan else [])
    shared = [study for study in planned_cells if all(rows["study"].eq(study).any() for rows in runs)]
    elsewhere = set().union(*(planned_cells[study] for study in shared))
    pairs = ((study, planned_cells[study] - (set() if study in shared else elsewhere)) for study in planned_cells)
    return [(study, cell) for study, planned in pairs for cell in names if cell in planned]


def about_in_words(cell: tuple) -> str:
    """Return "about " for a row of `cells.cell_table` whose compressed size is an estimate, else "" (empty)."""
    return "about " if cell.compressed_with == ESTIMATE else ""


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3f} MB"
