"""Verdicts of a run: what its sizes and studies show, in sentences."""

from collections.abc import Callable
from html import escape

import numpy as np
import pandas as pd

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.cells import app_name, bases_in_words, beside_malloc, some_cells
from rustimg_lab.model import metrics, names
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.report import format
from rustimg_lab.report.format import TOO_FEW
from rustimg_lab.store.runs import RunData

CLAIM = "musl's memory allocator \u201cmay reduce your app's performance\u201d"  # the article, FROM scratch


def allocator_verdict(run: RunData, study: str) -> str:
    """Return the article's sentence on allocators and what a study measured of it, as Markdown: CPU time per request,
    jemalloc against musl malloc."""

    def sentence(context: str, row: pd.Series, musl: str, note: str) -> str:
        return (
            f"The article says that {CLAIM} and takes jemalloc. Measured on {context}: with jemalloc a request costs "
            f"**{row['ratio']:.2f}** times the CPU time that it costs with musl malloc (95% interval "
            f"{row['low']:.2f} to {row['high']:.2f}): **{row['verdict']}**.{note}"
        )

    return _jemalloc_against_musl(run, study, metrics.CPU_US_PER_REQUEST, sentence)


def memory_verdict(run: RunData, under_load: str, limits: str = "") -> str:
    """Return what jemalloc costs in memory where it replaces musl malloc, as Markdown. `under_load` and `limits` are
    names of studies; without `limits` the smallest memory limit is left out."""
    means = _means(comparison.samples(run, under_load, metrics.STEADY_RSS_BYTES))
    smallest = {}
    if limits:
        trials = comparison.samples(run, limits, metrics.SMALLEST_LIMIT_BYTES)
        at_most = {cell: "at most " for cell in trials.attrs["at_least"]}
        in_words = metrics.SMALLEST_LIMIT_BYTES.in_words
        smallest = {cell: at_most.get(cell, "") + in_words(mean) for cell, mean in _means(trials).items()}

    def sentence(context: str, row: pd.Series, musl: str, note: str) -> str:
        text = (
            f"On {context}: under load the server with jemalloc holds **{row['ratio']:.2f}** times the memory that it "
            f"holds with musl malloc (95% interval {row['low']:.2f} to {row['high']:.2f}; "
            f"{means[row.name] / 1e6:.2f} MB against {means[musl] / 1e6:.2f}): **{row['verdict']}**.{note}"
        )
        if {musl, row.name} <= set(smallest):
            limit = comparison.of_study(run, limits, baseline=musl).set_index("cell").loc[row.name]
            text += (
                f" The smallest limit that the whole load is answered under is {smallest[row.name]} "
                f"with jemalloc and {smallest[musl]} with musl malloc (**{limit['verdict']}**)."
            )
        return text

    return _jemalloc_against_musl(run, under_load, metrics.STEADY_RSS_BYTES, sentence)


def _jemalloc_against_musl(run: RunData, study: str, metric: str, sentence: Callable[..., str]) -> str:
    """Return a paragraph for each base on which a study has musl malloc and jemalloc, as Markdown. `sentence` makes it
    of four things: base and workload, jemalloc's row of `comparison.compare`, the cell with musl malloc, and the
    study's note."""
    parameters = run.environment.studies[study].parameters
    workers = f", {parameters['workers']} worker threads" if parameters["workers"] > 1 else ""
    paragraphs = []
    all_pairs = sorted(beside_malloc(comparison.samples(run, study, metric)))
    pairs = [pair for pair in all_pairs if (pair.malloc, pair.allocator) == ("musl malloc", "jemalloc")]
    profiles = {pair.profile for pair in pairs}
    for pair in pairs:
        comparisons = comparison.of_study(run, study, metric, pair.baseline)
        row = comparisons.set_index("cell").loc[pair.cell]
        base = pair.base + (names.SUBSTITUTE if pair.base in run.environment.stand_ins else "")
        base += f", profile **{pair.profile}**" if len(profiles) > 1 else ""
        context = f"{base}, workload **{parameters['workload']}**{workers}, over {row['pairs']} blocks"
        if row["pairs"] < 2:
            paragraphs.append(f"On {base} musl malloc and jemalloc share {TOO_FEW}.")
        else:
            paragraphs.append(sentence(context, row, pair.baseline, _note(comparisons, pair.cell)))
    return "\n\n".join(paragraphs) or f"Study **{study}** does not compare musl malloc with jemalloc."


