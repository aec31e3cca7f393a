"""A real browser: the page that is shared, and JupyterLab on every notebook. Screenshots are kept in
reports/screenshots."""

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
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rustimg_lab.host import machine, tools
from rustimg_lab.model import probes
from rustimg_lab.paths import NOTEBOOKS, RECORDED, REPORTS, ROOT, RUNS
from rustimg_lab.report import notebooks, publish

pytestmark = pytest.mark.browser

SCREENSHOTS = REPORTS / "screenshots"
WIDTHS = (1280, 390)
TOKEN = "only-on-this-machine"
RUN_TIMEOUT_S = 180
QUIET_S = 4
WAIT_MS = 60_000  # builds may run beside these tests


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        opened = playwright.chromium.launch(executable_path=tools.browser(), args=sandbox)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def written() -> Path:
    return publish.whole("recorded")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_asks_for_nothing_and_nothing_overflows(browser, written, width, scheme):
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(written.as_uri())
        page.wait_for_load_state("networkidle")
        assert [url for url in asked if not url.startswith("data:")] == [written.as_uri()]
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        wide = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.table, pre') &&
                  e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
        assert page.evaluate(wide) == []
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        page.screenshot(path=SCREENSHOTS / f"report-{width}-{scheme}.png")


def test_text_stands_out_from_its_ground_in_both_schemes(browser, written):
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
            page.goto(written.as_uri())
            assert page.evaluate(contrast) == []


def test_tables_sort_and_are_copied(browser, written):
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(written.as_uri())
        table = page.locator("#answers .card table")
        today = table.locator("th", has_text="optimized, today")

        def column() -> list[float]:
            return [float(text) for text in table.locator("tbody tr td:last-child").all_inner_texts()]

        before = column()
        today.get_by_role("button").click()
        assert column() == sorted(before) and today.get_attribute("aria-sort") == "ascending"
        today.get_by_role("button").click()
        assert column() == sorted(before, reverse=True) and before != column()
        page.locator("#answers .card .copy").click()
        copied = page.evaluate("navigator.clipboard.readText()").splitlines()
        assert copied[0].split("\t")[0] == "base" and len(copied) == 1 + len(before)
        with page.expect_download() as download:
            page.get_by_role("link", name="recorded-article-rows.jsonl.xz").click()
        assert download.value.suggested_filename == "recorded-article-rows.jsonl.xz"


def test_the_pdf_has_the_whole_page():
    pdf = publish.whole("recorded/article", "pdf").read_bytes()
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
        written = publish.whole(hostile)
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


@pytest.mark.parametrize("name", [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))])
def test_jupyterlab_runs_a_notebook_from_top_to_bottom(browser, jupyterlab, name):
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as context:
        page = context.new_page()
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
        page.get_by_role("heading", name="The cells").scroll_into_view_if_needed()
        sort_by = page.locator(".widget-dropdown select").first
        first = page.locator(".jupyter-widgets tbody tr").first
        expect(first).to_contain_text("baseline")
        sort_by.select_option("profile")
        expect(first).to_contain_text("abort")
        boxes = page.locator(".widget-select-multiple select, .jupyter-widgets select[multiple]")
        boxes.first.scroll_into_view_if_needed()
        answer = page.locator(".jp-OutputArea-output", has_text="Least transfer (ringed)").last
        expect(answer).to_contain_text("scratch")
        boxes.first.select_option(["debian"])
        expect(answer).to_contain_text("(ringed): debian-")
        expect(page.locator(".jupyter-widgets .jp-RenderedImage img")).to_have_count(1)
        page.screenshot(path=SCREENSHOTS / "trade-off.png")


def _restart_and_run_all(
    page: Page, jupyterlab: tuple[str, Path], name: str, workspace: str
) -> list[nbformat.NotebookNode]:
    """Opens a notebook in a workspace of its own, does so by the menu, saves, and returns the outputs."""
    address, folder = jupyterlab
    path = folder / f"{name}.ipynb"
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{address}/lab/workspaces/{workspace}/tree/{name}.ipynb?token={TOKEN}&reset")
    expect(page.locator(".jp-NotebookPanel:visible .jp-Cell").first).to_be_visible()
    # One that is restarted in the moment in which it has begun can stay "starting" for ever, as JupyterLab sees it.
    _wait_until_quiet(page)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text(re.compile("Restart Kernel and Run All Cells")).click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    for _ in range(RUN_TIMEOUT_S // QUIET_S):
        _wait_until_quiet(page)
        outputs = _saved(page, path)
        if outputs and (notebooks.SENTINEL in outputs[-1].get("text", "") or outputs[-1].output_type == "error"):
            return outputs
    raise AssertionError(f"{name} did not run to its end")


def _wait_until_quiet(page: Page) -> None:
    """Until the kernel is idle for a while: one that has just been started or restarted is so too, for a moment."""
    status = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status"
    quiet, ends = 0, time.monotonic() + RUN_TIMEOUT_S
    while quiet < QUIET_S:
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
