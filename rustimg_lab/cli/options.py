"""How commands and their options are made, and the options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click

from rustimg_lab.cli import as_called, types
from rustimg_lab.cli.types import Names
from rustimg_lab.model import bases, extras, factorial, matrix
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.profiles import PUBLISHED, all_profiles

REST = {"ignore_unknown_options": True}  # for a command that passes what it does not know to another program


class _Command(click.Command):
    """Its function gets the values of all parameters as one namespace, since most commands have more than six."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed, _, order = ({}, [], []) if ctx.resilient_parsing else self.make_parser(ctx).parse_args(list(args))
        arguments = super().parse_args(ctx, args)
        if refusal := _refusal(self, ctx, typed, order):
            raise click.UsageError(refusal, ctx)
        return arguments

    def invoke(self, ctx: click.Context) -> int:
        return self.callback(SimpleNamespace(**ctx.params))

    def get_help(self, ctx: click.Context) -> str:
        return as_called(super().get_help(ctx))


def _refusal(owner: click.Command, ctx: click.Context, typed: dict[str, object], order: list[click.Parameter]) -> str:
    """Return why something typed would have no effect; "" where all of it counts. It may be a list that a later one
    replaces, an empty value, or an option that needs another or that another rules out."""
    params = {param.name: param for param in owner.params}
    for param in dict.fromkeys(order):
        name, value = param.get_error_hint(ctx).strip("[']"), typed.get(param.name)
        is_list = isinstance(param, click.Option) and isinstance(ctx.params.get(param.name), list | tuple | dict)
        if is_list and not param.multiple and order.count(param) > 1:  # of others the last counts, as elsewhere
            return f"{name} is given twice, and the last would count: give it once, with commas between the values"
        if value == "" or (isinstance(param, click.Option) and param.multiple and "" in value):
            return f"{name}: the value is empty: give one, or leave it out"
        if (needed := params.get(_NEEDS.get(param.name))) and needed.name not in typed:
            return f"{name} applies with {needed.opts[0]} alone: name that too, or leave {name} out"
        if (conflict := params.get(_EXCLUDES.get(param.name))) and conflict.name in typed:
            return f"{name} has no effect beside {conflict.opts[0]}: leave it out"
    return ""


def command(*parameters: click.Parameter, **settings: object) -> Callable[[Callable], click.Command]:
    """Return a decorator. It makes a function of values the command of the function's name, with the docstring as the
    help."""
    return click.command(cls=_Command, params=list(parameters), context_settings=settings)


def option(name: str, text: str, kind: object = None, default: object = None, **more: object) -> click.Option:
    """Return an option. Its help ends with `(default: X)`, where X is `shown` or `default`. A `text` that ends with a
    colon is followed by the known names."""
    if text.endswith(":"):
        text += f" {', '.join(kind.known)}" + ", or some joined by +" * kind.joined
    if default_text := more.pop("shown", default):
        text += f" (default: {default_text})"
    if isinstance(kind, click.IntRange):
        more["metavar"] = "N"
    if "is_flag" in more or default is not None:  # an option with a default, be it None, is never missing
        more["default"] = default or False if "is_flag" in more else default
    return click.Option(name.split(), type=kind, help=text, **more)


def run_options(run: str, of_app: str = "the name of its package") -> list[click.Option]:
    """Return the options of a command that writes to a run. `run` and, with --app, `of_app` name the default run in the
    help."""
    run_option = option("--run", "run to write to, or to resume", types.RUN, shown=f"{run}; with --app {of_app}")
    return [run_option, APP, *CELLS, *SOURCES, BUILDER]


_LEVELS = f"{', '.join(factorial.BASES)}, {' and '.join(factorial.ALLOCATORS)}"
_KNOBS = f"profiles to combine in every way, each on and off; on {_LEVELS} unless fewer are named; no short study"
_SWITCHED = [name for name in all_profiles() if name != factorial.PLAIN]
_PATTERNS = "only cells whose names match, with wildcards as in a shell; `./lab cells` lists the names"
_ADDITIONS = "; ".join(["added to the image", *(f"{name}: {item.summary}" for name, item in extras.ADDITIONS.items())])

ALLOCATORS = (matrix.ARTICLE, *matrix.ALLOCATORS, matrix.OWN)
PROFILES = (PUBLISHED.name, *all_profiles())
ACROSS = option("--across-machines", "compare speeds of two machines too", is_flag=True)
APP = option("--app", "a crate of your own, in which `./lab init` was called", click.Path(path_type=Path))
ARCH = option(
    "--arch architectures", f"architectures, with commas between: {', '.join(arch.debian for arch in Architecture)}",
    types.architectures, shown="this machine's", metavar="ARCHITECTURE[,...]",
)  # fmt: skip
BUILDER = option("--builder", "buildx builder, passed through", metavar="NAME")
DEBIAN = option("--debian", "Debian release:", Names("Debian release", bases.RELEASES), matrix.DEBIAN)
ADDITIONS, BUILT_WITH = (
    option(
        "--with additions", text, Names("addition", extras.ADDITIONS, several=True),
        callback=lambda context, parameter, names: extras.parse(names or ()),
    )
    for text in (_ADDITIONS, "only cells that were built with these additions:")
)  # fmt: skip
CELLS = [
    option("--bases", "base images:", Names("base", bases.all_bases(), several=True)),
    option("--profiles", "build profiles:", Names("profile", PROFILES, several=True, joined=True)),
    option("--allocators", "allocators:", Names("allocator", ALLOCATORS, several=True)),
    ARCH,
    option("--only", _PATTERNS, types.names, metavar="PATTERN[,...]"),
]
KNOBS = [
    option("--knobs", _KNOBS, Names("profile", _SWITCHED, several=True)),
    option("--fraction", "build only a part of those cells, and N others to test its predictions", types.COUNT_OR_ZERO),
]
INSECURE = option("--insecure", "use a scheduler without TLS (tcp://) that is not on 127.0.0.1", is_flag=True)
SCHEDULER = [
    option("--scheduler", "Dask scheduler whose workers do the work, each on a machine", metavar="tls://HOST:PORT"),
    INSECURE,
]
GRID = option("--grid", "the cells, unless some are named:", Names("grid", matrix.GRIDS), "article")
SELECTION = [GRID, APP, *CELLS, *KNOBS, DEBIAN]
SOURCES = [
    option("--base", "image, archive or `packages` for a base, or for rust", metavar="NAME=SOURCE", multiple=True),
    option("--registry", "where to get the official images, and nowhere else", metavar="HOST[:PORT][/PREFIX]"),
    DEBIAN,
]

# By the name of an option, the one without which it has no effect, and the one beside which it has none; in a command
# that has both.
_NEEDS = {
    "insecure": "scheduler", "push_to": "scheduler", "across_machines": "against", "fraction": "knobs",
    **dict.fromkeys(["blocks", *(parameter.name for parameter in (APP, *CELLS, *SOURCES, BUILDER))], "before"),
}  # fmt: skip
_EXCLUDES = {"grid": "knobs", "profiles": "knobs"}
