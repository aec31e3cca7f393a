"""How commands and their options are made, and the options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click

from rustimg_lab.cli import as_called, types
from rustimg_lab.cli.types import Names
from rustimg_lab.model import bases, extras, factorial, matrix
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.profiles import PUBLISHED, everything

REST = {"ignore_unknown_options": True}  # for a command that passes what it does not know to another program


class _Command(click.Command):
    """Its function gets the values of all parameters as one namespace, since most commands have more than six."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed, _, order = ({}, [], []) if ctx.resilient_parsing else self.make_parser(ctx).parse_args(list(args))
        rest = super().parse_args(ctx, args)
        if refusal := _refusal(self, ctx, typed, order):
            raise click.UsageError(refusal, ctx)
        return rest

    def invoke(self, ctx: click.Context) -> int:
        return self.callback(SimpleNamespace(**ctx.params))

    def get_help(self, ctx: click.Context) -> str:
        return as_called(super().get_help(ctx))


def _refusal(of: click.Command, ctx: click.Context, typed: dict[str, object], order: list[click.Parameter]) -> str:
    """Why a typed value would not count: a list given twice, an empty value, an option without effect; "" if all do."""
    there = {each.name: each for each in of.params}
    for each in dict.fromkeys(order):
        name, value = each.get_error_hint(ctx).strip("[']"), typed.get(each.name)
        is_list = isinstance(each, click.Option) and isinstance(ctx.params.get(each.name), list | tuple | dict)
        if is_list and not each.multiple and order.count(each) > 1:  # of others the last counts, as elsewhere
            return f"{name} is given twice, and the last would count: give it once, with commas between the values"
        if value == "" or (isinstance(each, click.Option) and each.multiple and "" in value):
            return f"{name}: the value is empty: give one, or leave it out"
        if (needed := there.get(_NEEDS.get(each.name))) and needed.name not in typed:
            return f"{name} applies with {needed.opts[0]} alone: name that too, or leave {name} out"
        if (other := there.get(_EXCLUDES.get(each.name))) and other.name in typed:
            return f"{name} has no effect beside {other.opts[0]}: leave it out"
    return ""


def command(*parameters: click.Parameter, **settings: object) -> Callable[[Callable], click.Command]:
    """Return a decorator: a function of values becomes the command of its name, and its docstring the help."""
    return click.command(cls=_Command, params=list(parameters), context_settings=settings)


def option(name: str, text: str, kind: object = None, default: object = None, **more: object) -> click.Option:
    """Return an option. Its help ends with `(default: X)`: `shown` or `default`; after a colon it lists the names."""
    if text.endswith(":"):
        text += f" {', '.join(kind.known)}" + ", or some joined by +" * kind.joined
    if shown := more.pop("shown", default):
        text += f" (default: {shown})"
    if isinstance(kind, click.IntRange):
        more["metavar"] = "N"
    if "is_flag" in more or default is not None:  # an option with a default, be it None, is never missing
        more["default"] = default or False if "is_flag" in more else default
    return click.Option(name.split(), type=kind, help=text, **more)


def run_options(run: str, of_app: str = "the name of its package") -> list[click.Option]:
    """Return the options of a command that writes to a run; `run` and, with --app, `of_app` say which by default."""
    named = option("--run", "run to write to, or to resume", types.RUN, shown=f"{run}; with --app {of_app}")
    return [named, APP, *CELLS, *SOURCES, BUILDER]


_LEVELS = f"{', '.join(factorial.BASES)}, {' and '.join(factorial.ALLOCATORS)}"
_KNOBS = f"profiles to turn on and off in every combination, on {_LEVELS} unless fewer are named; no short study"
_SWITCHED = [name for name in everything() if name != factorial.PLAIN]
_PATTERNS = "only cells whose names match, with wildcards as in a shell; `./lab cells` lists the names"
_ADDITIONS = "; ".join(["added to the image", *(f"{name}: {each.summary}" for name, each in extras.ADDITIONS.items())])

ALLOCATORS = (matrix.ARTICLE, *matrix.ALLOCATORS, matrix.OWN)
PROFILES = (PUBLISHED.name, *everything())
ACROSS = option("--across-machines", "compare speeds of two machines too", is_flag=True)
APP = option("--app", "a crate of your own, in which `./lab init` was called", click.Path(path_type=Path))
ARCH = option(
    "--arch architectures", f"architectures, with commas between: {', '.join(each.debian for each in Architecture)}",
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
    option("--bases", "base images:", Names("base", bases.everything(), several=True)),
    option("--profiles", "build profiles:", Names("profile", PROFILES, several=True, joined=True)),
    option("--allocators", "allocators:", Names("allocator", ALLOCATORS, several=True)),
    ARCH,
    option("--only", _PATTERNS, types.names, metavar="PATTERN[,...]"),
]
KNOBS = [
    option("--knobs", _KNOBS, Names("profile", _SWITCHED, several=True)),
    option("--fraction", "build a fraction of those, and N more to score its predictions", types.COUNT_OR_ZERO),
]
INSECURE = option("--insecure", "use a scheduler on a network without TLS", is_flag=True)
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
    **dict.fromkeys(["blocks", *(each.name for each in (APP, *CELLS, *SOURCES, BUILDER))], "before"),
}  # fmt: skip
_EXCLUDES = {"grid": "knobs", "profiles": "knobs"}
