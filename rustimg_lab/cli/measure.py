"""Commands that build and measure: run, measure, probe."""

from dataclasses import replace
from types import SimpleNamespace

import click

from rustimg_lab.build import lab_toml
from rustimg_lab.cli import output, selection, types
from rustimg_lab.cli.options import ADDITIONS, GRID, KNOBS, SCHEDULER, command, option, run_options
from rustimg_lab.measure.workloads import WORKLOADS
from rustimg_lab.model import matrix
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.settings import KNOWN
from rustimg_lab.model.studies import KINDS, LAYOUTS, REST_S, USUAL_LAYOUTS, USUAL_LOAD
from rustimg_lab.paths import DEFAULT_RUN, PROBES_RUN, STUDIES_RUN

_WORKLOAD = "the requests; " + "; ".join(f"{workload.name}: {workload.summary}" for workload in WORKLOADS.values())

_WORKERS = "worker threads of the server under load, or of the program at work"
_WORKERS_SHOWN = "1; of throughput and memory 1,2, and with six CPUs or more 1,2,4..."
_SETTINGS = f"cells with these settings of their allocator beside those without: {', '.join(KNOWN)}"
_SEVERAL = click.IntRange(min=2)  # of one there is no variance


@command(
    GRID,
    *run_options(DEFAULT_RUN),
    *KNOBS,
    ADDITIONS,
    option("--blocks", "randomized blocks of the short study at the end; 0 for none", types.COUNT_OR_ZERO, 5),
    *SCHEDULER,
)
def run(options: SimpleNamespace) -> int:
    """Build every cell, measure it, write the report."""
    from rustimg_lab.measure.plan import Plan
    from rustimg_lab.pipeline import grid, planner

    app = selection.load_app(options)
    options.run = options.run or (app.package if options.app else DEFAULT_RUN)
    usual = matrix.usual_grid(options.grid, options.debian)
    cells = selection.with_additions(selection.chosen_cells(options, app, usual), options)
    if options.scheduler:
        from rustimg_lab.pipeline import machines

        spread = selection.spread(options, app, {"--only"})
        return output.finish(options.run, machines.run_cells(spread, cells))
    study, is_native = None, any(cell.architecture is NATIVE for cell in cells)
    if refusal := planner.refusal(app, KINDS["throughput"]):
        click.echo(f"note: no study: {refusal}")
    elif options.blocks and not options.knobs and (app.is_measured or not options.app) and is_native:
        study_cells = planner.short(*selection.chosen_grid(options, app, usual), options.debian)
        plan = planner.planner("throughput", [planner.load_of(app)], Plan(options.blocks), app)
        study = selection.with_additions(selection.filter_cells(study_cells, options.only), options), plan
    return output.finish(options.run, grid.run_grid(selection.request(options, app), cells, study))


