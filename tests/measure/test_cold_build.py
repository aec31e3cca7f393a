"""Cold builds: for real, of the tiny crate in containers; and the stage that they are made in, as text."""

import re
import threading
import time

import pytest
from support.lab import TINY, adds_nothing, derived, forget, measured, ours

from rustimg_lab.analysis import comparison
from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.studies import cold_build
from rustimg_lab.model import matrix, metrics
from rustimg_lab.paths import REPORTS
from rustimg_lab.store import runs

NAME = "test-compiling"
MEASURE = (
    "measure", "--study", "build", "--run", NAME, "--app", str(TINY), "--bases", "scratch,debian",
    "--profiles", "baseline", "--blocks", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(lab):
    """A short study through the command line; of a crate that serves nothing."""
    with measured(lab, NAME, MEASURE) as done:
        yield done


@pytest.mark.engine
def test_every_build_is_from_cold_and_has_its_page(study):
    run = runs.load(NAME)
    assert run.rows["ok"].all()
    about = run.environment.studies["build"]
    assert about.parameters["program"] == "tiny" and len(about.cells) == 3
    cpu, wall = (
        comparison.samples(run, "build", metric) for metric in (metrics.COLD_BUILD_CPU_S, metrics.COLD_BUILD_S)
    )
    assert len(cpu) == len(wall) == 3 * 2
    # What is compiled already takes cargo some hundredths of a second.
    assert cpu["value"].min() > 0.2 and cpu["value"].max() < 3 * cpu["value"].min()
    assert (cpu["value"] <= 1.02 * about.parameters["cpus"] * wall["value"]).all()
    assert (REPORTS / NAME / "report.html").exists()
    assert f"run {NAME}: cold builds" in study.stdout


@pytest.mark.engine
def test_the_same_call_builds_nothing_again_and_leaves_no_container(study, pageless):
    adds_nothing(pageless, NAME, MEASURE)


@pytest.mark.engine
def test_an_app_that_cannot_be_built_is_one_line_with_the_reason(tiny, lab):
    (tiny.directory / "src" / "main.rs").write_text('compile_error!("not today");')
    forget("test-broken")
    done = lab("measure", "--study", "build", "--run", "test-broken", "--app", str(tiny.directory), "--blocks", "1",
               "--profiles", "baseline")  # fmt: skip
    run = runs.load("test-broken")
    forget("test-broken")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "so there is nothing to measure; tiny scratch-baseline-system: error: not today" in done.stderr
    assert run.rows["metric"].tolist() == ["built"] and not run.rows["ok"].any()


@pytest.mark.engine
def test_a_build_that_fails_or_goes_away_is_a_lost_trial(images):
    cell = matrix.cell("scratch", "baseline", "system")

    def treatment(script: str) -> Treatment:
        return Treatment(cell, derived(images["debian"].image, ["sh", "-c", script], user=""), cell.slug)

    failing = "echo 'error: could not compile `tiny`' >&2; exit 101"
    with pytest.raises(FailedTrial, match="cargo failed with exit code 101: error: could not compile `tiny`"):
        cold_build.measure(treatment(failing))

    slow = treatment("sleep 60")

    def kill() -> None:
        while not ours():
            time.sleep(0.1)
        time.sleep(1)
        for container in ours():
            container.kill()

    killed = threading.Thread(target=kill)
    killed.start()
    with pytest.raises(FailedTrial, match=r"cargo cannot be called|cargo failed with exit code 137: no output"):
        cold_build.measure(slow)
    killed.join()
    assert not ours()


@pytest.mark.parametrize("profile", ["baseline", "optimized", "no-unwind", "smallest", "auditable", "cpu-v3"])
def test_the_stage_calls_cargo_as_the_dockerfile_does(profile):
    cell, app = matrix.cell("scratch", profile, "jemalloc"), lab_toml.load(TINY)
    text, stage = dockerfile.render(cell, app), dockerfile.cold_stage(cell, app)
    (called,) = re.findall(r"^    (cargo (?:auditable )?build .*); \\$", text, re.MULTILINE)
    assert called.replace('"', r"\"") in stage
    common, *exports = re.findall(r"^    export (.*); \\$", text, re.MULTILINE)
    for exported in (*common.split(), *exports):
        assert exported.replace('"', r"\"") in stage
