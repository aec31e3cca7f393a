"""Progress and widgets in a notebook that papermill executes."""

import nbformat
import papermill

CODE = """
from IPython.display import display
from rich.console import Console

import rustimg_lab as lab
from rustimg_lab.model import matrix
from rustimg_lab.pipeline import progress

cells = lab.cells("scratch,debian", "optimized", "jemalloc")
with progress.building([cell.binary for cell in cells], Console()) as step:
    for cell in cells:
        step(cell.binary, "Compiling libc v0.2.1")
        step(cell.binary, "built")
with progress.trials(Console()) as show:
    show(0, 2, "musl malloc")
    show(2, 2, "the twin")
display(lab.load("recorded/service").trade_off(), lab.profiles().sortable())
"""


def test_no_widget_of_a_notebook_lets_papermill_wait_for_ever(tmp_path):
    """Each answer to an Output widget may hide from nbclient that the cell has ended."""
    cell = nbformat.v4.new_code_cell(CODE)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "in.ipynb")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        tmp_path / "in.ipynb", out, kernel_name="python3", language="python", progress_bar=False
    )  # fmt: skip
    document = nbformat.read(out, as_version=4)
    (state,) = document.metadata["widgets"].values()
    models = [each["model_name"] for each in state["state"].values()]
    assert "HTMLModel" in models and "OutputModel" not in models
    shown = [output["data"].get("text/plain", "") for output in document.cells[0].outputs if "data" in output]
    assert "all" in shown[0]
    assert "the twin" in shown[1]
