"""Trials of a recorded run with other pauses: the notes beside a study's numbers."""

from dataclasses import replace

import pytest

from rustimg_lab.analysis import comparison, study_notes
from rustimg_lab.model import metrics
from rustimg_lab.store import runs


@pytest.mark.parametrize(
    ("study", "metric"),
    [("startup-server", metrics.EXEC_TO_FIRST_BYTE_S), ("startup-container", metrics.HOST_FIRST_BYTE_S)],
)
@pytest.mark.parametrize(("share", "noted"), [(0.4, False), (0.6, True)])
def test_a_first_byte_that_nobody_looked_for_in_half_of_the_time_is_noted(study, metric, share, noted):
    run = runs.load("recorded/startup")
    rows = run.rows.copy()
    took, longest = (
        rows[(rows["study"] == study) & (rows["metric"] == each)] for each in (metric, study_notes.LOOKED_FOR[metric])
    )
    rows.loc[longest.index, "value"] = share * took["value"].astype(float).to_numpy()
    changed = replace(run, rows=rows)
    warning = comparison.samples(changed, study, metric).attrs["warning"]
    assert ("nobody looked for the first byte during at least 60% of the time" in warning) == noted
    assert "nobody looked" not in comparison.samples(run, study, metric).attrs["warning"]
    assert "nobody looked" not in comparison.samples(changed, study, study_notes.LOOKED_FOR[metric]).attrs["warning"]


def test_of_two_cells_that_fail_more_or_less_often_a_substitute_is_marked():
    run = runs.load("recorded/startup")
    trial = run.rows["study"].eq("startup-server") & run.rows["metric"].eq(metrics.TRIAL)
    lost = trial & run.rows["base"].eq("debian") & run.rows["block"].mod(2).eq(0)
    digest = run.environment.bases["debian"]
    images = run.environment.images | {digest: run.environment.images[digest] | {"stand_in": True}}
    for environment, name in ((run.environment, "debian"), (replace(run.environment, images=images), "debian (sub")):
        changed = replace(run, rows=run.rows.assign(ok=run.rows["ok"] & ~lost), environment=environment)
        (note,) = study_notes.trial_notes(changed, "startup-server", metrics.EXEC_TO_FIRST_BYTE_S)
        assert f"of the trials of {name}" in note
