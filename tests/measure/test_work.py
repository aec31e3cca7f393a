"""A command-line program at work: real calls of it in its image, with its input in a volume."""

import shutil
import uuid

import pytest
from support.lab import TINY, forget, forget_images, ours

from rustimg_lab.analysis import closed_loop, comparison, scaling
from rustimg_lab.engine import client
from rustimg_lab.model import metrics
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
# Each of its threads uses 20 ms of CPU time, however busy the machine is: 3 is Linux's CLOCK_THREAD_CPUTIME_ID. The
# program tells how many files it finds, and whether it can make one.
SOURCE = """
extern "C" { fn clock_gettime(clock: i32, at: *mut [i64; 2]) -> i32; }
fn main() {
    let Some(threads) = std::env::args().nth(1) else { return };
    let work = || {
        let (mut used, mut number) = ([0i64; 2], 1u64);
        while used[0] == 0 && used[1] < 20_000_000 {
            unsafe { clock_gettime(3, &mut used) };
            number = std::hint::black_box(number.wrapping_mul(31));
        }
    };
    let threads: Vec<_> = (0..threads.parse().unwrap()).map(|_| std::thread::spawn(work)).collect();
    threads.into_iter().for_each(|each| each.join().unwrap());
    let files = std::fs::read_dir("/input/below").unwrap().count();
    println!("{} files, {}", itoa::Buffer::new().format(files), std::fs::write("/input/new", "").is_ok());
}
"""
LAB_TOML = 'binary = "tiny"\n[work]\narguments = ["{workers}"]\ninput = "data"\nprints = "3 files, false"\n'


@pytest.fixture
def program(tmp_path):
    """The folder of a crate with such a program and its input, and the name of its run, which goes afterwards."""
    folder, name = shutil.copytree(TINY, tmp_path / "crate"), f"test-{uuid.uuid4().hex[:8]}"
    (folder / "src" / "main.rs").write_text(SOURCE)
    (folder / "lab.toml").write_text(LAB_TOML)
    (folder / "data" / "below").mkdir(parents=True)
    for number in range(3):
        (folder / "data" / "below" / f"{number}.txt").write_text(str(number))
    yield folder, name
    forget(name)
    forget_images("tiny")


def _left_behind() -> set[str]:
    """The engine's volumes that no container has."""
    return {each.id for each in client.connect().volumes.list(filters={"dangling": True})}


def test_calls_are_measured_by_the_number_of_threads_and_leave_nothing_behind(pageless, program):
    folder, name = program
    volumes = _left_behind()
    command = ["measure", "--app", str(folder), "--run", name, "--bases", "scratch", "--profiles", "baseline"]
    command += ["--allocators", "system", "--blocks", "3", "--seconds", "1", "--workers", "1,2"]
    done = pageless(*command)
    assert done.returncode == 0, done.stderr
    run = runs.load(name)
    assert run.rows["ok"].all() and list(run.environment.studies) == [f"throughput-own-{n}w-1c" for n in (1, 2)]
    for threads in (1, 2):
        study = f"throughput-own-{threads}w-1c"
        cpu_us, rate = (
            comparison.samples(run, study, each)["value"]
            for each in (metrics.CPU_US_PER_REQUEST, metrics.REQUESTS_PER_S)
        )
        assert len(cpu_us) == 3 * 2 and cpu_us.median() > 0.95 * threads * 20_000
        assert (cpu_us * rate < 1.05e6 * threads).all() and (rate < 50).all()
        assert closed_loop.cpu_use(run, study).empty
    assert list(scaling.speed_up(run, "own", 1)["pairs"]) == [3, 3]
    assert not ours() and _left_behind() <= volumes

    (folder / "data" / "below" / "0.txt").write_text("other")
    done = pageless(*command)
    assert done.returncode == 2 and "was begun otherwise (input_sha256 " in done.stderr


def test_a_call_that_prints_something_else_is_a_trial_without_a_number(pageless, program):
    folder, name = program
    (folder / "data" / "below" / "0.txt").unlink()
    done = pageless(
        "measure", "--app", str(folder), "--run", name, "--bases", "scratch", "--profiles", "baseline",
        "--allocators", "system", "--blocks", "1", "--workers", "1",
    )  # fmt: skip
    assert done.returncode == 1 and "the program did not print '3 files, false'" in done.stderr + done.stdout
