"""What options stand for: the app, its cells, loads, and the sources of base images."""

import os
import re
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
from rustimg_lab.host.files import real
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
    """Return the app of --app, or myip. Raises LabError when its `lab.toml` cannot be used."""
    return lab_toml.load(real(options.app or MYIP))


def chosen_cells(options: SimpleNamespace, app: App, usual: matrix.Grid | None = None) -> list[matrix.Cell]:
    """Return the cells of `usual` (default: of --grid) or of those that are named, or with --knobs of their factorial;
    with --only those that match. Raises LabError when names, options or the app do not allow them."""
    grid = chosen_grid(options, app, usual or matrix.usual(options.grid, options.debian))
    knobs, fraction = getattr(options, "knobs", None), getattr(options, "fraction", None)  # probe has neither
    if knobs:
        known = grid[2] if options.app else factorial.ALLOCATORS
        names = options.allocators or [each for each in (matrix.OWN, *factorial.ALLOCATORS) if each in known]
        cells = factorial.cells(options.bases or factorial.BASES, knobs, names, options.debian, fraction)
    else:
        cells = matrix.grid(*grid, options.debian)
    cells = [replace(cell, architecture=each) for each in options.architectures or [NATIVE] for cell in cells]
    cells = matching(cells, options.only)
    matrix.refuse_additions(getattr(options, "additions", ()), cells)  # not every command has --with
    lab_toml.refuse(app, cells)
    return cells


def with_additions(cells: list[matrix.Cell], options: SimpleNamespace) -> list[matrix.Cell]:
    """Return the cells with what --with adds to each image."""
    return [replace(cell, additions=options.additions) for cell in cells]


def with_layouts(cells: list[matrix.Cell], options: SimpleNamespace, app: App) -> list[matrix.Cell]:
    """Return --layouts layouts of each cell for a study of those, else the cells. Raises LabError where none can be."""
    wrong = "width" if options.study == LAYOUTS else "layouts"  # more blocks do not narrow what layouts spread
    if getattr(options, wrong):
        raise LabError(f"--{wrong} does not apply to --study {options.study}: leave it out")
    if options.study != LAYOUTS:
        return cells
    seeds = range(1, (options.layouts or USUAL_LAYOUTS) + 1)
    layouts = [replace(cell, layout=seed) for cell in cells for seed in seeds]
    lab_toml.refuse(app, layouts)
    return layouts


def matching(cells: list[matrix.Cell], patterns: list[str] | None) -> list[matrix.Cell]:
    """Return the cells that match a pattern (a shell's wildcards), all without one. Raises LabError if none does."""
    found = [cell for cell in cells if not patterns or any(fnmatchcase(cell.slug, each) for each in patterns)]
    if not found:
        raise LabError(f"--only {','.join(patterns)}: no cell matches; there are {', '.join(map(str, cells))}")
    return found


def chosen_grid(options: SimpleNamespace, app: App, usual: matrix.Grid) -> list[Sequence[str]]:
    """Return the bases, profiles and allocators that were named, else the usual; of an own app `published` is first."""
    allocators = options.allocators or (lab_toml.allocators(app) if options.app else usual.allocators)
    profiles = [PUBLISHED.name, *usual.profiles] if options.app else usual.profiles
    return [options.bases or usual.bases, options.profiles or profiles, allocators]


def image_sources(options: SimpleNamespace) -> "Sources":
    """Return where base images come from. Raises LabError for a base, an image or a registry that cannot be one."""
    from rustimg_lab.build import bases, registry

    mirror = registry.parse(options.registry) if options.registry else ""
    return bases.Sources(bases.parse_named(options.base), mirror, options.debian)


def chosen_loads(options: SimpleNamespace, kind: Kind, app: App) -> "list[Load]":
    """Return a study's loads. Raises LabError for options that do not apply, and where no engine tells the CPUs."""
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
        asked = [usual.workload] if app.is_measured else []
    else:
        asked = list(map(workloads.find, options.workload or [usual.workload.name]))
    if len(asked) > 1 and "workers" not in kind.load:
        raise LabError(f"--workload: a study of {options.study} asks one; name one of {', '.join(options.workload)}")
    given = {"warmup_s": options.warmup, "seconds": options.seconds, "connections": options.connections}
    usual = replace(usual, **{name: value for name, value in given.items() if value})
    workers = options.workers or planner.usual_workers(app, kind)
    return [replace(usual, workload=each, workers=number) for each in asked for number in workers]


def request(options: SimpleNamespace, app: App) -> "Request":
    """Return what the pipeline gets: the app, the run, sources, builder, console, and what was typed."""
    from rustimg_lab.pipeline.session import Request

    brought = dict(each.partition("=")[::2] for each in getattr(options, "brought", None) or [])  # measure alone has it
    return Request(app, options.run, image_sources(options), options.builder, output.console, typed(), brought)


def spread(options: SimpleNamespace, app: App, without: set[str]) -> "Spread":
    """Return what workers of --scheduler get: the command as typed, but for the client's options and `without`."""
    from rustimg_lab.pipeline.machines import Spread

    if options.architectures:
        raise LabError("--arch: with --scheduler each worker builds for its own architecture; leave it out")
    rest, of_worker = list(click.get_current_context().obj), []
    while rest:
        argument = rest.pop(0)
        name, _, value = argument.partition("=")
        if name not in _OF_CLIENT | without:
            of_worker.append(argument)
        elif not value and name != "--insecure":
            rest.pop(0)
    return Spread(
        options.run, tuple(of_worker), typed(), app if options.app else None, options.scheduler, options.insecure,
        output.console,
    )  # fmt: skip


_OF_CLIENT = {"--scheduler", "--insecure", "--push-to", "--run", "--app", "--blocks"}


def typed() -> str:
    """Return the command as it was typed, without the folders that a path leads through."""
    if of_client := os.environ.get(WORKER):
        return of_client
    arguments = click.get_current_context().obj
    return shlex.join([COMMAND, *(re.sub(r"(^|=)[/.~][^=]*/", r"\1", each.rstrip("/")) for each in arguments)])
