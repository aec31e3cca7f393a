"""The page that is shared, of recorded runs: what it holds, that it loads nothing, and what is told where it cannot be
made. How it looks and behaves in a browser is `test_browser.py`'s part."""

import base64
import html
import io
import itertools
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from support.lab import NO_ENGINE, forget
from support.plain_words import not_plain

import rustimg_lab
from rustimg_lab.analysis import comparison, pareto, recommendation
from rustimg_lab.errors import LabError
from rustimg_lab.host import tools
from rustimg_lab.model import metrics, studies
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.paths import PACKAGE, RECORDED, REPORTS, RUNS
from rustimg_lab.report import fragments, notebooks, page, plots, publish, sections, short, summary, terminal, views
from rustimg_lab.store import runs

pytestmark = pytest.mark.slow


@pytest.fixture
def own():
    """Copies a recorded run as one of the user's own, with the rows that are `kept`; returns its name."""
    name = "test-own-page"

    def copy(run: str, kept: Callable[[dict], bool] = lambda row: True, dockerfiles: bool = True) -> str:
        shutil.copytree(RECORDED / run, RUNS / name)
        with (RECORDED / run / "rows.jsonl").open() as file:
            (RUNS / name / "rows.jsonl").write_text("".join(line for line in file if kept(json.loads(line))))
        if not dockerfiles:
            shutil.rmtree(RUNS / name / "dockerfiles")
        return name

    forget(name)
    yield copy
    forget(name)


@pytest.fixture(scope="module")
def recorded(recorded_page) -> BeautifulSoup:
    return BeautifulSoup(recorded_page.read_text(), "html.parser")


def test_the_first_screen_names_the_image_to_ship_and_leads_to_its_dockerfile(recorded):
    first = recorded.select_one("#answers .card.first")
    picked = summary.best({name: runs.load(name) for name in sections.names("recorded")})[0]
    for said in (picked.name, picked.goal, picked.sure, picked.decides, picked.missed, picked.note):
        assert said and said in first.text
    assert views.recommendation.facts(_chosen(picked)) in first.text
    target = recorded.select_one(first.select_one("a")["href"])
    block = target.find_next("pre").text
    assert block == runs.dockerfile(picked.run, picked.cell)
    allocators, article = recorded.select("#answers .card")[1:]
    assert len(allocators.select("tbody tr")) == 15  # four of them with two worker threads
    assert [cell.text for cell in article.select_one("tbody tr")("td")] == ["scratch", "15.9", "5.50", "4.20", "3.46"]


def test_its_words_are_plain(recorded):
    """The texts that a reader sees, headings of tables included, and the plots in words; no code, and no command."""
    code = ["script", "style", "pre", "code"]
    texts = [text for text in recorded.find_all(string=True) if not text.find_parent(code)]
    alts = [image["alt"] for image in recorded("img")]
    assert len(texts) > 5_000 and len(alts) > 50
    assert sorted({found for text in [*texts, *alts] for found in not_plain(text, names=True)}) == []


def test_a_section_begins_with_what_it_is_about_and_not_with_the_plan_of_a_notebook(recorded):
    questions = recorded.select("section[id^=part-]")
    assert len(questions) > 5 and "In this notebook" not in recorded.text
    assert all(each.h2.find_next_sibling().name == "p" for each in questions)


def test_a_cell_that_ties_is_named_beside_the_one_to_ship():
    answers = summary.best({"recorded/service": runs.load("recorded/service")})
    for answer in answers:
        found = _chosen(answer)
        tied = {found.name(cell) for cell, share in found.sureness.items() if share >= summary.TIE}
        assert {answer.name, *answer.ties} == tied | {answer.name}
        assert all(cell in answer.heading for cell in answer.ties)
    assert any(answer.ties for answer in answers) and not all(answer.ties for answer in answers)


