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
    """The article's sentence on allocators, checked against a study, as Markdown: musl malloc against jemalloc."""

    def sentence(where: str, one: pd.Series, musl: str, note: str) -> str:
        return (
            f"The article says that {CLAIM} and takes jemalloc. Measured on {where}: with jemalloc a request costs "
            f"**{one['ratio']:.2f}** times the CPU time that it costs with musl malloc (95% interval "
            f"{one['low']:.2f} to {one['high']:.2f}): **{one['verdict']}**.{note}"
        )

    return _jemalloc_against_musl(run, study, metrics.CPU_US_PER_REQUEST, sentence)


def memory_verdict(run: RunData, under_load: str, limits: str = "") -> str:
    """What jemalloc costs in memory in place of musl malloc, as Markdown; of limits where there is such a study."""
    means = _means(comparison.samples(run, under_load, metrics.STEADY_RSS_BYTES))
    smallest = {}
    if limits:
        tried = comparison.samples(run, limits, metrics.SMALLEST_LIMIT_BYTES)
        at_most = {cell: "at most " for cell in tried.attrs["at_least"]}
        in_words = metrics.SMALLEST_LIMIT_BYTES.in_words
        smallest = {cell: at_most.get(cell, "") + in_words(mean) for cell, mean in _means(tried).items()}

    def sentence(where: str, one: pd.Series, musl: str, note: str) -> str:
        said = (
            f"On {where}: under load the server with jemalloc holds **{one['ratio']:.2f}** times the memory that it "
            f"holds with musl malloc (95% interval {one['low']:.2f} to {one['high']:.2f}; "
            f"{means[one.name] / 1e6:.2f} MB against {means[musl] / 1e6:.2f}): **{one['verdict']}**.{note}"
        )
        if {musl, one.name} <= set(smallest):
            limit = comparison.of_study(run, limits, baseline=musl).set_index("cell").loc[one.name]
            said += (
                f" The smallest limit that the whole load is answered under is {smallest[one.name]} "
                f"with jemalloc and {smallest[musl]} with musl malloc (**{limit['verdict']}**)."
            )
        return said

    return _jemalloc_against_musl(run, under_load, metrics.STEADY_RSS_BYTES, sentence)


def _jemalloc_against_musl(run: RunData, study: str, metric: str, sentence: Callable[..., str]) -> str:
    """A paragraph for each base on which a study has both, as Markdown: what `sentence` makes of the base with the
    workload, jemalloc's row of `comparison.compare`, the cell with musl malloc, and the study's note."""
    about = run.environment.studies[study].parameters
    workers = f", {about['workers']} worker threads" if about["workers"] > 1 else ""
    said = []
    every = sorted(beside_malloc(comparison.samples(run, study, metric)))
    pairs = [each for each in every if (each.malloc, each.allocator) == ("musl malloc", "jemalloc")]
    for pair in pairs:
        found = comparison.of_study(run, study, metric, pair.baseline)
        one = found.set_index("cell").loc[pair.cell]
        base = pair.base + (names.SUBSTITUTE if pair.base in run.environment.stand_ins else "")
        base += f", profile **{pair.profile}**" if len({each.profile for each in pairs}) > 1 else ""
        where = f"{base}, workload **{about['workload']}**{workers}, over {one['pairs']} blocks"
        too_few = f"On {base} musl malloc and jemalloc share {TOO_FEW}."
        said.append(too_few if one["pairs"] < 2 else sentence(where, one, pair.baseline, _note(found, pair.cell)))
    return "\n\n".join(said) or f"Study **{study}** does not compare musl malloc with jemalloc."


def _means(samples: pd.DataFrame) -> dict[str, float]:
    return dict(comparison.summarize(samples).set_index("cell")["mean"])


def _note(found: pd.DataFrame, cell: str = "") -> str:
    """What a reader must know of a comparison, or of that of one cell, after a space; "" for nothing."""
    note = comparison.note_on(found, cell) if cell else found.attrs["warning"]
    return f" (Note: {note}.)" if note else ""


