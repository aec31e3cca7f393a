"""A run -> the page that is shared: parameters checked, notebook executed by papermill, rendered by nbconvert."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import papermill.execute
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from traitlets.config import Config

from rustimg_lab import choice, comparison, disk, matrix, stats, store, tables
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.paths import ARTICLE, NOTEBOOKS, PROFILES, PUBLISHED, REPORTS

CELL_TIMEOUT_S = 300
SIZES, STARTUP, UNDER_LOAD, MEMORY = "01_sizes", "02_startup", "03_throughput", "04_memory"
STARTS = {"program": "startup-server", "container": "startup-container"}
COMPARED = ("ratio", "95% interval", "all at once", "detectable", "blocks", "verdict")
LOAD = ("workload", "workers", "connections")  # what tells the studies of a load apart
# What the last cell of a notebook prints: papermill alone may call the run of a dead kernel done.
SENTINEL = "Report complete"


def render(run: str, notebook: str = SIZES, parameters: dict | None = None) -> Path:
    """Executes a notebook on a run and writes one self-contained page, named by its parameters; returns its path.

    A page that is newer than all that it is made of is left as it is. Raises LabError when the run or a parameter is
    unknown, or a cell fails; an earlier page then stays as it was.
    """
    if store.load(run).empty:
        raise LabError(f"run '{run}' has no rows yet; `./lab run --run {run}` goes on with it")
    source = NOTEBOOKS / f"{notebook}.ipynb"
    told = (f"{key}-{value}" for key, value in (parameters or {}).items())
    name = re.sub(r"[^\w.~-]", "", "_".join([notebook, *told]))
    parameters = {"run_name": run, **(parameters or {})}
    known = papermill.inspect_notebook(str(source))
    for parameter in parameters:
        if parameter not in known:
            raise unknown("parameter", parameter, known)

    folder = REPORTS / run
    folder.mkdir(parents=True, exist_ok=True)
    executed, page = folder / f"{name}.ipynb", folder / f"{name}.html"
    if _is_newest(page, [source, *store.files(run), *_own_files()]):
        return page
    try:
        papermill.execute_notebook(
            str(source), str(executed), parameters, cwd=str(NOTEBOOKS), progress_bar=False,
            execution_timeout=CELL_TIMEOUT_S, config=Config({"KernelManager": {"transport": "ipc"}}),
        )  # fmt: skip
    except PapermillExecutionError as error:
        raise LabError(f"{executed}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise LabError(f"{executed}: did not run to its end ({str(error).partition(chr(10))[0]})") from None
    document = nbformat.read(executed, as_version=4)
    said = "".join(output.get("text", "") for output in document.cells[-1].get("outputs", []))
    if SENTINEL not in said:
        raise LabError(f"{executed}: did not run to its end; call again, or open it in JupyterLab")
    disk.write_whole(page, to_html(document))
    return page


def parts(run: str) -> list[tuple[str, dict]]:
    """The notebooks that a run has data for, each with its parameters; of several studies, once all have begun."""
    rows = store.load(run)
    begun, found = set(rows["study"]), []
    if "" in begun or rows.empty:
        found.append((SIZES, {}))
    for name, plan in rows.attrs["environment"].get("studies", {}).items():
        about = plan["parameters"]
        load = {key: about.get(key) for key in LOAD}
        if name in begun and plan["kind"] == "throughput":
            found.append((UNDER_LOAD, load))
        elif name in begun and plan["kind"] == "memory" and about["of"] == "limit":
            found.append((MEMORY, load))
        elif name in begun and name == "startup-container":
            found.append((STARTUP, {}))
    return sorted(found, key=lambda part: part[0])


def summary(run: str, notebook: str = SIZES, parameters: dict | None = None) -> Table:
    """The table in a terminal that says in short what a notebook says."""
    title, (header, *rows), numbers = SHORT[notebook](run, **(parameters or {}))
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(header):
        number = place in numbers
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
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
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        justify = "left" if name in ("cell", "of", "verdict") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    for row in shown.itertuples(index=False):
        table.add_row(*map(escape, row))
    return table


def markdown(run: str, notebook: str = SIZES, parameters: dict | None = None) -> str:
    """The same table in Markdown."""
    _, lines, numbers = SHORT[notebook](run, **(parameters or {}))
    return _in_markdown(lines, numbers)


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
                [megabytes(cell["unpacked_bytes"]), f"{cell['unpacked']:.2f}", _compressed(cell),
                 f"{cell['build_cpu_s']:.0f}"]
                if cell and cell["ok"]
                else ["no image that works" if cell else "", "", "", ""]
            )  # fmt: skip
    return _in_markdown(lines, range(2, len(lines[0])))


def _in_markdown(lines: list[list[str]], numbers: range) -> str:
    header, *rows = lines
    ruler = ["---:" if place in numbers else "---" for place in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ruler, *rows))


def _own_files() -> list[Path]:
    package = Path(__file__).parent
    return [*package.rglob("*.py"), *(package / "templates" / "report").iterdir(), ARTICLE, PROFILES, PUBLISHED]


def _is_newest(page: Path, made_of: list[Path]) -> bool:
    return page.exists() and page.stat().st_mtime > max(path.stat().st_mtime for path in made_of)


def to_html(document: nbformat.NotebookNode) -> str:
    """One HTML page that loads nothing: nbconvert's scripts from the network are left out, the plots are inside."""
    exporter = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[str(Path(__file__).parent / "templates")],
        embed_images=True,
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        mathjax_url="",
        require_js_url="",
        jquery_url="",
    )
    page, _ = exporter.from_notebook_node(document, resources={"metadata": {"name": document.metadata["title"]}})
    return page


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
    for cell in stats.cells(store.load(run)).to_dict("records"):
        of_the_article = cell["allocator"] == matrix.base(cell["base"]).article_allocator
        lines.append(
            [
                cell["base"] + (" (stand-in)" if cell["stand_in"] else ""),
                cell["profile"],
                cell["allocator"],
                megabytes(cell["article_bytes"]) if of_the_article else "",
                megabytes(cell.get("unpacked_bytes")),
                megabytes(cell.get("app_bytes")),
                _compressed(cell),
                cell["base_source"],
                "yes" if cell["ok"] else f"NO: {cell['reason']}",
            ]
        )
    return f"run {run}: sizes in MB (1e6 bytes)", lines, range(3, 7)


SHORT = {SIZES: _of_sizes, STARTUP: _of_startup, UNDER_LOAD: _of_load, MEMORY: _of_memory}


def _compressed(cell: dict) -> str:
    """Of a row of `stats.cells`; an estimate says so."""
    told, guess = (megabytes(cell.get(f"compressed_{kind}")) for kind in ("bytes", "estimate_bytes"))
    return told or (f"about {guess}" if guess else "")


def megabytes(size_bytes: float | None) -> str:
    """Bytes as MB of 1e6 bytes with three significant digits; "" for none."""
    return "" if size_bytes is None or size_bytes != size_bytes else f"{size_bytes / 1e6:#.3g}".rstrip(".")
