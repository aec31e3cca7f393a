"""Docker's JSON is read in one place, and what an engine leaves out is an empty value there."""

import re

import pytest

from rustimg_lab.engine import client, inspection
from rustimg_lab.paths import ROOT


@pytest.mark.parametrize("given", [{}, {"Config": None, "RootFS": None, "RepoTags": None}, {"Config": {}}])
def test_an_image_of_which_nothing_is_told_has_empty_values(given):
    found = inspection.image(given)
    assert (found.command, found.user, found.labels, found.layers, found.names) == ((), "", {}, (), ())


@pytest.mark.parametrize("given", [{}, {"DriverStatus": None, "SecurityOptions": None, "MemoryLimit": None}])
def test_an_engine_that_tells_nothing_is_taken_for_none_that_can(given):
    found = inspection.engine(given)
    assert not found.keeps_in_containerd and not found.rootless and not found.limits_memory
    assert found.version == "unknown" and found.driver_status == {}


def test_what_containers_and_stats_leave_out_is_empty():
    assert not inspection.is_out_of_memory({}) and inspection.cpuset({}) == ""
    assert inspection.cpu_ns({}) is None and inspection.cpu_ns({"cpu_stats": {"cpu_usage": None}}) is None
    assert inspection.published_port({"NetworkSettings": {"Ports": {"8080/tcp": None}}}, "8080/tcp") == 0


@pytest.mark.engine
def test_the_engine_here_tells_what_it_is():
    about = client.engine_info()
    assert about.version != "unknown" and about.cpus >= 1 and about.memory_bytes > 1 << 20
    assert about.architecture in ("x86_64", "aarch64")


def test_no_other_module_reads_dockers_json():
    """By the names of its fields, which begin with a capital letter, and by how its answers come."""
    pattern = re.compile(
        r'(\.info\(\)|\.attrs|\.version\(\))(\["|\.get\(")[A-Z]|"(RootFS|State|HostConfig|DriverStatus)"'
    )
    places = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "rustimg_lab").rglob("*.py"))
        for line in path.read_text().splitlines()
        if pattern.search(line) and path.name != "inspection.py"
    ]
    assert places == []


def test_what_an_image_runs_is_its_entry_point_and_the_arguments_of_that():
    """An image of an earlier lab has a command alone."""

    def command(**config: list[str]) -> tuple[str, ...]:
        return inspection.image({"Config": config}).command

    assert command(Cmd=["/a", "b"]) == command(Entrypoint=["/a"], Cmd=["b"]) == ("/a", "b")
    assert command(Entrypoint=["/tini", "--", "/a"], Cmd=None) == ("/tini", "--", "/a")
