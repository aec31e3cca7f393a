"""README.md, docs/ and the notebooks' prose: plain words, short sentences, links that lead somewhere, and the site."""

import os
import re
import subprocess
from collections.abc import Iterator

import click
import nbformat
import pytest
from playwright.sync_api import sync_playwright
from support.plain_words import not_plain

from rustimg_lab.cli.main import lab
from rustimg_lab.host import tools
from rustimg_lab.paths import NOTEBOOKS, REPORTS, ROOT

pytestmark = pytest.mark.slow

SITE = REPORTS / "site"

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK_CELLS = {path.name: nbformat.read(path, as_version=4).cells for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
TEXTS = {path.name: path.read_text() for path in PAGES} | {
    name: "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for name, cells in NOTEBOOK_CELLS.items()
}
LINKED = [ROOT / "CONTRIBUTING.md", *PAGES, *sorted(NOTEBOOKS.glob("*.ipynb"))]
LONGEST_SENTENCE = 25  # words


def prose(text: str) -> str:
    """The text that a person wrote: without generated places, code, addresses and marks."""
    text = re.sub(r"<!-- \[\[\[cog.*?\[\[\[end\]\]\] -->", "", text, flags=re.DOTALL)
    text = re.sub(r"<!-- written by .*?<!-- end -->|<!--.*?-->|^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"`[^`]*`", "X", text)


def sentences(text: str) -> list[str]:
    """The sentences of paragraphs, list items and cells of tables."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.) )|\n(?=[|#])|\|", prose(text))
    return [one for block in blocks for one in re.split(r"(?<=[.!?:;])\s+", " ".join(block.split()))]


@pytest.mark.parametrize("name", TEXTS)
def test_its_words_are_plain(name):
    assert not_plain(prose(TEXTS[name])) == []


@pytest.mark.parametrize("path", [path for path in PAGES if "[[[cog" in path.read_text()], ids=lambda path: path.name)
def test_the_words_of_what_is_generated_are_plain(path):
    made = re.findall(r"<!-- \[\[\[cog.*?\]\]\] -->(.*?)<!-- \[\[\[end\]\]\] -->", path.read_text(), re.DOTALL)
    text = re.sub(r"^```.*?^```", "", "\n".join(made), flags=re.DOTALL | re.MULTILINE)
    assert text and not_plain(text, names=True) == []


@pytest.mark.parametrize("name", TEXTS)
def test_its_sentences_are_short(name):
    assert [one for one in sentences(TEXTS[name]) if len(one.split()) > LONGEST_SENTENCE] == []


def test_the_checks_of_words_and_sentences_see_what_they_are_for():
    text = "The twin `twin` is <!-- [[[cog x() ]]] -->told<!-- [[[end]]] --> [here](told.md).\n\n* One. Two"
    assert prose(text).split() == ["The", "twin", "X", "is", "here.", "*", "One.", "Two"]
    assert sentences(text) == ["The twin X is here.", "* One.", "Two"]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them; of those outside code."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_its_links_lead_to_files_and_headings(path):
    text = TEXTS.get(path.name) or path.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https://")]
    for place, _, anchor in (link.partition("#") for link in links):
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{place} is not there"
        assert not anchor or anchor in anchors(target.read_text()), f"{place} has no heading #{anchor}"


def test_every_notebook_says_what_it_does_sums_up_and_leads_to_the_method():
    for name, cells in NOTEBOOK_CELLS.items():
        first, text = cells[0].source, TEXTS[name]
        assert re.match(r"# .*\n\nIn this notebook we will:\n\n\* ", first), name
        assert "\n## Summary\n\n* " in text and "(../docs/method.md" in text, name


@pytest.mark.parametrize("name", TEXTS)
def test_its_commands_have_the_options_that_it_names(name):
    top = click.Context(lab, info_name="./lab")
    for command, rest in re.findall(r"\./lab ([a-z]\w*)([^`\n|#]*)", TEXTS[name]):
        known = lab.get_command(top, command)  # raises LabError for an unknown one
        if not known.context_settings.get("ignore_unknown_options"):
            options = {option for each in known.params for option in each.opts} | {"--help"}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= options, f"./lab {command}{rest}"


@pytest.fixture(scope="module")
def site() -> Iterator[subprocess.CompletedProcess]:
    """The site, built by the line of CONTRIBUTING.md; strict: a link or an anchor that leads nowhere fails it."""
    (line,) = re.findall(r"^python3 -m venv \.lab/site .*$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    yield subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True)  # noqa: S602


def test_the_site_builds_with_every_page_of_the_documents(site):
    assert site.returncode == 0, site.stdout + site.stderr
    assert {path.stem for path in SITE.glob("*.html")} == {"404", *(path.stem for path in PAGES)} - {"README"}


@pytest.mark.browser
def test_the_pages_of_the_site_fit_the_window_and_ask_no_other_server(site):
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=tools.browser(), args=sandbox)
        page, urls = browser.new_page(), []
        page.on("request", lambda request: urls.append(request.url))
        for path in sorted(SITE.glob("*.html")):
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path.name, width)
        assert urls and [url for url in urls if not url.startswith(("file:", "data:"))] == []
        browser.close()
