"""A real browser: the page that is shared, and JupyterLab on every notebook. Screenshots are kept in
reports/screenshots."""

import base64
import colorsys
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rustimg_lab.host import machine, tools
from rustimg_lab.model import probes
from rustimg_lab.paths import NOTEBOOKS, RECORDED, REPORTS, ROOT, RUNS
from rustimg_lab.report import notebooks, publish
from rustimg_lab.report import page as page_of_parts
from rustimg_lab.report.plots import sizes, style

pytestmark = pytest.mark.browser

SCREENSHOTS = REPORTS / "screenshots"
WIDTHS = (1280, 390)
TOKEN = "only-on-this-machine"
RUN_TIMEOUT_S = 180
QUIET_S = 4
WAIT_MS = 60_000  # builds may run beside these tests


# What reaches beyond the window, but in what scrolls by itself.
TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.table, pre, nav') &&
              e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""


def _show_all(page: Page) -> None:
    """Opens all that is folded, and shows all runs of each question and all rows."""
    page.evaluate("""() => {
      for (const each of document.querySelectorAll("details")) each.open = true;
      for (const each of document.querySelectorAll(".choice [value='0'], .every input")) each.checked = true;
    }""")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        opened = playwright.chromium.launch(executable_path=tools.browser(), args=sandbox)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_asks_for_nothing_and_nothing_overflows(browser, recorded_page, width, scheme):
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(recorded_page.as_uri())
        page.wait_for_load_state("networkidle")
        assert [url for url in asked if not url.startswith("data:")] == [recorded_page.as_uri()]
        assert said == []
        page.screenshot(path=SCREENSHOTS / f"report-{width}-{scheme}.png")
        assert page.evaluate(TOO_WIDE) == []
        _show_all(page)
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        if width < 640:  # rows are lists there: no column is out of sight
            cut = "[...document.querySelectorAll('.table')].filter(e => e.scrollWidth > e.clientWidth + 1)"
            assert page.evaluate(f"{cut}.map(e => e.innerText.slice(0, 80))") == []
            idle = "[...document.querySelectorAll('.stacks thead:not(:has(button))')].filter(e => e.offsetHeight)"
            assert page.evaluate(f"{idle}.map(e => e.innerText)") == []  # headings that sort nothing only repeat


def test_on_a_dark_screen_a_figure_has_the_page_s_ground_and_text_and_its_own_hues(browser, tmp_path):
    named = [tuple(bytes.fromhex(colour[1:])) for colour in style.SCALE]
    # What names are written on: the most opaque colours of `plots.sizes.icicle`.
    under = [tuple(round(255 + sizes.OPAQUE[0] * (v - 255)) for v in colour) for colour in named[:2]]
    colours = [(255, 255, 255), (0, 0, 0), *under, *named]
    picture, written = Image.new("RGB", (40 * len(colours), 40)), io.BytesIO()
    for place, colour in enumerate(colours):
        picture.paste(colour, (40 * place, 0, 40 * place + 40, 40))
    picture.save(written, "PNG")
    output = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(written.getvalue()).decode()})
    cells = [nbformat.v4.new_markdown_cell("# Colours"), nbformat.v4.new_code_cell("1", outputs=[output])]
    part = page_of_parts.Part(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell("2")]))
    (tmp_path / "page.html").write_text(page_of_parts.html("Colours", "", [part]))
    shown = {}
    for scheme in ("light", "dark"):
        with browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 600}) as context:
            page = context.new_page()
            page.goto((tmp_path / "page.html").as_uri())
            taken = Image.open(io.BytesIO(page.locator("figure img").screenshot())).convert("RGB")
            shown[scheme] = [taken.getpixel((40 * place + 20, 20)) for place in range(len(colours))]
            ground, text = page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
            page.emulate_media(media="print")
            assert page.evaluate("getComputedStyle(document.images[0]).filter") == "none"
    assert (
        max(abs(a - b) for pair in zip(shown["light"], colours, strict=True) for a, b in zip(*pair, strict=True)) <= 8
    )
    of_page = [tuple(map(int, re.findall(r"\d+", colour))) for colour in (ground, text)]
    assert (
        max(abs(a - b) for pair in zip(shown["dark"], of_page, strict=False) for a, b in zip(*pair, strict=True)) <= 2
    )
    for light, dark in zip(colours[2:], shown["dark"][2:], strict=True):
        hues = [colorsys.rgb_to_hsv(*(each / 255 for each in colour))[0] for colour in (light, dark)]
        if light != (0x9A, 0x9A, 0x9A):  # which has none
            assert abs((hues[0] - hues[1] + 0.5) % 1 - 0.5) < 0.03, (light, dark)
        assert light not in under or min(_contrast(dark, shown["dark"][1]), _contrast(light, (0, 0, 0))) > 4.5, (
            light,
            dark,
        )
        assert _contrast(dark, shown["dark"][0]) > 0.6 * _contrast(light, (255, 255, 255)), (light, dark)


