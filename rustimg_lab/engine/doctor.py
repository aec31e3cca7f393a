"""`lab doctor`: what this machine and its engine have, what they lack, and the set-up that a run begins with."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rustimg_lab.engine import capabilities, client, inspection
from rustimg_lab.engine.images import plain_name
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine, process, system, tools
from rustimg_lab.paths import ROOT


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
    free = shutil.disk_usage(ROOT).free
    return [
        Finding("python", platform.python_version(), sys.version_info >= (3, 11), remedy="the lab needs 3.11"),
        Finding("system", system.name(), True),
        _architecture(),
        *_engine(),
        _builder(),
        _mmdebstrap(),
        _tool("docker-registry", tools.registry_command() and "found", optional=True),
        Finding("browser", tools.browser() or "none: no PDF of a report", True),
        *_resources(),
        Finding("disk", f"{free / 2**30:.0f} GiB free", free >= files.GRID_BYTES, required=False,
                remedy="builder, images and build cache take about 10 GiB"),
    ]  # fmt: skip


def prepare(say: Callable[[str], None]) -> None:
    """Install what the system lacks for a run; says first what it does as root. Raises LabError where it cannot."""
    client.connect()
    for each in (_architecture(), _engines_architecture(client.engine_info())):
        if not each.ok:
            raise LabError(f"{each.name} {each.found}: {each.remedy}")
    if tools.buildx_version() is None and not client.is_podman():
        tools.fetch_package("docker-buildx", say)
        tools.buildx_version.cache_clear()
        if tools.buildx_version() is None:
            raise LabError(f"docker buildx was fetched and does not run; {tools.REMEDIES['docker-buildx']}")
    if not tools.registry_command():
        try:
            tools.fetch_package("docker-registry", say)
        except LabError as error:
            say(f"{error}; sizes as this engine pushes them will not be measured")


def prepare_browser(say: Callable[[str], None]) -> None:
    """Installs Chromium where there is no browser. Raises LabError where the user is not root, or there is no apt."""
    if not tools.browser():
        tools.install(["chromium", "fonts-dejavu-core"], say)


def _mmdebstrap() -> Finding:
    """Whether it works for this user: root may use it, and gets it."""
    if os.geteuid() == 0 or not shutil.which("mmdebstrap"):
        return _tool("mmdebstrap", shutil.which("mmdebstrap") and "found", optional=True)
    lacks, refusal = "debian-archive-keyring", "the keys of Debian's archive are missing"
    if Path(tools.KEYRING).exists():
        lacks, refusal = "user namespace", tools.user_namespace_refusal()
    found = f"not without root here: {refusal}" if refusal else "found; runs without root, in a user namespace"
    return Finding("mmdebstrap", found, not refusal, tools.REMEDIES[lacks], required=False)


def _architecture() -> Finding:
    return Finding("architecture", platform.machine(), platform.machine() in ("x86_64", "aarch64", "arm64"),
                   remedy="the lab works on x86_64 and arm64")  # fmt: skip


def _engines_architecture(about: inspection.EngineInfo) -> Finding:
    """Whether the engine's machine has the architecture that Python runs for: cells without --arch are of that."""
    here = platform.machine()
    return Finding("engine's architecture", about.architecture, about.architecture == here.replace("arm64", "aarch64"),
                   remedy=f"Python here is for {here}: take an engine on such a machine, or a Python for "
                   f"{about.architecture} (remove .venv, then call ./lab)")  # fmt: skip


def _resources() -> list[Finding]:
    """CPUs and memory of the machine where builds run: the engine's."""
    try:
        with client.readable_errors():
            about = client.machine()
    except LabError:
        about = {"cpus": machine.cpus(), "cpu_model": machine.cpu_model(), "memory_gib": machine.memory_bytes() >> 30}
    return [
        Finding("cpu", f"{about['cpus']} of {about['cpu_model']}", True),
        Finding("memory", f"{about['memory_gib']} GiB", about["memory_gib"] << 30 >= machine.MEMORY_PER_BUILD_BYTES,
                remedy="an optimized build takes up to 2 GiB"),
    ]  # fmt: skip


def _engine() -> list[Finding]:
    try:
        with client.readable_errors():
            about = client.engine_info()
    except LabError as error:
        line = ""
        with suppress(LabError):  # there is no such context
            line = system.engine_line(client.engine_address())
        return [Finding("engine", "none", False, remedy=f"{error}{line and f'; here: {line}'}")]
    product = system.engine_product(client.engine_address(), about.system)
    named = f"{product}'s virtual machine: " if product else ""
    return [
        Finding("engine", f"{client.engine_version(about)}, {named}{about.system}, kernel {about.kernel}", True),
        Finding("storage driver", about.driver, True),
        Finding("cgroup version", about.cgroup_version, True),
        _engines_architecture(about),
        *_capabilities(),
    ]  # fmt: skip


def _capabilities() -> list[Finding]:
    """What the engine was seen to do, tried now where it has an image that the trials need."""
    try:
        with client.readable_errors():
            own = tuple(f"{client.repository(name)}:" for name in ("rust", "debian"))
            every = client.connect().images.list()
            fit = [each for each in every if any(plain_name(tag).startswith(own) for tag in each.tags)]
            if not fit:
                return [Finding("engine's capabilities", "not tried yet: `./lab run` tries them", True)]
            tried = capabilities.detect(fit[0].id)
    except (LabError, OSError) as error:
        return [Finding("engine's capabilities", "could not be tried", False, remedy=str(error), required=False)]
    return [Finding(name, seen, not loss, loss, required=False) for name, seen, loss in capabilities.lost(tried)]


def _builder() -> Finding:
    try:
        with client.readable_errors():
            is_podman = client.is_podman()
        if is_podman:
            return Finding("builder", "Podman's own: buildx is not needed, --builder does not apply", True)
    except LabError:
        pass  # another line says that there is no engine
    return _tool("docker-buildx", tools.buildx_version())


def _tool(package: str, found: str | None, optional: bool = False) -> Finding:
    """A tool that a Debian package brings. One that the lab gets by itself does not stop a run."""
    by_itself = bool(shutil.which("apt-get")) and (package != "mmdebstrap" or os.geteuid() == 0)
    said = found or ("not yet: `./lab run` gets it by itself" if by_itself else "none")
    line = system.install_line(package)
    remedy = f"install it: {line}" if line else tools.REMEDIES[package]  # what it is called on other systems
    return Finding(package, said, bool(found) or by_itself, remedy, required=not optional)


def cache_size() -> str:
    """The size of the engine's build cache, everybody's, as BuildKit tells it; the lab never empties it. It is not
    asked for where the storage driver would compare all layers of the cache: that takes a quarter of an hour and 10 GB
    of memory."""
    if client.is_podman():
        return "what `podman system df` shows as images without containers"
    about = client.engine_info()
    if about.driver_status.get("Native Overlay Diff") != "true" and not about.keeps_in_containerd:
        return f"what only a long comparison tells with storage driver {about.driver}: `docker buildx du`, when idle"
    said = process.run([*tools.buildx_command(), "du", f"--builder={client.own_builder()}"])
    return said.rsplit("Total:", 1)[-1].strip()
