"""The short tables: in a terminal, and in Markdown, what a notebook says of a run in a few lines."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rustimg_lab import choice, comparison, stats, store, survival, tables

SIZES, STARTUP, UNDER_LOAD, MEMORY = "01_sizes", "02_startup", "03_throughput", "04_memory"
SURVIVAL, BUILD = "06_survival", "09_build"
STARTS = {"program": "startup-server", "container": "startup-container"}
COMPARED = ("ratio", "95% interval", "all at once", "detectable", "blocks", "verdict")


def summary(run: str, notebook: str = SIZES, parameters: dict | None = None) -> Table:
    """The table in a terminal that says in short what a notebook says."""
    title, (header, *rows), numbers = SHORT[notebook](run, **(parameters or {}))
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(header):
        number = place in numbers
        table.add_column(escape(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def candidates(run: str, found: choice.Choice) -> Table:
    """The table in a terminal of the cells that were to choose from."""
    return _terminal(f"run {run}: what was to choose from", tables.candidates_in_words(found))


def changed_sizes(names: str, found: pd.DataFrame) -> Table:
    """The table in a terminal of `guard.sizes`."""
    shown = tables.changed_sizes(found)
    return _terminal(f"{names}: sizes in MB (1e6 bytes){'' if len(shown) else ': all the same'}", shown)


def changed_speeds(names: str, found: pd.DataFrame) -> Table:
    """The table in a terminal of `guard.speeds`."""
    return _terminal(f"{names}: as a ratio to the first", tables.changed_speeds(found))


def _terminal(title: str, shown: pd.DataFrame) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        justify = "left" if name in ("cell", "of", "verdict") else "right"
        table.add_column(escape(name), justify=justify, overflow="fold")
    for row in shown.itertuples(index=False):
        table.add_row(*map(escape, row))
    return table


def markdown(run: str, notebook: str = SIZES, parameters: dict | None = None) -> str:
    """The same table in Markdown."""
    _, lines, numbers = SHORT[notebook](run, **(parameters or {}))
    return tables.in_markdown(lines[0], lines[1:], numbers)


def ladder(run: str) -> str:
    """The profiles of a run in Markdown: what their images take on each base in MB (1e6 bytes), unpacked and
    compressed, and the CPU seconds that cargo had for each."""
    found = stats.ladder(stats.cells(store.load(run)))
    rungs = dict(list(found.groupby(["base", "allocator"], sort=False)))
    lines = [["profile", "flags"]]
    for (base, allocator), own in rungs.items():
        stand_in = " (stand-in)" if own["stand_in"].any() else ""
        lines[0] += [f"{base}{stand_in}, {allocator}", "/ baseline", "compressed", "cargo, CPU s"]
    for profile in found["profile"].unique():
        own = [each.set_index("profile").to_dict("index").get(profile) for each in rungs.values()]
        lines.append([profile, "unstable" if any(cell and cell["unstable"] is True for cell in own) else ""])
        for cell in own:
            lines[-1] += (
                [stats.megabytes(cell["unpacked_bytes"]), f"{cell['unpacked']:.2f}", _compressed(cell),
                 f"{cell['build_cpu_s']:.0f}"]
                if cell and cell["ok"]
                else ["no image that works" if cell else "", "", "", ""]
            )  # fmt: skip
    return tables.in_markdown(lines[0], lines[1:], range(2, len(lines[0])))


def _of_load(run: str, **parameters: str | int) -> tuple[str, list[list[str]], range]:
    """Title, lines and the columns with numbers: CPU time per request against the baseline, and latency where it is."""
    rows = store.load(run)
    found = {"CPU per request": comparison.of_study(rows, comparison.find_study(rows, "throughput", **parameters))}
    for study in comparison.find_studies(rows, "latency", **parameters):
        percentile = rows.attrs["environment"]["studies"][study]["metric"].split("_")[1]
        found[f"latency, {percentile}"] = comparison.of_study(rows, study)
    return _of_parts(f"run {run}, under load, {_about(parameters)}", found)


def _of_memory(run: str, **parameters: str | int) -> tuple[str, list[list[str]], range]:
    """The same of memory: resident under load, and the smallest limit, where the engine can limit it."""
    rows = store.load(run)
    found = {"under load": comparison.of_study(rows, comparison.find_study(rows, "memory", of="load", **parameters))}
    for study in comparison.find_studies(rows, "memory", of="limit", **parameters):
        found["smallest limit"] = comparison.of_study(rows, study)
    return _of_parts(f"run {run}, memory, {_about(parameters)}", found)


def _of_startup(run: str) -> tuple[str, list[list[str]], range]:
    """The same of starts: the server's process and its container."""
    rows = store.load(run)
    found = {what: comparison.of_study(rows, study) for what, study in STARTS.items()}
    return _of_parts(f"run {run}: start to first byte", found)


