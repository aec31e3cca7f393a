"""Short tables of a run, for the terminal and as Markdown."""

from collections.abc import Container

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rustimg_lab.analysis import cells, comparison, recommendation, robustness
from rustimg_lab.model import probes, studies
from rustimg_lab.report import format, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import ESTIMATE

STARTS = {"program": "startup-server", "container": "startup-container"}


Short = tuple[str, list[list[str]], range]  # title, lines with the header first, and the columns with numbers


def summary(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> Table:
    """The table in a terminal that says in short what a notebook says."""
    title, (header, *lines), numbers = SHORT[notebook](run, **(parameters or {}))
    return _terminal(title, header, lines, numbers, no_wrap=True)


def candidates(run: str, found: recommendation.Choice) -> Table:
    """The table in a terminal of the cells that were to choose from."""
    return _of_frame(f"run {run}: what was to choose from", views.recommendation.candidates_in_words(found))


def changed_sizes(names: str, found: pd.DataFrame) -> Table:
    """The table in a terminal of `regression.sizes`."""
    shown = views.regression.changed_sizes(found)
    return _of_frame(f"{names}: sizes in MB (1e6 bytes){'' if len(shown) else ': all the same'}", shown)


def changed_speeds(names: str, found: pd.DataFrame) -> Table:
    """The table in a terminal of `regression.speeds`."""
    return _of_frame(f"{names}: as a ratio to the first", views.regression.changed_speeds(found))


def _of_frame(title: str, shown: pd.DataFrame) -> Table:
    numbers = [place for place, name in enumerate(shown) if name not in ("cell", "of", "verdict")]
    return _terminal(title, list(shown), shown.to_numpy().tolist(), numbers)


def _terminal(
    title: str, header: list[str], lines: list[list[str]], numbers: Container[int], no_wrap: bool = False
) -> Table:
    """Text as a table in a terminal; columns with numbers to the right, and in one line where `no_wrap` says so."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(header):
        justify, whole = ("right", no_wrap) if place in numbers else ("left", False)
        table.add_column(escape(name), justify=justify, no_wrap=whole, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def markdown(run: str, notebook: str = studies.SIZES, parameters: dict | None = None) -> str:
    """The same table in Markdown."""
    _, lines, numbers = SHORT[notebook](run, **(parameters or {}))
    return format.in_markdown(lines[0], lines[1:], numbers)


def _of_load(run: str, **parameters: str | int) -> Short:
    """CPU time per request against the baseline, and latency where it is."""
    data = runs.load(run)
    found = {"CPU per request": comparison.of_study(data, comparison.find_study(data, "throughput", **parameters))}
    for study in comparison.find_studies(data, "latency", **parameters):
        percentile = data.environment.studies[study].metric.split("_")[1]
        found[f"latency, {percentile}"] = comparison.of_study(data, study)
    return _of_parts(f"run {run}, under load, {_about(parameters)}", found)


def _of_memory(run: str, **parameters: str | int) -> Short:
    """Memory that is resident under load, and the smallest limit, where the engine can limit it."""
    data = runs.load(run)
    found = {"under load": comparison.of_study(data, comparison.find_study(data, "memory", of="load", **parameters))}
    for study in comparison.find_studies(data, "memory", of="limit", **parameters):
        found["smallest limit"] = comparison.of_study(data, study)
    return _of_parts(f"run {run}, memory, {_about(parameters)}", found)


def _of_startup(run: str) -> Short:
    """Starts of the server's process and of its container."""
    data = runs.load(run)
    found = {what: comparison.of_study(data, study) for what, study in STARTS.items()}
    return _of_parts(f"run {run}: start to first byte", found)


def _of_build(run: str) -> Short:
    """Cold builds: their CPU time, and from start to end."""
    data = runs.load(run)
    study = comparison.find_study(data, "build")
    found = {"CPU time": comparison.of_study(data, study), "time": comparison.of_study(data, study, "cold_build_s")}
    return _of_parts(f"run {run}: cold builds", found)


def _of_parts(of: str, found: dict[str, pd.DataFrame]) -> Short:
    lines = [["of", "cell", "ratio", "95% interval", "all at once", "detectable", "blocks", "verdict"]]
    for what, each in found.items():
        lines += [[what, *line] for line in views.regression.comparisons_in_words(each).to_numpy().tolist()]
    notes = [f"{what}: {each.attrs['warning']}" for what, each in found.items() if each.attrs["warning"]]
    baseline = next(iter(found.values())).attrs["baseline"]
    return "; ".join([f"{of}, as a ratio to {baseline}", *notes]), lines, range(2, 7)


def _about(parameters: dict[str, str | int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in parameters.items())


def _of_sizes(run: str) -> Short:
    """Sizes: a row per cell, the article's figure beside ours."""
    data = runs.load(run)
    table = cells.cell_table(data)
    has_figure = table["cell"].isin(cells.article_grid(data)["cell"])  # of the article, which had one allocator on each
    shown = pd.DataFrame({"base": cells.bases_in_words(table)}).join(table[["profile", "allocator"]])
    shown["article 2021"] = table["article_bytes"].where(has_figure).map(format.megabytes)
    shown["today"] = table["unpacked_bytes"].map(format.megabytes)
    shown["of it the app"] = table["app_bytes"].map(format.megabytes)
    shown["compressed"] = [_compressed(cell) for cell in table.to_dict("records")]
    shown["base from"] = table["base_source"]
    shown["runs"] = ("NO: " + table["reason"]).where(~table["ok"], "yes")
    return f"run {run}: sizes in MB (1e6 bytes)", [list(shown), *shown.to_numpy().tolist()], range(3, 7)


def _of_survival(run: str) -> Short:
    """Probes: per cell how many it passed, and which it failed."""
    data = runs.load(run)
    outcomes, facts, names = robustness.matrix(data), robustness.facts(data), robustness.names(data)
    lines = [["cell", "passed", "failed", "MB", "fails"]]
    for cell, own in facts.iterrows():
        failed = ", ".join(outcomes.index[outcomes[cell] == probes.FAILED])
        counts = [f"{own[count]:.0f}" for count in ("passed", "failed")]
        lines.append([names[cell], *counts, format.megabytes(own["unpacked_bytes"]), failed])
    return f"run {run}: {len(outcomes)} probes of each image", lines, range(1, 4)


SHORT = {
    studies.SIZES: _of_sizes,
    studies.STARTUP: _of_startup,
    studies.UNDER_LOAD: _of_load,
    studies.MEMORY: _of_memory,
    studies.SURVIVAL: _of_survival,
    studies.BUILD: _of_build,
}


def _compressed(cell: dict) -> str:
    """Of a row of `cells.cell_table`; an estimate says so."""
    told = format.megabytes(cell.get("compressed_bytes"))
    return f"about {told}" if told and cell.get("compressed_with") == ESTIMATE else told
