"""Studies of a run as a notebook reads them: trials, ratios, means, verdicts and checks."""

from functools import partial

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison, deploy
from rustimg_lab.model import metrics, names, studies
from rustimg_lab.report import plots, views
from rustimg_lab.report.format import MEGABYTE, SHOWN
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.results import Result, Several, Words


class Study:
    """A study of a run. A metric is named as in its rows (default: the study's main one)."""

    def __init__(self, run: RunData, name: str, baseline: str = "") -> None:
        self.run, self.name, self.plan, self._baseline = run, name, run.environment.studies[name], baseline

    def trials(self, metric: str = "") -> Result:
        """Return every trial, a row each; shown as the mean of each cell with its 95% interval."""
        metric = metric or self.plan.metric
        words, unit, _ = SHOWN.get(metric, (metrics.METRICS[metric].label, "", 1))
        label = f"{words}, {unit}" if unit else words

        def draw(trials: pd.DataFrame) -> plots.style.Plot:
            return plots.studies.trials(self._scaled(trials, metric), label, f"{self.name}: {len(trials)} trials")

        means = lambda _: self._means({label: metric})  # noqa: E731
        return Result(self._samples(metric), means, draw, views.verdicts.repeatability)

    def ratios(self, metric: str = "") -> Result:
        """Return the ratio of each cell to the baseline: a row per cell with interval and verdict (see
        `comparison.compare`); the plot has the noise floor. Raises LabError when the baseline has no trial."""
        metric = metric or self.plan.metric
        about = metrics.METRICS[metric]
        title = f"{self.name}: {'left' if about.lower_is_better else 'right'} is {about.words[0]}"
        table = comparison.of_study(self.run, self.name, metric, self._baseline)
        draw = partial(plots.studies.ratios, label=about.label, title=title)
        words = SHOWN[metric][0] if metric in SHOWN else about.label
        return Result(table, views.studies.ratios, draw, partial(views.verdicts.ratios, label=words))

    def means(self, headings: dict[str, str]) -> Result:
        """Return the mean of each cell with its 95% interval: two columns under each heading, by metric. Bytes are in
        MB (1e6), a memory limit in MiB."""
        return Result.of(self._means(headings))

    def check(self) -> None:
        """Raise AssertionError when a trial counts twice, or the study has no A/A control."""
        trials = self._samples()
        assert not trials.duplicated(["cell", "block"]).any(), "a trial counts twice"
        assert trials["cell"].str.endswith(names.TWIN).any(), "a study without its A/A twin"

    def _means(self, headings: dict[str, str]) -> Styler:
        samples = {heading: self._scaled(self._samples(metric), metric) for heading, metric in headings.items()}
        return views.studies.summary({heading: comparison.summarize(each) for heading, each in samples.items()})

    def _samples(self, metric: str = "") -> pd.DataFrame:
        return comparison.samples(self.run, self.name, metric or self.plan.metric)

    def _scaled(self, samples: pd.DataFrame, metric: str) -> pd.DataFrame:
        in_bytes = self.run.rows.loc[self.run.rows["metric"] == metric, "unit"].eq("B").any()
        divisor = SHOWN[metric][2] if metric in SHOWN else MEGABYTE if in_bytes else 1
        return samples.assign(value=samples["value"] / divisor)

    def _pairs(self, one: str, other: str) -> pd.DataFrame:
        """Return the trials that have both metrics, in the columns value and value_other."""
        return self._samples(one).merge(self._samples(other), on=["cell", "block"], suffixes=("", "_other"))

    def _repr_html_(self) -> str:
        return self.ratios()._repr_html_()


