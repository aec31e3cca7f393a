"""What every notebook keeps to. That they run, and that their own assertions hold, is nbval's part (see pyproject)."""

import ast

import nbformat
import pytest

from rustimg_lab.paths import NOTEBOOKS

pytestmark = pytest.mark.slow


@pytest.fixture(params=sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_valid_and_carries_no_outputs(notebook):
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


def test_it_has_one_cell_of_parameters_each_with_a_type_a_default_and_help(notebook):
    (parameters,) = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    for line in parameters.source.splitlines():
        name, _, rest = line.partition(": ")
        assert name.isidentifier() and " = " in rest and "  # " in rest


def test_it_defines_nothing_and_its_cells_are_short(notebook):
    for cell in code(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 8
        assert not any(line.startswith(("def ", "class ", "async def ")) for line in lines)


def test_it_imports_the_face_and_nothing_behind_it(notebook):
    nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    imports = {ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}
    assert (
        {"import rustimg_lab as lab"} <= imports <= {"import rustimg_lab as lab", "from IPython.display import display"}
    )
    # Nor what a name that begins with an underscore hides.
    assert not [node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")]


def test_its_last_cell_says_that_it_is_the_last(notebook):
    assert code(notebook)[-1].source in ("run.footer()", "choice.run.footer()")
