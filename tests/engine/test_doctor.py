import os
import platform
import shutil
from types import SimpleNamespace

import pytest
from support.lab import NO_ENGINE

from rustimg_lab.engine import client, doctor, emulation
from rustimg_lab.errors import LabError
from rustimg_lab.host import process, system, tools

on_debian = pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt here")


@on_debian
@pytest.mark.slow
def test_buildx_and_the_registry_are_fetched_without_touching_the_system(state):
    """On a new machine: apt itself checks the signatures, and the packages are unpacked below the clone."""
    sources = process.run(["sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null; true"])
    installed = process.run(["dpkg-query", "--show"])
    said = []
    for package in ("docker-buildx", "docker-registry"):
        tools.fetch_package(package, said.append)
    tools.buildx_version.cache_clear()
    assert tools.buildx_version()
    assert tools.buildx_command() == [str(state / "packages" / "docker-buildx" / tools.PLUGIN)]
    assert tools.registry_command().startswith(str(state))
    assert all("apt-get download" in line for line in said) and len(said) == 2  # shown before it is done
    assert process.run(["sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null; true"]) == sources
    assert process.run(["dpkg-query", "--show"]) == installed


@on_debian
def test_a_package_that_no_key_of_debian_has_signed_is_refused(state, monkeypatch):
    if system.release().get("VERSION_CODENAME") != "bookworm":
        pytest.skip("the private source is Debian 12's")
    empty = state / "empty.gpg"
    empty.touch()
    monkeypatch.setattr(tools, "KEYRING", str(empty))
    with pytest.raises(LabError):
        tools.fetch_package("docker-buildx", lambda text: None)
    assert not (state / "packages" / "docker-buildx").exists()


def test_an_emulator_that_its_package_lacks_is_told(state):
    (state / "packages" / emulation.PACKAGE).mkdir(parents=True)
    with pytest.raises(LabError, match=r"lacks qemu-aarch64-static: remove that folder|qemu-user-static is missing"):
        emulation.program("aarch64", pytest.fail)


def test_without_buildx_and_without_apt_one_line_says_what_to_install(state, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert tools.buildx_version() is None
    with pytest.raises(LabError, match="install Docker's buildx plugin"):
        tools.buildx_command()
    with pytest.raises(LabError, match="install Docker's buildx plugin"):
        tools.fetch_package("docker-buildx", lambda text: None)


def test_a_buildx_whose_progress_no_program_can_read_is_none(monkeypatch):
    monkeypatch.setattr(process, "run", lambda args, **options: "github.com/docker/buildx v0.12.1 30feaa1")
    tools.buildx_version.cache_clear()
    assert tools.buildx_version() is None
    tools.buildx_version.cache_clear()


def test_mmdebstrap_is_not_installed_by_a_user_without_privileges(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="mmdebstrap is missing: install it"):
        tools.install(["mmdebstrap"], pytest.fail)


def test_another_architecture_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(client, "connect", lambda: None)
    monkeypatch.setattr(client, "engine_info", lambda: SimpleNamespace(architecture="riscv64"))
    with pytest.raises(LabError, match="riscv64: the lab works on x86_64 and arm64"):
        doctor.prepare(pytest.fail)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")  # as Python under Rosetta says it
    monkeypatch.setattr(client, "engine_info", lambda: SimpleNamespace(architecture="aarch64"))
    with pytest.raises(LabError, match="engine's architecture aarch64: Python here is for x86_64: take an engine on"):
        doctor.prepare(pytest.fail)


def test_the_doctor_finds_a_missing_engine_and_says_what_to_do(lab):
    done = lab("doctor", **NO_ENGINE)
    assert done.returncode == 2
    assert "MISSING" in done.stdout and "systemctl start docker" in " ".join(done.stdout.split())


@pytest.mark.engine
def test_the_doctor_is_content_where_a_run_can_be_made(lab):
    done = lab("doctor")
    assert done.returncode == 0, done.stdout
    for what in (
        "engine",
        "storage driver",
        "cgroup version",
        "docker-buildx",
        "cpu",
        "memory",
        "architecture",
        "disk",
    ):
        assert what in done.stdout
