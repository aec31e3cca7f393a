"""The main job, as a user does it: the article's eight cells for real, again, killed, and two at once."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rustimg_lab import build, engine, matrix, stats, store
from rustimg_lab.paths import REPORTS, ROOT, RUNS, STATE

pytestmark = pytest.mark.engine
NAME = "test-article"


def forget(name: str) -> None:
    for folder in (RUNS / name, REPORTS / name):
        shutil.rmtree(folder, ignore_errors=True)


def ours() -> list:
    filters = {"label": f"{engine.CONTAINER_LABEL}={engine.lab_id()}"}
    return engine.client().containers.list(all=True, filters=filters)


@pytest.fixture(scope="module")
def article_run():
    """`./lab run`, from nothing: what it printed, and the run's table."""
    forget(NAME)
    done = subprocess.run(
        [sys.executable, "-m", "rustimg_lab", "run", "--run", NAME], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield done, stats.article_grid(store.load(NAME)).set_index(["base", "profile"])
    forget(NAME)


def test_the_articles_table_has_eight_rows_each_built_run_and_measured(article_run):
    done, table = article_run
    assert len(table) == 8
    assert table["ok"].all(), table["reason"].tolist()
    assert set(table.index) == {(base, profile) for base in matrix.BASES for profile in matrix.PROFILES}
    assert (table["unpacked_bytes"] == table["base_bytes"] + table["app_bytes"]).all()
    assert (table["compressed_bytes"] < table["unpacked_bytes"]).all()
    assert len(re.findall(r"^ *(?:scratch|alpine|distroless|debian)\b.* yes *$", done.stdout, re.MULTILINE)) == 8


def test_scratch_is_smaller_than_the_articles(article_run):
    _, table = article_run
    assert table.loc[("scratch", "optimized"), "unpacked_bytes"] < 4_200_000
    assert table.loc[("scratch", "baseline"), "unpacked_bytes"] < 15_900_000


def test_the_binaries_are_what_was_asked_for(article_run):
    _, table = article_run
    for (base, profile), cell in table.iterrows():
        musl = base in ("scratch", "alpine")
        assert cell["linkage"] == ("static" if musl else "dynamic")
        assert cell["linked_allocator"] == ("jemalloc" if musl else "system")
        assert cell["stripped"] == (profile == "optimized")
        assert cell["pie"]
        assert bool(cell["glibc_needed"]) != musl
        assert "ssl" not in cell["needed_libraries"]
        assert cell["build_cpu_s"] > 0
    hashes = table["binary_sha256"].unstack("base")
    assert (hashes["scratch"] == hashes["alpine"]).all() and (hashes["distroless"] == hashes["debian"]).all()
    assert hashes.stack().nunique() == 4


def test_the_report_is_one_page_that_has_every_cell(article_run):
    done, _ = article_run
    page = REPORTS / NAME / "01_sizes.html"
    assert f"report: {page.relative_to(ROOT)}" in done.stdout
    html = page.read_text()
    (table,) = re.findall(r"<table[^>]*>(?:(?!</table>).)*article 2021, MB.*?</table>", html, re.DOTALL)
    assert table.count("<tr>") == 1 + 8
    if stats.cells(store.load(NAME))["stand_in"].any():
        assert table.count("alpine (stand-in)") == 2


def test_every_cell_has_its_dockerfile_and_its_log(article_run):
    for folder, name in (("dockerfiles", "Dockerfile.{}"), ("logs", "{}.log")):
        for cell in matrix.grid(matrix.BASES, matrix.PROFILES, [matrix.ARTICLE]):
            assert (RUNS / NAME / folder / name.format(cell.slug)).stat().st_size


def test_again_and_nothing_changed_costs_nothing(article_run, lab):
    rows = (RUNS / NAME / "rows.jsonl").read_text()
    logs = {path: path.read_text() for path in (RUNS / NAME / "logs").iterdir()}
    done = lab("run", "--run", NAME)
    assert done.returncode == 0, done.stderr
    assert (RUNS / NAME / "rows.jsonl").read_text() == rows
    assert {path: path.read_text() for path in (RUNS / NAME / "logs").iterdir()} == logs  # no step ran
    assert ours() == []


def test_two_labs_on_one_run_and_the_second_refuses(article_run, lab):
    with store.open_run(NAME, store.load(NAME).attrs["environment"]["machine"]):
        done = lab("run", "--run", NAME)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"lab: run '{NAME}' is being written by another lab; wait for it, or choose --run NAME"
    )


