"""What `import rustimg_lab as lab` offers, as a person in a notebook uses it."""

import errno
import re
import subprocess
import sys

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from papermill.exceptions import PapermillExecutionError
from support.lab import SERVER, TINY, forget

import rustimg_lab as lab
from rustimg_lab.errors import LabError
from rustimg_lab.paths import ROOT
from rustimg_lab.pipeline import grid, studies
from rustimg_lab.report import publish, sections
from rustimg_lab.report.notebooks import SENTINEL

pytestmark = pytest.mark.slow

RUN = "test-face"
WRONG_COUNTS = ("3", [1, 2], -1, 0, 1.5, float("nan"), True, None)


def test_it_offers_its_verbs_and_nothing_else_also_when_all_is_loaded():
    code = (
        "import sys, rustimg_lab as lab; early = 'pandas' in sys.modules or 'docker' in sys.modules\n"
        "import rustimg_lab.build.bake, rustimg_lab.measure.trials, rustimg_lab.report.page\n"
        "print(early, dir(lab) == lab.__all__, all(callable(getattr(lab, each)) for each in lab.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False True True\n", done.stderr
    assert len(lab.__all__) <= 10 and all(getattr(lab, each).__doc__ for each in lab.__all__)


def test_cells_are_every_combination_and_are_shown_as_a_table():
    chosen = lab.cells("scratch,debian", ["optimized"], "system,mimalloc")
    names = ("scratch-optimized-system", "debian-optimized-system")
    assert [str(cell) for cell in chosen] == [*names, *(name.replace("system", "mimalloc") for name in names)]
    assert "debian-optimized-mimalloc" in chosen._repr_html_()
    with pytest.raises(LabError, match="did you mean 'scratch'"):
        lab.cells("scrach")


def test_a_recorded_run_has_its_tables_its_studies_and_ratios_with_a_plot():
    run = lab.load("recorded/allocators")
    assert "throughput-batch-1w-16c" in run.studies
    ratios = run.ratios("throughput-batch-1w-16c")
    (one,) = ratios.table.query("cell == 'scratch-optimized-jemalloc'")["ratio"]
    assert 0.3 < one < 0.4  # the README's
    assert "CPU per request, as a ratio to" in ratios.plot().axes[0].get_xlabel()
    assert "scratch-optimized-jemalloc" in ratios._repr_html_() and "trials" in run._repr_html_()
    assert "MB" in lab.load("recorded/service")._repr_html_()
    with pytest.raises(LabError, match="no memory study"):
        run.ratios("memory")
    with pytest.raises(LabError, match="unknown run"):
        lab.load("recorded/none")


def test_two_runs_are_compared_and_a_cell_is_recommended_with_its_dockerfile():
    assert lab.compare("recorded/service", "recorded/service").sizes["verdict"].eq("same").all()
    found = lab.recommend("recorded/service", max_transfer_mb=3)
    assert found.cell in lab.load("recorded/service").sizes.table["cell"].to_list()
    assert "FROM" in found.dockerfile and f"Selected: {found.cell}" in found._repr_html_()
    assert lab.recommend("recorded/service", max_transfer_mb=0.01).cell == ""
    with pytest.raises(LabError, match="unknown limit 'max_transfer': did you mean 'max_transfer_mb'"):
        lab.recommend("recorded/service", max_transfer=3)
    assert "recorded/service" in lab.runs().table["run"].to_list() and "recorded/service" in lab.runs()._repr_html_()
    with pytest.raises(LabError, match="unknown study 'thruput'"):
        lab.measure([], RUN, study="thruput")
    with pytest.raises(LabError, match=r"lab.toml: has no \[serve\]"):
        lab.measure([], RUN, app=TINY)


def test_what_a_run_leads_to_is_shown_as_a_table_and_has_a_plot_and_words_or_says_that_it_has_none():
    server, sizes = lab.load("recorded/startup").study("startup-server"), lab.load("recorded/article").sizes
    assert "**debian-optimized-system**" in server.ratios().words._repr_markdown_()
    data, metadata = server.trials().plot()._repr_mimebundle_()
    assert len(data["image/png"]) > 10_000 and "exec to first byte, ms" in metadata["image/png"]["alt"]
    assert [plot.alt.partition(".")[0] for plot in (sizes.plot(), sizes.article.plot())] == ["profile baseline"] * 2
    assert "This run has no base with `baseline`" in sizes.ladder._repr_html_() and sizes.ladder.plot() == []
    with pytest.raises(LabError, match="no plot of this"):
        sizes.layers.plot()
    with pytest.raises(LabError, match="no words on this"):
        assert sizes.binaries.words
    with pytest.raises(LabError, match="has no memory study"):
        lab.load("recorded/startup").study("memory", of="load")
    assert lab.load("recorded/startup").find("memory") == lab.load("recorded/startup").find("instructions") == []
    assert lab.load("recorded/ladder").find("memory", of="limit") == []  # a parameter of runs that have such studies
    for wrong in (server.ratios, server.trials, lambda metric: server.means({"s": metric})):
        with pytest.raises(LabError, match=r"unknown metric of .* 'exec_to_first_byte': did you mean"):
            wrong("exec_to_first_byte")
    assert "fd" in lab.load("recorded/fd").attribution()._nothing


@pytest.mark.parametrize(
    ("run", "metric"),
    [
        ("allocators", "requests"),
        ("allocators", "trial"),
        ("allocators", "load_average"),
        ("memory", "requests_per_s_at_limit"),
        ("memory", "rss_at_100_bytes"),
    ],
)
def test_only_what_has_a_better_and_a_worse_is_compared_and_all_else_has_its_means(run, metric):
    run = lab.load(f"recorded/{run}")
    (study, *_) = [each for each in map(run.study, run.studies) if metric in each.measured]
    with pytest.raises(LabError, match=f"unknown metric to compare cells of {study.name} by '{metric}'.*known are "):
        study.ratios(metric)
    if metric != "trial":
        assert metric.replace("_", " ") in study.trials(metric)._repr_html_().replace("_", " ")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lab.load("recorded/threads").find("throughputs"), "unknown kind of study 'throughputs': did you mean"),
        (lambda: lab.load("recorded/threads").find(None), "kind is None: it must be text"),
        (lambda: lab.load("recorded/threads").find("throughput", wokload="batch"), "unknown parameter 'wokload': did"),
        (lambda: lab.load("recorded/threads").find("throughput", "nope"), "unknown cell of throughput-.* 'nope': "),
        (lambda: lab.load("recorded/service").study("startup-server", "nope"), "unknown cell of startup-server 'nope'"),
        (
            lambda: lab.load("recorded/threads").study("throughput-batch-1w-16c", workload="batch", workers=2),
            "study 'throughput-batch-1w-16c' has workers 1, not 2: leave that out",
        ),
        (lambda: lab.load("recorded/knobs").attribution("bach"), "unknown workload of run .* 'bach': did you mean 'ba"),
        (lambda: lab.load("recorded/article").sizes.sections("nope"), "unknown cell that works 'nope'"),
        (lambda: lab.report("recorded/threads", "PDF"), "unknown format 'PDF': "),
        (lambda: lab.report("recorded/threads", "doc"), "unknown format 'doc': "),
    ],
)
def test_a_name_that_is_not_known_is_refused_and_none_is_left_out_without_a_word(call, said):
    with pytest.raises(LabError, match=said):
        call()


