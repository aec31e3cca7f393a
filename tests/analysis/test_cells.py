from dataclasses import replace

import pandas as pd
import pytest
from support.crates import MANIFEST, crate

from rustimg_lab.analysis import cells, comparison, recommendation
from rustimg_lab.build import lab_toml
from rustimg_lab.model import matrix, metrics, studies
from rustimg_lab.pipeline import grid
from rustimg_lab.report import terminal, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

GOOD = [
    Observation("base_digest", ""),
    Observation("unpacked_bytes", 3_000_000, "B"),
    Observation("base_bytes", 0, "B"),
    Observation("app_bytes", 3_000_000, "B"),
    Observation("layer_bytes", 3_000_000, "B", detail="app: COPY"),
    Observation("runs", True),
]

NOTED = Observation("rustc", "2", detail="note: compiled by rustc 2, not 1")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Four cells: one good, one that does not run, one that does not compile, one that the lab was killed in."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {}) as run:
        for base, observations in (
            ("scratch", GOOD),
            ("alpine", [*GOOD[:-1], Observation("runs", False, ok=False, reason="exit code 1")]),
            ("distroless", [Observation("built", False, ok=False, reason="error: expected `;`")]),
            ("debian", GOOD[:-1]),
        ):
            cell = matrix.cell(base, "optimized", matrix.ARTICLE)
            run.append(cell, "" if base == "distroless" else f"sha256:{base}", observations)
    return runs.load("a")


def test_a_size_without_a_program_that_runs_is_not_shown(recorded):
    table = cells.cell_table(recorded).set_index("base")
    assert table["unpacked_bytes"].dropna().to_dict() == {"scratch": 3_000_000}
    assert table["ok"].to_dict() == {"scratch": True, "alpine": False, "distroless": False, "debian": False}
    assert table.loc["alpine", "reason"] == "exit code 1"
    assert table.loc["distroless", "reason"] == "error: expected `;`"
    assert "not measured to the end" in table.loc["debian", "reason"]
    assert cells.layer_table(recorded)["cell"].tolist() == ["scratch-optimized-jemalloc"]


def test_a_cell_that_runs_and_has_no_size_does_not_count_as_whole(recorded):
    rows = recorded.rows
    table = cells.cell_table(replace(recorded, rows=rows[rows["metric"] != "unpacked_bytes"])).set_index("base")
    assert not table["ok"].any() and "not measured to the end" in table.loc["scratch", "reason"]


def test_a_note_of_a_row_is_beside_its_cell(recorded):
    with runs.open_run("a", {}) as run:
        noted = Observation("runs", True, detail="note: starts; CMD --version")
        run.append(matrix.cell("scratch", "optimized", matrix.ARTICLE), "sha256:scratch", [noted])
    notes = cells.cell_table(runs.load("a")).set_index("base")["note"].to_dict()
    assert notes == {"scratch": "starts", "alpine": "", "distroless": "", "debian": ""}
    shown = terminal.summary("a", studies.SIZES, {})
    assert "yes (starts)" in list(shown.columns[-1].cells)
    noted = runs.load("a")
    assert "A note on 1 of 1 cells: starts." in views.verdicts.size_verdict(cells.cell_table(noted), noted)


def test_an_allocator_of_the_crates_own_is_shown_with_what_was_found(recorded):
    with runs.open_run("a", {}) as run:
        for base, found in (("debian", "jemalloc"), ("scratch", "system"), ("alpine", "")):
            linked = [Observation(metrics.LINKED_ALLOCATOR, found)] if found else []
            run.append(matrix.cell(base, "published", "own"), f"sha256:{base}", [*GOOD, *linked])
        linked = Observation(metrics.LINKED_ALLOCATOR, "mimalloc")
        run.append(matrix.cell("debian", "optimized", "mimalloc"), "sha256:other", [*GOOD, linked])
    table = cells.cell_table(runs.load("a"))
    shown = ["own (jemalloc)", "own (system)", "own", "mimalloc"]
    of_bases = dict(zip(table["cell"], cells.allocators_in_words(table), strict=True))
    asked = ("debian-published-own", "scratch-published-own", "alpine-published-own", "debian-optimized-mimalloc")
    assert [of_bases[cell] for cell in asked] == shown
    assert {*shown} <= {*views.sizes.breakdown(table).data["allocator"]}
    assert {*shown} <= {*terminal.summary("a", studies.SIZES, {}).columns[2].cells}


