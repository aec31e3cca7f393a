"""Robustness probes: each probe of `probes.PROBES`, made in containers of the image.

What a service may need of its image is asked by a program of the lab's own (`crate/`), which is built as the cell's own
is and stands on the same base; what hangs on the program itself is asked of the cell's own images. Nothing here needs a
shell in an image, and nothing is published: containers have no network, or talk to 127.0.0.1.
"""

import io
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import APIError
from docker.types import Ulimit
from docker.utils import create_archive

from rustimg_lab.build import lab_toml
from rustimg_lab.engine import client, containers, emulation, images, inspection
from rustimg_lab.engine.local_registry import Registry
from rustimg_lab.errors import LabError
from rustimg_lab.measure import smoke, workloads
from rustimg_lab.measure.image import measure_image
from rustimg_lab.measure.plan import FailedTrial
from rustimg_lab.measure.probes import inventory
from rustimg_lab.measure.server import serving, wait_for
from rustimg_lab.measure.services import started
from rustimg_lab.model import metrics, probes
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.probes import FAILED, NOT_APPLICABLE, PASSED
from rustimg_lab.store.rows import NOT_STARTED, Observation

FOLDER = Path(__file__).parent / "crate"
NAME = "rustimg-lab-probe"  # of the crate there
TIMEOUT_S = 30
OF_SBOM = (metrics.PACKAGES, metrics.CRATES_SEEN, "sbom", "crates")  # what is read from it
LIMIT_BYTES = 32 << 20
TERM_S = 2.0
KILLED, OOM_S = 137, 3.0  # the exit code of SIGKILL; how long the engine may take to say that memory was the reason
# Of a program that ends right at its start an engine may miss the reason, as where the machine is busy
# (containerd/containerd#8180): it begins to look when the program runs already. So often it is called.
MISSED = 3
PANICS = (101, 134, 139)  # unwinding; aborting; aborting as process 1, to which the kernel sends no SIGABRT
ZONE, NOON_THERE = "Europe/Berlin", "14:00"  # of the time that the program asks for
DOMAIN, MANY, TOO_MANY = "lab.test", 25, 100  # of 16 bytes each: what UDP's 512 hold, and what they do not
START_S = 5  # until a program is taken for started: it dies at its first allocation, or lives
PAGES_KIB = {"pages_4k": 4, "pages_16k": 16, "pages_64k": 64}
WRITABLE = ("/tmp", "/var/tmp", "/var/lock", "/run/lock", "/run/shm")
SHELLS = ("sh", "bash", "dash", "ash", "busybox", "toybox", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "nu")
MANAGERS = ("apk", "apt", "apt-get", "dpkg", "dnf", "microdnf", "rpm", "yum", "pip", "cargo")
ENGINES_OWN = (".dockerenv", "dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab")


Outcome = tuple[str, str]  # one of `probes.OUTCOMES`, and the evidence
Outcomes = Iterator[tuple[str, Outcome]]


@dataclass(frozen=True)
class Subject:
    """The images of a cell, by id: of the app, of the program that probes, and of the app's server, which is asked as
    `server_app` says (None, and "", where it has none). `base` is that of the base image, "" for scratch; `tools` that
    of what measures."""

    app: App
    image: str
    probe: str
    server_app: App | None
    server: str
    base: str
    tools: str
    limits_memory: bool = True  # whether the engine keeps a container to a memory limit
    architecture: Architecture = NATIVE

    @property
    def emulated(self) -> bool:
        """Return whether the images are for another architecture than this machine's."""
        return self.architecture is not NATIVE


@dataclass(frozen=True)
class Ended:
    """How a container ended: `code` is None where it did not by itself; `out_of_memory` is what the engine says."""

    code: int | None
    output: str
    errors: str
    out_of_memory: bool

    def __str__(self) -> str:
        """The code, where it tells something, and the last line that was printed."""
        lines = [line.strip() for line in (self.errors or self.output).splitlines() if line.strip()]
        code = "did not end" if self.code is None else f"exit code {self.code}" if self.code else ""
        return "; ".join(filter(None, [code, lines[-1] if lines else "printed nothing"]))

    def passes(self, good: bool = True) -> Outcome:
        """Return PASSED when the exit code is 0 and `good` holds, else FAILED; with this object's text as the
        evidence."""
        return _outcome(self.code == 0 and good, str(self))


