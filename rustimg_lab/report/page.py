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
    """An executed notebook on the page. `facts`: the run and parameters; `label`: its question in the contents."""

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
    `summary.allocators`; `article` as `cells.article_grid`; `trade_off` as in `summary.trade_off`; `source` says which
    lab made it; `rows`: the raw files of all runs, an archive (tar, xz)."""

    best: list[Answer] = field(default_factory=list)
    allocators: pd.DataFrame = field(default_factory=pd.DataFrame)
    article: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list[str] = field(default_factory=list)
    shipped: list[Shipped] = field(default_factory=list)
    runs: list[Source] = field(default_factory=list)
    source: str = ""
    trade_off: dict[str, Any] = field(default_factory=dict)
    rows: bytes = b""


def html(title: str, about: str, parts: list[Part], lead: Lead | None = None) -> str:
    """The page as HTML. The browser may load nothing, and run no script but the page's own."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    own = lead or Lead()
    grouped = [list(group) for _, group in itertools.groupby(parts, lambda part: _outline(part.document))]
    places = {(each.run, each.cell): f"ship-{number}" for number, each in enumerate(own.shipped, 1)}
    tables = {
        "allocators": (own.allocators, "What each allocator changes"),
        "article": (article(own.article), "Sizes in the article of 2021, and today"),
    }
    return _JINJA.get_template("page.html.j2").render(
        vars(own) | {name: Markup(fragments.of_table(*each)) if len(each[0]) else "" for name, each in tables.items()},
        title=title,
        about=about,
        sections=[_question(group, number, bool(own.runs)) for number, group in enumerate(grouped, 1)],
        most_parts=max(map(len, grouped), default=0),
        lead=lead is not None,
        goals=Markup(_linked(own.best, places)) if own.best else "",
        trade_off_json=json.dumps(own.trade_off) if own.trade_off else "",
        places=places,
        about_allocators=ALLOCATORS,
        archive=base64.b64encode(own.rows).decode(),
        runs=[_source(each, parts) for each in own.runs],
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def _outline(document: nbformat.NotebookNode) -> list[str]:
    """What the parts of one question have in common: the texts, and where the code is."""
    return [cell.source if cell.cell_type == "markdown" else "" for cell in document.cells]


def _question(parts: list[Part], number: int, footers_apart: bool) -> dict[str, Any]:
    """A section: parts of one notebook, each cell's outputs beside each other. First the verdict, and the first plot
    and table that are neighbours; then the rest. `footers_apart`: what the last cells show is elsewhere on the page."""
    columns = _columns([part.document for part in parts], footers_apart)[1:]
    code = [place for place, column in enumerate(columns) if column[0].cell_type == "code"]
    both = [pair for pair in itertools.pairwise(code[1:]) if _has(columns, pair, "image/png") and _has(columns, pair)]
    first = range(both[0][0], both[0][1] + 1) if both else range(0)
    while first and first[0] - 1 not in (-1, *code):  # the heading, and what it says
        first = range(first[0] - 1, first[-1] + 1)
    names, heading, rest, headings, open_ = _labels(parts), parts[0].title, [], [], []
    for place, column in enumerate(columns):
        if column[0].cell_type == "markdown":
            heading = column[0].source.partition("\n")[0].lstrip("# ")
            shown = fragments.of_markdown(column[0].source, f"part-{number}")
        else:
            shown = _beside(column, names, heading, place in first)
        (open_ if place in first or place in code[:1] else rest).append(shown)
        headings += [heading] if column[0].cell_type == "markdown" and place not in first else []
    return {
        "id": f"part-{number}",
        "title": parts[0].title,
        "label": parts[0].label or parts[0].title,
        "names": names,
        "of": parts[0].of if len(parts) == 1 else "",
        "intro": Markup(fragments.of_markdown(PLAN.sub("", parts[0].document.cells[0].source.partition("\n")[2]))),
        "first": Markup("".join(open_)),
        "headings": headings,
        "rest": Markup("".join(rest)),
    }


def _columns(documents: list[nbformat.NotebookNode], footers_apart: bool = False) -> list[tuple]:
    """The cells of documents with one outline, by place, but those that show nothing, and texts on such alone."""
    columns = list(zip(*(document.cells for document in documents), strict=True))[: -1 if footers_apart else None]
    found = []
    for number, column in enumerate(columns):
        code = list(itertools.takewhile(lambda each: each[0].cell_type == "code", columns[number + 1 :]))
        on = [column] if column[0].cell_type == "code" else code
        has_more = column[0].cell_type == "markdown" and not code and "\n" in column[0].source
        if number == 0 or has_more or any(cell.outputs for each in on for cell in each):
            found.append(column)
    return found


def _has(columns: list[tuple], places: tuple[int, int], kind: str = "<table") -> bool:
    outputs = [output.get("data", {}) for place in places for cell in columns[place] for output in cell.outputs]
    return any(kind in data or kind in data.get("text/html", "") for data in outputs)


def _labels(parts: list[Part]) -> list[str]:
    """What the parts of a section differ by, in words."""
    differ = [key for key in parts[0].facts if len({str(part.facts.get(key)) for part in parts}) > 1]
    return [", ".join(f"{key} {part.facts.get(key, 'not recorded')}" for key in differ) for part in parts]


def _beside(column: tuple, names: list[str], caption: str, reduced: bool) -> str:
    """What the cells of one place show: once where all show the same, else each under its name."""
    shown = [
        "".join(
            fragments.of_output(output, f"{caption}{f' ({number})' if number > 1 else ''}", reduced)
            for number, output in enumerate(cell.outputs, 1)
        )
        for cell in column
    ]
    if len(set(shown)) == 1:
        return shown[0]
    named = [(number, *each) for number, each in enumerate(zip(names, shown, strict=True), 1) if each[1]]
    return "".join(
        f'<div class="of of-{number}"><p class="of-name">{escape(name)}</p>{text}</div>' for number, name, text in named
    )


def markdown(title: str, about: str, parts: list[Part], lead: Lead, folder: str) -> tuple[str, dict[str, bytes]]:
    """The page as GitHub's Markdown, and its figures by the name that it has for them, below `folder`."""
    said, figures = [f"# {plain(title)}", plain(about)], {}
    if lead.best:
        first = lead.best[0]
        said += [f"## {plain(first.heading)}"]
        facts = f"{first.goal}: {first.facts}. {first.note}"
        said += [plain(each) for each in (facts, first.sure, first.decides, first.missed)]
    said += ["## The allocator", ALLOCATORS, _pipes(lead.allocators)] if len(lead.allocators) else []
    then_and_now = article(lead.article)
    if len(then_and_now):
        said += ["## The article of 2021, and today", "Images in MB (1e6 bytes), unpacked.", _pipes(then_and_now)]
    said += [f"**{plain(note)}**" for note in lead.notes]
    if lead.best:
        said += ["## Best image per goal", _pipes(_goals(lead.best))]
    for part in parts:
        said += _in_markdown(part, folder, figures)
    for each in lead.shipped:
        said += [f"## {plain(each.name)}, of run {plain(each.run)}"]
        said += [_fenced(each.dockerfile, "dockerfile"), _fenced(each.profile, "toml")]
    said.append("## How to reproduce it")
    for run in lead.runs:
        commands = [_fenced("\n".join(run.commands))] if run.commands else []
        lines = [f"Machine: {run.machine}", f"App: {run.app}", *run.images, *run.studies]
        said += [f"### Run {plain(run.name)}", *commands, "\n".join(f"- {plain(line)}" for line in lines)]
    return "\n\n".join(each.strip("\n") for each in said) + "\n", figures


def article(table: pd.DataFrame) -> pd.DataFrame:
    """The article's figures and ours, a row per base, as text; of `cells.article_grid`."""
    if table.empty:
        return pd.DataFrame()
    shown = table.assign(base=cells.bases_in_words(table))
    wide = {}
    for profile, own in shown.groupby("profile", sort=False):
        for column, year in (("article_bytes", "2021"), (metrics.UNPACKED_BYTES, "today")):
            sizes = [format.megabytes(size) or "no number" for size in own[column]]
            wide[f"{profile}, {year}"] = dict(zip(own["base"], sizes, strict=True))
    return pd.DataFrame(wide).fillna("").rename_axis("base").reset_index()


def _goals(best: list[Answer]) -> pd.DataFrame:
    """The best image per goal, as text, with a column per quantity that was measured of any."""
    lines = []
    for each in best:
        measured = {label: value.replace(" ", "\N{NO-BREAK SPACE}") for label, value in each.measured.items()}
        lines.append({"goal": each.goal, "ship": each.name, **measured, "how sure": each.sure, "of run": each.run})
    return pd.DataFrame(lines).fillna("")


def _pipes(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    shown = table.astype(str)
    numbers = [place for place in range(shown.shape[1]) if fragments.is_number(shown.iloc[:, place])]
    return in_markdown(list(table), shown.to_numpy().tolist(), numbers)


def _linked(best: list[Answer], places: dict[tuple[str, str], str]) -> str:
    """`_goals` as HTML, each image a link to its Dockerfile."""
    soup = BeautifulSoup(fragments.of_table(_goals(best), "Best image per goal"), "html.parser")
    for row, answer in zip(soup.find("tbody")("tr"), best, strict=True):
        shown = row("td")[1]
        link = soup.new_tag("a", href=f"#{places[answer.run, answer.cell]}", string=shown.get_text())
        shown.clear()
        shown.append(link)
    return str(soup)


def _source(run: Source, parts: list[Part]) -> dict[str, Any]:
    """A run for the last section, with what the last cell of its first notebook shows: method and environment."""
    own = next((part.document.cells[-1].outputs for part in parts if part.facts.get("run") == run.name), [])
    shown = (fragments.of_output(each, f"Method and environment of run {run.name}") for each in own)
    return {**vars(run), "method": Markup("".join(shown))}


def _in_markdown(part: Part, folder: str, figures: dict[str, bytes]) -> list[str]:
    said = []
    for (cell,) in _columns([part.document]):
        if cell.cell_type == "markdown":
            own = re.sub(r"^(#+ )", r"#\1", PLAN.sub("", cell.source), flags=re.MULTILINE)
            said.append(_TO_THE_LAB.sub(r"\1", own))
            if part.of and cell.source.startswith("# "):
                said.append(f"*{part.of}*")
            continue
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                figure = fragments.smaller(base64.b64decode(data["image/png"]), "PNG")
                name = f"{hashlib.sha256(figure).hexdigest()[:16]}.png"
                figures[name] = figure
                alt = output.metadata.get("image/png", {}).get("alt", "")
                said.append(f"![{plain(alt)}]({folder}/{name})")
            elif "text/markdown" in data:
                said.append(data["text/markdown"])
            elif "text/html" in data:
                said += _tables(data["text/html"])
            elif "text" in output:
                said.append(_fenced(output["text"]))
    return said


def _tables(fragment: str) -> list[str]:
    """The tables of an output, and its other text, as Markdown."""
    soup = BeautifulSoup(fragment, "html.parser")
    for each in soup(["style", "details"]):
        each.decompose()
    found = []
    for table in soup("table"):
        if caption := table.find("caption"):
            found.append(f"*{plain(caption.extract().get_text())}*")
        if rows := [[cell.get_text().strip() for cell in row(["th", "td"])] for row in table("tr")]:
            found.append(_pipes(pd.DataFrame(rows[1:], columns=rows[0])))
        table.decompose()
    rest = plain(soup.get_text())
    return [*found, rest] if rest else found


def _fenced(text: str, kind: str = "") -> str:
    """A block of text as Markdown, whatever stands in it."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{kind}\n{text.rstrip()}\n{fence}"
