"""Metrics: every one that a row may have: its unit, its direction, what it is called, and the study that measures it.

A metric is a text, its name: `rows["metric"] == metrics.TRIAL` and `table[metrics.APP_BYTES]` need no conversion.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from math import isclose, isnan

from rustimg_lab.model import studies

AMOUNT = (int, float)  # the types of a value that is one
IN_WORDS = {"s": "s", "us": "µs", "B": "bytes"}  # units as rows have them, and as a reader sees them


class Verdict(StrEnum):
    """What a comparison says of a cell."""

    FASTER = "faster"
    SLOWER = "slower"
    LESS = "less"
    FEWER = "fewer"
    MORE = "more"
    LESS_PREDICTED = "less, predicted"
    MORE_PREDICTED = "more, predicted"
    EXACT = "exact"
    EQUAL = "the same"
    AT_MINIMUM = "at the measurable minimum"
    NO_DIFFERENCE = "no difference detectable"
    TOO_NOISY = "too noisy"
    PASS = "pass"  # of a check: the limit is kept
    FAIL = "fail"
    CANNOT_TELL = "cannot tell"
    GAINS = "adding a core makes it faster"
    LOSES = "adding a core makes it slower"


LESS, FEWER = (Verdict.LESS, Verdict.MORE), (Verdict.FEWER, Verdict.MORE)


@dataclass(frozen=True, eq=False, repr=False)  # what text has is kept: it equals its name
class Metric(str):
    """A metric. A value is shown by the format `number_format`, after it was divided by `divisor`."""

    name: str
    label: str = ""  # in columns and on axes, without the unit; "" for what is not compared
    unit: str = ""  # as rows have it
    study: str = ""  # the kind of study that measures it; "" for what is of the image, and exact
    words: tuple[Verdict, Verdict] = (Verdict.FASTER, Verdict.SLOWER)  # of a cell that is better, of one that is worse
    phrase: str = ""  # of a criterion or quantity, where it is not the label
    noun: str = ""  # in a sentence: "0.9 times the ..."
    shown_unit: str = ""
    digits: int = 2
    divisor: float = 1
    lower_is_better: bool = True
    least: float = 0  # a value that is not above it is "at most" this: less cannot be measured
    holds: tuple[type, ...] = AMOUNT  # what a value is where there is one; an amount is not negative

    def __new__(cls, name: str, *_: object, **__: object) -> "Metric":
        return super().__new__(cls, name)

    def __post_init__(self) -> None:
        object.__setattr__(self, "phrase", self.phrase or self.label)
        object.__setattr__(self, "noun", self.noun or self.phrase or self.name.replace("_", " "))

    @property
    def title(self) -> str:
        """Return the label (default: the noun), with the unit of rows."""
        label = self.label or self.noun
        return f"{label}, {IN_WORDS[self.unit]}" if self.unit in IN_WORDS else label

    def verdict_on(self, change: float) -> Verdict:
        """Return the word for a change, the logarithm of a ratio, that is more than noise."""
        is_better = (change < 0) == self.lower_is_better
        return self.words[0] if is_better else self.words[1]

    def in_words(self, value: float) -> str:
        """Return a value with its unit, as text; "not measured" for NaN."""
        return "not measured" if isnan(value) else f"{value / self.divisor:,.{self.digits}f} {self.shown_unit}"

    def exactly(self, value: float) -> str:
        """Return a user's limit with its unit, as text, with all of its digits where `in_words` would round it."""
        amount = value / self.divisor
        return self.in_words(value) if isclose(round(amount, self.digits), amount) else f"{amount:g} {self.shown_unit}"

    def signed(self, value: float) -> str:
        """Return a difference with its sign and its unit, as text."""
        return ("+" if value > 0 else "\u2212" if value < 0 else "") + self.in_words(abs(value))


_bytes = partial(Metric, unit="B", divisor=1e6, words=LESS, shown_unit="MB")
_seconds = partial(Metric, unit="s")
_text, _truth = partial(Metric, holds=(str,)), partial(Metric, holds=(bool,))

