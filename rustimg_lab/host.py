"""What this machine has, what it lacks, and how it gets that: `lab doctor`, and the set-up that a run begins with."""

import os
import platform
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from rustimg_lab import capabilities, disk, engine, inspection, podman
from rustimg_lab.errors import LabError
from rustimg_lab.paths import ROOT, STATE

BUILDX_MINIMUM = (0, 13)  # the first whose progress a program can read
MEMORY_PER_BUILD_BYTES = 2 << 30
REMEDIES = {
    "mmdebstrap": "install it (on Debian and Ubuntu: sudo apt-get install mmdebstrap debian-archive-keyring uidmap), "
    "or name an image or an archive for what no registry gives: --base NAME=SOURCE",
    "debian-archive-keyring": "install it (on Debian and Ubuntu: sudo apt-get install debian-archive-keyring; on "
    "Fedora: sudo dnf install debian-keyring), or name an image or an archive: --base NAME=SOURCE",
    "user namespace": "install uidmap and give the user a range of ids (sudo apt-get install uidmap; sudo usermod "
    "--add-subuids 1000000-1065535 --add-subgids 1000000-1065535 USER), call the lab with sudo, or use a registry or "
    "an archive (--registry HOST, --base NAME=SOURCE)",
    "docker-buildx": "install Docker's buildx plugin, 0.13 or newer (package docker-buildx or docker-buildx-plugin)",
    "chromium": "install Chromium or Chrome (on Debian and Ubuntu: sudo apt-get install chromium)",
    "docker-registry": "install the package docker-registry; without it, there are no sizes as pushed and no deploys",
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLUGIN = "usr/libexec/docker/cli-plugins/docker-buildx"


@dataclass(frozen=True)
class Finding:
    """One line of `lab doctor`. What is missing and `required` stops a run."""

    name: str
    found: str
    ok: bool
    remedy: str = ""
    required: bool = True

    @property
    def mark(self) -> str:
        return "ok" if self.ok else "MISSING" if self.required else "note"


def findings() -> list[Finding]:
    """Everything that a run depends on, found or missing. Never raises: what cannot be asked is a finding."""
    memory, free = memory_bytes(), shutil.disk_usage(ROOT).free
    return [
        Finding("python", platform.python_version(), sys.version_info >= (3, 11), remedy="the lab needs 3.11"),
        _architecture(),
        *_engine(),
        _builder(),
        _mmdebstrap(),
        _tool("docker-registry", registry_command() and "found", optional=True),
        Finding("browser", browser() or "none: no PDF of a report", True),
        Finding("cpu", f"{cpus()} of {cpu_model()}", True),
        Finding("memory", f"{memory / 2**30:.1f} GiB", memory >= MEMORY_PER_BUILD_BYTES,
                remedy="an optimized build takes up to 2 GiB"),
        Finding("disk", f"{free / 2**30:.0f} GiB free", free >= disk.GRID_BYTES, required=False,
                remedy="builder, images and build cache take about 10 GiB"),
    ]  # fmt: skip


def prepare(say: Callable[[str], None]) -> None:
    """Installs what the system lacks for a run, and says first what it does as root.

    Raises LabError, in one line, when the machine cannot do the job.
    """
    engine.client()
    if not (architecture := _architecture()).ok:
        raise LabError(f"architecture {architecture.found}: {architecture.remedy}")
    if buildx_version() is None and not podman.is_engine():
        fetch_package("docker-buildx", say)
        buildx_version.cache_clear()
        if buildx_version() is None:
            raise LabError(f"docker buildx was fetched and does not run; {REMEDIES['docker-buildx']}")
    if not registry_command():
        try:
            fetch_package("docker-registry", say)
        except LabError as error:
            say(f"{error}; sizes as this engine pushes them will not be measured")


def prepare_browser(say: Callable[[str], None]) -> None:
    """Installs Chromium where there is no browser. Raises LabError where the user is not root, or there is no apt."""
    if not browser():
        install(["chromium", "fonts-dejavu-core"], say)


def buildx_command() -> list[str]:
    """The command that runs buildx: the lab's own copy where there is one. Raises LabError when there is none."""
    own = _unpacked("docker-buildx") / PLUGIN
    if own.exists():
        return [str(own)]
    if buildx_version() is None:
        raise LabError(f"the docker client has no buildx (or one older than 0.13); {REMEDIES['docker-buildx']}")
    return ["docker", "buildx"]


def sees_engine(builder: str | None) -> bool:
    """Whether a buildx builder builds in the engine itself, and so sees its images; without a name, one does. Raises
    LabError, as buildx says it, when there is no such builder."""
    if builder is None:
        return True
    return bool(re.search(r"^Driver: +docker$", engine.run([*buildx_command(), "inspect", builder]), re.M))


@cache
def buildx_version() -> str | None:
    """The version of the buildx that `buildx_command` runs; None when it is missing or too old."""
    own = _unpacked("docker-buildx") / PLUGIN
    try:
        said = engine.run([str(own), "version"] if own.exists() else ["docker", "buildx", "version"])
    except LabError:
        return None
    numbers = re.search(r"v?(\d+)\.(\d+)\.\d+", said)
    if not numbers or tuple(map(int, numbers.groups())) < BUILDX_MINIMUM:
        return None
    return numbers.group().lstrip("v")


def buildx_asks_for_entitlements() -> bool:
    """Whether this buildx has bake's `--allow`, without which it asks the user."""
    return tuple(map(int, buildx_version().split(".")[:2])) >= (0, 17)


def registry_command() -> str | None:
    """The path of Debian's `docker-registry`: the lab's own copy or the system's."""
    own = _unpacked("docker-registry") / "usr/bin/docker-registry"
    return str(own) if own.exists() else shutil.which("docker-registry")


def browser() -> str | None:
    """The path of a Chromium or Chrome."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def fetch_package(name: str, say: Callable[[str], None]) -> None:
    """Unpacks one Debian package below `.lab`, through apt's own signature check; the system stays as it is.

    Debian 12 has no buildx: there the package is Debian 13's, from the mirror that the system uses itself.
    Raises LabError when apt is missing or refuses.
    """
    if not shutil.which("apt-get"):
        raise LabError(f"{name} is missing; {REMEDIES[name]}")
    lists, cache_folder, target = STATE / "apt" / "lists", STATE / "apt" / "cache", _unpacked(name)
    for path in (lists / "partial", cache_folder / "archives" / "partial", target.parent):
        path.mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache_folder}", "-o", "Debug::NoLocking=true"]
    if _os_release().get("VERSION_CODENAME") == "bookworm":
        sources = STATE / "apt" / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {_debian_mirror(options)} trixie main\n")
        options += ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-"]

    say(f"{as_root()}apt-get update; apt-get download {name}; dpkg-deb --extract (all below {STATE.name}/)")
    engine.run(["apt-get", *options, "update"])
    part = target.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    engine.run(["apt-get", *options, "download", name], cwd=part)
    archive = next(part.glob("*.deb"))
    engine.run(["dpkg-deb", "--extract", str(archive), str(part)])
    archive.unlink()
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def install(packages: list[str], say: Callable[[str], None]) -> None:
    """Installs Debian packages and says so first. Raises LabError where the user is not root, or there is no apt."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"{packages[0]} is missing: {REMEDIES[packages[0]]}")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    say(f"{as_root()}apt-get update; {shlex.join(command)}")
    engine.run(["apt-get", "update"])
    engine.run(command, env={"DEBIAN_FRONTEND": "noninteractive"})


def user_namespace_refusal() -> str:
    """Return why mmdebstrap cannot map this user's ids and mount in a user namespace, in its words; "" where it can.

    It is tried for real: newuidmap, the ranges of /etc/subuid and /etc/subgid, the kernel, and AppArmor may refuse.
    """
    try:
        engine.run(["mmdebstrap", "--unshare-helper", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], cwd=Path("/"))
    except engine.CommandError as error:
        return error.stderr.partition("\n")[0].removeprefix("W: ").removeprefix("E: ")
    return ""


def _mmdebstrap() -> Finding:
    """Whether it works for this user: root may use it, and gets it."""
    if os.geteuid() == 0 or not shutil.which("mmdebstrap"):
        return _tool("mmdebstrap", shutil.which("mmdebstrap") and "found", optional=True)
    lacks, refusal = "debian-archive-keyring", "the keys of Debian's archive are missing"
    if Path(KEYRING).exists():
        lacks, refusal = "user namespace", user_namespace_refusal()
    found = f"not without root here: {refusal}" if refusal else "found; runs without root, in a user namespace"
    return Finding("mmdebstrap", found, not refusal, REMEDIES[lacks], required=False)


def _unpacked(package: str) -> Path:
    """Where `fetch_package` lays a package."""
    return STATE / "packages" / package


def as_root() -> str:
    """What a line begins with that tells of a command, before it runs."""
    return "as root: " if os.geteuid() == 0 else ""


def ca_bundle() -> Path | None:
    """This machine's CA bundle, which may hold the authority of a company's proxy; None when there is none."""
    named = [os.environ[name] for name in ("CARGO_HTTP_CAINFO", "SSL_CERT_FILE") if os.environ.get(name)]
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"]
    return next((Path(path) for path in [*named, *usual] if Path(path).is_file()), None)


def parallel_builds() -> int:
    """How many binaries may be compiled at once: one per two cores, and 2 GiB of memory for each.

    One cargo keeps all cores busy but while it links. On two cores a second one fills that gap, takes 10% off the wall
    time, and pays for it with 7% more CPU time, since the two are often threads of one core (benchmarks/grid.py).
    """
    return max(1, min(cpus() // 2, memory_bytes() // MEMORY_PER_BUILD_BYTES))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engine_cpus() -> list[int]:
    """The numbers of the CPUs that containers may be kept to: the lab's own, or all of another machine's."""
    about = engine.about()
    return sorted(os.sched_getaffinity(0)) if _is_here(about) else list(range(about.cpus))


def _is_here(about: inspection.EngineInfo) -> bool:
    """Whether an engine's containers run on this machine's kernel, by what it says of its machine."""
    return platform.release() == about.kernel and abs(about.memory_bytes - memory_bytes()) < 1 << 28


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return names[0] if names else "unknown"


def machine() -> dict[str, str | int]:
    """What a number depends on and two runs must share to be compared. No host name, no path."""
    about = engine.about()
    here = _is_here(about)
    return {
        "architecture": about.architecture,
        "cpu_model": cpu_model() if here else "unknown",
        "cpus": cpus() if here else about.cpus,
        "memory_gib": round((memory_bytes() if here else about.memory_bytes) / 2**30),
        "kernel": about.kernel,
        "engine": _engine_version(about),
        "storage_driver": about.driver,
        "cgroup_version": about.cgroup_version,
    }


def lab() -> str:
    """Which lab this is: its version, and the commit where git tells, `-dirty` where files differ from it."""
    version = f"rustimg_lab {metadata.version('rustimg_lab')}"
    try:
        said = engine.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=ROOT)
    except LabError:
        return version
    return f"{version}, commit {said.strip()}"


def _architecture() -> Finding:
    return Finding("architecture", platform.machine(), platform.machine() == "x86_64",
                   remedy="the lab builds for x86_64 only, and on x86_64")  # fmt: skip


def _engine() -> list[Finding]:
    try:
        about = engine.about()
    except LabError as error:
        return [Finding("engine", "none", False, remedy=str(error))]
    return [
        Finding("engine", f"{_engine_version(about)}, {about.system}, kernel {about.kernel}", True),
        Finding("storage driver", about.driver, True),
        Finding("cgroup version", about.cgroup_version, True),
        Finding("engine's architecture", about.architecture, about.architecture == "x86_64",
                remedy="the lab builds for x86_64 only"),
        *_capabilities(),
    ]  # fmt: skip


def _capabilities() -> list[Finding]:
    """What the engine was seen to do, tried now where it has an image that the trials need."""
    try:
        with engine.readable_errors():
            # Podman puts a host before the name.
            named = re.compile("|".join(f"{engine.repository(name)}:" for name in ("rust", "debian")))
            images = [each for each in engine.client().images.list() if named.search(" ".join(each.tags))]
            if not images:
                return [Finding("engine's capabilities", "not tried yet: `./lab run` tries them", True)]
            tried = capabilities.detect(images[0].id)
    except LabError as error:
        return [Finding("engine's capabilities", "could not be tried", False, remedy=str(error), required=False)]
    return [Finding(name, seen, not loss, loss, required=False) for name, seen, loss in capabilities.lost(tried)]


def _engine_version(about: inspection.EngineInfo) -> str:
    return f"{'Podman ' if podman.is_engine() else ''}{about.version}"


def _builder() -> Finding:
    try:
        if podman.is_engine():
            return Finding("builder", "Podman's own: buildx is not needed, --builder does not apply", True)
    except LabError:
        pass  # another line says that there is no engine
    return _tool("docker-buildx", buildx_version())


def _tool(package: str, found: str | None, optional: bool = False) -> Finding:
    """A tool that a Debian package brings. One that the lab gets by itself does not stop a run."""
    by_itself = bool(shutil.which("apt-get")) and (package != "mmdebstrap" or os.geteuid() == 0)
    said = found if found else "not yet: `./lab run` gets it by itself" if by_itself else "none"
    return Finding(package, said, bool(found) or by_itself, REMEDIES[package], required=not optional)


def _debian_mirror(options: list[str]) -> str:
    uris = engine.run(["apt-get", *options, "--print-uris", "update"])
    mirror = re.search(r"'([^']+)/dists/bookworm/(?:In)?Release'", uris)
    if not mirror:
        lacks = "apt names no source for Debian 12 (bookworm) to take docker-buildx from"
        raise LabError(f"{lacks}; install buildx yourself")
    return mirror.group(1)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
