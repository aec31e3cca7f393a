"""What the ladder costs beside cargo, and whether anything is compiled twice, by the engine's log.

    ./lab run --grid ladder --run ladder --blocks 0   # from cold: an hour or more
    .venv/bin/python benchmarks/ladder.py ladder      # five minutes; leave the machine alone
    .venv/bin/python benchmarks/ladder.py table       # the lines of the committed results, as in docs/results.md

Cargo's CPU seconds are what `times` printed at the end of each cargo step of that run. What was compiled is what cargo
said it was compiling, by target directory: a package that is there twice was compiled twice. What the lab costs beside
cargo is the whole machine's busy time (as in grid.py) while the same cells are built, started, pushed, measured and
reported in a run of their own, with every cargo step in the engine's layer cache, and with them the steps behind it
(strip, UPX, nm).
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from grid import machine_cpu_s

from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.engine import client
from rustimg_lab.host import process
from rustimg_lab.model import matrix
from rustimg_lab.model.matrix import Cell
from rustimg_lab.paths import MYIP, REPORTS, ROOT, RUNS
from rustimg_lab.store import runs

AGAIN = "benchmark-ladder"
RESULTS = Path(__file__).parent / "ladder.json"
LIMIT = 1.1
_CARGO_STEP_RUN = re.compile(r"^=> \[[^]]*\] RUN .* cargo build ", re.MULTILINE)
_COMPILING = re.compile(r"^ *Compiling (\S+ v\S+)", re.MULTILINE)


def main(run: str) -> int:
    rows = runs.newest_rows(runs.load(run))
    told = rows[rows["metric"] == "build_cpu_s"].set_index("cell")["value"].astype(float)
    grid = matrix.usual_grid("ladder")
    cells = {cell.slug: cell for cell in matrix.grid(grid.bases, grid.profiles, grid.allocators)}
    if missing := [name for name in cells if name not in told.index]:
        raise SystemExit(f"run '{run}' lacks {', '.join(missing)}: ./lab run --grid ladder --run {run} --blocks 0")
    steps, compiled = Counter(), Counter()
    for name, cell in {cell.binary: (name, cell) for name, cell in cells.items()}.values():  # one log for all its cells
        log = (RUNS / run / "logs" / f"{name}.log").read_text()
        steps[_directory(cell)] += bool(_CARGO_STEP_RUN.search(log))
        compiled.update((_directory(cell), package) for package in _COMPILING.findall(log))
    cargo_s = {_directory(cell): told[name] for name, cell in cells.items()}

    _forget()
    wall, cpu = time.monotonic(), machine_cpu_s()
    try:
        subprocess.run([ROOT / "lab", "run", "--grid", "ladder", "--run", AGAIN, "--blocks", "0"], check=True)
        wall, cpu = time.monotonic() - wall, machine_cpu_s() - cpu
        logs = [path.read_text() for path in (RUNS / AGAIN / "logs").iterdir()]
    finally:
        _forget()
    if any(map(_CARGO_STEP_RUN.search, logs)):
        raise SystemExit("a cargo step was not in the engine's layer cache: the run is not the newest of these cells")
    results = {
        "commit": process.run(["git", "rev-parse", "HEAD"], cwd=ROOT).strip(),
        "machine": client.machine(),
        "cells": len(cells),
        "cargo_steps": len(cargo_s),
        "cargo_steps_run": sum(steps.values()),
        "cargo_cpu_s": round(sum(cargo_s.values()), 1),
        "compiled": sum(compiled.values()),
        "compiled_twice": sorted(f"{package} in {folder}" for (folder, package), n in compiled.items() if n > 1),
        "beside_cargo_wall_s": round(wall, 1),
        "beside_cargo_cpu_s": round(cpu, 1),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{table(results)}")
    return 0


def table(results: dict) -> str:
    """The results in a paragraph of Markdown."""
    cargo, beside = results["cargo_cpu_s"], results["beside_cargo_cpu_s"]
    return (
        f"{results['cells']} cells need {results['cargo_steps']} different cargo steps; {results['cargo_steps_run']} "
        f"were run, compiled {results['compiled']} packages, {len(results['compiled_twice'])} of them twice, and took "
        f"{cargo:.0f} CPU s. Making, starting, pushing and measuring the images, the report included, took "
        f"{beside:.0f} CPU s more, strip, UPX and nm apart: **{(cargo + beside) / cargo:.2f}** times cargo's in all "
        f"(at most {LIMIT}).\n"
    )


def _forget() -> None:
    for folder in (RUNS / AGAIN, REPORTS / AGAIN):
        shutil.rmtree(folder, ignore_errors=True)


def _directory(cell: Cell) -> str:
    return dockerfile.cache_id(cell, lab_toml.load(MYIP))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "table":
        print(table(json.loads(RESULTS.read_text())), end="")
        sys.exit(0)
    sys.exit(main(sys.argv[1]))
