"""Runs -> the page that is shared, as HTML, Markdown or PDF."""

import datetime
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rustimg_lab.analysis import cells
from rustimg_lab.errors import LabError, text_or_reason
from rustimg_lab.host import process, tools
from rustimg_lab.host.files import add_file, write_whole
from rustimg_lab.host.machine import lab_version
from rustimg_lab.model import cargo_profile
from rustimg_lab.model.names import split_list
from rustimg_lab.report import notebooks, page, sections, summary
from rustimg_lab.store import runs as store_runs
from rustimg_lab.store.runs import RunData

PDF_TIMEOUT_S = 180
MANY_RUNS = 3  # from there on the page names them at its end alone


def write_page(name: str, form: str = "html", on_part: Callable[[str], None] = lambda text: None) -> Path:
    """Write the page of a run, or of several with commas between them, and return its path. The answers come first,
    then a part for each notebook that the runs have data for. `recorded` names all recorded runs of the article's app.

    Raises LabError when a run is unknown, the runs are of several apps or lack enough trials, or a notebook fails. A
    PDF without a browser raises it too. An earlier page then stays as it was.
    """
    if form == "pdf" and not tools.browser():
        remedy = f"{tools.REMEDIES['chromium']}, or print the page of --format html from any browser"
        raise LabError(f"a PDF is made by Chromium or Chrome, and neither is here: {remedy}")
    runs = {run_name: store_runs.load(run_name) for run_name in sections.names(name)}
    apps = {run_name: cells.app_name(run) for run_name, run in runs.items()}
    if len(set(apps.values())) > 1:
        raise LabError(f"these runs are of several apps ({', '.join(dict.fromkeys(apps.values()))}): a page is of one")
    calls = [(run, n, p) for run, data in runs.items() for n, p in sections.parts_of_page(data)]
    calls += sections.studies_across_machines(runs)
    if not calls:
        raise LabError(f"run '{name}' has no study with enough trials; the same `./lab measure` resumes it")
    order = list(sections.SECTIONS)
    calls.sort(key=lambda part: order.index(part[1]))
    documents = notebooks.execute_all(calls, lambda number: on_part(f"{number} of {len(calls)} notebooks"))
    parts = []
    for (run, notebook, parameters), document in zip(calls, documents, strict=True):
        facts = _facts(run, runs[run], parameters)
        parts.append(page.Part(notebooks.without_sentinel(document), facts, sections.SECTIONS[notebook].label))

    folder = sections.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{next(iter(apps.values()))}: which image to ship, and what each choice costs"
    run_list = f"{len(runs)} runs, listed at the end" if len(runs) > MANY_RUNS else f"Runs {', '.join(runs)}"
    subtitle = f"{run_list}. Page made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    lead = _lead(runs)
    if form == "md":
        text, figures = page.markdown(title, subtitle, parts, lead, "report")
        (folder / "report").mkdir(exist_ok=True)
        for figure, content in figures.items():  # named by what is in them: an earlier page keeps its own
            (folder / "report" / figure).write_bytes(content)
        write_whole(folder / "report.md", text)
        for path in (folder / "report").iterdir():
            if path.name not in figures:
                path.unlink()
        return folder / "report.md"
    write_whole(folder / "report.html", page.html(title, subtitle, parts, lead))
    return _print(folder / "report.html") if form == "pdf" else folder / "report.html"


def _facts(run: str, data: RunData, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a part of the page from other parts of its notebook."""
    if "others" in parameters:
        run_names = ", ".join(filter(None, [run, *split_list(parameters["others"])]))
        return {"runs": run_names} | {key: value for key, value in parameters.items() if key != "others"}
    return {"run": run, "CPU": data.environment.machine.get("cpu_model", "not recorded"), **parameters}


def _lead(runs: dict[str, RunData]) -> page.Lead:
    best, shipped = summary.best(runs), {}
    for answer in best:
        factors = runs[answer.run].rows.query("cell == @answer.cell").iloc[0][cargo_profile.FACTORS]
        text = text_or_reason(store_runs.dockerfile, answer.run, answer.cell)
        profile = text_or_reason(cargo_profile.cargo_profile, *factors)
        shipped[answer.run, answer.cell] = page.Shipped(answer.run, answer.cell, answer.name, text, profile)
    of_article = summary.allocators(runs), summary.article(runs), summary.notes(runs)
    sources = [_source(name, run) for name, run in runs.items()]
    more = {"trade_off": summary.trade_off(runs), "rows": _archive(list(runs))}
    return page.Lead(best, *of_article, list(shipped.values()), sources, lab_version(), **more)


def _source(name: str, run: RunData) -> page.Source:
    environment = run.environment
    bases = environment.images.values()
    images = [f"{image['name']}: {image['label']}, {image['source']}, {image['digest']}" for image in bases]
    blocks = run.rows[run.rows["ok"]].groupby("study")["block"].nunique()
    seeds = {study: plan.seed for study, plan in environment.studies.items() if study in blocks}
    studies = [f"Study {study}: {blocks[study]} blocks, seed {seed}" for study, seed in seeds.items()]
    facts = {**environment.machine, **environment.tools}
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    app = f"{cells.app_name(run)}, lockfile SHA-256 {environment.app.get('lockfile_sha256', 'not recorded')}"
    return page.Source(name, environment.commands, machine, app, images, studies)


def _archive(names: list[str]) -> bytes:
    """Return the raw files of runs as an archive (tar, xz). Files of one name are neighbours, so that equal content
    compresses."""
    folders = {name: store_runs.run_path(name) for name in dict.fromkeys(n.partition(store_runs.AT)[0] for n in names)}
    files = [
        (f"{name}/{path.relative_to(folder)}", path.read_bytes())
        for name, folder in folders.items()
        for path in store_runs.files(name)
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files, key=lambda entry: Path(entry[0]).name):
            add_file(archive, name, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=6 | lzma.PRESET_EXTREME)


def _print(path: Path) -> Path:
    """Print the page to a PDF with a browser of this machine, and return the path of the PDF."""
    browser, part = tools.browser(), path.with_name(".report.pdf.part")
    part.unlink(missing_ok=True)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which a browser refuses to have as root
    flags = ["--headless", *sandbox, "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={part}"]
    process.run([browser, *flags, path.as_uri()], timeout=PDF_TIMEOUT_S)
    if not part.exists():
        raise LabError(f"{browser} made no PDF of {path}; print it from any browser")
    part.replace(path.with_suffix(".pdf"))
    return path.with_suffix(".pdf")
