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
    """Return the Shapley value of each of `knobs`, in the unit of `values`. `values` has a value for every set of
    switched factors, the empty set included. Values are numbers, or arrays of one shape, which the results then have
    too."""
    count, contributions = len(knobs), {}
    for knob in knobs:
        other_knobs = [candidate for candidate in knobs if candidate != knob]
        total = 0.0
        for size in range(count):
            weight = permutations(size) * permutations(count - size - 1) / permutations(count)
            for coalition in map(frozenset, combinations(other_knobs, size)):
                total = total + weight * (values[coalition | {knob}] - values[coalition])
        contributions[knob] = total
    return contributions


def shares(design: Factorial, target: str = "") -> pd.DataFrame:
    """Return the contribution of each factor on the way from the start to a target: one row per factor, by
    contribution.

    Columns: `knob` (the factor), level (the target's), `share` (contribution, in the metric's unit), low and high (95%,
    NaN where exact); of_whole (fraction of the whole difference), verdict. A factor on which both cells agree has no
    row. The default target is the cell with the least value. With noise, it is the cell whose factors each have the
    level that is lower on average, over all settings of the others: the least of noisy means is too low by its noise.
    Every fourth block selects it, and the other blocks measure the contributions.

    `attrs`: start, target, is_named (whether `target` was passed), from, to and whole (values and difference); warning,
    stand_ins, quantity, blocks, chosen_on (blocks that selected the target). Raises LabError for a target without a
    value."""
    values, switches = _all_cells(design)
    selection_blocks, is_named = 0, bool(target)
    if design.quantity.study and not target:
        target, selection_blocks = _lowest_cell(values.iloc[:, ::_CHOOSE], switches), len(values.columns[::_CHOOSE])
        values = values.drop(columns=values.columns[::_CHOOSE])
    means = values.mean(axis=1)
    target = target or means.idxmin()
    check_known("cell with a value", target, values.index)
    knobs = [knob for knob in design.knobs if switches.loc[target, knob]]
    by_set = {frozenset(row.index[row]): values.loc[cell].to_numpy() for cell, row in switches.iterrows()}
    lines = []
    for knob, contributions in shapley(by_set, knobs).items():
        share = float(np.mean(contributions))
        low, high, verdict = _interval(design, contributions, len(knobs), (design.floor - 1) * means[design.start])
        lines.append((knob, design.knobs[knob][1], share, low, high, verdict))
    table = pd.DataFrame(lines, columns=["knob", "level", "share", "low", "high", "verdict"])
    difference = means[target] - means[design.start]
    table.insert(5, "of_whole", table["share"] / difference if difference else np.nan)
    table = table.sort_values("share", ignore_index=True)
    table.attrs = {
        "start": design.start, "target": target, "from": means[design.start], "to": means[target], "whole": difference,
        "warning": design.warning, "stand_ins": design.stand_ins, "quantity": design.quantity,
        "blocks": values.shape[1], "chosen_on": selection_blocks, "is_named": is_named,
    }  # fmt: skip
    return table


def _lowest_cell(values: pd.DataFrame, switches: pd.DataFrame) -> str:
    """Return the cell with exactly those factors switched that lower the metric, over all settings of the others."""
    logs = np.log(values).mean(axis=1)
    lessens = [logs[switches[knob]].mean() < logs[~switches[knob]].mean() for knob in switches]
    return switches.index[(switches == lessens).all(axis=1)][0]


def effects(design: Factorial) -> pd.DataFrame:
    """Return the effect of each factor, and of each pair, over all settings of the others: one row each, by order, then
    by size. Columns: `knobs`, order (1 or 2 factors), ratio (geometric mean), low and high (95%, NaN where exact),
    least and most (of that ratio), verdict. The ratio of a pair is the ratio by which switching one factor changes the
    ratio of the other."""
    values, switches = _all_cells(design)
    logs = np.log(values.to_numpy())
    lines = []
    for order in (1, 2):
        for knobs in combinations(design.knobs, order):
            signs = np.prod([np.where(switches[knob], 1, -1) for knob in knobs], axis=0)
            block_effects = 2**order * (signs[:, None] * logs).mean(axis=0)
            settings = [switches[knob] for knob in switches if knob not in knobs]
            signed_logs = pd.Series(signs * logs.mean(axis=1), switches.index)
            differences = signed_logs.groupby(settings).sum() if settings else signed_logs.sum()
            low, high, verdict = _interval(design, block_effects, comb(len(design.knobs), order), np.log(design.floor))
            ratios = np.exp([block_effects.mean(), low, high, np.min(differences), np.max(differences)])
            lines.append((" x ".join(knobs), order, *ratios, verdict))
    table = pd.DataFrame(lines, columns=["knobs", "order", "ratio", "low", "high", "least", "most", "verdict"])
    magnitude = np.log(table["ratio"]).abs()
    table = table.assign(by=-magnitude).sort_values(["order", "by"], ignore_index=True).drop(columns="by")
    table.attrs = {"quantity": design.quantity, "warning": design.warning}
    return table


def _all_cells(design: Factorial) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the values and settings of every cell. Where some cells are predicted, values have one column per draw."""
    if design.predicted.empty:
        return design.values, design.switches
    measured = design.values.mean(axis=1).to_numpy()[:, None].repeat(DRAWS, axis=1)
    switches = design.predicted[list(design.knobs)].astype(bool)
    return pd.concat([pd.DataFrame(measured, design.values.index), design.draws]), pd.concat(
        [design.switches, switches]
    )


def _interval(design: Factorial, values: np.ndarray, comparisons: int, floor: float) -> tuple[float, float, Verdict]:
    """Return the 95% interval (NaN where exact) and the verdict of a mean over blocks, or over draws of predictions. A
    mean over blocks must differ from 0 for so many comparisons (Bonferroni), and by more than the floor."""
    mean = float(values.mean())
    if design.quantity.study:
        half = half_interval(values)
        is_apart = abs(mean) > max(half_interval(values, comparisons), floor)
        verdict = Verdict.LESS if mean < 0 else Verdict.MORE
        return mean - half, mean + half, verdict if is_apart else Verdict.NO_DIFFERENCE
    if np.ptp(values) <= 1e-12 * abs(mean) and not len(design.predicted):
        return np.nan, np.nan, Verdict.EXACT
    low, high = np.quantile(values, [0.025, 0.975])
    verdict = Verdict.LESS_PREDICTED if high < 0 else Verdict.MORE_PREDICTED if low > 0 else Verdict.NO_DIFFERENCE
    return low, high, verdict
