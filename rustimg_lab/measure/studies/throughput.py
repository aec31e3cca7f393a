"""Throughput in a closed loop: requests per second and CPU time of each, also by layout, or of program calls."""

from dataclasses import replace
from functools import partial
from itertools import groupby

from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.load import Load, ask, serve
from rustimg_lab.measure.plan import Measure, Studies, Study, Treatment
from rustimg_lab.measure.server import cpu_ns, cpu_row, settled_cpu_ns
from rustimg_lab.measure.studies import instructions, work
from rustimg_lab.model import metrics
from rustimg_lab.model.names import MARK
from rustimg_lab.model.studies import COUNTED, LAYOUTS
from rustimg_lab.store.rows import Observation

COUNTS = 2  # of instructions, per cell: the second shows that they repeat


def plan(context: StudyContext) -> Studies:
    """The studies of each workload, each with how a trial of it is measured: under wrk, those of each number of workers
    in turns; and instructions per request, which an allocator's settings would not change as they change the time.
    Raises PlanError when this machine has too few CPUs for the load, or the plan does not fit the cells or the run."""
    if context.loads[0].workload.work:
        yield from _of_work(context, "throughput")
        return
    plain = [each for each in context.built[0] if not each.setting]
    own = context.plan.baseline.partition(MARK)[0]  # where it is a cell with a setting, that cell
    counted = replace(context, plan=replace(context.plan, baseline=own))
    for workload, group in groupby(context.loads, key=lambda load: load.workload):
        loads = list(group)
        for load in loads:
            study, timed = _of_load(context, "throughput", load)
            yield replace(study, continues=load is not loads[-1]), timed

        name = workload.name
        parameters = {"workload": name, "workers": 1, "requests": [instructions.FEW, instructions.MANY], "warning": ""}
        about = f"instructions-{name}", COUNTED, metrics.INSTRUCTIONS_PER_REQUEST, parameters
        asked = {"workload": workload, "tools": context.tools}
        yield counted.study(*about, plain, blocks=COUNTS), partial(instructions.measure, **asked)


def plan_layouts(context: StudyContext) -> Studies:
    """Plan a study of each load whose blocks hold each cell in several orders of its functions, and how it is measured.
    The A/A control repeats the first layout of the baseline. Raises PlanError as `plan` does."""
    own = context.plan.baseline
    first = (each.name for each in context.built[0] if replace(each.cell, layout=0).slug == own)
    context = replace(context, plan=replace(context.plan, baseline=next(first, own)))
    if context.loads[0].workload.work:
        yield from _of_work(context, LAYOUTS)
        return
    for load in context.loads:
        yield _of_load(context, LAYOUTS, load)


def _of_work(context: StudyContext, kind: str) -> Studies:
    """The studies of a program's work, those of each number of threads in turns."""
    with work.given(context.loads[0].workload.work, context.built[0][0].image) as (options, about):
        for load in context.loads:
            parameters = load.parameters() | about
            study = context.study(f"{kind}-{load.name}", kind, metrics.CPU_US_PER_REQUEST, parameters)
            timed = partial(work.measure, load=load, tools=context.tools, options=options)
            yield replace(study, continues=load is not context.loads[-1]), timed


def _of_load(context: StudyContext, kind: str, load: Load) -> tuple[Study, Measure]:
    counts_cpu = context.holds("counts_cpu")
    metric = metrics.CPU_US_PER_REQUEST if counts_cpu else metrics.REQUESTS_PER_S
    study = context.study(f"{kind}-{load.name}", kind, metric, load.parameters())
    return study, partial(measure, load=load, tools=context.tools, counts_cpu=counts_cpu)


def measure(treatment: Treatment, load: Load, tools: str, counts_cpu: bool = True) -> list[Observation]:
    """One trial: fresh containers, warm-up, then `load.seconds` that count. `tools` is the image that wrk is in;
    `counts_cpu` whether the engine tells CPU time correctly. Raises Lost when anything went wrong."""
    with serve(treatment, load, tools) as server:
        _, warm = ask(server, load, load.warmup_s)
        before = settled_cpu_ns(server.container) if counts_cpu else None
        requests, per_s = ask(server, load, load.seconds)
        after = cpu_ns(server.container) if counts_cpu else None
    return [
        Observation(metrics.REQUESTS_PER_S, warm, is_warmup=True),
        Observation(metrics.REQUESTS_PER_S, per_s),
        Observation(metrics.REQUESTS, requests),
        Observation(metrics.BODY_BYTES, server.body_bytes),
        cpu_row(metrics.CPU_US_PER_REQUEST, before, after, 1e3 * requests),
    ]
