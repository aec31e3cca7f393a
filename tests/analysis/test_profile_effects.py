"""What profiles change, on a run that is made up: UPX packs and starts slower; opt-level 2 is smaller and slower."""

import numpy as np
import pytest

from rustimg_lab.analysis import profile_effects
from rustimg_lab.errors import LabError
from rustimg_lab.measure import trials
from rustimg_lab.measure.plan import Study, Treatment
from rustimg_lab.model import matrix, names
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.report import views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

#           on disk, in transfer, exec to first byte, CPU per request
COST = {"optimized": (1000, 500, 1.0, 60.0), "upx": (400, 510, 10.0, 60.0), "opt-2": (950, 450, 1.0, 90.0)}
CELLS = {(base, name): matrix.cell(base, name, "system") for base in ("scratch", "debian") for name in COST}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    generator = np.random.default_rng(3)
    treatments = [Treatment(cell, "sha256:1", cell.slug) for cell in CELLS.values()]
    baseline = treatments[0]
    treatments.append(Treatment(baseline.cell, "sha256:1", baseline.cell.slug + names.TWIN))

    def observe(treatment: Treatment) -> list[Observation]:
        _, _, start, cpu = COST[treatment.cell.profile.name]
        return [
            Observation("exec_to_first_byte_s", start * 1e-3 * float(np.exp(0.01 * generator.standard_normal()))),
            Observation("cpu_us_per_request", cpu * float(np.exp(0.01 * generator.standard_normal()))),
        ]

    with runs.open_run("a", {}) as run:
        for (base, name), cell in CELLS.items():
            disk, transfer, _, _ = COST[name]
            below = 0 if base == "scratch" else 10_000
            sizes = {"app_bytes": disk, "compressed_app_bytes": transfer, "base_bytes": below,
                     "unpacked_bytes": below + disk, "runs": True}  # fmt: skip
            run.append(cell, "sha256:1", [Observation(key, value) for key, value in sizes.items()])
        for kind, metric in (("startup", "exec_to_first_byte_s"), ("throughput", "cpu_us_per_request")):
            load = {"workload": "batch", "workers": 1, "connections": 16, "of": "load", "warning": ""}
            plan = Study(kind, kind, load, tuple(treatments), baseline.name, metric, 12,
                         1, contents=dict.fromkeys((each.name for each in treatments), "0"))  # fmt: skip
            trials.run_in_turns([(plan, observe)], run)
    return runs.load("a")


def test_each_profile_is_held_against_the_reference_on_its_own_base(recorded):
    found = profile_effects.of_profiles(recorded)
    assert len(found) == 2 * 2 * 4 and set(found["profile"]) == {"upx", "opt-2"}
    by = found.set_index(["profile", "base", "criterion"])
    for base in ("scratch", "debian"):
        on_disk = by.loc["upx", base, "the app's bytes on disk"]
        assert on_disk["ratio"] == 0.4 and on_disk["verdict"] == "less" and np.isnan(on_disk["low"])
        assert by.loc["upx", base, "the app's compressed bytes"]["verdict"] == "more"
        start = by.loc["upx", base, "exec to first byte"]
        assert start["low"] < 10 < start["high"] and start["verdict"] == "slower"
        assert by.loc["upx", base, "CPU per request"]["verdict"] == Verdict.NO_DIFFERENCE
        assert by.loc["opt-2", base, "CPU per request"]["verdict"] == "slower"


def test_where_a_profile_gains_and_loses_is_a_sentence(recorded):
    upx, opt_2 = views.profile_effects.in_words(profile_effects.of_profiles(recorded)).splitlines()
    assert upx.startswith("- **upx** beside optimized, 2 pairs of cells: the app's bytes on disk 0.40 times (less); ")
    assert "the app's compressed bytes 1.02 times (more)" in upx and "(slower)" in upx
    assert opt_2.startswith("- **opt-2**") and opt_2.endswith(" times (slower).")
    html = views.profile_effects.effects(profile_effects.of_profiles(recorded)).to_html()
    assert "0.40 less" in html and "slower" in html


def test_without_the_reference_there_is_nothing_to_say(recorded):
    found = profile_effects.of_profiles(recorded, reference="smallest")
    assert found.empty and views.profile_effects.in_words(found) == ""


def test_a_run_in_which_nothing_works_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("none", {}) as run:
        run.append(next(iter(CELLS.values())), "", [Observation("built", False, ok=False, reason="no")])
    with pytest.raises(LabError, match="run 'none' has no cell that works"):
        profile_effects.of_profiles(runs.load("none"))