def test_studies_are_found_by_name_kind_and_parameters():
    run = lab.load("recorded/threads")
    named = run.study("throughput-batch-1w-16c", workload="batch", workers=1).name
    assert named == run.study("throughput", workers=1).name == run.find("throughput", workers=1)[0].name
    assert run.find("latency", workload="batch") == [] and len(run.find("throughput")) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: lab.load(["recorded/service"]),
        lambda: lab.load(None),
        lambda: lab.load(ROOT),
        lambda: lab.report(None),
        lambda: lab.load("recorded/deploy").deploys(held_out="100"),
        lambda: lab.recommend("recorded/service", max_transfer_mb=float("nan")),
        lambda: lab.recommend("recorded/service", max_transfer_mb="2"),
        lambda: lab.recommend("recorded/service", max_transfer_mb=-1),
        lambda: lab.recommend("recorded/service", min_throughput=95),
        lambda: lab.recommend("recorded/service", stable="false"),
        lambda: lab.recommend("recorded/service").break_even("100Mbit"),
        lambda: lab.load("recorded/allocators").machines(["recorded/allocators-intel"]),
        *(lambda count=count: lab.load("recorded/deploy").deploys().services(count) for count in WRONG_COUNTS),
        *(lambda count=count: lab.measure(lab.cells(), RUN, blocks=count) for count in WRONG_COUNTS),
        lambda: lab.cells(None),
        lambda: lab.cells(3),
        lambda: lab.cells(b"scratch"),
        lambda: lab.load("recorded/threads").study("throughput").means(None),
        lambda: lab.load("recorded/threads").study("throughput").means(["requests_per_s"]),
        lambda: lab.build(lab.cells(), RUN, app=3),
        lambda: lab.measure(lab.cells(), RUN, app=["service"]),
    ],
)
def test_a_value_of_a_wrong_type_or_out_of_its_range_is_told_with_what_it_must_be(call):
    with pytest.raises(
        LabError,
        match=r" is .*: it must be (text|a [fw].* number|a fraction from 0 to 1|True or False|names|a dict|the)",
    ):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: lab.cells([None]),
        lambda: lab.cells([3]),
        lambda: lab.cells([["scratch"]]),
        lambda: lab.cells(debian=None),
        lambda: lab.cells(debian=["trixie"]),
        lambda: lab.load("recorded/threads").ratios("throughput", 3),
        lambda: lab.load("recorded/threads").ratios("throughput", None),
        lambda: lab.load("recorded/threads").study("throughput").means({"CPU": ["cpu_us_per_request"]}),
        lambda: lab.load("recorded/article").sizes.parts(["scratch-optimized-jemalloc"]),
        lambda: lab.load("recorded/article").sizes.sections(3),
    ],
)
def test_what_is_no_name_is_told_as_one_that_is_not_known(call):
    with pytest.raises(LabError, match=r"^unknown .*: .*known are "):
        call()


