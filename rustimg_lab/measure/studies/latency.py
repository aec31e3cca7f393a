"""Latency in an open loop: the time of a request at one fixed rate, equal for all cells.

oha (github.com/hatoo/oha) sends at its rate however slowly the server answers. Each latency counts from when the
request had its turn, not from when a connection was free for it (`--latency-correction`): so a server that stalls
cannot hide the requests that it made wait (coordinated omission; Tene, "How NOT to Measure Latency").
"""

from functools import partial

from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.load import Load, run_oha, serve
from rustimg_lab.measure.plan import FailedTrial, Studies, Treatment
from rustimg_lab.measure.server import Server
from rustimg_lab.model import metrics
from rustimg_lab.store.rows import Observation

BEYOND = 10  # samples that a percentile has above it, or it is not told
SLACK_S, SLACK = 0.5, 1.1  # what a trial may take longer, and how often as long, before the rate was not kept


def plan(context: StudyContext) -> Studies:
    """Yield a study of each load at a fixed rate, with the function that measures a trial. Raises PlanError when this
    machine has too few CPUs for a load, when no rate is known, or when the baseline is unknown."""
    for load in context.loads:
        rate = context.rate(load, context.run)
        parameters = load.parameters() | {metrics.REQUESTS_PER_S: rate}
        highest = metrics.LATENCIES[_percentiles(rate * load.seconds)[-1]]
        study = context.study(f"latency-{load.name}", "latency", highest, parameters)
        yield study, partial(measure, load=load, rate=rate, tools=context.tools)


def _percentiles(samples: int) -> list[float]:
    """The percentiles that so many samples tell, as shares, in rising order; the median always."""
    return [share for share in metrics.LATENCIES if samples - share * samples > BEYOND - 0.5] or [0.5]


def measure(treatment: Treatment, load: Load, rate: int, tools: str) -> list[Observation]:
    """Run one trial in fresh containers: a warm-up, then `load.seconds` that count, both at `rate` requests per second.
    Returns rows of percentiles in seconds, and of the bytes of a body. Raises FailedTrial when a request fails, or the
    rate was not kept."""
    with serve(treatment, load, tools) as server:
        _ask(server, load, rate, load.warmup_s)
        percentiles = _ask(server, load, rate, load.seconds)
    latencies = [
        Observation(metrics.LATENCIES[share], percentiles[share]) for share in _percentiles(rate * load.seconds)
    ]
    return [*latencies, Observation(metrics.BODY_BYTES, server.body_bytes)]


def _ask(server: Server, load: Load, rate: int, seconds: int) -> dict[float, float]:
    """Return the latencies in seconds by percentile (as a fraction). Raises FailedTrial when an answer was an error or
    had the wrong size, or the rate was not kept."""
    request_count = rate * seconds
    report = run_oha(server, load, "-n", str(request_count), "-q", str(rate), "--latency-correction")
    if report["summary"]["total"] > max(seconds + SLACK_S, SLACK * seconds):
        raise FailedTrial(
            f"{rate} requests per second were not kept: {request_count} took {report['summary']['total']:.1f} s"
        )
    return {round(float(name[1:]) / 100, 4): value for name, value in report["latencyPercentiles"].items()}