def test_of_several_runs_the_smallest_image_is_named_where_the_goal_is_of_sizes():
    names = ("recorded/factorial", "recorded/ladder", "recorded/service", "recorded/arm64@arm64")
    several = {name: runs.load(name) for name in names}
    of_arm64 = several.pop("recorded/arm64@arm64")
    assert summary.best(several | {"recorded/arm64@arm64": of_arm64}) == summary.best(several)
    answers = {answer.goal: answer for answer in summary.best(several)}
    for goal, wishes in summary.GOALS.items():
        if wishes.needed == ["transfer"] and goal in answers:
            sizes = {name: recommendation.choose(run, wishes) for name, run in several.items()}
            least = min(each.table.loc[each.picked, "transfer"] for each in sizes.values() if each.picked)
            one = answers[goal]
            assert sizes[one.run].table.loc[one.cell, "transfer"] == least, goal


def test_allocators_are_compared_with_malloc_of_each_c_library_and_on_each_machine():
    run = runs.load("recorded/allocators")
    both = {"epyc": run, "xeon": runs.load("recorded/allocators-intel")}
    found = summary.allocators(both).set_index(["CPU", "load", "instead of", "allocator"])
    assert {cpu for cpu, *_ in found.index} == {each.environment.machine["cpu_model"] for each in both.values()}
    name, metric = "throughput-batch-1w-16c", metrics.CPU_US_PER_REQUEST
    for malloc, base in (("musl malloc", "scratch"), ("glibc malloc", "debian")):
        ratios = comparison.of_study(run, name, metric, f"{base}-optimized-system").set_index("cell")
        one = ratios.loc[f"{base}-optimized-jemalloc"]
        shown = found.loc[("AMD EPYC", "batch, 1 worker thread, 16 connections", malloc, "jemalloc"), metric.noun]
        assert shown == f"{one['ratio']:.2f}x ({one['low']:.2f} to {one['high']:.2f})"
        undecided = found.loc[("AMD EPYC", "root, 1 worker thread, 16 connections", malloc, "jemalloc"), metric.noun]
        assert undecided.startswith(Verdict.NO_DIFFERENCE)


def test_a_substitute_base_counts_only_where_no_real_one_was_measured():
    run = runs.load("recorded/allocators")
    copy = run.rows[run.rows["cell"].str.startswith("scratch-optimized-")].copy()
    copy["base"], copy["cell"] = "alpine", copy["cell"].str.replace("scratch", "alpine")
    slow = copy["metric"].eq(metrics.CPU_US_PER_REQUEST) & copy["allocator"].eq("jemalloc")
    copy.loc[slow, "value"] *= 100
    image = {**next(iter(run.environment.images.values())), "name": "alpine", "stand_in": True}
    bases, images = {"alpine": "alpine", **run.environment.bases}, {**run.environment.images, "alpine": image}
    rows = pd.concat([copy, run.rows[run.rows["cell"].str.startswith("scratch-optimized-system")]], ignore_index=True)
    other = replace(run, rows=rows, environment=replace(run.environment, bases=bases, images=images))
    found = summary.allocators({"other": other}).query("allocator == 'jemalloc'")
    ratios = [float(text.partition("x")[0]) for text in found[metrics.CPU_US_PER_REQUEST.noun]]
    assert set(found["instead of"]) == {"musl malloc"} and min(ratios) > 30
    real = summary.allocators({"mine": run})
    assert summary.allocators({"other": other, "mine": run}).equals(real)


def _with_failed(run: runs.RunData, cell: str, study: str) -> runs.RunData:
    """The run, in a study of which a cell failed in every third block."""
    lost = run.rows["study"].eq(study) & run.rows["cell"].str.startswith(cell) & run.rows["block"].mod(3).eq(0)
    is_end = run.rows["metric"].eq("trial")
    failed = run.rows[lost & is_end].assign(ok=False, value=None, reason="killed: out of memory")
    return replace(run, rows=pd.concat([run.rows[~lost], failed]))


