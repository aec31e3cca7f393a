"""What the engine can do is tried, on the machine's engine and on the same one with faults in front of it."""

import json
import os
import platform
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from support.engine_proxy import Proxy, pump
from support.lab import as_root, ours

from rustimg_lab.engine import capabilities, containers, doctor
from rustimg_lab.engine import client as engine_client
from rustimg_lab.engine.capabilities import Capabilities
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine, process
from rustimg_lab.paths import ROOT
from rustimg_lab.store import runs

pytestmark = pytest.mark.engine
Edit = Callable[[bytes], bytes]


class Between(Proxy):
    """Changes what is sent to the engine (`request`) and what it answers (`answer`, at addresses that match `at`);
    counts the containers that it was told to make. Edits keep the length."""

    request: Edit = staticmethod(lambda sent: sent)
    answer: Edit = staticmethod(lambda received: received)
    at, refused, made = "nothing", b"nothing", 0

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.socket(socket.AF_UNIX) as upstream:
            head, _, body = _until(client, b"\r\n\r\n").partition(b"\r\n\r\n")
            length = re.search(rb"^content-length: (\d+)", head, re.IGNORECASE | re.MULTILINE)
            while len(body) < int(length[1] if length else 0):
                body += client.recv(1 << 16)
            address = head.partition(b"\r\n")[0].decode()
            self.made += "/containers/create" in address
            if self.refused in body:
                message = b'{"message": "not on this engine"}'
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
                               b"Content-Length: %d\r\n\r\n%b" % (len(message), message))  # fmt: skip
                return
            upstream.connect(self._engine)
            upstream.sendall(head + b"\r\nConnection: close\r\n\r\n" + self.request(body))
            if not re.search(self.at, address):
                return pump(upstream, client)
            client.sendall(self.answer(b"".join(iter(lambda: upstream.recv(1 << 16), b""))))


