"""Runs -> the page that is shared: parameters checked, notebooks executed by papermill, the parts put together."""

import datetime
import hashlib
import json
import lzma
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import papermill.execute
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from rustimg_lab import (
    answers,
    attribution,
    choice,
    comparison,
    deployment,
    disk,
    engine,
    host,
    page,
    stats,
    store,
    survival,
)
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.paths import ARTICLE, NOTEBOOKS, PROBES_FILE, PROFILES, PUBLISHED, RECORDED, REPORTS
from rustimg_lab.short import BUILD, MEMORY, SIZES, STARTUP, SURVIVAL, UNDER_LOAD

CELL_TIMEOUT_S = 300
PDF_TIMEOUT_S = 180
KNOBS = "--knobs"
MANY_CELLS = 8  # of a factorial: from there on what its knobs do is read sooner than a plot of each cell
# What plots each cell, by the kind of its studies; sizes have none.
ONE_BY_ONE = {SIZES: "", STARTUP: "startup", UNDER_LOAD: "throughput", MEMORY: "memory"}
CHOOSE, ATTRIBUTION, DEPLOY = "05_choose", "07_attribution", "08_deploy"
LOAD = ("workload", "workers", "connections")  # what tells the studies of a load apart
# Without the line that a kernel may log when it is told to end.
QUIET = {"extra_arguments": ["--log-level=CRITICAL"]}
# What the last cell of a notebook prints: papermill alone may call the run of a dead kernel done.
SENTINEL = "Report complete"


def whole(name: str, form: str = "html", on_part: Callable[[str], None] = lambda text: None) -> Path:
    """Writes the page of a run, or of several with commas between them: the answers first, then a part for each
    notebook that they have data for; returns its path. `recorded` is all that is recorded of the article's app.

    Raises LabError when a run is unknown or of another app than the first, a notebook fails, or a PDF is asked for and
    there is no browser that makes one; an earlier page then stays as it was.
    """
    runs = {each: store.load(each) for each in names(name)}
    apps = {each: stats.app(rows) for each, rows in runs.items()}
    if len(set(apps.values())) > 1:
        raise LabError(f"these runs are of several apps ({', '.join(dict.fromkeys(apps.values()))}): a page is of one")
    wanted = [(n, run, p) for run, rows in runs.items() for n, p in _parts_of_page(run, rows)]
    if not wanted:
        raise LabError(f"run '{name}' has no study that came far enough; the same `./lab measure` goes on")
    made = []
    for number, (notebook, run, parameters) in enumerate(sorted(wanted, key=lambda part: part[0]), 1):
        of = ", ".join([f"run {run}", *(f"{key} {value}" for key, value in parameters.items())])
        on_part(f"{number} of {len(wanted)}: {notebook}, {of}")
        made.append(page.Part(_without_sentinel(execute(run, notebook, parameters)), of))

    folder = REPORTS / (name if name in runs or name == store.RECORDED_RUN else "+".join(runs).replace("/", "-"))
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{next(iter(apps.values()))}: which image to ship, and what each choice costs"
    about = f"Runs {', '.join(runs)}. Page made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    lead = _lead(runs)
    if form == "md":
        text, figures = page.markdown(title, about, made, lead, "report")
        (folder / "report").mkdir(exist_ok=True)
        for figure, content in figures.items():  # named by what is in them: an earlier page keeps its own
            (folder / "report" / figure).write_bytes(content)
        disk.write_whole(folder / "report.md", text)
        for path in (folder / "report").iterdir():
            if path.name not in figures:
                path.unlink()
        return folder / "report.md"
    disk.write_whole(folder / "report.html", page.html(title, about, made, lead))
    return _print(folder / "report.html") if form == "pdf" else folder / "report.html"


def names(name: str) -> list[str]:
    """The runs of a page that is asked for as that."""
    return _recorded() if name == store.RECORDED_RUN else list(dict.fromkeys(name.split(",")))


def render(run: str, notebook: str = SIZES, parameters: dict | None = None) -> Path:
    """Executes a notebook on a run and writes one self-contained page, named by its parameters; returns its path.

    A page that is newer than the notebook with its outputs is left as it is. Raises LabError as `execute` does; an
    earlier page then stays as it was.
    """
    document, executed = execute(run, notebook, parameters), _executed(run, notebook, parameters)
    written = executed.with_suffix(".html")
    if not written.exists() or written.stat().st_mtime < executed.stat().st_mtime:
        title = document.metadata["title"]
        disk.write_whole(written, page.html(title, f"Run {run}.", [page.Part(_without_sentinel(document))]))
    return written


