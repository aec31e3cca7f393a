"""Which system this machine has, and the line that installs a program or starts an engine on it."""

import platform
import shutil
from pathlib import Path

# By manager: its command, and what a program's packages are called. What a manager does not have is not in its table.
_APT = {name: name for name in ("docker-buildx", "docker-registry", "chromium")}
_APT |= {"engine": "docker.io", "mmdebstrap": "mmdebstrap debian-archive-keyring uidmap"}
_DNF = {"engine": "moby-engine", "mmdebstrap": "mmdebstrap debian-keyring"}
_DNF |= {name: name for name in ("docker-buildx", "chromium")}
_PACKAGES = {
    "debian": ("sudo apt-get install", _APT),
    "ubuntu": ("sudo apt-get install", _APT | {"chromium": "chromium-browser"}),
    "fedora": ("sudo dnf install", _DNF),
    "arch": ("sudo pacman -S", {"engine": "docker", "docker-buildx": "docker-buildx", "chromium": "chromium"}),
    "macos": ("brew install", {"engine": "colima docker docker-buildx", "docker-buildx": "docker-buildx"}),
}
# Engines in a virtual machine of their own: a part of the address, the program, the command that starts it on macOS.
_MACHINES = {
    "Docker Desktop": ("/.docker/", "/Applications/Docker.app", "open -a Docker"),
    "Colima": ("/.colima/", "colima", "colima start"),
    "OrbStack": ("/.orbstack/", "/Applications/OrbStack.app", "open -a OrbStack"),
}


def name() -> str:
    """Return the system in words, as `Debian GNU/Linux 12 (bookworm)`, with WSL where Windows runs it."""
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return release().get("PRETTY_NAME", platform.system()) + (" in WSL" if is_wsl() else "")


def is_wsl() -> bool:
    """Return whether this is the Windows Subsystem for Linux, which names Microsoft in its kernel's release."""
    return "microsoft" in platform.release().lower()


def family() -> str:
    """Return debian, ubuntu, fedora, arch or macos: by ID, else ID_LIKE, of os-release(5); "" for another system."""
    if platform.system() == "Darwin":
        return "macos"
    identifiers = [release().get("ID", ""), *release().get("ID_LIKE", "").split()]
    return next((identifier for identifier in identifiers if identifier in _PACKAGES), "")


def install_line(program: str) -> str:
    """Return the command that installs a program here; "" where none is known."""
    command, packages = _PACKAGES.get(family(), ("", {}))
    if family() == "fedora" != release().get("ID"):  # systems like it have neither its engine nor its buildx
        return ""
    return f"{command} {packages[program]}" if program in packages else ""


def engine_product(address: str, system: str) -> str:
    """Return the product that an engine is part of: Docker Desktop, Colima or OrbStack; "" for an engine of the machine
    itself. The engine's address, or the OperatingSystem that it reports, decides."""
    return next((product for product, (part, *_) in _MACHINES.items() if part in address or product == system), "")


def engine_line(address: str) -> str:
    """Return the command that starts an engine here, or that installs one where there is none."""
    product = engine_product(address, "")
    if family() == "macos":
        engines = (label for label, (_, path, _) in _MACHINES.items() if shutil.which(path) or Path("/", path).exists())
        product = product or next(engines, "")
        return _MACHINES[product][2] if product else f"{install_line('engine')} && colima start"
    if is_wsl():
        return "turn on WSL integration in Docker Desktop's settings, or: sudo service docker start"
    return "sudo systemctl start docker" if shutil.which("dockerd") else install_line("engine")


def release() -> dict[str, str]:
    """Return the fields of os-release(5); none where the system has no such file."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