def _means(samples: pd.DataFrame) -> dict[str, float]:
    return dict(comparison.summarize(samples).set_index("cell")["mean"])


def _note(comparisons: pd.DataFrame, cell: str = "") -> str:
    """Return what a reader must know of a comparison, or of its row for one cell, after a space; "" for nothing."""
    note = comparison.ratio_note(comparisons, cell) if cell else comparisons.attrs["warning"]
    return f" (Note: {note}.)" if note else ""


def startup_verdict(run: RunData, baseline: str = "") -> str:
    """Return what the image changes of a start, as Markdown: of the program's own start, and of the container's where
    that was measured."""
    exec_metric, container = metrics.EXEC_TO_FIRST_BYTE_S, None
    process = comparison.of_study(run, "startup-server", exec_metric, baseline)
    exec_s = _mean_of_cells(comparison.samples(run, "startup-server", exec_metric))
    text = f"Over all cells, the server answers {exec_metric.in_words(exec_s)} after its exec inside its image"
    for study in comparison.find_studies(run, "startup", program="container"):  # the one, where there is one
        metric = metrics.find(run.environment.studies[study].metric)  # not every server is on the host's network
        container = comparison.of_study(run, study, metric, baseline)
        total_s = _mean_of_cells(comparison.samples(run, study, metric))
        text += f"; in a container it takes {total_s * 1e3:.0f} ms, of which the program is {exec_s / total_s:.1%}"
    other_cells = process[~process["is_twin"] & process["pairs"].gt(1)]
    if other_cells.empty:
        return f"{text}.{_note(process)}"
    far = other_cells.loc[np.log(other_cells["ratio"]).abs().idxmax()]
    against, name = (names.cell_in_words(cell, process.attrs) for cell in (process.attrs["baseline"], far["cell"]))
    text += (
        f". The farthest from {against} is **{name}**: {far['ratio']:.2f} times as long inside the image "
        f"({far['low']:.2f} to {far['high']:.2f}, **{far['verdict']}**)"
    )
    if container is None or far["cell"] not in set(container.loc[container["pairs"] > 1, "cell"]):
        return f"{text}.{_note(process, far['cell'])}"
    same = container.set_index("cell").loc[far["cell"]]
    return (
        f"{text}, and {same['ratio']:.2f} times with the engine "
        f"({same['low']:.2f} to {same['high']:.2f}, **{same['verdict']}**)."
        f"{_container_sentence(far, container)}{_note(process, far['cell'])}"
    )


def _container_sentence(far: pd.Series, container: pd.DataFrame) -> str:
    """Return whether the difference of a process is also seen in the start of its container, in a sentence after a
    space. Return "" where there is no difference, or the container differs the other way."""
    alike = (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY)
    verdicts = container[~container["is_twin"]].set_index("cell")["verdict"]
    if far["verdict"] in alike or verdicts[far["cell"]] not in (*alike, far["verdict"]):
        return ""
    if verdicts[far["cell"]] == far["verdict"]:
        return " The difference is seen through the engine's own work too."
    hidden = "what the image changes" if verdicts.isin(alike).all() else "this difference"
    return f" The engine's own work, which is many times as long, hides {hidden}."


def _mean_of_cells(samples: pd.DataFrame) -> float:
    """Return the geometric mean over the cells, without the A/A control."""
    means = comparison.summarize(samples[~samples["cell"].str.endswith(names.TWIN)])
    return float(np.exp(np.log(means["mean"]).mean()))


