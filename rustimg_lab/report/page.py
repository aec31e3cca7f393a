"""Executed notebooks and answers -> one page: self-contained HTML, or Markdown with figures."""

import base64
import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from markupsafe import Markup, escape

from rustimg_lab.analysis import cells
from rustimg_lab.model import metrics
from rustimg_lab.report import format, fragments
from rustimg_lab.report.format import in_markdown, plain
from rustimg_lab.report.summary import Answer

ALLOCATORS = "Ratios to malloc of the C library on the same base and CPU, with 95% intervals. Below 1x is less."
PLAN = re.compile(r"In this notebook we will:\n\n(?:\* .*\n)+\n?")  # for who works through the notebook: no answer
_TO_THE_LAB = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")  # a link to a file of the lab's, which is not beside the page
TEMPLATES = Path(__file__).parent / "templates"
_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An executed notebook on the page. `facts` tell it from others of the same notebook: the run, and parameters;
    `label`: what the contents call its question (default: its title)."""

    document: nbformat.NotebookNode
    facts: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        return self.document.cells[0].source.partition("\n")[0].removeprefix("# ")

    @property
    def of(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.facts.items())


@dataclass(frozen=True)
class Shipped:
    """What a reader takes along of a run's cell: name in words, Dockerfile, Cargo profile."""

    run: str
    cell: str
    name: str
    dockerfile: str
    profile: str


@dataclass(frozen=True)
class Source:
    """A run as the page's last section has it: what it was called with, and on what."""

    name: str
    commands: list[str]
    machine: str
    app: str
    images: list[str]
    studies: list[str]


@dataclass(frozen=True)
class Lead:
    """What the page begins and ends with: the answers, and how to reproduce them. `allocators` as in
    `summary.allocators`; `article` as `cells.article_grid`; `trade_off` as in `summary.trade_off`. `source` says which
    lab made the page; `rows`: the raw files of all runs, an archive (tar, xz)."""

    best: list[Answer] = field(default_factory=list)
    allocators: pd.DataFrame = field(default_factory=pd.DataFrame)
    article: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list[str] = field(default_factory=list)
    shipped: list[Shipped] = field(default_factory=list)
    runs: list[Source] = field(default_factory=list)
    source: str = ""
    trade_off: dict[str, Any] = field(default_factory=dict)
    rows: bytes = b""