def load_app() -> App:
    """Return the lab's probe program as an app, of which cells are built."""
    return lab_toml.load(FOLDER)


def measure(subject: Subject, registry: Registry | None) -> tuple[list[Observation], str]:
    """Return a row per probe and per fact, and the image's SBOM (SPDX, as JSON; "" for none).

    A probe that cannot be run is a row that is not ok, with the reason; the others are run anyway. If an image needs an
    emulator and there is none, the only row is `runs`. Raises LabError when the image cannot be read.
    """
    if subject.emulated and emulation.NO_EMULATOR in smoke.why_not(subject.image, subject.app, subject.tools):
        return [Observation(metrics.RUNS, NOT_STARTED, ok=False, reason=NOT_STARTED)], ""
    files, document = files_of(subject.image), ""
    sizes = measure_image(subject.image, subject.base or None, registry)
    rows = [row for row in sizes if row.metric in probes.FACTS]
    try:
        document = inventory.sbom(subject.image)
        rows += inventory.inventory_of(subject.image, files, document)
    except LabError as error:
        rows += inventory.counts(files)
        rows += [Observation(name, None, ok=False, reason=f"no SBOM: {error}") for name in OF_SBOM]
    for group, probe in GROUPS.items():
        names = [name for name, definition in probes.PROBES.items() if definition.group == group]
        try:
            for name, (outcome, evidence) in probe(subject, files):
                rows.append(Observation(name, outcome, detail=evidence))
                names.remove(name)
        except (LabError, FailedTrial, APIError) as error:
            client.connect().ping()  # an engine that does not answer is no finding of this image
            rows += [Observation(name, None, ok=False, reason=str(error)) for name in names]
    return rows, document