def repeatability(counts: pd.DataFrame) -> str:
    """Return how far the counts of one cell are apart, in a sentence. `counts` is what `comparison.samples` returns."""
    per_cell = counts.groupby("cell")["value"]
    spread = per_cell.max() / per_cell.min()
    if not per_cell.size().max() > 1:
        return "Counted at most once per cell, so how well the counts repeat is not known."
    worst = names.cell_in_words(spread.idxmax(), counts.attrs)
    return f"Counts of one cell differ by at most **{spread.max() - 1:.3%}** ({worst}); less tells nothing apart."


def ratios(comparisons: pd.DataFrame, label: str) -> str:
    """Return each comparison in a sentence, as a Markdown list. `comparisons` is what `comparison.compare` returns,
    `label` the quantity in words."""
    baseline = names.cell_in_words(comparisons.attrs["baseline"], comparisons.attrs)
    sentences = []
    for cell in comparisons.itertuples():
        name = names.cell_in_words(cell.cell.removesuffix(names.TWIN), comparisons.attrs)
        if cell.is_twin:
            interval = f"ratio {cell.ratio:.3f} ({cell.low:.3f} to {cell.high:.3f}), " if cell.ratio > 0 else ""
            sentences.append(f"The same image twice ({name}, the A/A control): {interval}{cell.verdict}.")
        elif cell.verdict in (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY, Verdict.AT_MINIMUM):
            least = f"; minimum detectable effect {_percent(cell.detectable)}" if cell.detectable > 0 else ""
            sentences.append(f"**{name}** against {baseline}: {cell.verdict} in {label}{least}.")
        else:
            interval = f"95% interval {cell.low:.2f} to {cell.high:.2f}"
            interval = f"at most {cell.high:.2f} times" if cell.low == 0 else interval
            interval = f"at least {cell.low:.2f} times" if np.isinf(cell.high) else interval
            sentences.append(
                f"**{name}** against {baseline}: {cell.ratio:.2f} times the {label} ({interval}): **{cell.verdict}**."
            )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def speed_up(steps: pd.DataFrame) -> str:
    """Return each step to more worker threads in a sentence, as a Markdown list. `steps` is what `scaling.speed_up`
    returns."""
    lines = []
    for name, step in zip(comparison.names(steps), steps.itertuples(), strict=True):
        cpu = f", {step.cpu:.2f} times the CPU time per request" if step.cpu > 0 else ""
        interval = f"{step.ratio:.2f} times the requests per second (95% interval {step.low:.2f} to {step.high:.2f})"
        outcome = f"{interval}{cpu}: **{step.verdict}**" if step.pairs > 1 else TOO_FEW
        lines.append(f"- **{name}**, {step.fewer} to {step.workers} workers: {outcome}.")
    return "\n".join(lines) + _note(steps)


def _percent(ratio: float) -> str:
    return f"over {comparison.HUGE_RATIO - 1:.0%}" if ratio > comparison.HUGE_RATIO else f"{ratio - 1:.1%}"


def size_verdict(table: pd.DataFrame, data: RunData) -> str:
    """Return what the sizes show, as Markdown: the smallest image, what failed, what is a substitute. Raises LabError
    when the run has no sizes; the message names the command that makes them."""
    some_cells(data, "show")
    ok_cells = table[table["ok"]]
    run, app = escape(data.name), escape(app_name(data))
    sentences = [f"Run **{run}**, of {app}: {len(ok_cells)} of {len(table)} cells built, started and measured."]
    if len(ok_cells):
        best = ok_cells.loc[ok_cells[metrics.UNPACKED_BYTES].idxmin()]
        smallest = ", ".join(best[["base", "profile", "allocator"]])
        sentences.append(f"The smallest image is **{smallest}**: {format.mb(best[metrics.UNPACKED_BYTES])} MB.")
    sentences += [f"{cell.cell} has no number: {escape(cell.reason)}." for cell in table[~table["ok"]].itertuples()]
    for note, count in ok_cells.loc[ok_cells["note"] != "", "note"].value_counts().items():
        sentences.append(f"A note on {count} of {len(ok_cells)} cells: {escape(note)}.")
    for base, label in table.loc[table["stand_in"], ["base", "base_label"]].drop_duplicates().itertuples(index=False):
        caveat = f"its figures are not {base.capitalize()}'s"
        sentences.append(f"**{base} is a {escape(label)}**, not the official image: {caveat}.")
    return " ".join(sentences)


