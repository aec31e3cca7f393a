"""A run -> the page that is shared: parameters checked, notebook executed by papermill, rendered by nbconvert."""

from pathlib import Path

import nbformat
import pandas as pd
import papermill
import papermill.execute
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from traitlets.config import Config

from rustimg_lab import comparison, disk, matrix, stats, store
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.paths import NOTEBOOKS, REPORTS

CELL_TIMEOUT_S = 300
SIZES, STARTUP, UNDER_LOAD = "01_sizes", "02_startup", "03_throughput"
STARTS = (
    ("program", "startup-server", "exec_to_first_byte_s"),
    ("container", "startup-container", "host_first_byte_s"),
)
COMPARED = ("ratio", "95% interval", "all at once", "detectable", "blocks", "verdict")
LOAD = "throughput"  # the kind of study that UNDER_LOAD shows
# What the last cell of a notebook prints: papermill alone may call the run of a dead kernel done.
SENTINEL = "Report complete"


def render(run: str, notebook: str = SIZES, parameters: dict | None = None) -> Path:
    """Executes a notebook on a run and writes one self-contained page, named by its parameters; returns its path.

    Raises LabError when the run or a parameter is unknown, or a cell fails; an earlier page then stays as it was.
    """
    if store.load(run).empty:
        raise LabError(f"run '{run}' has no rows yet; `./lab run --run {run}` goes on with it")
    source = NOTEBOOKS / f"{notebook}.ipynb"
    name = "-".join([notebook, *map(str, (parameters or {}).values())])
    parameters = {"run_name": run, **(parameters or {})}
    known = papermill.inspect_notebook(str(source))
    for parameter in parameters:
        if parameter not in known:
            raise unknown("parameter", parameter, known)

    folder = REPORTS / run
    folder.mkdir(parents=True, exist_ok=True)
    executed, page = folder / f"{name}.ipynb", folder / f"{name}.html"
    try:
        papermill.execute_notebook(
            str(source), str(executed), parameters, cwd=str(NOTEBOOKS), progress_bar=False,
            execution_timeout=CELL_TIMEOUT_S, config=Config({"KernelManager": {"transport": "ipc"}}),
        )  # fmt: skip
    except PapermillExecutionError as error:
        raise LabError(f"{executed}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from None
    document = nbformat.read(executed, as_version=4)
    said = "".join(output.get("text", "") for output in document.cells[-1].get("outputs", []))
    if SENTINEL not in said:
        raise LabError(f"{executed}: did not run to its end; call again, or open it in JupyterLab")
    disk.write_whole(page, to_html(document))
    return page


def parts(run: str) -> list[tuple[str, dict]]:
    """The notebooks that a run has data for, each with its parameters."""
    rows = store.load(run)
    begun = set(rows["study"])
    plans = [plan for name, plan in rows.attrs["environment"].get("studies", {}).items() if name in begun]
    found: list[tuple[str, dict]] = [(SIZES, {})] if rows["study"].eq("").any() or rows.empty else []
    found += [(STARTUP, {})] if any(plan["kind"] == "startup" for plan in plans) else []
    loads = [plan["parameters"] for plan in plans if plan["kind"] == LOAD]
    return found + [(UNDER_LOAD, {key: load[key] for key in ("workload", "workers", "connections")}) for load in loads]


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


def markdown(run: str, notebook: str = SIZES, parameters: dict | None = None) -> str:
    """The same table in Markdown."""
    _, (header, *rows), numbers = SHORT[notebook](run, **(parameters or {}))
    ruler = ["---:" if place in numbers else "---" for place in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ruler, *rows))


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
    """Title, lines and the columns with numbers: CPU time per request against the baseline."""
    rows = store.load(run)
    study = comparison.find_study(rows, LOAD, **parameters)
    found = comparison.of_study(rows, study, "cpu_us_per_request")
    baseline, warning = found.attrs["baseline"], found.attrs["warning"]
    title = f"run {run}, {study}: server CPU time per request, as a ratio to {baseline}"
    return f"{title}; {warning}" if warning else title, [["cell", *COMPARED], *_compared(found)], range(1, 6)


def _of_startup(run: str) -> tuple[str, list[list[str]], range]:
    """The same of starts: the server's process and its container."""
    rows = store.load(run)
    lines = [["of", "cell", *COMPARED]]
    for what, study, metric in STARTS:
        if rows["study"].eq(study).any():
            found = comparison.of_study(rows, study, metric)
            lines += [[what, *line] for line in _compared(found)]
    return f"run {run}: start to first byte, as ratios to {found.attrs['baseline']}", lines, range(2, 7)


def _compared(found: pd.DataFrame) -> list[list[str]]:
    lines = []
    for cell in found.itertuples():
        intervals = [f"{low:.3f} to {high:.3f}" for low, high in ((cell.low, cell.high), (cell.low_all, cell.high_all))]
        numbers = [f"{cell.ratio:.3f}", *intervals, f"{cell.detectable:.2f}"] if cell.pairs > 1 else [""] * 4
        lines.append([comparison.in_words(cell.cell, found.attrs), *numbers, str(cell.pairs), cell.verdict])
    return lines


def _of_sizes(run: str) -> tuple[str, list[list[str]], range]:
    """The same of sizes: a row per cell, the article's figure beside ours."""
    lines = [
        ["base", "profile", "allocator", "article 2021", "today", "of it the app", "compressed", "base from", "runs"]
    ]
    for cell in stats.cells(store.load(run)).to_dict("records"):
        of_the_article = cell["allocator"] == matrix.base(cell["base"]).article_allocator
        told, guess = (megabytes(cell.get(f"compressed_{kind}")) for kind in ("bytes", "estimate_bytes"))
        lines.append(
            [
                cell["base"] + (" (stand-in)" if cell["stand_in"] else ""),
                cell["profile"],
                cell["allocator"],
                megabytes(cell["article_bytes"]) if of_the_article else "",
                megabytes(cell.get("unpacked_bytes")),
                megabytes(cell.get("app_bytes")),
                told or (f"about {guess}" if guess else ""),
                cell["base_source"],
                "yes" if cell["ok"] else f"NO: {cell['reason']}",
            ]
        )
    return f"run {run}: sizes in MB (1e6 bytes)", lines, range(3, 7)


SHORT = {SIZES: _of_sizes, STARTUP: _of_startup, UNDER_LOAD: _of_load}


def megabytes(size_bytes: float | None) -> str:
    """Bytes as MB of 1e6 bytes with three significant digits; "" for none."""
    return "" if size_bytes is None or size_bytes != size_bytes else f"{size_bytes / 1e6:#.3g}".rstrip(".")
