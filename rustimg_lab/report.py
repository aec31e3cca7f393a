"""A run -> the page that is shared: parameters checked, notebook executed by papermill, rendered by nbconvert."""

from pathlib import Path

import nbformat
import papermill
import papermill.execute
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from traitlets.config import Config

from rustimg_lab import disk, matrix, stats, store
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.paths import NOTEBOOKS, REPORTS

CELL_TIMEOUT_S = 300
# What the last cell of a notebook prints: papermill alone may call the run of a dead kernel done.
SENTINEL = "Report complete"


def render(run: str, notebook: str = "01_sizes", parameters: dict | None = None) -> Path:
    """Executes a notebook on a run and writes one self-contained page; returns its path.

    Raises LabError when the run or a parameter is unknown, or a cell fails; an earlier page then stays as it was.
    """
    if store.load(run).empty:
        raise LabError(f"run '{run}' has no rows yet; `./lab run --run {run}` goes on with it")
    source = NOTEBOOKS / f"{notebook}.ipynb"
    parameters = {"run_name": run, **(parameters or {})}
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise unknown("parameter", name, known)

    folder = REPORTS / run
    folder.mkdir(parents=True, exist_ok=True)
    executed, page = folder / f"{notebook}.ipynb", folder / f"{notebook}.html"
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
    page, _ = exporter.from_notebook_node(document, resources={"metadata": {"name": "rustimg_lab: sizes"}})
    return page


def summary(run: str) -> Table:
    """The table that a run ends with: a row per cell, the article's figure beside ours."""
    table = Table(title=f"run {run}: sizes in MB (1e6 bytes)", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    header, *rows = _lines(run)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if 2 < number < 7 else "left", no_wrap=2 < number < 7, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def markdown(run: str) -> str:
    """The same table in Markdown."""
    header, *rows = _lines(run)
    ruler = ["---:" if 2 < number < 7 else "---" for number in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ruler, *rows))


def _lines(run: str) -> list[list[str]]:
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
    return lines


def megabytes(size_bytes: float | None) -> str:
    """Bytes as MB of 1e6 bytes with three significant digits; "" for none."""
    return "" if size_bytes is None or size_bytes != size_bytes else f"{size_bytes / 1e6:#.3g}".rstrip(".")
