"""What `import rustimg_lab` returns of runs: what was measured, the cell to ship, and what changed between two."""

from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, Any

import pandas as pd
from IPython.display import HTML, display
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison, deploy, factorials, pareto, profile_effects, recommendation
from rustimg_lab.errors import NUMBER, TEXT, LabError, check_known, check_values, text_or_reason
from rustimg_lab.model import cargo_profile, metrics, studies
from rustimg_lab.model.names import split_list
from rustimg_lab.report import plots, views
from rustimg_lab.report.format import SENTINEL
from rustimg_lab.store import runs
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.attribution import Attribution
from rustimg_lab.widgets.images import Probes, Sizes
from rustimg_lab.widgets.results import Result, Several, Words
from rustimg_lab.widgets.studies import Deploys, Machines, Study

if TYPE_CHECKING:
    from ipywidgets import Widget


_NO_CELL = "# no cell was selected: none meets all constraints\n"


@dataclass(frozen=True)
class Run:
    """A run. `data`: its rows and its environment; `failures`: a line on each cell or trial that failed in the last
    call. What it does not have raises LabError with a line on what it has."""

    name: str
    data: RunData = field(repr=False)
    failures: tuple[str, ...] = ()

    @property
    def rows(self) -> pd.DataFrame:
        """Return all rows, one per observation."""
        return self.data.rows

    @cached_property
    def sizes(self) -> Sizes:
        """Return the sizes of the images: a row per cell."""
        return Sizes(self.data)

    @property
    def probes(self) -> Probes:
        """Return the robustness probes: what each image passes and fails."""
        return Probes(self.data)

    @property
    def studies(self) -> list[str]:
        """Return the names of the run's studies."""
        return list(self.data.environment.studies)

    @property
    def published(self) -> Result:
        """Return what others measured when musl's malloc was replaced."""
        return Result.of(views.studies.published())

    @property
    def packages(self) -> HTML:
        """Return the packages of each base image with their versions, folded away."""
        return views.provenance.packages(self.data)

    def study(self, study: str, baseline: str = "", **parameters: Any) -> Study:
        """Return a study by its name, or the first of that kind with these parameters (default: compared with its own
        baseline). Raises LabError when the run has none, with those that it has, or when the named study has other
        parameters."""
        check_values(TEXT, study=study, baseline=baseline)
        if study not in self.studies:
            return Study(self.data, comparison.find_study(self.data, study, **parameters), baseline)
        values = self.data.environment.studies[study].parameters
        for name, value in parameters.items():
            if values.get(name) != value:
                raise LabError(f"study '{study}' has {name} {values.get(name)!r}, not {value!r}: leave that out")
        return Study(self.data, study, baseline)

    def find(self, kind: str, baseline: str = "", **parameters: Any) -> list[Study]:
        """Return all studies of that kind with these parameters whose baseline was measured. Raises LabError for a kind
        or a parameter that is not known."""
        check_values(TEXT, kind=kind, baseline=baseline)
        plans = self.data.environment.studies.values()
        check_known("kind of study", kind, [*studies.KINDS, studies.COUNTED])
        names = dict.fromkeys([*studies.USUAL_LOAD, *studies.APART, *chain(*(plan.parameters for plan in plans))])
        for name in parameters:
            check_known("parameter", name, names)
        return [Study(self.data, name, baseline) for name in comparison.find_studies(self.data, kind, **parameters)]

    def ratios(self, study: str = "throughput", metric: str = "") -> Result:
        """Compare the cells of a study, by its name or its kind, with the study's baseline (default: its main metric).
        Raises LabError when the run has no such study."""
        return self.study(study).ratios(metric)

    def deploys(self, baseline: str = "", against: str = "", held_out: int = deploy.HELD_OUT_MBIT) -> Deploys:
        """Return the deploys to machines that lack the image. The model is not fitted to the bandwidth `held_out`
        (Mbit/s). Defaults: the studies' baseline, against the other cell that pulls the most. Raises LabError without
        deploys."""
        check_values(TEXT, baseline=baseline, against=against)
        check_values(NUMBER, held_out=held_out)
        return Deploys(self.data, baseline, against, held_out)

    def machines(self, others: str = "", **load: Any) -> Machines:
        """Return the throughput study of that load as several machines have measured it: of this run, and of the
        others, with commas between. Raises LabError when this run has no such study, or another run is not there."""
        check_values(TEXT, others=others)
        other_data = {name: runs.load(name) for name in split_list(others) if name}
        return Machines({self.name: self.data} | other_data, self.study("throughput", **load).name)

    def attribution(self, workload: str = "", start: str = "", target: str = "") -> Several:
        """Return the contribution of each factor between two cells, for every quantity (default start: the largest
        plain image; default target: see `attribution.shares`). Where the run has no factorial, the reason is shown."""
        check_values(TEXT, workload=workload, start=start, target=target)
        comparison.check_workload(self.data, workload)
        designs, reasons = factorials.find_factorials(self.data, start, workload)
        return Several((Attribution(design, target) for design in designs), reasons.get(metrics.IMAGE, ""))

    def trade_off(self, workload: str = "") -> "Widget":
        """Return a widget to select cells and two criteria, with the plot of their Pareto front. Raises LabError when
        no cell works."""
        from rustimg_lab.widgets import trade_off

        return trade_off.trade_off(self.data, workload)

    def footer(self) -> None:
        """Show how the run was made and what failed: studies, base images, machine, rows that could not be read. This
        call is in the last cell of a notebook, and prints that all cells were executed."""
        if self.studies:
            display(views.studies.studies(self.data), views.studies.missing_values(self.data))
        display(views.provenance.provenance(self.data), views.provenance.environment(self.data))
        print(*self.data.broken, f"{SENTINEL}: every cell above was executed.", sep="\n")

    def _repr_html_(self) -> str:
        notes = [*([self.data.unread] if self.data.unread else []), *(f"failed: {line}" for line in self.failures)]
        parts = [f"<h4>Run {escape(self.name)}</h4>", *(f"<p>{escape(line)}</p>" for line in notes)]
        tables = [self.sizes._repr_html_()] if len(self.sizes.table) else []
        tables += [views.studies.studies(self.data).to_html()] if self.studies else []
        return "".join([*parts, *tables])