def _until(source: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data and (more := source.recv(1 << 16)):
        data += more
    return data


def edit(pattern: bytes, new: Callable[[bytes], bytes]) -> Edit:
    """Puts what `new` makes of the group in its place, filled up with spaces, which JSON allows."""

    def changed(data: bytes) -> bytes:
        return re.sub(pattern, lambda match: match[1] + new(match[2]).ljust(len(match[2])), data)

    return changed


def total_usage(new: Callable[[int], int]) -> Edit:
    return edit(rb'("total_usage":)(\d+)', lambda digits: b"%d" % new(int(digits)))


@pytest.fixture
def image(images) -> str:
    return images["debian"].image


@pytest.fixture
def own_state(tmp_path, monkeypatch) -> Path:
    """A lab that has tried no engine yet."""
    monkeypatch.setattr(capabilities, "STATE", tmp_path)
    capabilities._detect.cache_clear()
    yield tmp_path
    capabilities._detect.cache_clear()


@pytest.fixture
def between(own_state, tmp_path, monkeypatch) -> Iterator[Between]:
    proxy = Between(tmp_path / "between.sock")
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    engine_client.connect.cache_clear()
    yield proxy
    proxy.close()
    monkeypatch.undo()
    engine_client.connect.cache_clear()


@pytest.fixture(scope="module")
def here(images, tmp_path_factory) -> Capabilities:
    """What the machine's engine can do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capabilities, "STATE", tmp_path_factory.mktemp("state"))
        capabilities._detect.cache_clear()
        return capabilities.detect(images["debian"].image)


def prints(image: str, *command: str, **options: object) -> str:
    container = containers.create_container(
        image, command=list(command), network_mode="none", mem_limit="64m", **options
    )
    try:
        container.start()
        container.wait(timeout=60)
        return container.logs().decode().strip()
    finally:
        containers.remove_container(container)


def test_what_is_detected_holds_by_other_means(here, image):
    """`nproc`, the engine's own words, and that the lab's studies use the host's network on this engine."""
    info, version = engine_client.connect().info(), engine_client.connect().version()
    assert (here.engine, here.api) == (info["ServerVersion"], version["ApiVersion"])
    assert (here.image_store == "containerd") == ("io.containerd" in str(info.get("DriverStatus")))
    assert here.limits_cpus == (bool(info.get("CPUSet")) and prints(image, "nproc", cpuset_cpus="0") == "1")
    assert here.cpus == int(prints(image, "nproc"))
    memory, swap = bool(info.get("MemoryLimit")), bool(info.get("SwapLimit"))
    assert (here.limits_memory, here.limits_swap) == (memory, memory and swap)
    assert here.architecture == platform.machine() and here.cgroup == info.get("CgroupVersion", "unknown")
    assert here.counts_cpu == (info.get("CgroupDriver") != "none")
    if info["Name"] == platform.node() and not here.rootless:
        assert here.same_kernel and here.host_network and here.publishes_here
    assert not ours()


@pytest.mark.parametrize(("request_edit", "answer_edit", "refused", "differs"), [
    (edit(rb'("CpusetCpus": )("0")', lambda _: b'"1"'), edit(rb'("CpusetCpus":)("1")', lambda _: b'"0"'), None,
     {"limits_cpus": False}),
    (None, None, b'"CpusetCpus": "0"', {"limits_cpus": False}),
    (edit(rb'("Memory(?:Swap)?": )(\d+)', lambda _: b"0"), None, None, {"limits_memory": False, "limits_swap": False}),
    (None, None, b'"MemorySwap": 33554432', {"limits_memory": False, "limits_swap": False}),
    (None, None, b'"Memory": ', {"limits_memory": False, "limits_swap": False}),
    (None, None, b'"NetworkMode": "host"', {"host_network": False}),
    (None, None, b'"HostIp": "127.0.0.1"', {"publishes_here": False}),
    (None, total_usage(lambda ns: 0), None, {"counts_cpu": False}),
    (None, total_usage(lambda ns: 9 * ns), None, {"counts_cpu": False}),
    (None, total_usage(lambda ns: int(0.85 * ns)), None, {"counts_cpu": False}),
    (None, total_usage(lambda ns: int(1.15 * ns)), None, {"counts_cpu": False}),
], ids=["cpuset ignored", "cpuset refused", "memory ignored", "swap refused", "memory refused", "host network refused",
        "ports refused", "no CPU time", "the machine's CPU time", "15% less", "15% more"])  # fmt: skip
def test_one_fault_of_the_engine_is_one_difference(here, between, image, request_edit, answer_edit, refused, differs):
    """A limit that is accepted and ignored, an option that is refused, CPU time that is wrong: each is seen, and
    nothing else changes."""
    between.request = request_edit or between.request
    between.refused = refused or between.refused
    between.at, between.answer = "/stats|/json", answer_edit or between.answer
    assert capabilities.detect(image) == replace(here, **differs)
    assert not ours()


def test_swap_that_is_not_limited_is_seen_although_memory_is(here, between, image):
    between.request = edit(rb'("MemorySwap": )(33554432)', lambda _: b"-1")
    found = capabilities.detect(image)
    assert not found.limits_swap
    if re.search(r"^SwapTotal: +0 kB", Path("/proc/meminfo").read_text(), re.MULTILINE):
        assert found.limits_memory == here.limits_memory  # with swap it need not be killed


def test_another_program_at_the_published_port_is_not_the_container(here, between, image):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = b'"%d"' % other.getsockname()[1]
        between.at, between.answer = "/json", edit(rb'("HostPort":)("\d+")', lambda _: port)
        threading.Thread(target=_greet, args=(other,), daemon=True).start()
        assert capabilities.detect(image) == replace(here, publishes_here=False)


def _greet(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(b"x" * 32)


@pytest.mark.parametrize("boot", ["", "2f0c1a6e-0000-4000-8000-000000000000"], ids=["no /proc", "another kernel"])
def test_an_engine_in_another_kernel_is_seen(here, own_state, image, monkeypatch, boot):
    monkeypatch.setattr(capabilities, "_boot_and_network", lambda: (boot, ""))
    assert capabilities.detect(image) == replace(here, same_kernel=False)


SCRIPT = """
import json, sys
from pathlib import Path
from rustimg_lab.engine import capabilities
capabilities.STATE = Path(sys.argv[1])
print(json.dumps(vars(capabilities.detect(sys.argv[2]))))
"""


@as_root
def test_a_loopback_that_is_not_the_engines_is_seen(here, image, tmp_path):
    """The lab in a network namespace of its own, which reaches the engine through its socket alone."""
    command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", SCRIPT]
    outside = json.loads(process.run([*command, str(tmp_path), image], cwd=ROOT))
    assert outside == asdict(replace(here, host_network=False, publishes_here=False))
    inside = json.loads(process.run([sys.executable, "-c", SCRIPT, str(tmp_path), image], cwd=ROOT))
    assert inside == asdict(here), "what one namespace has found is not for another"


def test_a_second_call_makes_no_container_and_another_engine_is_tried_itself(here, between, own_state, image):
    assert capabilities.detect(image) == capabilities.detect(image) == here
    assert between.made == 3
    capabilities._detect.cache_clear()  # as in another process
    assert capabilities.detect(image) == here
    assert between.made == 3

    between.at, between.answer = "/info", edit(rb'("ID":")([^"]+)', lambda old: old[::-1])
    between.refused = b'"NetworkMode": "host"'
    capabilities._detect.cache_clear()
    assert capabilities.detect(image) == replace(here, host_network=False)
    made = between.made
    assert made > 6

    between.at, between.refused = "nothing", b"nothing"
    capabilities._detect.cache_clear()
    assert capabilities.detect(image) == here
    assert between.made == made, "the first engine's are still known"


@pytest.mark.parametrize("text", ["", "[]", "null", '{"x', "7", "\xff"])
def test_a_cache_that_cannot_be_read_is_made_anew(here, own_state, image, monkeypatch, text):
    monkeypatch.setattr(capabilities, "_try", lambda image, info: here)
    (own_state / "capabilities.json").write_text(text, encoding="latin-1")
    assert capabilities.detect(image) == here
    capabilities._detect.cache_clear()
    assert [*json.loads((own_state / "capabilities.json").read_text()).values()] == [asdict(here)]


def test_an_older_labs_cache_lacks_a_field_and_is_not_used(here, between, own_state, image):
    capabilities.detect(image)
    path = own_state / "capabilities.json"
    entries = json.loads(path.read_text())
    for entry in entries.values():
        del entry["counts_cpu"]
    path.write_text(json.dumps(entries))
    capabilities._detect.cache_clear()
    assert capabilities.detect(image) == here
    assert between.made == 6


def test_an_image_that_no_trial_can_be_made_with_is_one_line(own_state, images):
    for name in (images["alpine"].image, "rustimg-lab-no-such-image:1"):  # the first has no perl
        with pytest.raises(LabError, match="the engine starts no container of") as error:
            capabilities.detect(name)
        assert "\n" not in str(error.value) and name in str(error.value)
    assert not (own_state / "capabilities.json").exists() and not ours()


def test_each_capability_that_is_missing_costs_something(here):
    able = {each.name: True for each in fields(here) if each.type is bool} | {"rootless": False}
    everything = replace(here, **able)
    assert [loss for _, _, loss in capabilities.ability_lines(everything) if loss] == []
    for name in set(able) - {"rootless", "same_kernel", "publishes_here"}:
        losses = [loss for _, _, loss in capabilities.ability_lines(replace(everything, **{name: False})) if loss]
        assert len(losses) == 1, name
    unreached = capabilities.ability_lines(replace(everything, host_network=False, publishes_here=False))
    assert "a container takes to start" in str(unreached) and "--study deploy" in str(unreached)
    assert "a container takes to start" not in str(
        capabilities.ability_lines(replace(everything, publishes_here=False))
    )


def test_the_doctor_lists_what_the_engine_can_do(here, between, image, own_state):
    found = {each.name: each for each in doctor.findings()}
    for name, seen, loss in capabilities.ability_lines(here):
        assert (found[name].state, found[name].ok, found[name].required) == (seen, not loss, False)
    between.at, between.answer = "/stats", total_usage(lambda ns: 0)
    capabilities._detect.cache_clear()
    (own_state / "capabilities.json").unlink()
    (line,) = [each for each in doctor.findings() if each.name == "CPU accounting"]
    assert (line.mark, line.remedy) == ("note", "CPU time per request is not measured")


def test_the_doctor_makes_no_container_where_the_lab_has_no_image_yet(between, monkeypatch):
    monkeypatch.setattr(engine_client, "repository", lambda name: f"rustimg-lab-none/{name}")
    (line,) = [each for each in doctor.findings() if "capabilities" in each.name]
    assert line.ok and "not tried yet" in line.state and between.made == 0


def test_the_doctor_says_why_the_engine_could_not_be_tried(between):
    between.refused = b'"Image": '
    (line,) = [each for each in doctor.findings() if "capabilities" in each.name]
    assert line.mark == "note" and "not on this engine" in line.remedy and "\n" not in line.remedy


def test_a_machine_is_the_engines_where_that_is_another(between):
    usual, between.at = engine_client.machine(), "/info"
    assert (usual["cpus"], usual["cpu_model"]) == (machine.cpus(), machine.cpu_model())
    between.answer = edit(rb'("(?:KernelVersion|Architecture)":|"NCPU":)("[^"]+"|\d+)',
                          lambda old: b'"arm64"' if old.startswith(b'"') else b"7")  # fmt: skip
    elsewhere = engine_client.machine()
    assert elsewhere == usual | {"kernel": "arm64", "architecture": "aarch64", "cpus": 7, "cpu_model": "unknown"}
    between.answer = edit(
        rb'("MemTotal":)(\d+)', lambda old: b"%d" % (3 << 30)
    )  # the same release on a smaller machine
    assert engine_client.machine() == usual | {"memory_gib": 3, "cpu_model": "unknown"}


def test_the_cpu_is_described_without_linux(monkeypatch):
    """As on macOS: no affinity of a process, no /proc."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(machine, "Path", lambda path: Path("/nonexistent") / path.lstrip("/"))
    assert machine.cpus() == os.cpu_count() and machine.cpu_model() == "unknown"


def test_on_macos_the_cpu_is_the_systems_and_the_engines_in_its_virtual_machine_too(monkeypatch, tmp_path):
    (tmp_path / "sysctl").write_text('#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple M4"\n')
    (tmp_path / "sysctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(engine_client, "_is_here", lambda about: False)
    assert engine_client.machine()["cpu_model"] == machine.cpu_model() == "Apple M4"
    monkeypatch.setattr(engine_client, "engine_address", lambda: "ssh://builder")
    assert engine_client.machine()["cpu_model"] == "unknown"


def test_an_engine_behind_ssh_on_a_machine_that_is_like_this_one_is_not_here(monkeypatch):
    about = engine_client.engine_info()
    assert engine_client._is_here(about)
    for address, here in (("ssh://me@localhost:22", True), ("ssh://me@builder.example", False)):
        monkeypatch.setattr(engine_client, "engine_address", lambda address=address: address)
        assert engine_client._is_here(about) == here


def test_capabilities_stand_in_the_environment_of_a_run(here, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {"kernel": "6"}) as run:
        run.save_environment(images={}, capabilities=asdict(here))
    assert Capabilities(**runs.load("a").environment.capabilities) == here
    path = tmp_path / "a" / "environment.json"
    path.write_text(path.read_text().replace('"counts_cpu": true', '"counts_cpu": []'))
    with pytest.raises(LabError, match="capabilities"):
        runs.load("a")