def execute(run: str, notebook: str, parameters: dict | None = None) -> nbformat.NotebookNode:
    """The notebook with the outputs that it has on a run. One that was made of the same is not executed again.

    Raises LabError when the run or a parameter is unknown, or a cell fails.
    """
    if store.load(run).empty:
        raise LabError(f"run '{run}' has no rows yet; `./lab run --run {run}` goes on with it")
    source, executed = NOTEBOOKS / f"{notebook}.ipynb", _executed(run, notebook, parameters)
    parameters = {"run_name": run, **(parameters or {})}
    known = papermill.inspect_notebook(str(source))
    for parameter in parameters:
        if parameter not in known:
            raise unknown("parameter", parameter, known)
    executed.parent.mkdir(parents=True, exist_ok=True)
    made_of, part = _made_of(run, source, parameters), executed.with_suffix(".part.ipynb")
    if executed.exists():
        document = nbformat.read(executed, as_version=4)
        if document.metadata.get("made_of") == made_of:
            return document
    try:
        # By sockets of this user's own, in a folder of this kernel's own: by themselves all would have the same names.
        with tempfile.TemporaryDirectory(prefix="lab-kernel-") as sockets:
            kernel = {"transport": "ipc", "ip": f"{sockets}/socket"}
            papermill.execute_notebook(
                str(source), str(part), parameters, cwd=str(NOTEBOOKS), progress_bar=False,
                execution_timeout=CELL_TIMEOUT_S, config=Config({"KernelManager": kernel, "NotebookClient": QUIET}),
            )  # fmt: skip
    except PapermillExecutionError as error:
        raise LabError(f"{part}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, RuntimeError) as error:  # the latter: a kernel that has died, or does not answer
        raise LabError(f"{part}: did not run to its end ({str(error).partition(chr(10))[0]})") from None
    document = nbformat.read(part, as_version=4)
    if not _is_complete(document):
        raise LabError(f"{part}: did not run to its end; call again, or open it in JupyterLab")
    document.metadata["made_of"] = made_of
    disk.write_whole(executed, nbformat.writes(document))
    part.unlink()
    return document


def parts(run: str) -> list[tuple[str, dict]]:
    """The notebooks that a run has data for, each with its parameters; of several studies, once all have a number of
    the cell that the others are held against."""
    rows = store.load(run)
    found = [(SIZES, {})] if rows.empty or (rows["study"] == "").any() else []
    for name, plan in rows.attrs["environment"].get("studies", {}).items():
        about = plan["parameters"]
        load = {key: about.get(key) for key in LOAD}
        if not comparison.has_baseline(rows, name):
            continue
        if plan["kind"] == "throughput":
            found.append((UNDER_LOAD, load))
        elif plan["kind"] == "memory" and about["of"] == "limit":
            found.append((MEMORY, load))
        elif name == "startup-container":
            found.append((STARTUP, {}))
        elif plan["kind"] == "build":
            found.append((BUILD, {}))
    measured = (choice.study_of(rows, each.kind, each.metric, "") for each in choice.MEASURED.values())
    if stats.cells(rows)["ok"].any() and any(measured):
        found.append((CHOOSE, {}))
    asked = any(f" {KNOBS}" in command for command in rows.attrs["environment"].get("commands", []))
    if asked or attribution.everything(rows)[0]:  # of one that was asked for, also why there is none
        found.append((ATTRIBUTION, {}))
    if deployment.is_measured(rows):
        found.append((DEPLOY, {}))
    if survival.is_probed(rows):
        found.append((SURVIVAL, {}))
    return sorted(found, key=lambda part: part[0])


def _parts_of_page(run: str, rows: pd.DataFrame) -> list[tuple[str, dict]]:
    """The same without what of many cells plots each by itself, where `ATTRIBUTION` tells what they have in common."""
    found = parts(run)
    if ATTRIBUTION not in dict(found):
        return found
    told = {each.quantity.kind for each in attribution.everything(rows)[0] if len(each.values) >= MANY_CELLS}
    plans = rows.attrs["environment"].get("studies", {}).values()
    few = {plan["kind"] for plan in plans if len(plan["cells"]) - 1 < MANY_CELLS}  # the twin is one of the cells
    left_out = {notebook for notebook, kind in ONE_BY_ONE.items() if kind in told - few}
    return [each for each in found if each[0] not in left_out]


def _recorded() -> list[str]:
    """The recorded runs of the article's app, the article's grid first."""
    first = f"{store.RECORDED_RUN}/{store.DEFAULT_RUN}"
    found = [name for name, path in store.runs().items() if path.is_relative_to(RECORDED)]
    found = [name for name in found if stats.app(store.load(name)) == stats.ARTICLES_APP]
    return sorted(found, key=lambda name: (name != first, name))


def _lead(runs: dict[str, pd.DataFrame]) -> page.Lead:
    best, shipped = answers.best(runs), {}
    for each in best:
        factors = runs[each.run].query("cell == @each.cell").iloc[0][["base", "profile", "allocator"]]
        text = _or_why_not(store.dockerfile, each.run, each.cell)
        profile = _or_why_not(choice.cargo_profile, *factors)
        shipped[each.run, each.cell] = page.Shipped(each.run, each.cell, each.name, text, profile)
    of_article = answers.allocator(runs), answers.article(runs), answers.notes(runs)
    sources = [_source(name, rows) for name, rows in runs.items()]
    return page.Lead(best, *of_article, list(shipped.values()), sources, host.lab())


def _or_why_not(make: Callable[..., str], *arguments: str) -> str:
    """A block of the page, or in its place why there is none: a run may be of another lab."""
    try:
        return make(*arguments)
    except LabError as error:
        return f"# {error}\n"


def _source(name: str, rows: pd.DataFrame) -> page.Source:
    found = rows.attrs["environment"]
    bases = found.get("images", {}).values()
    images = [f"{image['name']}: {image['label']}, {image['source']}, {image['digest']}" for image in bases]
    blocks = rows[rows["ok"]].groupby("study")["block"].nunique()
    seeds = {study: plan["seed"] for study, plan in found.get("studies", {}).items() if study in blocks}
    studies = [f"Study {study}: {blocks[study]} blocks, seed {seed}" for study, seed in seeds.items()]
    own = name.replace("/", "-")
    files = {f"{own}-{path.name}.xz": lzma.compress(path.read_bytes(), preset=9) for path in store.files(name)}
    facts = {**found.get("machine", {}), **found.get("tools", {})}
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    app = found.get("app", {})
    told = f"{stats.app(rows)}, lockfile SHA-256 {app.get('lockfile_sha256', 'not recorded')}"
    return page.Source(name, found.get("commands", []), machine, told, images, studies, files)


def _print(written: Path) -> Path:
    """The page as a PDF, by a browser of this machine."""
    browser = host.browser()
    if not browser:
        remedy = f"{host.REMEDIES['chromium']}, or print {written} from any browser"
        raise LabError(f"a PDF is made by Chromium or Chrome, and neither is here: {remedy}")
    part = written.with_name(".report.pdf.part")
    part.unlink(missing_ok=True)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which a browser refuses to have as root
    flags = ["--headless", *sandbox, "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={part}"]
    engine.run([browser, *flags, written.as_uri()], timeout=PDF_TIMEOUT_S)
    if not part.exists():
        raise LabError(f"{browser} made no PDF of {written}; print it from any browser")
    part.replace(written.with_suffix(".pdf"))
    return written.with_suffix(".pdf")


def _executed(run: str, notebook: str, parameters: dict | None) -> Path:
    told = (f"{key}-{value}" for key, value in (parameters or {}).items())
    return REPORTS / run / (re.sub(r"[^\w.~-]", "", "_".join([notebook, *told])) + ".ipynb")


def _is_complete(document: nbformat.NotebookNode) -> bool:
    return SENTINEL in "".join(output.get("text", "") for output in document.cells[-1].get("outputs", []))


def _without_sentinel(document: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The document without the line that is for us alone."""
    last = document.cells[-1]
    for output in last.outputs:
        output["text"] = "".join(line for line in output["text"].splitlines(True) if SENTINEL not in line)
    last.outputs = [output for output in last.outputs if output["text"]]
    return document


def _made_of(run: str, source: Path, parameters: dict) -> str:
    """The SHA-256 of all that the outputs of a notebook hang on, in hex."""
    texts = sorted((store.run_path(run) / "dockerfiles").rglob("Dockerfile.*"))
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    own = sorted(Path(__file__).parent.rglob("*.py"))
    for path in [source, *store.files(run), *texts, *own, ARTICLE, PROBES_FILE, PROFILES, PUBLISHED]:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()
