"""A study of real containers with short trials, by the lab's own schedule: what the tests of faults interrupt.

short_study.py FOLDER IMAGE BLOCKS
"""

import sys
from pathlib import Path

from rustimg_lab.engine import client, containers
from rustimg_lab.errors import LabError
from rustimg_lab.measure import services, trials
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.plan import Plan, Treatment
from rustimg_lab.model import matrix
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

CELLS = matrix.grid(["scratch", "debian"], ["optimized"], ["system"])
METRIC = "exit_code"


def measure(treatment: Treatment) -> list[Observation]:
    with services.started(
        "program", treatment.image, command=["/bin/sh", "-c", "exit 0"], network_mode="none"
    ) as container:
        return [Observation(METRIC, container.wait(timeout=60)["StatusCode"])]


def main(folder: str, image: str, blocks: str) -> None:
    runs.RUNS = Path(folder)
    treatments = [Treatment(cell, image, cell.slug) for cell in CELLS]
    with runs.open_run("short", {}) as run, client.readable_errors():
        containers.remove_containers()
        try:
            plan = Plan(int(blocks), seed=7)
            study = StudyContext([treatments], plan, run).study("short", "startup", METRIC, {"warning": ""})
            trials.run_in_turns([(study, measure)], run)
        finally:
            containers.remove_containers()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LabError as error:
        sys.exit(f"lab: {error}")
