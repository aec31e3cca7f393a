"""What a reader of a study's numbers must know: uneven failures, few requests, a busy machine."""

import pandas as pd

from rustimg_lab.model import metrics
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.store.runs import RunData, trials

FEW_REQUESTS = 100  # of each connection, below which what is unanswered at the end of a load counts
FAILURES_APART = 0.05  # a share of failed trials by which two cells may differ without a warning
RARELY = 0.5  # of the time until the first byte, a pause in which nobody looked for it and that makes it too long
LOOKED_FOR = {metrics.EXEC_TO_FIRST_BYTE_S: metrics.LONGEST_POLL_S} | {
    metrics.of_container(network, "first_byte"): metrics.of_container(network, "longest_poll")
    for network in ("host", "bridge")
}


def of_trials(run: RunData, study: str, metric: str) -> list[str]:
    """Return a line on each thing that a reader of a metric of a study must know."""
    warnings = [run.environment.studies[study].parameters["warning"], run.environment.app.get("note")]
    of_study = [of(run, study) for of in (_failures, _few, _other_answers)]
    return [each for each in (*warnings, *of_study, _rarely_looked(run, study, metric)) if each]


def _failures(run: RunData, study: str) -> str:
    """That trials of some cells failed more often: slow trials that fail are missing from the mean. "" where not."""
    failed = failed_trials(run, study)
    if failed.empty or failed.max() - failed.min() <= FAILURES_APART:
        return ""
    worst, least, attrs = failed.idxmax(), failed.idxmin(), {"stand_ins": run.environment.stand_ins}
    return (
        f"{failed[worst]:.0%} of the trials of {cell_in_words(worst, attrs)} failed and "
        f"{failed[least]:.0%} of those of {cell_in_words(least, attrs)}: a cell whose slow trials fail looks "
        "faster than it is"
    )


def failed_trials(run: RunData, study: str) -> pd.Series:
    """The share of the trials of each cell of a study that failed, by cell."""
    ends = run.rows[(run.rows["study"] == study) & (run.rows["metric"] == metrics.TRIAL) & ~run.rows["is_warmup"]]
    return 1 - ends.drop_duplicates(["cell", "block"], keep="last").groupby("cell")["ok"].mean()


def last_failure(rows: pd.DataFrame) -> str:
    """The first line of the last reason why one of the rows has no value; "" where all have one."""
    reasons = rows.loc[~rows["ok"], "reason"]
    return reasons.iloc[-1].partition("\n")[0][:200] if len(reasons) else ""


def _few(run: RunData, study: str) -> str:
    """That servers answered so few requests that the CPU time of unanswered ones counts; "" where it does not."""
    rows = run.rows[(run.rows["study"] == study) & (run.rows["metric"] == metrics.REQUESTS) & run.rows["ok"]]
    plan = run.environment.studies[study].parameters
    if rows.empty or "work" in plan or '"http": 2' in plan.get("asked", ""):  # `Workload.parameters`; all have ended
        return ""
    least = pd.to_numeric(rows["value"], errors="coerce").groupby(rows["cell"]).median().min()
    if not least < FEW_REQUESTS * (connections := plan["connections"]):
        return ""
    return (
        f"few requests were answered in a trial ({least:.0f} over {connections} connections): those unanswered at its "
        "end are in the CPU time; fewer --connections or more --seconds make it exact"
    )


def _other_answers(run: RunData, study: str) -> str:
    """That servers answered with bodies of several sizes, as a list of an image's own files does; "" where none did."""
    sizes = pd.to_numeric(trials(run, study, metrics.BODY_BYTES)["value"], errors="coerce")
    if not sizes.min() < sizes.max():
        return ""
    return (
        f"cells answered with {sizes.min():.0f} to {sizes.max():.0f} bytes, and so did other work for a request; set "
        "a path in [serve] that all answer alike"
    )


def _rarely_looked(run: RunData, study: str, metric: str) -> str:
    """That nobody looked for the first byte during much of the time until it came; "" where somebody did."""
    if not (pause := LOOKED_FOR.get(metric)):
        return ""
    took, longest = (
        trials(run, study, each).astype({"value": float}).groupby(["cell", "block"])["value"].median()
        for each in (metric, pause)
    )
    if not (share := (longest / took).median()) >= RARELY:
        return ""
    return (
        f"the machine was busy: in half of the trials, nobody looked for the first byte during at least {share:.0%} "
        "of the time until it came, and that time may be too long by as much"
    )