def size_findings(table: pd.DataFrame) -> str:
    """Return what the article's grid shows, as a Markdown list; "" for an empty `table`, which is
    `cells.article_grid`."""
    rows = table[table["ok"]]
    rows = rows.assign(base=bases_in_words(rows), share=rows[metrics.BASE_BYTES] / rows[metrics.UNPACKED_BYTES])
    size = rows.pivot(index="base", columns="profile", values=metrics.UNPACKED_BYTES).reindex(rows["base"].unique())
    theirs = rows.pivot(index="base", columns="profile", values="article_bytes")
    share = rows.set_index(["base", "profile"])["share"]
    sentences = []
    if {"baseline", "optimized"} <= set(size):
        pairs = size.dropna(subset=["baseline", "optimized"])
        for base, before, after in pairs[["baseline", "optimized"]].itertuples():
            saving = 1 - theirs.loc[base, "optimized"] / theirs.loc[base, "baseline"]
            sentences.append(
                f"**{base}**: the article's optimizations take {format.mb(before - after)} MB from "
                f"{format.mb(before)} MB, {1 - after / before:.0%} of the image (in the article {saving:.0%}); "
                f"the base is {share[base, 'optimized']:.0%} of what is left."
            )
    for profile in size.columns[size.count() > 1]:
        largest, smallest = size[profile].idxmax(), size[profile].idxmin()
        sentences.append(
            f"Profile **{profile}**: {largest} is {size[profile].max() / size[profile].min():.1f} times as large as "
            f"{smallest} ({format.mb(size[profile].max())} against {format.mb(size[profile].min())} MB)."
        )
    if not len(table):
        return ""
    nothing = "One base of the article's grid" if len(rows) else "No cell of the article's grid"
    return "\n".join(f"- {sentence}" for sentence in sentences) or f"- {nothing} works in this run."


def ladder_findings(table: pd.DataFrame) -> str:
    """Return what each profile gained and what it cost, as a Markdown list. `table` is `cells.ladder`."""
    sentences = []
    for (base, allocator), rungs in table[table["ok"]].groupby(["base", "allocator"], sort=False):
        rows = rungs.set_index("profile")
        name = f"{base}{names.SUBSTITUTE if rows['stand_in'].any() else ''}, {allocator}"
        for kind, group in (("stable", rows[rows["unstable"].ne(True)]), ("unstable", rows[rows["unstable"].eq(True)])):
            if len(group):
                smallest = group.loc[group[metrics.UNPACKED_BYTES].idxmin()]
                ratio = "" if pd.isna(smallest["unpacked"]) else f", {smallest['unpacked']:.2f} times the baseline"
                size = f"{format.mb(smallest[metrics.UNPACKED_BYTES])} MB{ratio}"
                sentences.append(f"**{name}**: the smallest with {kind} flags is **{smallest.name}**: {size}.")
        if grown := [f"{key} ({rows.loc[key, 'unpacked'] - 1:.1%})" for key in rows.index[rows["unpacked"] > 1.0005]]:
            sentences.append(f"**{name}**: larger than the baseline: {', '.join(grown)}.")
        for profile, basis in (("upx", "optimized"), ("opt-z", "baseline"), ("lto-thin", "baseline")):
            if {profile, basis} <= set(rows.index) and rows.loc[[profile, basis], "unpacked"].notna().all():
                disk, pulled = (rows.loc[profile, size] / rows.loc[basis, size] for size in ("unpacked", "compressed"))
                sentences.append(
                    f"**{name}**: {profile} takes {disk:.2f} times the bytes of {basis} on disk, and over the network, "
                    f"where layers are compressed, {pulled:.2f} times."
                )
    return "\n".join(f"- {sentence}" for sentence in sentences)
