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
from rustimg_lab.report.views.style import SIMULTANEOUS, intervals, marked, style
from rustimg_lab.store.runs import RunData


def ratios(found: pd.DataFrame, of: dict[str, pd.Series] | None = None) -> Styler:
    """Every comparison with its intervals and verdict, of `comparison.compare`; of several, told apart by `of`."""
    shown = {
        **(of or {}),
        "cell": comparison.names(found),
        "ratio": found["ratio"],
        "95% interval": intervals(found),
        SIMULTANEOUS: intervals(found, "low_all", "high_all"),
        "minimum detectable effect": found["detectable"],
        "pairs": found["pairs"],
        "verdict": found["verdict"],
    }
    formats = {"ratio": "{:.3f}", "minimum detectable effect": format.detectable_in_words}
    decided = ~found["verdict"].isin((Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY))
    return marked(style(shown, formats, found.attrs["warning"]), decided)


def summary(found: dict[str, pd.DataFrame]) -> Styler:
    """The cells' own values: by heading, what `comparison.summarize` returns of a metric."""
    columns = []
    for heading, each in found.items():
        values = {heading: each["mean"].to_numpy(), f"{heading}: 95%": intervals(each, number=format.number)}
        columns.append(pd.DataFrame(values, comparison.names(each)))
    shown = pd.concat(columns or [pd.DataFrame()], axis=1).rename_axis("cell").reset_index()
    numbers = shown.select_dtypes("number").columns
    warnings = dict.fromkeys(each.attrs["warning"] for each in found.values())
    return style(shown, dict.fromkeys(numbers, format.number), "; ".join(filter(None, warnings)))


def speed_up(found: pd.DataFrame) -> Styler:
    """What each step to more worker threads gains. `found` is what `scaling.speed_up` returns."""
    shown = {
        "cell": comparison.names(found),
        "workers": found["fewer"].astype(str) + " to " + found["workers"].astype(str),
        "requests/s, times": found["ratio"],
        "95% interval": intervals(found),
        SIMULTANEOUS: intervals(found, "low_all", "high_all"),
        "CPU per request, times": found["cpu"],
        "pairs": found["pairs"],
        "verdict": found["verdict"],
    }
    formats = dict.fromkeys(("requests/s, times", "CPU per request, times"), "{:.3f}")
    return style(shown, formats, found.attrs["warning"])


def latency(run: RunData, study: str) -> Styler:
    """Per cell the geometric means over the trials of each percentile, in milliseconds, at the study's rate."""
    found = {}
    for metric, percentile in metrics.PERCENTILES.items():
        each = comparison.samples(run, study, metric)
        if len(each):
            found[f"{percentile}, ms"] = comparison.summarize(each.assign(value=each["value"] * 1e3))
    return summary(found)


def connections(run: RunData, study: str) -> Styler:
    """Medians of what a server holds with so many connections open, and what each takes. `study` is one of those."""
    own = run.rows[(run.rows["study"] == study) & run.rows["ok"] & run.rows["metric"].ne("trial")]
    plan = run.environment.studies[study]
    counts = plan.parameters["connections"]
    wide = own.assign(value=pd.to_numeric(own["value"])).pivot_table("value", "cell", "metric", aggfunc="median")
    rss, each = map(metrics.rss_at, (0, *counts)), map(metrics.bytes_per_connection_at, counts)
    wide = wide.reindex([cell for cell in plan.cells if cell in wide.index], columns=[*rss, *each])
    attrs = comparison.samples(run, study, plan.metric).attrs
    shown = pd.DataFrame({"cell": [cell_in_words(cell, attrs) for cell in wide.index]}, wide.index)
    for count in (0, *counts):
        shown[f"resident at {count:,}, MB"] = wide[metrics.rss_at(count)] / MEGABYTE
    for count in counts:
        shown[f"bytes per connection at {count:,}"] = wide[metrics.bytes_per_connection_at(count)]
    return style(shown, {name: "{:,.0f}" for name in shown if name.startswith("bytes")}, attrs["warning"])


def studies(run: RunData) -> Styler:
    """What studies a run has: how each was planned, how far it came, what failed, and what a reader must know."""
    ends = run.rows[run.rows["metric"] == metrics.TRIAL]
    took = run.rows[run.rows["metric"] == metrics.TRIAL_S].groupby("study")["value"].sum()
    shown = []
    for name, plan in run.environment.studies.items():
        own, about = ends[ends["study"] == name], plan.parameters
        line = {
            "study": name,
            "blocks": own.loc[own["ok"], "block"].nunique(),
            "trials": int(own["ok"].sum()),
            "failed": int((~own["ok"]).sum()),
            "took, min": took.get(name, 0.0) / 60,
            "stops at": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plan.stopping.items()),
            "seed": str(plan.seed),
            "CPUs of the server": about.get("server_cpus", ""),
            "of the generator": about.get("generator_cpus", ""),
            f"clearest carry-over ({SIMULTANEOUS})": _carried(run, name),
            "note": about["warning"],
        }
        shown.append(line)
    return style(shown, {"took, min": "{:.1f}"})


def _carried(run: RunData, study: str) -> str:
    """The clearest carry-over of a study in words; "" where there is none to tell."""
    if not (found := carry_over.of_study(run, study)):
        return ""
    after, ratio, low, high, verdict = found
    cell = cell_in_words(after, {"stand_ins": run.environment.stand_ins})
    return f"{ratio:.3f} ({low:.3f} to {high:.3f}) after {cell}: {verdict}"


def lost(run: RunData) -> Styler | HTML:
    """Everything that a study has no number of, with its reason: failed trials, single values, images."""
    found = run.rows[(run.rows["study"] != "") & ~run.rows["ok"]]
    if found.empty:
        return HTML("<p>Nothing failed.</p>")
    return style(found[["study", "cell", "metric", "block", "reason"]].assign(block=found["block"] + 1))


def published() -> Styler:
    """What others measured when musl's malloc was replaced."""
    found = pd.read_csv(PUBLISHED, comment="#")
    shown = found.assign(ratio=found["value"] / found["musl"])
    shown = shown[["program", "what", "replacement", "musl", "value", "ratio", "source"]]
    names = {"musl": "with musl malloc", "value": "with the replacement"}
    return style(shown.rename(columns=names), {name: "{:,g}" for name in names.values()} | {"ratio": "{:.2f}"})
