"""A study of real containers with short trials, by the lab's own schedule: what the tests of faults interrupt.

short_study.py FOLDER IMAGE BLOCKS
"""

import sys
from pathlib import Path

from rustimg_lab import engine, matrix, store
from rustimg_lab.errors import LabError
from rustimg_lab.measure import serving, trials
from rustimg_lab.store import Observation

CELLS = matrix.grid(["scratch", "debian"], ["optimized"], ["system"])
METRIC = "exit_code"


def measure(treatment: trials.Treatment) -> list[Observation]:
    with serving.started(
        "program", treatment.image, command=["/bin/sh", "-c", "exit 0"], network_mode="none"
    ) as container:
        return [Observation(METRIC, container.wait(timeout=60)["StatusCode"])]


def main(folder: str, image: str, blocks: str) -> None:
    store.RUNS = Path(folder)
    treatments = [trials.Treatment(cell, image, cell.slug) for cell in CELLS]
    with store.open_run("short", {}) as run, engine.readable_errors():
        engine.remove_containers()
        try:
            plan = trials.Plan(int(blocks), seed=7)
            study = trials.plan_study("short", "startup", METRIC, {"warning": ""}, treatments, plan, run)
            trials.run_study(study, run, measure)
        finally:
            engine.remove_containers()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LabError as error:
        sys.exit(f"lab: {error}")
