"""Notebooks executed by papermill on a run, each kept until what it is made of changes."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import matplotlib
import nbformat
import papermill
import papermill.execute
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from rustimg_lab.errors import LabError, check_known
from rustimg_lab.host import files, machine, process
from rustimg_lab.model.names import listed
from rustimg_lab.model.studies import SIZES
from rustimg_lab.paths import ARTICLE, BASES, NOTEBOOKS, PACKAGE, PROBES_FILE, PROFILES, PUBLISHED, REPORTS
from rustimg_lab.report import page
from rustimg_lab.report.format import SENTINEL
from rustimg_lab.store import runs

CELL_TIMEOUT_S = 300
LONGEST_FOLDER = 70  # for a kernel's sockets, in bytes: macOS allows 103 for the path of a socket, Linux 107
# What the outputs of a notebook depend on, beside its run and `data/`: the modules that it loads, below the package.
READERS = ("*.py", "model/*.py", "store/*.py", "analysis/*.py", "widgets/*.py", "host/files.py")
READERS += ("report/views/*.py", "report/plots/*.py", "report/format.py", "report/summary.py")
# Without the line that a kernel may log when it ends.
QUIET = {"extra_arguments": ["--log-level=CRITICAL"]}


def render(run: str, notebook: str = SIZES, parameters: dict | None = None) -> Path:
    """Executes a notebook on a run and writes one self-contained page, named by its parameters; returns its path. A
    page newer than its notebook's outputs stays, and so does an earlier one on LabError, which `execute` raises."""
    document, executed = execute(run, notebook, parameters), _executed(run, notebook, parameters)
    written = executed.with_suffix(".html")
    if not _has_page(executed):
        title = document.metadata["title"]
        files.write_whole(written, page.html(title, f"Run {run}.", [page.Part(without_sentinel(document))]))
    return written


def is_rendered(run: str, notebook: str, parameters: dict) -> bool:
    """Whether `render` would leave the page of a notebook as it is. Raises LabError when the run is unknown."""
    executed = _executed(run, notebook, parameters)
    return _kept(executed, _made_of(run, notebook, parameters)) is not None and _has_page(executed)


def execute_all(wanted: list[tuple[str, str, dict]], on_done: Callable[[int], None]) -> list[nbformat.NotebookNode]:
    """`execute` for each run, notebook and parameters, as many at once as there are CPUs; returns them in order.
    `on_done` gets the number that are done. Raises LabError as `execute`, and then begins no other."""
    documents = {}
    with closing(process.side_by_side(execute, wanted, machine.cpus())) as done:
        for place, document in done:
            documents[place] = document
            on_done(len(documents))
    return [documents[place] for place in range(len(wanted))]


def execute(run: str, notebook: str, parameters: dict | None = None) -> nbformat.NotebookNode:
    """The notebook with outputs on a run, kept while made of the same. Raises LabError if unknown, or a cell fails."""
    if runs.load(run).rows.empty:
        raise LabError(f"run '{run}' has no rows yet; `./lab run --run {run}` resumes it")
    known = parameters_of(notebook)
    for parameter in ("run_name", *(parameters or {})):
        check_known("parameter", parameter, known)
    made_of, executed = _made_of(run, notebook, parameters), _executed(run, notebook, parameters)
    if (document := _kept(executed, made_of)) is None:
        executed.parent.mkdir(parents=True, exist_ok=True)
        failed = executed.with_suffix(".failed.ipynb")
        document = _run(NOTEBOOKS / f"{notebook}.ipynb", {"run_name": run, **(parameters or {})}, failed)
        document.metadata["made_of"] = made_of
        files.write_whole(executed, nbformat.writes(document))
        failed.unlink(missing_ok=True)
    return document


