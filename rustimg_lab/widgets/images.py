"""What a run has on its images, as a notebook reads it: sizes and robustness probes."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from rustimg_lab.analysis import cells, robustness
from rustimg_lab.model import matrix, metrics, probes
from rustimg_lab.model.matrix import OWN
from rustimg_lab.report import plots, views
from rustimg_lab.report.plots.style import Plot
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.results import Result, Several, Words


class Sizes(Result):
    """Sizes of the images. `table`: a row per cell, in bytes (see `cells.cell_table`). `article`: the article's sizes
    beside ours; `contributions`: what the base brings and what the app adds; `binaries`: what they are and need;
    `ladder`: each build profile compared with `baseline`; `layers`: each with the instruction that made it."""

    def __init__(self, run: RunData) -> None:
        table, grid = cells.cell_table(run), cells.article_grid(run)
        self._grid, self._run, side_by_side = grid, run, plots.sizes.by_profile
        nothing = "This run has no sizes."
        verdict = lambda _: views.verdicts.size_verdict(table, run)  # noqa: E731
        super().__init__(table, views.sizes.breakdown, lambda _: self._drawn(plots.sizes.transfer), verdict, nothing)
        article = partial(side_by_side, plots.sizes.then_and_now)
        renderers = views.sizes.then_and_now, article, views.verdicts.size_findings
        self.article = Result(grid, *renderers, "The article has no figures of this run's app and cells.")
        renderers = views.sizes.breakdown, lambda _: self._drawn(plots.sizes.shares)
        self.contributions = Result(table, *renderers, nothing=nothing)
        self.binaries = Result(table, views.sizes.binaries, nothing=nothing)
        renderers = views.sizes.ladder, _ladder, views.verdicts.ladder_findings
        no_ladder = "This run has no base with `baseline` and two more: `./lab run --grid ladder --run ladder` has."
        self.ladder = Result(cells.ladder(table), *renderers, no_ladder)
        self.layers = Result(cells.layer_table(run), views.sizes.layers)

    def parts(self, cell: str = "") -> Result:
        """Return what takes up the space in an image, in bytes: one row per package and crate (default: of the smallest
        image). Raises LabError when no cell of that name works."""
        cell_name = cell or cells.smallest_cell(self.table)
        parts = cells.composition(self._run, cell_name) if cell_name else pd.DataFrame()
        nothing = "A size of this image could not be read." if cell_name else "No cell works."
        return Result(parts, views.sizes.parts, partial(plots.sizes.icicle, title=cell_name), nothing=nothing)

    def sections(self, cell: str = "") -> Result:
        """Return the sections of a binary, in bytes (default: of the smallest image). Raises LabError when no cell of
        that name works."""
        section_rows, cell_name = cells.parts(self._run, metrics.SECTION_BYTES), cell or cells.smallest_cell(self.table)
        if cell_name:
            cells.check_works(self.table, cell_name)
        return Result(section_rows[section_rows["cell"] == cell_name], views.sizes.sections)

    def _drawn(self, draw: Callable[..., Plot]) -> Plot | Several:
        """Return the plot of the cells of `cells.plotted_cells`. Where the run has more cells, add a line on which
        cells these are."""
        drawn_cells, total = cells.plotted_cells(self.table, self._grid), len(self.table)
        plot = plots.sizes.by_profile(draw, drawn_cells)
        scope = "that the article has" if len(self._grid) else "of two profiles, with one allocator on each base"
        note = Words(f"Drawn: the {len(drawn_cells)} of {total} cells {scope}.")
        return plot if len(drawn_cells) == total else Several([plot, note])

    def check(self) -> None:
        """Raise AssertionError when parts do not sum to the whole, or a binary is not what it should be."""
        rows, layers, is_whole = self.table[self.table["ok"]], self.layers.table, not self._run.broken
        if not is_whole:  # what could not be read is no other size
            rows = rows.dropna(subset=[metrics.BASE_BYTES, metrics.APP_BYTES, metrics.BINARY_BYTES])
        adds_up = rows[metrics.BASE_BYTES] + rows[metrics.APP_BYTES] == rows[metrics.UNPACKED_BYTES]
        assert adds_up.all(), "base and app are not the whole image"
        assert (rows[metrics.BINARY_BYTES] < rows[metrics.APP_BYTES]).all(), "a binary is larger than the app's layer"
        subset = rows[rows["allocator"] != OWN]  # the crate's own may be any
        assert (subset["allocator"] == subset[metrics.LINKED_ALLOCATOR]).all(), "another allocator is linked than named"
        of_layers = layers.groupby("cell")["file_bytes"].sum()
        wholes = rows.set_index("cell")[metrics.UNPACKED_BYTES]
        assert not is_whole or of_layers.eq(wholes).all(), "layers are not the whole image"
        on_musl = [matrix.links_musl(*factors) for factors in rows[["base", "profile"]].to_numpy()]
        binaries = rows.assign(on_musl=on_musl)  # linkage parts what is of a base or profile that the lab knows no more
        counts = binaries.groupby(["on_musl", "linkage", "profile", "allocator"])[metrics.BINARY_SHA256].nunique()
        assert (counts == 1).all(), "two bases were given different binaries"


def _ladder(ladder: pd.DataFrame) -> Several:
    return Several(plots.sizes.ladder(rungs) for _, rungs in ladder.groupby(["base", "allocator"], sort=False))


class Probes(Result):
    """Robustness probes of the images. `table`: a row per probe, a column per cell (see `robustness.matrix`); shown as
    what is in each image. `failures`: every probe that failed, and what to do; `costs`: what additions cost."""

    def __init__(self, run: RunData) -> None:
        view, self._facts = views.robustness, robustness.facts(run)
        draw = lambda outcomes: plots.robustness.survival(outcomes, robustness.names(run))  # noqa: E731
        super().__init__(robustness.matrix(run), lambda _: view.survival_facts(run), draw, lambda _: view.survival(run))
        self.failures = Result(robustness.failures(run), lambda _: view.survival_failures(run))
        nothing = "This run has no cell with additions: `./lab probe --with ca-certificates,tmp` probes both."
        self.costs = Result(robustness.costs(run), lambda _: view.survival_costs(run), nothing=nothing)

    def check(self) -> None:
        """Raise AssertionError when a probe counts twice or is unknown, or an addition takes bytes away."""
        assert (self._facts["passed"] + self._facts["failed"] <= len(self.table)).all(), "a probe counts twice"
        assert set(self.failures.table["probe"]) <= set(probes.PROBES), "a probe that this lab does not know"
        assert (self.costs.table[metrics.UNPACKED_BYTES] >= 0).all(), "an addition that takes away"
