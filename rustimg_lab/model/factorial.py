"""Factors -> the cells of their factorial, all of them or a fraction.

A knob has two levels: one base or the other, a profile of data/profiles.toml in the cell or not, one allocator or the
other. The fraction is the smallest regular one in which neither a knob's effect nor that of two together is mixed up
with another such (resolution V or more; Box, Hunter and Hunter, Statistics for Experimenters, 2005, chapter 6); its
generators are pyDOE3's.
"""

from collections.abc import Iterable
from functools import cache
from itertools import combinations, product
from typing import TYPE_CHECKING

from rustimg_lab.errors import LabError, unknown
from rustimg_lab.model import matrix, profiles
from rustimg_lab.model.matrix import Cell

if TYPE_CHECKING:
    import numpy as np

MOST = 8  # knobs: 256 cells, and a fraction of 64
FEWEST_IN_PART = 6  # of fewer knobs a fraction tells all of that apart and has no cell over to tell how well
BASES, ALLOCATORS = ["debian", "scratch"], ["system", "jemalloc"]  # unless others are named; turned from the first
PLAIN = "baseline"  # the profile with no knob in it


def cells(
    bases: list[str], knobs: list[str], allocators: list[str], debian: str, held_out: int | None = None
) -> list[Cell]:
    """Every combination of the knobs, or with `held_out` their fraction and so many of the rest, always the same, to
    score its predictions by. Raises LabError for unknown or contradicting knobs, and more factors or levels than can
    be."""
    known = profiles.everything()
    if wrong := [knob for knob in knobs if knob not in known or knob == PLAIN]:
        raise unknown("knob", wrong[0], [name for name in known if name != PLAIN])
    bases, allocators = (list(dict.fromkeys(each)) for each in (bases, allocators))
    if matrix.ARTICLE in allocators:
        raise LabError(f"'{matrix.ARTICLE}' is another allocator on each base: name {' or '.join(matrix.ALLOCATORS)}")
    for kind, named in (("bases", bases), ("allocators", allocators)):
        if len(named) > 2:
            raise LabError(f"factors have two levels each: name two {kind} at most, not {', '.join(named)}")
    knobs = in_order(knobs)
    levels = [bases, *([False, True] for knob in knobs), allocators]  # as `attribution` has them
    count = sum(len(each) == 2 for each in levels)
    if count > MOST:
        raise LabError(f"{count} factors have {2**count:,} cells: choose {MOST} at most, two bases being one of them")
    made = [
        matrix.cell(base, joined(knob for knob, on in zip(knobs, switches, strict=True) if on), allocator, debian)
        for base, *switches, allocator in product(*levels)
    ]
    if held_out is None:
        return made
    kept = set(map(tuple, fraction(count).tolist()))
    settings = product((False, True), repeat=count)  # in the order of `made`: the first of both has no knob on
    part = [each for each, setting in zip(made, settings, strict=True) if setting in kept]
    rest = [each for each in made if each not in part]
    if held_out > len(rest):
        raise LabError(f"{count} factors have {len(rest)} cells beside their fraction, not {held_out} to hold out")
    import numpy as np  # as in `fraction`: not for `./lab --help`

    drawn = np.random.default_rng(0).choice(len(rest), held_out, replace=False)
    return part + [rest[number] for number in sorted(drawn)]


def in_order(knobs: Iterable[str]) -> list[str]:
    """Profiles, each once, in the order of data/profiles.toml, then unknown ones: a combination has one name."""
    knobs, known = set(knobs), profiles.everything()
    return [*(name for name in known if name in knobs), *sorted(knobs - set(known))]


def joined(knobs: Iterable[str]) -> str:
    """The name of the profile that has these in it."""
    return "+".join(knobs) or PLAIN


@cache
def fraction(knobs: int) -> "np.ndarray":
    """The settings of the fraction of so many knobs, first all off: bool, (cells, knobs). Raises LabError for none."""
    if not FEWEST_IN_PART <= knobs <= MOST:
        raise LabError(
            f"{knobs} factors have no fraction that separates the effects of all pairs; it takes {FEWEST_IN_PART} to "
            f"{MOST}, a second base and a second allocator being one each"
        )
    import numpy as np
    import pyDOE3  # loads scipy, which takes most of a second

    terms, found = 1 + knobs + knobs * (knobs - 1) // 2, np.empty(0)
    for erased in range(1, knobs):
        signs = pyDOE3.fracfact(pyDOE3.fracfact_opt(knobs, erased)[0]) if 2 ** (knobs - erased) > terms else None
        if signs is None or not _is_clear(signs):
            break
        found = (signs > 0) ^ (signs[0] > 0)
    return found


def _is_clear(signs: "np.ndarray") -> bool:
    """Whether no knob and no two of them go with another knob or another two."""
    count = signs.shape[1]
    columns = [signs[:, one] for one in range(count)]
    columns += [signs[:, one] * signs[:, other] for one, other in combinations(range(count), 2)]
    return all((one @ other != 0) == (one is other) for one in columns for other in columns)
