"""Commands for work on the lab itself: test, docs."""

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
from rustimg_lab.paths import INSTALLED, ROOT

PYTEST = (sys.executable, "-m", "pytest")


@command(click.Argument(["rest"], nargs=-1, metavar="[OPTIONS OF PYTEST]..."), **REST)
def test(options: SimpleNamespace) -> int:
    """Run ruff, import-linter and pytest, notebooks included.

    Other options go to pytest. --quick: fast tests alone, without an engine, on all CPUs; --faults: all tests of
    faults; --engines: the tests on every engine of docs/engines.md (root, an hour)."""
    from rustimg_lab.engine import doctor

    _refuse_installed()
    needed = ((doctor.prepare, "an engine"), (doctor.prepare_browser, "a browser"))
    for prepare, resource in () if "--quick" in options.rest else needed:
        try:
            prepare(output.say)
        except LabError as error:
            if os.environ.get("CI"):
                raise
            output.say(f"{error}; tests that need {resource} will be skipped")
    for line in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["lint-imports", "--no-cache"]):
        if code := subprocess.run([Path(sys.executable).with_name(line[0]), *line[1:]], cwd=ROOT).returncode:
            return code
    # A file's tests stay together: they may share a run.
    workers = ["--numprocesses=auto", "--dist=loadfile"] if "--quick" in options.rest else []
    return subprocess.run([*PYTEST, *workers, *options.rest], cwd=ROOT).returncode if options.rest else _all_tests()


def _all_tests() -> int:
    """Run the studies and other tests with an engine, which leave half of two CPUs idle, beside the builds and the
    tests without an engine. The output of the latter comes at the end."""
    durations = "--durations=30"
    arguments = [durations, "-m", "not engine or builds", "-o", "cache_dir=.pytest_cache/apart"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([*PYTEST, *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            tests = subprocess.run([*PYTEST, durations, "-m", "engine and not builds"], cwd=ROOT)
            codes = [tests.returncode, process.wait()]
        except BaseException:
            process.terminate()
            raise
        log.seek(0)
        sys.stdout.write(log.read().decode(errors="replace"))
    return max(codes, key=abs)


@command()
def docs(options: SimpleNamespace) -> int:
    """Write the tables and figures of README.md and docs/, and the list of modules."""
    _refuse_installed()
    return documents("-r")


def _refuse_installed() -> None:
    if INSTALLED:
        raise LabError("test and docs work on a checkout of the repository, and this lab was installed from a wheel")


def documents(*options: str) -> int:
    """Call cog, which puts the output of the functions of docs/figures.py between the marks of each document. Return
    its exit code. With the options `--check --diff` nothing is written, and 5 says that a document is not up to
    date."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    cog = [sys.executable, "-m", "cogapp", "-P", "-I", str(ROOT / "docs"), "-p", "from figures import *"]
    return subprocess.run([*cog, *options, *map(str, paths)], cwd=ROOT).returncode