class Recommendation:
    """The cell to ship. `cell` is "" where none is within the limits; `words` say how sure that is; `candidates`: every
    cell, the best first, and why it was not selected, with the Pareto front as the plot."""

    def __init__(self, run: Run, wishes: recommendation.Wishes, workload: str = "") -> None:
        choice = recommendation.choose(run.data, wishes, workload)
        self.run, self.choice, self.cell, self._workload = run, choice, choice.picked, workload
        self.words = Words("\n\n".join(views.recommendation.evidence(choice)))
        self.candidates = Result(choice.table, lambda _: views.recommendation.candidates(choice), self._fronts)

    def _fronts(self, table: pd.DataFrame) -> Several:
        nothing = "This run has sizes alone: `./lab measure --run NAME --study throughput` measures its cells."
        fronts = (plots.recommendation.front(self.choice, *pair) for pair in pareto.axis_pairs(table))
        return Several(fronts, nothing)

    def break_even(self, bandwidth_mbit: float = 100) -> Several:
        """Return the map of the cell with the fewest seconds per day, by deploys and requests, for a link of so many
        Mbit/s. Raises LabError for a bandwidth that is not above 0."""
        check_values(NUMBER, bandwidth_mbit=bandwidth_mbit)
        table = self.choice.table
        deploy_s = recommendation.deploy_seconds(self.run.data, table, bandwidth_mbit)
        nothing = "The map needs the CPU time per request of at least two cells. This run did not measure it."
        if (table["cpu"].notna() & deploy_s["mean"].notna()).sum() < 2:
            return Several(nothing=nothing)
        return Several([plots.recommendation.break_even(self.choice, deploy_s, bandwidth_mbit)])

    @property
    def profiles(self) -> Result:
        """Return what each build profile changes compared with `optimized`, as ratios: a row per cell and criterion."""
        nothing = "This run has nothing beside profile 'optimized' on the same base with the same allocator."
        effects = profile_effects.of_profiles(self.run.data, self._workload)
        parts = views.profile_effects.effects, None, views.profile_effects.in_words
        return Result(effects, *parts, nothing)

    @property
    def cargo_profile(self) -> str:
        """Return the build profile for a Cargo.toml; without a cell or a profile that this lab knows, a comment that
        says so."""
        if not self.cell:
            return _NO_CELL
        return text_or_reason(cargo_profile.cargo_profile, *self.choice.table.loc[self.cell, cargo_profile.FACTORS])

    @property
    def dockerfile(self) -> str:
        """Return the Dockerfile that the cell was built from; without a cell or Dockerfile, a comment that says so."""
        return text_or_reason(runs.dockerfile, self.run.name, self.cell) if self.cell else _NO_CELL

    def check(self) -> None:
        """Raise AssertionError when the cell is not within the limits, or a cell that lost has no reason."""
        table = self.choice.table
        assert table["meets"].sum() == 0 or table.loc[self.cell, "meets"], "the selected cell is outside the limits"
        assert table["reason"].ne("").sum() == len(table) - bool(self.cell), "a cell that lost has no reason"
        assert sum(self.choice.sureness.values()) < 1 + 1e-9, "cells are selected in more than all draws"

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(line)}</p>" for line in self.words.split("\n\n")) + self.candidates._repr_html_()


@dataclass(frozen=True)
class Change:
    """What changed from one run to another. `sizes`: in bytes (see `regression.sizes`); `speeds`: as ratios (see
    `regression.speeds`)."""

    before: Run
    after: Run
    sizes: pd.DataFrame = field(repr=False)
    speeds: pd.DataFrame = field(repr=False)

    def _repr_html_(self) -> str:
        tables: list[Styler] = [views.style.style(views.regression.changed_sizes(self.sizes))]
        if len(self.speeds):
            tables.append(views.style.style(views.regression.changed_speeds(self.speeds)))
        title = f"<h4>{escape(self.before.name)} -&gt; {escape(self.after.name)}</h4>"
        notes = "".join(f"<p>Note: {escape(note)}.</p>" for note in self.speeds.attrs["notes"])
        return title + notes + "".join(table.to_html() for table in tables)
