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
from rustimg_lab.errors import LabError, check_known, unknown_name
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
    """The cells of a run by their knobs. `knobs`: by name the level that `start` has, and the other. `start_factors`:
    the start's base, profile and allocator. `switches`: bool, a row per cell, a column per knob. `values`: above 0, in
    the unit of the metric, a row per cell, a column per block, one where it is exact. `base_bytes`: by the base's
    level, what of a size is the base's (empty for what is no size). `floor`: the ratio that a claim must be beyond (1,
    unless the A/A control differs from itself). `predicted`: of the cells that have no value, what `predict` says, and
    a column per knob; `draws`: values that they may have, in as many columns as were drawn."""

    run: str
    quantity: Metric
    start: str
    start_factors: tuple[str, str, str]
    knobs: dict[str, tuple[str, str]]
    switches: pd.DataFrame
    values: pd.DataFrame
    base_bytes: dict[str, float] = field(default_factory=dict)
    floor: float = 1
    warning: str = ""
    stand_ins: tuple[str, ...] = ()
    predicted: pd.DataFrame = field(default_factory=pd.DataFrame)
    draws: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def missing(self) -> list[tuple[bool, ...]]:
        """Return the settings of the factors that have no value: tuples of bool, in the order of `knobs`."""
        measured = set(map(tuple, self.switches.to_numpy().tolist()))
        return [setting for setting in product((False, True), repeat=len(self.knobs)) if setting not in measured]

    def cell_name(self, setting: tuple[bool, ...]) -> str:
        """Return the name of the cell that has these factors switched."""
        levels = {knob: pair[is_on] for (knob, pair), is_on in zip(self.knobs.items(), setting, strict=True)}
        base, profile, allocator = self.start_factors
        profiles = [name for name in profile.split("+") if name not in (factorial.PLAIN, *self.knobs)]
        profiles += [knob for knob, level in levels.items() if level == "on"]
        joined = factorial.join_knobs(factorial.in_order(profiles)).replace("+", "_")
        return f"{levels.get('base', base)}-{joined}-{levels.get('allocator', allocator)}"


@dataclass(frozen=True)
class Model:
    """Predicts logarithms of sizes. `coefficients`: of `_terms`; `terms` and `omitted_terms`: of the cells that were
    fitted; `spread`: the standard deviation of interactions of three factors, with its degrees of freedom."""

    coefficients: np.ndarray
    terms: np.ndarray
    omitted_terms: np.ndarray
    spread: float
    freedom: int


def find_factorials(run: RunData, start: str = "", workload: str = "") -> tuple[list[Factorial], dict[str, str]]:
    """Return the factorials of a run, one for each of `QUANTITIES`, as `find_factorial` makes them; and the reasons of
    those without, by quantity."""
    factorials, reasons, table = [], {}, _working_cells(run)
    for name in metrics.QUANTITIES:
        try:
            factorials.append(find_factorial(run, name, start, workload, table))
        except LabError as error:
            reasons[name] = str(error)
    return factorials, reasons


def find_factorial(
    run: RunData, quantity: str, start: str = "", workload: str = "", table: pd.DataFrame | None = None
) -> Factorial:
    """Return the factorial that the cells of a run form, for one of `QUANTITIES`. What was not measured is predicted,
    where a fraction of the cells allows that. `table` is what `_working_cells` returns, if known already.

    Factors are switched from `start` (default: the cell with the fewest profiles, then the system allocator, then the
    largest image). Of a study only blocks with a value of every cell count. Raises LabError without a factorial: fewer
    than two factors, more than two bases or allocators, two cells with the same factors switched, or missing cells that
    cannot be predicted."""
    check_known("quantity", quantity, metrics.QUANTITIES)
    table = _working_cells(run) if table is None else table
    metric = metrics.QUANTITIES[quantity]
    base_bytes, study = {}, ""
    if metric.study:
        values, factors, study = _study_values(run, metric, workload)
    else:
        values = table[[metric]].dropna().astype(float).set_axis([0], axis=1)
        factors = table.loc[values.index, ["base", "profile", "allocator"]]
        if part := metrics.APPS_PART.get(metric):
            base_bytes = (values[0] - table[part].reindex(values.index)).groupby(factors["base"]).median().to_dict()
    if values.empty:
        raise LabError(f"run '{run.name}' has measured {metric.phrase} of no cell: `./lab run` does")
    if not (values > 0).all(axis=None):
        raise LabError(f"run '{run.name}' has a value of 0 or below for {metric.phrase}, of which there is no ratio")
    if start and start not in values.index:
        raise unknown_name("cell with a value", start, values.index)
    start = start or _find_start(factors, table[metrics.UNPACKED_BYTES].reindex(values.index))
    knobs, switches = _find_knobs(factors, start, run.name)
    if switches.duplicated().any():
        doubles = switches.index[switches.duplicated(keep=False)][:2]
        raise LabError(f"run '{run.name}' is no factorial: {' and '.join(doubles)} have the same levels of all factors")
    attrs = comparison.of_study(run, study, metric).attrs if study else {"floor": 1.0, "warning": ""}
    design = Factorial(
        run.name, metric, start, tuple(factors.loc[start]), knobs, switches, values, base_bytes, attrs["floor"],
        attrs["warning"], tuple(run.environment.stand_ins),
    )  # fmt: skip
    return _fill_missing(design) if design.missing else design


