"""What a user reads of the package has plain words: helps, messages, Dockerfiles and data. `test_docs.py` checks the
documents, and `report/test_page.py` the page."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support.plain_words import not_plain

from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.cli.main import MODULES, lab
from rustimg_lab.model import bases, extras, matrix, profiles
from rustimg_lab.paths import BASES, MYIP, PACKAGE, PROBES_FILE, PROFILES

SOURCES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
TEMPLATES = sorted([*PACKAGE.rglob("*.j2"), *PACKAGE.rglob("templates/*.toml"), BASES, PROBES_FILE, PROFILES])
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def _docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            yield node.body[0].value


def _messages(tree: ast.AST) -> Iterator[str]:
    """The texts of a module that have a space; without one it may be the name of a column or an option."""
    documented = {id(each) for each in _docstrings(tree)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
        if is_text and re.search(r"\s", node.value):
            yield node.value


@pytest.mark.parametrize("name", ["", *MODULES])
def test_the_help_of_a_command(name):
    top = click.Context(lab, info_name="./lab", max_content_width=120)
    command = lab.get_command(top, name) if name else lab
    text = command.get_help(click.Context(command, info_name=name, parent=top) if name else top)
    assert "Usage: ./lab" in text and not_plain(text, names=True) == []


@pytest.mark.parametrize("name", SOURCES)
def test_the_texts_of_a_module(name):
    texts = _messages(ast.parse(SOURCES[name].read_text()))
    assert [found for text in texts for found in not_plain(text, names=True)] == []


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith(("__init__", "widgets/"))])
def test_the_docstrings_that_a_notebook_shows(name):
    texts = [each.value for each in _docstrings(ast.parse(SOURCES[name].read_text()))]
    assert [found for text in texts for found in not_plain(text, names=True)] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_lines_of_data_and_templates(path: Path):
    lines = [re.sub(r"^(#   )?\w+ ", "", line) for line in path.read_text().splitlines()]  # without their keys
    assert lines and [found for line in lines for found in not_plain(line, names=True)] == []


def test_the_comments_of_dockerfiles():
    app = lab_toml.load(MYIP)
    cells = [matrix.cell(base, "optimized", "jemalloc") for base in bases.all_bases()]
    cells += [
        matrix.cell("scratch", name, "system", additions=(*extras.ADDITIONS,)) for name in profiles.all_profiles()
    ]
    comments = {line for cell in cells for line in dockerfile.render(cell, app).splitlines() if line.startswith("#")}
    assert len(comments) > 20 and [found for line in comments for found in not_plain(line, names=True)] == []


def test_the_check_of_words_finds_them_and_lets_names_pass():
    assert len(not_plain("A twin hangs on the share of it the app's transfer, PICKED.")) == 6
    assert not_plain("no difference detectable, `twin`, shared, asking") == []
    named = "--knobs strip, transfer=1, unit-1"
    assert len(not_plain(named)) == 3 and not_plain(named, names=True) == []
