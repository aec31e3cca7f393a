"""What the tests share: a gate for those that need an engine, and a crate that compiles in seconds."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from support.lab import NO_ENGINE, TINY, WITHOUT_PAGE, work_folders

from rustimg_lab.build import bake, bases, lab_toml, mmdebstrap
from rustimg_lab.engine import client, doctor
from rustimg_lab.engine.images import find_image
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine
from rustimg_lab.host import process as host_process
from rustimg_lab.host import tools as host_tools
from rustimg_lab.model import matrix
from rustimg_lab.model.app import INPUT, App
from rustimg_lab.model.bases import bases_and_builder
from rustimg_lab.paths import REPORTS, ROOT, STATE

# A shell starts what is in the background with SIGINT ignored, and so would be every lab that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LAST_BYTES = 77 << 20  # a memory limit that no other container has


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="the tests of faults alone, each in its full number")
    parser.addoption("--quick", action="store_true", help="the tests that take no engine and no browser, and are fast")
    parser.addoption("--engines", action="store_true", help="the tests on every engine alone; writes docs/engines.md")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--faults"):
        items[:] = [item for item in items if item.get_closest_marker("faults")]
    if config.getoption("--quick"):
        items[:] = [item for item in items if _is_quick(item)]
    every_engine = config.getoption("--engines")
    items[:] = [item for item in items if bool(item.get_closest_marker("engines")) == every_engine]
    # Last, since where they run beside the studies, those have made the base images by then.
    items.sort(key=lambda item: bool(item.get_closest_marker("builds")))


def _is_quick(item: pytest.Item) -> bool:
    """Whether a test takes no notebook, engine, browser or process of the lab, and no seconds."""
    takes = {mark.name for mark in item.iter_markers()} | {*getattr(item, "fixturenames", ["notebook"])}
    return takes.isdisjoint({"engine", "browser", "faults", "slow", "lab", "pageless", "notebook"})


@pytest.fixture(scope="session")
def many(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How many of so many are made: all with `--faults`, else a tenth."""
    return lambda number: number if request.config.getoption("--faults") else number // 10


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and not host_tools.browser():
        if os.environ.get("CI"):
            pytest.fail("CI needs a browser: Chromium or Chrome")
        pytest.skip("no Chromium or Chrome")
    if item.get_closest_marker("engine"):
        try:
            client.connect()
        except LabError as error:
            if os.environ.get("CI"):
                pytest.fail(f"CI needs an engine: {error}")
            pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def least_privilege() -> Iterator[list[dict]]:
    """Looks at every container of this clone's that is made while the tests run, by the lab or by a test: none may ask
    the engine for more than it needs. A last container shows that the watcher saw all until the end."""
    try:
        watcher, seen = client.connect(), []
    except LabError:
        yield []
        return
    label = {"type": "container", "event": "create", "label": f"{client.CONTAINER_LABEL}={client.lab_id()}"}
    events = watcher.events(filters=label, decode=True)

    def watch() -> None:
        for event in events:
            with suppress(docker.errors.APIError):  # it is gone already
                container = (event.get("Actor") or {}).get("ID") or event.get("id")  # which older engines called it
                seen.append(watcher.api.inspect_container(container)["HostConfig"])

    threading.Thread(target=watch, daemon=True).start()
    yield seen
    watcher.api.import_image_from_data(
        b"\0" * 1024, repository=(name := client.repository(f"test-last-{os.getpid()}")), tag="1"
    )
    last = watcher.containers.create(
        f"{name}:1", ["nothing"], labels={client.CONTAINER_LABEL: client.lab_id()}, mem_limit=LAST_BYTES
    )
    deadline = time.monotonic() + 30
    while not any(each["Memory"] == LAST_BYTES for each in seen) and time.monotonic() < deadline:
        time.sleep(0.1)
    last.remove()
    watcher.images.remove(f"{name}:1")
    events.close()
    assert any(each["Memory"] == LAST_BYTES for each in seen), "the watcher of containers saw nothing of the last one"
    for host_config in seen:
        assert not host_config["Privileged"] and not host_config["CapAdd"] and not host_config["Devices"]
        # A volume is the engine's own, named by it, and there to read for all but the container that brings it.
        assert all(re.fullmatch(f"[0-9a-f]{{64}}:{INPUT}:ro", each) for each in host_config["Binds"] or [])
        mounts = [(each["Type"], each.get("Source"), each["Target"]) for each in host_config.get("Mounts") or []]
        assert mounts in ([], [("volume", None, INPUT)]) and not host_config["VolumesFrom"]
        assert host_config["PidMode"] in ("", "private") or host_config["PidMode"].startswith("container:")
        published = [each for ports in (host_config["PortBindings"] or {}).values() for each in ports]
        assert all(each["HostIp"] == "127.0.0.1" for each in published)


@pytest.fixture(scope="session")
def images() -> dict[str, bases.Provenance]:
    """The builder, and every base that can be had without a registry, by name."""
    doctor.prepare(print)
    names = [name for name, base in bases_and_builder().items() if base.packages]
    return {name: bases.resolve(name, bases.Sources(), print, machine.ca_bundle()) for name in names}


@pytest.fixture(scope="session")
def tools(images: dict) -> str:
    """The image of what measures."""
    return mmdebstrap.make_tools("tools", images["debian"].image, images["rust"].image, print, machine.ca_bundle()).id


