"""Options that several commands share."""

from pathlib import Path

from rustimg_lab.cli import types
from rustimg_lab.model import extras, factorial, matrix
from rustimg_lab.model.profiles import everything


def across_option(add: types.Option) -> None:
    about = "hold speeds of two machines against each other too"
    add("--across-machines", action="store_true", help=about)


def app_option(add: types.Option) -> None:
    add("--app", type=Path, metavar="PATH", help="a crate of your own, in which `./lab init` was called")


def additions_option(add: types.Option) -> None:
    about = "; ".join(["added to it", *(f"{name}: {each.summary}" for name, each in extras.ADDITIONS.items())])
    add("--with", dest="additions", type=types.additions, default=(), metavar="NAME[,...]", help=about)


def cell_options(add: types.Option, run: str, of_app: str = "the name of its package") -> None:
    about = f"the run to write to or go on with; '{run}' unless given, or with --app {of_app}"
    add("--run", metavar="NAME", help=about)
    grid_options(add)
    source_options(add)
    add("--builder", metavar="NAME", help="the buildx builder to use, passed through")


def grid_options(add: types.Option) -> None:
    allocators = ",".join((matrix.ARTICLE, *matrix.ALLOCATORS))
    add("--bases", type=types.names, help="of " + ",".join(matrix.BASES))
    add("--profiles", type=types.names, help=f"of {','.join(everything())}, or some joined by +")
    add("--allocators", type=types.names, help=f"of {allocators}")
    about = "only cells whose names match, with wildcards as in a shell; `./lab cells` lists the names"
    add("--only", type=types.names, default=[], metavar="PATTERN[,...]", help=about)


def knob_options(add: types.Option) -> None:
    usual = f"{','.join(factorial.BASES)}; {','.join(factorial.ALLOCATORS)}"
    about = "profiles to turn on and off in every combination, on two bases and with two allocators unless fewer are "
    about += f"named ({usual}): what each bought is then told, in the place of the short study"
    add("--knobs", type=types.names, default=[], metavar="PROFILE[,...]", help=about)
    about = "of those combinations build a fraction, and N more by which what it predicts of the others is scored"
    add("--fraction", type=types.blocks, metavar="N", help=about)


def source_options(add: types.Option) -> None:
    about = "for a base or the builder (rust), take this image, archive or `packages`"
    add("--base", action="append", default=[], metavar="NAME=SOURCE", help=about)
    about = "ask this registry for the official images, in place of their own"
    add("--registry", metavar="HOST[:PORT][/PREFIX]", help=about)
    about = "for builder, slim and distroless, of " + ",".join(matrix.RELEASES)
    add("--debian", default=matrix.DEBIAN, metavar="RELEASE", help=about)
