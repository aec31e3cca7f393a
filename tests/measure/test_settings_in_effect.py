"""Settings of allocators in real containers: each takes effect there, by what the allocator itself says."""

import pytest
from support.lab import measured

from rustimg_lab.analysis import comparison, factorials, scaling
from rustimg_lab.build import bake, lab_toml
from rustimg_lab.engine import images
from rustimg_lab.measure import load, workloads
from rustimg_lab.measure.plan import Treatment
from rustimg_lab.measure.server import wait_for
from rustimg_lab.model import matrix, metrics, settings
from rustimg_lab.model.names import TWIN
from rustimg_lab.paths import MYIP
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
NAME = "test-settings"
ALLOCATORS = ("system", "jemalloc", "mimalloc")
CONFIRM = ("_RJEM_MALLOC_CONF", "confirm_conf:true,")
SETTINGS = ["purge_delay=0", "dirty_decay_ms=0", "narenas=1"]
CELLS = {name: matrix.cell("scratch", "optimized", name) for name in ALLOCATORS}
LOAD = load.Load(workloads.find_workload("batch"), workers=2, connections=8, warmup_s=1, seconds=1)
MEASURE = ("measure", "--run", NAME, "--bases", "scratch", "--allocators", ",".join(ALLOCATORS), "--settings",
           ",".join(SETTINGS), "--seconds", "1", "--connections", "8", "--blocks", "2",
           "--baseline", "scratch-optimized-jemalloc~narenas=1")  # fmt: skip


@pytest.fixture(scope="module")
def study(pageless):
    """A short study of throughput with one worker and with two, and one of memory a second after the load."""
    with measured(pageless, NAME, MEASURE) as done:
        rested = pageless(*MEASURE, "--study", "rest", "--rest", "1")
        assert rested.returncode == 0, rested.stderr
        yield done


def treatment(allocator: str, text: str = "") -> Treatment:
    cell = CELLS[allocator]
    image = images.find_image(bake.image_tag(cell, lab_toml.load(MYIP).server)).id
    return Treatment(cell, image, cell.slug, settings.parse(text) if text else None)


@pytest.mark.parametrize(
    ("allocator", "text", "tells", "said"),
    [
        ("jemalloc", "dirty_decay_ms=0", CONFIRM, b"Set conf value: dirty_decay_ms:0"),
        ("jemalloc", "narenas=1", CONFIRM, b"Set conf value: narenas:1"),
        ("mimalloc", "purge_delay=0", ("MIMALLOC_VERBOSE", "1"), b"option 'purge_delay': 0"),
    ],
)  # fmt: skip
def test_a_server_that_is_started_with_a_setting_has_it(study, tools, allocator, text, tells, said):
    """The allocator is asked, by one more variable, to print what it was told."""
    name, asked = tells
    one = treatment(allocator, text)
    one.setting.environment[name] = asked + one.setting.environment.get(name, "")
    with load.serve(one, LOAD, tools) as server:
        wait_for(said, server.container, "server", 5)


def test_the_settings_are_treatments_of_the_same_blocks_and_named_in_their_rows(study):
    run = runs.load(NAME)
    for name in ("throughput-batch-1w-8c", "throughput-batch-2w-8c", "rest-batch-1w-8c"):
        own = run.rows[(run.rows["study"] == name) & (run.rows["metric"] == metrics.TRIAL)]
        assert own["ok"].all() and own.groupby("block").size().tolist() == [3 + 3 + 1] * 2
        cells = own[~own["cell"].str.endswith(TWIN)].drop_duplicates("cell")
        told = cells.groupby("allocator")["setting"].agg(lambda texts: sorted(filter(None, texts)))
        assert told.to_dict() == {"jemalloc": sorted(SETTINGS[1:]), "mimalloc": SETTINGS[:1], "system": []}
    assert not run.rows["cell"].str.contains("=").where(run.rows["study"].str.startswith("instr"), False).any()
    samples = comparison.samples(run, "throughput-batch-1w-8c", metrics.CPU_US_PER_REQUEST)
    assert "scratch-optimized-jemalloc~narenas=1" in set(samples["cell"])
    plans = run.environment.studies
    assert plans["throughput-batch-1w-8c"].baseline == "scratch-optimized-jemalloc~narenas=1"
    assert plans["instructions-batch"].baseline == "scratch-optimized-jemalloc"  # which settings would not change
    factorials.find_factorials(run)  # cells that differ in a setting alone are no levels of a factor


def test_a_second_worker_has_its_speed_up_from_blocks_that_took_turns(study):
    found = scaling.speed_up(runs.load(NAME), "batch", 8)
    assert len(found) == 7 and found["pairs"].eq(2).all() and found["ratio"].gt(0.2).all()
    assert "did not take turns" not in found.attrs["warning"] and "share the CPUs" in found.attrs["warning"]


def test_memory_is_read_after_the_load_and_less_is_left_where_it_is_given_back_at_once(study):
    run = runs.load(NAME)
    plan = run.environment.studies["rest-batch-1w-8c"]
    assert plan.parameters["rest_s"] == 1 and plan.metric == metrics.RESTED_RSS_BYTES
    rested, peak = (
        comparison.samples(run, "rest-batch-1w-8c", metric).set_index(["cell", "block"])["value"]
        for metric in (metrics.RESTED_RSS_BYTES, metrics.PEAK_RSS_BYTES)
    )
    assert len(rested) == 14 and (rested > 1 << 20).all() and (rested < 1.1 * peak).all()
    kept = rested.groupby("cell").mean()
    assert kept["scratch-optimized-jemalloc~dirty_decay_ms=0"] < 1.02 * kept["scratch-optimized-jemalloc"]
