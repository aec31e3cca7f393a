"""The main job, as a user does it: the article's eight cells for real, again, killed, and two at once."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.lab import forget, ours, wait_for, work_folders
from support.registries import rootfs

from rustimg_lab.analysis import cells, comparison
from rustimg_lab.build import bake, lab_toml
from rustimg_lab.engine import client, local_registry
from rustimg_lab.engine.images import find_image, split_host
from rustimg_lab.model import matrix
from rustimg_lab.model.bases import all_bases
from rustimg_lab.paths import REPORTS, ROOT, RUNS, STATE
from rustimg_lab.report import terminal
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
NAME = "test-article"
SLEEP = ("sleep", "60.4711")  # of this test and of no other


@pytest.fixture(scope="module")
def article_run():
    """`./lab run`, from nothing: what it printed, and the run's table."""
    forget(NAME)
    command = [sys.executable, "-m", "rustimg_lab", "run", "--run", NAME, "--blocks", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    yield done, cells.article_grid(runs.load(NAME)).set_index(["base", "profile"])
    forget(NAME)


def test_the_articles_table_has_eight_rows_each_built_run_and_measured(article_run):
    done, table = article_run
    assert len(table) == 8
    assert table["ok"].all(), table["reason"].tolist()
    assert set(table.index) == {(base, profile) for base in matrix.ARTICLE_BASES for profile in matrix.PROFILES}
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
    page = REPORTS / NAME / "report.html"
    assert f"report: {page.relative_to(ROOT)}" in done.stdout
    html = page.read_text()
    (table,) = re.findall(r"<table[^>]*>(?:(?!</table>).)*article 2021, MB.*?</table>", html, re.DOTALL)
    assert table.count("<tr>") == 1 + 8
    if cells.cell_table(runs.load(NAME))["stand_in"].any():
        assert table.count("alpine (substitute)") == 2


def test_every_cell_has_its_dockerfile_and_its_log(article_run):
    for folder, name in (("dockerfiles", "Dockerfile.{}"), ("logs", "{}.log")):
        for cell in matrix.grid(matrix.ARTICLE_BASES, matrix.PROFILES, [matrix.ARTICLE]):
            assert (RUNS / NAME / folder / name.format(cell.slug)).stat().st_size


def test_the_grid_has_a_short_study_of_musl_malloc_and_says_that_it_is_short(article_run):
    done, _ = article_run
    run = runs.load(NAME)
    found = comparison.of_study(run, "throughput-batch-1w-16c", "cpu_us_per_request")
    assert found.attrs["baseline"] == "scratch-optimized-system"
    others = {"alpine-optimized-system", "scratch-optimized-jemalloc", "alpine-optimized-jemalloc"}
    assert set(found["cell"]) - {"scratch-optimized-system~twin"} == others | {
        "distroless-optimized-system",
        "debian-optimized-system",
    }
    assert "a short study (2 blocks)" in found.attrs["warning"]
    assert "a short study (2 blocks)" in " ".join(done.stdout.split())  # the table's title takes several lines
    page = (REPORTS / NAME / "report.html").read_text()
    assert "a short study (2 blocks)" in page


# The command line, and how often it has read a run's rows: what has not changed is read once.
READS = """
import sys
from rustimg_lab.cli.main import main
from rustimg_lab.store import runs
code = main(sys.argv[1:])
print("runs read:", runs._read_folder.cache_info().misses)
sys.exit(code)
"""


def test_again_and_nothing_changed_costs_nothing(article_run):
    rows = (RUNS / NAME / "rows.jsonl").read_text()
    logs = {path: path.read_text() for path in (RUNS / NAME / "logs").rglob("*.log")}
    command = [sys.executable, "-c", READS, "run", "--run", NAME, "--blocks", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("runs read: 1\n")
    assert (RUNS / NAME / "rows.jsonl").read_text() == rows
    assert {path: path.read_text() for path in (RUNS / NAME / "logs").rglob("*.log")} == logs  # no step ran
    assert ours() == []


@pytest.fixture
def other_run():
    """The name of a run of its own, which goes afterwards."""
    forget("test-other")
    yield "test-other"
    forget("test-other")


def test_a_base_from_an_archive_gives_the_eight_rows_too(article_run, lab, pageless, other_run, tmp_path):
    archive = rootfs(tmp_path / "other-alpine.tar.gz")
    done = lab("run", "--run", other_run, "--blocks", "0", "--base", f"alpine={archive}")
    assert done.returncode == 0, done.stderr
    _, before = article_run
    table = cells.article_grid(runs.load(other_run)).set_index(["base", "profile"])
    assert len(table) == 8 and table["ok"].all()
    source = table["base_source"].unstack()
    assert set(source.loc["alpine"]) == {"archive other-alpine.tar.gz"}
    assert set(table.loc["alpine", "base_label"]) == {"Test Linux v1.2 (1.2.3)"}
    assert (source.drop("alpine") == before["base_source"].unstack().drop("alpine")).all().all()
    assert (table["binary_sha256"] == before["binary_sha256"]).all()
    assert "(archive other-alpine.tar.gz, named by the user; " in done.stdout
    assert terminal.markdown(other_run).count("| archive other-alpine.tar.gz |") == 2
    page = (REPORTS / other_run / "report.html").read_text()
    assert "alpine (substitute)" not in page and "Test Linux v1.2 (1.2.3)" in page

    rows = (RUNS / other_run / "rows.jsonl").read_text()
    again = pageless("run", "--run", other_run, "--blocks", "0")  # resumed: with the run's own base
    assert again.returncode == 0, again.stderr
    assert (RUNS / other_run / "rows.jsonl").read_text() == rows


def test_bases_and_builder_from_a_registry_give_the_eight_rows_too(article_run, images, pageless, other_run):
    """As a mirror has the official images; what is in this one are the bases of packages, and they say so."""
    api = client.connect().images
    with local_registry.serve() as own:
        for name, image in images.items():
            path = split_host(matrix.reference(name))[1]
            path, _, tag = path.partition(":")
            repository, tag = f"{own.address}/{path}", tag or "latest"
            api.get(image.digest).tag(repository, tag)
            try:
                assert not [e for e in api.push(repository, tag, stream=True, decode=True) if "error" in e]
            finally:
                api.remove(f"{repository}:{tag}", noprune=True)
        done = pageless("run", "--run", other_run, "--blocks", "0", "--registry", own.address)
    try:
        assert done.returncode == 0, done.stderr
        run = runs.load(other_run)
        table = cells.article_grid(run)
        assert len(table) == 8 and table["ok"].all()
        assert set(table["base_source"]) == {f"registry {own.address}", "empty"}
        recorded = run.environment.images.values()
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", image["manifest"]) for image in recorded)
        assert {image["name"]: image["digest"] for image in recorded} == {
            name: image.digest for name, image in images.items() if name in ("rust", *matrix.ARTICLE_BASES)
        }
        assert set(table.loc[table["stand_in"], "base"]) == ({"alpine"} if images["alpine"].stand_in else set())
    finally:
        for name in images:
            for image in api.list(name=client.repository(name)):
                for tag in image.tags:
                    if re.fullmatch("[0-9a-f]{12}", tag.rpartition(":")[2]):
                        api.remove(tag, noprune=True)


def test_another_release_is_another_run(article_run, lab):
    done = lab("run", "--run", NAME, "--debian", "bookworm")
    assert done.returncode == 2
    assert done.stderr.startswith(f"lab: run '{NAME}' was begun on Debian trixie, not bookworm: choose a new one")
    assert done.stderr.count("\n") == 1


def test_two_labs_on_one_run_and_the_second_refuses(article_run, lab):
    with runs.open_run(NAME, runs.load(NAME).environment.machine):
        done = lab("run", "--run", NAME, "--blocks", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"lab: run '{NAME}' is being written by another lab; wait for it, or choose --run NAME"
    )


def test_the_smallest_that_is_fast_enough_is_picked(article_run, lab):
    done = lab("choose", "--run", NAME, "--max-transfer", "3MB", "--min-throughput", "0.1")
    assert done.returncode == 0, done.stderr
    picked = re.search(r"^Selected: (\S+): ", done.stdout, re.MULTILINE)[1]
    assert picked == "scratch-optimized-jemalloc"
    assert done.stdout.partition("--- Dockerfile\n")[2] == runs.dockerfile(NAME, picked)


@pytest.fixture
def tiny_run(tiny, tmp_path):
    """Starts `lab run` on the tiny crate, which is no client: every cell is built, and none does its job."""
    name = "test-tiny"
    forget(name)
    script = tmp_path / "lab.py"
    script.write_text(
        "import pathlib, sys\n"
        "from rustimg_lab.cli import main, selection\n"
        f"selection.MYIP = pathlib.Path({str(tiny.directory)!r})\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )

    def start(*arguments: str) -> subprocess.Popen:
        wanted = ["--run", name, "--blocks", "0", "--profiles", "baseline"]
        command = [sys.executable, str(script), "run", *wanted, *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    yield start, name
    forget(name)
    app = lab_toml.load(tiny.directory)
    for cell in matrix.grid(all_bases(), ["baseline"], matrix.ALLOCATORS):
        if find_image(bake.image_tag(cell, app)):
            client.connect().images.remove(bake.image_tag(cell, app))


@pytest.mark.builds
def test_a_cell_that_failed_is_a_row_and_in_the_exit_code(tiny_run, tiny):
    main = tiny.directory / "src" / "main.rs"
    main.write_text(main.read_text() + '\n#[cfg(feature = "mimalloc")]\nconst BROKEN: u32 = "not a number";\n')
    start, name = tiny_run
    process = start("--bases", "scratch", "--allocators", "system,jemalloc,mimalloc")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    table = cells.cell_table(runs.load(name)).set_index("allocator")
    assert len(table) == 3 and not table["ok"].any()
    assert "printed 'answer 42', the server had answered" in table.loc["system", "reason"]
    assert "requested jemalloc, the linker kept system" in table.loc["jemalloc", "reason"]
    assert table.loc["mimalloc", "reason"].startswith("error[E0308]: mismatched types (src/main.rs:")
    assert err.count("lab: failed: ") >= 3
    assert (REPORTS / name / "report.html").exists() and "report: " in out


@pytest.mark.builds
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_a_lab_that_is_ended_in_the_middle_of_a_build_leaves_nothing_and_goes_on(sign, tiny_run, tiny):
    start, name = tiny_run
    slow = tiny.directory / "build.rs"
    slow.write_text(f'fn main() {{ std::process::Command::new("{SLEEP[0]}").arg("{SLEEP[1]}").status().unwrap(); }}')
    process = start("--bases", "scratch,debian", "--allocators", "system")
    at_once = min(2, client.parallel_builds())
    assert wait_for(lambda: len(_sleeping()) == at_once, 120), "cargo did not come as far as the build script"
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if sign == signal.SIGKILL else 130), out + err
    if sign != signal.SIGKILL:
        assert err.strip() == "lab: interrupted; run the same command to resume"
    # After a kill the kernel tells bake, and bake the engine, which takes a moment.
    assert wait_for(lambda: not _bakes(process.pid) and not _sleeping(), 30)
    assert ours(process.pid) == []
    rows = RUNS / name / "rows.jsonl"
    assert not rows.exists() or all(json.loads(line) for line in rows.read_text().splitlines())

    slow.write_text("fn main() {}")
    again = start("--bases", "scratch,debian", "--allocators", "system")
    _, err = again.communicate(timeout=600)
    assert again.returncode == 1, err  # both are built, and do not do a client's job
    table = cells.cell_table(runs.load(name))
    assert table["binary_sha256"].notna().all() and runs.load(name).broken == ()
    assert work_folders(process.pid) == work_folders(again.pid) == []


def _bakes(pid: int) -> list[str]:
    """The bake commands of a lab that are running."""
    return [command for command in _commands() if " bake " in command and f"{STATE}/work-{pid}-" in command]


def _sleeping() -> list[str]:
    """What the build scripts of these tests sleep by, in containers too."""
    return [command for command in _commands() if command.split() == list(SLEEP)]


def _commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
