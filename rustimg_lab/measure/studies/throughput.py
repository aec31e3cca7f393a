"""How many requests a server answers, and what CPU time each costs it, in a closed loop (see `measure/load.py`)."""

from dataclasses import replace
from functools import partial

from rustimg_lab.engine import capabilities
from rustimg_lab.measure.load import Load, ask, serve
from rustimg_lab.measure.plan import Plan, Studies, Treatment, plan_study
from rustimg_lab.measure.server import cpu_ns, cpu_row
from rustimg_lab.measure.studies import instructions
from rustimg_lab.store.rows import Observation
from rustimg_lab.store.runs import Run

CPU_PER_REQUEST = "cpu_us_per_request"
REQUESTS_PER_S = "requests_per_s"
COUNTS = 2  # of instructions, per cell: the second shows that they repeat


def studies(load: Load, treatments: list[Treatment], plan: Plan, run: Run, tools: str) -> Studies:
    """The two studies of a load, each with how a trial of it is measured: under wrk, and instructions per request.

    `tools` is the image that wrk and valgrind are in. Raises PlanError when this machine has too few CPUs for the load,
    or the plan does not fit the cells or the run.
    """
    planned = partial(plan_study, treatments=treatments, run=run)
    counts_cpu = capabilities.holds(run.environment, "counts_cpu")
    metric = CPU_PER_REQUEST if counts_cpu else REQUESTS_PER_S
    study = planned(f"throughput-{load.name}", "throughput", metric, load.parameters(run), plan=plan)
    yield study, partial(measure, load=load, tools=tools, counts_cpu=counts_cpu)

    name, counted = load.workload.name, replace(plan, blocks=COUNTS, width=None)
    parameters = {"workload": name, "workers": 1, "requests": [instructions.FEW, instructions.MANY], "warning": ""}
    study = planned(f"instructions-{name}", "instructions", instructions.INSTRUCTIONS, parameters, plan=counted)
    yield study, partial(instructions.measure, workload=load.workload, tools=tools)


def measure(treatment: Treatment, load: Load, tools: str, counts_cpu: bool = True) -> list[Observation]:
    """One trial: fresh containers, warm-up, then `load.seconds` that count. `tools` is the image that wrk is in;
    `counts_cpu` whether the engine tells CPU time correctly.

    Raises Lost when anything went wrong.
    """
    with serve(treatment.image, load, tools) as server:
        _, warm = ask(server, load, load.warmup_s)
        before = cpu_ns(server.container)
        requests, per_s = ask(server, load, load.seconds)
        after = cpu_ns(server.container) if counts_cpu else None
    return [
        Observation(REQUESTS_PER_S, warm, "1/s", is_warmup=True),
        Observation(REQUESTS_PER_S, per_s, "1/s"),
        Observation("requests", requests),
        cpu_row(CPU_PER_REQUEST, "us", before, after, 1e3 * requests),
    ]
