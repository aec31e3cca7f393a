"""The cells of a run as a factorial: factors, values, and predictions of cells that were not measured.

A prediction has each factor and each two of them. Sizes have no noise: what a prediction misses are interactions of
three and four factors, taken for draws of one normal distribution, those of four a fifth as wide. Effects of a higher
order are smaller (Wu and Hamada, Experiments, 2009, section 4.6); in `data/recorded/factorial` those of three are 0.15
times those of two, and those of four 0.1 times those of three. The fraction shows how wide the distribution is.
"""

from dataclasses import dataclass, field, replace
from itertools import combinations, product

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison, variances
from rustimg_lab.analysis.cells import cell_table
from rustimg_lab.errors import LabError, check_known, unknown
from rustimg_lab.model import factorial, metrics
from rustimg_lab.model.matrix import WITH
from rustimg_lab.model.metrics import Metric
from rustimg_lab.model.names import MARK
from rustimg_lab.model.profiles import PUBLISHED
from rustimg_lab.store.runs import RunData

DRAWS = 2000
_FOUR = 0.2  # interactions of four factors beside those of three


@dataclass(frozen=True)
class Factorial:
    """The cells of a run by their knobs. `knobs`: by name the level that `start` has, and the other. `made_of`: the
    start's base, profile and allocator. `turned`: bool, a row per cell, a column per knob. `values`: above 0, in the
    unit of the metric, a row per cell, a column per block, one where it is exact. `base_bytes`: by the base's level,
    what of a size is the base's (empty for what is no size). `floor`: the ratio that a claim must be beyond (1, unless
    the A/A control differs from itself). `predicted`: of the cells that have no value, what `predict` says, and a
    column per knob; `drawn`: values that they may have, in as many columns as were drawn."""

    run: str
    quantity: Metric
    start: str
    made_of: tuple[str, str, str]
    knobs: dict[str, tuple[str, str]]
    turned: pd.DataFrame
    values: pd.DataFrame
    base_bytes: dict[str, float] = field(default_factory=dict)
    floor: float = 1
    warning: str = ""
    stand_ins: tuple[str, ...] = ()
    predicted: pd.DataFrame = field(default_factory=pd.DataFrame)
    drawn: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def missing(self) -> list[tuple[bool, ...]]:
        """The settings of the knobs that there is no value of."""
        known = set(map(tuple, self.turned.to_numpy().tolist()))
        return [each for each in product((False, True), repeat=len(self.knobs)) if each not in known]

    def name_of(self, turned: tuple[bool, ...]) -> str:
        """The name of the cell that has these knobs turned."""
        levels = {knob: both[on] for (knob, both), on in zip(self.knobs.items(), turned, strict=True)}
        base, profile, allocator = self.made_of
        own = [name for name in profile.split("+") if name not in (factorial.PLAIN, *self.knobs)]
        own += [knob for knob, level in levels.items() if level == "on"]
        joined = factorial.joined(factorial.in_order(own)).replace("+", "_")
        return f"{levels.get('base', base)}-{joined}-{levels.get('allocator', allocator)}"


@dataclass(frozen=True)
class Model:
    """Predicts logarithms of sizes. `coefficients`: of `_terms`; `terms` and `left_out`: of the cells that were
    fitted; `spread`: the standard deviation of interactions of three factors, with its degrees of freedom."""

    coefficients: np.ndarray
    terms: np.ndarray
    left_out: np.ndarray
    spread: float
    freedom: int


def everything(run: RunData, start: str = "", workload: str = "") -> tuple[list[Factorial], dict[str, str]]:
    """The factorials of a run, one for each of `QUANTITIES`, as `of` gives them; and by quantity why there is none."""
    found, reasons, table = [], {}, _works(run)
    for name in metrics.QUANTITIES:
        try:
            found.append(of(run, name, start, workload, table))
        except LabError as error:
            reasons[name] = str(error)
    return found, reasons


def of(
    run: RunData, quantity: str, start: str = "", workload: str = "", table: pd.DataFrame | None = None
) -> Factorial:
    """The factorial that a run's cells are of, by one of `QUANTITIES`; cells that are missing are predicted where a
    fraction allows it. `table` is `_works`, if known.

    `start`: the cell that knobs are turned from (default: the largest image with the fewest profiles and the system's
    allocator). Of a study only whole blocks count. Raises LabError for fewer than two knobs, more than two bases or
    allocators, cells with the same knobs turned, or missing ones that cannot be predicted.
    """
    check_known("quantity", quantity, metrics.QUANTITIES)
    table = _works(run) if table is None else table
    about = metrics.QUANTITIES[quantity]
    base_bytes, study = {}, ""
    if about.study:
        values, factors, study = _of_study(run, about, workload)
    else:
        values = table[[about]].dropna().astype(float).set_axis([0], axis=1)
        factors = table.loc[values.index, ["base", "profile", "allocator"]]
        if own := metrics.APPS_PART.get(about):
            base_bytes = (values[0] - table[own].reindex(values.index)).groupby(factors["base"]).median().to_dict()
    if not (values > 0).all(axis=None):
        raise LabError(f"run '{run.name}' has a value of 0 or below for {about.phrase}, of which there is no ratio")
    if start and start not in values.index:
        raise unknown("cell with a value", start, values.index)
    start = start or _start(factors, table[metrics.UNPACKED_BYTES].reindex(values.index))
    knobs, turned = _knobs(factors, start, run.name)
    if turned.duplicated().any():
        again = turned.index[turned.duplicated(keep=False)][:2]
        raise LabError(f"run '{run.name}' is no factorial: {' and '.join(again)} have the same levels of all factors")
    told = comparison.of_study(run, study, about).attrs if study else {"floor": 1.0, "warning": ""}
    found = Factorial(
        run.name, about, start, tuple(factors.loc[start]), knobs, turned, values, base_bytes, told["floor"],
        told["warning"], tuple(run.environment.stand_ins),
    )  # fmt: skip
    return _filled(found) if found.missing else found


