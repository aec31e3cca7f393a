"""Values of command-line options: text -> value. Each function raises argparse's error, which names the option."""

import argparse
import re
from collections.abc import Callable

from rustimg_lab.errors import LabError
from rustimg_lab.model import extras, metrics

Option = Callable[..., object]  # adds an option to a command, as `add_argument` does


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of 1 or more")
    return int(text)


def blocks(text: str) -> int:
    """A count, or 0 for no study at all."""
    return 0 if text == "0" else count(text)


def counts(text: str) -> list[int]:
    return [count(each) for each in text.split(",")]


def percent(text: str) -> float:
    """As a share."""
    number = text.removesuffix("%")
    if not number.replace(".", "", 1).isdecimal() or not float(number):
        raise argparse.ArgumentTypeError(f"'{text}' is no percentage, as 5 or 2.5%")
    return float(number) / 100


_UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _quantity(text: str, units: dict[str, float], what: str) -> float:
    """A number above 0 with one of these units, each a factor."""
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)({'|'.join(units)})", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"'{text}' is no {what}")
    return float(found[1]) * units[found[2]]


def size(text: str) -> float:
    """In bytes."""
    return _quantity(text, _UNITS, "size, as 3MB or 512KiB")


def milliseconds(text: str) -> float:
    """In seconds."""
    return _quantity(text, {"ms": 1e-3}, "time in milliseconds, as 5ms")


def bandwidth(text: str) -> float:
    """In Mbit/s."""
    return _quantity(text, {"Mbit": 1, "Gbit": 1000}, "bandwidth, as 100Mbit or 1Gbit")


def share(text: str) -> float:
    if not re.fullmatch(r"0?\.\d+|1(\.0+)?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no share between 0 and 1, as 0.95")
    return float(text)


def weights(text: str) -> dict[str, float]:
    """By criterion of a choice."""
    found = {}
    for each in text.split(","):
        name, _, number = each.partition("=")
        if name not in metrics.ALL or not re.fullmatch(r"\d+(\.\d+)?", number) or not float(number):
            known = ", ".join(metrics.ALL)
            raise argparse.ArgumentTypeError(f"'{each}' is no weight, as transfer=1; known are {known}")
        found[name] = float(number)
    return found


def regressions(text: str) -> dict[str, float]:
    """By what `guard` can guard, the share by which it may grow; 0% for not at all."""
    found = {}
    for each in text.split(","):
        name, _, number = each.partition("=")
        if name not in metrics.GUARDED or not re.fullmatch(r"\d+(\.\d+)?%", number):
            known = ", ".join(metrics.GUARDED)
            raise argparse.ArgumentTypeError(f"'{each}' is no limit, as size=1%; known are {known}")
        found[name] = float(number.removesuffix("%")) / 100
    return found


def additions(text: str) -> tuple[str, ...]:
    try:
        return extras.parse(names(text))
    except LabError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def names(text: str) -> list[str]:
    if not (names := [name for name in text.split(",") if name]):
        raise argparse.ArgumentTypeError(f"'{text}' names nothing")
    return names