def _of_build(run: str) -> tuple[str, list[list[str]], range]:
    """The same of cold builds: their CPU time, and from start to end."""
    rows = store.load(run)
    study = comparison.find_study(rows, "build")
    found = {"CPU time": comparison.of_study(rows, study), "time": comparison.of_study(rows, study, "cold_build_s")}
    return _of_parts(f"run {run}: cold builds", found)


def _of_parts(of: str, found: dict[str, pd.DataFrame]) -> tuple[str, list[list[str]], range]:
    lines = [["of", "cell", *COMPARED]]
    for what, each in found.items():
        lines += [[what, *line] for line in _compared(each)]
    notes = [f"{what}: {each.attrs['warning']}" for what, each in found.items() if each.attrs["warning"]]
    baseline = next(iter(found.values())).attrs["baseline"]
    return "; ".join([f"{of}, as a ratio to {baseline}", *notes]), lines, range(2, 7)


def _about(parameters: dict[str, str | int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in parameters.items())


def _compared(found: pd.DataFrame) -> list[list[str]]:
    lines = []
    for cell in found.itertuples():
        intervals = [f"{low:.3f} to {high:.3f}" for low, high in ((cell.low, cell.high), (cell.low_all, cell.high_all))]
        numbers = (
            [f"{cell.ratio:.3f}", *intervals, comparison.detectable_in_words(cell.detectable)]
            if cell.pairs > 1
            else [""] * 4
        )
        lines.append([comparison.in_words(cell.cell, found.attrs), *numbers, str(cell.pairs), cell.verdict])
    return lines


def _of_sizes(run: str) -> tuple[str, list[list[str]], range]:
    """The same of sizes: a row per cell, the article's figure beside ours."""
    lines = [
        ["base", "profile", "allocator", "article 2021", "today", "of it the app", "compressed", "base from", "runs"]
    ]
    rows = store.load(run)
    of_the_article = set(stats.article_grid(rows)["cell"])
    for cell in stats.cells(rows).to_dict("records"):
        lines.append(
            [
                cell["base"] + (" (stand-in)" if cell["stand_in"] else ""),
                cell["profile"],
                cell["allocator"],
                stats.megabytes(cell["article_bytes"]) if cell["cell"] in of_the_article else "",
                stats.megabytes(cell.get("unpacked_bytes")),
                stats.megabytes(cell.get("app_bytes")),
                _compressed(cell),
                cell["base_source"],
                "yes" if cell["ok"] else f"NO: {cell['reason']}",
            ]
        )
    return f"run {run}: sizes in MB (1e6 bytes)", lines, range(3, 7)


def _of_survival(run: str) -> tuple[str, list[list[str]], range]:
    """The same of probes: per cell how many it passed, and which it failed."""
    rows = store.load(run)
    outcomes, facts, names = survival.matrix(rows), survival.facts(rows), survival.names(rows)
    lines = [["cell", "passed", "failed", "MB", "fails"]]
    for cell in outcomes.columns:
        failed = ", ".join(outcomes.index[outcomes[cell] == survival.FAILED])
        counts = [str(facts[count][cell]) for count in ("passed", "failed")]
        lines.append([names[cell], *counts, stats.megabytes(facts["unpacked_bytes"][cell]), failed])
    return f"run {run}: {len(outcomes)} probes of each image", lines, range(1, 4)


SHORT = {
    SIZES: _of_sizes, STARTUP: _of_startup, UNDER_LOAD: _of_load, MEMORY: _of_memory, SURVIVAL: _of_survival,
    BUILD: _of_build,
}  # fmt: skip


def _compressed(cell: dict) -> str:
    """Of a row of `stats.cells`; an estimate says so."""
    told = stats.megabytes(cell.get("compressed_bytes"))
    return f"about {told}" if told and cell.get("compressed_with") == store.ESTIMATE else told