# Of a cell's image, exact.
UNPACKED_BYTES = _bytes("unpacked_bytes", "unpacked", phrase="the image's bytes on disk")
APP_BYTES = _bytes("app_bytes", "app layer", phrase="the app's bytes on disk", digits=3)
COMPRESSED_BYTES = _bytes("compressed_bytes", "compressed", phrase="compressed (pull) size")
COMPRESSED_APP_BYTES = _bytes("compressed_app_bytes", phrase="the app's compressed bytes")
COMPRESSED_ZSTD_BYTES = _bytes("compressed_zstd_bytes")
PUSHED_BYTES = _bytes("pushed_bytes", holds=(*AMOUNT, type(None)))  # without a registry nothing is pushed
BASE_BYTES = _bytes("base_bytes")
BINARY_BYTES = _bytes("binary_bytes")
BUILD_CPU_S = _seconds("build_cpu_s")
BASE_DIGEST = _text("base_digest")
BUILDER_DIGEST = _text("builder_digest")
BINARY_SHA256 = _text("binary_sha256")
LINKAGE = _text("linkage")
PIE = _truth("pie")
STRIPPED = _truth("stripped")
NEEDED_LIBRARIES = _text("needed_libraries")
GLIBC_NEEDED = _text("glibc_needed")
RUSTC = _text("rustc")
LINKED_ALLOCATOR = _text("linked_allocator")
BASE_SATISFIES = _truth("base_satisfies")
SHELL = _text("shell")
UNSTABLE = _truth("unstable")
RUNS = Metric("runs", holds=(bool, str))  # a text where the image could not be started here
# What every cell that works has.
OF_CELLS = [metric for metric in globals().values() if isinstance(metric, Metric) and metric is not BUILDER_DIGEST]
BUILT = _truth("built")
CODE_SHA256 = _text("code_sha256")  # of a layout: of its sections of code, their order left out
LINKER = _text("linker")  # of a layout
MADE_OF = _text("made_of_sha256")  # what the image was built of: Dockerfile, base images, sources, input
SOURCES = _text("sources_sha256_16")  # the first 16 hex digits of a digest of the sources alone
SETTINGS = _text("settings_sha256_16")  # and of what an app says in lab.toml of how it and its image are made
BUILD_INPUT = _text("build_input")  # what the build got beside its sources; of secrets the names
# Of these a cell has many rows, each with what it is of as its `detail`.
LAYER_BYTES = _bytes("layer_bytes")
SECTION_BYTES = _bytes("section_bytes")
CRATE_BYTES = _bytes("crate_bytes")
PARTS = (LAYER_BYTES, SECTION_BYTES, CRATE_BYTES)
# Of an image that is probed, beside the outcomes of `model.probes`.
PROBED_WITH = _text("probed_with")  # the images that a probed cell was tried with
FILES = Metric("files")
EXECUTABLES = Metric("executables")
PACKAGES = Metric("packages")
CRATES_SEEN = Metric("crates_seen")

# Of a trial of any study.
TRIAL = _truth("trial")  # the row that ends a trial: there, and ok, when the trial has its numbers
TRIAL_S = _seconds("trial_s")
LOAD_AVERAGE = Metric("load_average")
STEAL_S = _seconds("steal_s")

# Of a server under load.
_of_load = partial(Metric, study="throughput")
CPU_US_PER_REQUEST = _of_load(
    "cpu_us_per_request", "CPU per request", "us", noun="CPU time per request", shown_unit="µs", digits=1,
)  # fmt: skip
REQUESTS_PER_S = _of_load("requests_per_s", "requests per second, closed loop", "1/s", lower_is_better=False)
REQUESTS = _of_load("requests")
BODY_BYTES = _bytes("answer_body_bytes")  # of the right answer, without headers
# A cell's requests per second with more worker threads, as a ratio to those with fewer; computed, in no row.
SPEED_UP = Metric("speed_up", "speed-up", words=(Verdict.GAINS, Verdict.LOSES), lower_is_better=False)
INSTRUCTIONS_PER_REQUEST = Metric(
    "instructions_per_request", "instructions per request", study="instructions", words=FEWER
)
_of_latency = partial(_seconds, study="latency")
LATENCIES = {
    0.5: _of_latency("latency_p50_s", "latency at a fixed rate, median"),
    0.9: _of_latency("latency_p90_s", "latency at a fixed rate, 90th percentile"),
    0.99: _of_latency("latency_p99_s", "latency at a fixed rate, 99th percentile"),
    0.999: _of_latency("latency_p999_s", "latency at a fixed rate, 99.9th percentile"),
}

PERCENTILES = {metric: f"p{100 * share:g}" for share, metric in LATENCIES.items()}  # as a heading has them

# Of a server's memory.
_of_memory = partial(_bytes, study="memory")
IDLE_RSS_BYTES = _of_memory("idle_rss_bytes")
STEADY_RSS_BYTES = _of_memory("steady_rss_bytes", "resident memory under load", digits=1)
STEADY_ANONYMOUS_BYTES = _of_memory("steady_anonymous_bytes")
PEAK_RSS_BYTES = _of_memory("peak_rss_bytes", "peak of the resident memory")
RESTED_RSS_BYTES = _bytes("rested_rss_bytes", "resident memory after the load", study=studies.REST)
SMALLEST_LIMIT_BYTES = _of_memory(
    "smallest_limit_bytes", "smallest memory limit", noun="smallest limit that suffices", shown_unit="MiB", digits=1,
    divisor=1 << 20, least=6 << 20,  # the engine takes no smaller one (moby, daemon/daemon_unix.go, linuxMinMemory)
)  # fmt: skip
REQUESTS_PER_S_AT_LIMIT = Metric("requests_per_s_at_limit", unit="1/s", study="memory")


def rss_at(connections: int) -> Metric:
    """Return the metric of the resident memory (bytes) with so many connections open."""
    return _of_memory(f"rss_at_{connections}_bytes", f"resident memory with {connections:,} connections")


