"""Commands that read runs and need no engine: report, choose, compare, check, batch."""

from pathlib import Path
from types import SimpleNamespace

import click
from rich.markup import escape
from rich.table import Table

from rustimg_lab.cli import output, types
from rustimg_lab.cli.options import ACROSS, ADDITIONS, command, option
from rustimg_lab.errors import LabError
from rustimg_lab.measure.workloads import OWN, WORKLOADS
from rustimg_lab.model import metrics
from rustimg_lab.paths import CHOICE_RUN, DEFAULT_RUN

_WEIGHTS = f"ranking, as transfer=1,cpu=2; of {', '.join(metrics.CRITERIA)}; with --deploys also {metrics.DAY}"
_REGRESSION = f"by how much each of {', '.join(metrics.GUARDED)} may grow, as size=1%,cpu=5%"


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
    option("--max-transfer", "compressed size at most, as 3MB", types.SIZE),
    option("--max-memory", "resident memory under load at most, as 32MB", types.SIZE),
    option("--max-startup", "exec to first byte at most, as 5ms", types.TIME),
    option("--min-throughput", "share of the best cell's at least, as 0.95", types.share),
    option("--shell", "only images with a shell", is_flag=True),
    option("--stable", "only stable compiler flags", is_flag=True),
    ADDITIONS,
    option("--deploys", "deploys a day, to machines that lack the image", types.COUNT),
    option("--bandwidth", "link of those machines, as 100Mbit or 1Gbit", types.BANDWIDTH),
    option("--requests", "requests a day, beside the deploys", types.COUNT),
    option("--weights", _WEIGHTS, types.weights, shown=f"transfer=1; with --deploys {metrics.DAY}=1"),
    option("--workload", "of the studies:", types.Names("workload", (*WORKLOADS, OWN)), shown="that of most cells"),
)
def choose(options: SimpleNamespace) -> int:
    """Recommend the cell to ship and print its Dockerfile. The output says why. Needs no engine."""
    from rustimg_lab.analysis import recommendation
    from rustimg_lab.model import cargo_profile
    from rustimg_lab.report import terminal, views
    from rustimg_lab.store import runs

    limits = {"transfer": options.max_transfer, "memory": options.max_memory, "startup": options.max_startup}
    if bool(options.deploys) != bool(options.bandwidth) or (options.requests and not options.deploys):
        raise LabError("what a day brings is told by --deploys and --bandwidth together, and --requests beside them")
    day = recommendation.Day(options.deploys, options.bandwidth, options.requests or 0) if options.deploys else None
    weights = options.weights or {metrics.DAY if day else "transfer": 1.0}
    limits = {name: limit for name, limit in limits.items() if limit}
    kept = options.min_throughput or 0, options.shell, options.stable
    wishes = recommendation.Wishes(limits, *kept, weights, day, options.additions)
    found = recommendation.choose(output.load(options.run), wishes, options.workload or "")
    output.console.print(terminal.candidates(options.run, found))
    for line in views.recommendation.evidence(found):
        output.console.print(escape(line), highlight=False, soft_wrap=True)
    if not found.picked:
        return 1
    text = runs.dockerfile(options.run, found.picked)
    cell = found.table.loc[found.picked, ["base", "profile", "allocator"]]
    print(f"\n--- without the Dockerfile\n{cargo_profile.cargo_profile(*cell)}")
    print(f"--- Dockerfile\n{text}", end="")
    return 0


@command(click.Argument(["before"], type=types.RUN), click.Argument(["after"], type=types.RUN), ACROSS)
def compare(options: SimpleNamespace) -> int:
    """Show what changed between two runs. Needs no engine."""
    from rustimg_lab.analysis import regression
    from rustimg_lab.report import terminal
    from rustimg_lab.store import runs

    before, after = (output.load(name) for name in (options.before, options.after))
    names = f"{options.before} -> {options.after}"
    sizes, differs = regression.sizes(before, after), regression.other_machine(before, after)
    changed = runs.changed_dockerfiles(options.before, options.after)
    inputs = regression.inputs(before, after)
    inputs += [f"machine: {', '.join(differs)}"] if differs else []
    inputs += [f"Dockerfiles of {', '.join(changed)}"] if changed else []
    for line in inputs:
        print(f"differs: {line}")
    if sizes.empty:
        print(f"{names}: no cell has a size in either run")
    else:
        output.console.print(terminal.changed_sizes(names, sizes))
    speeds = regression.speeds(before, after, options.across_machines)
    for note in speeds.attrs["notes"]:
        print(f"note: {note}")
    if speeds.empty:
        print("the two runs have measured no cell alike: nothing to say of speed")
    else:
        output.console.print(terminal.changed_speeds(names, speeds))
    return 0


@command(
    option("--run", "run to check", types.RUN, DEFAULT_RUN),
    option("--against", "run that it may not grow over", types.RUN),
    option("--max-transfer", "compressed size of every cell at most, as 2MB", types.SIZE),
    option("--max-regression", _REGRESSION, types.regressions),
    ACROSS,
)
def check(options: SimpleNamespace) -> int:
    """Exit with 1 when a run breaks a limit. The output is a summary in Markdown. Needs no engine."""
    from rustimg_lab.analysis import regression
    from rustimg_lab.report import views

    if options.max_regression and not options.against:
        raise LabError("--max-regression: over which run? name it with --against NAME")
    after = output.load(options.run)
    before = output.load(options.against) if options.against else None
    limits = regression.Limits(options.max_transfer or 0, options.max_regression or {})
    broken = regression.check(after, limits, before, options.across_machines)
    print(views.regression.markdown(options.run, after, broken, before), end="")
    return output.exit_code([f"{each.cell}: {' '.join(each.what.split())}" for each in broken])


@command(
    click.Argument(["file"], type=click.Path(path_type=Path)),
    option("--timeout", "seconds for each page", types.COUNT, 900),
)
def batch(options: SimpleNamespace) -> int:
    """Make the report pages of a grid of parameters. FILE is as notebooks/batch.yaml. Needs no engine."""
    from rustimg_lab.report import batch  # loads Jupyter's packages

    pages = batch.read(options.file)
    table = Table("page", "outcome", box=None)

    def on_page(number: int, page: batch.Page, outcome: str) -> None:
        print(f"lab: {number} of {len(pages)}: {page}: {outcome}")
        table.add_row(escape(str(page)), escape(outcome))

    failures = batch.make(pages, options.timeout, on_page)
    output.console.print(table)
    return output.exit_code(failures)
