"""Robustness probes, in words and as tables."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import robustness
from rustimg_lab.model import metrics, probes
from rustimg_lab.report.format import plain
from rustimg_lab.report.views.style import known_sizes, style
from rustimg_lab.store.runs import RunData


def survival(run: RunData) -> str:
    """Which image passes most probes, which ones no image of the run passes, and what additions cost, as Markdown."""
    outcomes = robustness.matrix(run)
    names = {cell: plain(name) for cell, name in robustness.names(run).items()}
    failed = outcomes.eq(probes.FAILED)
    counts, asked = failed.sum()[outcomes.ne("").any()], len(outcomes)
    if counts.empty:
        return "No probe of any image came to an outcome."

    def fail(count: int) -> str:
        cells = [f"**{names[cell]}**" for cell in counts.index[counts == count]]
        return f"{' and '.join(cells)} {'fails' if len(cells) == 1 else 'fail'} **{count}**"

    said = [f"Of {asked} probes {fail(counts.min())}, the fewest; {fail(counts.max())}, the most."]
    if counts.min() == counts.max():
        said = [f"Of {asked} probes {fail(counts.min())}."]
    if len(everywhere := outcomes.index[failed[counts.index].all(axis=1)]):
        said.append(f"No image of this run passes {', '.join(everywhere)}.")
    for one in robustness.costs(run).itertuples():
        more = f"**{one.unpacked_bytes:,} bytes** unpacked, {one.compressed_bytes:,.0f} compressed"
        said.append(
            f"**{names[one.cell]}** costs {more} more than without, and fixes {one.mended or 'nothing'}; "
            f"it still fails {one.left or 'nothing'}."
        )
    for cell, reason in robustness.not_built(run).items():
        said.append(f"**{plain(cell)}** has no image to probe: {plain(reason)}.")
    return "\n\n".join(said)


def survival_failures(run: RunData) -> Styler:
    """Every probe that failed: of which cells, what was seen, and what to do."""
    found, names = robustness.failures(run), robustness.names(run)
    lines = []
    for name, own in found.groupby("probe", sort=False):
        cells = own["cell"].map(names).groupby(own["evidence"], sort=False).agg(", ".join)
        seen = "; ".join(f"{what} ({of})" for what, of in cells.items())
        lines.append((name, own["question"].iloc[0], seen, own["remedy"].iloc[0], own["addition"].iloc[0]))
    columns = ["probe", "what should be", "what was seen", "what to do", "--with"]
    return style(pd.DataFrame(lines, columns=columns))


def survival_facts(run: RunData) -> Styler:
    """What is in each image that was probed, and how many probes it passed."""
    found, names = robustness.facts(run), robustness.names(run)
    shown = pd.DataFrame({"cell": found.index.map(names)}, found.index)
    sizes = known_sizes(found, {metrics.UNPACKED_BYTES: "unpacked, MB", metrics.COMPRESSED_BYTES: "compressed, MB"})
    counts = found[["files", "executables", "packages", metrics.CRATES_SEEN]]
    counts = counts.rename(columns={metrics.CRATES_SEEN: "crates that a scanner sees"})
    shown = pd.concat([shown, found[["passed", "failed"]], sizes, counts], axis=1)
    return style(shown, dict.fromkeys(counts, "{:.0f}"))


def survival_costs(run: RunData) -> Styler:
    """What additions cost in bytes and fix, beside the same cell without. `run` has some (`robustness.costs`)."""
    found = robustness.costs(run)
    shown = {
        "cell": found["cell"].map(robustness.names(run)),
        "unpacked, bytes more": found[metrics.UNPACKED_BYTES],
        "compressed, bytes more": found[metrics.COMPRESSED_BYTES],
        "fixes": found["mended"],
        "still fails": found["left"],
    }
    return style(shown, {"unpacked, bytes more": "{:+,.0f}", "compressed, bytes more": "{:+,.0f}"})