def _contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The ratio of the luminances of two colours, as WCAG has it."""
    parts = [
        [(v / 255 + 0.055) ** 2.4 / 1.055**2.4 if v > 10 else v / 255 / 12.92 for v in colour]
        for colour in (one, other)
    ]
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in parts)
    return (high + 0.05) / (low + 0.05)


def test_what_is_folded_or_of_another_run_is_printed_too(browser, recorded_page):
    with browser.new_context(viewport={"width": 718, "height": 1000}) as context:  # A4 without its margins
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        hidden = """[...document.querySelectorAll('.of, tbody tr, details > :not(.copy), figure img')]
                    .filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"""
        assert page.evaluate(hidden) > 100
        page.emulate_media(media="print")
        assert page.evaluate(hidden) == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate(TOO_WIDE.replace("body *", ".table table").replace("'.table, pre, nav'", "'nav'")) == []
        page.emulate_media(media="screen")
        assert page.evaluate(hidden) > 100


def test_a_run_of_a_question_is_chosen_by_keyboard(browser, recorded_page):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        section = page.locator(".part", has=page.locator("> .choice")).first
        radios = section.get_by_role("radio")
        first, second = (section.locator(f"> .of-{number}").first for number in (1, 2))
        expect(first).to_be_visible()
        expect(second).to_be_hidden()
        radios.first.focus()
        page.keyboard.press("ArrowDown")
        expect(radios.nth(1)).to_be_checked()
        expect(first).to_be_hidden()
        expect(second).to_be_visible()
        radios.last.check()  # all of them
        for each in (first, second):
            expect(each).to_be_visible()


def test_without_a_script_all_runs_of_a_question_can_be_chosen_and_all_rows_shown(browser, recorded_page):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        section = page.locator(".part", has=page.locator("> .choice")).first
        section.get_by_role("radio").nth(1).check()
        expect(section.locator("> .of-2").first).to_be_visible()
        frame = page.locator(".rows:visible", has=page.locator(".every")).first
        expect(frame.locator(".minor").first).to_be_hidden()
        frame.get_by_role("checkbox").check()
        expect(frame.locator(".minor").first).to_be_visible()
        page.locator("details > summary").first.click()
        expect(page.locator("details > h3").first).to_be_visible()


def test_a_table_is_filtered_and_sorted_by_keyboard(browser, recorded_page):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        frame = page.locator(".rows:visible", has=page.locator(".every")).first
        rows = frame.locator("tbody tr:visible")
        total, shown = frame.locator("tbody tr").count(), rows.count()
        assert 0 < shown < total
        frame.get_by_role("searchbox").focus()
        page.keyboard.type("debian")
        expect(frame.get_by_role("status")).to_have_text(f"{rows.count()} of {total} rows")
        assert 0 < rows.count() < total and all("debian" in text for text in rows.all_inner_texts())
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        expect(rows).to_have_count(shown)
        heading = frame.locator("th.number").first
        assert heading.get_attribute("aria-sort") == "none"
        heading.get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(heading).to_have_attribute("aria-sort", "ascending")
        column = heading.evaluate("e => e.cellIndex")
        texts = frame.locator(f"tbody tr td:nth-child({column + 1})").all_text_contents()
        values = [float(re.match(r"[\d.]+", text)[0]) for text in texts if re.match(r"[\d.]+", text)]
        assert len(values) > 5 and values == sorted(values)
        page.keyboard.press("Enter")
        expect(heading).to_have_attribute("aria-sort", "descending")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_trade_off_answers_pointing_and_constraints(browser, recorded_page, width):
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        section = page.locator("#trade-off")
        status, points = section.get_by_role("status"), section.locator("circle")
        every = points.count()
        assert every > 5 and section.locator("text.name").count() > 3
        boxes = """[...document.querySelectorAll('#trade-off text, #trade-off circle')].map(e => e.getBBox())
                   .map(b => [b.x, b.y, b.x + b.width, b.y + b.height])"""
        names = page.evaluate(
            boxes.replace("#trade-off text", "#trade-off text.name").replace(", #trade-off circle", "")
        )
        others = page.evaluate(boxes.replace("#trade-off text, ", ""))
        for number, a in enumerate(names):
            for b in names[:number] + others:
                assert not (a[0] < b[2] and b[0] < a[2] and a[1] + 4 < b[3] and b[1] < a[3] - 4), (a, b)
        points.first.hover()
        name = points.first.get_attribute("aria-label").partition(":")[0]
        expect(section.locator(".tip").first).to_have_text(name)
        points.nth(1).focus()
        expect(section.locator(".tip").first).to_have_text(points.nth(1).get_attribute("aria-label").partition(":")[0])
        expect(status).to_contain_text(f"{every} of {every} cells")
        section.get_by_label("exec to first byte, at most").fill("10")
        expect(status).not_to_contain_text(f"{every} of {every} cells")
        expect(status).not_to_contain_text("upx")
        section.get_by_label("with a shell").check()
        expect(status).to_contain_text(": debian-")
        among = int(re.search(r"Of the (\d+) measured in both, lowest", status.text_content())[1])
        assert among == section.locator("circle:not(.out)").count() > 0
        assert 2 < section.locator("text[text-anchor=end]").count() <= 9
        section.get_by_label("compressed (pull) size, at most").fill("1")
        expect(status).to_have_text(f"0 of {every} cells are within the constraints. Relax a constraint.")
        section.get_by_role("combobox").nth(1).select_option("resident memory under load")
        expect(section.locator("svg")).to_have_attribute(
            "aria-label", re.compile("^resident memory under load against")
        )


def test_the_contents_stay_in_sight_and_say_where_one_is(browser, recorded_page):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        link = page.get_by_role("navigation", name="Contents").get_by_role("link", name="Memory")
        link.click()
        expect(link).to_have_attribute("aria-current", "true")
        expect(link).to_be_in_viewport()


def test_text_stands_out_from_its_ground_in_both_schemes(browser, recorded_page):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 or more, of the page's own colours."""
    contrast = """() => {
      const light = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (e) => {
        const colour = getComputedStyle(e).backgroundColor;
        return colour === "rgba(0, 0, 0, 0)" && e.parentElement ? ground(e.parentElement) : colour;
      };
      return [...document.querySelectorAll("h1, p, li, a, th, td, caption, pre, button, .quiet, .note")].map((e) => {
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
      }).filter(([ratio]) => ratio < 4.5);
    }"""
    for scheme in ("light", "dark"):
        with browser.new_context(color_scheme=scheme) as context:
            page = context.new_page()
            page.goto(recorded_page.as_uri())
            assert page.evaluate(contrast) == []


