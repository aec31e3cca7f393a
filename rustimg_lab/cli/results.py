"""Commands that read runs and need no engine: report, choose, compare, check, batch."""

import argparse

from rich.markup import escape
from rich.table import Table

from rustimg_lab.analysis import recommendation, regression
from rustimg_lab.cli import measure, output
from rustimg_lab.errors import LabError
from rustimg_lab.model import cargo_profile, metrics
from rustimg_lab.report import terminal, views
from rustimg_lab.store import runs


def show_report(options: argparse.Namespace) -> int:
    measure.make_report(options.named or options.run, options.format)
    return 0


def choose(options: argparse.Namespace) -> int:
    limits = {"transfer": options.max_transfer, "memory": options.max_memory, "startup": options.max_startup}
    if bool(options.deploys) != bool(options.bandwidth) or (options.requests and not options.deploys):
        raise LabError("what a day brings is told by --deploys and --bandwidth together, and --requests beside them")
    day = recommendation.Day(options.deploys, options.bandwidth, options.requests) if options.deploys else None
    weights = options.weights or {metrics.DAY if day else "transfer": 1.0}
    limits = {name: limit for name, limit in limits.items() if limit}
    wishes = recommendation.Wishes(limits, options.min_throughput, options.shell, options.stable, weights, day)
    found = recommendation.choose(output.load(options.run), wishes, options.workload)
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


def compare(options: argparse.Namespace) -> int:
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


def check(options: argparse.Namespace) -> int:
    if options.max_regression and not options.against:
        raise LabError("--max-regression: over which run? name it with --against NAME")
    after = output.load(options.run)
    before = output.load(options.against) if options.against else None
    limits = regression.Limits(options.max_transfer or 0, options.max_regression)
    broken = regression.check(after, limits, before, options.across_machines)
    print(views.regression.markdown(options.run, after, broken, before), end="")
    return output.exit_code([f"{each.cell}: {' '.join(each.what.split())}" for each in broken])


def make_batch(options: argparse.Namespace) -> int:
    from rustimg_lab.report import batch  # loads Jupyter's packages

    pages = batch.read(options.file)
    table = Table("page", "outcome", box=None)

    def on_page(number: int, page: batch.Page, outcome: str) -> None:
        print(f"lab: {number} of {len(pages)}: {page}: {outcome}")
        table.add_row(escape(str(page)), escape(outcome))

    failures = batch.make(pages, options.timeout, on_page)
    output.console.print(table)
    return output.exit_code(failures)
