"""Robustness probes, in words and as tables."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import robustness
from rustimg_lab.model import metrics, probes
from rustimg_lab.report.format import plain
from rustimg_lab.report.views.style import known_sizes, style
from rustimg_lab.store.runs import RunData


def survival(run: RunData) -> str:
    """Return which images pass the most and the fewest probes, which probes no image passes, and what additions cost,
    as Markdown."""
    outcomes = robustness.matrix(run)
    names = {cell: plain(name) for cell, name in robustness.names(run).items()}
    failed = outcomes.eq(probes.FAILED)
    counts, probe_count = failed.sum()[outcomes.ne("").any()], len(outcomes)
    if counts.empty:
        return "No probe of any image came to an outcome."

    def fail(count: int) -> str:
        cells = [f"**{names[cell]}**" for cell in counts.index[counts == count]]
        return f"{' and '.join(cells)} {'fails' if len(cells) == 1 else 'fail'} **{count}**"

    sentences = [f"Of {probe_count} probes {fail(counts.min())}, the fewest; {fail(counts.max())}, the most."]
    if counts.min() == counts.max():
        sentences = [f"Of {probe_count} probes {fail(counts.min())}."]
    if len(everywhere := outcomes.index[failed[counts.index].all(axis=1)]):
        sentences.append(f"No image of this run passes {', '.join(everywhere)}.")
    for cost in robustness.costs(run).itertuples():
        more = f"**{cost.unpacked_bytes:,} bytes** unpacked, {cost.compressed_bytes:,.0f} compressed"
        sentences.append(
            f"**{names[cost.cell]}** costs {more} more than without, and fixes {cost.mended or 'nothing'}; "
            f"it still fails {cost.left or 'nothing'}."
        )
    for cell, reason in robustness.not_built(run).items():
        sentences.append(f"**{plain(cell)}** has no image to probe: {plain(reason)}.")
    return "\n\n".join(sentences)


def survival_failures(run: RunData) -> Styler:
    """Show every probe that failed, a row per probe: of which cells, what was seen, and what to do."""
    failures, names = robustness.failures(run), robustness.names(run)
    lines = []
    for name, rows in failures.groupby("probe", sort=False):
        cells = rows["cell"].map(names).groupby(rows["evidence"], sort=False).agg(", ".join)
        observations = "; ".join(f"{evidence} ({owners})" for evidence, owners in cells.items())
        lines.append((name, rows["question"].iloc[0], observations, rows["remedy"].iloc[0], rows["addition"].iloc[0]))
    columns = ["probe", "what should be", "what was seen", "what to do", "--with"]
    return style(pd.DataFrame(lines, columns=columns))


def survival_facts(run: RunData) -> Styler:
    """Show what is in each image that was probed, and how many probes it passed, a row per cell. Sizes are in MB (1e6
    bytes)."""
    facts, names = robustness.facts(run), robustness.names(run)
    columns = pd.DataFrame({"cell": facts.index.map(names)}, facts.index)
    sizes = known_sizes(facts, {metrics.UNPACKED_BYTES: "unpacked, MB", metrics.COMPRESSED_BYTES: "compressed, MB"})
    counts = facts[["files", "executables", "packages", metrics.CRATES_SEEN]]
    counts = counts.rename(columns={metrics.CRATES_SEEN: "crates that a scanner sees"})
    columns = pd.concat([columns, facts[["passed", "failed"]], sizes, counts], axis=1)
    return style(columns, dict.fromkeys(counts, "{:.0f}"))


def survival_costs(run: RunData) -> Styler:
    """Show what additions cost in bytes and which probes they fix, compared with the cell without them. `run` has such
    cells (`robustness.costs`)."""
    costs = robustness.costs(run)
    columns = {
        "cell": costs["cell"].map(robustness.names(run)),
        "unpacked, bytes more": costs[metrics.UNPACKED_BYTES],
        "compressed, bytes more": costs[metrics.COMPRESSED_BYTES],
        "fixes": costs["mended"],
        "still fails": costs["left"],
    }
    return style(columns, {"unpacked, bytes more": "{:+,.0f}", "compressed, bytes more": "{:+,.0f}"})
