"""Figures of README.md and docs/, from recorded runs and from the package: `./lab docs` writes what is printed here.

Each place has a mark with the call, as in `<!-- [[[cog tables("recorded") ]]] -->`, and ends with `<!-- [[[end]]] -->`.
`reference.py` has the tables of commands and of `lab.toml`.
"""

import ast
import importlib
import json
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pandas as pd

from rustimg_lab.analysis import (
    attribution,
    cells,
    comparison,
    deploy,
    factorials,
    layouts,
    profile_effects,
    recommendation,
    robustness,
    scaling,
)
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.host import files
from rustimg_lab.model import matrix, metrics, probes
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.names import SUBSTITUTE
from rustimg_lab.paths import CHOICE_RUN, MYIP, PACKAGE, RECORDED, ROOT
from rustimg_lab.report import format, sections, short, summary, terminal, views
from rustimg_lab.store import runs

# The constraints of the image that README.md recommends: those of the first goal of the report.
SHIPPED = next(iter(summary.GOALS.values()))
MARKS = "¹²³⁴⁵⁶"  # of notes on numbers
# README's numbers: what is compared, the metric, the kind of study with its parameters, the cell, the cell that it is
# compared with, and where docs/results.md has it.
NUMBERS = [
    ("CPU time per request: jemalloc / musl malloc, `scratch`", metrics.CPU_US_PER_REQUEST, "throughput",
     {"workload": "batch", "workers": 1}, "scratch-optimized-jemalloc", "scratch-optimized-system", "under-load"),
    ("with two worker threads: jemalloc / musl malloc, `scratch`", metrics.CPU_US_PER_REQUEST, "throughput",
     {"workload": "batch", "workers": 2}, "scratch-optimized-jemalloc", "scratch-optimized-system", "threads"),
    ("CPU time per request: jemalloc / glibc malloc, debian slim", metrics.CPU_US_PER_REQUEST, "throughput",
     {"workload": "batch", "workers": 1}, "debian-optimized-jemalloc", "debian-optimized-system", "under-load"),
    ("memory with 1,000 connections: jemalloc / musl malloc, `scratch`", metrics.STEADY_RSS_BYTES, "memory",
     {"of": "load", "connections": 1000}, "scratch-optimized-jemalloc", "scratch-optimized-system", "memory"),
    ("deploy at 100 Mbit/s to a new machine: debian slim / `scratch`", metrics.FIRST_RESPONSE_S, "deploy",
     {"bandwidth_mbit": 100, "has": "nothing"}, "debian-optimized-system", "scratch-optimized-jemalloc",
     "what-a-deploy-takes"),
]  # fmt: skip


def tables(run: str, notebook: str = "", **parameters: Any) -> None:
    """Print the short tables of a run; of one notebook, or of a notebook's parts with these parameters."""
    parts = [each for each in sections.parts(runs.load(run)) if sections.SECTIONS[each[0]].summary]
    wanted = [(name, own) for name, own in parts if name.startswith(notebook) and parameters.items() <= own.items()]
    print("\n".join(terminal.markdown(run, name, own) for name, own in wanted), end="")


def answer() -> None:
    """Print the image that README.md recommends, the constraints, and how sure the choice is."""
    found = recommendation.choose(runs.load(CHOICE_RUN), SHIPPED)
    one = found.table.loc[found.picked]
    base, profile, allocator = (one[name] for name in ("base", "profile", "allocator"))
    shown = {
        "pull size": "transfer", "first byte after exec": "startup", "CPU time per request": "cpu",
        "memory under load": "memory",
    }  # fmt: skip
    facts = ", ".join(f"{label} {metrics.CRITERIA[key].in_words(one[key])}" for label, key in shown.items())
    others = [(cell, part) for cell, part in found.sureness.items() if cell != found.picked and part > 0.005]
    rest = "".join(f"; `{cell}` in {part:.0%}" for cell, part in others)
    none = 1 - sum(found.sureness.values())
    startup = metrics.CRITERIA["startup"].in_words(SHIPPED.limits["startup"])
    print(
        f"Ship **`{base}` with profile `{profile}` and {allocator}**: {facts}. "
        f"{views.recommendation.of_two_programs(found)}\n\n"
        f"It is the smallest image with at least {SHIPPED.min_throughput:.0%} of the best throughput, a first byte "
        f"within {startup} and stable compiler flags. With values drawn from the measured intervals, this image is "
        f"selected in **{found.sureness[found.picked]:.0%}** of the draws{rest}; no image meets the limits in "
        f"{none:.0%}."
    )


