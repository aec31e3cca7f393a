"""What the whole grid costs: the article's way against the lab's, in one run on one machine.

    .venv/bin/python benchmarks/grid.py         # two hours or three; leave the machine alone
    .venv/bin/python benchmarks/grid.py table   # the table of the committed results, as in docs/results.md

A call that was stopped goes on after the last round that it finished.

The article's way is one `docker build` after another, its four Dockerfiles (`article/`) with each of its two profiles.
They are the article's text but for what both sides must share to be compared: images by build argument, the CA bundle
as a secret, `--locked`, the one program and its allocator; useradd for adduser, which the builder lacks; and without
rustup, apt and update-ca-certificates, since it has what those bring. The lab's way is `bake.build` of the same eight
cells. Each round begins with a lockfile that no build has seen, so that no layer and no cache mount of an earlier one
serves; nothing is pruned.

Wall time is monotonic; CPU is the whole machine's busy time (/proc/stat: user, nice, system, irq, softirq), engine,
compilers and the lab itself alike, whoever else uses the machine included.
"""

import fcntl
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rustimg_lab.build import bake, bases, dockerfile, lab_toml
from rustimg_lab.cli import main as cli_main
from rustimg_lab.cli import selection
from rustimg_lab.engine import client, doctor
from rustimg_lab.engine.images import find_image
from rustimg_lab.host import machine, process, tools
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.bases import BUILDER
from rustimg_lab.model.matrix import ARTICLE, PROFILES
from rustimg_lab.model.matrix import ARTICLE_BASES as BASES
from rustimg_lab.paths import MYIP, REPORTS, ROOT, RUNS

ROUNDS = 3
STEPS_PER_ROUND = 8
HERE = Path(__file__).parent
RESULTS = HERE / "grid.json"
RUN = "benchmark-grid"
PLAIN_RENDER = dockerfile.render
TICKS = os.sysconf("SC_CLK_TCK")
CELLS = matrix.grid(BASES, PROFILES, [ARTICLE])
MORE_CELLS = matrix.grid(BASES, PROFILES, [ARTICLE, "mimalloc"])

ARTICLE_COLD = "article's way, --no-cache"
ARTICLE_CACHED = "article's way, engine's layer cache, from cold"
ARTICLE_EDITED = "article's way, one edited line"
LAB_COLD = "lab, from cold"
LAB_MEASURED = "lab, measuring and reporting the built grid"
LAB_UNCHANGED = "lab, unchanged call, measuring and report included"
LAB_EDITED = "lab, one edited line"
LAB_ADDED = "lab, one more allocator: 8 more cells"
# What is compared with what: the share that the first may take of the second.
LIMITS = (
    (LAB_COLD, ARTICLE_COLD, "wall_s", 0.55),
    (LAB_COLD, ARTICLE_CACHED, "wall_s", 1.1),
    (LAB_COLD, ARTICLE_CACHED, "cpu_s", 1.05),
    (LAB_EDITED, ARTICLE_EDITED, "wall_s", 0.3),
)


