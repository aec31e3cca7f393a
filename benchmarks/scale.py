"""How far a scheduler and the rows of a run go: overhead per unit of work, and seconds and memory to load many rows.

    .venv/bin/python benchmarks/scale.py     # five minutes

The scheduler and its two workers are real, on this machine. Their work is replaced by a sleep of 1 ms, so what is left
of the wall time is what a unit of work costs beside the work: sending, waiting, and taking up the result. Rows are
those of a recorded run, repeated with other block numbers. The page is of a run with many cells: the sizes of
`recorded/ladder`, repeated under other profiles. Writes scale.json.
"""

import itertools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rustimg_lab.model import profiles
from rustimg_lab.paths import RECORDED, REPORTS, ROOT
from rustimg_lab.pipeline import cluster
from rustimg_lab.pipeline.cluster import Unit
from rustimg_lab.report import publish

UNITS = (10, 100, 1_000, 10_000)
ROWS = (100_000, 1_000_000)
WORK_S, WORKERS = 0.001, ("alpha", "beta")
CELLS = 1_000
LIMIT_MS, LIMIT_S, LIMIT_MB = 20, 2.0, 10
RESULTS, FIELDS = Path(__file__).with_name("scale.json"), ("what", "count", "value", "unit")


def main() -> int:
    found = [*overheads(), *loads(), *pages()]
    RESULTS.write_text(json.dumps([dict(zip(FIELDS, each, strict=True)) for each in found], indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())))
    values = {(what, count): value for what, count, value, _ in found}
    slow = values["overhead per unit", UNITS[-1]] > LIMIT_MS or values["load rows", ROWS[0]] > LIMIT_S
    return int(slow or values["page of cells", CELLS] > LIMIT_MB)


def overheads() -> list[tuple[str, int, float, str]]:
    """Milliseconds that a unit of work takes beside the work, of one worker that is never idle."""
    sys.path.append(str(ROOT / "tests"))
    from support import dask
    from support.lab import wait_for

    with tempfile.TemporaryDirectory() as folder:
        log, told = Path(folder) / "log", str(Path(folder) / "told")
        with (
            dask.scheduler(log) as address,
            dask.worker(address, WORKERS[0], log),
            dask.worker(address, WORKERS[1], log),
            cluster.connected(address, insecure=False) as client,
        ):
            assert wait_for(lambda: len(cluster.workers(client)) == len(WORKERS), 60)
            found = []
            for count in UNITS:
                begun = time.perf_counter()
                failures = cluster.perform_all(
                    client, [Unit((str(number),)) for number in range(count)], dask.told,
                    lambda unit, name: (told, str(WORK_S)), lambda unit, name, outcome: "", set(WORKERS),
                )  # fmt: skip
                assert not failures
                wall_s = time.perf_counter() - begun
                found.append(("overhead per unit", count, 1000 * (wall_s / count - WORK_S / len(WORKERS)), "ms"))
    return found


def loads() -> list[tuple[str, int, float, str]]:
    """Seconds to load a run of so many rows, and the memory of the process that did."""
    lines = (RECORDED / "allocators" / "rows.jsonl").read_text().splitlines()
    code = "import time; from rustimg_lab.store import runs; b = time.perf_counter(); "
    code += "n = len(runs.load('benchmark-scale', whole=True).rows); print(n, time.perf_counter() - b)"
    run, found = ROOT / "data" / "runs" / "benchmark-scale", []
    run.mkdir(parents=True)
    try:
        (run / "environment.json").write_bytes((RECORDED / "allocators" / "environment.json").read_bytes())
        for count in ROWS:
            with (run / "rows.jsonl").open("w") as file:
                file.writelines(f"{lines[number % len(lines)]}\n" for number in range(count))
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
            number, seconds = said.split()
            assert int(number) == count
            peak = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, before)
            found += [("load rows", count, float(seconds), "s"), ("memory of that", count, peak / 1e6, "GB")]
    finally:
        (run / "rows.jsonl").unlink(missing_ok=True)
        (run / "environment.json").unlink(missing_ok=True)
        run.rmdir()
    return found


def pages() -> list[tuple[str, int, float, str]]:
    """The size of the page of a run of so many cells."""
    rows = [json.loads(line) for line in (RECORDED / "ladder" / "rows.jsonl").read_text().splitlines()]
    cells, run = list(dict.fromkeys(row["cell"] for row in rows)), ROOT / "data" / "runs" / "benchmark-scale"
    joined = [f"+{one}+{other}" for one, other in itertools.combinations(profiles.all_profiles(), 2)]
    names = [(cell, more) for more in ["", *joined] for cell in cells][:CELLS]
    of_cell = {cell: [row for row in rows if row["cell"] == cell] for cell in cells}
    run.mkdir(parents=True)
    try:
        (run / "environment.json").write_bytes((RECORDED / "ladder" / "environment.json").read_bytes())
        with (run / "rows.jsonl").open("w") as file:
            for cell, more in names:
                for row in of_cell[cell]:
                    profile, slug = row["profile"] + more, row["profile"].replace("+", "_")
                    name = cell.replace(f"-{slug}-", f"-{profile.replace('+', '_')}-", 1)
                    file.write(json.dumps(row | {"profile": profile, "cell": name}) + "\n")
        page = publish.write_page(run.name, "html", print)
        return [("page of cells", CELLS, page.stat().st_size / 1e6, "MB")]
    finally:
        shutil.rmtree(run)
        shutil.rmtree(REPORTS / run.name, ignore_errors=True)


def table(results: list[dict]) -> str:
    """A row for each figure."""
    lines = ["| what | count | measured |", "| --- | ---: | ---: |"]
    return "\n".join([*lines, *(f"| {e['what']} | {e['count']:,} | {e['value']:,.3g} {e['unit']} |" for e in results)])


if __name__ == "__main__":
    sys.exit(main())