def shipped_dockerfile() -> None:
    """Print the Dockerfile of the image that README.md recommends, for the article's program."""
    found = recommendation.choose(runs.load(CHOICE_RUN), SHIPPED)
    cell = matrix.cell(*found.table.loc[found.picked, ["base", "profile", "allocator"]])
    print(f"```dockerfile\n{dockerfile.render(cell, lab_toml.load(MYIP))}```")


def numbers() -> None:
    """Print README's numbers: a row per comparison, a column per kind of machine that a run was recorded on."""
    recorded, notes = _recorded(), {}
    names = sorted({_machine(run) for run in recorded})
    print(f"| ratio (95% interval) | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
    for what, metric, kind, parameters, cell, baseline, anchor in NUMBERS:
        line = [f"[{what}](docs/results.md#{anchor})"]
        for name in names:
            of_machine = [run for run in recorded if _machine(run) == name]
            rows = [one for run in of_machine for one in _ratios(run, kind, parameters, metric, (cell, baseline))]
            best = max(rows, key=lambda one: one["pairs"], default=None)
            line.append("not measured" if best is None else _ratio_in_words(best, notes))
        print(f"| {' | '.join(line)} |")
    print("\n" + " ".join(f"{mark} {text[0].upper()}{text[1:]}." for text, mark in notes.items()))


def _recorded() -> list[runs.RunData]:
    return [runs.load(f"recorded/{path.name}") for path in sorted(RECORDED.iterdir()) if path.is_dir()]


def _machine(run: runs.RunData) -> str:
    return str(run.environment.machine["cpu_model"]).replace("(R)", "").removesuffix(" Processor")


def _ratios(
    run: runs.RunData, kind: str, parameters: dict[str, Any], metric: str, pair: tuple[str, str]
) -> Iterator[pd.Series]:
    """The ratio of a pair of cells in each study of that kind with those parameters that has both."""
    for study in comparison.find_studies(run, kind, **parameters):
        if {*pair} <= {*comparison.samples(run, study, metric)["cell"]}:
            found = comparison.of_study(run, study, metric, baseline=pair[1])
            yield found.assign(warning=comparison.ratio_note(found, pair[0])).set_index("cell").loc[pair[0]]


def _ratio_in_words(one: pd.Series, notes: dict[str, str]) -> str:
    """A ratio, its interval and verdict, with the mark of its warning, which is added to the notes."""
    mark = notes.setdefault(one["warning"], MARKS[len(notes)]) if one["warning"] else ""
    return f"{one['ratio']:.2f}x ({one['low']:.2f} to {one['high']:.2f}): {one['verdict']}{mark}"


def smallest() -> None:
    """Print the size of the smallest image that fetches over HTTPS, with stable flags and with unstable ones."""
    table = cells.cell_table(runs.load("recorded/ladder"))
    table = table[(table["base"] == "scratch") & (table["allocator"] == "system") & table["ok"]]
    stable = table[table["unstable"].ne(True)]
    sizes = [each["unpacked_bytes"].min() / 1e6 for each in (stable, table)]
    print(
        "Of these profiles, the smallest image that fetches over HTTPS has {:.2f} MB with stable flags, {:.2f} with "
        "a standard library that is compiled again.".format(*sizes)
    )


def smallest_fix() -> None:
    """Print what the image that passes the most robustness checks costs beside the article's."""
    run = runs.load("recorded/survival")
    outcomes, sizes = robustness.matrix(run), robustness.facts(run)["unpacked_bytes"].astype(int)
    best = outcomes.eq(probes.FAILED).sum().idxmin()
    failed = ", ".join(f"`{name}`" for name in outcomes.index[outcomes[best] == probes.FAILED])
    more = sizes[best] - sizes["scratch-optimized-jemalloc"]
    print(
        f"This image passes all but {failed}, which no image changes, and costs {more:,} bytes more than the article's."
    )


def probe_count() -> None:
    """Print how many probes an image is tried with."""
    made = f"`./lab probe` makes {len(probes.PROBES)} probes of every image."
    print(f"{made} `data/probes.toml` lists them with their fixes:")


def probe(*names: str) -> None:
    """Print, on a line for each probe, how many of the recorded images pass it, and on which bases images fail."""
    run = runs.load("recorded/survival")
    outcomes = robustness.matrix(run)
    bases = run.rows.drop_duplicates("cell").set_index("cell")["base"]
    for name in names:
        tried = outcomes.loc[name][outcomes.loc[name] != probes.NOT_APPLICABLE]
        by_base = tried.eq(probes.FAILED).groupby(bases, sort=False).agg(["sum", "size"])
        failed = [f"{base} {one['sum']} of {one['size']}" for base, one in by_base.iterrows() if one["sum"]]
        where = f" Failed: {', '.join(failed)}." if failed else ""
        print(f"* Probe `{name}`: {tried.eq(probes.PASSED).sum()} of {len(tried)} images pass.{where}")


def machines() -> None:
    """Print how many runs are recorded on each kind of machine."""
    recorded = pd.Series([_machine(run) for run in _recorded()]).value_counts()
    print(f"* Recorded runs by CPU: {', '.join(f'{count} on {name}' for name, count in recorded.items())}.")


def applies() -> None:
    """Print README's table of what the lab needs and where it was tried."""
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    steps = json.loads((ROOT / "benchmarks" / "grid.json").read_text())["steps"]
    wall = pd.DataFrame(steps).groupby("step")["wall_s"].median()
    cold, again = wall["lab, from cold"], wall["lab, unchanged call, measuring and report included"]
    rows = {
        "Architectures": f"Images for {' and '.join(each.debian for each in Architecture)}, built on Linux on x86_64. "
        "[Images for arm64](docs/arm64.md).",
        "Engines": "Docker Engine 20.10, 26.1, 28.5 (also rootless) and 29.7, and Podman 5: "
        "[what was tried](docs/engines.md).",
        "Root": "Only to install packages of Debian (`python3-venv`, `mmdebstrap`, Chromium), to register QEMU, for "
        "base images of Debian packages where user namespaces are off, and for deploy studies.",
        "Python": f"{python} or newer. The lab makes its own `.venv`.",
        "Disk": f"About {files.GRID_BYTES / 1e9:.0f} GB for images and build cache.",
        "Network": "A crate registry, and a container registry or Debian packages. "
        "[A proxy works too](docs/how-to.md#work-behind-a-proxy).",
        "Time": f"{cold / 60:.0f} minutes from cold for the article's eight images on two CPUs, plus base images and "
        f"tools. {again:.0f} s if nothing changed.",
        "Licence": "[MIT](LICENSE-MIT) or [Apache-2.0](LICENSE-APACHE), at your option.",
    }
    print("| question | answer |\n| --- | --- |")
    print("\n".join(f"| {name} | {text} |" for name, text in rows.items()))


def allocators() -> None:
    """Print what jemalloc gains over musl malloc under load."""
    print(views.verdicts.allocator_verdict(runs.load("recorded/allocators"), "throughput-batch-1w-16c"))


def second_worker() -> None:
    """Print what a second worker thread brings with each allocator on `scratch`, in a sentence."""
    run = runs.load("recorded/threads-intel")
    found = scaling.speed_up(run, "batch", 16).set_index("cell")
    musl, jemalloc = (found.loc[f"scratch-optimized-{name}"] for name in ("system", "jemalloc"))
    print(
        f"On the {_machine(run)}, a second worker thread brings **{musl['ratio']:.2f}** times the requests per second "
        f"with musl malloc ({musl['low']:.2f} to {musl['high']:.2f}), and {jemalloc['ratio']:.2f} times with jemalloc "
        f"({jemalloc['low']:.2f} to {jemalloc['high']:.2f})."
    )


def threads(name: str, workload: str = "batch", connections: int = 16) -> None:
    """Print what a second worker gains in a recorded run, in words."""
    run = runs.load(name)
    print(views.verdicts.allocator_verdict(run, f"throughput-{workload}-2w-{connections}c") + "\n")
    print(views.verdicts.speed_up(scaling.speed_up(run, workload, connections)))


def code_layout() -> None:
    """Print how much layouts of a cell differ, and which differences remain."""
    print(views.layouts.in_words(*layouts.of_study(runs.load("recorded/layouts"), "layouts-batch-1w-16c")))


def memory() -> None:
    """Print what jemalloc holds beside musl malloc."""
    studies = ("memory-load-batch-1w-1000c", "memory-limit-batch-1w-1000c")
    print(views.verdicts.memory_verdict(runs.load("recorded/memory"), *studies))


def startup() -> None:
    """Print what a start takes."""
    print(views.verdicts.startup_verdict(runs.load("recorded/startup")))


def profiles() -> None:
    """Print what each profile changes beside `optimized`."""
    print(views.profile_effects.in_words(profile_effects.of_profiles(runs.load("recorded/service"))))


def survival() -> None:
    """Print what the additions to an image fix."""
    print(views.robustness.survival(runs.load("recorded/survival")))


def knobs(run: str) -> None:
    """Print the contribution of each factor, in a paragraph for each quantity that the run has."""
    found, _ = factorials.find_factorials(runs.load(run))
    print("\n\n".join(views.attribution.in_words(attribution.shares(each)) for each in found))


def prediction() -> None:
    """Print how well half of the cells predict the others."""
    measured = factorials.find_factorial(runs.load("recorded/factorial"), metrics.APP)
    print(views.attribution.score_in_words(factorials.score(measured)))


def deploys() -> None:
    """Print what a deploy takes on a machine that has nothing."""
    print(views.deploy.in_words(deploy.compare_cells(runs.load("recorded/deploy"), "", "")))


def deploy_model() -> None:
    """Print by how much the model of deploys is off."""
    print(views.deploy.error_in_words(deploy.model(deploy.times(runs.load("recorded/deploy")))))


def choice(run: str, options: str, **wishes: Any) -> None:
    """Print the command, and which cell it selects and how sure that is."""
    found = recommendation.choose(runs.load(run), Wishes(**wishes))
    print(f"`./lab choose --run {run} {options}`: " + " ".join(views.recommendation.evidence(found)[1:]))


def ladder(run: str) -> None:
    """Print the profiles of a run: what their images take on each base in MB (1e6 bytes), unpacked and compressed, and
    the CPU seconds that cargo had for each."""
    found = cells.ladder(cells.cell_table(runs.load(run)))
    rungs = dict(list(found.groupby(["base", "allocator"], sort=False)))
    header = ["profile", "flags"]
    for (base, allocator), own in rungs.items():
        stand_in = SUBSTITUTE if own["stand_in"].any() else ""
        header += [f"{base}{stand_in}, {allocator}", "/ baseline", "compressed", "cargo, CPU s"]
    lines = []
    for profile in found["profile"].unique():
        of_bases = [each.set_index("profile").to_dict("index").get(profile) for each in rungs.values()]
        unstable = any(cell and cell["unstable"] is True for cell in of_bases)
        line = [profile, "unstable" if unstable else ""]
        for cell in of_bases:
            line += _rung(cell) if cell else [""] * 4
        lines.append(line)
    print(format.in_markdown(header, lines, range(2, len(header))), end="")


def both_architectures(run: str) -> None:
    """Print a table: the pull size of each cell of a run for each architecture in MB (1e6 bytes), and how the second
    was checked."""
    native, other = (cells.cell_table(runs.load(name)) for name in runs.parts(run))
    factors = ["base", "profile", "allocator"]
    other = other.set_index(factors)
    lines = []
    for cell in native.to_dict("records"):
        twin = other.loc[tuple(cell[factor] for factor in factors)]
        name = cell["base"] + (SUBSTITUTE if cell["stand_in"] else "")
        sizes = [format.megabytes(each["compressed_bytes"]) for each in (cell, twin)]
        ratio = twin["compressed_bytes"] / cell["compressed_bytes"]
        lines.append([name, cell["profile"], cell["allocator"], *sizes, f"{ratio:.2f}x", twin["note"]])
    header = [*factors, "amd64", "arm64", "arm64 / amd64", "arm64 image"]
    print(format.in_markdown(header, lines, range(3, 6)), end="")


def _rung(cell: dict[str, Any]) -> list[str]:
    size, ratio = format.megabytes(cell["unpacked_bytes"]), f"{cell['unpacked']:.2f}"
    return [size, ratio, short.compressed(cell), f"{cell['build_cpu_s']:.0f}"]


def benchmark(name: str) -> None:
    """Print the table of the results of a benchmark that are committed."""
    sys.path.append(str(ROOT / "benchmarks"))
    script = importlib.import_module(name)
    print(script.table(json.loads(script.RESULTS.read_text())).rstrip())


def modules() -> None:
    """Print a table: each module with the first sentence of its docstring, a sub-package before what is in it."""
    print("| module | what it does |\n| --- | --- |")
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name)):
        if path == PACKAGE / "__init__.py":
            continue
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        first = " ".join(said.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".").replace("|", "\\|")
        print(f"| {f'**`{name}`**' if path.name == '__init__.py' else f'`{name}`'} | {first} |")
