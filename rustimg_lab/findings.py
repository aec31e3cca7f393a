"""What a study found, in sentences, with every number from its data."""

import pandas as pd

from rustimg_lab import comparison
from rustimg_lab.comparison import NO_DIFFERENCE, TOO_NOISY

CLAIM = "musl's memory allocator \u201cmay reduce your app's performance\u201d"  # the article, FROM scratch


def allocator_verdict(rows: pd.DataFrame, study: str) -> str:
    """The article's sentence on allocators, held against a study, as Markdown: musl malloc against jemalloc."""
    metric = "cpu_us_per_request"
    found = comparison.samples(rows, study, metric)
    workload = rows.attrs["environment"]["studies"][study]["parameters"]["workload"]
    pairs = {
        (base, profile): group.drop_duplicates("allocator").set_index("allocator")["cell"]
        for (base, profile), group in found[~found["cell"].str.endswith(comparison.TWIN)].groupby(["base", "profile"])
        if base in ("scratch", "alpine")
    }
    said = []
    for (base, _), cells in pairs.items():
        if not {"system", "jemalloc"} <= set(cells.index):
            continue
        ratios = comparison.of_study(rows, study, metric, baseline=cells["system"]).set_index("cell")
        one = ratios.loc[cells["jemalloc"]]
        said.append(
            f"The article says that {CLAIM} and takes jemalloc. Measured on {base}, workload **{workload}**, over "
            f"{one['pairs']} blocks: with jemalloc a request costs **{one['ratio']:.2f}** times the CPU time that it "
            f"costs with musl malloc (95% interval {one['low']:.2f} to {one['high']:.2f}): **{one['verdict']}**."
        )
    return "\n\n".join(said) or f"Study **{study}** does not hold musl malloc against jemalloc."


def ratios(found: pd.DataFrame, label: str) -> str:
    """Each comparison in a sentence, as a Markdown list. `found` is what `comparison.compare` returns."""
    baseline = found.attrs["baseline"]
    said = []
    for cell in found.itertuples():
        name = cell.cell.removesuffix(comparison.TWIN)
        if cell.is_twin:
            said.append(
                f"The same image twice ({name}): ratio {cell.ratio:.3f} ({cell.low:.3f} to {cell.high:.3f}), "
                f"{cell.verdict}. What differs by less than {_percent(found.attrs['floor'])} is noise."
            )
        elif cell.verdict in (NO_DIFFERENCE, TOO_NOISY):
            seen = f"; {_percent(cell.detectable)} or more would have been seen" if cell.pairs > 1 else ""
            said.append(f"**{name}** against {baseline}: {cell.verdict} in {label}{seen}.")
        else:
            said.append(
                f"**{name}** against {baseline}: {cell.ratio:.2f} times the {label} "
                f"(95% interval {cell.low:.2f} to {cell.high:.2f}): **{cell.verdict}**."
            )
    return "\n".join(f"- {sentence}" for sentence in said)


def _percent(ratio: float) -> str:
    return f"{ratio - 1:.1%}"
