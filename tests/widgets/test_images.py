"""What a notebook checks of the sizes of a run."""

from dataclasses import replace

import pytest

from rustimg_lab.model import metrics
from rustimg_lab.model.matrix import OWN
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