@command(
    *run_options(STUDIES_RUN),
    *KNOBS,
    ADDITIONS,
    option("--study", "what is measured, on cells of its own by default:", types.Names("study", KINDS), "throughput"),
    option("--workload", _WORKLOAD, types.Names("workload", WORKLOADS, several=True), shown=USUAL_LOAD["workload"]),
    option("--blocks", "randomized blocks; with --width at most so many", types.COUNT, 20),
    option("--width", "end as soon as every 95% interval is narrower, as high / low - 1", types.PERCENT),
    option("--seconds", "measured seconds of a trial under load", types.COUNT, shown=USUAL_LOAD["seconds"]),
    option("--warmup", "seconds of load before those", types.COUNT, shown=USUAL_LOAD["warmup_s"]),
    option("--workers", _WORKERS, types.counts, shown=_WORKERS_SHOWN),
    option("--settings", _SETTINGS, types.settings, metavar="NAME=NUMBER[,...]"),
    option("--rest", "seconds from the end of the load until memory is read", types.COUNT, shown=REST_S),
    option("--connections", "connections of the load generator", types.COUNT, shown=USUAL_LOAD["connections"]),
    option(
        "--layouts",
        "orders of functions in which each cell is linked, study of layouts only",
        _SEVERAL,
        shown=USUAL_LAYOUTS,
    ),
    option("--baseline", "cell that others are compared with", default="", shown="the first", metavar="CELL"),
    option("--seed", "seed of the order in the blocks", click.INT, shown="drawn, and recorded"),
    # With these, a client of --scheduler calls its workers.
    option("--images-only", "build, and measure nothing", is_flag=True, hidden=True),
    option("--brought", "images that another machine has built", types.names, metavar="CELL=IMAGE[,...]", hidden=True),
    *SCHEDULER,
    option(
        "--push-to",
        "with --scheduler: where machines push images for others to pull",
        types.repository,
        metavar="HOST/REPOSITORY",
    ),
)
def measure(options: SimpleNamespace) -> int:
    """Measure the cells in a study of randomized blocks."""
    from rustimg_lab.measure.plan import Plan
    from rustimg_lab.pipeline import planner, studies

    kind, app = KINDS[options.study], selection.load_app(options)
    options.run = options.run or (app.package if options.app else STUDIES_RUN)
    programs = planner.programs(app, kind, options.app)
    is_long = kind.measures_builds or options.study == LAYOUTS  # each cell takes minutes: not every one of an own app
    usual = replace(kind, bases=matrix.ARTICLE_BASES) if options.app and not is_long else kind
    if is_long and not options.knobs:
        options.allocators = options.allocators or (lab_toml.allocators(app)[:1] if options.app else kind.allocators)
    cells = selection.with_additions(selection.chosen_cells(options, app, usual), options)
    cells = selection.with_layouts(cells, options, app)
    planner.refuse_settings(settings := tuple(options.settings or ()), cells, programs[0])
    planner.refuse_baseline(options.baseline, cells, settings)
    if options.scheduler:
        from rustimg_lab.pipeline import machines

        spread = selection.spread(options, app, set())
        of_builds = selection.spread(options, app, {"--only", "--settings"})
        moved = [] if is_long or kind.measures_clients else cells  # others are built where they are measured
        moved = machines.SharedImages(of_builds, programs[0].name, moved, options.push_to or "")
        factors = {"connections": [options.connections or planner.load_of(programs[0]).connections]}
        factors["workload"] = options.workload or [USUAL_LOAD["workload"]]
        factors |= {"workers": options.workers} if options.workers else {}
        return output.finish(options.run, machines.run_blocks(spread, moved, options.blocks, options.study, factors))
    width = options.width and options.width / 100
    plan = Plan(options.blocks, width, options.baseline, options.seed, settings, options.rest or REST_S)
    loads = selection.chosen_loads(options, kind, app)
    if not options.images_only:
        planner.refuse_loads(loads, kind)
    study_plan = None if options.images_only else planner.planner(options.study, loads, plan, programs[0])
    request = selection.request(options, programs[0])
    return output.finish(options.run, studies.run_studies(request, cells, programs, study_plan, kind))


@command(*run_options(PROBES_RUN, f"PACKAGE-{PROBES_RUN}"), ADDITIONS)
def probe(options: SimpleNamespace) -> int:
    """Run the robustness probes on each image: TLS, DNS, time zones, signals, limits; and list what is in it."""
    from rustimg_lab.pipeline import probes

    app = selection.load_app(options)
    options.run = options.run or (f"{app.package}-{PROBES_RUN}" if options.app else PROBES_RUN)
    options.profiles = options.profiles or matrix.PROFILES  # the program that probes has none of the crate's own
    cells = selection.chosen_cells(options, app, matrix.usual_grid("article", options.debian))
    if options.additions:  # beside those without: what they cost, and what they fix, is the difference
        cells += selection.with_additions(cells, options)
    server = app.server if app.serve or not options.app else None
    return output.finish(options.run, probes.run_probes(selection.request(options, app), cells, server))
