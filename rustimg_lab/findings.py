"""What a study found, in sentences, with every number from its data."""

import numpy as np
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
    marks = {base: f"{base} (stand-in)" for base in found.attrs["stand_ins"]}
    for (base, _), cells in pairs.items():
        if not {"system", "jemalloc"} <= set(cells.index):
            continue
        ratios = comparison.of_study(rows, study, metric, baseline=cells["system"]).set_index("cell")
        one = ratios.loc[cells["jemalloc"]]
        said.append(
            f"The article says that {CLAIM} and takes jemalloc. Measured on {marks.get(base, base)}, workload "
            f"**{workload}**, over {one['pairs']} blocks: with jemalloc a request costs **{one['ratio']:.2f}** times "
            f"the CPU time that it costs with musl malloc (95% interval {one['low']:.2f} to {one['high']:.2f}): "
            f"**{one['verdict']}**."
        )
    return "\n\n".join(said) or f"Study **{study}** does not hold musl malloc against jemalloc."


def startup_verdict(rows: pd.DataFrame, baseline: str = "") -> str:
    """What the image changes of a start, as Markdown: of the program's own, and of the container's."""
    process = comparison.of_study(rows, "startup-server", "exec_to_first_byte_s", baseline)
    container = comparison.of_study(rows, "startup-container", "host_first_byte_s", baseline)
    means = [
        np.exp(np.log(comparison.samples(rows, study, metric)["value"]).mean()) * 1e3
        for study, metric in (
            ("startup-server", "exec_to_first_byte_s"),
            ("startup-container", "host_first_byte_s"),
        )
    ]
    said = (
        f"Over all cells, the server answers {means[0]:.2f} ms after its exec inside its image; in a container it "
        f"takes {means[1]:.0f} ms, of which the program is {means[0] / means[1]:.1%}."
    )
    others = process[~process["is_twin"] & process["pairs"].gt(1)].sort_values("ratio")
    if others.empty:
        return said
    far = others.iloc[-1]
    same = container.set_index("cell").loc[far["cell"]]
    against, name = (comparison.in_words(cell, process.attrs) for cell in (process.attrs["baseline"], far["cell"]))
    hidden = same["verdict"] in (NO_DIFFERENCE, TOO_NOISY)
    return (
        f"{said} The farthest from {against} is **{name}**: {far['ratio']:.2f} times as long inside the image "
        f"({far['low']:.2f} to {far['high']:.2f}, **{far['verdict']}**), and {same['ratio']:.2f} times with the engine "
        f"({same['low']:.2f} to {same['high']:.2f}, **{same['verdict']}**). "
        + (
            "The engine's own work, which is many times as long, hides what the image changes."
            if hidden
            else "The difference is seen through the engine's own work too."
        )
    )


def ratios(found: pd.DataFrame, label: str) -> str:
    """Each comparison in a sentence, as a Markdown list. `found` is what `comparison.compare` returns."""
    baseline = comparison.in_words(found.attrs["baseline"], found.attrs)
    said = []
    for cell in found.itertuples():
        name = comparison.in_words(cell.cell.removesuffix(comparison.TWIN), found.attrs)
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