class Startup:
    """Starts: `server`, the program inside its image; `container`, with the engine; `clients`, where they were
    measured. Each is a `Study`."""

    def __init__(self, run: RunData, baseline: str = "") -> None:
        self.server, self.container = (Study(run, f"startup-{what}", baseline) for what in ("server", "container"))
        clients = comparison.find_studies(run, "startup", program="client")
        self.clients = [Study(run, name, baseline) for name in clients]

    @property
    def words(self) -> Words:
        """Return what the image changes of a start."""
        return Words(views.verdicts.startup_verdict(self.server.run, self.server._baseline))

    def check(self) -> None:
        """Raise AssertionError when a study is not sound: a program that does something is above the floor, and the
        first byte was looked for every millisecond or more often."""
        self.server.check()
        for client in self.clients:
            both = client._pairs("exec_to_exit_s", "noop_exec_to_exit_s")
            assert (both["value"] > both["value_other"]).mean() > 0.99, (
                "a program that does something is above the floor"
            )
        looked = self.server._samples("longest_poll_s")["value"]
        assert looked.median() < 0.001, "the first byte was looked for less often than every millisecond"


class Throughput(Study):
    """A study of servers in a closed loop, and what else was measured under its load."""

    def __init__(self, run: RunData, load: dict[str, str | int], baseline: str = "") -> None:
        super().__init__(run, comparison.find_study(run, "throughput", **load), baseline)
        self._load = load

    @property
    def words(self) -> Words:
        """Return the article's sentence on allocators, compared with the measurement."""
        return Words(views.verdicts.allocator_verdict(self.run, self.name))

    @property
    def latency(self) -> Several:
        """Return the percentiles in ms at a fixed rate, and the ratios of the highest."""
        found = self._others("latency", **self._load)
        nothing = "This run has no latency study of this load: `./lab measure --study latency` adds it (it needs oha)."
        parts = ((Result.of(views.studies.latency(self.run, each.name)), each.ratios()) for each in found)
        return Several((part for each in parts for part in each), nothing)

    @property
    def workers(self) -> Result:
        """Return the means for each number of worker threads that the run has."""
        return Result.of(views.studies.workers(self.run, self._load["workload"], self._load["connections"]))

    @property
    def instructions(self) -> Several:
        """Return the instructions per request: ratios, means, and how well counts repeat."""
        found = self._others("instructions", workload=self._load["workload"])
        return Several(part for each in found for part in (each.ratios(), each.trials(), each.trials().words))

    @property
    def published(self) -> Result:
        """Return what others measured when musl's malloc was replaced."""
        return Result.of(views.studies.published())

    def check(self) -> None:
        """Raise AssertionError as `Study` does, and when a request took no time."""
        super().check()
        assert (self._samples()["value"] > 0).all()

    def _others(self, kind: str, **of: str | int) -> list[Study]:
        return [Study(self.run, name, self._baseline) for name in comparison.find_studies(self.run, kind, **of)]


class Memory:
    """Memory of servers: `under_load`, per `connection`, and the smallest `limit`."""

    def __init__(self, run: RunData, load: dict[str, str | int], baseline: str = "") -> None:
        names = {of: comparison.find_study(run, "memory", of=of, **load) for of in ("load", "limit")}
        self.under_load, self._limit = (Study(run, name, baseline) for name in names.values())
        del load["connections"]
        self._open = Study(run, comparison.find_study(run, "memory", of="connections", **load), baseline)

    @property
    def words(self) -> Words:
        """Return what jemalloc costs in memory where it replaces musl malloc."""
        return Words(views.verdicts.memory_verdict(self.under_load.run, self.under_load.name, self._limit.name))

    @property
    def connections(self) -> Several:
        """Return what idle connections take: medians in MB and bytes, and the ratios at 1,000 of them."""
        medians = Result.of(views.studies.connections(self._open.run, self._open.name))
        return Several([medians, self._open.ratios("rss_at_1000_bytes")])

    @property
    def limit(self) -> Several:
        """Return the smallest memory limits in MiB under which the server answers the whole load: where the engine's
        own was enough, every trial, the means with the rates there, and the ratios."""
        trials, rows = self._limit.trials(), self._limit.run.rows
        own = rows["study"].eq(self._limit.name) & rows["metric"].eq(self._limit.plan.metric) & rows["detail"].ne("")
        said = Words(f"In {own.sum()} of {len(trials.table)} trials the engine's own smallest limit was enough.")
        if trials.table.empty:
            return Several([said])
        rates = {"requests/s there": "requests_per_s_at_limit", "without a limit": "requests_per_s"}
        means = self._limit.means({"smallest limit, MiB": self._limit.plan.metric} | rates)
        return Several([said, trials.plot(), means, self._limit.ratios()])

    def check(self) -> None:
        """Raise AssertionError when the study is not sound, or a part of the memory is larger than the whole."""
        self.under_load.check()
        both = self.under_load._pairs("steady_rss_bytes", "steady_anonymous_bytes")
        assert (both["value"] >= both["value_other"]).all(), "a part is larger than the whole"