def score(design: Factorial) -> pd.DataFrame:
    """Return the measured cells outside the fraction, predicted from the fraction alone: one row per cell. Columns:
    cell, measured, predicted, low and high (95% prediction interval), error (predicted / measured - 1), inside. Sizes
    are of the app's part. `attrs`: fitted (number of cells), and why there is no row ("" where there are rows)."""
    columns = ["cell", "measured", "predicted", "low", "high", "error", "inside"]
    fitted, reason = [], "every cell that was measured is in the fraction; `./lab run --fraction N` holds N more out"
    try:
        fitted = _fraction(design)
    except LabError as error:
        reason = str(error)
    held_out = [cell for cell in design.values.index if cell not in fitted] if fitted else []
    if not held_out:
        table = pd.DataFrame(columns=columns)
        table.attrs = {"why": reason}
        return table
    table = predict(_model(design, fitted), design.switches.loc[held_out])
    table.insert(0, "measured", _app_values(design).mean(axis=1)[held_out])
    table["error"] = table["predicted"] / table["measured"] - 1
    table["inside"] = table["measured"].between(table["low"], table["high"])
    table = table.rename_axis("cell").reset_index()[columns]
    table.attrs = {"fitted": len(fitted), "why": ""}
    return table


def predict(model: Model, switches: pd.DataFrame) -> pd.DataFrame:
    """Return the predicted size of cells without the base's part, in the unit of the fitted values: columns predicted,
    low and high (95% prediction interval), by cell."""
    logs = _terms(switches) @ model.coefficients
    half = (
        variances.quantile(model.freedom)
        * model.spread
        * np.sqrt((_interaction_errors(model, switches) ** 2).sum(axis=1))
    )
    return np.exp(pd.DataFrame({"predicted": logs, "low": logs - half, "high": logs + half}, switches.index))


def _working_cells(run: RunData) -> pd.DataFrame:
    """Return the rows of `cell_table` for the cells that work, by cell. Cells with additions and the crate as published
    are left out: neither is a factor."""
    table = cell_table(run).query("ok").set_index("cell")
    return table[~table.index.str.contains(WITH) & table["profile"].ne(PUBLISHED.name)]