def html(title: str, subtitle: str, parts: list[Part], lead: Lead | None = None) -> str:
    """Return the page as HTML, with a section for each question. The browser may load nothing, and run no script but
    the page's own. Without `lead` the page has the sections alone."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    intro = lead or Lead()
    groups = [list(group) for _, group in itertools.groupby(parts, lambda part: _outline(part.document))]
    places = {(shipped.run, shipped.cell): f"ship-{number}" for number, shipped in enumerate(intro.shipped, 1)}
    tables = {
        "allocators": (intro.allocators, "What each allocator changes"),
        "article": (article(intro.article), "Sizes in the article of 2021, and today"),
    }
    return _JINJA.get_template("page.html.j2").render(
        vars(intro) | {key: Markup(fragments.of_table(*pair)) if len(pair[0]) else "" for key, pair in tables.items()},
        title=title,
        about=subtitle,
        sections=[_question(group, number, bool(intro.runs)) for number, group in enumerate(groups, 1)],
        most_parts=max(map(len, groups), default=0),
        lead=lead is not None,
        goals=Markup(_linked(intro.best, places)) if intro.best else "",
        trade_off_json=json.dumps(intro.trade_off) if intro.trade_off else "",
        places=places,
        about_allocators=ALLOCATORS,
        archive=base64.b64encode(intro.rows).decode(),
        runs=[_source(run, parts) for run in intro.runs],
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def _outline(document: nbformat.NotebookNode) -> list[str]:
    """Return what the parts of one question have in common: the texts, and where the code is."""
    return [cell.source if cell.cell_type == "markdown" else "" for cell in document.cells]


def _question(parts: list[Part], number: int, footers_apart: bool) -> dict[str, Any]:
    """Return a section: the parts of one notebook, with the outputs of each cell beside each other. First come the
    verdict, and the first plot and table that are neighbours; then the rest. `footers_apart`: the last cells are shown
    elsewhere."""
    columns = _columns([part.document for part in parts], footers_apart)[1:]
    code = [place for place, column in enumerate(columns) if column[0].cell_type == "code"]
    pairs = [pair for pair in itertools.pairwise(code[1:]) if _has(columns, pair, "image/png") and _has(columns, pair)]
    opening_places = range(pairs[0][0], pairs[0][1] + 1) if pairs else range(0)
    while opening_places and opening_places[0] - 1 not in (-1, *code):  # the heading, and what it says
        opening_places = range(opening_places[0] - 1, opening_places[-1] + 1)
    names, heading, remainder, headings, opening = _labels(parts), parts[0].title, [], [], []
    for place, column in enumerate(columns):
        if column[0].cell_type == "markdown":
            heading = column[0].source.partition("\n")[0].lstrip("# ")
            fragment = fragments.of_markdown(column[0].source, f"part-{number}")
        else:
            fragment = _beside(column, names, heading, place in opening_places)
        (opening if place in opening_places or place in code[:1] else remainder).append(fragment)
        headings += [heading] if column[0].cell_type == "markdown" and place not in opening_places else []
    return {
        "id": f"part-{number}",
        "title": parts[0].title,
        "label": parts[0].label or parts[0].title,
        "names": names,
        "of": parts[0].of if len(parts) == 1 else "",
        "intro": Markup(fragments.of_markdown(PLAN.sub("", parts[0].document.cells[0].source.partition("\n")[2]))),
        "first": Markup("".join(opening)),
        "headings": headings,
        "rest": Markup("".join(remainder)),
    }


def _columns(documents: list[nbformat.NotebookNode], footers_apart: bool = False) -> list[tuple]:
    """Return the cells of documents with one outline, the cells of one place together. Code without output is left out,
    and so is text that has such code alone."""
    columns = list(zip(*(document.cells for document in documents), strict=True))[: -1 if footers_apart else None]
    visible = []
    for number, column in enumerate(columns):
        code = list(itertools.takewhile(lambda following: following[0].cell_type == "code", columns[number + 1 :]))
        code_columns = [column] if column[0].cell_type == "code" else code
        has_more = column[0].cell_type == "markdown" and not code and "\n" in column[0].source
        if number == 0 or has_more or any(cell.outputs for code_column in code_columns for cell in code_column):
            visible.append(column)
    return visible


def _has(columns: list[tuple], places: tuple[int, int], kind: str = "<table") -> bool:
    outputs = [output.get("data", {}) for place in places for cell in columns[place] for output in cell.outputs]
    return any(kind in data or kind in data.get("text/html", "") for data in outputs)


def _labels(parts: list[Part]) -> list[str]:
    """Return what the parts of a section differ by, in words."""
    keys = [key for key in parts[0].facts if len({str(part.facts.get(key)) for part in parts}) > 1]
    return [", ".join(f"{key} {part.facts.get(key, 'not recorded')}" for key in keys) for part in parts]


def _beside(column: tuple, names: list[str], caption: str, reduced: bool) -> str:
    """Return what the cells of one place show. Equal outputs are there once; others each have the name of their
    part."""
    texts = [
        "".join(
            fragments.of_output(output, f"{caption}{f' ({number})' if number > 1 else ''}", reduced)
            for number, output in enumerate(cell.outputs, 1)
        )
        for cell in column
    ]
    if len(set(texts)) == 1:
        return texts[0]
    items = [(number, *pair) for number, pair in enumerate(zip(names, texts, strict=True), 1) if pair[1]]
    return "".join(
        f'<div class="of of-{number}"><p class="of-name">{escape(name)}</p>{text}</div>' for number, name, text in items
    )


def markdown(title: str, subtitle: str, parts: list[Part], lead: Lead, folder: str) -> tuple[str, dict[str, bytes]]:
    """Return the page as GitHub's Markdown, and its figures (PNG) by file name. The page links to each figure in
    `folder`."""
    blocks, figures = [f"# {plain(title)}", plain(subtitle)], {}
    if lead.best:
        answer = lead.best[0]
        blocks += [f"## {plain(answer.heading)}"]
        facts = f"{answer.goal}: {answer.facts}. {answer.note}"
        blocks += [plain(text) for text in (facts, answer.sure, answer.decides, answer.missed)]
    blocks += ["## The allocator", ALLOCATORS, _pipes(lead.allocators)] if len(lead.allocators) else []
    sizes = article(lead.article)
    if len(sizes):
        blocks += ["## The article of 2021, and today", "Images in MB (1e6 bytes), unpacked.", _pipes(sizes)]
    blocks += [f"**{plain(note)}**" for note in lead.notes]
    if lead.best:
        blocks += ["## Best image per goal", _pipes(_goals(lead.best))]
    for part in parts:
        blocks += _in_markdown(part, folder, figures)
    for shipped in lead.shipped:
        blocks += [f"## {plain(shipped.name)}, of run {plain(shipped.run)}"]
        blocks += [_fenced(shipped.dockerfile, "dockerfile"), _fenced(shipped.profile, "toml")]
    blocks.append("## How to reproduce it")
    for run in lead.runs:
        commands = [_fenced("\n".join(run.commands))] if run.commands else []
        lines = [f"Machine: {run.machine}", f"App: {run.app}", *run.images, *run.studies]
        blocks += [f"### Run {plain(run.name)}", *commands, "\n".join(f"- {plain(line)}" for line in lines)]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n", figures


def article(table: pd.DataFrame) -> pd.DataFrame:
    """Return sizes in MB (1e6 bytes) as text: a row per base, and for each profile a column for the article and one for
    today. `table` is `cells.article_grid`; the result is empty when that is."""
    if table.empty:
        return pd.DataFrame()
    rows = table.assign(base=cells.bases_in_words(table))
    columns = {}
    for profile, profile_rows in rows.groupby("profile", sort=False):
        for column, year in (("article_bytes", "2021"), (metrics.UNPACKED_BYTES, "today")):
            sizes = [format.megabytes(size) or "no number" for size in profile_rows[column]]
            columns[f"{profile}, {year}"] = dict(zip(profile_rows["base"], sizes, strict=True))
    return pd.DataFrame(columns).fillna("").rename_axis("base").reset_index()


def _goals(best: list[Answer]) -> pd.DataFrame:
    """The best image per goal, as text, with a column per quantity that was measured of any."""
    lines = []
    for answer in best:
        texts = {label: value.replace(" ", "\N{NO-BREAK SPACE}") for label, value in answer.measured.items()}
        lines.append({"goal": answer.goal, "ship": answer.name, **texts, "how sure": answer.sure, "of run": answer.run})
    return pd.DataFrame(lines).fillna("")


def _pipes(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    texts = table.astype(str)
    numbers = [place for place in range(texts.shape[1]) if fragments.is_number(texts.iloc[:, place])]
    return in_markdown(list(table), texts.to_numpy().tolist(), numbers)


def _linked(best: list[Answer], places: dict[tuple[str, str], str]) -> str:
    """`_goals` as HTML, each image a link to its Dockerfile."""
    soup = BeautifulSoup(fragments.of_table(_goals(best), "Best image per goal"), "html.parser")
    for row, answer in zip(soup.find("tbody")("tr"), best, strict=True):
        cell = row("td")[1]
        link = soup.new_tag("a", href=f"#{places[answer.run, answer.cell]}", string=cell.get_text())
        cell.clear()
        cell.append(link)
    return str(soup)


def _source(run: Source, parts: list[Part]) -> dict[str, Any]:
    """A run for the last section, with what the last cell of its first notebook shows: method and environment."""
    outputs = next((part.document.cells[-1].outputs for part in parts if part.facts.get("run") == run.name), [])
    texts = (fragments.of_output(output, f"Method and environment of run {run.name}") for output in outputs)
    return {**vars(run), "method": Markup("".join(texts))}


def _in_markdown(part: Part, folder: str, figures: dict[str, bytes]) -> list[str]:
    blocks = []
    for (cell,) in _columns([part.document]):
        if cell.cell_type == "markdown":
            source = re.sub(r"^(#+ )", r"#\1", PLAN.sub("", cell.source), flags=re.MULTILINE)
            blocks.append(_TO_THE_LAB.sub(r"\1", source))
            if part.of and cell.source.startswith("# "):
                blocks.append(f"*{part.of}*")
            continue
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                figure = fragments.smaller(base64.b64decode(data["image/png"]), "PNG")
                name = f"{hashlib.sha256(figure).hexdigest()[:16]}.png"
                figures[name] = figure
                alt = output.metadata.get("image/png", {}).get("alt", "")
                blocks.append(f"![{plain(alt)}]({folder}/{name})")
            elif "text/markdown" in data:
                blocks.append(data["text/markdown"])
            elif "text/html" in data:
                blocks += _tables(data["text/html"])
            elif "text" in output:
                blocks.append(_fenced(output["text"]))
    return blocks


def _tables(fragment: str) -> list[str]:
    """The tables of an output, and its other text, as Markdown."""
    soup = BeautifulSoup(fragment, "html.parser")
    for tag in soup(["style", "details"]):
        tag.decompose()
    blocks = []
    for table in soup("table"):
        if caption := table.find("caption"):
            blocks.append(f"*{plain(caption.extract().get_text())}*")
        if rows := [[cell.get_text().strip() for cell in row(["th", "td"])] for row in table("tr")]:
            blocks.append(_pipes(pd.DataFrame(rows[1:], columns=rows[0])))
        table.decompose()
    text = plain(soup.get_text())
    return [*blocks, text] if text else blocks


def _fenced(text: str, kind: str = "") -> str:
    """A block of text as Markdown, whatever stands in it."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{kind}\n{text.rstrip()}\n{fence}"
