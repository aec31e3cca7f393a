"""How starts and loads are measured without an engine: of a server that leaves processes behind, of one that is slow,
and of one that is idle."""

import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rustimg_lab.host.machine import free_port
from rustimg_lab.measure import server, workloads
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.studies import startup, work
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App, Work
from rustimg_lab.paths import PACKAGE

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# A server whose child answers, in a session of its own where it is told so; it ends by itself, whatever is left.
FORKS = f"""
import os, signal, socket, sys, time
if os.fork():
    signal.pause()
if sys.argv[2] == "apart":
    os.setsid()
signal.alarm(20)
time.sleep(0.3)
with socket.create_server(("0.0.0.0", int(sys.argv[1])), reuse_port=True) as listener:
    while True:
        connection, _ = listener.accept()
        with connection:
            if connection.recv(4096):
                connection.sendall({ANSWER!r})
"""


@pytest.fixture(scope="module")
def starter(tmp_path_factory) -> Path:
    if not shutil.which("rustc"):
        pytest.skip("this machine has no rustc")
    program = tmp_path_factory.mktemp("starter") / "starter"
    source = PACKAGE / "measure" / "tools" / "starter.rs"
    subprocess.run(["rustc", "-O", "--edition=2021", "-o", program, source], check=True)
    return program


def starts(starter: Path, count: int, how: str) -> subprocess.CompletedProcess:
    port = free_port()
    command = [starter, f"first-byte:{port}", str(count), "30", sys.executable, "-c", FORKS, str(port), how]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_start_is_of_a_server_that_was_not_there_before(starter):
    done = starts(starter, 3, "together")
    took_ns = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(took_ns) == 3 and min(took_ns) > 0.3e9, done.stderr


@pytest.mark.slow
def test_a_server_that_leaves_a_process_behind_is_told(starter):
    done = starts(starter, 2, "apart")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert done.stderr == "starter: a server of a former start still answers on its port: it leaves processes behind\n"


def calls(starter: Path, times: tuple[int, int], code: int, prints: str, program: str) -> subprocess.CompletedProcess:
    told = ["calls", *map(str, times), "30", str(code), prints, sys.executable, "-c", program]
    return subprocess.run([starter, *told], capture_output=True, text=True)


def test_each_call_is_told_with_its_own_time_and_the_cpu_time_of_all_its_processes(starter):
    used = "import time\nwhile time.process_time() < 0.3: pass\n"
    done = calls(
        starter,
        (1, 1),
        3,
        "",
        f"import os, sys\nif not os.fork():\n exec({used!r})\n os._exit(0)\nos.wait()\nsys.exit(3)",
    )
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and 1 <= len(lines) <= 4, done.stderr
    assert all(took > 0.3e9 and 0.29e9 < cpu < 1.1 * took for took, cpu in lines), lines
    waits = calls(starter, (0, 0), 0, "b", "import time; print('abc'); time.sleep(0.5)")
    ((took, cpu),) = [map(int, line.split()) for line in waits.stdout.splitlines()]  # once, however long it takes
    assert took > 0.5e9 > 2 * cpu


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "print('first'); raise SystemExit('no such thing')",
            "ended with exit status: 1, not with exit code 0; no such thing",
        ),
        ("print('other')", "the program did not print 'first'"),
    ],
)
def test_a_call_that_ends_or_prints_otherwise_than_it_should_is_told(starter, program, said):
    done = calls(starter, (0, 0), 0, "first", program)
    assert done.returncode == 1 and said in done.stderr and not done.stdout


def test_calls_of_which_the_engine_loses_all_lines_are_a_lost_trial(monkeypatch):
    monkeypatch.setattr(work.images, "command_under", lambda image, under: under)
    load = Load(workloads.app_workload(App("a", Path(), "", "a", work=Work(("b",)))), 1, 1, 1, 1, pinned=False)
    treatment = Treatment(matrix.cell("scratch", "optimized", "system"), "", "")
    monkeypatch.setattr(work, "run_in_image", lambda *_, **__: "2000000 1000000\n4000000 2000000\n")
    assert [each.value for each in work.measure(treatment, load, "", {})] == [1e9 * 2 / 6e6, 2, 1500]
    monkeypatch.setattr(work, "run_in_image", lambda *_, **__: "")
    with pytest.raises(FailedTrial, match="the engine has lost what the starter printed"):
        work.measure(treatment, load, "", {})


def test_a_first_answer_may_take_longer_than_a_second_and_is_asked_for_once():
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096))
                time.sleep(1.5)
                connection.sendall(ANSWER)

        threading.Thread(target=serve, daemon=True).start()
        begun = time.monotonic()
        answered, _ = startup.first_byte(listener.getsockname()[1], 10)
    assert answered - begun > 1.5 and len(asked) == 1


@pytest.mark.parametrize(("used_ms", "told_ms"), [([10, 60, 110, 110, 500], 110), ([10, 10, 99], 10), ([None], None)])
def test_a_load_is_counted_from_when_the_server_has_nothing_left_to_do(monkeypatch, used_ms, told_ms):
    looks = iter(used_ms)
    monkeypatch.setattr(server, "cpu_ns", lambda _: (used := next(looks)) and used * 1_000_000)
    assert server.settled_cpu_ns(None) == (told_ms and told_ms * 1_000_000)
    monkeypatch.setattr(server, "SETTLE_S", 0.2)
    busy = iter(range(0, 10**12, 10**7))
    monkeypatch.setattr(server, "cpu_ns", lambda _: next(busy))
    assert server.settled_cpu_ns(None) > 0  # one that is never idle is not waited for without end
