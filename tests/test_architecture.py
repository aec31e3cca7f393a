"""What docs/architecture.md says of the package is what the package is."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from rustimg_lab.cli import develop
from rustimg_lab.paths import PACKAGE, ROOT

MODULE_LINES, FUNCTION_LINES, PARAMETERS = 350, 45, 6
EXCEPTIONS = {
    "server.serving": "the settings of a server's container are independent of each other, and most have defaults",
    "deploy.measure": "a deploy needs the machine, its link and the images; `partial` binds them once for all trials",
}


# What the docstring of a public function begins with. A function that does something else adds its verb.
VERBS = """
Add Append Ask Begin Build Call Check Compare Copy Create Cut Decide Do Draw End Execute Exit Fit Give Hide Hold Import
Install Keep Let List Load Make Measure Obtain Open Plan Prefix Print Pull Push Put Queue Raise Read Recommend Record
Register Remove Replace Return Run Send Set Show Start Take Tell Turn Unpack Update Wait Write Yield
"""


@pytest.mark.slow
def test_the_documents_say_what_the_recorded_runs_and_the_modules_say():
    assert develop.documents("--check", "--diff") == 0, "call `./lab docs` and look through what it changed"


def test_every_wing_is_in_the_table_and_under_the_contract():
    wings = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    table = set(
        re.findall(
            r"^\| `(\w+)` \| ",
            (ROOT / "docs" / "architecture.md").read_text().partition("## The path")[0],
            re.MULTILINE,
        )
    )
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {
        each.strip().removeprefix("rustimg_lab.") for layer in contracts[0]["layers"] for each in layer.split("|")
    }
    assert table == wings == layers - {"errors", "paths"}


def nodes(kind: type[ast.AST]) -> list[tuple[Path, ast.AST]]:
    """All nodes of a kind in the package's modules, each with its module."""
    trees = [(path, ast.parse(path.read_text())) for path in PACKAGE.rglob("*.py")]
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kind)]


def test_modules_and_functions_stay_small():
    for path in PACKAGE.rglob("*.py"):
        assert path.read_text().count("\n") <= MODULE_LINES, path
    for path, function in nodes(ast.FunctionDef):
        if f"{path.stem}.{function.name}" not in EXCEPTIONS:
            arguments = [
                each.arg for each in (*function.args.args, *function.args.kwonlyargs) if each.arg not in ("self", "cls")
            ]
            lines = function.end_lineno - function.lineno + 1
            assert lines <= FUNCTION_LINES and len(arguments) <= PARAMETERS, f"{path}: {function.name}"


def test_the_docstring_of_a_public_function_begins_with_a_verb():
    texts = {
        f"{path.name}: {function.name}": text
        for path, function in nodes(ast.FunctionDef)
        if not function.name.startswith("_") and (text := ast.get_docstring(function))
    }
    assert len(texts) > 700
    assert {name: text for name, text in texts.items() if text.split()[0].strip(",.") not in VERBS.split()} == {}


def test_a_local_name_says_what_it_holds():
    vague = {"found", "each", "told", "own", "said", "asked"}
    names = {
        f"{path.name}:{name.lineno} {name.id}"
        for path, name in nodes(ast.Name)
        if isinstance(name.ctx, ast.Store) and name.id in vague
    }
    assert names == set()
