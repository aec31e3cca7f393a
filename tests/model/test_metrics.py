"""The registry of metrics is the only place where a metric's name is typed."""

import ast
import json

from rustimg_lab.model import metrics, probes
from rustimg_lab.paths import RECORDED, ROOT
from rustimg_lab.store.rows import Observation


def test_no_name_of_a_metric_is_typed_a_second_time():
    typed = []
    for path in (ROOT / "rustimg_lab").rglob("*.py"):
        if path.name == "metrics.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            # Names of one word, such as "shell", are ordinary words too.
            if isinstance(node, ast.Constant) and node.value in metrics.METRICS and "_" in node.value:
                typed.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}")
    assert typed == []


def test_every_metric_of_the_recorded_runs_is_registered_with_its_unit():
    several = {metrics.rss_at(count) for count in (0, 1, 100)}
    several |= {metrics.bytes_per_connection_at(count) for count in (1, 100, 1000)}
    parts = ("create", "start_call", "exit", "longest_poll")
    several |= {metrics.container_metric(network, part) for network in ("host", "bridge") for part in parts}
    known = metrics.METRICS | {each: each for each in several}
    seen = {}
    for path in RECORDED.glob("*/rows.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            seen[row["metric"]] = row["unit"]
    assert len(seen) > 60
    unknown = set(seen) - set(known) - set(probes.PROBES)
    assert unknown == set()
    assert {name: known[name].unit for name in seen if name in known} == {
        name: unit for name, unit in seen.items() if name in known
    }


def test_a_row_takes_its_unit_from_its_metric():
    assert Observation(metrics.APP_BYTES, 5).unit == "B" and Observation("size", 5).unit == ""
    assert metrics.APP_BYTES == "app_bytes" and {"app_bytes": 1}[metrics.APP_BYTES] == 1


def test_a_value_is_told_in_its_unit_and_a_difference_with_its_sign():
    assert metrics.COMPRESSED_BYTES.in_words(2_500_000.0) == "2.50 MB"
    assert metrics.COMPRESSED_BYTES.in_words(float("nan")) == "not measured"
    assert metrics.EXEC_TO_FIRST_BYTE_S.signed(-0.0021) == "\u22122.10 ms"
    assert metrics.CPU_US_PER_REQUEST.title == "CPU per request, µs"
