"""Values of options: text -> value. An unknown name raises LabError, other wrong text click's error, in one line."""

import re
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from rustimg_lab.errors import check_known
from rustimg_lab.model import metrics
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.names import split_list
from rustimg_lab.model.settings import Setting, parse


class Names(click.ParamType):
    """One of the names that are `known`; `several` of them with commas between; where `joined`, each some with `+`."""

    def __init__(self, kind: str, known: Iterable[str], several: bool = False, joined: bool = False) -> None:
        self.kind, self.known, self.several, self.joined = kind, list(known), several, joined
        self.name = kind.split()[-1] + ("[,...]" if several else "")

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str | list[str]:
        """Return the name, or with `several` the list of names. Raises LabError, with the nearest name, when one is
        unknown."""
        values = names(value) if self.several else [value]
        for name in "+".join(values).split("+") if self.joined else values:
            check_known(self.kind, name, self.known)
        return values if self.several else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the completions of the last name of the text."""
        fragment = re.split("[,+]", incomplete)[-1]
        before = incomplete.removesuffix(fragment)
        return [CompletionItem(before + name) for name in self.known if name.startswith(fragment)]


class RunName(click.ParamType):
    """The name of a run. A shell completes it; whether there is one is found when it is read."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names of the runs that begin with `incomplete`."""
        from rustimg_lab.store import runs  # loads pandas

        return [CompletionItem(name) for name in runs.runs() if name.startswith(incomplete)]


class Quantity(click.ParamType):
    """A number above 0 with one of the units, each of which is a factor."""

    def __init__(self, kind: str, example: str, units: dict[str, float]) -> None:
        self.kind, self.example, self.units, self.name = kind, example, units, kind.split()[0]

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number times the factor of its unit. Raises BadParameter when the text is no number above 0 with a
        known unit."""
        match = re.fullmatch(rf"(\d+(?:\.\d+)?)({'|'.join(self.units)})", value)
        if not match or not float(match[1]):
            self.fail(f"'{value}' is no {self.kind}, as {self.example}", param, ctx)
        return float(match[1]) * self.units[match[2]]


RUN, COUNT, COUNT_OR_ZERO = RunName(), click.IntRange(min=1), click.IntRange(min=0)
BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
SIZE = Quantity("size", "3MB or 512KiB", BYTES)
TIME = Quantity("time in milliseconds", "5ms", {"ms": 1e-3})  # in seconds
BANDWIDTH = Quantity("bandwidth", "100Mbit or 1Gbit", {"Mbit": 1, "Gbit": 1000})  # in Mbit/s
PERCENT = Quantity("percentage", "5% or 2.5%", {"%": 1})


def names(text: str) -> list[str]:
    """Return the names between commas. Raises BadParameter when there is none."""
    if not (values := [name for name in split_list(text) if name]):
        raise click.BadParameter(f"'{text}' names nothing")
    return values


def architectures(text: str) -> list[Architecture]:
    """Return architectures, each once, by the kernel's or Debian's names between commas. Raises LabError when one is
    unknown."""
    return list(dict.fromkeys(map(Architecture.named, names(text))))


def counts(text: str) -> list[int]:
    """Return the whole numbers (1 or more) between commas. Raises BadParameter for any other text."""
    return [COUNT.convert(number, None, None) for number in text.split(",")]


def settings(text: str) -> list[Setting]:
    """Return the settings of allocators between commas, each once. Raises LabError when one is unknown."""
    return list(dict.fromkeys(map(parse, names(text))))


def share(text: str) -> float:
    """Return a fraction above 0 and at most 1. Raises BadParameter for any other text."""
    if not re.fullmatch(r"0?\.\d+|1(\.0+)?", text) or not float(text):
        raise click.BadParameter(f"'{text}' is no fraction between 0 and 1, as 0.95")
    return float(text)


def repository(text: str) -> str:
    """Return a repository of a registry, with the registry's host: without a host, an engine would push to Docker Hub.
    Raises BadParameter when the text is no such repository."""
    host, _, path = text.partition("/")
    if not re.search(r"[.:]|^localhost$", host) or not re.fullmatch(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*", path):
        raise click.BadParameter(f"'{text}' is no repository of a registry, as registry.example:5000/team/lab")
    return text


def weights(text: str) -> dict[str, float]:
    """Return the weight (above 0) of each criterion, by its name. Raises BadParameter for an unknown or a repeated
    name."""
    return _by_name(text, metrics.ALL, "", "weight, as transfer=1")


def regressions(text: str) -> dict[str, float]:
    """Return by metric the fraction by which it may grow; 0 for not at all. The text has percentages. Raises
    BadParameter for an unknown or a repeated name."""
    return {name: limit / 100 for name, limit in _by_name(text, metrics.GUARDED, "%", "limit, as size=1%").items()}


def _by_name(text: str, choices: Iterable[str], unit: str, description: str) -> dict[str, float]:
    """Return the numbers of NAME=NUMBER between commas, each with `unit` behind it. A number without a unit is above
    0."""
    numbers = {}
    for entry in text.split(","):
        name, _, number = entry.partition("=")
        if name not in choices or not re.fullmatch(rf"\d+(\.\d+)?{unit}", number) or not (unit or float(number)):
            raise click.BadParameter(f"'{entry}' is no {description}; known are {', '.join(choices)}")
        if name in numbers:
            raise click.BadParameter(f"'{name}' is there twice: give it once")
        numbers[name] = float(number.removesuffix(unit))
    return numbers
