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
    """Yield the studies of each workload, with the function that measures a trial. Studies of throughput take turns
    over the numbers of workers. The study of instructions per request leaves out allocators' settings. Raises PlanError
    when this machine has too few CPUs for a load, or the baseline is unknown."""
    if context.loads[0].workload.work:
        yield from _work_studies(context, "throughput")
        return
    treatments = [treatment for treatment in context.built[0] if not treatment.setting]
    baseline = context.plan.baseline.partition(MARK)[0]  # where it is a cell with a setting, that cell
    counted_context = replace(context, plan=replace(context.plan, baseline=baseline))
    for workload, group in groupby(context.loads, key=lambda load: load.workload):
        loads = list(group)
        for load in loads:
            study, trial = _load_study(context, "throughput", load)
            yield replace(study, continues=load is not loads[-1]), trial

        name = workload.name
        parameters = {"workload": name, "workers": 1, "requests": [instructions.FEW, instructions.MANY], "warning": ""}
        arguments = f"instructions-{name}", COUNTED, metrics.INSTRUCTIONS_PER_REQUEST, parameters
        options = {"workload": workload, "tools": context.tools}
        yield counted_context.study(*arguments, treatments, blocks=COUNTS), partial(instructions.measure, **options)


def plan_layouts(context: StudyContext) -> Studies:
    """Yield a study of each load whose blocks have each cell in several orders of its functions, with the function that
    measures a trial. The baseline is a cell; its first layout is the one that the A/A control repeats. Raises PlanError
    as `plan` does."""
    baseline = context.plan.baseline
    names = (treatment.name for treatment in context.built[0] if replace(treatment.cell, layout=0).slug == baseline)
    context = replace(context, plan=replace(context.plan, baseline=next(names, baseline)))
    if context.loads[0].workload.work:
        yield from _work_studies(context, LAYOUTS)
        return
    for load in context.loads:
        yield _load_study(context, LAYOUTS, load)


def _work_studies(context: StudyContext, kind: str) -> Studies:
    """The studies of a program's work, those of each number of threads in turns."""
    with work.mount_input(context.loads[0].workload.work, context.built[0][0].image) as (options, details):
        for load in context.loads:
            parameters = load.parameters() | details
            study = context.study(f"{kind}-{load.name}", kind, metrics.CPU_US_PER_REQUEST, parameters)
            trial = partial(work.measure, load=load, tools=context.tools, options=options)
            yield replace(study, continues=load is not context.loads[-1]), trial


def _load_study(context: StudyContext, kind: str, load: Load) -> tuple[Study, Measure]:
    counts_cpu = context.holds("counts_cpu")
    metric = metrics.CPU_US_PER_REQUEST if counts_cpu else metrics.REQUESTS_PER_S
    study = context.study(f"{kind}-{load.name}", kind, metric, load.parameters())
    return study, partial(measure, load=load, tools=context.tools, counts_cpu=counts_cpu)


def measure(treatment: Treatment, load: Load, tools: str, counts_cpu: bool = True) -> list[Observation]:
    """Run one trial in fresh containers: a warm-up, then `load.seconds` that count. Returns rows of requests per second
    and of CPU time per request in microseconds, without a value if not `counts_cpu`. `tools` is the benchmark tools
    image. Raises FailedTrial when anything fails."""
    with serve(treatment, load, tools) as server:
        _, warmup_rate = ask(server, load, load.warmup_s)
        before_ns = settled_cpu_ns(server.container) if counts_cpu else None
        requests, per_s = ask(server, load, load.seconds)
        after_ns = cpu_ns(server.container) if counts_cpu else None
    return [
        Observation(metrics.REQUESTS_PER_S, warmup_rate, is_warmup=True),
        Observation(metrics.REQUESTS_PER_S, per_s),
        Observation(metrics.REQUESTS, requests),
        Observation(metrics.BODY_BYTES, server.body_bytes),
        cpu_row(metrics.CPU_US_PER_REQUEST, before_ns, after_ns, 1e3 * requests),
    ]
