"""A study on several machines as a notebook reads it: the ratios of each session, and what they say of other
machines."""

from functools import partial

import pandas as pd

from rustimg_lab.analysis import machines
from rustimg_lab.report import plots, views
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.results import Result, Several


class Machines:
    """A study of several machines. `sessions`: the ratios that each machine has measured in each run, see
    `machines.sessions`; `ratios`: what the machines have in common, see `machines.combine`, with a forest plot of each
    cell."""

    def __init__(self, runs: dict[str, RunData], study: str) -> None:
        found = machines.sessions(runs, study)
        nothing = "No cell is measured on two machines: `./lab report RUN,RUN` takes runs of one study on several."
        self.sessions = Result(found, views.machines.sessions)
        shown = views.machines.ratios, self._forests, views.machines.in_words
        self.ratios = Result(machines.combine(found), *shown, nothing)

    def _forests(self, table: pd.DataFrame) -> Several:
        return Several(map(partial(plots.machines.forest, table), table["cell"].unique()))

    def check(self) -> None:
        """Raise AssertionError when a session counts twice, or an interval does not contain its ratio."""
        assert not self.sessions.table.duplicated(["machine", "run", "cell"]).any(), "a session counts twice"
        for table in (self.sessions.table, self.ratios.table):
            assert table["ratio"].between(table["low"], table["high"]).all(), "a ratio is outside its interval"