def bytes_per_connection_at(connections: int) -> Metric:
    """Return the metric of the memory (bytes) that each of so many connections takes."""
    return _of_memory(f"bytes_per_connection_at_{connections}")


RSS_AT_1000_BYTES = rss_at(1000)  # of those what cells are compared by

# Of a start.
_of_startup = partial(_seconds, study="startup")
_of_process = partial(_of_startup, shown_unit="ms", divisor=1e-3)
EXEC_TO_FIRST_BYTE_S = _of_process("exec_to_first_byte_s", "exec to first byte", noun="time from exec to first byte")
EXEC_TO_EXIT_S = _of_process("exec_to_exit_s", "exec to exit")
NOOP_EXEC_TO_EXIT_S = _of_process("noop_exec_to_exit_s")
LONGEST_POLL_S = _of_startup("longest_poll_s")
NOOP_CONTAINER_S = _of_startup("noop_container_s")


def container_metric(network: str, part: str) -> Metric:
    """Return the metric (seconds) of a part of a container's start: create, start_call, first_byte, exit, or
    longest_poll. `network` is host or bridge."""
    return _of_startup(f"{network}_{part}_s")


def _first_byte(network: str) -> Metric:
    noun = f"time from the container's start to its first byte, {network} network"
    label = f"start of the container to first byte, {network} network"
    return replace(
        container_metric(network, "first_byte"), label=label, phrase=label, noun=noun, shown_unit="s", digits=3
    )


HOST_FIRST_BYTE_S, BRIDGE_FIRST_BYTE_S = _first_byte("host"), _first_byte("bridge")

# Of a build.
_of_build = partial(_seconds, study=studies.COLD_BUILD, shown_unit="s", digits=1)
COLD_BUILD_CPU_S = _of_build("cold_build_cpu_s", "CPU time of a cold build", words=LESS)
COLD_BUILD_S = _of_build(
    "cold_build_s", "cold build from start to end", phrase="a cold build from start to end",
    noun="time of a cold build from start to end",
)  # fmt: skip

# Of a deploy.
_of_deploy, _bytes_of_deploy = partial(_seconds, study=studies.DEPLOY), partial(_bytes, study=studies.DEPLOY)
FIRST_RESPONSE_S = _of_deploy("first_response_s", "pull, unpack and start to first byte")
PULL_S = _of_deploy("pull_s")
CREATE_S = _of_deploy("create_s")
START_TO_FIRST_BYTE_S = _of_deploy("start_to_first_byte_s")
PULLED_BYTES = _bytes_of_deploy("pulled_bytes")
MANIFEST_BYTES = _bytes_of_deploy("manifest_bytes")
STORED_BYTES = _bytes_of_deploy("stored_bytes")
BASE_STORED_BYTES = _bytes_of_deploy("base_stored_bytes")

METRICS = {metric: metric for metric in [*globals().values(), *LATENCIES.values()] if isinstance(metric, Metric)}
SINGLE = METRICS.keys() - PARTS  # of which a cell has one value
COMPARED = [
    metric for metric in METRICS.values() if metric.study and metric.label
]  # what cells of a study are compared by


def find(name: str) -> Metric:
    """Return the metric with that name. A name that only another lab knows becomes a metric without unit and study."""
    return METRICS.get(name) or Metric(name, name)


# What a cell is chosen by, by the name that a user says. Less is better in all of them; so the Pareto front is of them.
CRITERIA = {
    "transfer": COMPRESSED_BYTES,
    "startup": EXEC_TO_FIRST_BYTE_S,
    "cpu": CPU_US_PER_REQUEST,
    "memory": STEADY_RSS_BYTES,
}
MEASURED = {name: metric for name, metric in CRITERIA.items() if metric.study}  # in blocks; the others are exact
# What a day takes, where a user says what it brings: of a host that waits for an image, and of a CPU that answers.
DAY = "day"
ALL = CRITERIA | {DAY: _of_deploy(DAY, "seconds a day", shown_unit="s", digits=1)}
# What a factorial is made of, by the name that a user says.
IMAGE, APP = "image", "app"
QUANTITIES = {
    IMAGE: UNPACKED_BYTES,
    APP: APP_BYTES,
    **CRITERIA,
    "memory": replace(STEADY_RSS_BYTES, digits=2),
    "build_cpu": COLD_BUILD_CPU_S,
    "build": COLD_BUILD_S,
}
# Of sizes that the base has a part in, that part, which is known also of a cell that was not built.
APPS_PART = {UNPACKED_BYTES: APP_BYTES, COMPRESSED_BYTES: COMPRESSED_APP_BYTES}
SIZES = (UNPACKED_BYTES, APP_BYTES, COMPRESSED_BYTES)  # what two runs are compared by
GUARDED = {"size": UNPACKED_BYTES} | CRITERIA  # what may grow by a share at most, by the name that a user says
# The app's part of the image, since that of its base is the same under every profile.
EXACT = (APP_BYTES, COMPRESSED_APP_BYTES)
