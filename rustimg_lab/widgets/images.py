"""What a run has on its images, as a notebook reads it: sizes and robustness probes."""

import pandas as pd

from rustimg_lab.analysis import cells, robustness
from rustimg_lab.model import probes
from rustimg_lab.report import plots, views
from rustimg_lab.store.runs import RunData
from rustimg_lab.widgets.results import Result, Several


class Sizes(Result):
    """Sizes of the images. `table`: a row per cell, in bytes (see `cells.cell_table`)."""

    def __init__(self, run: RunData) -> None:
        table, self._run, self._grid = cells.cell_table(run), run, cells.article_grid(run)
        self._drawn = cells.drawn(table, self._grid)
        super().__init__(
            table,
            views.sizes.breakdown,
            lambda _: plots.sizes.transfer(self._drawn),
            lambda _: views.verdicts.size_verdict(table, run),
        )

    @property
    def article(self) -> Result:
        """Return the article's sizes beside ours."""
        nothing = "The article has no figures of this run's app and cells."
        parts = views.sizes.then_and_now, plots.sizes.then_and_now, views.verdicts.size_findings
        return Result(self._grid, *parts, nothing)

    @property
    def contributions(self) -> Result:
        """Return what the base brings and what the app adds."""
        return Result(self.table, self._style, lambda _: plots.sizes.shares(self._drawn))

    @property
    def binaries(self) -> Result:
        """Return what the binaries are and need."""
        return Result(self.table, views.sizes.binaries)

    @property
    def ladder(self) -> Result:
        """Return each build profile compared with `baseline` on the same base with the same allocator."""
        nothing = "This run has no more than the article's profiles: `./lab run --grid ladder --run ladder` builds all."

        def draw(found: pd.DataFrame) -> Several:
            groups = found.groupby(["base", "allocator"], sort=False)
            return Several(plots.sizes.ladder(rungs) for _, rungs in groups)

        return Result(cells.ladder(self.table), views.sizes.ladder, draw, views.verdicts.ladder_findings, nothing)

    def parts(self, cell: str = "") -> Result:
        """Return what takes up the space in an image, by package and crate (default: the smallest image). Raises
        LabError when no cell of that name works."""
        chosen = cell or cells.smallest(self.table)
        found = cells.composition(self._run, chosen) if chosen else pd.DataFrame()
        return Result(
            found, views.sizes.parts, lambda parts: plots.sizes.icicle(parts, chosen), nothing="No cell works."
        )

    def sections(self, cell: str = "") -> Result:
        """Return the sections of a binary (default: of the smallest image)."""
        chosen = cell or cells.smallest(self.table)
        found = cells.parts(self._run, "section_bytes")
        return Result(found[found["cell"] == chosen], views.sizes.sections)

    @property
    def layers(self) -> Result:
        """Return each layer with the instruction that made it."""
        return Result(cells.layer_table(self._run), views.sizes.layers)

    def check(self) -> None:
        """Raise AssertionError when parts do not sum up to the whole, or a binary is not what it should be."""
        works, layers = self.table[self.table["ok"]], self.layers.table
        assert (works["base_bytes"] + works["app_bytes"] == works["unpacked_bytes"]).all()
        assert (works["binary_bytes"] < works["app_bytes"]).all()
        assert (works["allocator"] == works["linked_allocator"]).all()
        assert layers.groupby("cell")["file_bytes"].sum().eq(works.set_index("cell")["unpacked_bytes"]).all()
        shared = works.groupby(["linkage", "profile", "allocator"])["binary_sha256"].nunique()
        assert (shared == 1).all(), "two bases were given different binaries"


class Probes(Result):
    """Robustness probes of the images. `table`: a row per probe, a column per cell (see `robustness.matrix`)."""

    def __init__(self, run: RunData) -> None:
        self._run = run
        super().__init__(
            robustness.matrix(run),
            lambda _: views.robustness.survival_facts(run),
            lambda outcomes: plots.robustness.survival(outcomes, robustness.names(run)),
            lambda _: views.robustness.survival(run),
        )

    @property
    def failures(self) -> Result:
        """Return every probe that failed: of which cells, what was seen, and what to do."""
        return Result(robustness.failures(self._run), lambda _: views.robustness.survival_failures(self._run))

    @property
    def costs(self) -> Result:
        """Return what additions cost in bytes, and which probes pass with them."""
        nothing = "This run has no cell with additions: `./lab probe --with ca-certificates,tmp` probes both."
        style = views.robustness.survival_costs
        return Result(robustness.costs(self._run), lambda _: style(self._run), nothing=nothing)

    def check(self) -> None:
        """Raise AssertionError when a probe counts twice or is unknown, or an addition takes bytes away."""
        facts = robustness.facts(self._run)
        assert (facts["passed"] + facts["failed"] <= len(self.table)).all()
        assert set(self.failures.table["probe"]) <= set(probes.PROBES)
        assert (self.costs.table["unpacked_bytes"] >= 0).all(), "an addition that takes away"
