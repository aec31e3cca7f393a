"""The command that writes the list of modules in docs/architecture.md."""

import argparse
import ast

from rustimg_lab.paths import PACKAGE, ROOT

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: written by ./lab docs -->\n", "<!-- /modules -->\n"


def docs(options: argparse.Namespace) -> int:
    PAGE.write_text(page())
    return 0


def page() -> str:
    """Return the text of the page, with the list of modules as the code has them now."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + _modules() + END + rest.partition(END)[2]


def _modules() -> str:
    """A table: each module with the first sentence of its docstring, a sub-package before what is in it."""
    lines = ["| module | what it does |", "| --- | --- |"]
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name)):
        if path == PACKAGE / "__init__.py":
            continue
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = " ".join(said.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".").replace("|", "\\|")
        lines.append(f"| {f'**`{name}`**' if path.name == '__init__.py' else f'`{name}`'} | {first} |")
    return "\n".join(lines) + "\n"
