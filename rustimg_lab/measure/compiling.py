"""What a build takes from cold: cargo compiles every crate again, in a fresh container of the builder.

The container's image is the builder stage of the cell's own Dockerfile with the downloaded crates in it, and its
command is that text's call of cargo. No network is there, no cache, and nothing compiled. What the text does with the
program afterwards (strip, UPX) is not in it.
"""

import time
from functools import partial

from rustimg_lab import build, capabilities, disk, engine, host
from rustimg_lab.measure import serving, trials
from rustimg_lab.measure.trials import Lost, Treatment
from rustimg_lab.store import Observation, Run

KIND = "build"
CPU, WALL = "cold_build_cpu_s", "cold_build_s"
DEADLINE_S = 4 * 3600  # after which a container ends by itself, whatever became of the lab


def studies(builders: list[Treatment], program: str, plan: trials.Plan, run: Run) -> trials.Studies:
    """The one study, with how a trial of it is measured. `builders` are what cells are built in, `program` what comes
    out. Raises PlanError when the plan does not fit."""
    parameters = {"program": program, "cpus": len(host.engine_cpus()), "warning": ""}
    counts_cpu = capabilities.holds(run.environment, "counts_cpu")
    study = trials.plan_study(KIND, KIND, CPU if counts_cpu else WALL, parameters, builders, plan, run)
    yield study, partial(measure, counts_cpu=counts_cpu)


def measure(treatment: Treatment, counts_cpu: bool = True) -> list[Observation]:
    """One trial: a fresh container builds the program on the lab's own CPUs; the CPU time of all that ran in it, and
    the time until it was done, in seconds.

    The CPU time is absent, with the reason, where the engine does not tell it correctly. Raises Lost when cargo failed
    or the container is gone; DiskFull when the disk is full.
    """
    own_cpus, command = ",".join(map(str, host.engine_cpus())), engine.command(treatment.image)
    options = {"command": ["sleep", str(DEADLINE_S)], "network_mode": "none", "cpuset_cpus": own_cpus}
    with serving.started("builder", treatment.image, **options) as container:
        before, begun = serving.cpu_ns(container), time.monotonic()
        code, said = serving.run_in(container, "cargo cannot be called", command)
        took = time.monotonic() - begun
        if code != 0:
            text = said.decode(errors="replace")
            if disk.is_full(text):
                raise disk.DiskFull(f"{treatment.name} could not be built", engine.data_folders(), disk.GRID_BYTES)
            raise Lost(f"cargo failed with exit code {code}: {build.first_error([text]) or 'it said nothing'}")
        after = serving.cpu_ns(container) if counts_cpu else None
    return [serving.cpu_row(CPU, "s", before, after, 1e9), Observation(WALL, took, "s")]