def score(found: Factorial) -> pd.DataFrame:
    """The cells that were measured and are not in the fraction, predicted from the fraction alone: columns cell,
    measured, predicted, low and high (95% prediction interval), error (predicted / measured - 1), inside. Of sizes the
    app's part. `attrs` has the number of cells that were fitted, and why there is no row where there is none."""
    columns = ["cell", "measured", "predicted", "low", "high", "error", "inside"]
    fitted, why = [], "every cell that was measured is in the fraction; `./lab run --fraction N` holds N more out"
    try:
        fitted = _fraction(found)
    except LabError as error:
        why = str(error)
    rest = [cell for cell in found.values.index if cell not in fitted] if fitted else []
    if not rest:
        table = pd.DataFrame(columns=columns)
        table.attrs = {"why": why}
        return table
    table = predict(_model(found, fitted), found.turned.loc[rest])
    table.insert(0, "measured", _own(found).mean(axis=1)[rest])
    table["error"] = table["predicted"] / table["measured"] - 1
    table["inside"] = table["measured"].between(table["low"], table["high"])
    table = table.rename_axis("cell").reset_index()[columns]
    table.attrs = {"fitted": len(fitted), "why": ""}
    return table


def predict(model: Model, turned: pd.DataFrame) -> pd.DataFrame:
    """Sizes that cells would have, without the base's part: predicted, low, high (95% prediction interval), by cell."""
    logs = _terms(turned) @ model.coefficients
    half = variances.quantile(model.freedom) * model.spread * np.sqrt((_missed(model, turned) ** 2).sum(axis=1))
    return np.exp(pd.DataFrame({"predicted": logs, "low": logs - half, "high": logs + half}, turned.index))


def _works(run: RunData) -> pd.DataFrame:
    """The cells that work, by cell; what is added to an image is no knob, and the crate as published has none."""
    table = cell_table(run).query("ok").set_index("cell")
    return table[~table.index.str.contains(WITH) & table["profile"].ne(PUBLISHED.name)]