def test_a_table_is_copied_and_the_rows_are_downloaded(browser, recorded_page):
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(recorded_page.as_uri())
        card = page.locator("#answers .card", has_text="The article of 2021")
        card.locator(".copy").click()
        copied = page.evaluate("navigator.clipboard.readText()").splitlines()
        assert copied[0].split("\t")[0] == "base" and len(copied) == 1 + card.locator("tbody tr").count()
        with page.expect_download() as download:
            page.get_by_role("link", name="rows.tar.xz").click()
        assert download.value.suggested_filename == "rows.tar.xz"


def test_the_pdf_has_the_whole_page():
    pdf = publish.write_page("recorded/article", "pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 5


@pytest.fixture
def hostile() -> Iterator[str]:
    """A run whose app, bases and reasons are markup that would run a script and load something."""
    markup = "<img src=http://127.0.0.1:9/x onerror=alert(1)><script>alert(2)</script>[a](javascript:alert(3))"
    folder = RUNS / "test-hostile"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(RECORDED / "fd", folder)
    environment = json.loads((folder / "environment.json").read_text())
    past = "x<![CDATA[><meta http-equiv=refresh content=0;url=http://127.0.0.1:9/>]]><!--><form action=x></form>-->"
    environment["app"]["name"] = environment["run"] = markup + past
    environment["commands"] = [markup]
    for image in environment["images"].values():
        image["label"] = image["source"] = image["why"] = markup
        image["packages"] = {markup: markup}
    (folder / "environment.json").write_text(json.dumps(environment))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["detail"] = markup if row["detail"] else ""
        if row["cell"].startswith("debian-optimized") and row["metric"] == "runs":
            row |= {"ok": False, "reason": markup}
    probed = rows[0] | {"study": probes.STUDY, "cell": markup, "image": "x", "ok": True, "detail": markup, "unit": ""}
    rows += [probed | {"metric": name, "value": probes.FAILED} for name in probes.PROBES]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield folder.name
    shutil.rmtree(folder)


@pytest.mark.faults
def test_markup_in_a_strangers_run_is_text(browser, hostile):
    with browser.new_context() as context:
        page = context.new_page()
        asked, dialogs = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        written = publish.write_page(hostile)
        page.goto(written.as_uri())
        page.wait_for_load_state("networkidle")
        assert dialogs == [] and [url for url in asked if not url.startswith("data:")] == [written.as_uri()]
        assert page.locator("script").count() == 1 and page.locator("[onerror]").count() == 0
        assert page.locator("a[href^='javascript'], form, meta[http-equiv=refresh]").count() == 0
        assert "<script>alert(2)" in page.locator("main").inner_text()


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """`./lab notebook` on a copy of the notebooks: its address, and the copy."""
    folder = tmp_path_factory.mktemp("jupyter") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder)
    port = machine.free_port()
    command = [
        sys.executable,
        "-m",
        "rustimg_lab",
        "notebook",
        "--no-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
    ]
    log = (folder.parent / "log").open("w")
    server = subprocess.Popen(
        [*command, f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}"],
        cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5)
            break
        except OSError:
            assert server.poll() is None, (folder.parent / "log").read_text()
            time.sleep(0.5)
    yield address, folder
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(30)


