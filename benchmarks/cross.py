"""What compiling for arm64 costs on an x86_64 machine: CPU time of cargo for the binaries of the article's grid.

    .venv/bin/python benchmarks/cross.py     # twenty minutes; leave the machine alone

Each binary of the grid is compiled twice, for amd64 and for arm64, one after the other and from cold: the lockfile is
one that no build has seen, so no target directory serves. Downloads are there. CPU is user and system time of cargo
and all that it started, as the build step's `times` tells. Writes cross.json. Exits with 1 where arm64 takes more than
1.15 times the CPU time of amd64.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import grid

from rustimg_lab.build import bake, bases
from rustimg_lab.engine import client, doctor
from rustimg_lab.host import machine
from rustimg_lab.model import matrix
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import BUILDER

RESULTS = Path(__file__).with_name("cross.json")
LIMIT = 1.15


def main() -> int:
    doctor.prepare(print)
    one_each = list({cell.binary: cell for cell in grid.CELLS}.values())
    found = [{"binary": cell.binary.slug} | _cpu_s(cell) for cell in one_each]
    RESULTS.write_text(
        json.dumps({"machine": client.machine(), "lab": machine.lab_version(), "cpu_s": found}, indent=1) + "\n"
    )
    print(table(json.loads(RESULTS.read_text())))
    return int(any(each["arm64"] > LIMIT * each["amd64"] for each in found))


def _cpu_s(cell: matrix.Cell) -> dict[str, float]:
    """CPU seconds of cargo by architecture, each from cold."""
    found = {}
    for architecture in (NATIVE, next(each for each in Architecture if each is not NATIVE)):
        own = replace(cell, architecture=architecture)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            (work / "logs").mkdir()
            app, ca = grid.unseen_sources(work / "app"), machine.ca_bundle()
            context = bake.BuildContext(app, images(reversed(own.images)), work / "logs", work / "work", ca=ca)
            (built,) = bake.build([own], context)
        if built.reason:
            raise SystemExit(f"{own}: {built.reason}")
        print(f"{own} for {architecture.debian}: {built.cpu_s:.0f} s of CPU")
        found[architecture.debian] = built.cpu_s
    return found


def images(names: Iterable[str]) -> dict[str, bases.Provenance]:
    """Images by name, as a cell names its own, and the builder for this machine, on which that for another stands."""
    ca = machine.ca_bundle()
    found = {BUILDER: bases.resolve(BUILDER, bases.Sources(), print, ca)}
    for name in names:
        base = name.partition("-")[0]
        if base == BUILDER and name != BUILDER:
            found[name] = bases.cross_builder(found[BUILDER], name, print, ca)
        elif name not in found and (image := bases.resolve(name, bases.Sources(), print, ca)):
            found[name] = image
    return found


def table(results: dict) -> str:
    """A row for each binary: CPU seconds for both architectures, and their ratio."""
    lines = ["| binary | amd64, CPU s | arm64, CPU s | arm64 / amd64 |", "| --- | ---: | ---: | ---: |"]
    for each in results["cpu_s"]:
        ratio = each["arm64"] / each["amd64"]
        lines.append(f"| {each['binary']} | {each['amd64']:.0f} | {each['arm64']:.0f} | {ratio:.2f}x |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
