"""Rows of the robustness probes -> outcomes, failures and costs. Needs no engine.

The rows are those of the study `STUDY`: of each cell one a probe, `metric` its name, `value` one of `OUTCOMES`,
`detail` what was seen; and `FACTS`, which are counted and neither passed nor failed.
"""

import pandas as pd

from rustimg_lab.errors import LabError
from rustimg_lab.model import metrics, probes
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.matrix import WITH
from rustimg_lab.model.names import additions_of, cell_in_words
from rustimg_lab.store.runs import RunData


def matrix(run: RunData) -> pd.DataFrame:
    """Return the outcome of each probe: one row per probe in the order of `PROBES`, one column per cell in the order
    probed. Values are of `OUTCOMES`, or "" where the probe could not run. Raises LabError when the run has no outcome.
    """
    rows = newest(run)
    outcomes = rows[rows["metric"].isin(probes.PROBES) & rows["ok"]]
    if not is_probed(run):
        raise LabError(f"run '{run.name}' has probed no image: `./lab probe` does")
    table = outcomes.pivot(index="metric", columns="cell", values="value")
    probe_names = [name for name in probes.PROBES if rows["metric"].eq(name).any()]  # a run of an older lab has fewer
    table = table.reindex(index=probe_names, columns=rows["cell"].unique())
    return table.where(table.isin(probes.OUTCOMES), "")


def failures(run: RunData) -> pd.DataFrame:
    """Return one row per cell and probe that failed or could not run: cell, probe, evidence, question, `remedy`,
    addition. The evidence of a probe that could not run is the reason."""
    rows = newest(run)
    rows = rows[rows["metric"].isin(probes.PROBES) & (rows["value"].eq(probes.FAILED) | ~rows["ok"])]
    rows = rows.sort_values("metric", key=lambda column: column.map(list(probes.PROBES).index), kind="stable")
    evidence = rows["detail"].where(rows["ok"], "could not be made: " + rows["reason"])
    table = pd.DataFrame({"cell": rows["cell"], "probe": rows["metric"], "evidence": evidence})
    for field in ("question", "remedy", "addition"):
        table[field] = [getattr(probes.PROBES[name], field) for name in rows["metric"]]
    return table.reset_index(drop=True)


def facts(run: RunData) -> pd.DataFrame:
    """Return one row per cell: the counts of `FACTS` as numbers (NaN if not counted), and passed and failed (numbers of
    probes)."""
    rows = newest(run)
    counted = rows[rows["metric"].isin(probes.FACTS) & rows["ok"]]
    table = counted.pivot(index="cell", columns="metric", values="value").reindex(columns=list(probes.FACTS))
    outcomes = matrix(run)
    counts = {"passed": outcomes.eq(probes.PASSED).sum(), "failed": outcomes.eq(probes.FAILED).sum()}
    table = table.reindex(outcomes.columns).apply(pd.to_numeric, errors="coerce")
    return table.assign(**counts).rename_axis("cell")


def costs(run: RunData) -> pd.DataFrame:
    """Return the cost of additions: one row per cell that has some and whose image without them was probed too.
    Columns: cell; without (that other cell); `unpacked_bytes` and `compressed_bytes` (increase); `mended` (probes that
    pass only with the additions); `left` (probes that still fail)."""
    table, outcomes = facts(run), matrix(run)
    rows = []
    for cell in table.index:
        without = cell.partition(WITH)[0]
        pair = table.loc[[name for name in (cell, without) if name in table.index], metrics.UNPACKED_BYTES]
        if without == cell or pair.notna().sum() < 2:
            continue
        mended = outcomes.index[outcomes[cell].eq(probes.PASSED) & outcomes[without].eq(probes.FAILED)]
        difference = table.loc[cell] - table.loc[without]
        left = outcomes.index[outcomes[cell].eq(probes.FAILED)]
        sizes = int(difference[metrics.UNPACKED_BYTES]), difference[metrics.COMPRESSED_BYTES]
        rows.append((cell, without, *sizes, ", ".join(mended), ", ".join(left)))
    columns = ["cell", "without", metrics.UNPACKED_BYTES, metrics.COMPRESSED_BYTES, "mended", "left"]
    return pd.DataFrame(rows, columns=columns)


def is_probed(run: RunData) -> bool:
    """Return whether the run has any outcome of a probe."""
    return bool((run.rows["ok"] & run.rows["study"].eq(probes.STUDY) & run.rows["metric"].isin(probes.PROBES)).any())


def names(run: RunData) -> dict[str, str]:
    """Return the cells that were probed, each as a reader sees it: a substitute is marked, additions follow `with`."""
    attrs = {"stand_ins": run.environment.stand_ins}
    emulated = set(run.rows["architecture"]) - {run.environment.machine.get("architecture", Architecture.X86_64.value)}
    labels = {}
    for cell in run.rows.loc[run.rows["study"] == probes.STUDY, "cell"].unique():
        additions = ", ".join(additions_of(cell))
        labels[cell] = cell_in_words(cell.partition(WITH)[0], attrs) + (additions and f" with {additions}")
        labels[cell] += " (checked under emulation)" if emulated else ""
    return labels


def not_built(run: RunData) -> dict[str, str]:
    """Return by cell, as a reader sees it, the reason why there is no image to probe."""
    rows, labels = newest(run), names(run)
    rows = rows[~rows["ok"] & ~rows["metric"].isin(probes.PROBES)]
    return {labels[cell]: reason for cell, reason in zip(rows["cell"], rows["reason"], strict=True)}


def newest(run: RunData) -> pd.DataFrame:
    """Return the newest row of each probe and each fact of each cell's newest image."""
    rows = run.rows[run.rows["study"] == probes.STUDY]
    rows = rows[rows["image"] == rows.groupby("cell")["image"].transform("last")]
    return rows.drop_duplicates(["cell", "metric"], keep="last")
