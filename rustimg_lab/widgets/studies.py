"""Studies as a notebook reads them: trials, ratios, means, verdicts and checks; of one run, and of several machines."""

from functools import partial

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison, deploy, layouts, machines, scaling
from rustimg_lab.errors import COUNT, LabError, check_known, check_values, unknown_name
from rustimg_lab.model import metrics, names
from rustimg_lab.model.studies import EMPTY, LAYOUTS
from rustimg_lab.report import plots, views
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.results import Result, Several, Words


class Study:
    """A study of a run. A metric is named as in its rows (default: the study's main one); another raises LabError."""

    def __init__(self, run: RunData, name: str, baseline: str = "") -> None:
        self.run, self.name, self.plan, self._baseline = run, name, run.environment.studies[name], baseline
        if baseline:
            check_known(f"cell of {name}", baseline, self.plan.cells)

    @property
    def measured(self) -> list[str]:
        """Return the names of all metrics that the study has measured."""
        return list(self.run.rows.loc[self.run.rows["study"] == self.name, "metric"].unique())

    def trials(self, metric: str = "") -> Result:
        """Return every trial, one row each; shown as the mean of each cell with its 95% interval."""
        quantity = self._metric(metric)
        label = f"{quantity.noun}, {quantity.shown_unit}" if quantity.shown_unit else quantity.title

        def draw(trials: pd.DataFrame) -> plots.style.Plot:
            scaled = trials.assign(value=trials["value"] / quantity.divisor)
            return plots.studies.trials(scaled, label, f"{self.name}: {len(trials)} trials")

        table = lambda _: self._means({label: quantity})  # noqa: E731
        return Result(self._samples(quantity), table, draw, views.verdicts.repeatability)

    def ratios(self, metric: str = "") -> Result:
        """Return the ratio of each cell to the baseline: one row per cell with interval and verdict (see
        `comparison.compare`). The plot has the A/A control too. Raises LabError when the baseline has no trial, and for
        a metric that cells are not compared by, such as the length of a trial."""
        quantity = self._metric(metric)
        if quantity not in (self.plan.metric, *metrics.COMPARED):
            choices = [name for name in self.measured if name in metrics.COMPARED]
            raise unknown_name(f"metric to compare cells of {self.name} by", quantity, choices)
        title = f"{'left' if quantity.lower_is_better else 'right'} is {quantity.words[0]}"
        table = comparison.of_study(self.run, self.name, quantity, self._baseline)
        draw = partial(plots.studies.ratios, label=quantity.phrase or quantity, title=title)
        tell = partial(views.verdicts.ratios, label=quantity.noun if quantity.shown_unit else quantity.title)
        return Result(table, views.studies.ratios, draw, tell)

    def means(self, headings: dict[str, str]) -> Result:
        """Return the mean of each cell with its 95% interval: two columns under each heading, by metric. Bytes are in
        MB (1e6), a memory limit in MiB. Raises LabError unless `headings` is a dictionary."""
        if not isinstance(headings, dict):
            raise LabError(f"headings is {headings!r}: it must be a dictionary of metrics by heading")
        return Result.of(self._means(headings))

    @property
    def words(self) -> Words:
        """Return the answer of the study in a sentence or two, as Markdown."""
        run, name, parameters = self.run, self.name, self.plan.parameters
        values, metric = self._samples()["value"], metrics.find(self.plan.metric)
        if len(values) and not values.any():
            return Words(f"In each of {len(values)} trials the {metric.phrase} was 0, less than could be measured.")
        match self.plan.kind, parameters.get("of"):
            case "throughput", _:
                return Words(views.verdicts.allocator_verdict(run, name))
            case "startup", _:
                return Words(views.verdicts.startup_verdict(run, self._baseline))
            case "memory", "load":
                load = {key: parameters[key] for key in ("workload", "workers", "connections")}
                limits = comparison.find_studies(run, "memory", of="limit", **load)
                return Words(views.verdicts.memory_verdict(run, name, limits[0] if limits else ""))
            case "memory", "limit":
                rows = run.rows[run.rows["study"].eq(name) & run.rows["metric"].eq(self.plan.metric)]
                enough, total = rows["detail"].ne("").sum(), len(self._samples())
                return Words(f"In {enough} of {total} trials the engine's own smallest limit was enough.")
            case "layouts", _:
                return Words(views.layouts.in_words(*layouts.of_study(run, name)))
            case "build", _:
                sentence = f"What is built: {parameters['program']}, on {parameters['cpus']} CPUs."
                return Words(f"{sentence}\n\n{self.ratios().words}")
        return self.ratios().words

    @property
    def layouts(self) -> tuple[Result, Result]:
        """Return the deviations between and within layouts, and the differences that remain. Raises LabError unless
        this is a study of layouts."""
        self._only_of(LAYOUTS)
        cells, differences = layouts.of_study(self.run, self.name)
        return Result(cells, views.layouts.components), Result(differences, views.layouts.differences)

    @property
    def percentiles(self) -> Result:
        """Return the percentiles of the latency in ms at the rate of the study. Raises LabError unless this is a
        latency study."""
        self._only_of("latency")
        return Result.of(views.studies.latency(self.run, self.name))

    @property
    def speed_up(self) -> Result:
        """Return what each step to more worker threads gains under this load: one row per cell with interval and
        verdict (see `scaling.speed_up`). Raises LabError unless this is a throughput study."""
        self._only_of("throughput")
        load = (self.plan.parameters[key] for key in ("workload", "connections"))
        nothing = "This run has values for one number of worker threads only under this load."
        table = scaling.speed_up(self.run, *load)
        return Result(table, views.studies.speed_up, tell=views.verdicts.speed_up, nothing=nothing)

    @property
    def connections(self) -> Result:
        """Return what idle connections take: medians, in MB for all and in bytes for each. Raises LabError unless this
        is a memory study of connections."""
        self._only_of("memory", "connections")
        return Result.of(views.studies.connections(self.run, self.name))

    def check(self) -> None:
        """Raise AssertionError when a trial counts twice, the study has no A/A control, or values cannot be true."""
        trials, parameters = self._samples(), self.plan.parameters
        assert not trials.duplicated(["cell", "block"]).any(), "a trial counts twice"
        assert self.plan.baseline + names.TWIN in self.plan.cells, "a study without its A/A control"
        is_in_first_block = trials["block"].nunique() < 2  # which may not have come to the control yet
        has_control = trials["cell"].str.endswith(names.TWIN).any()
        assert has_control or is_in_first_block, "a study without its A/A control"
        match self.plan.kind, parameters.get("program", parameters.get("of")):
            case "startup", "client":
                pairs = self._pairs(metrics.EXEC_TO_EXIT_S, metrics.NOOP_EXEC_TO_EXIT_S)
                above = (pairs["value"] > pairs["value_other"]).mean()
                assert trials.empty or above > 0.99, "a program that does something is above the floor"
            case "startup", "server":
                pairs = self._pairs(metrics.LONGEST_POLL_S, metrics.EXEC_TO_FIRST_BYTE_S)
                assert (pairs["value"] <= pairs["value_other"]).all(), "a pause was longer than all of the time"
            case "throughput" | "layouts", _:
                assert (trials["value"] > 0).all(), "a request took no time"
            case "memory", "load":
                pairs = self._pairs(metrics.STEADY_RSS_BYTES, metrics.STEADY_ANONYMOUS_BYTES)
                assert (pairs["value"] >= pairs["value_other"]).all(), "a part is larger than the whole"
            case "build", _:
                pairs = self._pairs(metrics.COLD_BUILD_CPU_S, metrics.COLD_BUILD_S)
                assert (pairs["value"] <= 1.02 * parameters["cpus"] * pairs["value_other"]).all(), (
                    "more CPU time than there was"
                )

    def _means(self, headings: dict[str, str]) -> Styler:
        quantities = {heading: self._metric(metric) for heading, metric in headings.items()}
        trials = {heading: self._samples(quantity) for heading, quantity in quantities.items()}
        scaled = {name: table.assign(value=table["value"] / quantities[name].divisor) for name, table in trials.items()}
        return views.studies.summary({name: comparison.summarize(table) for name, table in scaled.items()})

    def _only_of(self, kind: str, subject: str = "") -> None:
        """Raise LabError when this is a study of another kind, or of something else."""
        if self.plan.kind != kind or subject not in ("", self.plan.parameters.get("of")):
            query = f"'{kind}'{subject and f', of={subject!r}'}"
            raise LabError(f"study '{self.name}' is of another kind: `run.find({query})` returns those that have this")

    def _samples(self, metric: str = "") -> pd.DataFrame:
        return comparison.samples(self.run, self.name, metric or self.plan.metric)

    def _metric(self, name: str) -> metrics.Metric:
        if name not in ("", self.plan.metric, *self.measured):
            raise unknown_name(f"metric of {self.name}", name, self.measured)
        return metrics.find(name or self.plan.metric)

    def _pairs(self, metric: str, other_metric: str) -> pd.DataFrame:
        """Return the trials that have both metrics, in the columns value and value_other."""
        return self._samples(metric).merge(self._samples(other_metric), on=["cell", "block"], suffixes=("", "_other"))

    def _repr_html_(self) -> str:
        return self.ratios()._repr_html_()


