"""The programs that the lab needs beside the engine: where they are, and how they are installed."""

import os
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine, process, system
from rustimg_lab.paths import STATE

BUILDX_MINIMUM = (0, 13)  # the first whose progress a program can read
REMEDIES = {
    "mmdebstrap": "install it (on Debian and Ubuntu: sudo apt-get install mmdebstrap debian-archive-keyring uidmap), "
    "or name an image or an archive for what no registry gives: --base NAME=SOURCE",
    "debian-archive-keyring": "install it (on Debian and Ubuntu: sudo apt-get install debian-archive-keyring; on "
    "Fedora: sudo dnf install debian-keyring), or name an image or an archive: --base NAME=SOURCE",
    "user namespace": "install uidmap and give the user a range of ids (sudo apt-get install uidmap; sudo usermod "
    "--add-subuids 1000000-1065535 --add-subgids 1000000-1065535 USER), call the lab with sudo, or use a registry or "
    "an archive (--registry HOST, --base NAME=SOURCE)",
    "docker-buildx": "install Docker's buildx plugin, 0.13 or newer (package docker-buildx or docker-buildx-plugin)",
    "qemu-user-static": "install QEMU's user emulation (on Debian and Ubuntu: sudo apt-get install qemu-user-static)",
    "chromium": "install Chromium or Chrome (on Debian and Ubuntu: sudo apt-get install chromium)",
    "docker-registry": "install the package docker-registry; without it, there are no sizes as pushed and no deploys",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSERS += tuple(f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium"))
PLUGIN = "usr/libexec/docker/cli-plugins/docker-buildx"


def buildx_command() -> list[str]:
    """Return the command that runs buildx: the lab's own copy where there is one, else the plugin of docker. Raises
    LabError when buildx is missing or too old."""
    plugin = package_folder("docker-buildx") / PLUGIN
    if plugin.exists():
        return [str(plugin)]
    if buildx_version() is None:
        raise LabError(f"the docker client has no buildx (or one older than 0.13); {REMEDIES['docker-buildx']}")
    return ["docker", "buildx"]


def sees_engine(builder: str | None) -> bool:
    """Return whether a buildx builder builds in the engine itself, and so sees its images. Without a name it does.
    Raises LabError, with buildx's message, when there is no such builder."""
    if builder is None:
        return True
    return bool(re.search(r"^Driver: +docker$", process.run([*buildx_command(), "inspect", builder]), re.M))


@cache
def buildx_version() -> str | None:
    """Return the version of the buildx that `buildx_command` runs, as `0.13.1`; None when it is missing or too old."""
    plugin = package_folder("docker-buildx") / PLUGIN
    try:
        output = process.run([str(plugin), "version"] if plugin.exists() else ["docker", "buildx", "version"])
    except LabError:
        return None
    numbers = re.search(r"v?(\d+)\.(\d+)\.\d+", output)
    if not numbers or tuple(map(int, numbers.groups())) < BUILDX_MINIMUM:
        return None
    return numbers.group().lstrip("v")


def buildx_asks_for_entitlements() -> bool:
    """Return whether this buildx has bake's `--allow` (0.17 or newer), without which it prompts the user."""
    return tuple(map(int, buildx_version().split(".")[:2])) >= (0, 17)


def registry_command() -> str | None:
    """Return the path of Debian's `docker-registry`: the lab's own copy, else the system's; None when there is
    neither."""
    path = package_folder("docker-registry") / "usr/bin/docker-registry"
    return str(path) if path.exists() else shutil.which("docker-registry")


def browser() -> str | None:
    """Return the path of Chromium or Chrome; None when there is neither."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def fetch_package(name: str, say: Callable[[str], None], suite: str = "trixie") -> None:
    """Unpack one Debian package below `.lab`, through apt's own signature check; the system stays as it is.

    On Debian 12 and 13 the package is that of a `suite`, from the mirror that the system uses itself. Debian 12 has no
    buildx, and the QEMU of Debian 13 does not vary the size of pages. Raises LabError when apt is missing or refuses.
    """
    if not shutil.which("apt-get"):
        raise LabError(f"{name} is missing; {REMEDIES[name]}")
    with files.locked(STATE / "apt.lock"):
        if not package_folder(name).exists():  # another lab may just have fetched it
            _fetch_package(name, say, suite)


def _fetch_package(name: str, say: Callable[[str], None], suite: str) -> None:
    lists, cache_folder, target = STATE / "apt" / "lists", STATE / "apt" / "cache", package_folder(name)
    for path in (lists / "partial", cache_folder / "archives" / "partial", target.parent):
        path.mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache_folder}", "-o", "Debug::NoLocking=true"]
    if (codename := system.release().get("VERSION_CODENAME")) in ("bookworm", "trixie") and codename != suite:
        sources = STATE / "apt" / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {_debian_mirror(options, codename)} {suite} main\n")
        options += ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-"]

    say(f"{machine.root_prefix()}apt-get update; apt-get download {name}; dpkg-deb --extract (all below {STATE.name}/)")
    process.run(["apt-get", *options, "update"])
    part = target.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    process.run(["apt-get", *options, "download", name], cwd=part)
    archive = next(part.glob("*.deb"))
    process.run(["dpkg-deb", "--extract", str(archive), str(part)])
    archive.unlink()
    part.rename(target)


def install(packages: list[str], say: Callable[[str], None]) -> None:
    """Print the commands that install Debian packages, then run them. Raises LabError when the user is not root, or apt
    is missing or fails."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"{packages[0]} is missing: {REMEDIES[packages[0]]}")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    say(f"{machine.root_prefix()}apt-get update; {shlex.join(command)}")
    with files.locked(STATE / "apt.lock"):
        process.run(["apt-get", "update"])
        process.run(command, env={"DEBIAN_FRONTEND": "noninteractive"})


def user_namespace_refusal() -> str:
    """Return mmdebstrap's reason why it cannot map this user's ids and mount in a user namespace; "" where it can.

    It is tried for real: newuidmap, the ranges of /etc/subuid and /etc/subgid, the kernel, and AppArmor may refuse.
    """
    try:
        process.run(["mmdebstrap", "--unshare-helper", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], cwd=Path("/"))
    except process.CommandError as error:
        return error.stderr.partition("\n")[0].removeprefix("W: ").removeprefix("E: ")
    return ""


def package_folder(package: str) -> Path:
    """Return the folder that `fetch_package` unpacks a package into. It may not exist."""
    return STATE / "packages" / package


def _debian_mirror(options: list[str], codename: str) -> str:
    uris = process.run(["apt-get", *options, "--print-uris", "update"])
    mirror = re.search(rf"'([^']+)/dists/{codename}/(?:In)?Release'", uris)
    if not mirror:
        problem = f"apt names no source for Debian {codename} to take packages of another release from"
        raise LabError(f"{problem}; install what is missing yourself (docker-buildx)")
    return mirror.group(1)
