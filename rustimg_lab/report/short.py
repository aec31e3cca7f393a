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
    """A short table: `lines` with the header first, `numbers` the places of the columns with numbers, `note` what a
    reader must know of these numbers."""

    title: str
    lines: list[list[str]]
    numbers: range
    note: str = ""


def of_load(data: RunData, **parameters: str | int) -> Short:
    """Return CPU time per request as a ratio to the baseline, a row per cell. Latency, and memory after the load,
    follow where they were measured. Raises LabError when no throughput study has these parameters."""
    under_load = comparison.find_study(data, "throughput", **parameters)
    comparisons = {metrics.CPU_US_PER_REQUEST.phrase: comparison.of_study(data, under_load)}
    for study in comparison.find_studies(data, "latency", **parameters):
        percentile = metrics.PERCENTILES[metrics.find(data.environment.studies[study].metric)]
        comparisons[f"latency, {percentile}"] = comparison.of_study(data, study)
    for study in comparison.find_studies(data, REST, **parameters):
        comparisons[metrics.RESTED_RSS_BYTES.phrase] = comparison.of_study(data, study)
    return _of_parts(f"run {data.name}, under load, {_parameters_in_words(parameters)}", comparisons)


def of_memory(data: RunData, **parameters: str | int) -> Short:
    """Return resident memory under load as a ratio to the baseline, a row per cell. The smallest memory limit follows
    where it was measured."""
    comparisons = {}
    for label, subject in (("under load", "load"), ("smallest limit", "limit")):
        for study in comparison.find_studies(data, "memory", of=subject, **parameters):
            comparisons[label] = comparison.of_study(data, study)
    return _of_parts(f"run {data.name}, memory, {_parameters_in_words(parameters)}", comparisons)


def of_startup(data: RunData) -> Short:
    """Return the time from start to first byte as a ratio to the baseline, a row per cell: the server's process, and
    its container."""
    studies = comparison.find_studies(data, "startup")
    comparisons = {label: comparison.of_study(data, study) for label, study in STARTS.items() if study in studies}
    return _of_parts(f"run {data.name}: start to first byte", comparisons)


def of_build(data: RunData) -> Short:
    """Return the CPU time and the duration of cold builds as ratios to the baseline, a row per cell. Raises LabError
    when the run has no study of builds."""
    study = comparison.find_study(data, "build")
    comparisons = {
        "CPU time": comparison.of_study(data, study),
        "time": comparison.of_study(data, study, metrics.COLD_BUILD_S),
    }
    return _of_parts(f"run {data.name}: cold builds", comparisons)


def _of_parts(title: str, comparisons: dict[str, pd.DataFrame]) -> Short:
    lines = [["of", "cell", "ratio", "95% interval", SIMULTANEOUS, EFFECT, "blocks", "verdict"]]
    for label, table in comparisons.items():
        lines += [[label, *line] for line in views.regression.comparisons_in_words(table).to_numpy().tolist()]
    notes = [f"{label}: {table.attrs['warning']}" for label, table in comparisons.items() if table.attrs["warning"]]
    baseline = next(iter(comparisons.values())).attrs["baseline"]
    return Short(f"{title}, as a ratio to {baseline}", lines, range(2, 7), "; ".join(notes))


def _parameters_in_words(parameters: dict[str, str | int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in parameters.items())


def of_sizes(data: RunData) -> Short:
    """Return sizes in MB (1e6 bytes), a row per cell, with the article's figure beside today's where the article has
    one."""
    table = cells.cell_table(data)
    has_figure = table["cell"].isin(cells.article_grid(data)["cell"])  # of the article, which had one allocator on each
    columns = views.style.factors(table)
    base_from = columns.pop("base from")
    if has_figure.any():
        columns["article 2021"] = table["article_bytes"].where(has_figure).map(format.megabytes)
    columns["today" if has_figure.any() else "unpacked"] = table[metrics.UNPACKED_BYTES].map(format.megabytes)
    columns[metrics.APP_BYTES.label] = table[metrics.APP_BYTES].map(format.megabytes)
    columns["compressed"] = [compressed(cell) for cell in table.to_dict("records")]
    columns["base from"] = base_from
    statuses = ["yes" + (note and f" ({note})") for note in table["note"]]
    statuses = table["note"].where(table["runs"] == NOT_STARTED, statuses)
    columns["runs"] = ("NO: " + table["reason"]).where(~table["ok"], statuses)
    header = list(columns)
    lines = [header, *columns.to_numpy().tolist()]
    return Short(f"run {data.name}: sizes in MB (1e6 bytes)", lines, range(3, header.index("base from")))


def of_survival(data: RunData) -> Short:
    """Return how many probes each cell passed and failed, and which it failed, a row per cell. The unpacked image is in
    MB (1e6 bytes)."""
    outcomes, facts, names = robustness.matrix(data), robustness.facts(data), robustness.names(data)
    lines = [["cell", "passed", "failed", "MB", "fails"]]
    for cell, row in facts.iterrows():
        failed = ", ".join(outcomes.index[outcomes[cell] == probes.FAILED])
        counts = [f"{row[count]:.0f}" for count in ("passed", "failed")]
        lines.append([names[cell], *counts, format.megabytes(row[metrics.UNPACKED_BYTES]), failed])
    return Short(f"run {data.name}: {len(outcomes)} probes of each image", lines, range(1, 4))


def compressed(cell: dict) -> str:
    """Return the compressed size in MB (1e6 bytes) of a row of `cells.cell_table`; "" when it has none. An estimate
    begins with "about"."""
    size = format.megabytes(cell.get(metrics.COMPRESSED_BYTES))
    return f"about {size}" if size and cell.get("compressed_with") == ESTIMATE else size