class ColdBuilds(Study):
    """Cold builds: cargo compiles every crate in a fresh container."""

    def __init__(self, run: RunData, baseline: str = "") -> None:
        super().__init__(run, comparison.find_study(run, "build"), baseline)

    @property
    def words(self) -> Words:
        """Return what is built, and the verdicts on the CPU time."""
        about = self.plan.parameters
        return Words(f"What is built: {about['program']}, on {about['cpus']} CPUs.\n\n{self.ratios().words}")

    def check(self) -> None:
        """Raise AssertionError when the study is not sound, or a build took more CPU time than there was."""
        super().check()
        both = self._pairs("cold_build_cpu_s", "cold_build_s")
        most = 1.02 * self.plan.parameters["cpus"] * both["value_other"]
        assert (both["value"] <= most).all(), "more CPU time than there was"


class Deploys:
    """Deploys of a run: the time until a machine that lacks an image answers, measured and by a model."""

    def __init__(self, run: RunData, baseline: str = "", against: str = "", held_out: int = 100) -> None:
        self._times, self._compared = deploy.times(run), deploy.against(run, baseline, against)
        self._model = deploy.model(self._times, held_out)

    @property
    def words(self) -> Words:
        """Return from which bandwidth on two cells cannot be told apart."""
        return Words(views.deploy.in_words(self._compared))

    @property
    def times(self) -> Result:
        """Return the time until the first byte, in s, by cell and bandwidth."""
        kinds = self._times["has"].unique()
        return Result(
            self._times,
            views.deploy.deploys,
            lambda times: Several(plots.deploy.deploys(times, self._model, has) for has in kinds),
        )

    @property
    def ratios(self) -> Result:
        """Return the ratio of two cells at each bandwidth."""
        return Result(self._compared, lambda found: views.studies.ratios(found, {"Mbit/s": found["bandwidth_mbit"]}))

    @property
    def model(self) -> Result:
        """Return the model of each cell, in s, and how far it is off where it was not fitted."""
        return Result(self._model, views.deploy.deploy_model, tell=views.deploy.off_in_words)

    def services(self, *counts: int) -> Result:
        """Return the bytes that so many services on one machine store and pull; the plot is a map of whose services
        all answer first."""
        shared = deploy.shared(self._model)
        return Result(
            deploy.stored(self._times, counts),
            lambda found: views.deploy.stored(found, list(counts)),
            lambda _: plots.deploy.soonest(shared) if len(shared) else Several(),
        )

    def check(self) -> None:
        """Raise AssertionError when other bytes were pulled than the manifests say, or faster than the link is."""
        times, cold = self._times, self._times[self._times["has"] == studies.EMPTY]
        assert (cold["pulled_bytes"] == cold["manifest_bytes"]).all(), "what was pulled is not what the manifest says"
        assert (times["pulled_bytes"] <= times["manifest_bytes"]).all(), "more was pulled than there is"
        fastest = deploy.on_line_s(times["pulled_bytes"], times["bandwidth_mbit"])
        assert (times["pull_s"] >= fastest * 0.95).all(), "the line leaks"
