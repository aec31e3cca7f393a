"""What the ladder costs: the CPU seconds of the whole machine against cargo's for the ladder's distinct binaries.

    .venv/bin/python benchmarks/ladder.py         # an hour and a half; leave the machine alone
    .venv/bin/python benchmarks/ladder.py table   # the lines of the committed results, as in the README

It is `./lab run --grid ladder --run ladder --blocks 0`: building, starting, pushing, measuring and the report. Base
images are made before the clock starts. Cargo's seconds are what `times` printed at the end of each cargo step; a step
that BuildKit had from before costs the machine nothing and counts for nothing. What was compiled is what cargo said it
was compiling, by target directory: a package that is there twice was compiled twice.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from grid import machine_cpu_s

from rustimg_lab import apps, bases, dockerfile, engine, host, matrix, store
from rustimg_lab.matrix import Cell
from rustimg_lab.paths import MYIP, ROOT, RUNS

RUN = "ladder"
RESULTS = Path(__file__).parent / "ladder.json"
LIMIT = 1.1
_CARGO_STEP_RUN = re.compile(r"^=> \[[^]]*\] RUN .* cargo build ", re.MULTILINE)
_COMPILING = re.compile(r"^ *Compiling (\S+ v\S+)", re.MULTILINE)


def main() -> int:
    if (RUNS / RUN).exists():
        raise SystemExit(f"there is a run '{RUN}': what it has built would not be built again; move it away")
    host.prepare(print)
    grid = matrix.usual("ladder")
    for name in (matrix.BUILDER, *grid.bases):
        bases.resolve(name, bases.Sources(), print, host.ca_bundle())
    wall, cpu = time.monotonic(), machine_cpu_s()
    subprocess.run([ROOT / "lab", "run", "--grid", "ladder", "--run", RUN, "--blocks", "0"], check=True)
    wall, cpu = time.monotonic() - wall, machine_cpu_s() - cpu

    rows = store.load(RUN)
    told = rows[rows["metric"] == "build_cpu_s"].set_index("cell")["value"]
    cells = {cell.slug: cell for cell in matrix.grid(grid.bases, grid.profiles, grid.allocators)}
    cargo_s, compiled = {}, Counter()
    for name, cell in cells.items():
        log = (RUNS / RUN / "logs" / f"{name}.log").read_text()
        if _CARGO_STEP_RUN.search(log):
            cargo_s[_directory(cell)] = float(told[name])
            compiled.update((_directory(cell), package) for package in _COMPILING.findall(log))
    results = {
        "commit": engine.run(["git", "rev-parse", "HEAD"], cwd=ROOT).strip(),
        "machine": host.machine(),
        "cells": len(cells),
        "cargo_steps": len({_directory(cell) for cell in cells.values()}),
        "cargo_steps_run": len(cargo_s),
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "cargo_cpu_s": round(sum(cargo_s.values()), 1),
        "compiled": sum(compiled.values()),
        "compiled_twice": sorted(f"{package} in {folder}" for (folder, package), n in compiled.items() if n > 1),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{table(results)}")
    return 0


def table(results: dict) -> str:
    """The results in a paragraph of Markdown."""
    twice = ", ".join(results["compiled_twice"]) or "none"
    ratio = results["cpu_s"] / results["cargo_cpu_s"]
    return (
        f"{results['cells']} cells of {results['cargo_steps']} cargo steps ({results['cargo_steps_run']} of them run "
        f"in this call) took {results['wall_s'] / 60:.0f} min and {results['cpu_s']:.0f} CPU s of the machine, "
        f"**{ratio:.2f}** times the {results['cargo_cpu_s']:.0f} CPU s that cargo had (at most {LIMIT}). Packages "
        f"compiled: {results['compiled']}; twice: {twice}.\n"
    )


def _directory(cell: Cell) -> str:
    return dockerfile.cache_id(cell, apps.load(MYIP))


if __name__ == "__main__":
    if sys.argv[1:2] == ["table"]:
        print(table(json.loads(RESULTS.read_text())), end="")
        sys.exit(0)
    sys.exit(main())
