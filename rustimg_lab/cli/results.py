"""Commands that read runs: demo, export, report, choose, compare, check, batch.

None needs an engine but a check of two versions.
"""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from rustimg_lab.cli import output, selection, types
from rustimg_lab.cli.options import ACROSS, APP, BUILDER, BUILT_WITH, CELLS, SOURCES, command, option
from rustimg_lab.errors import LabError, text_or_reason
from rustimg_lab.measure.workloads import OWN, WORKLOADS
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.studies import KINDS
from rustimg_lab.paths import ALLOCATOR_RUNS, CHOICE_RUN, COMMAND, DEFAULT_RUN, RECORDED_RUN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rustimg_lab.analysis.limits import Checked, Finding, Limits
    from rustimg_lab.store.runs import RunData

_CRITERIA = ", ".join(metrics.CRITERIA)
_WEIGHTS = f"weights of the objective, as transfer=1,cpu=2; of {_CRITERIA}; with --deploys also {metrics.DAY}"
_REGRESSION = f"by how much each of {', '.join(metrics.GUARDED)} may grow, as size=1%,cpu=5%"
_BEFORE_RUN = f"{DEFAULT_RUN}; with --before: a run named after both versions"


@command()
def demo(options: SimpleNamespace) -> int:
    """Show what was recorded: the image to ship, sizes, allocators. Needs no engine."""
    from rustimg_lab.analysis import recommendation
    from rustimg_lab.report import summary, terminal, views
    from rustimg_lab.store import runs

    def say(text: str) -> None:
        output.console.print(escape(text.replace("**", "")), highlight=False, soft_wrap=True)

    goal, wishes = next(iter(summary.GOALS.items()))
    run = output.load(CHOICE_RUN)
    choice = recommendation.choose(run, wishes)
    say(f"Recorded on {run.environment.machine['cpu_model']}: run {CHOICE_RUN}. Goal: {goal}.")
    notes = (views.recommendation.of_two_programs(choice), views.recommendation.sure(choice))
    say(f"Ship {choice.name(choice.picked)}: {views.recommendation.facts(choice)}. {' '.join(filter(None, notes))}")
    output.print_table(terminal.summary(f"{RECORDED_RUN}/{DEFAULT_RUN}"))
    table = summary.allocators({name: output.load(name) for name in ALLOCATOR_RUNS})
    for row in table[table["allocator"] == "jemalloc"].to_dict("records"):
        ratio = row[metrics.CPU_US_PER_REQUEST.noun]
        say(f"jemalloc in place of {row['instead of']}, {row['CPU']}, {row['load']}: CPU time per request {ratio}.")
    path = runs.run_path(CHOICE_RUN) / "dockerfiles" / f"Dockerfile.{choice.picked}"
    say(f"The Dockerfile: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    print(f"Next: `{COMMAND} report recorded` makes the whole report; for your own crate, `{COMMAND} init PATH`")
    return 0


@command(
    click.Argument(["run"], type=types.RUN),
    option("--license", "SPDX expression", metavar="SPDX", shown="that of the lab, for a recorded run"),
)
def export(options: SimpleNamespace) -> int:
    """Write a run as an RO-Crate, an archive that others can read and cite. Needs no engine."""
    from rustimg_lab.store import export

    print(f"RO-Crate: {export.export(options.run, options.license or '').relative_to(ROOT)}")
    return 0


@command(
    click.Argument(["run"], type=types.RUN, default=DEFAULT_RUN),
    option("--format", "a PDF needs Chromium or Chrome:", types.Names("format", ("html", "pdf", "md")), "html"),
)
def report(options: SimpleNamespace) -> int:
    """Write the page of a run to share. Needs no engine.

    RUN is a run, several with commas between, or `recorded` for all that is recorded of myip (default: article)."""
    output.make_report(options.run, options.format)
    return 0


@command(
    option("--run", "run with sizes and studies of equal cells", types.RUN, CHOICE_RUN),
    option("--max-transfer", "compressed (pull) size at most, as 3MB", types.SIZE),
    option("--max-memory", "resident memory under load at most, as 32MB", types.SIZE),
    option("--max-startup", "exec to first byte at most, as 5ms", types.TIME),
    option("--min-throughput", "fraction of the best throughput at least, as 0.95", types.share, metavar="FRACTION"),
    option("--shell", "only images with a shell", is_flag=True),
    option("--stable", "only stable compiler flags", is_flag=True),
    BUILT_WITH,
    option("--deploys", "deploys a day, to machines that lack the image", types.COUNT),
    option("--bandwidth", "link of those machines, as 100Mbit or 1Gbit", types.BANDWIDTH),
    option("--requests", "requests a day, beside the deploys", types.COUNT),
    option("--weights", _WEIGHTS, types.weights, shown=f"transfer=1; with --deploys {metrics.DAY}=1"),
    option("--workload", "of the studies:", types.Names("workload", (*WORKLOADS, OWN)), shown="that of most cells"),
)
def choose(options: SimpleNamespace) -> int:
    """Recommend the cell to ship and print its Dockerfile. The output says why. Needs no engine.

    Without constraints and weights, the goal is the one with which the page of the run begins."""
    from rustimg_lab.analysis import recommendation
    from rustimg_lab.model import cargo_profile
    from rustimg_lab.report import summary, terminal, views
    from rustimg_lab.store import runs

    limits = {"transfer": options.max_transfer, "memory": options.max_memory, "startup": options.max_startup}
    if bool(options.deploys) != bool(options.bandwidth) or (options.requests and not options.deploys):
        raise LabError("--deploys and --bandwidth go together, and --requests needs both: name both, or neither")
    day = recommendation.Day(options.deploys, options.bandwidth, options.requests or 0) if options.deploys else None
    weights = options.weights or {metrics.DAY if day else "transfer": 1.0}
    limits = {name: limit for name, limit in limits.items() if limit}
    needs = options.min_throughput or 0, options.shell, options.stable
    wishes, run = recommendation.Wishes(limits, *needs, weights, day, options.additions), output.load(options.run)
    if wishes == recommendation.Wishes(additions=options.additions) and not options.weights:
        wishes = replace(summary.first_goal(run, options.workload or ""), additions=options.additions)
    choice = recommendation.choose(run, wishes, options.workload or "")
    candidates = views.recommendation.candidates_in_words(choice)
    output.print_table(terminal.of_frame(f"run {options.run}: what was to choose from", candidates))
    for line in views.recommendation.evidence(choice):
        output.console.print(escape(line), highlight=False, soft_wrap=True)
    if not choice.picked:
        return 1
    cell = choice.table.loc[choice.picked, cargo_profile.FACTORS]
    if options.run.startswith(RECORDED_RUN):
        output.say("the Dockerfile is the one that was measured; `./lab dockerfile` prints today's")
    print(f"\n--- without the Dockerfile\n{text_or_reason(cargo_profile.cargo_profile, *cell)}")
    print(f"--- Dockerfile\n{text_or_reason(runs.dockerfile, options.run, choice.picked)}", end="")
    return 0


@command(click.Argument(["before"], type=types.RUN), click.Argument(["after"], type=types.RUN), ACROSS)
def compare(options: SimpleNamespace) -> int:
    """Show what changed between two runs. Needs no engine."""
    from rustimg_lab.analysis import regression
    from rustimg_lab.report import terminal, views
    from rustimg_lab.store import runs

    if options.before == options.after:
        raise LabError(f"compare: {options.before} is named twice; name two runs")
    before, after = (output.load(name) for name in (options.before, options.after))
    names = f"{options.before} -> {options.after}"
    sizes, differences = regression.sizes(before, after), regression.machine_differences(before, after)
    dockerfiles = runs.changed_dockerfiles(options.before, options.after)
    inputs = regression.changed_inputs(before, after)
    inputs += [f"machine: {', '.join(differences)}"] if differences else []
    inputs += [f"Dockerfiles of {', '.join(dockerfiles)}"] if dockerfiles else []
    for line in inputs:
        print(f"differs: {line}")
    if sizes.empty:
        print(f"{names}: no cell has a size in either run")
    else:
        rows = views.regression.changed_sizes(sizes)
        title = f"{names}: sizes in MB (1e6 bytes){'' if len(rows) else ': all the same'}"
        output.print_table(terminal.of_frame(title, rows))
    speeds = regression.speeds(before, after, options.across_machines)
    for note in speeds.attrs["notes"]:
        print(f"note: {note}")
    if speeds.empty:
        print("the two runs have measured no cell alike: nothing to say of speed")
    else:
        rows = views.regression.changed_speeds(speeds)
        output.print_table(terminal.of_frame(f"{names}: as a ratio to the first", rows))
    return 0


@command(
    option("--run", "run to check, or with --before to write to or resume", types.RUN, shown=_BEFORE_RUN),
    option("--against", "run that it may not grow over", types.RUN),
    option("--before", "version to build, measure and compare with that in --app", metavar="REVISION|FOLDER"),
    option("--max-transfer", "compressed (pull) size of every cell at most, as 2MB", types.SIZE),
    option("--max-regression", _REGRESSION, types.regressions),
    ACROSS,
    *(APP, *CELLS, *SOURCES, BUILDER),
    option("--blocks", "randomized blocks of both versions", types.COUNT, shown=20),
)
def check(options: SimpleNamespace) -> int:
    """Exit with 1 when a run breaks a limit, with 3 when noise hides whether it does. The output is a summary in
    Markdown. Needs no engine, but for --before, which builds and measures two versions in the same blocks."""
    from rustimg_lab.analysis import regression
    from rustimg_lab.report import views

    limits = regression.Limits(options.max_transfer or 0, options.max_regression or {})
    if options.max_regression and not (options.against or options.before):
        raise LabError("--max-regression: over which run? name it with --against NAME, or a version with --before")
    failures = _measure_both(options) if options.before else []
    options.run = options.run or DEFAULT_RUN
    messages: dict[Verdict, list[str]] = {Verdict.FAIL: [], Verdict.CANNOT_TELL: []}
    for part, after, before, checked in _check_parts(options, limits):
        print(views.regression.markdown(part, after, checked, before), end="")
        for verdict, lines in messages.items():
            lines += [
                f"{finding.cell}: {' '.join(finding.message.split())}" for finding in checked.findings_with(verdict)
            ]
    broken, unsure = ([*dict.fromkeys(lines)] for lines in messages.values())
    for line in unsure:
        print(f"lab: cannot tell: {line}", file=sys.stderr)
    return output.exit_code([*dict.fromkeys([*failures, *broken])]) or (3 if unsure else 0)


def _check_parts(
    options: SimpleNamespace, limits: "Limits"
) -> "Iterator[tuple[str, RunData, RunData | None, Checked]]":
    """Check each architecture of a run. Yield its name, its data, the data that it is compared with, and the outcome.
    Of a run of several machines the cells are checked together, since any machine may have built each of them. Metrics
    with noise are checked by machine."""
    from rustimg_lab.analysis import regression
    from rustimg_lab.analysis.limits import Checked, Finding

    parts, machine_parts = _parts(options, limits)
    gone = [] if options.before else _missing_architectures(options, parts)
    for part in parts:
        against = _matching_part(options.against, part, options.run)
        after, before = output.load(part), output.load(against) if against else None
        gaps, notes = [], []
        if options.against and not against:
            notes = [f"not compared: there is no {options.against}{part.removeprefix(options.run)}"]
            if limits.max_regression:
                gaps, notes = [Finding(f"run {part}", notes[0], Verdict.CANNOT_TELL)], []
        result = Checked([])
        if part not in machine_parts:
            result = regression.check(after, limits.exact if machine_parts else limits, before, options.across_machines)
        elif before:
            wholes = (output.load(name) for name in (options.run, options.against))
            after, before = map(regression.with_cells, (after, before), wholes)
            result = regression.check_noise(after, limits, before, options.across_machines)
        yield part, after, before, Checked(gone + result.findings + gaps, result.notes + notes)
        gone = []


def _parts(options: SimpleNamespace, limits: "Limits") -> tuple[list[str], list[str]]:
    """Return the parts of a run to check, and those of them that are of one machine of several. The latter have
    studies, and are there when a metric with noise is limited."""
    from rustimg_lab.store import runs

    # What has noise was measured now for this machine's architecture alone, and sizes for each that was asked for.
    parts = [options.run] if options.before and limits.noisy else runs.parts(options.run)
    if options.before or options.run not in parts or not runs.machines(options.run):
        return parts, []
    machines = [part for part in parts[1:] if limits.noisy and runs.load(part).rows["study"].ne("").any()]
    return [options.run, *machines], machines


def _missing_architectures(options: SimpleNamespace, parts: list[str]) -> "list[Finding]":
    """Return a finding for each architecture of the other run that a run has nothing for."""
    from rustimg_lab.analysis.limits import Finding
    from rustimg_lab.store import runs

    if not options.against or runs.AT in options.run or runs.machines(options.run) or runs.machines(options.against):
        return []
    marks = [part.removeprefix(options.against) for part in runs.parts(options.against)]
    lost_marks = [mark for mark in marks if mark and f"{options.run}{mark}" not in parts]
    return [Finding(f"run {options.run}{mark}", f"gone: there is {options.against}{mark}") for mark in lost_marks]


def _matching_part(against: str, part: str, run: str) -> str:
    """Return the part of the run `against` that corresponds to a part of `run`; "" where there is none."""
    from rustimg_lab.store import runs

    if part == run or not against:
        return against or ""
    part_name = f"{against}{part.removeprefix(run)}"
    return part_name if part_name in runs.parts(against) else ""


def _measure_both(options: SimpleNamespace) -> list[str]:
    """Build and measure the app and its version before. Put the names of their runs into the options, and return a
    message for each failure."""
    from rustimg_lab.build import lab_toml, versions
    from rustimg_lab.measure.plan import Plan
    from rustimg_lab.pipeline import pairs, planner

    if not (options.app and options.max_regression) or options.against:
        raise LabError("--before goes with --app PATH and --max-regression, as cpu=5%, and without --against")
    app = selection.load_app(options)
    options.bases, options.profiles = options.bases or ["scratch"], options.profiles or ["optimized"]
    options.allocators = options.allocators or lab_toml.allocators(app)[:1]
    cells = selection.chosen_cells(options, app, matrix.usual_grid("article", options.debian))
    kinds = (metrics.GUARDED[name].study for name in options.max_regression)
    plans = []
    for kind in dict.fromkeys(filter(None, kinds)):
        planner.programs(app, KINDS[kind], options.app)  # refuses an app that it cannot measure
        plan = planner.planner(kind, [planner.load_of(app)], Plan(options.blocks or 20), app)
        plans.append((KINDS[kind], plan))
    with versions.app_before(app, options.before) as before:
        options.run = options.run or pairs.run_name(app, before, cells)
        options.against = pairs.name_before(options.run)
        progress = Console(stderr=True, width=output.console.width)  # standard output is the summary
        return pairs.run_pairs(replace(selection.request(options, app), console=progress), before, cells, plans)


@command(
    click.Argument(["file"], type=click.Path(path_type=Path)),
    option("--timeout", "seconds for each page", types.COUNT, 900),
    option("--jobs", "pages to make at once; 1 for notebooks that build or measure", types.COUNT, 1),
)
def batch(options: SimpleNamespace) -> int:
    """Make the report pages of a grid of parameters. FILE is as notebooks/batch.yaml. Needs no engine.

    The same command resumes: a page that is newer than its inputs is not made again."""
    from rustimg_lab.pipeline import progress
    from rustimg_lab.report import batch  # loads Jupyter's packages

    pages = batch.read(options.file)
    with progress.rows("pages", list(map(str, pages)), output.console) as on_page:
        failures = batch.make(pages, options.timeout, options.jobs, on_page)
    return output.exit_code(failures)