def _tls(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    with smoke.address_server(subject.tools) as server:
        address, ca_environment = server.url.removeprefix("https://").rstrip("/"), {"PROBE_EXTRA_CA": server.ca_pem}

        def fetch(roots: str, environment: dict[str, str], files: bytes = b"") -> Outcome:
            options = {"network_mode": server.network, "environment": environment}
            return call(subject.probe, "fetch", address, roots, files=files, **options).passes()

        yield "tls_bundled", fetch("bundled", ca_environment)
        yield "tls_system", fetch("system", ca_environment)
        bundle = smoke.archive({"lab-ca.pem": server.ca_pem})
        yield "tls_cert_file", fetch("system", {"SSL_CERT_FILE": "/lab-ca.pem"}, bundle)


def _dns(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    with resolver(subject.tools) as network:

        def resolve(name: str, *, of: int = 1, at_least: int | None = None) -> Outcome:
            ended = call(subject.probe, "resolve", name, network_mode=network)
            addresses = len(ended.output.split()) if ended.code == 0 else 0
            evidence = f"{addresses} of {of} addresses" if addresses and of > 1 else str(ended)
            return _outcome(addresses >= (at_least or of), evidence)

        yield "dns_plain", resolve(f"plain.{DOMAIN}")
        yield "dns_many", resolve(f"many.{DOMAIN}", of=MANY)
        # musl keeps 48 of them (MAXADDRS in its lookup.h); what came over UDP alone would be as many as fit there.
        yield "dns_truncated", resolve(f"toomany.{DOMAIN}", of=TOO_MANY, at_least=MANY + 10)
        yield "dns_ipv6", resolve(f"six.{DOMAIN}")
        yield "dns_search", resolve("plain")


def _files(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    ended = call(subject.probe, "time", environment={"TZ": ZONE})
    yield "time_zone", ended.passes(NOON_THERE in ended.output)
    yield "tmp", call(subject.probe, "write", "/tmp/probe").passes()


def _rights(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    yield "read_only", _works(subject, read_only=True)
    yield "no_privileges", _works(subject, cap_drop=["ALL"], security_opt=["no-new-privileges"])
    user = images.inspect(subject.image).user
    identity = call(subject.probe, "identity", user=user)
    facts = dict(line.split(" ", 1) for line in identity.output.splitlines() if " " in line)
    is_unprivileged = re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user) and facts.get("CapEff:", "?").strip("0") == ""
    yield "user", _outcome(is_unprivileged, f"USER {user or '(none: root)'}; CapEff {facts.get('CapEff:', '?')}")
    ended = call(subject.probe, "writable", user=user)
    paths = [path for path in ended.output.split() if not _is_below(path, WRITABLE)]
    evidence = f"{len(paths)} beside folders for temporary files: {' '.join(paths[:5])}" if paths else ended.output
    yield "writable", _outcome(ended.code == 0 and not paths, evidence.strip() or "nothing")
    setuid = [member.name for member in files if member.isfile() and member.mode & 0o6000]
    yield "setuid", _none_of(setuid)


def _memory(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    if not subject.limits_memory or subject.emulated:
        reason = "the emulator's memory would count" if subject.emulated else "this engine cannot limit memory"
        for name in ("memory_limit", "oom"):
            yield name, (NOT_APPLICABLE, reason)
        return
    limit = {"mem_limit": LIMIT_BYTES, "memswap_limit": LIMIT_BYTES}
    yield "memory_limit", _works(subject, **limit)
    for _ in range(MISSED):
        ended = call(subject.probe, "allocate", str(4 * LIMIT_BYTES >> 20), **limit)
        if ended.code != KILLED or ended.out_of_memory:
            break
    evidence = "the engine says out of memory" if ended.out_of_memory else "the engine does not say why"
    yield "oom", _outcome(ended.code == KILLED and ended.out_of_memory, f"exit code {ended.code}; {evidence}")


def _process_1(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    if not subject.server:
        for name in ("sigterm", "zombies"):
            yield name, (NOT_APPLICABLE, "the app has no server")
        return
    program = images.archive(subject.probe, f"/{NAME}")
    workload = (
        workloads.app_workload(subject.server_app) if subject.server_app.serve else workloads.find_workload("root")
    )
    options = {"workers": 1, "deadline_s": TIMEOUT_S + workload.serve.start_timeout_s, "files": program}
    with serving(subject.server, workloads.closing_workload(workload), subject.tools, **options) as server:
        code, output = server.container.exec_run([f"/{NAME}/{NAME}", "zombies"])
        yield "zombies", _outcome(code == 0, output.decode(errors="replace").strip())
        start_s = time.monotonic()
        server.container.kill("SIGTERM")
        code = containers.exit_code(server.container, TERM_S)
        duration = "" if subject.emulated else f"{1000 * (time.monotonic() - start_s):.0f} ms, "
        evidence = f"{duration}exit code {code}"
        yield "sigterm", _outcome(code is not None, f"still there after {TERM_S:.0f} s" if code is None else evidence)


def _failures(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    ended = call(subject.probe, "panic", environment={"RUST_BACKTRACE": "1"})
    panic = re.search(r"panicked at \S*src/main\.rs:[1-9]\d*.*\n.*", ended.errors)
    evidence = f"exit code {ended.code}; {' '.join(panic[0].split()) if panic else 'no message with its place'}"
    yield "panic", _outcome(panic and ended.code in PANICS, evidence)
    named_count = len(re.findall(r"^ +\d+: .*\brustimg_lab_probe::", ended.errors, re.MULTILINE))
    frame_count = len(re.findall(r"^ +\d+: ", ended.errors, re.MULTILINE))
    yield "backtrace", _outcome(named_count, f"{frame_count} frames, {named_count} of them named as the program's own")
    for name, arguments in (("stack_overflow", ["stack", "1000000"]), ("stack_overflow_main", ["overflow"])):
        ended = call(subject.probe, *arguments)
        evidence = "has overflowed its stack" in ended.errors
        yield name, _outcome(evidence and ended.code, str(ended))
    yield "thread_stack", call(subject.probe, "stack", "1024").passes()


def _contents(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    programs = [member.name for member in files if member.mode & 0o111 and not member.isdir()]
    for name, basenames in (("shell", SHELLS), ("package_manager", MANAGERS)):
        yield name, _none_of([path for path in programs if path.rpartition("/")[2] in basenames])


def _pages(subject: Subject, files: list[tarfile.TarInfo]) -> Outcomes:
    """Yield outcomes by QEMU, which gives a program of arm64 pages of any size. Only the start of a program is probed
    here."""
    for name, kib in PAGES_KIB.items():
        if subject.architecture is not Architecture.AARCH64:
            yield name, (NOT_APPLICABLE, "on x86_64 all pages have 4 KiB")
            continue
        try:
            emulator = emulation.program(subject.architecture.value, print)
        except LabError as error:  # an arm64 machine without apt, such as a Mac
            yield name, (NOT_APPLICABLE, f"not measured: {error}")
            continue
        command = images.command_under(subject.image, [f"/{emulator.name}", "-p", str(kib << 10)])
        command += subject.app.check.arguments if subject.app.check else []
        program = create_archive(str(emulator.parent), [emulator.name], io.BytesIO()).getvalue()
        ended = call(subject.image, files=program, command=command, timeout_s=START_S)
        size_lines = [line.strip() for line in ended.errors.splitlines() if "page size" in line]
        if any(line.startswith("qemu") for line in size_lines):
            raise LabError(f"{size_lines[0]}: this QEMU does not vary the size of pages")
        state = "it still runs" if ended.code is None else f"exit code {ended.code}"
        # As process 1 a program may loop in place of its abort.
        yield name, _outcome(not size_lines and (ended.code or 0) <= 128, "; ".join([state, *size_lines[:1]]))


GROUPS = {
    "TLS": _tls, "DNS": _dns, "files": _files, "rights": _rights, "memory": _memory, "process 1": _process_1,
    "failures": _failures, "contents": _contents, "pages": _pages,
}  # fmt: skip


@contextmanager
def resolver(tools: str) -> Iterator[str]:
    """Run a name server on 127.0.0.1 in a network of its own while the block lasts. Yields the network mode by which a
    container joins that network. `tools` is the benchmark tools image, which has dnsmasq. Raises FailedTrial when the
    server does not start."""
    lines = [f"192.0.2.1 plain.{DOMAIN}", f"2001:db8::1 six.{DOMAIN}"]  # addresses for documentation: RFC 5737, 3849
    lines += [f"198.51.100.{n} many.{DOMAIN}" for n in range(MANY)]
    lines += [f"203.0.113.{n} toomany.{DOMAIN}" for n in range(TOO_MANY)]
    command = [
        "dnsmasq", "--keep-in-foreground", "--user=root", "--no-resolv", "--no-hosts", "--addn-hosts=/names",
        f"--local=/{DOMAIN}/", "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file=", "--log-facility=-",
    ]  # fmt: skip
    names = smoke.archive({"names": "\n".join(lines) + "\n"})
    options = {"command": command, "network_mode": "none", "dns": ["127.0.0.1"], "dns_search": [DOMAIN]}
    with started("name server", tools, names, **options) as container:
        wait_for(b"started", container, "name server", TIMEOUT_S)
        yield f"container:{container.id}"


def call(image: str, *arguments: str, files: bytes = b"", timeout_s: float = TIMEOUT_S, **options: Any) -> Ended:
    """Run the image's program, without a network unless `options` name one, and return how it ended. `files` is a tar
    archive for /. The code is None when the program does not end within `timeout_s` seconds. Raises FailedTrial when it
    does not start."""
    # Some end by a crash, which is to leave no core on the machine, and one uses all the stack that it can get.
    limits = [Ulimit(name=name, soft=maximum, hard=maximum) for name, maximum in (("core", 0), ("stack", 8 << 20))]
    options = {"network_mode": "none", "ulimits": limits, "command": [*images.command(image), *arguments]} | options
    with started("probe", image, files, **options) as container:
        code = containers.exit_code(container, timeout_s)
        output, errors = (
            containers.decode_output(container.logs(stdout=is_stdout, stderr=not is_stdout))
            for is_stdout in (True, False)
        )
        container.reload()
        start_s = time.monotonic()
        # On a busy machine the engine learns of a lack of memory after the end that it caused.
        while (
            code == KILLED and not inspection.is_out_of_memory(container.attrs) and time.monotonic() - start_s < OOM_S
        ):
            time.sleep(0.1)
            container.reload()
        return Ended(code, output, errors, inspection.is_out_of_memory(container.attrs))


def _works(subject: Subject, **options: Any) -> Outcome:
    reason = smoke.why_not(subject.image, subject.app, subject.tools, **options)
    return (FAILED, reason) if reason else (PASSED, smoke.in_words(subject.app))


def _none_of(paths: list[str]) -> Outcome:
    return _outcome(not paths, f"{len(paths)}: {' '.join(paths[:5])}" if paths else "none")


def _outcome(passes: object, evidence: str) -> Outcome:
    return (PASSED if passes else FAILED), evidence


def files_of(image: str) -> list[tarfile.TarInfo]:
    """Return the files and links of an image, without folders and without those that the engine puts into every
    container."""
    members = images.list_files(image)
    return [member for member in members if not member.isdir() and not _is_below(member.name, ENGINES_OWN)]


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return path in folders or path.startswith(tuple(f"{folder}/" for folder in folders))
