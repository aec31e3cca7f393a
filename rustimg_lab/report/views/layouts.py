"""What code layout changes, in words and as tables."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.model.metrics import Verdict
from rustimg_lab.report import format
from rustimg_lab.report.views.style import intervals, style

_PERCENT = "{:.2%}".format


def components(found: pd.DataFrame) -> Styler:
    """Show the deviations between and within the layouts of each cell."""
    if found.empty:
        return style(found, warning=found.attrs["warning"])
    mean, between, within = f"mean {found.attrs['metric'].title}", "between layouts", "between trials of one layout"
    shown = {
        **found[["cell", "layouts", "blocks"]],
        mean: found["mean"],
        between: found["between"],
        "95%, layouts": intervals(found, "between_low", "between_high", _PERCENT),
        within: found["within"],
        "95%, trials": intervals(found, "within_low", "within_high", _PERCENT),
    }
    return style(shown, {mean: format.number, between: _PERCENT, within: _PERCENT}, found.attrs["warning"])


def differences(found: pd.DataFrame) -> Styler:
    """Show each difference by the trials alone, and with layout as a random effect."""
    if found.empty:
        return style(found, warning=found.attrs["warning"])
    shown = {
        **found[["cell", "ratio"]],
        "95%, trials alone": intervals(found, "fixed_low", "fixed_high"),
        "trials alone": found["fixed_verdict"],
        "95%, layout random": intervals(found),
        "layout random": found["verdict"],
        "remains": found["survives"].map({True: "yes", False: "no"}),
        "one layout of each": intervals(found, "least", "most"),
    }
    return style(shown, {"ratio": "{:.3f}"}, found.attrs["warning"])


def in_words(cells: pd.DataFrame, found: pd.DataFrame) -> str:
    """Tell the deviations, which differences remain, and how many of those of 3 to 10% do, as a Markdown list."""
    about, baseline = cells.attrs["metric"].noun, cells.attrs["baseline"]
    said = [
        f"**{cell.cell}**: {cell.layouts} layouts of the same code differ in {about} by a standard deviation of "
        f"{cell.between:.1%} (95% interval {cell.between_low:.1%} to {cell.between_high:.1%}); trials of one layout by "
        f"{cell.within:.1%}."
        for cell in cells.itertuples()
    ]
    for cell in found.itertuples():
        claimed = cell.fixed_verdict != Verdict.NO_DIFFERENCE
        sure = "remains" if cell.survives else "does not remain in other layouts" if claimed else "is not shown"
        said.append(
            f"**{cell.cell}** against {baseline}: {cell.ratio:.3f} times the {about}; by the trials alone "
            f"{cell.fixed_low:.3f} to {cell.fixed_high:.3f} ({cell.fixed_verdict}), with layout as a random effect "
            f"{cell.low:.3f} to {cell.high:.3f} (**{cell.verdict}**). The difference {sure}. One layout of each shows "
            f"{cell.least:.3f} to {cell.most:.3f}."
        )
    if small := [cell.survives for cell in found.itertuples() if 1.03 <= max(cell.ratio, 1 / cell.ratio) <= 1.1]:
        said.append(f"Differences of 3 to 10%: {len(small)}, of which {sum(small)} remain.")
    return "\n".join(f"- {line}" for line in said) or f"- Too few to say anything: {cells.attrs['warning']}."
