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
    """The outcome of each probe of the run (in the order of `PROBES`) of each cell (columns, as they were probed): one
    of `OUTCOMES`, or "" where it could not be made. Raises LabError when the run has none at all."""
    found = newest(run)
    probed = found[found["metric"].isin(probes.PROBES) & found["ok"]]
    if not is_probed(run):
        raise LabError(f"run '{run.name}' has probed no image: `./lab probe` does")
    table = probed.pivot(index="metric", columns="cell", values="value")
    known = [name for name in probes.PROBES if found["metric"].eq(name).any()]  # a run of an older lab has fewer
    table = table.reindex(index=known, columns=found["cell"].unique())
    return table.where(table.isin(probes.OUTCOMES), "")


def failures(run: RunData) -> pd.DataFrame:
    """One row per cell and failed probe: cell, probe, evidence (or why there is none), question, remedy, addition."""
    found = newest(run)
    found = found[found["metric"].isin(probes.PROBES) & (found["value"].eq(probes.FAILED) | ~found["ok"])]
    found = found.sort_values("metric", key=lambda names: names.map(list(probes.PROBES).index), kind="stable")
    evidence = found["detail"].where(found["ok"], "could not be made: " + found["reason"])
    table = pd.DataFrame({"cell": found["cell"], "probe": found["metric"], "evidence": evidence})
    for about in ("question", "remedy", "addition"):
        table[about] = [getattr(probes.PROBES[name], about) for name in found["metric"]]
    return table.reset_index(drop=True)


def facts(run: RunData) -> pd.DataFrame:
    """One row per cell: what was counted, `FACTS`, as numbers; and passed, failed: how many probes."""
    found = newest(run)
    counted = found[found["metric"].isin(probes.FACTS) & found["ok"]]
    table = counted.pivot(index="cell", columns="metric", values="value").reindex(columns=list(probes.FACTS))
    outcomes = matrix(run)
    counts = {"passed": outcomes.eq(probes.PASSED).sum(), "failed": outcomes.eq(probes.FAILED).sum()}
    table = table.reindex(outcomes.columns).apply(pd.to_numeric, errors="coerce")
    return table.assign(**counts).rename_axis("cell")


def costs(run: RunData) -> pd.DataFrame:
    """What additions cost, a row per cell that was also probed without: cell, without, `unpacked_bytes` and
    `compressed_bytes` more, the probes that it passes more (`mended`), and that still fail (`left`)."""
    table, outcomes = facts(run), matrix(run)
    found = []
    for cell in table.index:
        without = cell.partition(WITH)[0]
        pair = table.loc[[each for each in (cell, without) if each in table.index], metrics.UNPACKED_BYTES]
        if without == cell or pair.notna().sum() < 2:
            continue
        mended = outcomes.index[outcomes[cell].eq(probes.PASSED) & outcomes[without].eq(probes.FAILED)]
        more = table.loc[cell] - table.loc[without]
        left = outcomes.index[outcomes[cell].eq(probes.FAILED)]
        sizes = int(more[metrics.UNPACKED_BYTES]), more[metrics.COMPRESSED_BYTES]
        found.append((cell, without, *sizes, ", ".join(mended), ", ".join(left)))
    columns = ["cell", "without", metrics.UNPACKED_BYTES, metrics.COMPRESSED_BYTES, "mended", "left"]
    return pd.DataFrame(found, columns=columns)


def is_probed(run: RunData) -> bool:
    """Whether there is any outcome of a probe."""
    return bool((run.rows["ok"] & run.rows["study"].eq(probes.STUDY) & run.rows["metric"].isin(probes.PROBES)).any())


def names(run: RunData) -> dict[str, str]:
    """The cells that were probed, each as a reader sees it: a stand-in is called so, additions stand behind `with`."""
    attrs = {"stand_ins": run.environment.stand_ins}
    emulated = set(run.rows["architecture"]) - {run.environment.machine.get("architecture", Architecture.X86_64.value)}
    found = {}
    for cell in run.rows.loc[run.rows["study"] == probes.STUDY, "cell"].unique():
        additions = ", ".join(additions_of(cell))
        found[cell] = cell_in_words(cell.partition(WITH)[0], attrs) + (additions and f" with {additions}")
        found[cell] += " (checked under emulation)" if emulated else ""
    return found


def not_built(run: RunData) -> dict[str, str]:
    """By cell, as a reader sees it, the reason why there is no image to probe."""
    found, shown = newest(run), names(run)
    found = found[~found["ok"] & ~found["metric"].isin(probes.PROBES)]
    return {shown[cell]: reason for cell, reason in zip(found["cell"], found["reason"], strict=True)}


def newest(run: RunData) -> pd.DataFrame:
    """Of each cell's newest image, the newest row of each probe and each fact."""
    own = run.rows[run.rows["study"] == probes.STUDY]
    own = own[own["image"] == own.groupby("cell")["image"].transform("last")]
    return own.drop_duplicates(["cell", "metric"], keep="last")
