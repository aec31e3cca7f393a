"""What this machine is: its CPUs, memory, architecture and certificate authorities."""

import hashlib
import os
import platform
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rustimg_lab.errors import LabError
from rustimg_lab.host import files, process
from rustimg_lab.paths import INSTALLED, MYIP, PACKAGE, ROOT, SHARE

MEMORY_PER_BUILD_BYTES = 2 << 30
_MADE = {"__pycache__", "_share", "target"}  # folders that are not of the lab, or are looked through by themselves


def root_prefix() -> str:
    """Return "as root: " for root, else "": the beginning of a line that shows a command before the command runs."""
    return "as root: " if os.geteuid() == 0 else ""


def ca_bundle() -> Path | None:
    """Return this machine's CA bundle, which may hold the authority of a company's proxy. Return None when there is
    none. macOS has no such file: variables of other programs may name one there. Raises LabError when CARGO_HTTP_CAINFO
    or SSL_CERT_FILE names no file."""
    first_names, last_names = ("CARGO_HTTP_CAINFO", "SSL_CERT_FILE"), ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for name in first_names:
        if (path := os.environ.get(name)) and not Path(path).is_file():
            raise LabError(f"{name} names {path}, where no file is: name your bundle of authorities, or unset it")
    paths = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"]
    candidates = [*map(os.environ.get, first_names), *paths, *map(os.environ.get, last_names)]
    return next((Path(path) for path in filter(None, candidates) if Path(path).is_file()), None)


def free_port() -> int:
    """Return a port of 127.0.0.1 that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Core:
    """A core of the CPU. `cpus`: the numbers of its threads; `kind`: larger for a faster kind of core, where the CPU
    has several."""

    cpus: tuple[int, ...]
    kind: int = 0


def cores(cpus: list[int], devices: str = "/sys/devices") -> list[Core]:
    """Return the cores that the CPUs in `cpus` are threads of: the slowest kind first, then by number. A core has only
    the threads in `cpus`. A CPU that the kernel does not describe is a core of its own."""
    system, slow_cpus = Path(devices, "system/cpu"), set(parse_cpu_list(_read(Path(devices, "cpu_atom/cpus"))))
    groups = {}
    for cpu in cpus:
        threads = parse_cpu_list(_read(system / f"cpu{cpu}/topology/thread_siblings_list")) or [cpu]
        kind = int(_read(system / f"cpu{cpu}/cpu_capacity") or cpu not in slow_cpus)
        groups.setdefault((kind, tuple(threads)), []).append(cpu)
    return [Core(tuple(group), kind) for (kind, _), group in sorted(groups.items())]


def parse_cpu_list(text: str) -> list[int]:
    """Return the numbers of a list in the kernel's notation: `0-2,5` is 0, 1, 2, 5."""
    parts = [part.partition("-") for part in text.split(",") if part]
    return [number for first, _, last in parts for number in range(int(first), int(last or first) + 1)]


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_per_cpu() -> float:
    """Return how many processes wanted a CPU in the last minute (the load average), divided by the number of CPUs."""
    return os.getloadavg()[0] / cpus()


def cpu_model(table: str = "/proc/cpuinfo") -> str:
    """Return the model of this machine's CPU; `unknown` when the kernel reports none. Linux on arm64 reports no name:
    there it is the numbers of maker and design (MIDR_EL1)."""
    if platform.system() == "Darwin":
        with suppress(LabError):
            return process.run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    path = Path(table)
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.+)$", path.read_text(), re.MULTILINE)) if path.exists() else {}
    numbers = [fields[key] for key in ("CPU implementer", "CPU part", "CPU variant", "CPU revision") if key in fields]
    return fields.get("model name") or (f"arm64 CPU {'-'.join(numbers)}" if numbers else "unknown")


def lab_version() -> str:
    """Return the version of this lab, and the commit when git knows it; `-dirty` marks changed files."""
    version = f"rustimg_lab {metadata.version('rustimg_lab')}"
    if INSTALLED:  # a repository around the user's folder is not the lab's
        return version
    try:
        commit = process.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=ROOT)
    except LabError:
        return version
    return f"{version}, commit {commit.strip()}"


def lab_files() -> str:
    """Return the SHA-256 (hex) of this lab: of its version, and of the names and bytes of the files that builds and
    measurements depend on. A checkout and its wheel have one digest, whatever git reports."""
    digest = hashlib.sha256(metadata.version("rustimg_lab").encode())
    share_paths = [*(SHARE / "data").glob("*.toml"), *MYIP.rglob("*")]
    for root, paths in ((PACKAGE, PACKAGE.rglob("*")), (SHARE, share_paths)):
        for place in sorted(path.relative_to(root) for path in paths if path.is_file()):
            if not _MADE & set(place.parts) and not any(files.is_editor_file(part) for part in place.parts):
                content = (root / place).read_bytes()
                digest.update(f"\0{place.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def identity() -> tuple[str, str]:
    """Return `lab_version`, for a reader, and `lab_files`, by which two labs are compared."""
    return lab_version(), lab_files()
