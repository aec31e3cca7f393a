"""The plot of the robustness probes."""

import pandas as pd
from matplotlib.patches import Rectangle

from rustimg_lab.model.probes import FAILED, PASSED
from rustimg_lab.report.plots.style import GREY, Plot


def survival(outcomes: pd.DataFrame, names: dict[str, str]) -> Plot:
    """Draw every probe against every cell: passed, failed or not applicable, by mark and by colour. `outcomes` is
    `robustness.matrix`, `names` the cells as a reader sees them."""
    axes = Plot(2.6 + 0.62 * outcomes.shape[1], 2.6 + 0.27 * len(outcomes)).subplots()
    title = "probes of each image"
    marks = {PASSED: ("\u2713", "white", "#00684E"), FAILED: ("\u2717", "#D55E00", "white"), "": ("?", "white", GREY)}
    for row, probe in enumerate(outcomes.index):
        for column, cell in enumerate(outcomes.columns):
            mark, fill, ink = marks.get(outcomes.loc[probe, cell], ("\u2013", "#F0F0F0", "#606060"))
            corner = column - 0.5, row - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, edgecolor="#D0D0D0", linewidth=0.6))
            axes.text(column, row, mark, ha="center", va="center", color=ink, fontsize=9, fontweight="bold")
    axes.set(xlim=(-0.5, len(outcomes.columns) - 0.5), ylim=(len(outcomes) - 0.5, -0.5))
    axes.xaxis.tick_top()
    cells = [names[cell].replace(" with ", "\n  with ") for cell in outcomes.columns]
    axes.set_xticks(range(len(cells)), cells, rotation=55, rotation_mode="anchor", ha="left", fontsize=8)
    axes.set_yticks(range(len(outcomes)), outcomes.index, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{title}\n\u2713 passed   \u2717 failed   \u2013 not applicable   ? could not be made", fontsize=9)
    failed = {cell: outcomes.index[outcomes[cell] == FAILED] for cell in outcomes.columns}
    failures = "; ".join(f"{names[cell]} fails {', '.join(probes) or 'none'}" for cell, probes in failed.items())
    axes.set_label(f"{title}. {len(outcomes)} probes: {failures}.")
    return axes.figure