def test_the_first_screen_says_that_trials_of_the_image_to_ship_failed():
    run, study = runs.load("recorded/service"), "throughput-batch-1w-16c"
    (first, *_) = summary.best({"one": run})
    assert "failed" not in first.note
    failed = _with_failed(run, first.cell, study)
    late = failed.rows[failed.rows["study"].eq(study) & failed.rows["cell"].eq(first.cell)].tail(1)
    late = late.assign(metric="host_exit_s", ok=False, value=None, reason="slow to end")  # of a trial with its numbers
    (failing, *_) = summary.best({"one": replace(failed, rows=pd.concat([failed.rows, late]))})
    assert failing.cell == first.cell and "of its trials failed: killed: out of memory." in failing.note


def test_a_study_whose_baseline_failed_in_every_trial_is_told_and_not_called_unmeasured():
    run, study = runs.load("recorded/service"), "throughput-batch-1w-16c"
    failed = _with_failed(run, (base := run.environment.studies[study].baseline), study)
    rows = failed.rows
    failed = replace(failed, rows=rows[rows["study"].ne(study) | rows["cell"].ne(base) | ~rows["ok"]])
    said = f"{study} is left out: no trial of its baseline {base} has a number (killed: out of memory)"
    assert summary.notes({"one": failed}) == [f"In run one {said}."] and not summary.notes({"one": run})
    assert said in recommendation.candidates(failed)[2]
    with pytest.raises(LabError, match=re.escape(said)):
        recommendation.choose(failed, recommendation.Wishes(weights={"cpu": 1.0}))


def test_of_one_block_nobody_knows_what_ties():
    run = runs.load("recorded/service")
    (first, *_) = summary.best({"one": replace(run, rows=run.rows[run.rows["block"].eq(0)])})
    assert first.ties is None and first.heading == f"Ship {first.name}" and "(1 block)" in first.missed


def _chosen(answer: summary.Answer) -> recommendation.Choice:
    return recommendation.choose(runs.load(answer.run), summary.GOALS[answer.goal])


def test_what_stands_in_for_another_is_told_before_any_number_of_it():
    run = runs.load("recorded/article")
    (alpine,) = [each for each in run.environment.images.values() if each["name"] == "alpine"]
    assert summary.notes({"mine": run}) == []
    alpine |= {"stand_in": True, "label": "substitute for alpine"}
    said = "In run mine alpine is a substitute for alpine, not the official image: its figures are not Alpine's."
    assert summary.notes({"mine": run}) == [said]
    lead = page.Lead(summary.best({"mine": run}), article=summary.article({"mine": run}), notes=[said])
    lead = replace(lead, shipped=[page.Shipped("mine", each.cell, each.name, "", "") for each in lead.best])
    text = BeautifulSoup(page.html("title", "about", [], lead), "html.parser").select_one("main").text
    assert 0 < text.index(said) < text.index("Best image per goal") and "alpine (substitute)" in text


