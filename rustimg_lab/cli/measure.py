"""Commands that build and measure: run, measure, probe."""

import argparse
from dataclasses import replace

from rustimg_lab.build import lab_toml
from rustimg_lab.cli import output
from rustimg_lab.cli.selection import chosen_cells, chosen_grid, image_sources, load_app, matching
from rustimg_lab.errors import LabError
from rustimg_lab.measure import workloads
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import Plan
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App
from rustimg_lab.model.studies import KINDS, LOAD_OPTIONS, Kind
from rustimg_lab.paths import DEFAULT_RUN, PROBES_RUN, ROOT, STUDIES_RUN
from rustimg_lab.pipeline import planner as pipeline_planner
from rustimg_lab.pipeline import probes
from rustimg_lab.pipeline.grid import run_grid
from rustimg_lab.pipeline.session import Request
from rustimg_lab.pipeline.studies import run_studies


def run(options: argparse.Namespace) -> int:
    app = load_app(options)
    options.run = options.run or (app.package if options.app else DEFAULT_RUN)
    usual = matrix.usual(options.grid, options.debian)
    cells = chosen_cells(options, app, usual)
    lab_toml.refuse_allocators(app, cells)
    study = None
    if options.blocks and not options.knobs and (app.serve or not options.app):
        grid = chosen_grid(options, app, usual)
        load, plan = pipeline_planner.load_of(app), Plan(options.blocks)
        studied = matching(pipeline_planner.short(*grid, options.debian), options.only)
        study = studied, pipeline_planner.planner("throughput", [load], plan, app)
    return _ended(options.run, run_grid(_request(options, app), cells, study))


def measure(options: argparse.Namespace) -> int:
    kind, app = KINDS[options.study], load_app(options)
    options.run = options.run or (app.package if options.app else STUDIES_RUN)
    programs = pipeline_planner.programs(app, kind, options.app)
    loads = _chosen_loads(options, kind, app)
    usual = replace(kind, bases=matrix.ARTICLE_BASES) if options.app and not kind.of_builds else kind
    if kind.of_builds and not options.knobs:  # each cell is minutes of a trial: not every allocator of an own app
        options.allocators = options.allocators or kind.allocators
    cells = chosen_cells(options, app, usual)
    lab_toml.refuse_allocators(app, cells)
    plan = Plan(options.blocks, options.width, options.baseline, options.seed)
    planner = pipeline_planner.planner(options.study, loads, plan, programs[0])
    return _ended(options.run, run_studies(_request(options, programs[0]), cells, programs, planner, kind))


def probe(options: argparse.Namespace) -> int:
    app = load_app(options)
    options.run = options.run or (f"{app.package}-{PROBES_RUN}" if options.app else PROBES_RUN)
    cells = matrix.grid(*chosen_grid(options, app, matrix.usual("article", options.debian)), options.debian)
    cells = matching(cells, options.only)
    if options.additions:  # beside those without: what they cost, and what they mend, is the difference
        cells += [replace(cell, additions=options.additions) for cell in cells]
    lab_toml.refuse_allocators(app, cells)
    server = app.server if app.serve or not options.app else None
    return _ended(options.run, probes.run_probes(_request(options, app), cells, server))


def make_report(name: str, form: str = "html") -> None:
    """Tells the short tables of a run (of several, of each), makes their page and tells where it is."""
    from rustimg_lab.report import publish, sections, terminal  # they load Jupyter's packages

    for run in sections.names(name):
        output.load(run)
        for notebook, parameters in sections.parts(run):
            if sections.SECTIONS[notebook].summary:
                output.console.print(terminal.summary(run, notebook, parameters))
    print(f"report: {publish.whole(name, form, lambda text: print(f'lab: {text}')).relative_to(ROOT)}")


def _ended(run: str, failures: list[str]) -> int:
    """The report, and every failure last; those are told also where there can be no report."""
    try:
        make_report(run)
    finally:
        code = output.exit_code(failures)
    return code


def _request(options: argparse.Namespace, app: App) -> Request:
    return Request(app, options.run, image_sources(options), options.builder, output.console, options.told)


def _chosen_loads(options: argparse.Namespace, kind: Kind, app: App) -> list[Load]:
    """What the servers of a study are put under. Raises LabError for an option that says nothing to such a study."""
    usual = pipeline_planner.USUAL_LOAD
    for name in LOAD_OPTIONS:
        if getattr(options, name) is not None and name not in kind.load:
            raise LabError(f"--{name} says nothing to a study of {options.study}: leave it out")
    if options.app and options.workload:
        raise LabError("--workload is of myip's server; what an own one is asked stands in its lab.toml")
    if options.app:
        asked = [workloads.own(app)] if app.serve else []
    else:
        asked = list(map(workloads.find, options.workload or [usual.workload.name]))
    if len(asked) > 1 and kind.load != LOAD_OPTIONS:
        raise LabError(f"--workload: a study of {options.study} asks one; name one of {', '.join(options.workload)}")
    connections, warmup_s = options.connections or usual.connections, options.warmup or usual.warmup_s
    several = [(workload, workers) for workload in asked for workers in options.workers or [usual.workers]]
    return [Load(*each, connections, warmup_s, options.seconds or usual.seconds) for each in several]
