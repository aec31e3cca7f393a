"""What a build takes from cold: cargo compiles every crate again, in a fresh container of the builder.

The container's image is the builder stage of the cell's own Dockerfile with the downloaded crates in it, and its
command is that text's call of cargo. No network is there, no cache, and nothing compiled.
"""

import time
from collections.abc import Iterator

import docker.errors
import requests

from rustimg_lab import build, engine
from rustimg_lab.host import cpus
from rustimg_lab.measure import serving, trials
from rustimg_lab.measure.trials import Lost, Treatment
from rustimg_lab.store import Observation, Run

KIND, CPU, WALL = "build", "cold_build_cpu_s", "cold_build_s"
DEADLINE_S = 3600


def studies(
    builders: list[Treatment], program: str, plan: trials.Plan, run: Run
) -> Iterator[tuple[trials.Study, trials.Measure]]:
    """The one study, with how a trial of it is measured. `builders` are what cells are built in, `program` what comes
    out. Raises PlanError when the plan does not fit."""
    parameters = {"program": program, "cpus": cpus(), "warning": ""}
    yield trials.plan_study(KIND, KIND, CPU, parameters, builders, plan, run), measure


def measure(treatment: Treatment) -> list[Observation]:
    """One trial: a fresh container builds the program; CPU time of all that ran in it, and the time until it was done.

    Raises Lost when cargo failed.
    """
    options = {"command": ["sleep", str(DEADLINE_S)], "network_mode": "none"}
    with serving.started("builder", treatment.image, **options) as container:
        before, begun = serving.cpu_ns(container), time.monotonic()
        try:
            code, said = container.exec_run(engine.command(treatment.image))
        except docker.errors.APIError as error:
            raise Lost(f"the builder is gone: {error.explanation}") from None
        except requests.exceptions.ReadTimeout:
            raise Lost(f"cargo said nothing for {engine.TIMEOUT_S} s") from None
        took, after = time.monotonic() - begun, serving.cpu_ns(container)
    if code:
        told = build.first_error([said.decode(errors="replace")]) or "it said nothing"
        raise Lost(f"cargo failed with exit code {code}: {told}")
    if before is None or after is None:
        cpu = Observation(CPU, None, "s", ok=False, reason=serving.NO_CPU_TIME)
    else:
        cpu = Observation(CPU, (after - before) / 1e9, "s")
    return [cpu, Observation(WALL, took, "s")]
