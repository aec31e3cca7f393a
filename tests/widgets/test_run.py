"""What the verbs return of runs that are not as the recorded ones: interrupted, of an older lab, with broken rows."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

import rustimg_lab as lab
from rustimg_lab.model import metrics
from rustimg_lab.widgets.run import Run


@pytest.fixture
def given(monkeypatch) -> Callable:
    """A recorded run with other rows, as `lab.load` then returns it too."""

    def make(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Run:
        run = lab.load(f"recorded/{name}")
        changed = replace(run, data=replace(run.data, rows=change(run.rows)))
        monkeypatch.setattr(lab, "load", lambda _: changed)
        return changed

    return make


def test_stable_flags_are_required_also_of_a_run_that_does_not_tell_which_are(given):
    given("service", lambda rows: rows[rows["metric"] != metrics.UNSTABLE])
    found = lab.recommend("", stable=True)
    assert found.cell == "" and "Constraints: no unstable flags" in found.words
    assert lab.recommend("").cell != "" and lab.recommend("", stable=False).cell != ""
