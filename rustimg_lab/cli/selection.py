"""What options stand for: the app, its cells, loads, and the sources of base images."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase

from rustimg_lab.build import lab_toml
from rustimg_lab.build.bases import Sources, parse_named, parse_registry
from rustimg_lab.errors import LabError
from rustimg_lab.model import factorial, matrix, studies
from rustimg_lab.model.app import App
from rustimg_lab.paths import MYIP


def load_app(options: argparse.Namespace) -> App:
    return lab_toml.load((options.app or MYIP).resolve())


def chosen_cells(options: argparse.Namespace, app: App, usual: matrix.Grid | studies.Kind) -> list[matrix.Cell]:
    """The cells of the grid, or with knobs of their factorial; with --only those that match."""
    bases, profiles, allocators = chosen_grid(options, app, usual)
    if not options.knobs:
        if options.fraction is not None:
            raise LabError("--fraction is of the cells that --knobs make: name those too")
        return matching(matrix.grid(bases, profiles, allocators, options.debian), options.only)
    if options.profiles:
        raise LabError("--knobs make the profiles: leave --profiles out")
    if not options.bases:
        bases = factorial.BASES
    if not options.allocators:
        allocators = [name for name in factorial.ALLOCATORS if not options.app or name in allocators]
    cells = factorial.cells(bases, options.knobs, allocators, options.debian, options.fraction)
    return matching(cells, options.only)


def matching(cells: list[matrix.Cell], patterns: list[str]) -> list[matrix.Cell]:
    """The cells whose names match one of the patterns, with the wildcards of a shell; all cells without a pattern.
    Raises LabError when none matches."""
    found = [cell for cell in cells if not patterns or any(fnmatchcase(cell.slug, each) for each in patterns)]
    if not found:
        raise LabError(f"--only {','.join(patterns)}: no cell matches; there are {', '.join(map(str, cells))}")
    return found


def chosen_grid(
    options: argparse.Namespace, app: App, usual: matrix.Grid | studies.Kind
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """The bases, profiles and allocators that were named, else the usual ones; of an own app those that it can have."""
    allocators = options.allocators or (lab_toml.allocators(app) if options.app else usual.allocators)
    return options.bases or usual.bases, options.profiles or usual.profiles, allocators


def image_sources(options: argparse.Namespace) -> Sources:
    registry = parse_registry(options.registry) if options.registry else ""
    return Sources(parse_named(options.base), registry, options.debian)
