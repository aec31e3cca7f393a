"""The command line; no logic of its own."""

import argparse
import os
import signal
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from rustimg_lab import bases, build, disk, dockerfile, engine, host, matrix, pipeline, report, store
from rustimg_lab.errors import LabError
from rustimg_lab.measure import startup, throughput, trials, workloads
from rustimg_lab.measure.throughput import Load
from rustimg_lab.paths import MYIP, ROOT

# By study the bases, profiles and allocators that it takes unless it is told others.
STUDIES = {
    "throughput": (["scratch", "debian"], ["optimized"], list(matrix.ALLOCATORS)),
    "startup": (list(matrix.BASES), ["optimized"], [matrix.ARTICLE]),
}
console = Console(width=None if sys.stdout.isatty() else 120)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. 0: all is well; 1: a cell or a test failed; 2: it could not be done; 130: interrupted."""
    parser = _parser()
    options, options.pytest = parser.parse_known_args(arguments)
    if options.pytest and options.command is not test:
        parser.error(f"unrecognized arguments: {' '.join(options.pytest)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in order, as with Ctrl-C
    try:
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
    cells = matrix.grid(options.bases, options.profiles, options.allocators, options.debian)
    failures = pipeline.run_grid(
        cells, build.load_app(MYIP), options.run, sources=_sources(options), builder=options.builder, console=console
    )
    show_report(options)
    return _told(failures)


def measure(options: argparse.Namespace) -> int:
    asked = zip((options.bases, options.profiles, options.allocators), STUDIES[options.study], strict=True)
    cells = matrix.grid(*(named or usual for named, usual in asked), debian=options.debian)
    app = build.load_app(MYIP)
    plan = trials.Plan(options.blocks, options.width, options.baseline, options.seed)
    loads = [
        Load(workloads.find(name), options.workers, options.connections, options.warmup, options.seconds)
        for name in options.workload
    ]

    def studies(built: list, run: store.Run, tools: str) -> pipeline.Studies:
        if options.study == "startup":
            yield from startup.studies(*built, plan, run, tools)
        else:
            for load in loads:
                yield from throughput.studies(load, *built, plan, run, tools)

    apps = [app.server, app] if options.study == "startup" else [app.server]
    failures = pipeline.run_studies(
        cells, apps, options.run, studies, sources=_sources(options), builder=options.builder, console=console
    )
    show_report(options)
    return _told(failures)


def show_report(options: argparse.Namespace) -> int:
    for notebook, parameters in report.parts(options.run):
        page = report.render(options.run, notebook, parameters)
        console.print(report.summary(options.run, notebook, parameters))
        print(f"report: {page.relative_to(ROOT)}")
    for line in store.load(options.run).attrs["broken"]:
        print(f"lab: {line}", file=sys.stderr)
    return 0


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
    _cell_options(added, list(matrix.BASES), list(matrix.PROFILES), [matrix.ARTICLE])

    added = command("measure", measure, "measure the cells in a study of randomized blocks")
    _cell_options(added, [], [], [])
    added.add_argument("--study", choices=STUDIES, default="throughput",
                       help="what is measured; each has cells of its own unless some are named")  # fmt: skip
    added.add_argument("--workload", type=_names, default=["batch"], help="of " + ",".join(workloads.WORKLOADS))
    added.add_argument("--blocks", type=_count, default=20, metavar="N", help="how many; with --width at most so many")
    added.add_argument("--width", type=_width, metavar="PERCENT",
                       help="end as soon as every 95%% interval is narrower, as high / low - 1")  # fmt: skip
    added.add_argument("--seconds", type=_count, default=2, metavar="N", help="of load in a trial that count")
    added.add_argument("--warmup", type=_count, default=1, metavar="N", help="seconds of load before those")
    added.add_argument("--workers", type=_count, default=1, metavar="N", help="the server's worker threads")
    added.add_argument("--connections", type=_count, default=16, metavar="N", help="that the load generator keeps open")
    added.add_argument(
        "--baseline", default="", metavar="CELL", help="BASE-PROFILE-ALLOCATOR; the first cell unless given"
    )
    added.add_argument(
        "--seed", type=int, metavar="N", help="of the order in the blocks; drawn and recorded unless given"
    )

    added = command("report", show_report, "write the report of a run; needs no engine")
    added.add_argument("--run", default=store.DEFAULT_RUN, metavar="NAME", help=f"a run, or '{store.RECORDED_RUN}'")

    added = command("dockerfile", show_dockerfile, "print the Dockerfile of one cell")
    added.add_argument("base", help="one of " + ", ".join(matrix.BASES))
    added.add_argument("--profile", default="optimized", help="one of " + ", ".join(matrix.PROFILES))
    added.add_argument("--allocator", default=matrix.ARTICLE,
                       help="one of " + ", ".join((matrix.ARTICLE, *matrix.ALLOCATORS)))  # fmt: skip
    added.add_argument("--debian", default=matrix.DEBIAN, help="one of " + ", ".join(matrix.RELEASES))

    command("doctor", doctor, "what this machine has, and what it lacks")
    command("clean", clean, "remove this clone's containers and images, and nothing else")
    command("test", test, "ruff and pytest, notebooks included; other options go to pytest")
    return parser


def _cell_options(added: argparse.ArgumentParser, of_bases: list, of_profiles: list, of_allocators: list) -> None:
    allocators = ",".join((matrix.ARTICLE, *matrix.ALLOCATORS))
    added.add_argument("--run", default=store.DEFAULT_RUN, metavar="NAME", help="the run to write to or go on with")
    added.add_argument("--bases", type=_names, default=of_bases, help="of " + ",".join(matrix.BASES))
    added.add_argument("--profiles", type=_names, default=of_profiles, help="of " + ",".join(matrix.PROFILES))
    added.add_argument("--allocators", type=_names, default=of_allocators, help=f"of {allocators}")
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


def _width(text: str) -> float:
    number = text.removesuffix("%")
    if not number.replace(".", "", 1).isdecimal() or not float(number):
        raise argparse.ArgumentTypeError(f"'{text}' is no width in percent, as 5 or 2.5%")
    return float(number) / 100


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    sys.exit(main())
