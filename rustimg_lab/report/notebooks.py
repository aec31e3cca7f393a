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
from rustimg_lab.model.names import split_list
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
    """Execute a notebook on a run, write a self-contained page named by the parameters, and return the path of the
    page.

    A page that is newer than the executed notebook is left as it is. Raises LabError as `execute` does; an earlier page
    then stays as it was.
    """
    document, executed = execute(run, notebook, parameters), _executed_path(run, notebook, parameters)
    path = executed.with_suffix(".html")
    if not _has_page(executed):
        title = document.metadata["title"]
        files.write_whole(path, page.html(title, f"Run {run}.", [page.Part(without_sentinel(document))]))
    return path


def is_rendered(run: str, notebook: str, parameters: dict) -> bool:
    """Return whether the page of a notebook is up to date, so that `render` would leave it as it is. Raises LabError
    when the run is unknown."""
    executed = _executed_path(run, notebook, parameters)
    return _earlier_result(executed, _inputs_digest(run, notebook, parameters)) is not None and _has_page(executed)


def execute_all(calls: list[tuple[str, str, dict]], on_done: Callable[[int], None]) -> list[nbformat.NotebookNode]:
    """Execute each run, notebook and parameters of `calls`, as many at a time as this machine has CPUs. Return the
    executed notebooks in the order of `calls`. `on_done` gets the number of calls that are done. Raises LabError as
    `execute` does, and then begins no other call."""
    documents = {}
    with closing(process.side_by_side(execute, calls, machine.cpus())) as results:
        for place, document in results:
            documents[place] = document
            on_done(len(documents))
    return [documents[place] for place in range(len(calls))]


def execute(run: str, notebook: str, parameters: dict | None = None) -> nbformat.NotebookNode:
    """Return a notebook with its outputs on a run. A notebook that was executed before on equal inputs is not executed
    again.

    Raises LabError when the run or a parameter is unknown, the run has no rows, or a cell fails.
    """
    if runs.load(run).rows.empty:
        raise LabError(f"run '{run}' has no rows yet; `./lab run --run {run}` resumes it")
    names = parameters_of(notebook)
    for parameter in ("run_name", *(parameters or {})):
        check_known("parameter", parameter, names)
    digest, executed = _inputs_digest(run, notebook, parameters), _executed_path(run, notebook, parameters)
    if (document := _earlier_result(executed, digest)) is None:
        executed.parent.mkdir(parents=True, exist_ok=True)
        failed = executed.with_suffix(".failed.ipynb")
        document = _run(NOTEBOOKS / f"{notebook}.ipynb", {"run_name": run, **(parameters or {})}, failed)
        document.metadata["made_of"] = digest
        files.write_whole(executed, nbformat.writes(document))
        failed.unlink(missing_ok=True)
    return document


def _run(source: Path, parameters: dict, failed: Path) -> nbformat.NotebookNode:
    """Execute a notebook and return it. When it does not run to its end, write what it came to into `failed` and raise
    LabError."""
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
            reason = "did not run to its end; call again, or open it in JupyterLab"
        except PapermillExecutionError as error:
            reason = f"cell {error.exec_count} failed with {error.ename}: {error.evalue}"
        except (CellTimeoutError, RuntimeError) as error:  # the latter: a kernel that has died, or does not answer
            reason = f"did not run to its end ({str(error).partition(chr(10))[0]})"
        files.write_whole(failed, part.read_text(encoding="utf-8"))
    raise LabError(f"{failed}: {reason}")


def _earlier_result(executed: Path, digest: str) -> nbformat.NotebookNode | None:
    """Return the notebook that was executed before on equal inputs, which have this `digest`; else None."""
    document = nbformat.read(executed, as_version=4) if executed.exists() else None
    return document if document and document.metadata.get("made_of") == digest else None


def _has_page(executed: Path) -> bool:
    """Return whether there is a page that is as new as the executed notebook."""
    path = executed.with_suffix(".html")
    return path.exists() and path.stat().st_mtime >= executed.stat().st_mtime


def parameters_of(notebook: str) -> dict[str, dict]:
    """Return the parameters of a notebook by name, each as papermill describes it. Raises LabError when the notebook
    cannot be read."""
    try:
        return papermill.inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb"))
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise LabError(f"notebook {notebook} cannot be read: {reason}; save it in JupyterLab with a kernel") from None


def _executed_path(run: str, notebook: str, parameters: dict | None) -> Path:
    settings = (f"{key}-{value}" for key, value in (parameters or {}).items())
    name = re.sub(r"[^\w.~-]", "", "_".join([notebook, *settings]))
    return REPORTS / run / f"{files.short_name(name)}.ipynb"


def without_sentinel(document: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove the lines with `SENTINEL` from the outputs of the last cell, and return the document, which is changed in
    place."""
    last = document.cells[-1]
    for output in last.outputs:
        if "text" in output:
            output["text"] = "".join(line for line in output["text"].splitlines(True) if SENTINEL not in line)
    last.outputs = [output for output in last.outputs if output.get("text", output.get("data"))]
    return document


def _inputs_digest(run: str, notebook: str, parameters: dict | None) -> str:
    """Return the SHA-256 (hex) of all that the outputs of a notebook depend on."""
    texts = sorted((runs.run_path(run) / "dockerfiles").rglob("Dockerfile.*"))
    names = filter(None, split_list((parameters or {}).get("others", "")))
    of_others = [path for name in names for path in runs.files(name)]
    digest = hashlib.sha256(json.dumps({"run_name": run, **(parameters or {})}, sort_keys=True).encode())
    code = sorted(path for pattern in READERS for path in PACKAGE.glob(pattern))
    source = NOTEBOOKS / f"{notebook}.ipynb"
    for path in [source, *runs.files(run), *of_others, *texts, *code, ARTICLE, BASES, PROBES_FILE, PROFILES, PUBLISHED]:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()