def _of_study(run: RunData, about: Metric, workload: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Values by cell and complete block, the cells' factors, and the study's name."""
    study = comparison.study_of(run, about, workload)
    if not study:
        raise LabError(f"run '{run.name}' has no {about.study} study{f' of {workload}' if workload else ''}")
    samples = comparison.samples(run, study, about)
    samples = samples[samples["profile"] != PUBLISHED.name]
    wide = samples.pivot(index="cell", columns="block", values="value").dropna(axis=1)
    if wide.shape[1] < 3:  # one chooses a target, two have an interval
        raise LabError(f"{study} of run '{run.name}' has fewer than three blocks in which every cell has a value")
    own = wide[~wide.index.str.contains(MARK)]  # neither the twin nor cells with a setting of their allocator
    factors = samples.drop_duplicates("cell").set_index("cell").loc[own.index, ["base", "profile", "allocator"]]
    return own, factors, study


def _start(factors: pd.DataFrame, sizes: pd.Series) -> str:
    parts = factors["profile"].map(lambda name: 0 if name == factorial.PLAIN else len(name.split("+")))
    order = pd.DataFrame({"parts": parts, "other": factors["allocator"].ne("system"), "size": -sizes})
    return order.sort_values(list(order), kind="stable").index[0] if len(order) else ""


def _knobs(factors: pd.DataFrame, start: str, run: str) -> tuple[dict[str, tuple[str, str]], pd.DataFrame]:
    """The knobs with their levels, and of each cell which are turned. Raises LabError as `of` does."""
    parts = factors["profile"].map(lambda name: set(name.split("+")) - {factorial.PLAIN})
    every = set().union(*parts)
    if {"base", "allocator"} & every:
        raise LabError(f"run '{run}' is of no factorial: a profile in it is called base or allocator")
    levels = {"base": factors["base"]}
    for name in factorial.in_order(every):
        levels[name] = pd.Series(["on" if name in own else "off" for own in parts], parts.index)
    levels["allocator"] = factors["allocator"]
    knobs, turned = {}, {}
    for name, own in levels.items():
        known = list(own.unique())
        if len(known) > 2:
            raise LabError(f"run '{run}' has {len(known)} {name}s, {', '.join(known)}: a factor has two levels")
        if len(known) == 2:
            first = own[start]
            knobs[name] = (first, next(each for each in known if each != first))
            turned[name] = own != first
    if not 2 <= len(knobs) <= factorial.MOST:
        raise LabError(
            f"run '{run}' is no factorial: it has {len(knobs)} factors, and a factorial has 2 to {factorial.MOST}; "
            "`./lab run --knobs NAME[,...] --run NEW` builds one"
        )
    return knobs, pd.DataFrame(turned, factors.index)


def _filled(found: Factorial) -> Factorial:
    """The same with what is missing predicted. Raises LabError where it cannot be."""
    missing = found.missing
    names = [found.name_of(each) for each in missing]
    told = f"run '{found.run}' lacks {len(missing)} of {2 ** len(found.knobs)} cells of {' x '.join(found.knobs)}: "
    told += ", ".join(names[:3]) + (", ..." if len(missing) > 3 else "")
    try:
        fitted = _fraction(found)
    except LabError as error:
        raise LabError(f"{told}; build those, or predict them from a fraction: {error}") from None
    turned = pd.DataFrame(missing, names, list(found.knobs))
    model = _model(found, fitted)
    drawn = _drawn(model, turned) + _base_bytes(found, turned)[:, None]
    return replace(found, predicted=predict(model, turned).join(turned), drawn=pd.DataFrame(drawn, turned.index))


def _model(found: Factorial, fitted: list[str]) -> Model:
    """The logarithms of these cells, the base's part left out, explained by least squares."""
    turned = found.turned.loc[fitted]
    logs, terms, left_out = np.log(_own(found).mean(axis=1)[fitted]).to_numpy(), _terms(turned), _left_out(turned)
    both = np.column_stack([logs, left_out])
    coefficients = np.linalg.pinv(terms) @ both
    rest = both - terms @ coefficients
    spread = np.sqrt((rest[:, 0] ** 2).sum() / (rest[:, 1:] ** 2).sum())
    return Model(coefficients[:, 0], terms, left_out, spread, len(terms) - terms.shape[1])


def _missed(model: Model, turned: pd.DataFrame) -> np.ndarray:
    """By how much each interaction that is left out would put a prediction wrong, (cells, interactions)."""
    return _left_out(turned) - _terms(turned) @ (np.linalg.pinv(model.terms) @ model.left_out)


def _drawn(model: Model, turned: pd.DataFrame) -> np.ndarray:
    """Values that cells may have together, (cells, `DRAWS`): what is left out is drawn from a t distribution."""
    generator = np.random.default_rng(0)
    wide = model.spread * np.sqrt(model.freedom / generator.chisquare(model.freedom, DRAWS))
    drawn = generator.standard_normal((model.left_out.shape[1], DRAWS)) * wide
    return np.exp((_terms(turned) @ model.coefficients)[:, None] + _missed(model, turned) @ drawn)


def _fraction(found: Factorial) -> list[str]:
    """The cells of the fraction, wherever it begins. Raises LabError without one, or where its cells lack values."""
    if found.quantity.study:
        raise LabError("what is measured in blocks is not predicted")
    by = {tuple(own): cell for cell, own in zip(found.turned.index, found.turned.to_numpy().tolist(), strict=True)}
    chosen = factorial.fraction(len(found.knobs))
    origins = [(False,) * len(found.knobs), *by]
    fractions = [list(map(tuple, (chosen ^ np.array(origin)).tolist())) for origin in origins]
    nearest = min(fractions, key=lambda cells: sum(each not in by for each in cells))
    if lacking := [each for each in nearest if each not in by]:
        first = found.name_of(lacking[0])
        raise LabError(f"the fraction lacks {len(lacking)} of {len(chosen)} cells, {first} the first of them")
    return [by[each] for each in nearest]


def _terms(turned: pd.DataFrame) -> np.ndarray:
    """The columns of the model: 1, each knob as -1 or 1, and each two of them multiplied."""
    return np.column_stack([np.ones(len(turned)), *(column for order in (1, 2) for column in _products(turned, order))])


def _left_out(turned: pd.DataFrame) -> np.ndarray:
    """The interactions that the model lacks, each as wide as they are beside those of three."""
    return np.column_stack([*_products(turned, 3), *(_FOUR * column for column in _products(turned, 4))])


def _products(turned: pd.DataFrame, order: int) -> list[np.ndarray]:
    """Each so many knobs as -1 or 1, multiplied."""
    signs = [np.where(turned[knob], 1.0, -1.0) for knob in turned]
    return [np.prod(chosen, axis=0) for chosen in combinations(signs, order)]


def _own(found: Factorial) -> pd.DataFrame:
    """The values without the base's part."""
    return found.values - _base_bytes(found, found.turned)[:, None]


def _base_bytes(found: Factorial, turned: pd.DataFrame) -> np.ndarray:
    if not found.base_bytes:
        return np.zeros(len(turned))
    levels = found.knobs.get("base", found.made_of[:1] * 2)
    on = turned["base"] if "base" in turned else pd.Series(False, turned.index)
    return np.where(on, found.base_bytes[levels[1]], found.base_bytes[levels[0]])
