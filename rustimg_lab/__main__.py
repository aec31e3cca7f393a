"""The command line; no logic of its own.

What makes pages is imported where it is called: Jupyter's packages take two seconds, and most commands need none.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rustimg_lab import (
    additions,
    apps,
    bases,
    build,
    choice,
    deployment,
    disk,
    dockerfile,
    elsewhere,
    engine,
    factorial,
    guard,
    host,
    matrix,
    pipeline,
    profiles,
    short,
    store,
    values,
)
from rustimg_lab.errors import LabError
from rustimg_lab.matrix import App
from rustimg_lab.measure import studies, trials, workloads
from rustimg_lab.measure.loading import Load
from rustimg_lab.paths import MYIP, NOTEBOOKS, ROOT

FORMATS = ("html", "pdf", "md")
PYTEST = (sys.executable, "-m", "pytest")

Option = Callable[..., object]  # adds an option to a command, as `add_argument` does

console = Console(width=None if sys.stdout.isatty() else 120)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. 0: all is well; 1: a cell or a test failed; 2: it could not be done; 130: interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in order, as with Ctrl-C
    try:
        parser = _parser()
        options, options.rest = parser.parse_known_args(arguments)
        options.told = _told_command(sys.argv[1:] if arguments is None else arguments)
        if options.rest and options.command not in (test, notebook):
            parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
        code = options.command(options)
        sys.stdout.flush()
        return code
    except LabError as error:
        print(f"lab: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads has enough, as `head` has; the interpreter would say so at its end once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if not disk.is_full(error):
            raise
        print(f"lab: {disk.DiskFull('nothing more can be written', [ROOT], disk.GRID_BYTES)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    app = _app(options)
    options.run = options.run or (app.package if options.app else store.DEFAULT_RUN)
    usual = matrix.usual(options.grid, options.debian)
    cells = _cells(options, app, usual)
    apps.refuse_allocators(app, cells)
    study = None
    if options.blocks and not options.knobs and (app.serve or not options.app):
        grid = _grid(options, app, usual)
        plan, load = trials.Plan(options.blocks), studies.USUAL_LOAD
        if app.serve:
            load = replace(load, workload=workloads.own(app))
        study = studies.short(*grid, options.debian), studies.planner("throughput", [load], plan, app)
    return _ended(options.run, pipeline.run_grid(cells, app, options.run, study=study, **_building(options)))


def measure(options: argparse.Namespace) -> int:
    kind, app = studies.KINDS[options.study], _app(options)
    options.run = options.run or (app.package if options.app else store.STUDIES_RUN)
    if options.app and not app.serve and not kind.of_builds:
        raise LabError(f"{options.app / apps.FILE}: has no [serve], which says how its server is started and asked")
    if options.study == deployment.KIND:
        elsewhere.check()
    loads = _loads(options, kind, app)
    usual = replace(kind, bases=matrix.ARTICLE_BASES) if options.app and not kind.of_builds else kind
    if kind.of_builds and not options.knobs:  # each cell is minutes of a trial: not every allocator of an own app
        options.allocators = options.allocators or kind.allocators
    cells = _cells(options, app, usual)
    apps.refuse_allocators(app, cells)
    plan = trials.Plan(options.blocks, options.width, options.baseline, options.seed)
    measured = app if options.app else app.server
    programs = [measured, app] if kind.of_clients and not app.serve else [measured]
    planner = studies.planner(options.study, loads, plan, measured)
    building = {"cold": kind.of_builds, **_building(options)}
    return _ended(options.run, pipeline.run_studies(cells, programs, options.run, planner, kind.tools, **building))


def probe(options: argparse.Namespace) -> int:
    app = _app(options)
    options.run = options.run or (f"{app.package}-{store.PROBES_RUN}" if options.app else store.PROBES_RUN)
    cells = matrix.grid(*_grid(options, app, matrix.usual("article", options.debian)), options.debian)
    if options.additions:  # beside those without: what they cost, and what they mend, is the difference
        cells += [replace(cell, additions=options.additions) for cell in cells]
    apps.refuse_allocators(app, cells)
    programs = [app, app.server] if app.serve or not options.app else [app]
    return _ended(options.run, pipeline.run_probes(cells, programs, options.run, **_building(options)))


def show_report(options: argparse.Namespace) -> int:
    _report(options.named or options.run, options.format)
    return 0


def choose(options: argparse.Namespace) -> int:
    limits = {"transfer": options.max_transfer, "memory": options.max_memory, "startup": options.max_startup}
    if bool(options.deploys) != bool(options.bandwidth) or (options.requests and not options.deploys):
        raise LabError("what a day brings is told by --deploys and --bandwidth together, and --requests beside them")
    day = choice.Day(options.deploys, options.bandwidth, options.requests) if options.deploys else None
    weights = options.weights or {choice.DAY if day else "transfer": 1.0}
    limits = {name: limit for name, limit in limits.items() if limit}
    wishes = choice.Wishes(limits, options.min_throughput, options.shell, options.stable, weights, day)
    found = choice.choose(_rows(options.run), wishes, options.workload)
    console.print(short.candidates(options.run, found))
    for line in choice.evidence(found):
        console.print(escape(line), highlight=False, soft_wrap=True)
    if not found.picked:
        return 1
    text = store.dockerfile(options.run, found.picked)
    cell = found.table.loc[found.picked, ["base", "profile", "allocator"]]
    print(f"\n--- without the Dockerfile\n{choice.cargo_profile(*cell)}")
    print(f"--- Dockerfile\n{text}", end="")
    return 0


def compare(options: argparse.Namespace) -> int:
    before, after = (_rows(name) for name in (options.before, options.after))
    names = f"{options.before} -> {options.after}"
    sizes, differs = guard.sizes(before, after), guard.other_machine(before, after)
    changed = store.changed_dockerfiles(options.before, options.after)
    inputs = guard.inputs(before, after)
    inputs += [f"machine: {', '.join(differs)}"] if differs else []
    inputs += [f"Dockerfiles of {', '.join(changed)}"] if changed else []
    for line in inputs:
        print(f"differs: {line}")
    if sizes.empty:
        print(f"{names}: no cell has a size in either run")
    else:
        console.print(short.changed_sizes(names, sizes))
    speeds = guard.speeds(before, after, options.across_machines)
    for note in speeds.attrs["notes"]:
        print(f"note: {note}")
    if speeds.empty:
        print("the two runs have measured no cell alike: nothing to say of speed")
    else:
        console.print(short.changed_speeds(names, speeds))
    return 0


def check(options: argparse.Namespace) -> int:
    if options.max_regression and not options.against:
        raise LabError("--max-regression: over which run? name it with --against NAME")
    after = _rows(options.run)
    before = _rows(options.against) if options.against else None
    limits = guard.Limits(options.max_transfer or 0, options.max_regression)
    broken = guard.check(after, limits, before, options.across_machines)
    print(guard.markdown(options.run, after, broken, before), end="")
    return _told([f"{each.cell}: {' '.join(each.what.split())}" for each in broken])


def make_batch(options: argparse.Namespace) -> int:
    from rustimg_lab import batch

    pages = batch.read(options.file)
    table = Table("page", "outcome", box=None)

    def on_page(number: int, page: batch.Page, outcome: str) -> None:
        print(f"lab: {number} of {len(pages)}: {page}: {outcome}")
        table.add_row(escape(str(page)), escape(outcome))

    failures = batch.make(pages, options.timeout, on_page)
    console.print(table)
    return _told(failures)


def show_dockerfile(options: argparse.Namespace) -> int:
    app = _app(options)
    allocator = options.allocator or ("system" if options.app else matrix.ARTICLE)
    cell = matrix.cell(options.base, options.profile, allocator, options.debian, options.additions)
    apps.refuse_allocators(app, [cell])
    sys.stdout.write(dockerfile.render(cell, app))
    return 0


def init(options: argparse.Namespace) -> int:
    def say(text: str) -> None:
        print(f"lab: {text}")

    matrix.release(options.debian)
    with engine.readable_errors():
        engine.client()
        host.prepare(say)
        builder = bases.resolve(matrix.BUILDER, _sources(options), say, host.ca_bundle())
        print(f"lab: wrote {apps.init(options.path.resolve(), options.binary, builder.image)}; look through it, then")
    print(f"  ./lab run --app {options.path}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    findings = host.findings()
    table = Table("", "what", "found", "what to do", box=None)
    for finding in findings:
        table.add_row(finding.mark, finding.name, finding.found, "" if finding.ok else finding.remedy)
    console.print(table)
    return 0 if all(finding.ok or not finding.required for finding in findings) else 2


def clean(options: argparse.Namespace) -> int:
    containers = engine.remove_containers(all_of_ours=True)
    elsewhere.remove_left()
    images, kept = engine.remove_images()
    print(f"removed {containers} containers and {images} images of this lab")
    for line in kept:
        print(f"kept {line}")
    print(f"left: the engine's build cache, which is not the lab's alone; it holds {build.cache_size()}")
    return 0


def notebook(options: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"]
    command += ["--allow-root"] if os.geteuid() == 0 else []
    # The kernel of this venv, also where the user has another of the same name.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    return subprocess.run([*command, *options.rest], cwd=NOTEBOOKS, env=environment).returncode


def test(options: argparse.Namespace) -> int:
    for prepare, what in ((host.prepare, "an engine"), (host.prepare_browser, "a browser")):
        try:
            prepare(lambda text: print(f"lab: {text}"))
        except LabError as error:
            if os.environ.get("CI"):
                raise
            print(f"lab: {error}; tests that need {what} will be skipped")
    for command in (["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        if code := subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode:
            return code
    return subprocess.run([*PYTEST, *options.rest], cwd=ROOT).returncode if options.rest else _all_tests()


def _all_tests() -> int:
    """The studies and what else needs an engine, which leave half of two CPUs idle, beside the builds and what needs no
    engine; what the latter print comes at the end."""
    slowest = "--durations=30"
    apart = [slowest, "-m", "not engine or builds", "-o", "cache_dir=.pytest_cache/apart"]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen([*PYTEST, *apart], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT) as others,
    ):
        try:
            tests = subprocess.run([*PYTEST, slowest, "-m", "engine and not builds"], cwd=ROOT)
            codes = [tests.returncode, others.wait()]
        except BaseException:
            others.terminate()
            raise
        said.seek(0)
        sys.stdout.write(said.read().decode(errors="replace"))
    return max(codes, key=abs)


def _report(name: str, form: str = "html") -> None:
    """Tells the short tables of a run (of several, of each), makes their page and tells where it is."""
    from rustimg_lab import report

    for run in report.names(name):
        _rows(run)
        for notebook, parameters in report.parts(run):
            if notebook in short.SHORT:
                console.print(short.summary(run, notebook, parameters))
    print(f"report: {report.whole(name, form, lambda text: print(f'lab: {text}')).relative_to(ROOT)}")


def _ended(run: str, failures: list[str]) -> int:
    """The report, and every failure last; those are told also where there can be no report."""
    try:
        _report(run)
    finally:
        code = _told(failures)
    return code


def _told_command(arguments: list[str]) -> str:
    """What was typed, without the folders that a path leads through."""
    return shlex.join(["./lab", *(re.sub(r"(^|=)[/.~][^=]*/", r"\1", each.rstrip("/")) for each in arguments)])


def _app(options: argparse.Namespace) -> App:
    return apps.load((options.app or MYIP).resolve())


def _cells(options: argparse.Namespace, app: App, usual: matrix.Grid | studies.Kind) -> list[matrix.Cell]:
    """The cells of the grid, or with knobs of their factorial."""
    bases, profiles, allocators = _grid(options, app, usual)
    if not options.knobs:
        if options.fraction is not None:
            raise LabError("--fraction is of the cells that --knobs make: name those too")
        return matrix.grid(bases, profiles, allocators, options.debian)
    if options.profiles:
        raise LabError("--knobs make the profiles: leave --profiles out")
    if not options.bases:
        bases = factorial.BASES
    if not options.allocators:
        allocators = [name for name in factorial.ALLOCATORS if not options.app or name in allocators]
    return factorial.cells(bases, options.knobs, allocators, options.debian, options.fraction)


def _grid(
    options: argparse.Namespace, app: App, usual: matrix.Grid | studies.Kind
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """The bases, profiles and allocators that were named, else the usual ones; of an own app those that it can have."""
    allocators = options.allocators or (apps.allocators(app) if options.app else usual.allocators)
    return options.bases or usual.bases, options.profiles or usual.profiles, allocators


def _loads(options: argparse.Namespace, kind: studies.Kind, app: App) -> list[Load]:
    """What the servers of a study are put under. Raises LabError for an option that says nothing to such a study."""
    usual = studies.USUAL_LOAD
    for name in studies.LOAD_OPTIONS:
        if getattr(options, name) is not None and name not in kind.load:
            raise LabError(f"--{name} says nothing to a study of {options.study}: leave it out")
    if options.app and options.workload:
        raise LabError("--workload is of myip's server; what an own one is asked stands in its lab.toml")
    if options.app:
        asked = [workloads.own(app)] if app.serve else []
    else:
        asked = list(map(workloads.find, options.workload or [usual.workload.name]))
    if len(asked) > 1 and kind.load != studies.LOAD_OPTIONS:
        raise LabError(f"--workload: a study of {options.study} asks one; name one of {', '.join(options.workload)}")
    connections, warmup_s = options.connections or usual.connections, options.warmup or usual.warmup_s
    several = [(workload, workers) for workload in asked for workers in options.workers or [usual.workers]]
    return [Load(*each, connections, warmup_s, options.seconds or usual.seconds) for each in several]


def _rows(run: str) -> pd.DataFrame:
    """The rows of a run; those that cannot be read are told."""
    rows = store.load(run)
    for line in rows.attrs["broken"]:
        print(f"lab: {line}", file=sys.stderr)
    return rows


def _building(options: argparse.Namespace) -> dict[str, object]:
    """What `pipeline` takes of every command that builds."""
    return {"sources": _sources(options), "builder": options.builder, "console": console, "command": options.told}


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

    def command(name: str, function: object, text: str) -> Option:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=function)
        return added.add_argument

    add = command("run", run, "build every cell, measure it, write the report")
    add("--grid", choices=matrix.GRIDS, default="article", help="the cells, unless some are named")
    _app_option(add)
    _cell_options(add, store.DEFAULT_RUN)
    _knob_options(add)
    about = "of the short study of the servers under load that comes last; 0 for none"
    add("--blocks", type=values.blocks, default=5, metavar="N", help=about)

    add = command("measure", measure, "measure the cells in a study of randomized blocks")
    _app_option(add)
    _cell_options(add, store.STUDIES_RUN)
    _knob_options(add)
    about = "what is measured; each has cells of its own unless some are named"
    add("--study", choices=studies.KINDS, default="throughput", help=about)
    usual = studies.USUAL_LOAD
    kinds = "; ".join(f"{each.name}: {each.summary}" for each in workloads.WORKLOADS.values())
    about = f"what is asked; {usual.workload.name} unless given; {kinds}"
    add("--workload", type=values.names, metavar="NAME[,NAME...]", help=about)
    add("--blocks", type=values.count, default=20, metavar="N", help="how many; with --width at most so many")
    about = "end as soon as every 95%% interval is narrower, as high / low - 1"
    add("--width", type=values.percent, metavar="PERCENT", help=about)
    under_load = "; of studies under load"
    about = f"of load in a trial that count; {usual.seconds} unless given{under_load}"
    add("--seconds", type=values.count, metavar="N", help=about)
    about = f"seconds of load before those; {usual.warmup_s} unless given{under_load}"
    add("--warmup", type=values.count, metavar="N", help=about)
    about = f"the server's worker threads; {usual.workers} unless given{under_load}"
    add("--workers", type=values.counts, metavar="N[,N...]", help=about)
    about = f"that the load generator keeps open; {usual.connections} unless given{under_load}"
    add("--connections", type=values.count, metavar="N", help=about)
    add("--baseline", default="", metavar="CELL", help="BASE-PROFILE-ALLOCATOR; the first cell unless given")
    add("--seed", type=int, metavar="N", help="of the order in the blocks; drawn and recorded unless given")

    add = command("probe", probe, "what an image survives: TLS, DNS, time zones, signals, limits, what is in it")
    _app_option(add)
    _cell_options(add, store.PROBES_RUN, "that, behind the name of its package")
    _additions_option(add)

    add = command("report", show_report, "write the page of a run to share; needs no engine")
    about = f"'{store.RECORDED_RUN}' for all that is recorded of myip; '{store.DEFAULT_RUN}' unless given"
    add("named", nargs="?", metavar="RUN", help=f"a run, or several with commas between; {about}")
    add("--run", default=store.DEFAULT_RUN, metavar="NAME", help="the same")
    add("--format", choices=FORMATS, default="html", help="a PDF needs Chromium or Chrome")

    add = command("choose", choose, "pick the cell to ship, say why, and print its Dockerfile; needs no engine")
    about = f"a run with sizes and studies of the same cells; '{store.CHOICE_RUN}' unless given"
    add("--run", default=store.CHOICE_RUN, metavar="NAME", help=about)
    add("--max-transfer", type=values.size, metavar="SIZE", help="compressed, as 3MB")
    add("--max-memory", type=values.size, metavar="SIZE", help="resident under load, as 32MB")
    add("--max-startup", type=values.milliseconds, metavar="TIME", help="exec to first byte, as 5ms")
    add("--min-throughput", type=values.share, default=0, metavar="SHARE", help="of the best cell's, as 0.95")
    add("--shell", action="store_true", help="it must have a shell")
    add("--stable", action="store_true", help="no unstable compiler flags")
    add("--deploys", type=values.count, metavar="N", help="a day, to machines that lack the image")
    add("--bandwidth", type=values.bandwidth, metavar="RATE", help="of theirs, as 100Mbit or 1Gbit")
    add("--requests", type=values.count, default=0, metavar="N", help="a day, beside the deploys")
    about = f"of {', '.join(choice.CRITERIA)}, and with --deploys {choice.DAY}: what the one is picked by; "
    about += f"transfer=1 unless given, or with --deploys {choice.DAY}=1"
    add("--weights", type=values.weights, metavar="NAME=NUMBER[,...]", help=about)
    add("--workload", choices=[*workloads.WORKLOADS, workloads.OWN], default="", help="of the studies")

    add = command("compare", compare, "what changed between two runs; needs no engine")
    add("before", metavar="RUN_A")
    add("after", metavar="RUN_B")
    _across_option(add)

    add = command("check", check, "exit code 1 when a run breaks a limit, and a summary in Markdown; needs no engine")
    add("--run", default=store.DEFAULT_RUN, metavar="NAME", help="the run; 'article' unless given")
    add("--against", default="", metavar="NAME", help="the run that it may not grow over")
    add("--max-transfer", type=values.size, metavar="SIZE", help="compressed, of every cell, as 2MB")
    about = f"by how much each of {', '.join(guard.GUARDED)} may grow, as size=1%%,cpu=5%%"
    add("--max-regression", type=values.regressions, default={}, metavar="NAME=PERCENT[,...]", help=about)
    _across_option(add)

    add = command("batch", make_batch, "make the report pages of a grid of parameters; needs no engine")
    add("file", type=Path, metavar="FILE", help="in YAML, as notebooks/batch.yaml")
    add("--timeout", type=values.count, default=900, metavar="SECONDS", help="for each page")

    add = command("dockerfile", show_dockerfile, "print the Dockerfile of one cell")
    add("base", help="one of " + ", ".join(matrix.BASES))
    add("--profile", default="optimized", help=f"one of {', '.join(profiles.everything())}, or some joined by +")
    names = ", ".join((matrix.ARTICLE, *matrix.ALLOCATORS))
    about = f"one of {names}; {matrix.ARTICLE} unless given, or with --app system"
    add("--allocator", help=about)
    add("--debian", default=matrix.DEBIAN, help="one of " + ", ".join(matrix.RELEASES))
    _additions_option(add)
    _app_option(add)

    add = command("init", init, "write the lab.toml that `./lab run --app PATH` needs, from what cargo says")
    add("path", type=Path, metavar="PATH", help="a crate's folder, or a workspace member's")
    add("--binary", default="", metavar="NAME", help="which, where the crate has several")
    _source_options(add)

    command("doctor", doctor, "what this machine has, and what it lacks")
    command("notebook", notebook, "open JupyterLab on the notebooks; other options go to it, such as --no-browser")
    command("clean", clean, "remove this clone's containers and images, and nothing else")
    about = "ruff and pytest, notebooks included; --faults for all tests of faults; --engines for the tests on every "
    about += "engine of docs/engines.md (root, 40 minutes); other options go to pytest"
    command("test", test, about)
    return parser


def _across_option(add: Option) -> None:
    about = "hold speeds of two machines against each other too"
    add("--across-machines", action="store_true", help=about)


def _app_option(add: Option) -> None:
    add("--app", type=Path, metavar="PATH", help="a crate of your own, in which `./lab init` was called")


def _additions_option(add: Option) -> None:
    about = "; ".join(["added to it", *(f"{name}: {each.summary}" for name, each in additions.ADDITIONS.items())])
    add("--with", dest="additions", type=values.additions, default=(), metavar="NAME[,...]", help=about)


def _cell_options(add: Option, run: str, of_app: str = "the name of its package") -> None:
    allocators = ",".join((matrix.ARTICLE, *matrix.ALLOCATORS))
    about = f"the run to write to or go on with; '{run}' unless given, or with --app {of_app}"
    add("--run", metavar="NAME", help=about)
    add("--bases", type=values.names, help="of " + ",".join(matrix.BASES))
    add("--profiles", type=values.names, help=f"of {','.join(profiles.everything())}, or some joined by +")
    add("--allocators", type=values.names, help=f"of {allocators}")
    _source_options(add)
    add("--builder", metavar="NAME", help="the buildx builder to use, passed through")


def _knob_options(add: Option) -> None:
    usual = f"{','.join(factorial.BASES)}; {','.join(factorial.ALLOCATORS)}"
    about = "profiles to turn on and off in every combination, on two bases and with two allocators unless fewer are "
    about += f"named ({usual}): what each bought is then told, in the place of the short study"
    add("--knobs", type=values.names, default=[], metavar="PROFILE[,...]", help=about)
    about = "of those combinations build a fraction, and N more by which what it predicts of the others is scored"
    add("--fraction", type=values.blocks, metavar="N", help=about)


def _source_options(add: Option) -> None:
    about = "for a base or the builder (rust), take this image, archive or `packages`"
    add("--base", action="append", default=[], metavar="NAME=SOURCE", help=about)
    about = "ask this registry for the official images, in place of their own"
    add("--registry", metavar="HOST[:PORT][/PREFIX]", help=about)
    about = "for builder, slim and distroless, of " + ",".join(matrix.RELEASES)
    add("--debian", default=matrix.DEBIAN, metavar="RELEASE", help=about)


if __name__ == "__main__":
    sys.exit(main())
