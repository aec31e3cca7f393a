"""What code layout changes, in words and as tables."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.model.metrics import Verdict
from rustimg_lab.report import format
from rustimg_lab.report.views.style import intervals, style

_PERCENT = "{:.2%}".format


def components(cells: pd.DataFrame) -> Styler:
    """Show the deviations (percent) between and within the layouts of each cell. `cells` is the first frame of
    `layouts.of_study`."""
    if cells.empty:
        return style(cells, warning=cells.attrs["warning"])
    mean, between, within = f"mean {cells.attrs['metric'].title}", "between layouts", "between trials of one layout"
    columns = {
        **cells[["cell", "layouts", "blocks"]],
        mean: cells["mean"],
        between: cells["between"],
        "95%, layouts": intervals(cells, "between_low", "between_high", _PERCENT),
        within: cells["within"],
        "95%, trials": intervals(cells, "within_low", "within_high", _PERCENT),
    }
    return style(columns, {mean: format.number, between: _PERCENT, within: _PERCENT}, cells.attrs["warning"])


def differences(ratios: pd.DataFrame) -> Styler:
    """Show each difference by the trials alone, and with layout as a random effect. `ratios` is the second frame of
    `layouts.of_study`."""
    if ratios.empty:
        return style(ratios, warning=ratios.attrs["warning"])
    columns = {
        **ratios[["cell", "ratio"]],
        "95%, trials alone": intervals(ratios, "fixed_low", "fixed_high"),
        "trials alone": ratios["fixed_verdict"],
        "95%, layout random": intervals(ratios),
        "layout random": ratios["verdict"],
        "remains": ratios["survives"].map({True: "yes", False: "no"}),
        "one layout of each": intervals(ratios, "least", "most"),
    }
    return style(columns, {"ratio": "{:.3f}"}, ratios.attrs["warning"])


def in_words(cells: pd.DataFrame, ratios: pd.DataFrame) -> str:
    """Return the deviations, which differences remain, and how many of those of 3 to 10% do, as a Markdown list. The
    frames are those of `layouts.of_study`."""
    noun, baseline = cells.attrs["metric"].noun, cells.attrs["baseline"]
    sentences = [
        f"**{cell.cell}**: {cell.layouts} layouts of the same code differ in {noun} by a standard deviation of "
        f"{cell.between:.1%} (95% interval {cell.between_low:.1%} to {cell.between_high:.1%}); trials of one layout by "
        f"{cell.within:.1%}."
        for cell in cells.itertuples()
    ]
    for cell in ratios.itertuples():
        is_claimed = cell.fixed_verdict != Verdict.NO_DIFFERENCE
        state = "remains" if cell.survives else "does not remain in other layouts" if is_claimed else "is not shown"
        sentences.append(
            f"**{cell.cell}** against {baseline}: {cell.ratio:.3f} times the {noun}; by the trials alone "
            f"{cell.fixed_low:.3f} to {cell.fixed_high:.3f} ({cell.fixed_verdict}), with layout as a random effect "
            f"{cell.low:.3f} to {cell.high:.3f} (**{cell.verdict}**). The difference {state}. One layout of each shows "
            f"{cell.least:.3f} to {cell.most:.3f}."
        )
    if small := [cell.survives for cell in ratios.itertuples() if 1.03 <= max(cell.ratio, 1 / cell.ratio) <= 1.1]:
        sentences.append(f"Differences of 3 to 10%: {len(small)}, of which {sum(small)} remain.")
    return "\n".join(f"- {line}" for line in sentences) or f"- Too few to say anything: {cells.attrs['warning']}."
