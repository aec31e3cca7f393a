"""Studies of a run: the images of their cells are built, then each study is run to its end."""

from contextlib import closing
from itertools import product
from typing import Any

from rustimg_lab.analysis import comparison
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials, workloads
from rustimg_lab.measure.load import uses_oha
from rustimg_lab.measure.plan import Study, Treatment
from rustimg_lab.model import metrics
from rustimg_lab.model.app import App
from rustimg_lab.model.matrix import Cell
from rustimg_lab.model.studies import Kind
from rustimg_lab.pipeline import progress
from rustimg_lab.pipeline.planner import Planner, refuse_foreign
from rustimg_lab.pipeline.session import Batch, Request, Session, build_treatments, make_tools, open_session
from rustimg_lab.store import runs
from rustimg_lab.store.runs import Run

LONGEST = 100  # of a line, in letters
MINIMUM_BLOCKS = 5  # before the width of an interval may end a study


def run_studies(request: Request, cells: list[Cell], apps: list[App], plan: Planner | None, kind: Kind) -> list[str]:
    """Build the cells of each app, run the studies of them, and return a line on all that failed. `plan` gets each
    app's images as treatments, the run, and the image of the tools that `kind` names; without a plan nothing is
    measured. In a study of builds the images are those that the cells are built in. Trials that the run has are not
    repeated. Raises LabError as `run_grid` does, and when the run has such a study with another plan."""
    failures: list[str] = []
    refuse_foreign(cells)
    with open_session(request, cells, bool(kind.tools)) as session:
        runs.refuse_mixed(session.run, cells)
        batches = [Batch(cells, app, app.name, kind.measures_builds) for app in apps]
        run_planned(batches, session, plan, failures, kind.tools)
    return failures


def run_planned(
    batches: list[Batch], session: Session, plan: Planner | None, failures: list[str], tools_name: str = "tools"
) -> None:
    """Build the cells of each app, run the studies, and add a line to `failures` on all that failed. Raises LabError
    when no cell of the first app works."""
    built, failed = [], []
    for batch in batches:
        treatments, build_messages = build_treatments(batch, session, study=batch.app.name)
        working_treatments, messages = _working_treatments(treatments, session)
        built.append(working_treatments)
        failed += [*build_messages, *messages]
    if not built[0]:
        raise LabError(f"none of the cells works, so there is nothing to measure; {failed[0]}")
    failures += failed
    if plan:
        run_built(built, batches[0].app, session, plan, failures, tools_name)


def _working_treatments(treatments: list[Treatment], session: Session) -> tuple[list[Treatment], list[str]]:
    """Return the treatments whose image has not failed its check in this run, and a line on each of the others. A study
    that `./lab run` has begun has none of the others either."""
    rows = runs.newest_rows(runs.load(session.run.name))
    failed = rows[(rows["metric"] == metrics.RUNS) & ~rows["ok"]]
    reasons = dict(zip(zip(failed["cell"], failed["image"], strict=True), failed["reason"], strict=True))
    working_treatments, messages = [], []
    for treatment in treatments:
        if reason := reasons.get((treatment.cell.slug, treatment.image)):
            messages.append(f"{treatment.name}: its image failed its check in this run, and is not measured: {reason}")
        else:
            working_treatments.append(treatment)
    return working_treatments, messages


def run_built(
    built: list[list[Treatment]], app: App, session: Session, plan: Planner, failures: list[str], tools_name: str
) -> None:
    """Run the studies of images that are built, by program, and add a line to `failures` on the trials that failed."""
    if tools_name and app.serve and uses_oha(workloads.app_workload(app)):
        tools_name = "oha"
    tools = make_tools(tools_name, session) if tools_name else ""
    with closing(plan(built, session.run, tools)) as studies:  # some keep an engine of their own meanwhile
        in_turns = []
        for study, measure in studies:
            parameters = {key: value for key, value in study.parameters.items() if key != "warning"}
            texts = [f"{key} {value}" for key, value in parameters.items()]
            # A request's body may be of any length; the run has it whole.
            summary = ", ".join(text if len(text) < LONGEST else f"{text[:LONGEST]}..." for text in texts)
            session.say(f"study {study.name}: {summary}; seed {study.seed}")
            if warning := study.parameters["warning"]:
                session.say(f"note: {warning}")
            in_turns.append((study, measure))
            if not study.continues:
                with progress.trials(session.request.console) as on_trial:
                    failures += trials.run_in_turns(in_turns, session.run, on_trial, is_narrow)
                in_turns = []


def is_narrow(study: Study, run: Run, blocks: int) -> bool:
    """Return whether after `blocks` blocks each comparison's 95% interval is narrower than the study's `width`. It is
    False without a width, and before `MINIMUM_BLOCKS`."""
    if study.width is None or blocks < MINIMUM_BLOCKS:
        return False
    samples = comparison.samples(runs.load(run.name), study.name, study.metric)
    comparisons = comparison.compare(samples, study.baseline)
    return bool((comparisons["high"] / comparisons["low"] - 1 < study.width).all())


def blocks_done(run: str, machine: str, kind: str, load_values: dict[str, list[Any]]) -> int:
    """Return how many blocks a machine's part of a run has, at least, in each study of that kind under these loads. The
    last block may lack trials. `load_values` has the values of each parameter of a load; for others the machine takes
    its own. Studies of the smallest memory limit do not count, since their number of blocks is fixed."""
    if machine not in runs.machines(run):
        return 0
    data = runs.load(f"{run}{runs.AT}{machine}")
    trials = data.rows[data.rows["metric"] == metrics.TRIAL]
    block_counts = trials.groupby("study")["block"].max() + 1
    plans = {
        name: plan.parameters
        for name, plan in data.environment.studies.items()
        if plan.kind == kind and plan.metric != metrics.SMALLEST_LIMIT_BYTES
    }
    loads = [dict(zip(load_values, load, strict=True)) for load in product(*load_values.values())]
    counts = [[block_counts.get(name, 0) for name, plan in plans.items() if _is_under(load, plan)] for load in loads]
    return int(min(min(count, default=0) for count in counts))


def _is_under(load: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether a study is under a load, as far as its plan tells: an app's own requests are all that it has."""
    return all(plan.get(key, value) in (value, workloads.OWN) for key, value in load.items())
