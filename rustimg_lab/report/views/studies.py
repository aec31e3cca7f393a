"""Tables of studies: ratios, the cells' own values, what failed."""

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import carry_over, comparison
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import cell_in_words
from rustimg_lab.paths import PUBLISHED
from rustimg_lab.report import format
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.views.style import SIMULTANEOUS, intervals, mark_rows, style
from rustimg_lab.store.runs import RunData


def ratios(comparisons: pd.DataFrame, labels: dict[str, pd.Series] | None = None) -> Styler:
    """Show every comparison with its intervals and its verdict, a row per cell. `comparisons` is what
    `comparison.compare` returns. A frame of several comparisons has columns in `labels` that tell them apart."""
    columns = {
        **(labels or {}),
        "cell": comparison.names(comparisons),
        "ratio": comparisons["ratio"],
        "95% interval": intervals(comparisons),
        SIMULTANEOUS: intervals(comparisons, "low_all", "high_all"),
        "minimum detectable effect": comparisons["detectable"],
        "pairs": comparisons["pairs"],
        "verdict": comparisons["verdict"],
    }
    formats = {"ratio": "{:.3f}", "minimum detectable effect": format.detectable_in_words}
    is_decided = ~comparisons["verdict"].isin((Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY))
    return mark_rows(style(columns, formats, comparisons.attrs["warning"]), is_decided)


def summary(summaries: dict[str, pd.DataFrame]) -> Styler:
    """Show the cells' own values with their 95% intervals, a row per cell. `summaries` has what `comparison.summarize`
    returns of a metric, by heading."""
    columns = []
    for heading, table in summaries.items():
        values = {heading: table["mean"].to_numpy(), f"{heading}: 95%": intervals(table, number=format.number)}
        columns.append(pd.DataFrame(values, comparison.names(table)))
    wide = pd.concat(columns or [pd.DataFrame()], axis=1).rename_axis("cell").reset_index()
    numbers = wide.select_dtypes("number").columns
    warnings = dict.fromkeys(table.attrs["warning"] for table in summaries.values())
    return style(wide, dict.fromkeys(numbers, format.number), "; ".join(filter(None, warnings)))


def speed_up(steps: pd.DataFrame) -> Styler:
    """Show what each step to more worker threads gains, as ratios, a row per cell and step. `steps` is what
    `scaling.speed_up` returns."""
    columns = {
        "cell": comparison.names(steps),
        "workers": steps["fewer"].astype(str) + " to " + steps["workers"].astype(str),
        "requests/s, times": steps["ratio"],
        "95% interval": intervals(steps),
        SIMULTANEOUS: intervals(steps, "low_all", "high_all"),
        "CPU per request, times": steps["cpu"],
        "pairs": steps["pairs"],
        "verdict": steps["verdict"],
    }
    formats = dict.fromkeys(("requests/s, times", "CPU per request, times"), "{:.3f}")
    return style(columns, formats, steps.attrs["warning"])


def latency(run: RunData, study: str) -> Styler:
    """Show the percentiles of latency in milliseconds at the study's rate, a row per cell. Each is a geometric mean
    over the trials."""
    percentiles = {}
    for metric, percentile in metrics.PERCENTILES.items():
        samples = comparison.samples(run, study, metric)
        if len(samples):
            percentiles[f"{percentile}, ms"] = comparison.summarize(samples.assign(value=samples["value"] * 1e3))
    return summary(percentiles)


def connections(run: RunData, study: str) -> Styler:
    """Show the memory that a server holds with so many connections open (MB), and the bytes per connection, a row per
    cell. The values are medians. `study` is the name of a study of open connections."""
    rows = run.rows[(run.rows["study"] == study) & run.rows["ok"] & run.rows["metric"].ne("trial")]
    plan = run.environment.studies[study]
    counts = plan.parameters["connections"]
    wide = rows.assign(value=pd.to_numeric(rows["value"])).pivot_table("value", "cell", "metric", aggfunc="median")
    rss, per_connection = map(metrics.rss_at, (0, *counts)), map(metrics.bytes_per_connection_at, counts)
    wide = wide.reindex([cell for cell in plan.cells if cell in wide.index], columns=[*rss, *per_connection])
    attrs = comparison.samples(run, study, plan.metric).attrs
    columns = pd.DataFrame({"cell": [cell_in_words(cell, attrs) for cell in wide.index]}, wide.index)
    for count in (0, *counts):
        columns[f"resident at {count:,}, MB"] = wide[metrics.rss_at(count)] / MEGABYTE
    for count in counts:
        columns[f"bytes per connection at {count:,}"] = wide[metrics.bytes_per_connection_at(count)]
    return style(columns, {name: "{:,.0f}" for name in columns if name.startswith("bytes")}, attrs["warning"])


def studies(run: RunData) -> Styler:
    """Show the studies of a run, a row per study: its plan, how far it came, what failed, and what a reader must
    know."""
    ends = run.rows[run.rows["metric"] == metrics.TRIAL]
    durations = run.rows[run.rows["metric"] == metrics.TRIAL_S].groupby("study")["value"].sum()
    lines = []
    for name, plan in run.environment.studies.items():
        trials, parameters = ends[ends["study"] == name], plan.parameters
        line = {
            "study": name,
            "blocks": trials.loc[trials["ok"], "block"].nunique(),
            "trials": int(trials["ok"].sum()),
            "failed": int((~trials["ok"]).sum()),
            "took, min": durations.get(name, 0.0) / 60,
            "stops at": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plan.stopping.items()),
            "seed": str(plan.seed),
            "CPUs of the server": parameters.get("server_cpus", ""),
            "of the generator": parameters.get("generator_cpus", ""),
            f"clearest carry-over ({SIMULTANEOUS})": _carry_over_in_words(run, name),
            "note": parameters["warning"],
        }
        lines.append(line)
    return style(lines, {"took, min": "{:.1f}"})


def _carry_over_in_words(run: RunData, study: str) -> str:
    """Return the clearest carry-over of a study in words; "" where there is none."""
    if not (effect := carry_over.of_study(run, study)):
        return ""
    after, ratio, low, high, verdict = effect
    cell = cell_in_words(after, {"stand_ins": run.environment.stand_ins})
    return f"{ratio:.3f} ({low:.3f} to {high:.3f}) after {cell}: {verdict}"


def missing_values(run: RunData) -> Styler | HTML:
    """Show all values that the studies of a run lack, with the reason, a row each: failed trials, single values,
    images."""
    failures = run.rows[(run.rows["study"] != "") & ~run.rows["ok"]]
    if failures.empty:
        return HTML("<p>Nothing failed.</p>")
    return style(failures[["study", "cell", "metric", "block", "reason"]].assign(block=failures["block"] + 1))


def published() -> Styler:
    """Show what others measured when they replaced musl's malloc, with the source of each figure
    (data/published.csv)."""
    measurements = pd.read_csv(PUBLISHED, comment="#")
    table = measurements.assign(ratio=measurements["value"] / measurements["musl"])
    table = table[["program", "what", "replacement", "musl", "value", "ratio", "source"]]
    names = {"musl": "with musl malloc", "value": "with the replacement"}
    return style(table.rename(columns=names), {name: "{:,g}" for name in names.values()} | {"ratio": "{:.2f}"})