def test_the_crate_as_published_is_first_and_a_compiler_that_was_not_asked_for_is_in_every_table(recorded):
    with runs.open_run("a", {}) as run:
        run.append(matrix.cell("scratch", "published", "own"), "sha256:own", GOOD)
        run.append(matrix.cell("scratch", "published", "own"), "sha256:own", [NOTED])
        plan = {"kind": "build", "metric": "cold_build_s", "baseline": "scratch-published-own", "cells": []}
        plan |= {
            "parameters": {"warning": "short", "cpus": 1, "program": "a"},
            "seed": 0,
            "stopping": {"blocks": 1},
            "contents": {},
        }
        run.save_environment(app={"name": "a", "note": "compiled by rustc 2, not 1"}, studies={"load": plan})
    data = runs.load("a")
    table = cells.cell_table(data)
    assert table["cell"].iloc[0] == "scratch-published-own"
    assert recommendation.candidates(data)[2] == ["compiled by rustc 2, not 1"]
    trials = comparison.samples(data, "load", "cold_build_s")
    assert trials.attrs["warning"] == "short; compiled by rustc 2, not 1"
    assert "compiled by rustc 2, not 1" in views.sizes.breakdown(table).to_html()


def test_what_was_added_to_an_image_is_beside_its_cell_and_can_be_asked_for(recorded):
    cell = replace(matrix.cell("scratch", "optimized", matrix.ARTICLE), additions=("ca-certificates", "tmp"))
    with runs.open_run("a", {}) as run:
        run.append(cell, "sha256:more", [*GOOD, Observation("compressed_bytes", 9_000_000, "B")])
        run.append(replace(cell, additions=()), "sha256:scratch", [*GOOD, Observation("compressed_bytes", 1, "B")])
    found = runs.load("a")
    assert cells.cell_table(found).set_index("cell")["note"][cell.slug] == "with ca-certificates, tmp"
    assert recommendation.choose(found, recommendation.Wishes()).picked == replace(cell, additions=()).slug
    choice = recommendation.choose(found, recommendation.Wishes(additions=("tmp",)))
    assert choice.picked == cell.slug
    assert choice.table["reason"][replace(cell, additions=()).slug] == "built without --with tmp"


def test_every_failed_cell_is_in_every_table_with_its_reason(recorded):
    for styler in (
        views.sizes.then_and_now(cells.article_grid(recorded)),
        views.sizes.breakdown(cells.cell_table(recorded)),
    ):
        html = styler.to_html()
        assert all(name in html for name in ("scratch", "alpine", "distroless", "debian"))
        assert "exit code 1" in html and "error: expected `;`" in html


def test_what_a_compiler_says_is_text_in_a_table_and_no_html(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {}) as run:
        bad = Observation("built", False, ok=False, reason="<script>alert(1)</script>")
        run.append(matrix.cell("scratch", "optimized", "system"), "", [bad])
    assert "<script>" not in views.sizes.breakdown(cells.cell_table(runs.load("a")).assign(base_bytes=None)).to_html()