def main() -> int:
    with (Path(tempfile.gettempdir()) / "rustimg-lab-benchmark.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("another benchmark runs on this machine; two at once would measure each other") from None
        return _measure()


def _measure() -> int:
    images = _images()
    part = RESULTS.with_suffix(".part")
    environment = _environment(images)
    results = {"environment": environment, "steps": _whole_rounds(part, environment)}
    begun = len(results["steps"]) // STEPS_PER_ROUND
    try:
        for number in range(begun + 1, ROUNDS + 1):
            with process.work_folder() as work:
                sides = [_articles_way(work / "article", images), _labs_way(work / "lab", images)]
                for step, action in _interleaved(*sides, first=number % 2):
                    print(f"round {number} of {ROUNDS}: {step} ...", end=" ", flush=True)
                    wall, cpu = time.monotonic(), machine_cpu_s()
                    action()
                    wall, cpu = time.monotonic() - wall, machine_cpu_s() - cpu
                    print(f"{wall:.1f} s, {cpu:.1f} CPU s", flush=True)
                    results["steps"].append(
                        {"round": number, "step": step, "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}
                    )
                    part.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        _forget()
    part.replace(RESULTS)
    print(f"\n{table(results)}")
    return 0


def _whole_rounds(part: Path, environment: dict) -> list[dict]:
    """What a call that was stopped has measured, where it was on this machine, with these images and this commit."""
    if not part.exists():
        return []
    before = json.loads(part.read_text())
    if any(before["environment"][key] != environment[key] for key in ("commit", "machine", "images")):
        return []
    return before["steps"][: len(before["steps"]) // STEPS_PER_ROUND * STEPS_PER_ROUND]


def table(results: dict) -> str:
    """Medians over the rounds, and the ratios that count, as Markdown."""
    frame = {}
    for step in results["steps"]:
        frame.setdefault(step["step"], []).append(step)
    medians = {
        name: {key: statistics.median(step[key] for step in steps) for key in ("wall_s", "cpu_s")}
        for name, steps in frame.items()
    }
    lines = ["| step | wall, s | all rounds | CPU, s |", "| --- | ---: | --- | ---: |"]
    for name, found in medians.items():
        rounds = " ".join(f"{step['wall_s']:.0f}" for step in frame[name])
        lines.append(f"| {name} | {found['wall_s']:.0f} | {rounds} | {found['cpu_s']:.0f} |")
    lines += ["", "| ratio of medians | of | is | at most |", "| --- | --- | ---: | ---: |"]
    for ours, theirs, key, limit in LIMITS:
        ratio = medians[ours][key] / medians[theirs][key]
        lines.append(f"| {ours} / {theirs} | {'wall' if key == 'wall_s' else 'CPU'} | {ratio:.2f} | {limit} |")
    return "\n".join(lines) + "\n"


def _images() -> dict[str, bases.Provenance]:
    doctor.prepare(print)
    found = [bases.resolve(name, bases.Sources(), print, machine.ca_bundle()) for name in (BUILDER, *BASES)]
    return {image.name: image for image in found if image}


def _environment(images: dict[str, bases.Provenance]) -> dict:
    return {
        "commit": process.run(["git", "rev-parse", "HEAD"], cwd=ROOT).strip(),
        "machine": client.machine(),
        "buildx": tools.buildx_version(),
        "load_average_before": os.getloadavg()[0],
        "images": {name: {"label": i.label, "source": i.source, "digest": i.digest} for name, i in images.items()},
    }


def _interleaved(articles: list, labs: list, first: int) -> list:
    """The steps of both sides in turn, the article's first or the lab's."""
    one, other = (articles, labs) if first else (labs, articles)
    return [side[number] for number in range(max(len(one), len(other))) for side in (one, other) if number < len(side)]


def _articles_way(folder: Path, images: dict[str, bases.Provenance]) -> list:
    profiles = {name: unseen_sources(folder / name) for name in PROFILES}
    manifest = profiles["optimized"].directory / "Cargo.toml"
    manifest.write_text(manifest.read_text() + "\n[profile.release]\nlto = true\ncodegen-units = 1\n")

    def build_all(*options: str) -> None:
        for profile, app in profiles.items():
            for base in map(matrix.base, BASES):
                text = (HERE / "article" / f"Dockerfile.{base.name}").read_text()
                if profile == "optimized":
                    target = "" if base.libc == "gnu" else f"{NATIVE.rust(base.libc)}/"
                    cargo = next(line for line in text.splitlines() if line.lstrip().startswith("cargo build"))
                    text = text.replace(cargo, f"{cargo}\n\nRUN strip -s /myip/target/{target}release/myip")
                source = folder / f"Dockerfile.{base.name}.{profile}"
                source.write_text(text)
                arguments = ["--build-arg", f"RUST_IMAGE={images[BUILDER].image}"]
                if base.image:
                    arguments += ["--build-arg", f"BASE_IMAGE={images[base.name].image}"]
                secret = ["--secret", f"id=ca,src={ca}"] if (ca := machine.ca_bundle()) else []
                process.run(
                    [*tools.buildx_command(), "build", "--builder=default", "--output=type=docker", *secret, *arguments,
                     "--label", f"{client.IMAGE_LABEL}={client.lab_id()}", *options,
                     "--tag", f"{client.repository('benchmark-article')}:{base.name}-{profile}",
                     "--file", str(source), str(app.directory)]
                )  # fmt: skip

    return [
        (ARTICLE_COLD, lambda: build_all("--no-cache")),
        (ARTICLE_CACHED, lambda: (_unseen(*profiles.values()), build_all())),
        (ARTICLE_EDITED, lambda: (_edit(*profiles.values()), build_all())),
    ]


def _labs_way(folder: Path, images: dict[str, bases.Provenance]) -> list:
    app = unseen_sources(folder / "myip")
    cargo_home = f"rustimg-lab-cargo-home-{uuid.uuid4().hex[:8]}"  # what cargo downloads is cold too
    shutil.rmtree(RUNS / RUN, ignore_errors=True)
    calls = 0

    def build_all(cells: list) -> None:
        nonlocal calls
        calls += 1
        work = folder / f"work{calls}"
        logs = folder / "logs"
        logs.mkdir(exist_ok=True)
        work.mkdir()
        _own_cargo_home(cargo_home)
        context = bake.BuildContext(lab_toml.load(app.directory), images, logs, work, ca=machine.ca_bundle())
        found = bake.build(cells, context)
        if failed := [built.reason for built in found if built.reason]:
            raise SystemExit(f"the lab's grid failed: {failed}")

    def whole_call() -> None:
        command = [sys.executable, str(Path(__file__)), "call", str(app.directory), cargo_home, "run", "--run", RUN]
        command += ["--blocks", "0"]  # what the article does not do
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    return [
        (LAB_COLD, lambda: build_all(CELLS)),
        (LAB_MEASURED, whole_call),
        (LAB_UNCHANGED, whole_call),
        (LAB_EDITED, lambda: (_edit(app), build_all(CELLS))),
        (LAB_ADDED, lambda: build_all(MORE_CELLS)),
    ]


def _call(directory: str, cargo_home: str, *arguments: str) -> int:
    """`./lab ...` on a copy of the app, with a cargo home of its own."""
    selection.MYIP = Path(directory)
    _own_cargo_home(cargo_home)
    return cli_main.main(list(arguments))


def _own_cargo_home(name: str) -> None:
    dockerfile.render = lambda *arguments: PLAIN_RENDER(*arguments).replace("rustimg-lab-cargo-home", name)


def unseen_sources(folder: Path) -> App:
    """A copy of the article's app that no build has seen."""
    shutil.copytree(MYIP, folder, ignore=shutil.ignore_patterns("target"))
    _unseen(app := lab_toml.load(folder))
    return app


def _unseen(*apps: App) -> None:
    """A lockfile that no build has seen: the layer that it is in, and the lab's cache mounts, begin anew."""
    for app in apps:
        with (app.directory / "Cargo.lock").open("a") as lock:
            lock.write(f"# {uuid.uuid4()}\n")


def _edit(*apps: App) -> None:
    for app in apps:
        main = app.directory / "src" / "main.rs"
        before = main.read_text()
        main.write_text(before.replace("holds no PEM certificate", f"holds no certificate {uuid.uuid4().hex[:8]}"))
        assert main.read_text() != before


def machine_cpu_s() -> float:
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def _forget() -> None:
    """The benchmark's own run and images."""
    for folder in (RUNS / RUN, REPORTS / RUN):
        shutil.rmtree(folder, ignore_errors=True)
    names = [f"{client.repository('benchmark-article')}:{base}-{profile}" for base in BASES for profile in PROFILES]
    for name in (*names, *(bake.image_tag(cell, lab_toml.load(MYIP)) for cell in MORE_CELLS)):
        if find_image(name):
            client.connect().images.remove(name, noprune=True)
    for image in client.connect().images.list(filters={"label": f"{client.IMAGE_LABEL}={client.lab_id()}"}):
        if not image.tags:  # of the rounds before the last
            client.connect().images.remove(image.id, noprune=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["call"]:
        sys.exit(_call(*sys.argv[2:]))
    if sys.argv[1:2] == ["table"]:
        print(table(json.loads(RESULTS.read_text())), end="")
        sys.exit(0)
    sys.exit(main())
