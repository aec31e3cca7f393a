"""What the verbs of `import rustimg_lab` return: tables, plots, and how a notebook shows them."""

from dataclasses import dataclass, field
from functools import cached_property
from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison, recommendation, regression
from rustimg_lab.analysis.cells import cell_table
from rustimg_lab.model import matrix, metrics
from rustimg_lab.report import plots, views
from rustimg_lab.report.plots.style import Plot
from rustimg_lab.store import runs
from rustimg_lab.store.runs import RunData


class Cells(tuple[matrix.Cell, ...]):
    """Cells, shown as a table of what each is made of."""

    def _repr_html_(self) -> str:
        return views.provenance.cells(list(self)).to_html()


class Runs:
    """All runs, shown as a table of what each has."""

    @property
    def names(self) -> list[str]:
        return list(runs.runs())

    def _repr_html_(self) -> str:
        return views.provenance.runs().to_html()


@dataclass(frozen=True)
class Ratios:
    """One metric of a study, each cell compared with the baseline. `table`: a row per cell with ratio, interval and
    verdict (see `comparison.compare`). `metric`: label, direction and words."""

    study: str
    metric: metrics.Metric
    table: pd.DataFrame

    def plot(self) -> Plot:
        """Return the ratios with their 95% intervals, the noise floor and the verdicts, as a figure."""
        better = "lower" if self.metric.lower_is_better else "higher"
        return plots.studies.ratios(self.table, self.metric.label, f"{self.study}: {better} is better")

    def _repr_html_(self) -> str:
        return views.studies.ratios(self.table).to_html()


@dataclass(frozen=True)
class Run:
    """A run: all of its rows, one per observation, and a line on each cell or trial that failed in the last call."""

    name: str
    data: RunData = field(repr=False)
    failures: tuple[str, ...] = ()

    @property
    def sizes(self) -> pd.DataFrame:
        """A row per cell, sizes in bytes (see `cells.cell_table`)."""
        return cell_table(self.data)

    @property
    def studies(self) -> list[str]:
        """The names of the run's studies."""
        return list(self.data.environment.studies)

    def ratios(self, study: str = "throughput", metric: str = "") -> Ratios:
        """Compare the cells of a study, by its name or its kind, with its baseline (default: its main metric). Raises
        LabError when the run has no such study."""
        name = study if study in self.studies else comparison.find_study(self.data, study)
        metric = metric or self.data.environment.studies[name].metric
        return Ratios(name, metrics.METRICS[metric], comparison.of_study(self.data, name, metric))

    def _repr_html_(self) -> str:
        parts = [f"<h4>Run {escape(self.name)}</h4>", *(f"<p>failed: {escape(line)}</p>" for line in self.failures)]
        shown = [views.sizes.breakdown(self.sizes)] if len(self.sizes) else []
        shown += [views.studies.studies(self.data)] if self.studies else []
        return "".join([*parts, *(table.to_html() for table in shown)])


@dataclass(frozen=True)
class Change:
    """What changed from one run to another. `sizes`: in bytes (see `regression.sizes`); `speeds`: as ratios (see
    `regression.speeds`)."""

    before: Run
    after: Run

    @cached_property
    def sizes(self) -> pd.DataFrame:
        return regression.sizes(self.before.data, self.after.data)

    @cached_property
    def speeds(self) -> pd.DataFrame:
        return regression.speeds(self.before.data, self.after.data)

    def _repr_html_(self) -> str:
        tables: list[Styler] = [views.style.style(views.regression.changed_sizes(self.sizes))]
        if len(self.speeds):
            tables.append(views.style.style(views.regression.changed_speeds(self.speeds)))
        title = f"<h4>{escape(self.before.name)} -&gt; {escape(self.after.name)}</h4>"
        return title + "".join(table.to_html() for table in tables)


@dataclass(frozen=True)
class Recommendation:
    """The cell to ship. `cell` is "" where none is within the limits; `choice.table` has the reasons."""

    run: str
    choice: recommendation.Choice

    @property
    def cell(self) -> str:
        return self.choice.picked

    @property
    def dockerfile(self) -> str:
        """The Dockerfile that the cell was built from. Raises LabError when the run has none."""
        return runs.dockerfile(self.run, self.cell)

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(line)}</p>" for line in views.recommendation.evidence(self.choice))
        return said + views.recommendation.candidates(self.choice).to_html()
