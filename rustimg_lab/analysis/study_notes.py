"""What a reader of a study's numbers must know: uneven failures, few requests, a busy machine, an idle
server."""

import pandas as pd

from rustimg_lab.analysis import closed_loop
from rustimg_lab.model import metrics
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.store.runs import RunData, trials

FEW_REQUESTS = 100  # of each connection, below which what is unanswered at the end of a load counts
FAILURES_APART = 0.05  # a share of failed trials by which two cells may differ without a warning
RARELY = 0.5  # of the time until the first byte, a pause in which nobody looked for it and that makes it too long
LOOKED_FOR = {metrics.EXEC_TO_FIRST_BYTE_S: metrics.LONGEST_POLL_S} | {
    metrics.container_metric(network, "first_byte"): metrics.container_metric(network, "longest_poll")
    for network in ("host", "bridge")
}


def trial_notes(run: RunData, study: str, metric: str) -> list[str]:
    """Return a line on each thing that a reader of a metric of a study must know."""
    warnings = [run.environment.studies[study].parameters["warning"], run.environment.app.get("note")]
    of_study = [check(run, study) for check in (_failure_note, _few_answers_note, _answer_size_note)]
    idle_note = closed_loop.idle_note(closed_loop.cpu_use(run, study)) if metric == metrics.REQUESTS_PER_S else ""
    return [note for note in (*warnings, *of_study, _rare_polls_note(run, study, metric), idle_note) if note]


def _failure_note(run: RunData, study: str) -> str:
    """What a reader must know of a study where trials of some cells failed more often than those of others: trials that
    fail because they are slow are missing from the mean. "" for none."""
    failed = failed_trials(run, study)
    if failed.empty or failed.max() - failed.min() <= FAILURES_APART:
        return ""
    worst_cell, least_cell, attrs = failed.idxmax(), failed.idxmin(), {"stand_ins": run.environment.stand_ins}
    return (
        f"{failed[worst_cell]:.0%} of the trials of {cell_in_words(worst_cell, attrs)} failed and "
        f"{failed[least_cell]:.0%} of those of {cell_in_words(least_cell, attrs)}: a cell whose slow trials fail looks "
        "faster than it is"
    )


def failed_trials(run: RunData, study: str) -> pd.Series:
    """Return the fraction of failed trials of each cell of a study, by cell; warm-ups do not count."""
    ends = run.rows[(run.rows["study"] == study) & (run.rows["metric"] == metrics.TRIAL) & ~run.rows["is_warmup"]]
    return 1 - ends.drop_duplicates(["cell", "block"], keep="last").groupby("cell")["ok"].mean()


def last_failure(rows: pd.DataFrame) -> str:
    """Return the first line of the last reason why one of the rows has no value; "" if all have values."""
    reasons = rows.loc[~rows["ok"], "reason"]
    return reasons.iloc[-1].partition("\n")[0][:200] if len(reasons) else ""


def _few_answers_note(run: RunData, study: str) -> str:
    """What a reader must know of a study of a load in whose trials a server answered few requests: the CPU time of
    those that it had begun when the load ended is in that of the answered ones. "" for none."""
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


def _answer_size_note(run: RunData, study: str) -> str:
    """What a reader must know of a study of servers whose answers differ in size, as a list of an image's own files
    does. "" for none."""
    sizes = pd.to_numeric(trials(run, study, metrics.BODY_BYTES)["value"], errors="coerce")
    if not sizes.min() < sizes.max():
        return ""
    return (
        f"cells answered with {sizes.min():.0f} to {sizes.max():.0f} bytes, and so did other work for a request; set "
        "a path in [serve] that all answer alike"
    )


def _rare_polls_note(run: RunData, study: str, metric: str) -> str:
    """What a reader must know of a study in which nobody looked for the first byte during much of the time until it
    came. "" for none."""
    if not (pause := LOOKED_FOR.get(metric)):
        return ""
    durations, pauses = (
        trials(run, study, name).astype({"value": float}).groupby(["cell", "block"])["value"].median()
        for name in (metric, pause)
    )
    if not (share := (pauses / durations).median()) >= RARELY:
        return ""
    return (
        f"the machine was busy: in half of the trials, nobody looked for the first byte during at least {share:.0%} "
        "of the time until it came, and that time may be too long by as much"
    )