@pytest.fixture
def tiny_run(tiny, tmp_path):
    """Starts `lab run` on the tiny crate, which is no client: every cell is built, and none does its job."""
    name = "test-tiny"
    forget(name)
    script = tmp_path / "lab.py"
    script.write_text(
        "import pathlib, sys\n"
        "from rustimg_lab import __main__\n"
        f"__main__.MYIP = pathlib.Path({str(tiny.directory)!r})\n"
        "sys.exit(__main__.main(sys.argv[1:]))\n"
    )

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, str(script), "run", "--run", name, "--profiles", "baseline", *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    yield start, name
    forget(name)
    app = build.load_app(tiny.directory)
    for cell in matrix.grid(matrix.BASES, ["baseline"], matrix.ALLOCATORS):
        if engine.find_image(build.image_tag(cell, app)):
            engine.client().images.remove(build.image_tag(cell, app))


def test_a_cell_that_failed_is_a_row_and_in_the_exit_code(tiny_run, tiny):
    main = tiny.directory / "src" / "main.rs"
    main.write_text(main.read_text() + '\n#[cfg(feature = "mimalloc")]\nconst BROKEN: u32 = "not a number";\n')
    start, name = tiny_run
    process = start("--bases", "scratch", "--allocators", "system,jemalloc,mimalloc")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    table = stats.cells(store.load(name)).set_index("allocator")
    assert len(table) == 3 and not table["ok"].any()
    assert "printed 'answer 42', the server had answered" in table.loc["system", "reason"]
    assert "asked for jemalloc, the linker kept system" in table.loc["jemalloc", "reason"]
    assert table.loc["mimalloc", "reason"].startswith("error[E0308]: mismatched types (src/main.rs:")
    assert err.count("lab: failed: ") >= 3
    assert (REPORTS / name / "01_sizes.html").exists() and "report: " in out


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_a_lab_that_is_ended_in_the_middle_of_a_build_leaves_nothing_and_goes_on(sign, tiny_run, tiny):
    start, name = tiny_run
    slow = tiny.directory / "build.rs"
    slow.write_text("fn main() { std::thread::sleep(std::time::Duration::from_secs(60)); }")
    process = start("--bases", "scratch,debian", "--allocators", "system")
    log = []
    for line in process.stdout:
        log.append(line)
        if "baseline-system: " in line:
            break
    time.sleep(8)  # by now cargo waits for the build script
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if sign == signal.SIGKILL else 130), "".join(log) + out + err
    if sign != signal.SIGKILL:
        assert err.strip() == "lab: interrupted; the same command goes on from here"
    for _ in range(100):  # after a kill the kernel tells bake, which takes a moment to end
        if not _bakes():
            break
        time.sleep(0.1)
    assert _bakes() == []
    assert ours() == []
    rows = RUNS / name / "rows.jsonl"
    assert not rows.exists() or all(json.loads(line) for line in rows.read_text().splitlines())

    slow.write_text("fn main() {}")
    process = start("--bases", "scratch,debian", "--allocators", "system")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1, err  # both are built, and do not do a client's job
    table = stats.cells(store.load(name))
    assert table["binary_sha256"].notna().all() and store.load(name).attrs["broken"] == []
    assert [path.name for path in STATE.iterdir() if path.name.startswith("work-")] == []


def _bakes() -> list[str]:
    """The bake commands of this clone that are running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if " bake " in command and str(STATE) in command:
                found.append(command)
    return found
