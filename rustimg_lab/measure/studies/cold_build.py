"""Cold builds: cargo compiles every crate in a fresh container of the builder.

The container's image is the builder stage of the cell's own Dockerfile with the downloaded crates in it, and its
command is that text's call of cargo. No network is there, no cache, and nothing compiled. What the text does with the
program afterwards (strip, UPX) is not in it.
"""

import time
from functools import partial

from rustimg_lab.build import diagnosis
from rustimg_lab.engine import client, images
from rustimg_lab.host import files
from rustimg_lab.measure import server, services
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.plan import FailedTrial, Studies, Treatment
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import COLD_BUILD
from rustimg_lab.store.rows import Observation

DEADLINE_S = 4 * 3600  # after which a container ends by itself, whatever became of the lab


def plan(context: StudyContext) -> Studies:
    """Yield the study, with the function that measures a trial. Raises PlanError when the baseline is unknown."""
    parameters = {"program": context.app.name, "cpus": len(client.engine_cpus()), "warning": ""}
    counts_cpu = context.holds("counts_cpu")
    metric = metrics.COLD_BUILD_CPU_S if counts_cpu else metrics.COLD_BUILD_S
    study = context.study(COLD_BUILD, COLD_BUILD, metric, parameters)
    yield study, partial(measure, counts_cpu=counts_cpu, pinned=context.holds("limits_cpus"))


def measure(treatment: Treatment, counts_cpu: bool = True, pinned: bool = True) -> list[Observation]:
    """Run one trial: build the program in a fresh container, on the lab's own CPUs alone if `pinned`. Returns rows in
    seconds: the CPU time of all that ran in the container, and the duration.

    The CPU time is absent, with the reason, when the engine does not report it correctly (`counts_cpu`). Raises
    FailedTrial when cargo failed or the container is gone, and DiskFull when the disk is full."""
    own_cpus, command = ",".join(map(str, client.engine_cpus() if pinned else [])), images.command(treatment.image)
    options = {"command": ["sleep", str(DEADLINE_S)], "network_mode": "none", "cpuset_cpus": own_cpus}
    with services.started("builder", treatment.image, **options) as container:
        before_ns, start_s = server.cpu_ns(container), time.monotonic()
        code, output = server.run_in(container, "cargo cannot be called", command)
        duration_s = time.monotonic() - start_s
        if code != 0:
            text = output.decode(errors="replace")
            if files.is_full(text):
                raise files.DiskFull(f"{treatment.name} could not be built", client.data_folders(), files.GRID_BYTES)
            raise FailedTrial(f"cargo failed with exit code {code}: {diagnosis.first_error([text]) or 'no output'}")
        after_ns = server.cpu_ns(container) if counts_cpu else None
    return [
        server.cpu_row(metrics.COLD_BUILD_CPU_S, before_ns, after_ns, 1e9),
        Observation(metrics.COLD_BUILD_S, duration_s),
    ]
