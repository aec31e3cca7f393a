"""The notebook that builds before one's eyes, on a real engine; and what it draws."""

import shutil

import nbformat
import papermill
import pytest
from support.lab import GNU

from rustimg_lab.analysis import cells, recommendation
from rustimg_lab.model import matrix
from rustimg_lab.paths import NOTEBOOKS, RUNS
from rustimg_lab.report import views
from rustimg_lab.report.plots.style import Plot
from rustimg_lab.store import runs
from rustimg_lab.widgets import live, trade_off

NAME = "test-live"


@pytest.mark.engine
def test_start_here_builds_measures_and_shows_what_grows(images, tmp_path):
    shutil.rmtree(RUNS / NAME, ignore_errors=True)
    asked = {"own_run": NAME, "bases": "scratch", "profiles": "optimized", "allocators": "jemalloc", "blocks": 1}
    papermill.execute_notebook(
        str(NOTEBOOKS / "00_start_here.ipynb"), str(tmp_path / "out.ipynb"), asked, cwd=str(NOTEBOOKS),
        progress_bar=False, execution_timeout=900,
    )  # fmt: skip
    try:
        run = runs.load(NAME)
        assert cells.cell_table(run)["ok"].tolist() == [True]
        own = run.rows[(run.rows["study"] == "throughput-batch-1w-16c") & (run.rows["metric"] == "trial")]
        assert own["ok"].tolist() == [True] * 3  # jemalloc, musl malloc, the twin
        assert run.environment.commands == ["# in 00_start_here.ipynb: scratch-optimized-jemalloc; 1 blocks"]
        document = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        (cell,) = [cell for cell in document.cells if "cells.watch" in cell.source]
        drawn = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert drawn and len(drawn[0].data["image/png"]) > 20_000  # the last of it, with both plots
        figure = live.figure(NAME)
        assert [axes.get_label().partition(":")[0] for axes in figure.axes] == [
            f"run {NAME}",
            "throughput-batch-1w-16c",
        ]
    finally:
        shutil.rmtree(RUNS / NAME)


def test_a_plot_of_nothing_yet_is_shown_as_no_picture():
    assert Plot(9, 2)._repr_mimebundle_() == ({"text/plain": ""}, {})
    drawn = Plot(9, 2)
    drawn.subplots()
    assert set(drawn._repr_mimebundle_()[0]) == {"image/png"}


def test_a_run_that_has_nothing_yet_has_an_empty_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {"cpus": 2}):
        pass
    assert "0 cells measured" in live.figure("a").axes[0].get_title(loc="left")


def test_what_one_leaves_out_is_not_chosen_from():
    found = recommendation.choose(runs.load("recorded/service"), recommendation.Wishes())
    kept = recommendation.narrow(found, ["debian"], list(found.table["profile"]), ["system"])
    assert set(kept.table["base"]) == {"debian"} and not kept.picked and not kept.sureness
    assert 0 < kept.table["on_front"].sum() <= len(kept.table) < len(found.table) == 12
    assert recommendation.narrow(found, [], [], []).table.empty


def test_a_run_with_sizes_alone_has_no_trade_off():
    assert "sizes alone" in trade_off.trade_off(runs.load("recorded/fd")).value


def test_a_cell_is_shown_with_what_it_is_made_of():
    shown = matrix.cell("debian", "optimized", "jemalloc")._repr_html_()
    assert all(each in shown for each in ("debian:trixie-slim", "lto = true, stripped", "jemalloc", GNU))
    assert views.provenance.cells(matrix.grid(["scratch"], ["smallest"], ["system"])).data["base image"].tolist() == [
        "none: scratch is empty"
    ]
    assert "recorded/article" in views.provenance.runs().data["run"].tolist()


def test_the_trade_off_counts_the_cells_that_were_measured_in_both_criteria():
    said = trade_off.trade_off(runs.load("recorded/miniserve")).children[-1].value
    assert "Of the 3 cells (of 8) measured in both, lowest compressed (pull) size (ringed): scratch-opt" in said