def startup_verdict(run: RunData, baseline: str = "") -> str:
    """What the image changes of the program's start, and of its container's where measured, as Markdown."""
    about, container = metrics.EXEC_TO_FIRST_BYTE_S, None
    process = comparison.of_study(run, "startup-server", about, baseline)
    own_s = _mean_of_cells(comparison.samples(run, "startup-server", about))
    said = f"Over all cells, the server answers {about.in_words(own_s)} after its exec inside its image"
    for study in comparison.find_studies(run, "startup", program="container"):  # the one, where there is one
        metric = metrics.find(run.environment.studies[study].metric)  # not every server is on the host's network
        container = comparison.of_study(run, study, metric, baseline)
        whole_s = _mean_of_cells(comparison.samples(run, study, metric))
        said += f"; in a container it takes {whole_s * 1e3:.0f} ms, of which the program is {own_s / whole_s:.1%}"
    others = process[~process["is_twin"] & process["pairs"].gt(1)]
    if others.empty:
        return f"{said}.{_note(process)}"
    far = others.loc[np.log(others["ratio"]).abs().idxmax()]
    against, name = (names.cell_in_words(cell, process.attrs) for cell in (process.attrs["baseline"], far["cell"]))
    said += (
        f". The farthest from {against} is **{name}**: {far['ratio']:.2f} times as long inside the image "
        f"({far['low']:.2f} to {far['high']:.2f}, **{far['verdict']}**)"
    )
    if container is None or far["cell"] not in set(container.loc[container["pairs"] > 1, "cell"]):
        return f"{said}.{_note(process, far['cell'])}"
    same = container.set_index("cell").loc[far["cell"]]
    return (
        f"{said}, and {same['ratio']:.2f} times with the engine "
        f"({same['low']:.2f} to {same['high']:.2f}, **{same['verdict']}**)."
        f"{_through_the_engine(far, container)}{_note(process, far['cell'])}"
    )


def _through_the_engine(far: pd.Series, container: pd.DataFrame) -> str:
    """Whether a process's difference shows in its container's start, in a sentence; "" where it does not apply."""
    alike = (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY)
    verdicts = container[~container["is_twin"]].set_index("cell")["verdict"]
    if far["verdict"] in alike or verdicts[far["cell"]] not in (*alike, far["verdict"]):
        return ""
    if verdicts[far["cell"]] == far["verdict"]:
        return " The difference is seen through the engine's own work too."
    hidden = "what the image changes" if verdicts.isin(alike).all() else "this difference"
    return f" The engine's own work, which is many times as long, hides {hidden}."


def _mean_of_cells(samples: pd.DataFrame) -> float:
    """The geometric mean over the cells; the A/A control is none of them."""
    own = comparison.summarize(samples[~samples["cell"].str.endswith(names.TWIN)])
    return float(np.exp(np.log(own["mean"]).mean()))


def repeatability(counts: pd.DataFrame) -> str:
    """How far the counts of one cell are apart, in a sentence. `counts` is what `comparison.samples` returns."""
    per_cell = counts.groupby("cell")["value"]
    spread = per_cell.max() / per_cell.min()
    if not per_cell.size().max() > 1:
        return "Counted at most once per cell, so how well the counts repeat is not known."
    worst = names.cell_in_words(spread.idxmax(), counts.attrs)
    return f"Counts of one cell differ by at most **{spread.max() - 1:.3%}** ({worst}); less tells nothing apart."


def ratios(found: pd.DataFrame, label: str) -> str:
    """Each comparison in a sentence, as a Markdown list. `found` is what `comparison.compare` returns."""
    baseline = names.cell_in_words(found.attrs["baseline"], found.attrs)
    said = []
    for cell in found.itertuples():
        name = names.cell_in_words(cell.cell.removesuffix(names.TWIN), found.attrs)
        if cell.is_twin:
            interval = f"ratio {cell.ratio:.3f} ({cell.low:.3f} to {cell.high:.3f}), " if cell.ratio > 0 else ""
            said.append(f"The same image twice ({name}, the A/A control): {interval}{cell.verdict}.")
        elif cell.verdict in (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY, Verdict.AT_MINIMUM):
            least = f"; minimum detectable effect {_percent(cell.detectable)}" if cell.detectable > 0 else ""
            said.append(f"**{name}** against {baseline}: {cell.verdict} in {label}{least}.")
        else:
            interval = f"95% interval {cell.low:.2f} to {cell.high:.2f}"
            interval = f"at most {cell.high:.2f} times" if cell.low == 0 else interval
            interval = f"at least {cell.low:.2f} times" if np.isinf(cell.high) else interval
            said.append(
                f"**{name}** against {baseline}: {cell.ratio:.2f} times the {label} ({interval}): **{cell.verdict}**."
            )
    return "\n".join(f"- {sentence}" for sentence in said)


def speed_up(found: pd.DataFrame) -> str:
    """Each step to more worker threads in a sentence, as a Markdown list. `found` is what `scaling.speed_up` tells."""
    said = []
    for name, one in zip(comparison.names(found), found.itertuples(), strict=True):
        cpu = f", {one.cpu:.2f} times the CPU time per request" if one.cpu > 0 else ""
        interval = f"{one.ratio:.2f} times the requests per second (95% interval {one.low:.2f} to {one.high:.2f})"
        judged = f"{interval}{cpu}: **{one.verdict}**" if one.pairs > 1 else TOO_FEW
        said.append(f"- **{name}**, {one.fewer} to {one.workers} workers: {judged}.")
    return "\n".join(said) + _note(found)


def _percent(ratio: float) -> str:
    return f"over {comparison.HUGE_RATIO - 1:.0%}" if ratio > comparison.HUGE_RATIO else f"{ratio - 1:.1%}"


