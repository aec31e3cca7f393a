"""Commands that show and pass on what was measured, and need no engine: demo, export."""

from types import SimpleNamespace

import click
from rich.markup import escape

from rustimg_lab.cli import output, types
from rustimg_lab.cli.options import command, option
from rustimg_lab.paths import ALLOCATOR_RUNS, CHOICE_RUN, COMMAND, DEFAULT_RUN, RECORDED_RUN, ROOT


@command()
def demo(options: SimpleNamespace) -> int:
    """Show what was recorded: the image to ship, sizes, allocators. Needs no engine."""
    from rustimg_lab.analysis import recommendation
    from rustimg_lab.model import metrics
    from rustimg_lab.report import summary, terminal, views
    from rustimg_lab.store import runs

    def say(text: str) -> None:
        output.console.print(escape(text.replace("**", "")), highlight=False, soft_wrap=True)

    goal, wishes = next(iter(summary.GOALS.items()))
    run = output.load(CHOICE_RUN)
    found = recommendation.choose(run, wishes)
    say(f"Recorded on {run.environment.machine['cpu_model']}: run {CHOICE_RUN}. Goal: {goal}.")
    told = (views.recommendation.of_two_programs(found), views.recommendation.sure(found))
    say(f"Ship {found.name(found.picked)}: {views.recommendation.facts(found)}. {' '.join(filter(None, told))}")
    output.console.print(terminal.summary(f"{RECORDED_RUN}/{DEFAULT_RUN}"))
    compared = summary.allocators({name: output.load(name) for name in ALLOCATOR_RUNS})
    for each in compared[compared["allocator"] == "jemalloc"].to_dict("records"):
        ratio = each[metrics.CPU_US_PER_REQUEST.noun]
        say(f"jemalloc in place of {each['instead of']}, {each['CPU']}, {each['load']}: CPU time per request {ratio}.")
    path = runs.run_path(CHOICE_RUN) / "dockerfiles" / f"Dockerfile.{found.picked}"
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