@pytest.mark.parametrize("verb", [lab.build, lab.measure])
@pytest.mark.parametrize("cells", [(), [], iter(()), "scratch", ["scratch"], None, 3])
def test_without_cells_nothing_is_begun(monkeypatch, verb, cells):
    def begun(*_: object) -> None:
        raise AssertionError("an engine was asked")

    monkeypatch.setattr(grid, "run_grid", begun)
    monkeypatch.setattr(studies, "run_studies", begun)
    with pytest.raises(LabError, match=r"no cells: `lab.cells\('scratch'\)` makes one"):
        verb(cells, RUN)


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(ROOT / "reports"))

    monkeypatch.setattr(publish, "write_page", refused)
    monkeypatch.setattr(grid, "run_grid", refused)
    told = r"^cannot read or write .*reports \(Read-only file system\): runs and reports are kept below"
    for call in (lambda: lab.report("recorded/fd"), lambda: lab.build(lab.cells(), RUN)):
        with pytest.raises(LabError, match=told):
            call()
    code = (
        "import errno; from rustimg_lab.report import batch\n"
        "def refused(*_): raise OSError(errno.EROFS, 'Read-only file system', str(batch.NOTEBOOKS / 'a.part'))\n"
        "batch.notebooks.render = refused; batch._main('a', 'b', '{}', '60')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert re.match(told.replace(".*reports ", ".*a.part "), done.stderr) and done.stderr.count("\n") == 1


def test_no_combination_is_no_grid():
    for empty in ({"bases": []}, {"profiles": ()}, {"allocators": iter(())}):
        with pytest.raises(LabError, match="there are no cells"):
            lab.cells(**empty)


def test_blanks_after_commas_are_no_part_of_a_name():
    assert lab.cells("scratch, debian") == lab.cells("scratch,debian")
    assert sections.names("recorded/fd, recorded/bat") == ["recorded/fd", "recorded/bat"]
    machines = lab.load("recorded/allocators").machines("recorded/allocators-intel, ", workload="batch", workers=1)
    assert set(machines.sessions.table["run"]) == {"recorded/allocators", "recorded/allocators-intel"}


def test_what_a_study_of_another_kind_has_is_told_and_runs_of_two_apps_are_refused_at_once():
    study = lab.load("recorded/startup").study("startup-server")
    for name in ("layouts", "percentiles", "speed_up", "connections"):
        with pytest.raises(LabError, match=r"study 'startup-server' is of another kind: `run.find\("):
            getattr(study, name)
    with pytest.raises(LabError, match="one run is of bat, the other of myip"):
        lab.compare("recorded/bat", "recorded/ladder")


def test_an_error_in_a_notebook_is_one_line_and_the_notebook_has_failed(tmp_path, capsys):
    code = "import rustimg_lab as lab\nlab.load('recorded/none')"
    shell = InteractiveShell()
    assert not shell.run_cell(code).success
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("lab: unknown run 'recorded/none'")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    with pytest.raises(PapermillExecutionError, match="unknown run"):
        papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", kernel_name="python3", language="python", progress_bar=False
        )


def test_a_check_fails_where_the_rows_do_not_hold():
    run = lab.load("recorded/memory")
    study = run.study("memory", of="load")
    study.check()
    whole = run.rows["metric"] == "steady_rss_bytes"
    run.rows["value"] = run.rows["value"].where(~whole, 1)
    with pytest.raises(AssertionError, match="a part is larger than the whole"):
        study.check()


def test_the_footer_shows_where_a_run_comes_from_and_says_that_it_is_the_end(capsys):
    lab.load("recorded/startup").footer()
    assert capsys.readouterr().out.splitlines()[-1].startswith(SENTINEL)


@pytest.mark.engine
def test_the_lines_of_the_readme_build_two_cells_measure_them_and_plot_the_ratio(monkeypatch):
    """Of a crate that compiles in seconds, in the place of the reader's own."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 6
    code = code.replace('"../service"', repr(str(SERVER))).replace('"mine"', f'"{RUN}"')
    forget(RUN)
    try:
        names: dict = {}
        exec(code, names)
        assert len(names["run"].sizes.table) == 2 and names["run"].sizes.table["ok"].all() and not names["run"].failures
        ratios = names["run"].ratios("throughput").table
        assert ratios["pairs"].eq(3).all() and len(ratios) == 2  # the other cell, and the A/A control
        rows = len(names["run"].rows)
        exec(code, names)
        assert len(names["run"].rows) == rows, "the second time nothing is built or measured again"
    finally:
        forget(RUN)
