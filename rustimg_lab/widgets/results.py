"""What the verbs of `import rustimg_lab` return is made of these: numbers that are shown as a table, plots, words."""

from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
from IPython.display import display
from pandas.io.formats.style import Styler

from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix
from rustimg_lab.report import views
from rustimg_lab.report.plots.style import Plot

if TYPE_CHECKING:
    from ipywidgets import Widget


class Words(str):
    """Sentences, which a notebook shows as Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)


class Several(list):
    """Things that a notebook shows one below the other; where there are none, a line that says why."""

    def __init__(self, things: Iterable[object] = (), nothing: str = "") -> None:
        super().__init__(things)
        self._nothing = nothing

    def _ipython_display_(self) -> None:
        for thing in self or filter(None, [Words(self._nothing)]):
            display(thing)


class Result:
    """Numbers, shown as a table. `table`: the numbers, in the units of `analysis`. Some have a plot and words too."""

    def __init__(
        self,
        table: pd.DataFrame,
        style: Callable[[pd.DataFrame], Styler],
        draw: Callable[[pd.DataFrame], Plot | Several] | None = None,
        tell: Callable[[pd.DataFrame], str] | None = None,
        nothing: str = "",
    ) -> None:
        self.table, self._style, self._draw, self._tell, self._nothing = table, style, draw, tell, nothing

    @classmethod
    def of(cls, styler: Styler) -> "Result":
        """Return the result for a table that is styled already."""
        return cls(styler.data, lambda _: styler)

    def plot(self) -> Plot | Several:
        """Return the plot, or several; none where the table is empty. Raises LabError when this result has no plot."""
        if not self._draw:
            raise LabError("there is no plot of this, only a table")
        return Several() if self.table.empty else self._draw(self.table)

    @property
    def words(self) -> Words:
        """Return the verdicts in sentences. Raises LabError when this result has none."""
        if not self._tell:
            raise LabError("there are no words on this, only a table")
        return Words(self._tell(self.table))

    def sortable(self) -> "Widget":
        """Return the table as a widget that sorts by the selected column."""
        from rustimg_lab.widgets import trade_off

        return trade_off.sortable(self._style(self.table).data)

    def _repr_html_(self) -> str:
        if self.table.empty and self._nothing:
            return f"<p>{escape(self._nothing)}</p>"
        return self._style(self.table).to_html()


class Cells(tuple[matrix.Cell, ...]):
    """Cells, shown as a table of what each is made of. `grid`: bases, profiles, allocators, release of Debian."""

    grid: tuple[list[str], list[str], list[str], str]

    def __new__(cls, *grid: list[str] | str) -> "Cells":
        cells = super().__new__(cls, matrix.grid(*grid))
        cells.grid = grid
        return cells

    def watch(self, run: str, blocks: int = 3) -> list[str]:
        """Build and measure these cells of myip, then `blocks` blocks of a short study of their servers (0 for sizes
        alone). Plots grow in the notebook meanwhile. Return a line on each that failed. Raises LabError when the
        machine or the input does not allow a start."""
        from rustimg_lab.widgets import live

        return live.build(self, run, blocks)

    def _repr_html_(self) -> str:
        return views.provenance.cells(list(self)).to_html()
