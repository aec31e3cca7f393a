"""`lab doctor`: what this machine and its engine have, what they lack, and the set-up that a run begins with."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
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
    state: str
    ok: bool
    remedy: str = ""
    required: bool = True

    @property
    def mark(self) -> str:
        return "ok" if self.ok else "MISSING" if self.required else "note"


def findings() -> list[Finding]:
    """Return a finding for each thing that a run depends on, present or missing. An engine that does not answer is a
    finding too, and no error."""
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
    """Install what the system lacks for a run; what is done as root is passed to `say` first. Raises LabError, in one
    line, when the machine cannot do the job."""
    client.connect()
    for finding in (_architecture(), _engines_architecture(client.engine_info())):
        if not finding.ok:
            raise LabError(f"{finding.name} {finding.state}: {finding.remedy}")
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
    """Install Chromium when there is no browser. Raises LabError when the user is not root, or there is no apt."""
    if not tools.browser():
        tools.install(["chromium", "fonts-dejavu-core"], say)


def _mmdebstrap() -> Finding:
    """Whether it works for this user: root may use it, and gets it."""
    if os.geteuid() == 0 or not shutil.which("mmdebstrap"):
        return _tool("mmdebstrap", shutil.which("mmdebstrap") and "found", optional=True)
    lack, refusal = "debian-archive-keyring", "the keys of Debian's archive are missing"
    if Path(tools.KEYRING).exists():
        lack, refusal = "user namespace", tools.user_namespace_refusal()
    state = f"not without root here: {refusal}" if refusal else "found; runs without root, in a user namespace"
    return Finding("mmdebstrap", state, not refusal, tools.REMEDIES[lack], required=False)


def _architecture() -> Finding:
    return Finding("architecture", platform.machine(), platform.machine() in ("x86_64", "aarch64", "arm64"),
                   remedy="the lab works on x86_64 and arm64")  # fmt: skip


def _engines_architecture(info: inspection.EngineInfo) -> Finding:
    """Whether the engine's machine has the architecture that Python runs for: cells without --arch are of that."""
    native = platform.machine()
    return Finding("engine's architecture", info.architecture, info.architecture == native.replace("arm64", "aarch64"),
                   remedy=f"Python here is for {native}: take an engine on such a machine, or a Python for "
                   f"{info.architecture} (remove .venv, then call ./lab)")  # fmt: skip


def _resources() -> list[Finding]:
    """CPUs and memory of the machine where builds run: the engine's."""
    try:
        with client.readable_errors():
            facts = client.machine()
    except LabError:
        facts = {"cpus": machine.cpus(), "cpu_model": machine.cpu_model(), "memory_gib": machine.memory_bytes() >> 30}
    return [
        Finding("cpu", f"{facts['cpus']} of {facts['cpu_model']}", True),
        Finding("memory", f"{facts['memory_gib']} GiB", facts["memory_gib"] << 30 >= machine.MEMORY_PER_BUILD_BYTES,
                remedy="an optimized build takes up to 2 GiB"),
    ]  # fmt: skip


def _engine() -> list[Finding]:
    try:
        with client.readable_errors():
            info = client.engine_info()
    except LabError as error:
        return [Finding("engine", "none", False, remedy=str(error))]
    product = system.engine_product(client.engine_address(), info.system)
    prefix = f"{product}'s virtual machine: " if product else ""
    return [
        Finding("engine", f"{client.engine_version(info)}, {prefix}{info.system}, kernel {info.kernel}", True),
        Finding("storage driver", info.driver, True),
        Finding("cgroup version", info.cgroup_version, True),
        _engines_architecture(info),
        *_capabilities(),
    ]  # fmt: skip


def _capabilities() -> list[Finding]:
    """What the engine was seen to do, tried now where it has an image that the trials need."""
    try:
        with client.readable_errors():
            prefixes = tuple(f"{client.repository(name)}:" for name in ("rust", "debian"))
            images = client.connect().images.list()
            candidates = [image for image in images if any(plain_name(tag).startswith(prefixes) for tag in image.tags)]
            if not candidates:
                return [Finding("engine's capabilities", "not tried yet: `./lab run` tries them", True)]
            abilities = capabilities.detect(candidates[0].id)
    except (LabError, OSError) as error:
        return [Finding("engine's capabilities", "could not be tried", False, remedy=str(error), required=False)]
    return [
        Finding(name, state, not loss, loss, required=False)
        for name, state, loss in capabilities.ability_lines(abilities)
    ]


def _builder() -> Finding:
    try:
        with client.readable_errors():
            is_podman = client.is_podman()
        if is_podman:
            return Finding("builder", "Podman's own: buildx is not needed, --builder does not apply", True)
    except LabError:
        pass  # another line says that there is no engine
    return _tool("docker-buildx", tools.buildx_version())


def _tool(package: str, status: str | None, optional: bool = False) -> Finding:
    """A tool that a Debian package brings. One that the lab gets by itself does not stop a run."""
    is_automatic = bool(shutil.which("apt-get")) and (package != "mmdebstrap" or os.geteuid() == 0)
    text = status or ("not yet: `./lab run` gets it by itself" if is_automatic else "none")
    line = system.install_line(package)
    remedy = f"install it: {line}" if line else tools.REMEDIES[package]  # what it is called on other systems
    return Finding(package, text, bool(status) or is_automatic, remedy, required=not optional)


def cache_size() -> str:
    """Return the size of the engine's build cache, of all users, as BuildKit reports it; or in words where to find it.
    With some storage drivers BuildKit would compare all layers of the cache, which takes a quarter of an hour and ten
    gigabytes of memory. There, and with Podman, the result is words."""
    if client.is_podman():
        return "what `podman system df` shows as images without containers"
    info = client.engine_info()
    if info.driver_status.get("Native Overlay Diff") != "true" and not info.keeps_in_containerd:
        return f"what only a long comparison tells with storage driver {info.driver}: `docker buildx du`, when idle"
    output = process.run([*tools.buildx_command(), "du", f"--builder={client.own_builder()}"])
    return output.rsplit("Total:", 1)[-1].strip()