def test_what_a_compiler_says_is_text_in_the_verdict_too(recorded):
    recorded.rows.loc[recorded.rows["base"] == "distroless", "reason"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in views.verdicts.size_verdict(cells.cell_table(recorded), recorded)


def test_a_run_in_which_nothing_works_has_tables_and_a_verdict(recorded):
    nothing = replace(recorded, rows=recorded.rows[recorded.rows["base"].isin(["alpine", "distroless"])])
    assert cells.layer_table(nothing).empty
    views.sizes.layers(cells.layer_table(nothing)).to_html()
    assert "0 of 2 cells" in views.verdicts.size_verdict(cells.cell_table(nothing), nothing)
    assert "No cell" in views.verdicts.size_findings(cells.article_grid(nothing))


def test_the_article_stands_beside_its_own_cells_only(recorded):
    grid = cells.article_grid(recorded)
    assert grid.set_index("base")["article_bytes"].to_dict() == {
        "scratch": 4_200_000, "alpine": 9_810_000, "distroless": 25_600_000, "debian": 72_800_000,
    }  # fmt: skip


def test_the_articles_figures_are_whole():
    assert len(cells.article()) == 8
    assert set(cells.article()["base"]) == set(matrix.ARTICLE_BASES)
    assert pd.api.types.is_integer_dtype(cells.article()["size_bytes"])


def test_the_ladder_holds_each_profile_against_the_baseline_of_its_base(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    with runs.open_run("a", {}) as run:
        for base in ("scratch", "debian"):
            for number, name in enumerate(("baseline", "strip", "smallest-unstable")):
                if (base, name) == ("debian", "strip"):
                    continue
                sizes = {"unpacked_bytes": 4_000_000 - number * 1_000_000, "compressed_bytes": 1_000_000 + number}
                facts = sizes | {"build_cpu_s": 100.0, "unstable": name == "smallest-unstable", "runs": True}
                observations = [Observation(key, value) for key, value in facts.items()]
                run.append(matrix.cell(base, name, "system"), "sha256:1", observations)
        run.append(matrix.cell("debian", "opt-s", "system"), "", [Observation("built", False, ok=False, reason="no")])
    found = cells.ladder(cells.cell_table(runs.load("a"))).set_index("cell")
    assert found.loc[["scratch-baseline-system", "scratch-strip-system"], "unpacked"].tolist() == [1, 0.75]
    assert found["unpacked"].get("debian-smallest-unstable-system") == 0.5
    assert not found["ok"]["debian-opt-s-system"] and pd.isna(found["unpacked"]["debian-opt-s-system"])
    assert found["unstable"].eq(True).sum() == 2


def test_cells_of_other_sources_than_those_that_were_built_last_are_noted(recorded):
    """Of a cell that says nothing of them, as in runs of older labs, nothing is known."""
    assert not cells.cell_table(recorded)["note"].any()
    with runs.open_run("a", {}) as run:
        for base, sources in (("scratch", "old"), ("alpine", "new"), ("debian", "new")):
            own = [Observation("sources_sha256_16", sources)]
            run.append(matrix.cell(base, "optimized", matrix.ARTICLE), f"sha256:{base}", own)
    notes = cells.cell_table(runs.load("a")).set_index("base")["note"].to_dict()
    assert notes.pop("scratch").startswith("built of other sources than debian-optimized-system: `./lab run`")
    assert not any(notes.values())


def test_cells_of_other_settings_than_those_that_were_built_last_are_noted(recorded, tmp_path):
    folder = crate(tmp_path / "a", {"Cargo.toml": MANIFEST.format("a") + "[features]\nbig = []\n"})
    apps = [lab_toml.load(folder)]
    for told in ('features = ["big"]\n', 'features = ["big"]\n[check]\nprints = "a"\n'):
        (folder / "lab.toml").write_text(told)
        apps.append(lab_toml.load(folder))
    settings = list(map(grid._settings, apps))
    assert settings[0] != settings[1] == settings[2]  # what is checked makes no other image
    with runs.open_run("a", {}) as run:
        for base, value in zip(("scratch", "alpine", "debian"), settings, strict=True):
            own = [Observation("settings_sha256_16", value)]
            run.append(matrix.cell(base, "optimized", matrix.ARTICLE), f"sha256:{base}", own)
    notes = cells.cell_table(runs.load("a")).set_index("base")["note"].to_dict()
    assert notes.pop("scratch").startswith("built with other settings of lab.toml than debian-optimized-system: `./lab")
    assert not any(notes.values())
