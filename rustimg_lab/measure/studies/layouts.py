"""Code layout: the throughput of each cell in several orders of its functions, all of them in the same blocks."""

from dataclasses import replace
from functools import partial

from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.plan import Studies
from rustimg_lab.measure.studies import throughput
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import LAYOUTS


def plan(context: StudyContext) -> Studies:
    """Plan a study of each load, with how a trial of it is measured: as throughput is. The baseline is a cell; its
    first layout is the one that the A/A control repeats. Raises PlanError as `throughput.plan` does."""
    own = context.plan.baseline
    first = (each.name for each in context.built[0] if replace(each.cell, layout=0).slug == own)
    context = replace(context, plan=replace(context.plan, baseline=next(first, own)))
    counts_cpu = context.holds("counts_cpu")
    metric = metrics.CPU_US_PER_REQUEST if counts_cpu else metrics.REQUESTS_PER_S
    for load in context.loads:
        study = context.study(f"{LAYOUTS}-{load.name}", LAYOUTS, metric, load.parameters(context.run))
        yield study, partial(throughput.measure, load=load, tools=context.tools, counts_cpu=counts_cpu)
