"""What a notebook checks of the sizes of a run."""

import ast
from dataclasses import replace

import pytest

from rustimg_lab.model import metrics
from rustimg_lab.model.matrix import OWN
from rustimg_lab.paths import PACKAGE
from rustimg_lab.store import runs
from rustimg_lab.widgets.images import Sizes


@pytest.mark.parametrize(("allocator", "is_right"), [(OWN, True), ("jemalloc", True), ("mimalloc", False)])
def test_a_named_allocator_must_be_linked_and_the_crates_own_may_be_any(allocator, is_right):
    run = runs.load("recorded/article")
    rows = run.rows[run.rows["cell"] == "scratch-optimized-jemalloc"].assign(allocator=allocator)
    assert set(rows.loc[rows["metric"] == metrics.LINKED_ALLOCATOR, "value"]) == {"jemalloc"}
    sizes = Sizes(replace(run, rows=rows))
    if is_right:
        sizes.check()
    else:
        with pytest.raises(AssertionError):
            sizes.check()


def test_a_program_on_glibc_may_be_static_and_is_another_than_that_on_musl():
    """As with `-C target-feature=+crt-static` for the target of glibc alone."""
    run = runs.load("recorded/service")
    static = run.rows["value"].mask(run.rows["metric"] == metrics.LINKAGE, "static")
    Sizes(replace(run, rows=run.rows.assign(value=static))).check()


@pytest.mark.parametrize("base", ["alpine", "debian"])
def test_two_bases_with_one_c_library_get_the_same_program(base):
    run = runs.load("recorded/article")
    other = run.rows["base"].eq(base) & run.rows["metric"].eq(metrics.BINARY_SHA256)
    with pytest.raises(AssertionError, match="two bases were given different binaries"):
        Sizes(replace(run, rows=run.rows.assign(value=run.rows["value"].mask(other, "another")))).check()


def test_every_check_of_a_run_says_what_it_has_found():
    """The line of a page that could not be made ends with that."""
    for path in (PACKAGE / "widgets").glob("*.py"):
        for each in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(each, ast.Assert) or each.msg, f"{path.name}:{each.lineno}"


@pytest.mark.parametrize("metric", [metrics.BASE_BYTES, metrics.BINARY_BYTES, metrics.APP_BYTES])
def test_the_parts_of_an_image_whose_size_could_not_be_read_are_not_known(metric):
    run = runs.load("recorded")
    parts = Sizes(replace(run, rows=run.rows[run.rows["metric"] != metric])).parts()
    assert parts._repr_html_() == "<p>A size of this image could not be read.</p>" and not parts.plot()


def test_a_row_that_could_not_be_read_makes_no_part_larger_than_the_whole():
    run = runs.load("recorded/article")
    for metric in (metrics.APP_BYTES, metrics.LAYER_BYTES):
        first = run.rows.index[run.rows["metric"] == metric][0]
        lacking = replace(run, rows=run.rows.drop(first), broken=("article/rows.jsonl:9: not JSON; left out",))
        Sizes(lacking).check()
        with pytest.raises(AssertionError):
            Sizes(replace(lacking, broken=())).check()