class Deploys:
    """Deploys to machines that lack the image. `times`: until the first byte, in s, by cell and bandwidth; `ratios`: of
    two cells at each bandwidth; `model`: of each cell, in s, with its error where it was not fitted."""

    def __init__(self, run: RunData, baseline: str, against: str, held_out: int) -> None:
        times, comparisons = deploy.times(run), deploy.compare_cells(run, baseline, against)
        model = deploy.model(times, held_out)
        draw = partial(plots.deploy.deploys, times, model)
        self.times = Result(times, views.deploy.deploys, lambda _: Several(map(draw, times["has"].unique())))
        ratios = lambda table: views.studies.ratios(table, {"Mbit/s": table["bandwidth_mbit"]})  # noqa: E731
        self.ratios = Result(comparisons, ratios, tell=views.deploy.in_words)
        self.model = Result(model, views.deploy.deploy_model, tell=views.deploy.error_in_words)

    def services(self, *counts: int) -> Result:
        """Return the bytes that so many services on one machine store and pull. The plot is a map of the cell whose
        services all answer first. Raises LabError unless each number is a whole one above 0."""
        for count in counts:
            check_values(COUNT, services=count)
        shared, stored = deploy.complete_models(self.model.table), deploy.stored_bytes(self.times.table, counts)
        draw = lambda _: plots.deploy.soonest(shared) if len(shared) else Several()  # noqa: E731
        return Result(stored, lambda table: views.deploy.stored(table, list(counts)), draw)

    def check(self) -> None:
        """Raise AssertionError when the pulled bytes are not those of the manifests, or came faster than the link
        allows."""
        times = self.times.table
        cold = times[times["has"] == EMPTY]
        assert (cold[metrics.PULLED_BYTES] == cold[metrics.MANIFEST_BYTES]).all(), (
            "what was pulled is not what the manifest says"
        )
        assert (times[metrics.PULLED_BYTES] <= times[metrics.MANIFEST_BYTES]).all(), "more was pulled than there is"
        fastest = deploy.transfer_s(times[metrics.PULLED_BYTES], times["bandwidth_mbit"])
        assert (times[metrics.PULL_S] >= fastest * 0.95).all(), "faster than the link"


class Machines:
    """A study of several machines. `sessions`: the ratios that each machine has measured in each run, see
    `machines.sessions`; `ratios`: what the machines have in common, see `machines.combine`, with a forest plot of each
    cell."""

    def __init__(self, runs: dict[str, RunData], study: str) -> None:
        sessions = machines.sessions(runs, study)
        nothing = "No cell is measured on two machines: `./lab report RUN,RUN` takes runs of one study on several."
        self.sessions = Result(sessions, views.machines.sessions)
        renderers = views.machines.ratios, self._forests, views.machines.in_words
        self.ratios = Result(machines.combine(sessions), *renderers, nothing)

    def _forests(self, table: pd.DataFrame) -> Several:
        return Several(map(partial(plots.machines.forest, table), table["cell"].unique()))

    def check(self) -> None:
        """Raise AssertionError when a session counts twice, or an interval does not contain its ratio."""
        assert not self.sessions.table.duplicated(["machine", "run", "cell"]).any(), "a session counts twice"
        for table in (self.sessions.table, self.ratios.table):
            assert table["ratio"].between(table["low"], table["high"]).all(), "a ratio is outside its interval"
