"""What options stand for: the app, its cells, loads, and the sources of base images."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click

from rustimg_lab.build import lab_toml
from rustimg_lab.cli import output
from rustimg_lab.errors import LabError
from rustimg_lab.host.files import resolve_path
from rustimg_lab.measure import workloads
from rustimg_lab.model import factorial, matrix
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.profiles import PUBLISHED
from rustimg_lab.model.studies import LAYOUTS, LOAD_OPTIONS, USUAL_LAYOUTS, Kind
from rustimg_lab.paths import COMMAND, MYIP, WORKER

if TYPE_CHECKING:
    from rustimg_lab.build.bases import Sources
    from rustimg_lab.measure.load import Load
    from rustimg_lab.pipeline.machines import Spread
    from rustimg_lab.pipeline.session import Request


def load_app(options: SimpleNamespace) -> App:
    """Return the app of --app (default: myip). Raises LabError when its `lab.toml` cannot be used."""
    return lab_toml.load(resolve_path(options.app or MYIP))


def chosen_cells(options: SimpleNamespace, app: App, usual: matrix.Grid | None = None) -> list[matrix.Cell]:
    """Return the cells of `usual` (default: of --grid) or of those that are named; with --knobs those of the factorial.
    With --only, only cells that match are returned. Raises LabError when names, options or the app do not allow
    them."""
    grid = chosen_grid(options, app, usual or matrix.usual_grid(options.grid, options.debian))
    knobs, fraction = getattr(options, "knobs", None), getattr(options, "fraction", None)  # probe has neither
    if knobs:
        allocators = grid[2] if options.app else factorial.ALLOCATORS
        names = options.allocators or [name for name in (matrix.OWN, *factorial.ALLOCATORS) if name in allocators]
        cells = factorial.cells(options.bases or factorial.BASES, knobs, names, options.debian, fraction)
    else:
        cells = matrix.grid(*grid, options.debian)
    cells = [replace(cell, architecture=arch) for arch in options.architectures or [NATIVE] for cell in cells]
    cells = filter_cells(cells, options.only)
    matrix.refuse_additions(getattr(options, "additions", ()), cells)  # not every command has --with
    lab_toml.refuse_cells(app, cells)
    return cells


def with_additions(cells: list[matrix.Cell], options: SimpleNamespace) -> list[matrix.Cell]:
    """Return the cells, each with the additions of --with (none without that option)."""
    return [replace(cell, additions=options.additions) for cell in cells]


def with_layouts(cells: list[matrix.Cell], options: SimpleNamespace, app: App) -> list[matrix.Cell]:
    """Return --layouts layouts of each cell for a study of layouts; for another study return the cells. Raises LabError
    for an option that does not apply, and for a cell that lld does not link."""
    option = "width" if options.study == LAYOUTS else "layouts"  # more blocks do not narrow what layouts spread
    if getattr(options, option):
        raise LabError(f"--{option} does not apply to --study {options.study}: leave it out")
    if options.study != LAYOUTS:
        return cells
    seeds = range(1, (options.layouts or USUAL_LAYOUTS) + 1)
    layouts = [replace(cell, layout=seed) for cell in cells for seed in seeds]
    lab_toml.refuse_cells(app, layouts)
    return layouts


def filter_cells(cells: list[matrix.Cell], patterns: list[str] | None) -> list[matrix.Cell]:
    """Return the cells whose names match one of the patterns (wildcards as in a shell); without patterns all cells.
    Raises LabError when no cell matches."""
    matches = [cell for cell in cells if not patterns or any(fnmatchcase(cell.slug, pattern) for pattern in patterns)]
    if not matches:
        raise LabError(f"--only {','.join(patterns)}: no cell matches; there are {', '.join(map(str, cells))}")
    return matches


def chosen_grid(options: SimpleNamespace, app: App, usual: matrix.Grid) -> list[Sequence[str]]:
    """Return the bases, profiles and allocators that were named, else those of `usual`. With --app the profile
    `published` comes first."""
    allocators = options.allocators or (lab_toml.allocators(app) if options.app else usual.allocators)
    profiles = [PUBLISHED.name, *usual.profiles] if options.app else usual.profiles
    return [options.bases or usual.bases, options.profiles or profiles, allocators]


def image_sources(options: SimpleNamespace) -> "Sources":
    """Return where base images come from. Raises LabError for an invalid base, image or registry."""
    from rustimg_lab.build import bases, registry

    mirror = registry.parse(options.registry) if options.registry else ""
    return bases.Sources(bases.parse_named(options.base), mirror, options.debian)


def chosen_loads(options: SimpleNamespace, kind: Kind, app: App) -> "list[Load]":
    """Return the loads of a study, one per workload and number of workers; none for an app that cannot be measured.
    Raises LabError for an option that does not apply, and when the number of workers depends on an engine that does not
    answer."""
    from rustimg_lab.pipeline import planner  # loads pandas

    for name in (*LOAD_OPTIONS, "rest"):
        if getattr(options, name) is not None and name not in kind.load:
            raise LabError(f"--{name} does not apply to --study {options.study}: leave it out")
    if options.app and options.workload:
        raise LabError("--workload applies to myip's server; the requests of your own are in its lab.toml")
    if app.work and options.connections:
        raise LabError("--connections: the calls of [work] come one after another; leave it out")
    usual = planner.load_of(app) if options.app else planner.USUAL_LOAD
    if options.app:
        workload_list = [usual.workload] if app.is_measured else []
    else:
        workload_list = list(map(workloads.find_workload, options.workload or [usual.workload.name]))
    if len(workload_list) > 1 and "workers" not in kind.load:
        raise LabError(f"--workload: a study of {options.study} asks one; name one of {', '.join(options.workload)}")
    overrides = {"warmup_s": options.warmup, "seconds": options.seconds, "connections": options.connections}
    usual = replace(usual, **{name: value for name, value in overrides.items() if value})
    workers = options.workers or planner.usual_workers(app, kind)
    return [replace(usual, workload=workload, workers=number) for workload in workload_list for number in workers]


def request(options: SimpleNamespace, app: App) -> "Request":
    """Return the request to the pipeline: the app, the run, sources, builder, console, and the command as it was
    typed."""
    from rustimg_lab.pipeline.session import Request

    brought = dict(pair.partition("=")[::2] for pair in getattr(options, "brought", None) or [])  # measure alone has it
    return Request(app, options.run, image_sources(options), options.builder, output.console, typed_command(), brought)


def spread(options: SimpleNamespace, app: App, without: set[str]) -> "Spread":
    """Return what the workers of --scheduler get: the command as it was typed, without the options that only the client
    uses and those of `without`. Raises LabError with --arch, since each worker builds for its own architecture."""
    from rustimg_lab.pipeline.machines import Spread

    if options.architectures:
        raise LabError("--arch: with --scheduler each worker builds for its own architecture; leave it out")
    arguments, of_worker = list(click.get_current_context().obj), []
    while arguments:
        argument = arguments.pop(0)
        name, _, value = argument.partition("=")
        if name not in _OF_CLIENT | without:
            of_worker.append(argument)
        elif not value and name != "--insecure":
            arguments.pop(0)
    return Spread(
        options.run, tuple(of_worker), typed_command(), app if options.app else None, options.scheduler,
        options.insecure, output.console,
    )  # fmt: skip


_OF_CLIENT = {"--scheduler", "--insecure", "--push-to", "--run", "--app", "--blocks"}


def typed_command() -> str:
    """Return the command as it was typed, with the last part of each path alone."""
    if of_client := os.environ.get(WORKER):
        return of_client
    arguments = click.get_current_context().obj
    return shlex.join([COMMAND, *map(_without_folder, arguments)])


def _without_folder(word: str) -> str:
    """A word of a command with the last part of its path alone; names of runs and images are no paths."""
    option, mark, value = word.rpartition("=")
    # Path.exists fails on long names.
    is_path = value[:1] in ("/", ".", "~") or ("/" in value and os.path.exists(value))  # noqa: PTH110
    return f"{option}{mark}{value.rstrip('/').rpartition('/')[2]}" if is_path else word
