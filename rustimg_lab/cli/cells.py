"""Commands that print or write what would be built, and need no engine: cells, dockerfile, bake."""

import json
from dataclasses import replace
from types import SimpleNamespace

import click

from rustimg_lab.cli import output, selection
from rustimg_lab.cli.options import ADDITIONS, ALLOCATORS, APP, ARCH, DEBIAN, PROFILES, SELECTION, command, option
from rustimg_lab.cli.types import Names
from rustimg_lab.errors import LabError
from rustimg_lab.model import bases, matrix
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.profiles import PUBLISHED


@command(*SELECTION)
def cells(options: SimpleNamespace) -> int:
    """List the cells that the options select."""
    print(*selection.chosen_cells(options, selection.load_app(options)), sep="\n")
    return 0


@command(
    click.Argument(["base"], type=Names("base", bases.all_bases()), default="scratch"),
    option("--profile", "build profile:", Names("profile", PROFILES, joined=True), shown="optimized; --app: published"),
    option("--allocator", "allocator:", Names("allocator", ALLOCATORS), shown=f"{matrix.ARTICLE}; --app: its first"),
    *(ARCH, DEBIAN, ADDITIONS, APP),
    option("--write", "write it with .dockerignore and compose.yaml to the folder of --app's sources", is_flag=True),
)
def dockerfile(options: SimpleNamespace) -> int:
    """Print the Dockerfile of one cell. BASE is a base image (default: scratch).

    With --app and --allocator the profile is `optimized`. With --write it is written to the folder that builds get, and
    nothing that is there already is replaced."""
    from rustimg_lab.build import beside, dockerfile, lab_toml

    if options.write and not options.app:
        raise LabError("--write puts files beside a crate of yours: name it with --app PATH")
    if len(options.architectures or []) > 1:
        raise LabError("--arch: a Dockerfile is checked for one architecture; name one, or call it for each")
    app = selection.load_app(options)
    profile = options.profile or (PUBLISHED.name if options.app and not options.allocator else "optimized")
    default = lab_toml.allocators(app)[0] if options.app and profile != PUBLISHED.name else matrix.ARTICLE
    cell = matrix.cell(options.base, profile, options.allocator or default, options.debian, options.additions)
    cell = replace(cell, architecture=(options.architectures or [NATIVE])[0])
    matrix.refuse_additions(cell.additions, [cell])
    lab_toml.refuse_cells(app, [cell])
    if not options.write:
        print(dockerfile.render(cell, app), end="")
        return 0
    paths = beside.write(app, dockerfile.render(cell, app, file="Dockerfile"))
    output.say(f"wrote {', '.join(path.name for path in paths)} in {app.directory}, for {cell}")
    return 0


@command(*SELECTION)
def bake(options: SimpleNamespace) -> int:
    """Print the file for `docker buildx bake` that builds the cells.

    `./lab bake | docker buildx bake -f -` builds them on the official images. A newer buildx asks before it reads a
    crate outside of the current folder: add `--allow=fs.read=PATH` to the second command."""
    from rustimg_lab.build import bake

    app = selection.load_app(options)
    print(json.dumps(bake.official_file(selection.chosen_cells(options, app), app), indent=1))
    return 0
