"""What a build takes from cold: cargo compiles every crate again, in a fresh container of the builder.

The container's image is the builder stage of the cell's own Dockerfile with the downloaded crates in it, and its
command is that text's call of cargo. No network is there, no cache, and nothing compiled. What the text does with the
program afterwards (strip, UPX) is not in it.
"""

import os
import time
from collections.abc import Iterator

import docker.errors

from rustimg_lab import build, disk, engine
from rustimg_lab.errors import LabError
from rustimg_lab.host import cpus
from rustimg_lab.measure import serving, trials
from rustimg_lab.measure.trials import Lost, Treatment
from rustimg_lab.store import Observation, Run

KIND, CPU, WALL = "build", "cold_build_cpu_s", "cold_build_s"
DEADLINE_S = 4 * 3600  # after which a container ends by itself, whatever became of the lab


def studies(
    builders: list[Treatment], program: str, plan: trials.Plan, run: Run
) -> Iterator[tuple[trials.Study, trials.Measure]]:
    """The one study, with how a trial of it is measured. `builders` are what cells are built in, `program` what comes
    out. Raises PlanError when the plan does not fit."""
    parameters = {"program": program, "cpus": cpus(), "warning": ""}
    yield trials.plan_study(KIND, KIND, CPU, parameters, builders, plan, run), measure


def measure(treatment: Treatment) -> list[Observation]:
    """One trial: a fresh container builds the program on the lab's own CPUs; the CPU time of all that ran in it, and
    the time until it was done, in seconds.

    Raises Lost when cargo failed or the container is gone; LabError when the disk is full, or the engine tells no CPU
    time.
    """
    own_cpus, command = ",".join(map(str, sorted(os.sched_getaffinity(0)))), engine.command(treatment.image)
    options = {"command": ["sleep", str(DEADLINE_S)], "network_mode": "none", "cpuset_cpus": own_cpus}
    with serving.started("builder", treatment.image, **options) as container:
        before, begun = serving.cpu_ns(container), time.monotonic()
        try:
            code, said = container.exec_run(command)
        except docker.errors.APIError as error:
            raise Lost(f"cargo cannot be called: {error.explanation}") from None
        took = time.monotonic() - begun
        if code != 0:
            text = said.decode(errors="replace")
            if disk.is_full(text):
                raise disk.DiskFull(f"{treatment.name} could not be built", engine.data_folders(), disk.GRID_BYTES)
            raise Lost(f"cargo failed with exit code {code}: {build.first_error([text]) or 'it said nothing'}")
        after = serving.cpu_ns(container)
    if before is None or after is None:
        raise LabError(serving.NO_CPU_TIME)
    return [Observation(CPU, (after - before) / 1e9, "s"), Observation(WALL, took, "s")]
