"""What README.md and docs/ say of recorded runs and of the package: `./lab docs` puts there what these functions print.

Each place has a mark with the call, as in `<!-- [[[cog tables("recorded") ]]] -->`, and ends with `<!-- [[[end]]] -->`.
"""

import ast
import importlib
import json
import sys
from typing import Any

from rustimg_lab.analysis import attribution, cells, deploy, factorials, profile_effects, recommendation, scaling
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.model import metrics
from rustimg_lab.paths import PACKAGE, ROOT
from rustimg_lab.report import format, sections, short, terminal, views
from rustimg_lab.store import runs


def tables(run: str, notebook: str = "", **parameters: Any) -> None:
    """Print the short tables of a run; of one notebook, or of a notebook's parts with these parameters."""
    parts = [each for each in sections.parts(runs.load(run)) if sections.SECTIONS[each[0]].summary]
    wanted = [(name, own) for name, own in parts if name.startswith(notebook) and parameters.items() <= own.items()]
    print("\n".join(terminal.markdown(run, name, own) for name, own in wanted), end="")


def allocators() -> None:
    """Print what jemalloc gains over musl malloc under load."""
    print(views.verdicts.allocator_verdict(runs.load("recorded/allocators"), "throughput-batch-1w-16c"))


def threads(tabled: bool = False) -> None:
    """Print what a second worker gains, or the tables of that run; until it is recorded, where its commands are."""
    if "recorded/threads" not in runs.runs():
        print("What a second worker thread gains is not recorded yet; docs/results.md has the commands, under Threads.")
    elif tabled:
        tables("recorded/threads", "03_throughput")
    else:
        run = runs.load("recorded/threads")
        print(views.verdicts.allocator_verdict(run, "throughput-batch-2w-16c") + "\n")
        print(views.verdicts.speed_up(scaling.speed_up(run, "batch", 16)))


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
    """Print what the additions to an image mend."""
    print(views.robustness.survival(runs.load("recorded/survival")))


def knobs(run: str) -> None:
    """Print which knob bought what, in a paragraph for each quantity that the run has."""
    found, _ = factorials.everything(runs.load(run))
    print("\n\n".join(views.attribution.in_words(attribution.shares(each)) for each in found))


def prediction() -> None:
    """Print how well half of the cells predict the others."""
    measured = factorials.of(runs.load("recorded/factorial"), metrics.APP)
    print(views.attribution.score_in_words(factorials.score(measured)))


def deploys() -> None:
    """Print what a deploy takes on a machine that has nothing."""
    print(views.deploy.in_words(deploy.against(runs.load("recorded/deploy"), "", "")))


def deploy_model() -> None:
    """Print by how much the model of deploys is off."""
    print(views.deploy.off_in_words(deploy.model(deploy.times(runs.load("recorded/deploy")))))


def choice(run: str, options: str, **wishes: Any) -> None:
    """Print the command, and which cell it picks and how sure that is."""
    found = recommendation.choose(runs.load(run), Wishes(**wishes))
    print(f"`./lab choose --run {run} {options}`: " + " ".join(views.recommendation.evidence(found)[1:]))


def ladder(run: str) -> None:
    """Print the profiles of a run: what their images take on each base in MB (1e6 bytes), unpacked and compressed, and
    the CPU seconds that cargo had for each."""
    found = cells.ladder(cells.cell_table(runs.load(run)))
    rungs = dict(list(found.groupby(["base", "allocator"], sort=False)))
    header = ["profile", "flags"]
    for (base, allocator), own in rungs.items():
        stand_in = " (stand-in)" if own["stand_in"].any() else ""
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
