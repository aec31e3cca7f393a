"""Commands for work on the lab itself: test, docs."""

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import click

from rustimg_lab.cli import output
from rustimg_lab.cli.options import REST, command
from rustimg_lab.errors import LabError
from rustimg_lab.paths import PACKAGE, ROOT

PYTEST = (sys.executable, "-m", "pytest")
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: written by ./lab docs -->\n", "<!-- /modules -->\n"


@command(click.Argument(["rest"], nargs=-1, metavar="[OPTIONS OF PYTEST]..."), **REST)
def test(options: SimpleNamespace) -> int:
    """Run ruff, import-linter and pytest, notebooks included.

    Other options go to pytest. --faults: all tests of faults; --engines: the tests on every engine of docs/engines.md
    (root, 40 minutes)."""
    from rustimg_lab.engine import doctor

    for prepare, what in ((doctor.prepare, "an engine"), (doctor.prepare_browser, "a browser")):
        try:
            prepare(output.say)
        except LabError as error:
            if os.environ.get("CI"):
                raise
            output.say(f"{error}; tests that need {what} will be skipped")
    for line in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["lint-imports", "--no-cache"]):
        if code := subprocess.run([Path(sys.executable).with_name(line[0]), *line[1:]], cwd=ROOT).returncode:
            return code
    return subprocess.run([*PYTEST, *options.rest], cwd=ROOT).returncode if options.rest else _all_tests()


def _all_tests() -> int:
    """The studies and what else needs an engine, which leave half of two CPUs idle, beside the builds and what needs no
    engine; what the latter print comes at the end."""
    slowest = "--durations=30"
    apart = [slowest, "-m", "not engine or builds", "-o", "cache_dir=.pytest_cache/apart"]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen([*PYTEST, *apart], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT) as others,
    ):
        try:
            tests = subprocess.run([*PYTEST, slowest, "-m", "engine and not builds"], cwd=ROOT)
            codes = [tests.returncode, others.wait()]
        except BaseException:
            others.terminate()
            raise
        said.seek(0)
        sys.stdout.write(said.read().decode(errors="replace"))
    return max(codes, key=abs)


@command()
def docs(options: SimpleNamespace) -> int:
    """Write the list of modules in docs/architecture.md."""
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
