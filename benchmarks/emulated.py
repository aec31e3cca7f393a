"""What compiling under emulation costs: CPU time of cargo for one small crate, compiled in three ways on one machine.

    .venv/bin/python benchmarks/emulated.py     # some minutes, as root on x86_64; leave the machine alone

The crate is shellharden (github.com/anordal/shellharden) at the version below, which depends on no other crate, with
cargo's release profile. All three compilers are of one release of Debian. Each way compiles from cold, `ROUNDS` times,
in alternating order: for amd64; for arm64 with the lab's cross compiler; and for arm64 with compilers for arm64, which
QEMU runs. CPU is user and system time of cargo and all that it started (the shell's `times`). Writes emulated.json.
"""

import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cross

from rustimg_lab.build import mmdebstrap
from rustimg_lab.engine import client, containers, doctor, emulation
from rustimg_lab.host import machine
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import BUILDER, DEBIAN

RESULTS = Path(__file__).with_name("emulated.json")
CRATE, VERSION = "shellharden", "4.3.2"
ROUNDS = 3
TIMEOUT_S = 3600
CROSS = next(each for each in Architecture if each is not NATIVE)
AMD64, CROSSED, EMULATED = "amd64, native", "arm64, cross-compiled", "arm64, compiled under emulation"


def main() -> int:
    doctor.prepare(print)
    emulation.prepare(CROSS.value, True, print)
    if not emulation.emulates(CROSS.value):
        raise SystemExit(f"no emulator for {CROSS.debian}")
    name, ca = f"{BUILDER}-{CROSS.debian}", machine.ca_bundle()
    found = cross.images([name])
    ways = {
        AMD64: (found[BUILDER].image, NATIVE),
        CROSSED: (found[name].image, CROSS),
        EMULATED: (mmdebstrap.make(name, DEBIAN, print, ca), CROSS),
    }
    cpu_s: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        archive = _sources(Path(folder))
        for number in range(ROUNDS):
            for way in [*ways][:: -1 if number % 2 else 1]:
                cpu_s[way].append(_cpu_s(*ways[way], archive))
                print(f"round {number + 1} of {ROUNDS}: {way}: {cpu_s[way][-1]:.0f} s of CPU", flush=True)
    told = {"machine": client.machine(), "lab": machine.lab_version(), "crate": f"{CRATE} {VERSION}", "cpu_s": cpu_s}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(table(told))
    return 0


def _sources(folder: Path) -> bytes:
    """The crate, as an archive for /."""
    (folder / "fetch/src").mkdir(parents=True)
    (folder / "fetch/src/lib.rs").touch()
    manifest = f'[package]\nname = "fetch"\nversion = "0.0.0"\n[dependencies]\n{CRATE} = "={VERSION}"\n'
    (folder / "fetch/Cargo.toml").write_text(manifest)
    subprocess.run(["cargo", "vendor", "--quiet", folder / "vendor"], cwd=folder / "fetch", check=True)
    (folder / "src").mkdir()
    (folder / "vendor" / CRATE).rename(folder / "src/crate")
    with tarfile.open(folder / "src.tar", "w") as archive:
        archive.add(folder / "src", "src")
    return (folder / "src.tar").read_bytes()


def _cpu_s(image: str, architecture: Architecture, archive: bytes) -> float:
    """CPU seconds of cargo in a container of a builder, from cold."""
    target = f"{architecture.value}-unknown-linux-gnu"
    linker = f"CARGO_TARGET_{target.upper().replace('-', '_')}_LINKER={architecture.value}-linux-gnu-gcc"
    script = f"cd /src/crate && cargo build --quiet --release --locked --offline --target {target} && times"
    options = {"environment": [linker], "mem_limit": "8g", "network_mode": "none"}
    with containers.created(image, archive, command=["sh", "-ec", script], **options) as container:
        container.start()
        code = containers.exit_code(container, TIMEOUT_S)
        printed = container.logs().decode()
    if code:
        raise SystemExit(f"{image}: exit code {code}{printed}")
    minutes = re.findall(r"(\d+)m([\d.]+)s", printed.splitlines()[-1])  # of all that the shell started
    return sum(60 * int(minute) + float(second) for minute, second in minutes)


def table(results: dict) -> str:
    """A row for each way: the median of its CPU seconds, and its ratio to that for amd64."""
    cpu_s = {way: statistics.median(found) for way, found in results["cpu_s"].items()}
    lines = [f"| {results['crate']} | CPU s, median of {ROUNDS} | / amd64 |", "| --- | ---: | ---: |"]
    lines += [f"| {way} | {seconds:.3g} | {seconds / cpu_s[AMD64]:.2g}x |" for way, seconds in cpu_s.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
