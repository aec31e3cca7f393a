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


def as_root() -> str:
    """What a line begins with that tells of a command, before it runs."""
    return "as root: " if os.geteuid() == 0 else ""


def ca_bundle() -> Path | None:
    """This machine's CA bundle, which may hold the authority of a company's proxy; None when there is none. macOS has
    no such file: there it is the one that other programs were given. Raises LabError where a variable names none."""
    first, last = ("CARGO_HTTP_CAINFO", "SSL_CERT_FILE"), ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for name in first:
        if (path := os.environ.get(name)) and not Path(path).is_file():
            raise LabError(f"{name} names {path}, where no file is: name your bundle of authorities, or unset it")
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"]
    named = [*map(os.environ.get, first), *usual, *map(os.environ.get, last)]
    return next((Path(path) for path in filter(None, named) if Path(path).is_file()), None)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Core:
    """A core of the CPU. `cpus`: the numbers of its threads; `kind`: larger for a faster kind of core."""

    cpus: tuple[int, ...]
    kind: int = 0


def cores(cpus: list[int], devices: str = "/sys/devices") -> list[Core]:
    """Return the cores that CPUs of this machine are threads of, without other threads: the slowest kind first, then by
    number. Where the kernel tells nothing of a CPU it is a core of its own."""
    system, slow = Path(devices, "system/cpu"), set(numbered(_read(Path(devices, "cpu_atom/cpus"))))
    found = {}
    for cpu in cpus:
        threads = numbered(_read(system / f"cpu{cpu}/topology/thread_siblings_list")) or [cpu]
        kind = int(_read(system / f"cpu{cpu}/cpu_capacity") or cpu not in slow)
        found.setdefault((kind, tuple(threads)), []).append(cpu)
    return [Core(tuple(own), kind) for (kind, _), own in sorted(found.items())]


def numbered(text: str) -> list[int]:
    """Return the numbers of a list as the kernel writes it: `0-2,5`."""
    parts = [part.partition("-") for part in text.split(",") if part]
    return [number for first, _, last in parts for number in range(int(first), int(last or first) + 1)]


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_per_cpu() -> float:
    """Return how many processes wanted a CPU in the last minute, for each CPU."""
    return os.getloadavg()[0] / cpus()


def cpu_model(table: str = "/proc/cpuinfo") -> str:
    """Return the CPU's model: its name, or of arm64 its maker's and design's numbers (MIDR_EL1), or `unknown`."""
    if platform.system() == "Darwin":
        with suppress(LabError):
            return process.run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    path = Path(table)
    told = dict(re.findall(r"^([\w ]+?)\s*: (.+)$", path.read_text(), re.MULTILINE)) if path.exists() else {}
    numbers = [told[key] for key in ("CPU implementer", "CPU part", "CPU variant", "CPU revision") if key in told]
    return told.get("model name") or (f"arm64 CPU {'-'.join(numbers)}" if numbers else "unknown")


def lab() -> str:
    """Which lab this is: its version, and the commit where git tells, `-dirty` where files differ from it."""
    version = f"rustimg_lab {metadata.version('rustimg_lab')}"
    if INSTALLED:  # a repository around the user's folder is not the lab's
        return version
    try:
        said = process.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=ROOT)
    except LabError:
        return version
    return f"{version}, commit {said.strip()}"


def lab_files() -> str:
    """Return the SHA-256 of a lab: of its version, and of the names and bytes of the files that builds and measurements
    depend on. It is one in a checkout and a wheel, whatever git tells of the one."""
    digest = hashlib.sha256(metadata.version("rustimg_lab").encode())
    beside = [*(SHARE / "data").glob("*.toml"), *MYIP.rglob("*")]
    for root, paths in ((PACKAGE, PACKAGE.rglob("*")), (SHARE, beside)):
        for place in sorted(path.relative_to(root) for path in paths if path.is_file()):
            if not _MADE & set(place.parts) and not any(files.is_beside(part) for part in place.parts):
                content = (root / place).read_bytes()
                digest.update(f"\0{place.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def identity() -> tuple[str, str]:
    """Return which lab this is: as a reader sees it (`lab`), and as two of them are compared (`lab_files`)."""
    return lab(), lab_files()
