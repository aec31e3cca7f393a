"""The command line; no logic of its own.

A command's module is imported when the command is called: Jupyter's packages take two seconds, and most commands need
none.
"""

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rustimg_lab.cli import types
from rustimg_lab.cli.options import (
    across_option,
    additions_option,
    app_option,
    cell_options,
    grid_options,
    knob_options,
    source_options,
)
from rustimg_lab.errors import LabError
from rustimg_lab.host import files
from rustimg_lab.measure import workloads
from rustimg_lab.model import matrix, metrics, profiles, studies
from rustimg_lab.paths import CHOICE_RUN, DEFAULT_RUN, PROBES_RUN, RECORDED_RUN, ROOT, STUDIES_RUN

# Adds a command: its name, its function as MODULE.FUNCTION of this wing, and its help.
Command = Callable[[str, str, str], types.Option]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. 0: all is well; 1: a cell or a test failed; 2: it could not be done; 130: interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in order, as with Ctrl-C
    try:
        parser = _parser()
        options, options.rest = parser.parse_known_args(arguments)
        options.told = _told_command(sys.argv[1:] if arguments is None else arguments)
        if options.rest and options.command not in ("testing.test", "setup.notebook"):
            parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
        module, _, function = options.command.partition(".")
        code = getattr(import_module(f"rustimg_lab.cli.{module}"), function)(options)
        sys.stdout.flush()
        return code
    except LabError as error:
        print(f"lab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads has enough, as `head` has; the interpreter would say so at its end once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if not files.is_full(error):
            raise
        print(f"lab: {files.DiskFull('nothing more can be written', [ROOT], files.GRID_BYTES)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _told_command(arguments: list[str]) -> str:
    """What was typed, without the folders that a path leads through."""
    return shlex.join(["./lab", *(re.sub(r"(^|=)[/.~][^=]*/", r"\1", each.rstrip("/")) for each in arguments)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="What base image, build profile and allocator cost.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: str, text: str) -> types.Option:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=function)
        return added.add_argument

    _add_building(command)
    _add_reading(command)
    _add_others(command)
    return parser


def _add_building(command: Command) -> None:
    add = command("run", "measure.run", "build every cell, measure it, write the report")
    add("--grid", choices=matrix.GRIDS, default="article", help="the cells, unless some are named")
    app_option(add)
    cell_options(add, DEFAULT_RUN)
    knob_options(add)
    about = "of the short study of the servers under load that comes last; 0 for none"
    add("--blocks", type=types.blocks, default=5, metavar="N", help=about)

    _add_measure(command)

    add = command(
        "probe", "measure.probe", "what an image survives: TLS, DNS, time zones, signals, limits, what is in it"
    )
    app_option(add)
    cell_options(add, PROBES_RUN, "that, behind the name of its package")
    additions_option(add)


def _add_measure(command: Command) -> None:
    add = command("measure", "measure.measure", "measure the cells in a study of randomized blocks")
    app_option(add)
    cell_options(add, STUDIES_RUN)
    knob_options(add)
    about = "what is measured; each has cells of its own unless some are named"
    add("--study", choices=studies.KINDS, default="throughput", help=about)
    usual = studies.USUAL_LOAD
    kinds = "; ".join(f"{each.name}: {each.summary}" for each in workloads.WORKLOADS.values())
    about = f"what is asked; {usual['workload']} unless given; {kinds}"
    add("--workload", type=types.names, metavar="NAME[,NAME...]", help=about)
    add("--blocks", type=types.count, default=20, metavar="N", help="how many; with --width at most so many")
    about = "end as soon as every 95%% interval is narrower, as high / low - 1"
    add("--width", type=types.percent, metavar="PERCENT", help=about)
    under_load = "; of studies under load"
    about = f"of load in a trial that count; {usual['seconds']} unless given{under_load}"
    add("--seconds", type=types.count, metavar="N", help=about)
    about = f"seconds of load before those; {usual['warmup_s']} unless given{under_load}"
    add("--warmup", type=types.count, metavar="N", help=about)
    about = f"the server's worker threads; {usual['workers']} unless given{under_load}"
    add("--workers", type=types.counts, metavar="N[,N...]", help=about)
    about = f"that the load generator keeps open; {usual['connections']} unless given{under_load}"
    add("--connections", type=types.count, metavar="N", help=about)
    add("--baseline", default="", metavar="CELL", help="BASE-PROFILE-ALLOCATOR; the first cell unless given")
    add("--seed", type=int, metavar="N", help="of the order in the blocks; drawn and recorded unless given")


def _add_reading(command: Command) -> None:
    add = command("report", "results.show_report", "write the page of a run to share; needs no engine")
    about = f"'{RECORDED_RUN}' for all that is recorded of myip; '{DEFAULT_RUN}' unless given"
    add("named", nargs="?", metavar="RUN", help=f"a run, or several with commas between; {about}")
    add("--run", default=DEFAULT_RUN, metavar="NAME", help="the same")
    add("--format", choices=("html", "pdf", "md"), default="html", help="a PDF needs Chromium or Chrome")

    _add_choose(command)

    add = command("compare", "results.compare", "what changed between two runs; needs no engine")
    add("before", metavar="RUN_A")
    add("after", metavar="RUN_B")
    across_option(add)

    add = command(
        "check", "results.check", "exit code 1 when a run breaks a limit, and a summary in Markdown; needs no engine"
    )
    add("--run", default=DEFAULT_RUN, metavar="NAME", help="the run; 'article' unless given")
    add("--against", default="", metavar="NAME", help="the run that it may not grow over")
    add("--max-transfer", type=types.size, metavar="SIZE", help="compressed, of every cell, as 2MB")
    about = f"by how much each of {', '.join(metrics.GUARDED)} may grow, as size=1%%,cpu=5%%"
    add("--max-regression", type=types.regressions, default={}, metavar="NAME=PERCENT[,...]", help=about)
    across_option(add)

    add = command("batch", "results.make_batch", "make the report pages of a grid of parameters; needs no engine")
    add("file", type=Path, metavar="FILE", help="in YAML, as notebooks/batch.yaml")
    add("--timeout", type=types.count, default=900, metavar="SECONDS", help="for each page")


def _add_choose(command: Command) -> None:
    add = command(
        "choose", "results.choose", "pick the cell to ship, say why, and print its Dockerfile; needs no engine"
    )
    about = f"a run with sizes and studies of the same cells; '{CHOICE_RUN}' unless given"
    add("--run", default=CHOICE_RUN, metavar="NAME", help=about)
    add("--max-transfer", type=types.size, metavar="SIZE", help="compressed, as 3MB")
    add("--max-memory", type=types.size, metavar="SIZE", help="resident under load, as 32MB")
    add("--max-startup", type=types.milliseconds, metavar="TIME", help="exec to first byte, as 5ms")
    add("--min-throughput", type=types.share, default=0, metavar="SHARE", help="of the best cell's, as 0.95")
    add("--shell", action="store_true", help="it must have a shell")
    add("--stable", action="store_true", help="no unstable compiler flags")
    add("--deploys", type=types.count, metavar="N", help="a day, to machines that lack the image")
    add("--bandwidth", type=types.bandwidth, metavar="RATE", help="of theirs, as 100Mbit or 1Gbit")
    add("--requests", type=types.count, default=0, metavar="N", help="a day, beside the deploys")
    about = f"of {', '.join(metrics.CRITERIA)}, and with --deploys {metrics.DAY}: what the one is picked by; "
    about += f"transfer=1 unless given, or with --deploys {metrics.DAY}=1"
    add("--weights", type=types.weights, metavar="NAME=NUMBER[,...]", help=about)
    add("--workload", choices=[*workloads.WORKLOADS, workloads.OWN], default="", help="of the studies")


def _add_others(command: Command) -> None:
    add = command("cells", "setup.list_cells", "list the cells that such options select; builds nothing")
    add("--grid", choices=matrix.GRIDS, default="article", help="the cells, unless some are named")
    app_option(add)
    grid_options(add)
    knob_options(add)
    add("--debian", default=matrix.DEBIAN, help="one of " + ", ".join(matrix.RELEASES))

    add = command("dockerfile", "setup.show_dockerfile", "print the Dockerfile of one cell")
    add("base", help="one of " + ", ".join(matrix.BASES))
    add("--profile", default="optimized", help=f"one of {', '.join(profiles.everything())}, or some joined by +")
    names = ", ".join((matrix.ARTICLE, *matrix.ALLOCATORS))
    about = f"one of {names}; {matrix.ARTICLE} unless given, or with --app system"
    add("--allocator", help=about)
    add("--debian", default=matrix.DEBIAN, help="one of " + ", ".join(matrix.RELEASES))
    additions_option(add)
    app_option(add)

    add = command("init", "setup.init", "write the lab.toml that `./lab run --app PATH` needs, from what cargo says")
    add("path", type=Path, metavar="PATH", help="a crate's folder, or a workspace member's")
    add("--binary", default="", metavar="NAME", help="which, where the crate has several")
    source_options(add)

    command("doctor", "setup.doctor", "what this machine has, and what it lacks")
    command(
        "notebook", "setup.notebook", "open JupyterLab on the notebooks; other options go to it, such as --no-browser"
    )
    command("clean", "setup.clean", "remove this clone's containers and images, and nothing else")
    about = "ruff and pytest, notebooks included; --faults for all tests of faults; --engines for the tests on every "
    about += "engine of docs/engines.md (root, 40 minutes); other options go to pytest"
    command("test", "testing.test", about)
    command("docs", "docs.docs", "write the list of modules in docs/architecture.md")
