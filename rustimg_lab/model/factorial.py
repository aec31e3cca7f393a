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

from rustimg_lab.errors import LabError, unknown_name
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
    """Return every combination of the factors. With `held_out`, return the fraction and so many of the other cells, by
    which predictions are scored; a fixed seed draws them.

    Raises LabError for a factor that is not a profile, and for profiles that contradict each other. Raises LabError for
    more bases, allocators, factors or cells held out than there can be."""
    known_profiles = profiles.all_profiles()
    if wrong := [knob for knob in knobs if knob not in known_profiles or knob == PLAIN]:
        raise unknown_name("knob", wrong[0], [name for name in known_profiles if name != PLAIN])
    bases, allocators = (list(dict.fromkeys(names)) for names in (bases, allocators))
    if matrix.ARTICLE in allocators:
        raise LabError(f"'{matrix.ARTICLE}' is another allocator on each base: name {' or '.join(matrix.ALLOCATORS)}")
    for kind, names in (("bases", bases), ("allocators", allocators)):
        if len(names) > 2:
            raise LabError(f"factors have two levels each: name two {kind} at most, not {', '.join(names)}")
    knobs = in_order(knobs)
    levels = [bases, *([False, True] for knob in knobs), allocators]  # as `attribution` has them
    count = sum(len(options) == 2 for options in levels)
    if count > MOST:
        raise LabError(f"{count} factors have {2**count:,} cells: choose {MOST} at most, two bases being one of them")
    grid = [
        matrix.cell(
            base, join_knobs(knob for knob, is_on in zip(knobs, switches, strict=True) if is_on), allocator, debian
        )
        for base, *switches, allocator in product(*levels)
    ]
    if held_out is None:
        return grid
    part_settings = set(map(tuple, fraction(count).tolist()))
    settings = product((False, True), repeat=count)  # in the order of `grid`: the first of both has no knob on
    part = [cell for cell, setting in zip(grid, settings, strict=True) if setting in part_settings]
    remainder = [cell for cell in grid if cell not in part]
    if held_out > len(remainder):
        raise LabError(f"{count} factors have {len(remainder)} cells beside their fraction, not {held_out} to hold out")
    import numpy as np  # as in `fraction`: not for `./lab --help`

    drawn = np.random.default_rng(0).choice(len(remainder), held_out, replace=False)
    return part + [remainder[number] for number in sorted(drawn)]


def in_order(knobs: Iterable[str]) -> list[str]:
    """Return the profiles, each once, in the order of data/profiles.toml, then unknown names sorted. So a combination
    has one name."""
    knobs, known_profiles = set(knobs), profiles.all_profiles()
    return [*(name for name in known_profiles if name in knobs), *sorted(knobs - set(known_profiles))]


def join_knobs(knobs: Iterable[str]) -> str:
    """Return the name of the profile that combines these: joined by `+`, or `baseline` for none."""
    return "+".join(knobs) or PLAIN


@cache
def fraction(knobs: int) -> "np.ndarray":
    """Return the settings of the fraction of so many factors: bool, (cells, factors). The first cell has no factor
    switched. Raises LabError where there is no fraction."""
    if not FEWEST_IN_PART <= knobs <= MOST:
        raise LabError(
            f"{knobs} factors have no fraction that separates the effects of all pairs; it takes {FEWEST_IN_PART} to "
            f"{MOST}, a second base and a second allocator being one each"
        )
    import numpy as np
    import pyDOE3  # loads scipy, which takes most of a second

    terms, settings = 1 + knobs + knobs * (knobs - 1) // 2, np.empty(0)
    for erased in range(1, knobs):
        signs = pyDOE3.fracfact(pyDOE3.fracfact_opt(knobs, erased)[0]) if 2 ** (knobs - erased) > terms else None
        if signs is None or not _is_clear(signs):
            break
        settings = (signs > 0) ^ (signs[0] > 0)
    return settings


def _is_clear(signs: "np.ndarray") -> bool:
    """Return whether no factor and no pair of factors is confounded with another factor or pair."""
    count = signs.shape[1]
    columns = [signs[:, knob] for knob in range(count)]
    columns += [signs[:, first] * signs[:, second] for first, second in combinations(range(count), 2)]
    return all((first @ second != 0) == (first is second) for first in columns for second in columns)