@pytest.mark.parametrize("run", ["recorded", *(f"recorded/{path.name}" for path in sorted(RECORDED.iterdir()))])
def test_a_page_loads_nothing_and_can_be_heard(run, request):
    text = (request.getfixturevalue("recorded_page") if run == "recorded" else publish.write_page(run)).read_text()
    assert len(text.encode()) < 2_000_000
    soup = BeautifulSoup(text, "html.parser")
    assert all(each["src"].startswith("data:image/webp;base64,") for each in soup(src=True))
    assert not soup(["link", "iframe", "object", "embed", "video", "audio", "base"]) and not soup(srcset=True)
    assert not re.search(r"@import|url\((?!#dark\))", "".join(each.text for each in soup("style")))
    assert len(soup("script")) == 1
    assert "default-src 'none'" in soup.find("meta", attrs={"http-equiv": True})["content"]
    assert all(len(image["alt"]) > 40 for image in soup("img")) and soup("img")
    assert all(len(table.find("caption").text) > 5 for table in soup("table"))
    levels = [int(heading.name[1]) for heading in soup(re.compile(r"h\d"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    names = [each["id"] for each in soup(id=True)]
    assert len(set(names)) == len(names)
    assert {link["href"][1:] for link in soup("a", href=re.compile("^#"))} <= set(names)


@pytest.mark.parametrize(
    ("run", "left_out"),
    [
        ("recorded/factorial", {studies.SIZES}),
        ("recorded/knobs", {studies.STARTUP, studies.UNDER_LOAD, studies.MEMORY}),
        ("recorded/service", set()),
    ],
)
def test_of_many_cells_the_page_has_what_they_have_in_common(run, left_out):
    shown = {notebook for notebook, _ in sections.parts_of_page(runs.load(run))}
    assert {notebook for notebook, _ in sections.parts(runs.load(run))} - shown == left_out


@pytest.mark.parametrize("name", [f"recorded/{path.name}" for path in sorted(RECORDED.iterdir())])
def test_numbers_along_an_axis_of_ratios_do_not_run_into_each_other(name):
    run = runs.load(name)
    for study in run.environment.studies:
        if not comparison.has_baseline(run, study):
            continue
        plot = plots.studies.ratios(comparison.of_study(run, study), "", "")
        canvas = FigureCanvasAgg(plot)
        canvas.draw()
        labels = sorted(plot.axes[0].get_xticklabels(), key=lambda label: label.get_position()[0])
        boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes)), study
        assert "1" in {label.get_text() for label in labels} and len(labels) > 1, study


def test_the_raw_rows_are_inside(recorded):
    (link,) = recorded("a", download=True)
    content = lzma.decompress(base64.b64decode(link["href"].partition(",")[2]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        inside = {each.name: archive.extractfile(each).read() for each in archive}
    whole = {name.partition(runs.AT)[0] for name in sections.names("recorded")}
    files = {f"{name}/{path.name}": path for name in whole for path in runs.files(name)}
    assert inside == {name: path.read_bytes() for name, path in files.items()} and len(inside) > 20


def test_parts_of_one_question_share_a_section_with_its_texts_once(recorded):
    titles = [heading.text for heading in recorded("h2")]
    assert len(set(titles)) == len(titles)
    for section in recorded.select("section[id^=part-]"):
        below = [heading.text for heading in section("h3")]
        assert len(set(below)) == len(below) > 0
    recorded_runs = {name: runs.load(name) for name in sections.names("recorded")}
    wanted = [part for run in recorded_runs.values() for part in sections.parts_of_page(run)]
    wanted += [part for _, *part in sections.studies_across_machines(recorded_runs)]
    for notebook, section in sections.SECTIONS.items():
        (link,) = [each for each in recorded.select("nav a") if each.text == section.label]
        choices = recorded.select(f"{link['href']} > .choice input:not([value='0'])")
        count = sum(each == notebook for each, _ in wanted)
        assert len(choices) == (count if count > 1 else 0)
        assert len(recorded.select(f"{link['href']} > .of, {link['href']} > details > .of")) >= len(choices)


def test_a_long_table_shows_the_rows_that_matter_and_keeps_the_others():
    table = pd.DataFrame({"cell": [f"cell {number}" for number in range(20)], "MB": ["1.0"] * 20})
    matters = pd.Series([number % 5 == 0 for number in range(20)])
    for styler, first in ((views.style.style(table), 8), (views.style.mark_rows(views.style.style(table), matters), 4)):
        output = nbformat.v4.new_output("display_data", {"text/html": styler.to_html()})
        shown = BeautifulSoup(fragments.of_output(output, "A table", reduced=True), "html.parser")
        assert len(shown.select("tbody tr.matters")) == first and len(shown.select("tbody tr")) == 20
        assert shown.select_one("label").text == "Show all 20 rows"
        assert not BeautifulSoup(fragments.of_output(output), "html.parser").select(".minor, label")


def test_a_damaged_figure_of_a_strangers_run_is_shown_as_text_and_does_not_stop_the_page():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    for length in range(0, len(buffer.getvalue()) - 100, 7):
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()[:length]).decode()}"
        output = nbformat.v4.new_output("display_data", {"text/html": f'<img src="{url}">'})
        assert not BeautifulSoup(fragments.of_output(output), "html.parser").select("img")


def test_a_name_in_a_plot_covers_no_other_and_no_point():
    run = runs.load("recorded/service")
    found = recommendation.choose(run, recommendation.Wishes())
    for pair in pareto.axis_pairs(found.table):
        plot = plots.recommendation.front(found, *pair)
        canvas = FigureCanvasAgg(plot)
        canvas.draw()
        axes = plot.axes[0]
        boxes = [Text.get_window_extent(name, canvas.get_renderer()) for name in axes.texts]
        assert [name.get_text() for name in axes.texts] == [found.name(cell) for cell in found.table.index]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        points = axes.transData.transform([name.xy for name in axes.texts])
        assert not any(box.contains(*point) for box in boxes for point in points)


def test_what_a_notebook_loads_is_what_its_outputs_are_kept_by():
    loaded = "[each.__file__ for name, each in sys.modules.items() if name.startswith('rustimg_lab')]"
    code = f"import sys; from rustimg_lab.widgets import run; print(*{loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept = {str(path) for pattern in notebooks.READERS for path in PACKAGE.glob(pattern)}
    empty = {str(path) for path in PACKAGE.rglob("__init__.py")}
    assert len(done.stdout.split()) > 30 and set(done.stdout.split()) <= kept | empty


def test_it_says_how_to_reproduce_each_run(tmp_path, monkeypatch):
    shutil.copytree(RECORDED / "article", tmp_path / "mine")
    environment = json.loads((tmp_path / "mine" / "environment.json").read_text())
    environment["commands"] = ["./lab run --run mine"]
    (tmp_path / "mine" / "environment.json").write_text(json.dumps(environment))
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    source = publish._source("mine", runs.load("mine"))
    text = page.html("title", "about", [], page.Lead(runs=[source], source="this lab"))
    part = BeautifulSoup(text, "html.parser").select_one("#reproduce")
    assert part.find("pre").text == "./lab run --run mine"
    for digest in environment["images"]:
        assert digest in part.text


def test_the_markdown_has_its_figures_beside_it(lab):
    done = lab("report", "recorded/fd", "--format", "md", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    text = (REPORTS / "recorded" / "fd" / "report.md").read_text()
    figures = re.findall(r"!\[[^\]]{40,}\]\(([^)]+)\)", text)
    assert figures and all((REPORTS / "recorded" / "fd" / name).stat().st_size > 1000 for name in figures)
    assert "<table" not in text and "<style" not in text and "In this notebook" not in text
    assert "| scratch | empty | smallest | system |" in text
    assert runs.dockerfile("recorded/fd", "scratch-smallest-system") in text


def test_what_a_stranger_wrote_is_text_in_markdown_too():
    reason = "no | <img src=http://127.0.0.1:9/x>\n![x](http://127.0.0.1:9/y) `"
    table = pd.DataFrame({"cell": [reason], "MB": ["1.0"]})
    cells = [nbformat.v4.new_markdown_cell("# A question"), nbformat.v4.new_code_cell("1")]
    html_table = views.style.style(table).to_html()
    cells[1].outputs = [
        nbformat.v4.new_output("display_data", {"text/html": html_table}),
        nbformat.v4.new_output("stream", text="```\n<b>\n"),
        nbformat.v4.new_output("display_data", {"text/html": views.style.style(pd.DataFrame()).to_html()}),
    ]
    source = page.Source("a|b", ["./lab ```"], "<i>", "app", [], [])
    lead = page.Lead(notes=["<b>note</b>"], runs=[source])
    text, _ = page.markdown("title", "about", [page.Part(nbformat.v4.new_notebook(cells=cells))], lead, "x")
    assert "| no \\| &lt;img src=http://127.0.0.1:9/x&gt; !\\[x\\](http://127.0.0.1:9/y) \\` | 1.0 |" in text
    assert "````\n```\n<b>\n````" in text and "````\n./lab ```\n````" in text
    assert "&lt;b&gt;note" in text and "Machine: &lt;i&gt;" in text


def test_a_run_of_another_lab_has_a_page_that_says_what_it_lacks(tmp_path, monkeypatch):
    shutil.copytree(RECORDED / "fd", tmp_path / "theirs")
    rows = (tmp_path / "theirs" / "rows.jsonl").read_text()
    (tmp_path / "theirs" / "rows.jsonl").write_text(
        rows.replace('"smallest"', '"theirs"').replace('"debian"', '"wolfi"')
    )
    (tmp_path / "theirs" / "dockerfiles" / "Dockerfile.scratch-smallest-system").unlink()
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    lead = publish._lead({"theirs": runs.load("theirs")})
    assert "has no Dockerfile.scratch-smallest-system" in lead.shipped[0].dockerfile
    assert "unknown profile 'theirs'" in lead.shipped[0].profile
    assert "| wolfi |" in terminal.markdown("theirs")


def test_a_start_without_that_of_the_container_has_its_part_its_words_and_its_notebook(own):
    """So it is where the app has services, and on an engine whose containers the lab does not reach."""
    name = own("startup", lambda row: row["study"] != "startup-container")
    run = runs.load(name)
    assert (studies.STARTUP, {}) in sections.parts(run)
    said = views.verdicts.startup_verdict(run)
    assert "Over all cells, the server answers" in said and "The farthest from" in said and "container" not in said
    executed = notebooks.execute(name, studies.STARTUP)
    texts = [output.get("text", "") for cell in executed.cells for output in cell.get("outputs", [])]
    assert any(text.startswith("The start of the container was not measured.") for text in texts)


def test_of_two_runs_with_one_cell_each_has_its_own_dockerfile():
    answer = summary.best({"recorded/fd": runs.load("recorded/fd")})[0]
    one, other = (page.Shipped(run, answer.cell, answer.name, f"FROM {run}\n", "") for run in ("a", "b"))
    lead = page.Lead([replace(answer, run="b")], shipped=[one, other])
    soup = BeautifulSoup(page.html("title", "about", [], lead), "html.parser")
    target = soup.select_one(soup.select_one(".card.first a")["href"])
    assert target.find_next("pre").text == "FROM b\n"


def test_what_shows_a_run_needs_no_engine():
    code = "import sys; from rustimg_lab.report import page, plots, terminal, views; print('docker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_notebook_of_the_choice_has_the_goal_that_the_page_begins_with():
    run = runs.load("recorded/service")
    first = summary.best({"recorded/service": run})[0]
    said = views.recommendation.evidence(recommendation.choose(run, summary.GOALS[first.goal]))
    cells = notebooks.execute("recorded/service", "05_choose").cells
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    shown = "".join(each.get("text/markdown", "") for each in data)
    assert first.goal == next(iter(summary.GOALS)) and all(line in shown for line in said)


def test_without_constraints_every_run_is_recommended_the_cell_that_its_page_begins_with():
    goals = set()
    for name in (f"recorded/{path.name}" for path in sorted(RECORDED.iterdir())):
        if answers := summary.best({name: runs.load(name)}):
            found = rustimg_lab.recommend(name)
            assert (found.cell, found.choice.wishes) == (answers[0].cell, summary.GOALS[answers[0].goal])
            goals.add(answers[0].goal)
    assert len(goals) > 1
    assert rustimg_lab.recommend("recorded/service", stable=False).choice.wishes == recommendation.Wishes()


def test_several_runs_make_one_page_and_two_apps_none(lab):
    done = lab("report", "recorded/article,recorded/startup", **NO_ENGINE)
    assert done.returncode == 0, done.stderr
    text = (REPORTS / "recorded-article+recorded-startup" / "report.html").read_text()
    assert text.count('class="part"') == 2 + 2  # the questions, what to ship, how to reproduce
    done = lab("report", "recorded/article,recorded/fd", **NO_ENGINE)
    assert done.returncode == 2
    assert done.stderr == "lab: these runs are of several apps (myip, fd-find): a page is of one\n"


def test_without_a_browser_a_pdf_is_refused_before_any_work_and_an_earlier_page_stays(monkeypatch):
    monkeypatch.setattr(tools, "BROWSERS", ("no-such-browser",))
    earlier = REPORTS / "recorded" / "fd" / "report.html"
    earlier.parent.mkdir(parents=True, exist_ok=True)
    earlier.write_text("earlier")
    monkeypatch.setattr(publish.notebooks, "execute_all", lambda *_: pytest.fail("a notebook was executed"))
    with pytest.raises(LabError, match=r"a PDF is made by Chromium or Chrome, .* apt-get install chromium"):
        publish.write_page("recorded/fd", "pdf")
    assert earlier.read_text() == "earlier"
    earlier.unlink()


def test_a_run_without_dockerfiles_or_with_a_profile_of_another_lab_has_its_page(own, lab):
    run = own("service", dockerfiles=False)
    rows = (RUNS / run / "rows.jsonl").read_text()
    (RUNS / run / "rows.jsonl").write_text(
        rows.replace("scratch-optimized-", "scratch-turbo-").replace(
            '"profile": "optimized", "allocator"', '"profile": "turbo", "allocator"'
        )
    )
    text = publish.write_page(run, "md").read_text()
    assert f"# run '{run}' has no Dockerfile." in text and "](../" not in text
    done = lab("choose", "--run", run, **NO_ENGINE)
    assert done.returncode == 0 and f"# run '{run}' has no Dockerfile." in done.stdout


def test_a_study_of_memory_has_its_section_where_the_engine_limits_none(own):
    run = own("memory", lambda row: "limit" not in row["study"])
    assert studies.MEMORY in {notebook for notebook, _ in sections.parts(runs.load(run))}
    text = publish.write_page(run).read_text()
    assert "This run has no smallest limit" in text


def test_a_start_of_the_server_alone_that_was_lost_leaves_the_containers_table(own):
    run = own("startup", lambda row: row["study"] != "startup-server")
    title, lines, *_ = short.of_startup(runs.load(run))
    assert {line[0] for line in lines[1:]} == {"container"} and title.startswith(f"run {run}")


def test_what_only_asserts_is_not_in_the_page():
    document = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A question"),
            nbformat.v4.new_code_cell("import this"),
            nbformat.v4.new_markdown_cell("## What holds"),
            nbformat.v4.new_code_cell("assert True"),
            nbformat.v4.new_markdown_cell("## Findings"),
            nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="one <b>\n")]),
        ]
    )
    text = page.html("title", "about", [page.Part(document)])
    assert "A question" in text and "What holds" not in text and "Findings" in text
    assert html.escape("one <b>") in text


def test_an_unknown_parameter_is_told_with_the_nearest():
    with pytest.raises(LabError, match="unknown parameter 'run_nam': did you mean 'run_name'"):
        notebooks.render("recorded", parameters={"run_nam": "x"})


def test_a_notebook_that_does_not_reach_its_end_makes_no_page(monkeypatch):
    written = notebooks.render("recorded")
    before = written.read_text()
    written.with_suffix(".ipynb").unlink()  # or it would not be executed again
    monkeypatch.setattr(notebooks, "SENTINEL", "what no cell prints")
    with pytest.raises(LabError, match="did not run to its end"):
        notebooks.render("recorded")
    assert written.read_text() == before