@pytest.fixture
def tiny(tmp_path: Path) -> App:
    """A copy of the tiny crate with a lockfile of its own, and so with a target directory that nothing was built in.

    Its program is one of its own too: of two equal ones BuildKit may take the layer of either, and so its time."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY, folder)
    with (folder / "Cargo.lock").open("a") as lock:
        lock.write(f"# {uuid.uuid4()}\n")
    with (folder / "src" / "main.rs").open("a") as program:
        program.write(f'\n#[used]\nstatic TEST: [u8; 32] = *b"{uuid.uuid4().hex}";\n')
    return lab_toml.load(folder)


@pytest.fixture
def builds(images: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bake.Built]]:
    """Builds cells of an app; the images, which have names of their own, are removed afterwards. Logs lie in
    `tmp_path / "logs"`."""
    word, usual = uuid.uuid4().hex[:8], bake.image_tag
    monkeypatch.setattr(bake, "image_tag", lambda *about: usual(*about).replace(":", f"-{word}:"))
    made: list[str] = []
    calls: list[Path] = []

    def run(cells: list[matrix.Cell], app: App, **options: object) -> list[bake.Built]:
        app = replace(app, lock_sha256=lab_toml.load(app.directory).lock_sha256)  # a test may have changed it
        work = tmp_path / f"work{len(calls)}"
        calls.append(work)
        work.mkdir()
        (tmp_path / "logs").mkdir(exist_ok=True)
        options = {"images": images, "ca": machine.ca_bundle()} | options
        made.extend(bake.image_tag(cell, app) for cell in cells)
        return list(bake.build(cells, bake.BuildContext(app, logs=tmp_path / "logs", work=work, **options)))

    yield run
    for tag in dict.fromkeys(made):
        if find_image(tag):
            client.connect().images.remove(tag)


@pytest.fixture(scope="session")
def lab() -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command line as a user does."""
    return partial(_call, ("-m", "rustimg_lab"))


@pytest.fixture(scope="session")
def pageless() -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command line without the page at the end, for tests that look at none."""
    return partial(_call, ("-c", WITHOUT_PAGE))


@pytest.fixture(scope="session")
def recorded_page(lab: Callable) -> Path:
    """The page of all recorded runs, as the command line makes it without an engine: it takes minutes of a CPU."""
    done = lab("report", "recorded", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("report: reports/recorded/report.html\n")
    return REPORTS / "recorded" / "report.html"


def _call(lab: tuple[str, str], *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Also asserts that no file is left of the call, however it ends."""
    command = [sys.executable, *lab, *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=3000)
    finally:
        process.kill()  # where the time is over
    assert work_folders(process.pid) == []
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for tools that is empty, as on a new machine."""
    for module in (host_tools, client, host_process):
        monkeypatch.setattr(module, "STATE", tmp_path / STATE.name)
    (tmp_path / STATE.name).mkdir()
    host_tools.buildx_version.cache_clear()
    yield tmp_path / STATE.name
    host_tools.buildx_version.cache_clear()


@pytest.fixture
def tmpfs(tmp_path: Path) -> Callable[[str, int], Path]:
    """Mounts a small disk of so many megabytes."""
    mounted: list[Path] = []

    def mount(name: str, size_mb: int) -> Path:
        path = tmp_path / name
        path.mkdir()
        host_process.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(path)])
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        host_process.run(["umount", "--lazy", str(path)])


@pytest.fixture
def small_engine(tmpfs, tmp_path, monkeypatch) -> SimpleNamespace:
    """A second engine: `start` starts it on a disk of so many megabytes, with the settings of a daemon.json, makes it
    the lab's, and returns its data folder; `kill` ends it at once, `again` starts it on what it had.

    It has a network namespace, a bridge, a socket and folders of its own: the machine's engine never notices.
    """
    namespace = f"rustimg-lab-{os.getpid()}"
    processes, command, socket = [], [], tmp_path / "engine.sock"

    def start(size_mb: int, driver: str = "", settings: str = "{}") -> Path:
        data = tmpfs("engine", size_mb)
        (tmp_path / "engine.json").write_text(settings)
        host_process.run(["ip", "netns", "add", namespace])
        host_process.run(["ip", "netns", "exec", namespace, "ip", "link", "set", "lo", "up"])
        command[:] = [
            "nsenter", f"--net=/run/netns/{namespace}", "dockerd", "--config-file", tmp_path / "engine.json",
            "--data-root", data, "--exec-root", tmp_path / "exec", "--pidfile", tmp_path / "engine.pid",
            "--host", f"unix://{socket}", "--iptables=false", "--ip6tables=false",
            "--storage-driver", driver or client.connect().info()["Driver"],
        ]  # fmt: skip
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
        again()
        assert client.connect().info()["DockerRootDir"] == str(data), (tmp_path / "engine.log").read_text()
        return data

    def again() -> None:
        with (tmp_path / "engine.log").open("a") as log:
            processes.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log))
        client.connect.cache_clear()
        for _ in range(300):
            try:
                client.connect()
                return
            except LabError:
                time.sleep(0.1)
        raise AssertionError((tmp_path / "engine.log").read_text())

    def kill() -> None:
        processes[-1].kill()
        processes[-1].wait()
        # Its containerd ends with it, but not at once; the next engine would take it for one that is there to stay.
        (tmp_path / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    yield SimpleNamespace(start=start, kill=kill, again=again)
    for process in processes:
        process.terminate()
        process.wait(60)
    # What held a container when its engine was killed outlives both.
    subprocess.run(["pkill", "--full", f"containerd-shim.*{tmp_path}/exec"])
    # And what held the network of a build that failed.
    for place in (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()):
        if Path(place).is_relative_to(tmp_path / "exec"):
            host_process.run(["umount", place])
    if processes:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)
    monkeypatch.undo()
    client.connect.cache_clear()
