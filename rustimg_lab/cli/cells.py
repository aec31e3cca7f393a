"""Commands that print what would be built, and need no engine: cells, dockerfile, bake."""

import json
from types import SimpleNamespace

import click

from rustimg_lab.cli import selection
from rustimg_lab.cli.options import ADDITIONS, ALLOCATORS, APP, CELLS, DEBIAN, GRID, KNOBS, PROFILES, command, option
from rustimg_lab.cli.types import Names
from rustimg_lab.model import bases, matrix
from rustimg_lab.model.profiles import PUBLISHED


@command(GRID, APP, *CELLS, *KNOBS, DEBIAN)
def cells(options: SimpleNamespace) -> int:
    """List the cells that the options select."""
    print(*selection.chosen_cells(options, selection.load_app(options)), sep="\n")
    return 0


@command(
    click.Argument(["base"], type=Names("base", bases.everything())),
    option("--profile", "build profile:", Names("profile", PROFILES, joined=True), shown="optimized; --app: published"),
    option("--allocator", "allocator:", Names("allocator", ALLOCATORS), shown=f"{matrix.ARTICLE}; with --app system"),
    *(DEBIAN, ADDITIONS, APP),
)
def dockerfile(options: SimpleNamespace) -> int:
    """Print the Dockerfile of one cell."""
    from rustimg_lab.build import dockerfile, lab_toml

    app = selection.load_app(options)
    profile = options.profile or (PUBLISHED.name if options.app and not options.allocator else "optimized")
    usual = lab_toml.allocators(app)[0] if options.app and profile != PUBLISHED.name else matrix.ARTICLE
    cell = matrix.cell(options.base, profile, options.allocator or usual, options.debian, options.additions)
    lab_toml.refuse(app, [cell])
    print(dockerfile.render(cell, app), end="")
    return 0


@command(GRID, APP, *CELLS, *KNOBS, DEBIAN)
def bake(options: SimpleNamespace) -> int:
    """Print the file for `docker buildx bake` that builds the cells.

    `./lab bake | docker buildx bake -f -` builds them on the official images. A newer buildx asks before it reads a
    crate outside of the current folder: add `--allow=fs.read=PATH` to the second command."""
    from rustimg_lab.build import bake

    app = selection.load_app(options)
    print(json.dumps(bake.official_file(selection.chosen_cells(options, app), app), indent=1))
    return 0
