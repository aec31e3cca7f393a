"""Short tables, one for each notebook that has one: what it says, in a few lines of text."""

from typing import NamedTuple

import pandas as pd

from rustimg_lab.analysis import cells, comparison, robustness
from rustimg_lab.model import metrics, probes
from rustimg_lab.model.studies import REST
from rustimg_lab.report import format, views
from rustimg_lab.report.views.style import EFFECT, SIMULTANEOUS
from rustimg_lab.store.rows import ESTIMATE, NOT_STARTED
from rustimg_lab.store.runs import RunData

STARTS = {"program": "startup-server", "container": "startup-container"}


class Short(NamedTuple):
    """A short table: `lines`, the header first; `numbers`: the columns that have those; `note` on them."""

    title: str
    lines: list[list[str]]
    numbers: range
    note: str = ""


def of_load(data: RunData, **parameters: str | int) -> Short:
    """CPU time per request against the baseline; latency, and memory after the load, where they are."""
    under_load = comparison.find_study(data, "throughput", **parameters)
    found = {metrics.CPU_US_PER_REQUEST.phrase: comparison.of_study(data, under_load)}
    for study in comparison.find_studies(data, "latency", **parameters):
        percentile = metrics.PERCENTILES[metrics.find(data.environment.studies[study].metric)]
        found[f"latency, {percentile}"] = comparison.of_study(data, study)
    for study in comparison.find_studies(data, REST, **parameters):
        found[metrics.RESTED_RSS_BYTES.phrase] = comparison.of_study(data, study)
    return _of_parts(f"run {data.name}, under load, {_about(parameters)}", found)


def of_memory(data: RunData, **parameters: str | int) -> Short:
    """Memory that is resident under load, and the smallest limit, where the engine can limit it."""
    found = {}
    for what, of in (("under load", "load"), ("smallest limit", "limit")):
        for study in comparison.find_studies(data, "memory", of=of, **parameters):
            found[what] = comparison.of_study(data, study)
    return _of_parts(f"run {data.name}, memory, {_about(parameters)}", found)


def of_startup(data: RunData) -> Short:
    """Starts of the server's process and of its container."""
    there = comparison.find_studies(data, "startup")
    found = {what: comparison.of_study(data, study) for what, study in STARTS.items() if study in there}
    return _of_parts(f"run {data.name}: start to first byte", found)


def of_build(data: RunData) -> Short:
    """Cold builds: their CPU time, and from start to end."""
    study = comparison.find_study(data, "build")
    found = {
        "CPU time": comparison.of_study(data, study),
        "time": comparison.of_study(data, study, metrics.COLD_BUILD_S),
    }
    return _of_parts(f"run {data.name}: cold builds", found)


def _of_parts(of: str, found: dict[str, pd.DataFrame]) -> Short:
    lines = [["of", "cell", "ratio", "95% interval", SIMULTANEOUS, EFFECT, "blocks", "verdict"]]
    for what, each in found.items():
        lines += [[what, *line] for line in views.regression.comparisons_in_words(each).to_numpy().tolist()]
    notes = [f"{what}: {each.attrs['warning']}" for what, each in found.items() if each.attrs["warning"]]
    baseline = next(iter(found.values())).attrs["baseline"]
    return Short(f"{of}, as a ratio to {baseline}", lines, range(2, 7), "; ".join(notes))


def _about(parameters: dict[str, str | int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in parameters.items())


def of_sizes(data: RunData) -> Short:
    """Sizes: a row per cell, and the article's figure beside ours where it has one."""
    table = cells.cell_table(data)
    has_figure = table["cell"].isin(cells.article_grid(data)["cell"])  # of the article, which had one allocator on each
    shown = views.style.factors(table)
    base_from = shown.pop("base from")
    if has_figure.any():
        shown["article 2021"] = table["article_bytes"].where(has_figure).map(format.megabytes)
    shown["today" if has_figure.any() else "unpacked"] = table[metrics.UNPACKED_BYTES].map(format.megabytes)
    shown[metrics.APP_BYTES.label] = table[metrics.APP_BYTES].map(format.megabytes)
    shown["compressed"] = [compressed(cell) for cell in table.to_dict("records")]
    shown["base from"] = base_from
    works = ["yes" + (note and f" ({note})") for note in table["note"]]
    works = table["note"].where(table["runs"] == NOT_STARTED, works)
    shown["runs"] = ("NO: " + table["reason"]).where(~table["ok"], works)
    header = list(shown)
    lines = [header, *shown.to_numpy().tolist()]
    return Short(f"run {data.name}: sizes in MB (1e6 bytes)", lines, range(3, header.index("base from")))


def of_survival(data: RunData) -> Short:
    """Probes: per cell how many it passed, and which it failed."""
    outcomes, facts, names = robustness.matrix(data), robustness.facts(data), robustness.names(data)
    lines = [["cell", "passed", "failed", "MB", "fails"]]
    for cell, own in facts.iterrows():
        failed = ", ".join(outcomes.index[outcomes[cell] == probes.FAILED])
        counts = [f"{own[count]:.0f}" for count in ("passed", "failed")]
        lines.append([names[cell], *counts, format.megabytes(own[metrics.UNPACKED_BYTES]), failed])
    return Short(f"run {data.name}: {len(outcomes)} probes of each image", lines, range(1, 4))


def compressed(cell: dict) -> str:
    """Of a row of `cells.cell_table`; an estimate says so."""
    told = format.megabytes(cell.get(metrics.COMPRESSED_BYTES))
    return f"about {told}" if told and cell.get("compressed_with") == ESTIMATE else told
