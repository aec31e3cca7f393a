"""Metrics: label, unit, direction, and the study that measures each."""

from dataclasses import dataclass, replace
from math import isnan

from rustimg_lab.model import studies


@dataclass(frozen=True)
class Metric:
    """A metric of a study: how it is called, which way is better, and what a cell is that is better or worse."""

    label: str
    lower_is_better: bool
    words: tuple[str, str] = ("faster", "slower")


LESS = ("less", "more")
METRICS = {
    "cpu_us_per_request": Metric("server CPU per request, µs", True),
    "requests_per_s": Metric("requests per second, closed loop", False),
    "instructions_per_request": Metric("instructions per request", True, ("fewer", "more")),
    "exec_to_first_byte_s": Metric("exec to first byte, s", True),
    "exec_to_exit_s": Metric("exec to exit, s", True),
    "host_first_byte_s": Metric("start of the container to first byte, host network, s", True),
    "bridge_first_byte_s": Metric("start of the container to first byte, bridge network, s", True),
    "cold_build_cpu_s": Metric("CPU time of a cold build, s", True, LESS),
    "cold_build_s": Metric("cold build from start to end, s", True),
    "first_response_s": Metric("pull, unpack and start to first byte, s", True),
    "latency_p50_s": Metric("latency at a fixed rate, median, s", True),
    "latency_p90_s": Metric("latency at a fixed rate, 90th percentile, s", True),
    "latency_p99_s": Metric("latency at a fixed rate, 99th percentile, s", True),
    "latency_p999_s": Metric("latency at a fixed rate, 99.9th percentile, s", True),
    "steady_rss_bytes": Metric("resident memory under load, bytes", True, LESS),
    "peak_rss_bytes": Metric("peak of the resident memory, bytes", True, LESS),
    "rss_at_1000_bytes": Metric("resident memory with 1,000 connections, bytes", True, LESS),
    "smallest_limit_bytes": Metric("smallest memory limit, bytes", True, LESS),
}


@dataclass(frozen=True)
class Criterion:
    """What cells are compared by: in words, and the study and metric that it is measured in, "" for what is exact."""

    label: str
    kind: str
    metric: str
    shown: str
    divisor: float

    @property
    def unit(self) -> str:
        return self.shown.rpartition(" ")[2]

    def in_words(self, value: float) -> str:
        """A value in the unit of the metric, as a reader sees it."""
        return self.shown.format(value / self.divisor)


# Less is better in all of them, and so the Pareto front is of them.
CRITERIA = {
    "transfer": Criterion("transfer", "", "compressed_bytes", "{:.2f} MB", 1e6),
    "startup": Criterion("exec to first byte", "startup", "exec_to_first_byte_s", "{:.2f} ms", 1e-3),
    "cpu": Criterion("CPU per request", "throughput", "cpu_us_per_request", "{:.1f} µs", 1),
    "memory": Criterion("resident memory under load", "memory", "steady_rss_bytes", "{:.1f} MB", 1e6),
}
MEASURED = {name: each for name, each in CRITERIA.items() if each.kind}  # in blocks; the others are exact
THROUGHPUT = "requests_per_s"
# What a day takes, where a user says what it brings: of a host that waits for an image, and of a CPU that answers.
DAY = "day"
ALL = CRITERIA | {DAY: Criterion("seconds a day", studies.DEPLOY, "", "{:,.1f} s", 1)}


def in_words(name: str, value: float) -> str:
    """A criterion's value with its unit; "not measured" for none."""
    if isnan(value):
        return "not measured"
    return ALL[name].in_words(value)


IMAGE, APP = "image", "app"
QUANTITIES = {
    IMAGE: Criterion("the image's bytes on disk", "", "unpacked_bytes", "{:.2f} MB", 1e6),
    APP: Criterion("the app's bytes on disk", "", "app_bytes", "{:.3f} MB", 1e6),
    **CRITERIA,
    "memory": replace(CRITERIA["memory"], shown="{:.2f} MB"),
    "build_cpu": Criterion("CPU time of a cold build", "build", "cold_build_cpu_s", "{:.1f} s", 1),
    "build": Criterion("a cold build from start to end", "build", "cold_build_s", "{:.1f} s", 1),
}
# Of sizes that the base has a part in, that part, which is known also of a cell that was not built.
APPS_PART = {"unpacked_bytes": "app_bytes", "compressed_bytes": "compressed_app_bytes"}


def signed(about: Criterion, value: float) -> str:
    """A difference in a quantity, with its sign and its unit."""
    return ("+" if value > 0 else "\u2212" if value < 0 else "") + about.in_words(abs(value))


SIZES = {"unpacked_bytes": "unpacked", "app_bytes": "of it the app", "compressed_bytes": "compressed"}
# What may grow by a share at most: the name on the command line, and the metric that it is of.
GUARDED = {"size": "unpacked_bytes"} | {name: each.metric for name, each in CRITERIA.items()}
# The app's part of the image, since that of its base is the same under every profile.
EXACT = {"app_bytes": "the app's bytes on disk", "compressed_app_bytes": "the app's bytes in transfer"}
