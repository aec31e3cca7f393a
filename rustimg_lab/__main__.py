"""The command line; no logic of its own."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rustimg_lab import bases, batch, build, disk, dockerfile, engine, host, matrix, pipeline, profiles, report, store
from rustimg_lab.errors import LabError
from rustimg_lab.measure import studies, trials, workloads
from rustimg_lab.measure.loading import Load
from rustimg_lab.paths import MYIP, ROOT

console = Console(width=None if sys.stdout.isatty() else 120)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. 0: all is well; 1: a cell or a test failed; 2: it could not be done; 130: interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in order, as with Ctrl-C
    try:
        parser = _parser()
        options, options.pytest = parser.parse_known_args(arguments)
        if options.pytest and options.command is not test:
            parser.error(f"unrecognized arguments: {' '.join(options.pytest)}")
        return options.command(options)
    except LabError as error:
        print(f"lab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if not disk.is_full(error):
            raise
        print(f"lab: {disk.DiskFull('nothing more can be written', [ROOT], disk.GRID_BYTES)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    usual = matrix.usual(options.grid)
    grid = options.bases or usual.bases, options.profiles or usual.profiles, options.allocators or usual.allocators
    study = None
    if options.blocks:
        plan = trials.Plan(options.blocks)
        study = studies.short(*grid, options.debian), studies.planner("throughput", [studies.USUAL_LOAD], plan)
    failures = pipeline.run_grid(
        matrix.grid(*grid, options.debian), build.load_app(MYIP), options.run, study=study,
        sources=_sources(options), builder=options.builder, console=console,
    )  # fmt: skip
    show_report(options)
    return _told(failures)


def measure(options: argparse.Namespace) -> int:
    kind, app = studies.KINDS[options.study], build.load_app(MYIP)
    cells = matrix.grid(
        options.bases or kind.bases,
        options.profiles or kind.profiles,
        options.allocators or kind.allocators,
        options.debian,
    )
    loads = [
        Load(workloads.find(name), workers, options.connections, options.warmup, options.seconds)
        for name in options.workload
        for workers in options.workers
    ]
    plan = trials.Plan(options.blocks, options.width, options.baseline, options.seed)
    failures = pipeline.run_studies(
        cells, [app.server, app] if kind.of_clients else [app.server], options.run,
        studies.planner(options.study, loads, plan), kind.tools,
        sources=_sources(options), builder=options.builder, console=console,
    )  # fmt: skip
    show_report(options)
    return _told(failures)


def show_report(options: argparse.Namespace) -> int:
    parts = report.parts(options.run)
    if not parts:
        raise LabError(f"run '{options.run}' has no study that came far enough; the same `./lab measure` goes on")
    for notebook, parameters in parts:
        page = report.render(options.run, notebook, parameters)
        console.print(report.summary(options.run, notebook, parameters))
        print(f"report: {page.relative_to(ROOT)}")
    for line in store.load(options.run).attrs["broken"]:
        print(f"lab: {line}", file=sys.stderr)
    return 0


def make_batch(options: argparse.Namespace) -> int:
    pages = batch.read(options.file)
    table = Table("page", "outcome", box=None)

    def on_page(number: int, page: batch.Page, outcome: str) -> None:
        print(f"lab: {number} of {len(pages)}: {page}: {outcome}")
        table.add_row(escape(str(page)), escape(outcome))

    failures = batch.make(pages, options.timeout, on_page)
    console.print(table)
    return _told(failures)


def show_dockerfile(options: argparse.Namespace) -> int:
    cell = matrix.cell(options.base, options.profile, options.allocator, options.debian)
    sys.stdout.write(dockerfile.render(cell, build.load_app(MYIP)))
    return 0


def doctor(options: argparse.Namespace) -> int:
    findings = host.findings()
    table = Table("", "what", "found", "what to do", box=None)
    for finding in findings:
        mark = "ok" if finding.ok else "MISSING" if finding.required else "note"
        table.add_row(mark, finding.name, finding.found, "" if finding.ok else finding.remedy)
    console.print(table)
    return 0 if all(finding.ok or not finding.required for finding in findings) else 2


def clean(options: argparse.Namespace) -> int:
    containers = engine.remove_containers(all_of_ours=True)
    images, kept = engine.remove_images()
    print(f"removed {containers} containers and {images} images of this lab")
    for line in kept:
        print(f"kept {line}")
    print(f"left: the engine's build cache, which is not the lab's alone; it holds {build.cache_size()}")
    return 0


def test(options: argparse.Namespace) -> int:
    try:
        host.prepare(lambda text: print(f"lab: {text}"))
    except LabError as error:
        if os.environ.get("CI"):
            raise
        print(f"lab: {error}; tests that need an engine will be skipped")
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["pytest", *options.pytest]):
        if code := subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode:
            return code
    return 0


def _sources(options: argparse.Namespace) -> bases.Sources:
    registry = bases.parse_registry(options.registry) if options.registry else ""
    return bases.Sources(bases.parse_named(options.base), registry, options.debian)


def _told(failures: list[str]) -> int:
    """The exit code, after every failure has been told."""
    for line in failures:
        print(f"lab: failed: {line}", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="What base image, build profile and allocator cost.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=function)
        return added

    added = command("run", run, "build every cell, measure it, write the report")
    added.add_argument("--grid", choices=matrix.GRIDS, default="article", help="the cells, unless some are named")
    _cell_options(added, store.DEFAULT_RUN)
    added.add_argument("--blocks", type=_blocks, default=5, metavar="N",
                       help="of the short study of the servers under load that comes last; 0 for none")  # fmt: skip

    added = command("measure", measure, "measure the cells in a study of randomized blocks")
    _cell_options(added, store.STUDIES_RUN)
    added.add_argument("--study", choices=studies.KINDS, default="throughput",
                       help="what is measured; each has cells of its own unless some are named")  # fmt: skip
    usual = studies.USUAL_LOAD
    kinds = "; ".join(f"{each.name}: {each.summary}" for each in workloads.WORKLOADS.values())
    added.add_argument("--workload", type=_names, default=[usual.workload.name], help=f"what is asked; {kinds}")
    added.add_argument("--blocks", type=_count, default=20, metavar="N", help="how many; with --width at most so many")
    added.add_argument("--width", type=_width, metavar="PERCENT",
                       help="end as soon as every 95%% interval is narrower, as high / low - 1")  # fmt: skip
    added.add_argument(
        "--seconds", type=_count, default=usual.seconds, metavar="N", help="of load in a trial that count"
    )
    added.add_argument(
        "--warmup", type=_count, default=usual.warmup_s, metavar="N", help="seconds of load before those"
    )
    added.add_argument(
        "--workers", type=_counts, default=[usual.workers], metavar="N[,N...]", help="the server's worker threads"
    )
    added.add_argument(
        "--connections", type=_count, default=usual.connections, metavar="N", help="that the load generator keeps open"
    )
    added.add_argument(
        "--baseline", default="", metavar="CELL", help="BASE-PROFILE-ALLOCATOR; the first cell unless given"
    )
    added.add_argument(
        "--seed", type=int, metavar="N", help="of the order in the blocks; drawn and recorded unless given"
    )

    added = command("report", show_report, "write the report of a run; needs no engine")
    added.add_argument("--run", default=store.DEFAULT_RUN, metavar="NAME", help=f"a run, or '{store.RECORDED_RUN}'")

    added = command("batch", make_batch, "make the report pages of a grid of parameters; needs no engine")
    added.add_argument("file", type=Path, metavar="FILE", help="in YAML, as notebooks/batch.yaml")
    added.add_argument("--timeout", type=_count, default=900, metavar="SECONDS", help="for each page")

    added = command("dockerfile", show_dockerfile, "print the Dockerfile of one cell")
    added.add_argument("base", help="one of " + ", ".join(matrix.BASES))
    added.add_argument(
        "--profile", default="optimized", help=f"one of {', '.join(profiles.everything())}, or some joined by +"
    )
    added.add_argument("--allocator", default=matrix.ARTICLE,
                       help="one of " + ", ".join((matrix.ARTICLE, *matrix.ALLOCATORS)))  # fmt: skip
    added.add_argument("--debian", default=matrix.DEBIAN, help="one of " + ", ".join(matrix.RELEASES))

    command("doctor", doctor, "what this machine has, and what it lacks")
    command("clean", clean, "remove this clone's containers and images, and nothing else")
    command("test", test, "ruff and pytest, notebooks included; other options go to pytest")
    return parser


def _cell_options(added: argparse.ArgumentParser, run: str) -> None:
    allocators = ",".join((matrix.ARTICLE, *matrix.ALLOCATORS))
    added.add_argument(
        "--run", default=run, metavar="NAME", help=f"the run to write to or go on with; '{run}' unless given"
    )
    added.add_argument("--bases", type=_names, help="of " + ",".join(matrix.BASES))
    added.add_argument("--profiles", type=_names, help=f"of {','.join(profiles.everything())}, or some joined by +")
    added.add_argument("--allocators", type=_names, help=f"of {allocators}")
    added.add_argument("--base", action="append", default=[], metavar="NAME=SOURCE",
                       help="for a base or the builder (rust), take this image, archive or `packages`")  # fmt: skip
    added.add_argument("--registry", metavar="HOST[:PORT][/PREFIX]",
                       help="ask this registry for the official images, in place of their own")  # fmt: skip
    added.add_argument("--debian", default=matrix.DEBIAN, metavar="RELEASE",
                       help="for builder, slim and distroless, of " + ",".join(matrix.RELEASES))  # fmt: skip
    added.add_argument("--builder", metavar="NAME", help="the buildx builder to use, passed through")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of 1 or more")
    return int(text)


def _blocks(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _counts(text: str) -> list[int]:
    return [_count(each) for each in text.split(",")]


def _width(text: str) -> float:
    number = text.removesuffix("%")
    if not number.replace(".", "", 1).isdecimal() or not float(number):
        raise argparse.ArgumentTypeError(f"'{text}' is no width in percent, as 5 or 2.5%")
    return float(number) / 100


def _names(text: str) -> list[str]:
    if not (names := [name for name in text.split(",") if name]):
        raise argparse.ArgumentTypeError(f"'{text}' names nothing")
    return names


if __name__ == "__main__":
    sys.exit(main())
