"""The command that runs the tests."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rustimg_lab.engine import doctor
from rustimg_lab.errors import LabError
from rustimg_lab.paths import ROOT

PYTEST = (sys.executable, "-m", "pytest")


def test(options: argparse.Namespace) -> int:
    for prepare, what in ((doctor.prepare, "an engine"), (doctor.prepare_browser, "a browser")):
        try:
            prepare(lambda text: print(f"lab: {text}"))
        except LabError as error:
            if os.environ.get("CI"):
                raise
            print(f"lab: {error}; tests that need {what} will be skipped")
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["lint-imports", "--no-cache"]):
        if code := subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], cwd=ROOT).returncode:
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
