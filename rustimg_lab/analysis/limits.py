"""The limits of a check, what it finds, and whether what has noise keeps a limit: by two one-sided tests (Schuirmann,
J. Pharmacokin. Biopharm. 15, 1987)."""

import functools
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import scipy

from rustimg_lab.analysis.variances import CONFIDENCE, POWER
from rustimg_lab.errors import LabError, check_known
from rustimg_lab.model import metrics
from rustimg_lab.model.metrics import Verdict

FEWEST_BLOCKS = 3  # of fewer, a standard error is too uncertain for any answer
_MOST_BLOCKS = 10_000  # a need of more is not worth its digits


@dataclass(frozen=True)
class Limits:
    """What every cell of a run must keep: bytes in transfer, and by name of `GUARDED` the share by which each may grow
    over another run's. Raises LabError for an unknown name, and for a share of 0 of what has noise."""

    max_transfer: float = 0
    max_regression: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, share in self.max_regression.items():
            check_known("limit", name, metrics.GUARDED)
            if metrics.GUARDED[name].study and not share:
                raise LabError(f"limit '{name}=0%': what has noise is never sure to have grown by nothing; allow more")

    @property
    def noisy(self) -> dict[str, float]:
        """Return the shares by which what is measured in blocks may grow."""
        return {name: share for name, share in self.max_regression.items() if metrics.GUARDED[name].study}

    @property
    def exact(self) -> "Limits":
        """Return the same without those of what is measured in blocks."""
        kept = {name: share for name, share in self.max_regression.items() if name not in self.noisy}
        return replace(self, max_regression=kept)


@dataclass(frozen=True)
class Finding:
    """What a check finds of a cell: `verdict` is FAIL, CANNOT_TELL or, of what has noise, PASS."""

    cell: str
    what: str
    verdict: Verdict = Verdict.FAIL


@dataclass(frozen=True)
class Checked:
    """What a check finds of a run, and what a reader must know of its numbers."""

    findings: list[Finding]
    notes: list[str] = field(default_factory=list)

    def of(self, verdict: Verdict) -> list[Finding]:
        """Return the findings with that verdict."""
        return [each for each in self.findings if each.verdict == verdict]

    @property
    def verdict(self) -> Verdict:
        """Return FAIL where one limit is broken, else CANNOT_TELL where one is uncertain, else PASS."""
        return next((each for each in (Verdict.FAIL, Verdict.CANNOT_TELL) if self.of(each)), Verdict.PASS)


def answer(own: tuple, share: float, comparisons: int) -> Finding:
    """Whether a cell keeps a limit on the ratio of one of its metrics, a row of `regression.paired` or `speeds`.

    PASS when the upper one-sided 95% bound is below the limit. FAIL when the ratio is above the limit, and the lower
    bound, which holds for all `comparisons` at once (Bonferroni), above 1. Else CANNOT_TELL. Where the A/A control is
    apart from its own image, both bounds are farther out by that much; without one no answer is given.
    """
    about = f"{own.study}: {own.what}: "
    if own.blocks < FEWEST_BLOCKS:
        few = f"{own.blocks} block{'s' * (own.blocks != 1)}, too few for an answer"
        need = blocks_needed(own, share) if own.blocks > 1 else f"at least {FEWEST_BLOCKS} blocks"
        return Finding(own.cell, f"{about}{few}: {need} needed", Verdict.CANNOT_TELL)
    if own.alarm == inf:
        unknown_noise = f"{own.ratio - 1:+.2%}, {own.blocks} blocks, but the A/A control has no trials to compare"
        return Finding(own.cell, f"{about}{unknown_noise}", Verdict.CANNOT_TELL)
    lower = 1 - (1 - CONFIDENCE) / comparisons
    low = own.ratio * np.exp(-scipy.special.stdtrit(own.freedom, lower) * own.error - own.alarm)
    high = own.ratio * np.exp(scipy.special.stdtrit(own.freedom, CONFIDENCE) * own.error + own.alarm)
    told = f" (at least {low - 1:+.2%}, at most {high - 1:+.2%}, {own.blocks} blocks)"
    if high < 1 + share:
        return Finding(own.cell, f"{about}{own.ratio - 1:+.2%}{told}", Verdict.PASS)
    if own.ratio > 1 + share and low > 1:
        return Finding(own.cell, f"{about}{more(own.ratio, share)}{told}")
    unsure = f"{own.ratio - 1:+.2%}{told}, more than +{100 * share:g}% or not"
    need = f"{blocks_needed(own, share)} needed"
    if _need(own, share) <= own.blocks:  # of an unchanged cell
        need = f"its ratio is near the limit, so more than these {own.blocks} blocks are needed"
    if own.alarm:
        need = f"the A/A control is apart from its own image, so by up to {np.expm1(own.alarm):.1%} nothing is known"
    return Finding(own.cell, f"{about}{unsure}: {need}", Verdict.CANNOT_TELL)


def blocks_needed(own: tuple, share: float) -> str:
    """How many blocks show with a probability of 0.8 that an unchanged cell keeps the limit, by the upper 80% limit of
    their standard error: that of few blocks may be far too small (Browne, Statistics in Medicine 14, 1995)."""
    need = _need(own, share)
    return f"about {need} blocks" if need < inf else f"more than {_MOST_BLOCKS:,} blocks"


def _need(own: tuple, share: float) -> float:
    error = own.error * np.sqrt(own.freedom / scipy.special.chdtri(own.freedom, POWER))
    counts, widths = _widths()
    enough = counts[widths * error * np.sqrt(own.blocks) < np.log1p(share)]
    return enough[0] if len(enough) else inf


@functools.cache
def _widths() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of blocks, and how far out a limit must be to be shown by each, in standard deviations of one block."""
    counts = np.arange(FEWEST_BLOCKS, _MOST_BLOCKS + 1)
    quantiles = scipy.special.stdtrit(counts - 1, CONFIDENCE) + scipy.special.stdtrit(counts - 1, POWER)
    return counts, quantiles / np.sqrt(counts)


def more(ratio: float, share: float) -> str:
    return f"{ratio - 1:+.2%}, more than +{100 * share:g}%"
