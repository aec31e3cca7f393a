"""The line that installs a program here, and on systems that this is not: by their own os-release files."""

import platform
import shutil
from pathlib import Path

import pytest

from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host import system

# As the systems have it: the fields that count.
OTHERS = {
    "ubuntu": ('ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n', "sudo apt-get install docker.io"),
    "mint": ('ID=linuxmint\nID_LIKE="ubuntu debian"\nPRETTY_NAME="Linux Mint 22"\n', "sudo apt-get install docker.io"),
    "fedora": ('ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n', "sudo dnf install moby-engine"),
    "rocky": (
        'ID="rocky"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="Rocky Linux 9.4"\n',
        "",  # it has no moby-engine, which is Fedora's
    ),
    "arch": ('ID=arch\nPRETTY_NAME="Arch Linux"\n', "sudo pacman -S docker"),
    "manjaro": ('ID=manjaro\nID_LIKE=arch\nPRETTY_NAME="Manjaro Linux"\n', "sudo pacman -S docker"),
    "nixos": ('ID=nixos\nPRETTY_NAME="NixOS 24.05"\n', ""),
}


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Puts another os-release in the place of this machine's; None: there is none."""

    def put(text: str | None) -> None:
        if text is not None:
            (tmp_path / "os-release").write_text(text)
        monkeypatch.setattr(platform, "_os_release_candidates", (str(tmp_path / "os-release"),))
        monkeypatch.setattr(platform, "_os_release_cache", None)

    return put


def test_this_machine_is_named_as_it_names_itself():
    if not Path("/etc/os-release").exists():
        pytest.skip("no os-release here")
    pretty = platform.freedesktop_os_release()["PRETTY_NAME"]
    assert system.name().startswith(pretty)
    if shutil.which("apt-get"):
        assert system.family() in ("debian", "ubuntu") and system.install_line("mmdebstrap").startswith("sudo apt-get")


@pytest.mark.parametrize("name", OTHERS)
def test_the_line_fits_the_system_or_the_one_that_it_is_like(release, monkeypatch, name):
    text, line = OTHERS[name]
    release(text)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert system.install_line("engine") == system.engine_line("unix:///var/run/docker.sock") == line
    assert system.install_line("no such program") == ""
    assert system.name() in text


def test_an_engine_that_does_not_answer_is_started_as_the_system_starts_it(release, monkeypatch):
    release(OTHERS["ubuntu"][0])
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    for kernel, line in (("6.1.0", "systemctl start docker"), ("5.15-microsoft-standard-WSL2", "WSL integration")):
        monkeypatch.setattr(platform, "release", lambda kernel=kernel: kernel)
        client.connect.cache_clear()
        with pytest.raises(LabError, match=line):
            client.connect()
    client.connect.cache_clear()


def test_a_system_without_a_name_gets_no_line(release):
    release(None)
    assert system.family() == system.install_line("engine") == "" and system.name() == platform.system()


def test_wsl_is_told_by_its_kernel(release, monkeypatch):
    release(OTHERS["ubuntu"][0])
    monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    assert system.name() == "Ubuntu 24.04.1 LTS in WSL"
    assert "WSL integration" in system.engine_line("unix:///var/run/docker.sock")


def test_on_macos_the_product_that_is_there_is_started_and_else_one_is_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "x86_64"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.name() == "macOS 15.1"
    line = system.engine_line
    assert line("unix:///Users/me/.colima/default/docker.sock") == "colima start"
    assert line("unix:///Users/me/.orbstack/run/docker.sock") == "open -a OrbStack"
    assert line("unix:///Users/me/.docker/run/docker.sock") == "open -a Docker"
    assert line("unix:///var/run/docker.sock") == "brew install colima docker docker-buildx && colima start"
    (tmp_path / "colima").touch(0o755)
    assert line("unix:///var/run/docker.sock") == "colima start"


def test_an_engine_in_a_virtual_machine_is_told_by_its_address_or_by_what_it_reports():
    assert system.engine_product("unix:///var/run/docker.sock", "Docker Desktop") == "Docker Desktop"
    assert system.engine_product("unix:///Users/me/.colima/default/docker.sock", "Ubuntu 24.04.1 LTS") == "Colima"
    assert system.engine_product("unix:///var/run/docker.sock", "OrbStack") == "OrbStack"
    assert system.engine_product("unix:///var/run/docker.sock", "Debian GNU/Linux 12 (bookworm)") == ""