def _study_values(run: RunData, metric: Metric, workload: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the values by cell and complete block, the factors of the cells, and the name of the study."""
    study = comparison.study_of(run, metric, workload)
    if not study:
        raise LabError(f"run '{run.name}' has no {metric.study} study{f' of {workload}' if workload else ''}")
    samples = comparison.samples(run, study, metric)
    samples = samples[samples["profile"] != PUBLISHED.name]
    wide = samples.pivot(index="cell", columns="block", values="value").dropna(axis=1)
    if wide.shape[1] < 3:  # one chooses a target, two have an interval
        raise LabError(f"{study} of run '{run.name}' has fewer than three blocks in which every cell has a value")
    values = wide[~wide.index.str.contains(MARK)]  # neither the twin nor cells with a setting of their allocator
    factors = samples.drop_duplicates("cell").set_index("cell").loc[values.index, ["base", "profile", "allocator"]]
    return values, factors, study


def _find_start(factors: pd.DataFrame, sizes: pd.Series) -> str:
    parts = factors["profile"].map(lambda name: 0 if name == factorial.PLAIN else len(name.split("+")))
    order = pd.DataFrame({"parts": parts, "other": factors["allocator"].ne("system"), "size": -sizes})
    return order.sort_values(list(order), kind="stable").index[0] if len(order) else ""


def _find_knobs(factors: pd.DataFrame, start: str, run: str) -> tuple[dict[str, tuple[str, str]], pd.DataFrame]:
    """Return the factors with their levels, and which of them each cell has switched. Raises LabError as
    `find_factorial` does."""
    parts = factors["profile"].map(lambda name: set(name.split("+")) - {factorial.PLAIN})
    names = set().union(*parts)
    if {"base", "allocator"} & names:
        raise LabError(f"run '{run}' is of no factorial: a profile in it is called base or allocator")
    levels = {"base": factors["base"]}
    for name in factorial.in_order(names):
        levels[name] = pd.Series(["on" if name in part else "off" for part in parts], parts.index)
    levels["allocator"] = factors["allocator"]
    knobs, switches = {}, {}
    for name, column in levels.items():
        values = list(column.unique())
        if len(values) > 2:
            raise LabError(f"run '{run}' has {len(values)} {name}s, {', '.join(values)}: a factor has two levels")
        if len(values) == 2:
            start_level = column[start]
            knobs[name] = (start_level, next(value for value in values if value != start_level))
            switches[name] = column != start_level
    if not 2 <= len(knobs) <= factorial.MOST:
        raise LabError(
            f"run '{run}' is no factorial: it has {len(knobs)} factors, and a factorial has 2 to {factorial.MOST}; "
            "`./lab run --knobs NAME[,...] --run NEW` builds one"
        )
    return knobs, pd.DataFrame(switches, factors.index)


def _fill_missing(design: Factorial) -> Factorial:
    """Return the design with its missing cells predicted. Raises LabError where they cannot be predicted."""
    missing = design.missing
    names = [design.cell_name(setting) for setting in missing]
    text = f"run '{design.run}' lacks {len(missing)} of {2 ** len(design.knobs)} cells of {' x '.join(design.knobs)}: "
    text += ", ".join(names[:3]) + (", ..." if len(missing) > 3 else "")
    try:
        fitted = _fraction(design)
    except LabError as error:
        raise LabError(f"{text}; build those, or predict them from a fraction: {error}") from None
    switches = pd.DataFrame(missing, names, list(design.knobs))
    model = _model(design, fitted)
    drawn = _draw_values(model, switches) + _base_bytes(design, switches)[:, None]
    return replace(design, predicted=predict(model, switches).join(switches), draws=pd.DataFrame(drawn, switches.index))


def _model(design: Factorial, fitted: list[str]) -> Model:
    """Return a model of the logarithms of these cells without the base's part, fitted by least squares."""
    switches = design.switches.loc[fitted]
    logs, terms, left_out = (
        np.log(_app_values(design).mean(axis=1)[fitted]).to_numpy(),
        _terms(switches),
        _omitted_terms(switches),
    )
    columns = np.column_stack([logs, left_out])
    coefficients = np.linalg.pinv(terms) @ columns
    residuals = columns - terms @ coefficients
    spread = np.sqrt((residuals[:, 0] ** 2).sum() / (residuals[:, 1:] ** 2).sum())
    return Model(coefficients[:, 0], terms, left_out, spread, len(terms) - terms.shape[1])


def _interaction_errors(model: Model, switches: pd.DataFrame) -> np.ndarray:
    """Return by how much each left-out interaction would put a prediction wrong, (cells, interactions)."""
    return _omitted_terms(switches) - _terms(switches) @ (np.linalg.pinv(model.terms) @ model.omitted_terms)


def _draw_values(model: Model, switches: pd.DataFrame) -> np.ndarray:
    """Return values that cells may have together, (cells, `DRAWS`). Left-out interactions are drawn from the t
    distribution that the fit leaves open."""
    generator = np.random.default_rng(0)
    scale = model.spread * np.sqrt(model.freedom / generator.chisquare(model.freedom, DRAWS))
    drawn = generator.standard_normal((model.omitted_terms.shape[1], DRAWS)) * scale
    return np.exp((_terms(switches) @ model.coefficients)[:, None] + _interaction_errors(model, switches) @ drawn)


def _fraction(design: Factorial) -> list[str]:
    """Return the cells of the fraction, wherever in the factorial it begins. Raises LabError where there is none, or
    some of its cells have no value."""
    if design.quantity.study:
        raise LabError("what is measured in blocks is not predicted")
    names = {
        tuple(row): cell for cell, row in zip(design.switches.index, design.switches.to_numpy().tolist(), strict=True)
    }
    fraction = factorial.fraction(len(design.knobs))
    origins = [(False,) * len(design.knobs), *names]
    fractions = [list(map(tuple, (fraction ^ np.array(origin)).tolist())) for origin in origins]
    nearest = min(fractions, key=lambda settings: sum(setting not in names for setting in settings))
    if lacking := [setting for setting in nearest if setting not in names]:
        first = design.cell_name(lacking[0])
        raise LabError(f"the fraction lacks {len(lacking)} of {len(fraction)} cells, {first} the first of them")
    return [names[setting] for setting in nearest]


def _terms(switches: pd.DataFrame) -> np.ndarray:
    """Return the columns of the model: 1, each factor as -1 or 1, and the product of each pair."""
    return np.column_stack(
        [np.ones(len(switches)), *(column for order in (1, 2) for column in _products(switches, order))]
    )


def _omitted_terms(switches: pd.DataFrame) -> np.ndarray:
    """Return the columns of the interactions that the model lacks: of three factors, and of four times `_FOUR`."""
    return np.column_stack([*_products(switches, 3), *(_FOUR * column for column in _products(switches, 4))])


def _products(switches: pd.DataFrame, order: int) -> list[np.ndarray]:
    """Return the product of each group of `order` factors, each factor as -1 or 1."""
    signs = [np.where(switches[knob], 1.0, -1.0) for knob in switches]
    return [np.prod(group, axis=0) for group in combinations(signs, order)]


def _app_values(design: Factorial) -> pd.DataFrame:
    """Return the values without the base's part."""
    return design.values - _base_bytes(design, design.switches)[:, None]


def _base_bytes(design: Factorial, switches: pd.DataFrame) -> np.ndarray:
    if not design.base_bytes:
        return np.zeros(len(switches))
    levels = design.knobs.get("base", design.start_factors[:1] * 2)
    base_switch = switches["base"] if "base" in switches else pd.Series(False, switches.index)
    return np.where(base_switch, design.base_bytes[levels[1]], design.base_bytes[levels[0]])
