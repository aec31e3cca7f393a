"""What the benchmark makes of its measurements; it is run by hand, since it takes hours."""

import importlib
import json
import statistics
import sys

import pytest

from rustimg_lab.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    sys.path.append(str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def grid():
    return importlib.import_module("grid")


@pytest.fixture(scope="module")
def ladder():
    return importlib.import_module("ladder")


def rounds(grid, count: int) -> list[dict]:
    """Steps that take ten times their number, and the number of the round more; the third round is an outlier."""
    names = sorted({name for ours, theirs, _, _ in grid.LIMITS for name in (ours, theirs)})
    names += [grid.LAB_MEASURED, grid.LAB_UNCHANGED, grid.LAB_ADDED]
    return [
        {"round": number, "step": name, "wall_s": 10 * index + number + 1000 * (number == 3), "cpu_s": 20.0}
        for number in range(1, count + 1)
        for index, name in enumerate(names, 1)
    ]


def test_the_table_has_the_medians_and_the_ratios(grid):
    steps = rounds(grid, 3)
    table = grid.table({"steps": steps})
    wall = {step["step"]: step["wall_s"] for step in steps if step["round"] == 2}  # the middle one of the three
    for name, value in wall.items():
        assert f"| {name} | {value} | {value - 1} {value} {value + 1001} | 20 |" in table
    for ours, theirs, key, limit in grid.LIMITS:
        ratio = wall[ours] / wall[theirs] if key == "wall_s" else 1
        kind = "wall" if key == "wall_s" else "CPU"
        assert f"| {ours} / {theirs} | {kind} | {ratio:.2f} | {limit} |" in table


def test_the_committed_results_keep_to_the_limits(grid):
    for ours, theirs, key, limit in grid.LIMITS:
        results = json.loads(grid.RESULTS.read_text())["steps"]
        one, other = (
            statistics.median(step[key] for step in results if step["step"] == name) for name in (ours, theirs)
        )
        assert one / other <= limit, (ours, theirs, key)


def test_a_step_that_was_cached_was_not_run(ladder):
    step = "[facts builder 5/6] RUN --mount=type=cache set -eu;     cargo build --locked;     times > /out/times"
    assert not ladder._CARGO_STEP_RUN.search(f"=> CACHED {step}\n=> CACHED {step}\n")
    assert ladder._CARGO_STEP_RUN.search(f"=> CACHED {step}\n=> {step}\n   Compiling libc v0.2.1\n")
    said = "   Compiling libc v0.2.1\n   Compiling a v1.0.0 (/src)\n    Finished `release` profile\n"
    assert ladder._COMPILING.findall(said) == ["libc v0.2.1", "a v1.0.0"]


def test_the_ladder_cost_little_beside_cargo_and_nothing_was_compiled_twice(ladder):
    found = json.loads(ladder.RESULTS.read_text())
    assert found["compiled_twice"] == [] and found["cargo_steps_run"] <= found["cargo_steps"] < found["cells"]
    assert found["beside_cargo_cpu_s"] <= (ladder.LIMIT - 1) * found["cargo_cpu_s"]


def test_a_call_that_was_stopped_goes_on_after_its_last_whole_round(grid, tmp_path):
    here = {"commit": "a", "machine": {"cpus": 2}, "images": {}, "load_average_before": 0.5}
    part = tmp_path / "grid.part"
    assert grid._whole_rounds(part, here) == []
    steps = rounds(grid, 2)
    part.write_text(json.dumps({"environment": here, "steps": steps[:-3]}))
    assert grid._whole_rounds(part, here | {"load_average_before": 2.0}) == steps[: grid.STEPS_PER_ROUND]
    for other in ({"commit": "b"}, {"machine": {"cpus": 4}}, {"images": {"rust": "other"}}):
        assert grid._whole_rounds(part, here | other) == []


def test_two_benchmarks_at_once_are_refused(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(grid.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(grid, "_measure", lambda: grid.main())  # a second one, while the first runs
    with pytest.raises(SystemExit, match="another benchmark runs on this machine"):
        grid.main()


def test_the_articles_dockerfiles_share_what_a_layer_cache_can_share(grid):
    """The article's way is not made slower than it is: two bases with one target have one builder stage."""
    text = {name: (grid.HERE / "article" / f"Dockerfile.{name}").read_text() for name in grid.BASES}
    builder = {name: each[each.index("FROM ") : each.index("## Final image")] for name, each in text.items()}
    assert builder["scratch"] == builder["alpine"] != builder["distroless"] == builder["debian"]
