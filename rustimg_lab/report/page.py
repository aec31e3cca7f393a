"""Executed notebooks and answers -> one page: self-contained HTML, or Markdown with figures."""

import base64
import hashlib
import io
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from PIL import Image, UnidentifiedImageError

from rustimg_lab.analysis import cells
from rustimg_lab.model import metrics
from rustimg_lab.report import format
from rustimg_lab.report.format import in_markdown, plain
from rustimg_lab.report.summary import Answer

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = 64  # of a figure; a plot has few, and is a third of its size so
PICTURE = "data:image/png;base64,"
MARKUP = {
    *("h1", "h2", "h3", "h4", "h5", "p", "div", "span", "blockquote", "pre", "hr", "br", "details", "summary"),
    *("a", "b", "code", "em", "i", "strong", "sub", "sup", "ul", "ol", "li"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(%|\s(MB|kB|ms|µs|s))?")
NO_NUMBER = ("", "not measured", "no number")
_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An executed notebook as a section of the page: `of` says in words of what, "" where there is but one."""

    document: nbformat.NotebookNode
    of: str = ""

    @property
    def title(self) -> str:
        return self.document.cells[0].source.partition("\n")[0].removeprefix("# ")


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
    """A run as the page's last section has it: what it was called with, on what, and its files by name."""

    name: str
    commands: list[str]
    machine: str
    app: str
    images: list[str]
    studies: list[str]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Lead:
    """What the page begins and ends with: the answers, and how to reproduce them. `allocator` is Markdown, `article` a
    table as `cells.article_grid`; `source` says which lab made it."""

    best: list[Answer] = field(default_factory=list)
    allocator: str = ""
    article: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list[str] = field(default_factory=list)
    shipped: list[Shipped] = field(default_factory=list)
    runs: list[Source] = field(default_factory=list)
    source: str = ""


def html(title: str, about: str, parts: list[Part], lead: Lead | None = None) -> str:
    """The page as HTML. The browser is told to load nothing, and to run no script but the page's own."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    sections = [
        {"id": f"part-{number}", "title": part.title, "of": part.of, "body": Markup(_body(part.document, number))}
        for number, part in enumerate(parts, 1)
    ]
    own = lead or Lead()
    then_and_now = article(own.article)
    places = {(each.run, each.cell): f"ship-{number}" for number, each in enumerate(own.shipped, 1)}
    return _JINJA.get_template("page.html.j2").render(
        vars(own),
        title=title,
        about=about,
        sections=sections,
        lead=lead is not None,
        goals=Markup(_linked(own.best, places)) if own.best else "",
        places=places,
        allocator=Markup(_tidy(markdown2html(own.allocator), 0)) if own.allocator else "",
        article=Markup(_tidy(then_and_now.to_html(index=False, border=0), 0)) if len(then_and_now) else None,
        runs=list(map(_source, own.runs)),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def markdown(title: str, about: str, parts: list[Part], lead: Lead, folder: str) -> tuple[str, dict[str, bytes]]:
    """The page as GitHub's Markdown, and its figures by the name that it has for them, below `folder`."""
    said, figures = [f"# {plain(title)}", plain(about)], {}
    if lead.best:
        first = lead.best[0]
        said += ["## Ship this", plain(f"{first.name}: {first.goal}: {first.facts}. {first.sure}")]
    said += ["## The allocator", lead.allocator] if lead.allocator else []
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
    numbers = [place for place in range(shown.shape[1]) if _is_number(shown.iloc[:, place])]
    return in_markdown(list(table), shown.to_numpy().tolist(), numbers)


def _linked(best: list[Answer], places: dict[tuple[str, str], str]) -> str:
    """`_goals` as HTML, each image a link to its Dockerfile."""
    soup = BeautifulSoup(_tidy(_goals(best).to_html(index=False, border=0), 0), "html.parser")
    for row, answer in zip(soup.find("tbody")("tr"), best, strict=True):
        shown = row("td")[1]
        link = soup.new_tag("a", href=f"#{places[answer.run, answer.cell]}", string=shown.get_text())
        shown.clear()
        shown.append(link)
    return str(soup)


def _body(document: nbformat.NotebookNode, number: int) -> str:
    hidden = dict.fromkeys(("exclude_input", "exclude_input_prompt", "exclude_output_prompt"), True)
    exporter = HTMLExporter(template_name="basic", embed_images=True, **hidden)
    fragment, _ = exporter.from_notebook_node(nbformat.from_dict({**document, "cells": _shown(document)}))
    return _tidy(fragment, number)


def _shown(document: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that a reader has something from: no text on code that shows nothing, such as what only asserts."""
    found: list[nbformat.NotebookNode] = []
    for number, cell in enumerate(document.cells):
        code = list(itertools.takewhile(lambda each: each.cell_type == "code", document.cells[number + 1 :]))
        if number == 0 or cell.cell_type == "code" or not code or any(each.outputs for each in code):
            found.append(cell)
    return found


def _tidy(fragment: str, number: int) -> str:
    """A fragment as the page has it: no foreign markup, headings a level lower, own names, tables that scroll."""
    soup = BeautifulSoup(fragment, "html.parser")
    for each in soup("style"):
        each.decompose()
    _as_text(soup)
    for anchor in soup.select("a.anchor-link"):
        anchor.decompose()
    for heading in soup(["h5", "h4", "h3", "h2", "h1"]):
        heading.name = f"h{int(heading.name[1]) + 1}"
    for each in soup(True):
        names = {"id": f"part-{number}-{each['id']}"} if each.name in ("h2", "h3", "h4") and each.get("id") else {}
        kept = {name: each[name] for name in ("href", "src", "alt", "colspan", "rowspan") if name in each.attrs}
        each.attrs = kept | names
    for table in soup("table"):
        _tidy_table(table)
        table.wrap(soup.new_tag("div", attrs={"class": "table"}))
    for image in soup("img"):
        image.wrap(soup.new_tag("figure"))
    for each in soup("div"):
        if each.get("class") != "table" and each.get("class") != ["table"]:
            each.unwrap()
    return re.sub(r"\n\s*\n+", "\n", str(soup))


def _as_text(soup: BeautifulSoup) -> None:
    """Runs come from strangers: markup in their names and reasons that a page has no use for becomes text. Figures
    stay, made smaller."""
    for each in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):  # comments, CDATA
        each.replace_with(NavigableString(each.output_ready()))
    for each in soup(True):
        if each.name == "img" and (picture := _picture(each.get("src", ""))):
            each["src"] = picture
        elif each.name not in MARKUP and each.parent is not None:
            each.replace_with(str(each))
        elif each.name == "a" and not re.match(r"https?://|#", each.get("href", "")):
            del each["href"]


def _tidy_table(table: Tag) -> None:
    rows = [row.find_all(["th", "td"]) for row in table("tr")]
    width = min(map(len, rows), default=0)
    for place in range(width):
        column = [row[place] for row in rows]
        if _is_number(pd.Series([cell.get_text().strip() for cell in column if cell.name == "td"], dtype=str)):
            for cell in column:
                cell["class"] = "number"


def _is_number(values: pd.Series) -> bool:
    told = values[~values.isin(NO_NUMBER)]
    return len(told) > 0 and all(NUMBER.fullmatch(value) for value in told)


def _picture(source: str) -> str:
    """A figure (a PNG as a data URL) made smaller; "" for what is none."""
    try:
        return f"{PICTURE}{base64.b64encode(_smaller(source)).decode()}" if source.startswith(PICTURE) else ""
    except (ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""


def _smaller(source: str) -> bytes:
    """A figure (a PNG as a data URL) with as few colours as it needs."""
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(COLOURS).save(written, "PNG", optimize=True)
    return written.getvalue()


def _source(run: Source) -> dict[str, Any]:
    files = []
    for name, content in run.files.items():
        data = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
        files.append({"name": name, "data": data, "size": f"{len(content) / 1e3:.0f} kB"})
    return {**vars(run), "files": files}


def _in_markdown(part: Part, folder: str, figures: dict[str, bytes]) -> list[str]:
    said = []
    for cell in _shown(part.document):
        if cell.cell_type == "markdown":
            said.append(re.sub(r"^(#+ )", r"#\1", cell.source, flags=re.MULTILINE))
            if part.of and cell.source.startswith("# "):
                said.append(f"*{part.of}*")
            continue
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                figure = _smaller(f",{data['image/png']}")
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