def _run(source: Path, parameters: dict, failed: Path) -> nbformat.NotebookNode:
    """Executes a notebook. Where it does not come to its end, what it came to is written to `failed`."""
    # A report looks alike everywhere; a style of the user's own is for notebooks that the user opens.
    os.environ["MATPLOTLIBRC"] = matplotlib.get_data_path()
    # Sockets of this user's own, in a folder of this kernel's own: by themselves all would have the same names. What is
    # executed is there too, until it is whole: two that execute one notebook at once write to files of their own.
    short = tempfile.gettempdir() if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="lab-kernel-", dir=short) as folder:
        kernel = {"transport": "ipc", "ip": f"{folder}/socket", "connection_file": f"{folder}/kernel.json"}
        part = Path(folder) / source.name
        try:
            papermill.execute_notebook(
                str(source), str(part), parameters, progress_bar=False, execution_timeout=CELL_TIMEOUT_S,
                # The lab's own Python, also for a notebook that was saved with another kernel.
                kernel_name="python3", language="python",
                # Not `cwd`, by which papermill changes the folder of this whole process: others may be executed too.
                resources={"metadata": {"path": str(NOTEBOOKS)}},
                config=Config({"KernelManager": kernel, "NotebookClient": QUIET}),
            )  # fmt: skip
            document = nbformat.read(part, as_version=4)
            if SENTINEL in "".join(output.get("text", "") for output in document.cells[-1].get("outputs", [])):
                return document
            why = "did not run to its end; call again, or open it in JupyterLab"
        except PapermillExecutionError as error:
            why = f"cell {error.exec_count} failed with {error.ename}: {error.evalue}"
        except (CellTimeoutError, RuntimeError) as error:  # the latter: a kernel that has died, or does not answer
            why = f"did not run to its end ({str(error).partition(chr(10))[0]})"
        files.write_whole(failed, part.read_text(encoding="utf-8"))
    raise LabError(f"{failed}: {why}")


def _kept(executed: Path, made_of: str) -> nbformat.NotebookNode | None:
    """What was executed before, where it was made of the same; else None."""
    document = nbformat.read(executed, as_version=4) if executed.exists() else None
    return document if document and document.metadata.get("made_of") == made_of else None


def _has_page(executed: Path) -> bool:
    """Whether there is a page that is as new as the executed notebook."""
    written = executed.with_suffix(".html")
    return written.exists() and written.stat().st_mtime >= executed.stat().st_mtime


def parameters_of(notebook: str) -> dict[str, dict]:
    """The parameters of a notebook by name, as papermill describes them. Raises LabError when it cannot be read."""
    try:
        return papermill.inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb"))
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise LabError(f"notebook {notebook} cannot be read: {why}; save it in JupyterLab with a kernel") from None


def _executed(run: str, notebook: str, parameters: dict | None) -> Path:
    told = (f"{key}-{value}" for key, value in (parameters or {}).items())
    name = re.sub(r"[^\w.~-]", "", "_".join([notebook, *told]))
    return REPORTS / run / f"{files.short_name(name)}.ipynb"


def without_sentinel(document: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The document without the line that is for us alone."""
    last = document.cells[-1]
    for output in last.outputs:
        if "text" in output:
            output["text"] = "".join(line for line in output["text"].splitlines(True) if SENTINEL not in line)
    last.outputs = [output for output in last.outputs if output.get("text", output.get("data"))]
    return document


def _made_of(run: str, notebook: str, parameters: dict | None) -> str:
    """The SHA-256 of all that the outputs of a notebook depend on, in hex."""
    texts = sorted((runs.run_path(run) / "dockerfiles").rglob("Dockerfile.*"))
    others = filter(None, listed((parameters or {}).get("others", "")))
    of_others = [path for other in others for path in runs.files(other)]
    digest = hashlib.sha256(json.dumps({"run_name": run, **(parameters or {})}, sort_keys=True).encode())
    own = sorted(path for pattern in READERS for path in PACKAGE.glob(pattern))
    source = NOTEBOOKS / f"{notebook}.ipynb"
    for path in [source, *runs.files(run), *of_others, *texts, *own, ARTICLE, BASES, PROBES_FILE, PROFILES, PUBLISHED]:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()