def size_verdict(table: pd.DataFrame, data: RunData) -> str:
    """The smallest image, what failed, what is a substitute, as Markdown. Raises LabError for a run without sizes."""
    some_cells(data, "show")
    works = table[table["ok"]]
    run, of = escape(data.name), escape(app_name(data))
    said = [f"Run **{run}**, of {of}: {len(works)} of {len(table)} cells built, started and measured."]
    if len(works):
        best = works.loc[works[metrics.UNPACKED_BYTES].idxmin()]
        smallest = ", ".join(best[["base", "profile", "allocator"]])
        said.append(f"The smallest image is **{smallest}**: {format.mb(best[metrics.UNPACKED_BYTES])} MB.")
    said += [f"{cell.cell} has no number: {escape(cell.reason)}." for cell in table[~table["ok"]].itertuples()]
    for note, count in works.loc[works["note"] != "", "note"].value_counts().items():
        said.append(f"A note on {count} of {len(works)} cells: {escape(note)}.")
    for base, label in table.loc[table["stand_in"], ["base", "base_label"]].drop_duplicates().itertuples(index=False):
        own = f"its figures are not {base.capitalize()}'s"
        said.append(f"**{base} is a {escape(label)}**, not the official image: {own}.")
    return " ".join(said)


def size_findings(table: pd.DataFrame) -> str:
    """What the article's grid shows, as a Markdown list with every number from `table` (`article_grid`)."""
    works = table[table["ok"]]
    works = works.assign(base=bases_in_words(works), share=works[metrics.BASE_BYTES] / works[metrics.UNPACKED_BYTES])
    size = works.pivot(index="base", columns="profile", values=metrics.UNPACKED_BYTES).reindex(works["base"].unique())
    theirs = works.pivot(index="base", columns="profile", values="article_bytes")
    share = works.set_index(["base", "profile"])["share"]
    said = []
    if {"baseline", "optimized"} <= set(size):
        both = size.dropna(subset=["baseline", "optimized"])
        for base, before, after in both[["baseline", "optimized"]].itertuples():
            then = 1 - theirs.loc[base, "optimized"] / theirs.loc[base, "baseline"]
            said.append(
                f"**{base}**: the article's optimizations take {format.mb(before - after)} MB from "
                f"{format.mb(before)} MB, {1 - after / before:.0%} of the image (in the article {then:.0%}); "
                f"the base is {share[base, 'optimized']:.0%} of what is left."
            )
    for profile in size.columns[size.count() > 1]:
        largest, smallest = size[profile].idxmax(), size[profile].idxmin()
        said.append(
            f"Profile **{profile}**: {largest} is {size[profile].max() / size[profile].min():.1f} times as large as "
            f"{smallest} ({format.mb(size[profile].max())} against {format.mb(size[profile].min())} MB)."
        )
    if not len(table):
        return ""
    nothing = "One base of the article's grid" if len(works) else "No cell of the article's grid"
    return "\n".join(f"- {sentence}" for sentence in said) or f"- {nothing} works in this run."


def ladder_findings(found: pd.DataFrame) -> str:
    """What each profile of `ladder` gained and what it cost, as a Markdown list with every number from it."""
    said = []
    for (base, allocator), rungs in found[found["ok"]].groupby(["base", "allocator"], sort=False):
        by = rungs.set_index("profile")
        name = f"{base}{names.SUBSTITUTE if by['stand_in'].any() else ''}, {allocator}"
        for kind, those in (("stable", by[by["unstable"].ne(True)]), ("unstable", by[by["unstable"].eq(True)])):
            if len(those):
                one = those.loc[those[metrics.UNPACKED_BYTES].idxmin()]
                than = "" if pd.isna(one["unpacked"]) else f", {one['unpacked']:.2f} times the baseline"
                size = f"{format.mb(one[metrics.UNPACKED_BYTES])} MB{than}"
                said.append(f"**{name}**: the smallest with {kind} flags is **{one.name}**: {size}.")
        if grown := [f"{each} ({by.loc[each, 'unpacked'] - 1:.1%})" for each in by.index[by["unpacked"] > 1.0005]]:
            said.append(f"**{name}**: larger than the baseline: {', '.join(grown)}.")
        for profile, of in (("upx", "optimized"), ("opt-z", "baseline"), ("lto-thin", "baseline")):
            if {profile, of} <= set(by.index) and by.loc[[profile, of], "unpacked"].notna().all():
                on_disk, pulled = (by.loc[profile, size] / by.loc[of, size] for size in ("unpacked", "compressed"))
                said.append(
                    f"**{name}**: {profile} takes {on_disk:.2f} times the bytes of {of} on disk, and over the network, "
                    f"where layers are compressed, {pulled:.2f} times."
                )
    return "\n".join(f"- {sentence}" for sentence in said)