@pytest.fixture(scope="module")
def window(browser):
    """A window of the browser for all notebooks, which loads JupyterLab once."""
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as context:
        yield context


@pytest.mark.parametrize("name", [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))])
def test_jupyterlab_runs_a_notebook_from_top_to_bottom(window, jupyterlab, name):
    with window.new_page() as page:
        outputs = _restart_and_run_all(page, jupyterlab, name, workspace=name)
        assert not [output for output in outputs if output.output_type == "error"]
        assert notebooks.SENTINEL in outputs[-1].text
        if name != "00_start_here":  # its plot is a widget's
            assert any("image/png" in output.get("data", {}) for output in outputs)
        page.screenshot(path=SCREENSHOTS / f"jupyterlab-{name}.png")


def test_the_plot_of_the_trade_off_answers_what_is_chosen(browser, jupyterlab):
    with browser.new_context(viewport={"width": 1280, "height": 1400}) as context:
        page = context.new_page()
        _restart_and_run_all(page, jupyterlab, "00_start_here", workspace="explore")
        # What is out of sight need not be drawn yet.
        page.get_by_role("heading", name="The cells", exact=True).scroll_into_view_if_needed()
        sort_by = page.locator(".widget-dropdown select").first
        first = page.locator(".jupyter-widgets tbody tr").first
        expect(first).to_contain_text("baseline")
        sort_by.select_option("profile")
        expect(first).to_contain_text("abort")
        boxes = page.locator(".widget-select-multiple select, .jupyter-widgets select[multiple]")
        boxes.first.scroll_into_view_if_needed()
        answer = page.locator(".jp-OutputArea-output", has_text="Lowest compressed (pull) size (ringed)").last
        expect(answer).to_contain_text("scratch")
        boxes.first.select_option(["debian"])
        expect(answer).to_contain_text("(ringed): debian-")
        expect(page.locator(".jupyter-widgets img")).to_have_count(1)
        page.screenshot(path=SCREENSHOTS / "trade-off.png")


def _restart_and_run_all(
    page: Page, jupyterlab: tuple[str, Path], name: str, workspace: str
) -> list[nbformat.NotebookNode]:
    """Opens a notebook in a workspace of its own, does so by the menu, saves, and returns the outputs."""
    address, folder = jupyterlab
    path = Path(shutil.copy(NOTEBOOKS / f"{name}.ipynb", folder))  # without the outputs of an earlier test
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{address}/lab/workspaces/{workspace}/tree/{name}.ipynb?token={TOKEN}&reset")
    expect(page.locator(".jp-NotebookPanel:visible .jp-Cell").first).to_be_visible()
    # One that is restarted in the moment in which it has begun can stay "starting" for ever, as JupyterLab sees it.
    _wait_until_quiet(page, QUIET_S)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text(re.compile("Restart Kernel and Run All Cells")).click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    ends = time.monotonic() + RUN_TIMEOUT_S
    while time.monotonic() < ends:
        _wait_until_quiet(page, 1)
        outputs = _saved(page, path)
        if outputs and (notebooks.SENTINEL in outputs[-1].get("text", "") or outputs[-1].output_type == "error"):
            return outputs
    raise AssertionError(f"{name} did not run to its end")


def _wait_until_quiet(page: Page, seconds: int) -> None:
    """Until the kernel is idle for so long: one that has just been started or restarted is so too, for a moment."""
    status = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status"
    quiet, ends = 0, time.monotonic() + RUN_TIMEOUT_S
    while quiet < seconds:
        page.wait_for_timeout(1000)
        quiet = quiet + 1 if page.evaluate(status) == "idle" else 0
        if time.monotonic() > ends:
            page.screenshot(path=SCREENSHOTS / "failed.png")
            raise AssertionError(f"the kernel is {page.evaluate(status)} and not idle after {RUN_TIMEOUT_S} s")


def _saved(page: Page, path: Path) -> list[nbformat.NotebookNode]:
    """Saves, and returns the outputs that are in the file then."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    for _ in range(100):
        if path.stat().st_mtime_ns != before and path.stat().st_size:  # empty for a moment while it is written
            break
        page.wait_for_timeout(100)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]
