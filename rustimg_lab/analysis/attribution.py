"""A factorial -> the contribution and the effect of each factor. Pure.

The contributions are Shapley values (Shapley, A Value for n-Person Games, 1953): what a knob changes, averaged over
every order in which the knobs that differ between two cells can be changed. Their sum is the difference of the two
cells. A metric that was measured in blocks has contributions for each block; their intervals are Student's t.
"""

from collections.abc import Hashable, Mapping
from itertools import combinations
from math import comb
from math import factorial as permutations

import numpy as np
import pandas as pd

from rustimg_lab.analysis.factorials import DRAWS, Factorial
from rustimg_lab.analysis.variances import half_interval
from rustimg_lab.errors import check_known
from rustimg_lab.model.metrics import Verdict

_CHOOSE = 4  # of so many blocks one chooses the target


def shapley(values: Mapping[frozenset[Hashable], np.ndarray | float], knobs: list[Hashable]) -> dict[Hashable, float]:
    """The Shapley value of each knob. `values`: of every set of turned knobs, numbers or arrays of one shape."""
    count, found = len(knobs), {}
    for knob in knobs:
        others = [each for each in knobs if each != knob]
        total = 0.0
        for size in range(count):
            weight = permutations(size) * permutations(count - size - 1) / permutations(count)
            for chosen in map(frozenset, combinations(others, size)):
                total = total + weight * (values[chosen | {knob}] - values[chosen])
        found[knob] = total
    return found


def shares(found: Factorial, target: str = "") -> pd.DataFrame:
    """What each knob adds on the way from the start to a target, in the unit of the metric: columns knob, level, share,
    low and high (95%, NaN where exact), of_whole (the share of the difference), verdict; by size. Knobs on which the
    two cells agree are left out.

    The target is by default the cell with the least; of what has noise, the one whose knobs each lessen the metric in
    every fourth block, and shares are of the other blocks: the least of noisy means is too low. `attrs`: both cells,
    their values, whether the target was named, the warning, and how many blocks are in the shares and chose the target.
    Raises LabError for a target without a value.
    """
    values, turned = _whole(found)
    chosen_on, is_named = 0, bool(target)
    if found.quantity.study and not target:
        target, chosen_on = _least(values.iloc[:, ::_CHOOSE], turned), len(values.columns[::_CHOOSE])
        values = values.drop(columns=values.columns[::_CHOOSE])
    means = values.mean(axis=1)
    target = target or means.idxmin()
    check_known("cell with a value", target, values.index)
    wanted = [knob for knob in found.knobs if turned.loc[target, knob]]
    by_set = {frozenset(on.index[on]): values.loc[cell].to_numpy() for cell, on in turned.iterrows()}
    lines = []
    for knob, each in shapley(by_set, wanted).items():
        share = float(np.mean(each))
        low, high, verdict = _interval(found, each, len(wanted), (found.floor - 1) * means[found.start])
        lines.append((knob, found.knobs[knob][1], share, low, high, verdict))
    table = pd.DataFrame(lines, columns=["knob", "level", "share", "low", "high", "verdict"])
    whole = means[target] - means[found.start]
    table.insert(5, "of_whole", table["share"] / whole if whole else np.nan)
    table = table.sort_values("share", ignore_index=True)
    table.attrs = {
        "start": found.start, "target": target, "from": means[found.start], "to": means[target], "whole": whole,
        "warning": found.warning, "stand_ins": found.stand_ins, "quantity": found.quantity, "blocks": values.shape[1],
        "chosen_on": chosen_on, "is_named": is_named,
    }  # fmt: skip
    return table


def _least(values: pd.DataFrame, turned: pd.DataFrame) -> str:
    """The cell with those knobs turned that, over all settings of the others, have less."""
    logs = np.log(values).mean(axis=1)
    lessens = [logs[turned[knob]].mean() < logs[~turned[knob]].mean() for knob in turned]
    return turned.index[(turned == lessens).all(axis=1)][0]


def effects(found: Factorial) -> pd.DataFrame:
    """What each knob, and each two together, do over all settings of the others: columns knobs, order (1 for a knob, 2
    for two), ratio (geometric mean; of two, by how much the one's ratio is another where the other is turned), low and
    high (95%), least and most (of the ratio, over the settings), verdict. By order, then by size."""
    values, turned = _whole(found)
    logs = np.log(values.to_numpy())
    lines = []
    for order in (1, 2):
        for chosen in combinations(found.knobs, order):
            signs = np.prod([np.where(turned[knob], 1, -1) for knob in chosen], axis=0)
            each = 2**order * (signs[:, None] * logs).mean(axis=0)
            settings = [turned[knob] for knob in turned if knob not in chosen]
            own = pd.Series(signs * logs.mean(axis=1), turned.index)
            differences = own.groupby(settings).sum() if settings else own.sum()
            low, high, verdict = _interval(found, each, comb(len(found.knobs), order), np.log(found.floor))
            ratios = np.exp([each.mean(), low, high, np.min(differences), np.max(differences)])
            lines.append((" x ".join(chosen), order, *ratios, verdict))
    table = pd.DataFrame(lines, columns=["knobs", "order", "ratio", "low", "high", "least", "most", "verdict"])
    by = np.log(table["ratio"]).abs()
    table = table.assign(by=-by).sort_values(["order", "by"], ignore_index=True).drop(columns="by")
    table.attrs = {"quantity": found.quantity, "warning": found.warning}
    return table


def _whole(found: Factorial) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values and settings of every cell: where some are predicted, a column per draw."""
    if found.predicted.empty:
        return found.values, found.turned
    measured = found.values.mean(axis=1).to_numpy()[:, None].repeat(DRAWS, axis=1)
    turned = found.predicted[list(found.knobs)].astype(bool)
    return pd.concat([pd.DataFrame(measured, found.values.index), found.drawn]), pd.concat([found.turned, turned])


def _interval(found: Factorial, each: np.ndarray, comparisons: int, floor: float) -> tuple[float, float, Verdict]:
    """The 95% interval of contributions, and whether it is apart from 0 (for all comparisons) and beyond the floor."""
    mean = float(each.mean())
    if found.quantity.study:
        half = half_interval(each)
        apart = abs(mean) > max(half_interval(each, comparisons), floor)
        verdict = Verdict.LESS if mean < 0 else Verdict.MORE
        return mean - half, mean + half, verdict if apart else Verdict.NO_DIFFERENCE
    if np.ptp(each) <= 1e-12 * abs(mean):
        return np.nan, np.nan, Verdict.EXACT
    low, high = np.quantile(each, [0.025, 0.975])
    verdict = Verdict.LESS_PREDICTED if high < 0 else Verdict.MORE_PREDICTED if low > 0 else Verdict.NO_DIFFERENCE
    return low, high, verdict
