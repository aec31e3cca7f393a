"""The limits of a check, what it finds, and whether what has noise keeps a limit.

Two one-sided tests decide that (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987)."""

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
        """Return the limits on what is measured in blocks: by name, the fraction by which it may grow."""
        return {name: share for name, share in self.max_regression.items() if metrics.GUARDED[name].study}

    @property
    def exact(self) -> "Limits":
        """Return these limits without those on what is measured in blocks."""
        shares = {name: share for name, share in self.max_regression.items() if name not in self.noisy}
        return replace(self, max_regression=shares)


@dataclass(frozen=True)
class Finding:
    """What a check finds of a cell: `verdict` is FAIL, CANNOT_TELL or, of what has noise, PASS."""

    cell: str
    message: str
    verdict: Verdict = Verdict.FAIL


@dataclass(frozen=True)
class Checked:
    """What a check finds of a run, and what a reader must know of its numbers."""

    findings: list[Finding]
    notes: list[str] = field(default_factory=list)

    def findings_with(self, verdict: Verdict) -> list[Finding]:
        """Return the findings with that verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]

    @property
    def verdict(self) -> Verdict:
        """Return FAIL where a limit is broken, else CANNOT_TELL where a limit is uncertain, else PASS."""
        return next(
            (verdict for verdict in (Verdict.FAIL, Verdict.CANNOT_TELL) if self.findings_with(verdict)), Verdict.PASS
        )


def check_ratio(row: tuple, share: float, comparisons: int) -> Finding:
    """Return whether a cell keeps a limit on the ratio of one of its metrics. `row` is of `regression.paired` or
    `speeds`; `share` is the fraction by which the metric may grow.

    PASS when the upper one-sided 95% bound is below the limit. FAIL when the ratio is above the limit, and the lower
    bound is above 1 for all `comparisons` (Bonferroni). Else CANNOT_TELL, as with fewer than `FEWEST_BLOCKS` blocks or
    no A/A control. Where the control differs from its image, both bounds are farther out by that difference."""
    prefix = f"{row.study}: {row.what}: "
    if row.blocks < FEWEST_BLOCKS:
        few = f"{row.blocks} block{'s' * (row.blocks != 1)}, too few for an answer"
        need = blocks_needed(row, share) if row.blocks > 1 else f"at least {FEWEST_BLOCKS} blocks"
        return Finding(row.cell, f"{prefix}{few}: {need} needed", Verdict.CANNOT_TELL)
    if row.alarm == inf:
        unknown_noise = f"{row.ratio - 1:+.2%}, {row.blocks} blocks, but the A/A control has no trials to compare"
        return Finding(row.cell, f"{prefix}{unknown_noise}", Verdict.CANNOT_TELL)
    lower = 1 - (1 - CONFIDENCE) / comparisons
    low = row.ratio * np.exp(-scipy.special.stdtrit(row.freedom, lower) * row.error - row.alarm)
    high = row.ratio * np.exp(scipy.special.stdtrit(row.freedom, CONFIDENCE) * row.error + row.alarm)
    bounds = f" (at least {low - 1:+.2%}, at most {high - 1:+.2%}, {row.blocks} blocks)"
    if high < 1 + share:
        return Finding(row.cell, f"{prefix}{row.ratio - 1:+.2%}{bounds}", Verdict.PASS)
    if row.ratio > 1 + share and low > 1:
        return Finding(row.cell, f"{prefix}{growth_in_words(row.ratio, share)}{bounds}")
    unsure = f"{row.ratio - 1:+.2%}{bounds}, more than +{100 * share:g}% or not"
    need = f"{blocks_needed(row, share)} needed"
    if _needed_width(row, share) <= row.blocks:  # of an unchanged cell
        need = f"its ratio is near the limit, so more than these {row.blocks} blocks are needed"
    if row.alarm:
        need = f"the A/A control is apart from its own image, so by up to {np.expm1(row.alarm):.1%} nothing is known"
    return Finding(row.cell, f"{prefix}{unsure}: {need}", Verdict.CANNOT_TELL)


def blocks_needed(row: tuple, share: float) -> str:
    """Return in words how many blocks show, with a probability of 0.8, that an unchanged cell keeps the limit. The
    estimate takes the upper 80% limit of the standard error: that of few blocks may be far too small by chance (Browne,
    Statistics in Medicine 14, 1995)."""
    need = _needed_width(row, share)
    return f"about {need} blocks" if need < inf else f"more than {_MOST_BLOCKS:,} blocks"


def _needed_width(row: tuple, share: float) -> float:
    error = row.error * np.sqrt(row.freedom / scipy.special.chdtri(row.freedom, POWER))
    counts, widths = _widths()
    enough = counts[widths * error * np.sqrt(row.blocks) < np.log1p(share)]
    return enough[0] if len(enough) else inf


@functools.cache
def _widths() -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of blocks that may be needed. For each, return how far out a limit must be to be shown, in
    standard deviations of one block."""
    counts = np.arange(FEWEST_BLOCKS, _MOST_BLOCKS + 1)
    quantiles = scipy.special.stdtrit(counts - 1, CONFIDENCE) + scipy.special.stdtrit(counts - 1, POWER)
    return counts, quantiles / np.sqrt(counts)


def growth_in_words(ratio: float, share: float) -> str:
    return f"{ratio - 1:+.2%}, more than +{100 * share:g}%"
