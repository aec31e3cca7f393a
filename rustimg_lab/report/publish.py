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
from rustimg_lab.errors import LabError, or_why_not
from rustimg_lab.host import process, tools
from rustimg_lab.host.files import add_file, write_whole
from rustimg_lab.host.machine import lab
from rustimg_lab.model import cargo_profile
from rustimg_lab.model.names import listed
from rustimg_lab.report import notebooks, page, sections, summary
from rustimg_lab.store import runs as store_runs
from rustimg_lab.store.runs import RunData

PDF_TIMEOUT_S = 180
MANY_RUNS = 3  # from there on the page names them at its end alone


def whole(name: str, form: str = "html", on_part: Callable[[str], None] = lambda text: None) -> Path:
    """Writes the page of a run, or of several with commas between: the answers, then a part for each notebook that has
    data; returns its path. `recorded`: all that is recorded of the article's app. Raises LabError when a run is unknown
    or of another app, a notebook fails, or there is no browser for a PDF; an earlier page then stays."""
    if form == "pdf" and not tools.browser():
        remedy = f"{tools.REMEDIES['chromium']}, or print the page of --format html from any browser"
        raise LabError(f"a PDF is made by Chromium or Chrome, and neither is here: {remedy}")
    runs = {each: store_runs.load(each) for each in sections.names(name)}
    apps = {each: cells.app_name(run) for each, run in runs.items()}
    if len(set(apps.values())) > 1:
        raise LabError(f"these runs are of several apps ({', '.join(dict.fromkeys(apps.values()))}): a page is of one")
    wanted = [(run, n, p) for run, data in runs.items() for n, p in sections.parts_of_page(data)]
    wanted += sections.across(runs)
    if not wanted:
        raise LabError(f"run '{name}' has no study with enough trials; the same `./lab measure` resumes it")
    order = list(sections.SECTIONS)
    wanted.sort(key=lambda part: order.index(part[1]))
    documents = notebooks.execute_all(wanted, lambda number: on_part(f"{number} of {len(wanted)} notebooks"))
    made = []
    for (run, notebook, parameters), document in zip(wanted, documents, strict=True):
        facts = _facts(run, runs[run], parameters)
        made.append(page.Part(notebooks.without_sentinel(document), facts, sections.SECTIONS[notebook].label))

    folder = sections.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{next(iter(apps.values()))}: which image to ship, and what each choice costs"
    listed = f"{len(runs)} runs, listed at the end" if len(runs) > MANY_RUNS else f"Runs {', '.join(runs)}"
    about = f"{listed}. Page made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    lead = _lead(runs)
    if form == "md":
        text, figures = page.markdown(title, about, made, lead, "report")
        (folder / "report").mkdir(exist_ok=True)
        for figure, content in figures.items():  # named by what is in them: an earlier page keeps its own
            (folder / "report" / figure).write_bytes(content)
        write_whole(folder / "report.md", text)
        for path in (folder / "report").iterdir():
            if path.name not in figures:
                path.unlink()
        return folder / "report.md"
    write_whole(folder / "report.html", page.html(title, about, made, lead))
    return _print(folder / "report.html") if form == "pdf" else folder / "report.html"


def _facts(run: str, data: RunData, parameters: dict[str, Any]) -> dict[str, Any]:
    """What tells a part of the page from others of its notebook."""
    if "others" in parameters:
        named = ", ".join(filter(None, [run, *listed(parameters["others"])]))
        return {"runs": named} | {key: each for key, each in parameters.items() if key != "others"}
    return {"run": run, "CPU": data.environment.machine.get("cpu_model", "not recorded"), **parameters}


def _lead(runs: dict[str, RunData]) -> page.Lead:
    best, shipped = summary.best(runs), {}
    for each in best:
        factors = runs[each.run].rows.query("cell == @each.cell").iloc[0][cargo_profile.FACTORS]
        text = or_why_not(store_runs.dockerfile, each.run, each.cell)
        profile = or_why_not(cargo_profile.cargo_profile, *factors)
        shipped[each.run, each.cell] = page.Shipped(each.run, each.cell, each.name, text, profile)
    of_article = summary.allocators(runs), summary.article(runs), summary.notes(runs)
    sources = [_source(name, run) for name, run in runs.items()]
    more = {"trade_off": summary.trade_off(runs), "rows": _archive(list(runs))}
    return page.Lead(best, *of_article, list(shipped.values()), sources, lab(), **more)


def _source(name: str, run: RunData) -> page.Source:
    found = run.environment
    bases = found.images.values()
    images = [f"{image['name']}: {image['label']}, {image['source']}, {image['digest']}" for image in bases]
    blocks = run.rows[run.rows["ok"]].groupby("study")["block"].nunique()
    seeds = {study: plan.seed for study, plan in found.studies.items() if study in blocks}
    studies = [f"Study {study}: {blocks[study]} blocks, seed {seed}" for study, seed in seeds.items()]
    facts = {**found.machine, **found.tools}
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    told = f"{cells.app_name(run)}, lockfile SHA-256 {found.app.get('lockfile_sha256', 'not recorded')}"
    return page.Source(name, found.commands, machine, told, images, studies)


def _archive(names: list[str]) -> bytes:
    """The raw files of runs as an archive (tar, xz), in which what they have in common is there once."""
    whole = {name: store_runs.run_path(name) for name in dict.fromkeys(n.partition(store_runs.AT)[0] for n in names)}
    files = [
        (f"{name}/{path.relative_to(folder)}", path.read_bytes())
        for name, folder in whole.items()
        for path in store_runs.files(name)
    ]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in sorted(files, key=lambda each: Path(each[0]).name):
            add_file(archive, name, io.BytesIO(content))
    return lzma.compress(written.getvalue(), preset=6 | lzma.PRESET_EXTREME)


def _print(written: Path) -> Path:
    """The page as a PDF, by a browser of this machine."""
    browser, part = tools.browser(), written.with_name(".report.pdf.part")
    part.unlink(missing_ok=True)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which a browser refuses to have as root
    flags = ["--headless", *sandbox, "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={part}"]
    process.run([browser, *flags, written.as_uri()], timeout=PDF_TIMEOUT_S)
    if not part.exists():
        raise LabError(f"{browser} made no PDF of {written}; print it from any browser")
    part.replace(written.with_suffix(".pdf"))
    return written.with_suffix(".pdf")
