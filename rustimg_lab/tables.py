"""DataFrame -> what a reader sees: columns in words, bytes as MB (1e6 bytes), a failed cell with its reason."""

import re
from collections.abc import Callable, Container
from html import escape

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from rustimg_lab import attribution, choice, comparison, matrix, profiles, stats, store, survival
from rustimg_lab.errors import LabError
from rustimg_lab.paths import PUBLISHED
from rustimg_lab.stats import MEGABYTE

FLAGS = {True: "unstable", False: "stable"}


def machine(findings: list) -> Styler:
    """What a run depends on, and what to do where it is not there. `findings` is `host.findings`."""
    lines = [(each.mark, each.name, each.found, "" if each.ok else each.remedy) for each in findings]
    return style(pd.DataFrame(lines, columns=["", "what", "found", "what to do"]))


def cells(asked: list[matrix.Cell]) -> Styler:
    """What each cell is made of."""
    return style([cell.facts() for cell in asked])


def profiles_known() -> Styler:
    """Every profile of data/profiles.toml, with what is said of it."""
    every = profiles.everything().values()
    lines = [(each.name, FLAGS[each.unstable], each.gain, each.cost) for each in every]
    return style(pd.DataFrame(lines, columns=["profile", "flags", "said to gain", "at the cost of"]))


def runs() -> Styler:
    """Every run that there is: whose it is, and what it has."""
    lines = []
    for name in store.runs():
        try:
            rows = store.load(name)
        except LabError as error:
            lines.append((name, "", None, None, None, str(error)))
            continue
        works, measured = stats.cells(rows)["ok"], set(rows["study"])
        studies = ", ".join(each for each in rows.attrs["environment"].get("studies", {}) if each in measured)
        lines.append((name, stats.app(rows), len(works), int(works.sum()), len(rows), studies))
    counts = ["cells", "cells that work", "rows"]
    shown = pd.DataFrame(lines, columns=["run", "app", *counts, "studies"])
    return style(shown, dict.fromkeys(counts, "{:.0f}"))


def then_and_now(table: pd.DataFrame) -> Styler:
    """The article's table beside ours. `table` is `stats.article_grid`."""
    shown = _factors(table)
    shown["article 2021, MB"] = table["article_bytes"] / MEGABYTE
    shown["today, MB"] = table["unpacked_bytes"] / MEGABYTE
    shown["today / article"] = table["unpacked_bytes"] / table["article_bytes"]
    shown["base image is"] = table["base_label"]
    return style(_with_reason(shown, table), {"today / article": "{:.2f}"})


def breakdown(table: pd.DataFrame) -> Styler:
    """What the base brings and what the app adds, on disk and over the network. `table` is `stats.cells`."""
    sizes = {
        "unpacked_bytes": "unpacked, MB",
        "base_bytes": "base's share, MB",
        "app_bytes": "app's share, MB",
        "compressed_bytes": "compressed, MB",
        "compressed_app_bytes": "of it the app's, MB",
        "compressed_zstd_bytes": "compressed by zstd, MB",
        "pushed_bytes": "as this engine pushes it, MB",
    }
    shown = _factors(table).join(_known_sizes(table, sizes)).assign(**{"base image is": table["base_label"]})
    if table["compressed_with"].any():
        shown["compressed with"] = table["compressed_with"]
    return style(_with_reason(shown, table))


def binaries(table: pd.DataFrame) -> Styler:
    """What the binaries are and need, a row per cell. `table` is `stats.cells`."""
    shown = _factors(table)
    shown["binary, MB"] = table["binary_bytes"] / MEGABYTE
    shown["linked"] = table["linkage"].fillna("")
    shown["allocator found"] = table["linked_allocator"].fillna("")
    shown["needs at least"] = table["glibc_needed"].fillna("")
    for column in ("pie", "stripped"):
        shown[column] = table[column].map({True: "yes", False: "no"}).fillna("")
    shown["needs libraries"] = table["needed_libraries"].fillna("")
    shown["cargo, CPU s"] = table["build_cpu_s"].astype(float)
    shown["rustc"] = table["rustc"].fillna("").str.split().str[0]
    shown["SHA-256"] = table["binary_sha256"].fillna("").str[:12]
    return style(_with_reason(shown, table), {"cargo, CPU s": "{:.0f}"})


def ladder(found: pd.DataFrame) -> Styler:
    """Each profile with what it gained, what it cost to build, and what is known of it. `found` is `stats.ladder`."""
    shown = _factors(found)
    shown["flags"] = found["unstable"].map(FLAGS).fillna("")
    shown["unpacked, MB"] = found["unpacked_bytes"] / MEGABYTE
    shown["/ baseline"] = found["unpacked"]
    shown["compressed, MB"] = found["compressed_bytes"] / MEGABYTE
    shown["compressed / baseline"] = found["compressed"]
    shown["cargo, CPU s"] = found["build_cpu_s"]
    known = profiles.everything()
    shown["said to gain"] = [known[name].gain if name in known else "" for name in found["profile"]]
    shown["at the cost of"] = [known[name].cost if name in known else "" for name in found["profile"]]
    formats = {"/ baseline": "{:.3f}", "compressed / baseline": "{:.3f}", "cargo, CPU s": "{:.0f}"}
    return style(_with_reason(shown, found), formats)


def candidates_in_words(found: choice.Choice) -> pd.DataFrame:
    """What was to choose from, the best first, all as text: a row per cell with its verdict."""
    table = found.table.sort_values(["score", "transfer"])
    best = table[choice.THROUGHPUT].max()
    marks = table["unstable"].map({True: " (unstable flags)", False: ""})
    shown = pd.DataFrame({"cell": [found.name(cell) + marks[cell] for cell in table.index]})
    for name, criterion in choice.ALL.items():
        if name in table and table[name].notna().any():
            shown[criterion.label] = [choice.in_words(name, value) for value in table[name]]
    if pd.notna(best):
        rates = table[choice.THROUGHPUT]
        shown["of the best throughput"] = ["not measured" if pd.isna(rate) else f"{rate / best:.0%}" for rate in rates]
    shown["Pareto front"] = ["yes" if each else "" for each in table["on_front"]]
    shown["verdict"] = ["PICKED" if cell == found.picked else table.loc[cell, "reason"] for cell in table.index]
    return shown


def candidates(found: choice.Choice) -> Styler:
    """The same as a table of a report."""
    return style(candidates_in_words(found), warning="; ".join(found.notes))


def effects(found: pd.DataFrame) -> Styler:
    """What each profile changes, as ratios to the reference's cell. `found` is `effects.of_profiles`."""
    said = [
        f"{ratio:.2f} {verdict}" if pd.isna(low) else f"{ratio:.2f} ({low:.2f} to {high:.2f}) {verdict}"
        for ratio, low, high, verdict in found[["ratio", "low", "high", "verdict"]].itertuples(index=False)
    ]
    shown = found.assign(base=stats.bases_in_words(found), said=said)
    wide = shown.pivot_table("said", ["profile", "base", "allocator"], "criterion", "first", sort=False)
    return style(wide.reset_index(), warning="; ".join(found.attrs["notes"]))


def changed_sizes(found: pd.DataFrame) -> pd.DataFrame:
    """What changed in bytes between two runs, all as text. `found` is `guard.sizes`; what is the same is left out."""
    own = found[found["verdict"] != "same"]
    shown = pd.DataFrame({"cell": comparison.names(own), "of": own["what"]}, own.index)
    shown["before"] = (own["before"] / MEGABYTE).map("{:.3f}".format)
    shown["after"] = (own["after"] / MEGABYTE).map("{:.3f}".format)
    shown["bytes"] = own["change"].map("{:+,.0f}".format)
    shown["change"] = (own["ratio"] - 1).map("{:+.2%}".format)
    shown.loc[own["ratio"].isna(), ["before", "after", "bytes", "change"]] = ""
    return shown.assign(verdict=own["verdict"])


def changed_speeds(found: pd.DataFrame) -> pd.DataFrame:
    """The same of what was measured in blocks. `found` is `guard.speeds`."""
    shown = _ratios_in_words(found).assign(verdict=found["verdict"])
    shown.insert(1, "of", found["study"] + ": " + found["what"])
    return shown


def comparisons_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Every comparison, all as text, a row per cell. `found` is what `comparison.compare` returns."""
    shown = _ratios_in_words(found)
    shown.insert(3, "all at once", _intervals(found, "low_all", "high_all"))
    return shown.assign(blocks=found["pairs"].astype(str), verdict=found["verdict"])


def _ratios_in_words(found: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"cell": comparison.names(found)}, found.index)
    shown["ratio"] = found["ratio"].map("{:.3f}".format).where(found["ratio"].notna(), "")
    shown["95% interval"] = _intervals(found)
    return shown.assign(detectable=found["detectable"].map(comparison.detectable_in_words))


def shares(found: pd.DataFrame) -> Styler:
    """What each knob adds between two cells. `found` is `attribution.shares`."""

    def signed(value: float) -> str:
        return attribution.signed(found.attrs["quantity"], value)

    shown = pd.DataFrame({"knob": attribution.turned(found), "share": list(map(signed, found["share"]))})
    if found["low"].notna().any():
        shown["95% interval"] = _intervals(found, number=signed)
    shown["of the whole"] = found["of_whole"]
    return style(shown.assign(verdict=found["verdict"]), {"of the whole": "{:.1%}"}, found.attrs["warning"])


def knobs(found: pd.DataFrame) -> Styler:
    """The effect of each knob and of the ten strongest pairs. `found` is `attribution.effects`."""
    kept = found[(found["order"] == 1) | (found.groupby("order").cumcount() < 10)]
    shown = kept[["knobs", "ratio"]].copy()
    if kept["low"].notna().any():
        shown["95% interval"] = _intervals(kept)
    shown["least to most, over the others' settings"] = _intervals(kept, "least", "most")
    return style(shown.assign(verdict=kept["verdict"]), {"ratio": "{:.3f}"}, found.attrs["warning"])


def predictions(found: pd.DataFrame) -> Styler:
    """Cells that were held out, as predicted and as measured. `found` is `attribution.score`."""
    shown = pd.DataFrame({"cell": found["cell"], "measured, MB": found["measured"] / MEGABYTE})
    shown["predicted, MB"] = found["predicted"] / MEGABYTE
    shown["95% prediction interval"] = _intervals(found, number=lambda value: f"{value / MEGABYTE:.2f}")
    shown["error"] = found["error"]
    shown["the measured one is"] = found["inside"].map({True: "inside", False: "OUTSIDE"})
    return style(shown, {"error": "{:+.1%}"})


def deploys(table: pd.DataFrame) -> Styler:
    """What was measured of deploys. `table` is `deployment.times`."""
    shown = {
        "cell": comparison.names(table),
        "the machine has": table["has"],
        "Mbit/s": table["bandwidth_mbit"],
        "until the first byte, s": table["seconds"],
        "95% interval": _intervals(table, number="{:.2f}".format),
        "of it the pull, s": table["pull_s"],
        "pulled, MB": table["pulled_bytes"] / MEGABYTE,
        "the manifest's, MB": table["manifest_bytes"] / MEGABYTE,
        "trials": table["trials"],
    }
    return style(shown, {"until the first byte, s": "{:.2f}", "of it the pull, s": "{:.2f}"})


def deploy_model(found: pd.DataFrame) -> Styler:
    """The model of each cell, and how far it is off where nothing was fitted. `found` is `deployment.model`."""
    seconds = {
        "apart from the line, s": found["fixed_s"],
        "factor of the line": found["factor"],
        f"measured at {found.attrs['held_out']} Mbit/s, s": found["held_out_s"],
        "model there, s": found["predicted_s"],
    }
    shown = {"cell": comparison.names(found), "the machine has": found["has"], "pulled, MB": found["bytes"] / MEGABYTE}
    return style(shown | seconds | {"error": found["error"]}, dict.fromkeys(seconds, "{:.2f}") | {"error": "{:+.1%}"})


def stored(found: pd.DataFrame, services: list[int]) -> Styler:
    """What machines store and pull. `found` is `deployment.stored` for these numbers of services."""
    shown = pd.DataFrame({"cell": comparison.names(found)})
    for count in services:
        shown[f"on disk for {count} service{'s' * (count != 1)}, MB"] = found[f"stored_{count}"] / MEGABYTE
    shown["1,000 deploys to machines that have nothing, GB"] = found["pulled_cold"] / 1e9
    shown["1,000 to machines that have the base, GB"] = found["pulled_warm"] / 1e9
    return style(shown, {name: "{:.1f}" for name in shown if "GB" in name})


def parts(found: pd.DataFrame) -> Styler:
    """The largest parts of a cell's image, with their share of it. `found` is `stats.composition`."""
    largest = found.nlargest(25, "size_bytes")
    shown = {"of": largest["owner"], "package or crate": largest["name"]}
    shown |= {"MB": largest["size_bytes"] / MEGABYTE, "share": largest["size_bytes"] / found["size_bytes"].sum()}
    return style(shown, {"MB": "{:.3f}", "share": "{:.1%}"})


def sections(found: pd.DataFrame) -> Styler:
    """The sections of each binary, a column per cell. `found` is `stats.parts` of `section_bytes`."""
    wide = found.pivot_table("size_bytes", "name", "cell", aggfunc="sum", sort=False) / MEGABYTE
    wide = wide.loc[wide.max(axis=1).sort_values(ascending=False).index[:15]]
    return style(wide.rename_axis("section, MB").reset_index(), dict.fromkeys(wide.columns, "{:.3f}"))


def layers(table: pd.DataFrame) -> Styler:
    """Each layer with the instruction that made it. `table` is `stats.layers`."""
    shown = _factors(table)
    shown["layer"] = table["order"]
    shown["of"] = table["owner"]
    shown["files, MB"] = table["file_bytes"] / MEGABYTE
    shown["made by"] = table["instruction"]
    return style(shown)


def ratios(found: pd.DataFrame, of: dict[str, pd.Series] | None = None) -> Styler:
    """Every comparison with its intervals and its verdict. `found` is what `comparison.compare` returns, or several
    such, which the columns `of` tell apart."""
    shown = {
        **(of or {}),
        "cell": comparison.names(found),
        "ratio": found["ratio"],
        "95% interval": _intervals(found),
        "95%, all at once": _intervals(found, "low_all", "high_all"),
        "smallest detectable": found["detectable"],
        "pairs": found["pairs"],
        "verdict": found["verdict"],
    }
    formats = {"ratio": "{:.3f}", "smallest detectable": comparison.detectable_in_words}
    return style(shown, formats, found.attrs["warning"])


def summary(found: dict[str, pd.DataFrame]) -> Styler:
    """The cells' own values: by heading, what `comparison.summarize` returns of a metric."""
    columns = []
    for heading, each in found.items():
        values = {heading: each["mean"].to_numpy(), f"{heading}: 95%": _intervals(each, number=_number)}
        columns.append(pd.DataFrame(values, comparison.names(each)))
    return _side_by_side(columns, [each.attrs["warning"] for each in found.values()])


def workers(rows: pd.DataFrame, workload: str, connections: int) -> Styler:
    """Per cell the geometric means of requests per second and CPU time per request, for each number of worker threads
    that the run has a throughput study of, under the same load otherwise."""
    columns, warnings = [], []
    for name, plan in rows.attrs["environment"].get("studies", {}).items():
        about = plan["parameters"]
        if plan["kind"] != "throughput" or (about["workload"], about["connections"]) != (workload, connections):
            continue
        for metric, heading in (("requests_per_s", "requests/s"), ("cpu_us_per_request", "CPU, µs per request")):
            found = comparison.summarize(comparison.samples(rows, name, metric))
            label = f"{heading}, {about['workers']} worker{'s' * (about['workers'] != 1)}"
            columns.append(pd.DataFrame({label: found["mean"].to_numpy()}, comparison.names(found)))
        warnings.append(about["warning"] and f"with {about['workers']} workers {about['warning']}")
    return _side_by_side(columns, warnings)


def _side_by_side(columns: list[pd.DataFrame], warnings: list[str]) -> Styler:
    """Columns by cell as one table, each warning once."""
    shown = pd.concat(columns, axis=1).rename_axis("cell").reset_index()
    numbers = shown.select_dtypes("number").columns
    return style(shown, dict.fromkeys(numbers, _number), "; ".join(filter(None, dict.fromkeys(warnings))))


def latency(rows: pd.DataFrame, study: str) -> Styler:
    """Per cell the geometric means over the trials of each percentile, in milliseconds, at the study's rate."""
    own = rows[(rows["study"] == study) & rows["metric"].str.startswith("latency_") & rows["ok"]]
    found = {}
    for metric in own["metric"].unique():
        each = comparison.samples(rows, study, metric)
        found[f"{metric.split('_')[1]}, ms"] = comparison.summarize(each.assign(value=each["value"] * 1e3))
    return summary({name.replace("p999", "p99.9"): each for name, each in found.items()})


def connections(rows: pd.DataFrame, study: str) -> Styler:
    """Medians of what a server holds with so many connections open, and what each takes. `study` is one of those."""
    own = rows[(rows["study"] == study) & rows["ok"] & rows["metric"].ne("trial")]
    plan = rows.attrs["environment"]["studies"][study]
    counts = plan["parameters"]["connections"]
    wide = own.assign(value=pd.to_numeric(own["value"])).pivot_table("value", "cell", "metric", aggfunc="median")
    wide = wide.reindex([cell for cell in plan["cells"] if cell in wide.index])
    attrs = comparison.samples(rows, study, plan["metric"]).attrs
    shown = pd.DataFrame({"cell": [comparison.in_words(cell, attrs) for cell in wide.index]}, wide.index)
    for count in (0, *counts):
        shown[f"resident at {count:,}, MB"] = wide[f"rss_at_{count}_bytes"] / MEGABYTE
    for count in counts:
        shown[f"bytes per connection at {count:,}"] = wide[f"bytes_per_connection_at_{count}"]
    return style(shown, {name: "{:,.0f}" for name in shown if name.startswith("bytes")}, attrs["warning"])


def studies(rows: pd.DataFrame) -> Styler:
    """What studies a run has: how each was planned, how far it came, what was lost, and what a reader must know."""
    ends = rows[rows["metric"] == "trial"]
    took = rows[rows["metric"] == "trial_s"].groupby("study")["value"].sum()
    shown = []
    for name, plan in rows.attrs["environment"].get("studies", {}).items():
        own, about = ends[ends["study"] == name], plan["parameters"]
        line = {
            "study": name,
            "blocks": own.loc[own["ok"], "block"].nunique(),
            "trials": int(own["ok"].sum()),
            "lost": int((~own["ok"]).sum()),
            "took, min": took.get(name, 0.0) / 60,
            "stops at": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plan["stopping"].items()),
            "seed": str(plan["seed"]),
            "CPUs of the server": about.get("server_cpus", ""),
            "of the generator": about.get("generator_cpus", ""),
            "note": about["warning"],
        }
        shown.append(line)
    return style(shown, {"took, min": "{:.1f}"})


def lost(rows: pd.DataFrame) -> Styler | HTML:
    """Everything that a study has no number of, with its reason: lost trials, single values, images."""
    found = rows[(rows["study"] != "") & ~rows["ok"]]
    if found.empty:
        return HTML("<p>Nothing was lost.</p>")
    return style(found[["study", "cell", "metric", "block", "reason"]].assign(block=found["block"] + 1))


def published() -> Styler:
    """What others measured when musl's malloc was replaced."""
    found = pd.read_csv(PUBLISHED, comment="#")
    shown = found.assign(ratio=found["value"] / found["musl"])
    shown = shown[["program", "what", "replacement", "musl", "value", "ratio", "source"]]
    names = {"musl": "with musl malloc", "value": "with the replacement"}
    return style(shown.rename(columns=names), {name: "{:,g}" for name in names.values()} | {"ratio": "{:.2f}"})


def survival_failures(rows: pd.DataFrame) -> Styler:
    """Every probe that failed: of which cells, what was seen, and what to do."""
    found, names = survival.failures(rows), survival.names(rows)
    lines = []
    for name, own in found.groupby("probe", sort=False):
        cells = own["cell"].map(names).groupby(own["evidence"], sort=False).agg(", ".join)
        seen = "; ".join(f"{what} ({of})" for what, of in cells.items())
        lines.append((name, own["question"].iloc[0], seen, own["remedy"].iloc[0], own["addition"].iloc[0]))
    columns = ["probe", "what should be", "what was seen", "what to do", "--with"]
    return style(pd.DataFrame(lines, columns=columns))


def survival_facts(rows: pd.DataFrame) -> Styler:
    """What is in each image that was probed, and how many probes it passed."""
    found, names = survival.facts(rows), survival.names(rows)
    shown = pd.DataFrame({"cell": found.index.map(names)}, found.index)
    sizes = _known_sizes(found, {"unpacked_bytes": "unpacked, MB", "compressed_bytes": "compressed, MB"})
    counts = found[["files", "executables", "packages", "crates_seen"]]
    counts = counts.rename(columns={"crates_seen": "crates that a scanner sees"})
    shown = pd.concat([shown, found[["passed", "failed"]], sizes, counts], axis=1)
    return style(shown, dict.fromkeys(counts, "{:.0f}"))


def survival_costs(rows: pd.DataFrame) -> Styler:
    """What additions cost in bytes and mend, beside the same cell without. `rows` has some (`survival.costs`)."""
    found = survival.costs(rows)
    shown = {
        "cell": found["cell"].map(survival.names(rows)),
        "unpacked, bytes more": found["unpacked_bytes"],
        "compressed, bytes more": found["compressed_bytes"],
        "mends": found["mended"],
        "still fails": found["left"],
    }
    return style(shown, {"unpacked, bytes more": "{:+,.0f}", "compressed, bytes more": "{:+,.0f}"})


def provenance(rows: pd.DataFrame) -> Styler:
    """Every base image of a run: what it is, whence, its digest; its packages are in `packages`."""
    lines = [
        {
            "image": image["name"],
            "is": image["label"],
            "stand-in": "yes" if image["stand_in"] else "",
            "release": image["release"],
            "from": image["source"],
            "because": image.get("why", ""),  # runs before this was recorded have none
            "digest": image["digest"][:19],
            "in the registry": image.get("manifest", "")[:19],
            "packages": len(image["packages"]),
        }
        for image in rows.attrs["environment"].get("images", {}).values()
    ]
    return style(lines)


def packages(rows: pd.DataFrame) -> HTML:
    """The packages of each base image with their versions, folded away."""
    folds = []
    for image in rows.attrs["environment"].get("images", {}).values():
        names = ", ".join(f"{name} {version}" for name, version in image["packages"].items())
        summary = f"{escape(image['label'])}: {len(image['packages'])} packages"
        folds.append(f"<details><summary>{summary}</summary><p>{escape(names)}</p></details>")
    return HTML("".join(folds))


def environment(rows: pd.DataFrame) -> Styler:
    """The machine and the tools that a run was made with."""
    found = rows.attrs["environment"]
    facts = {**found.get("machine", {}), **found.get("tools", {}), **found.get("app", {})}
    return style({"what": list(facts), "was": list(map(str, facts.values()))})


def _number(value: float) -> str:
    """Four significant digits or more, never with an exponent; "" for none."""
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _intervals(
    found: pd.DataFrame, low: str = "low", high: str = "high", number: Callable[[float], str] = "{:.3f}".format
) -> list[str]:
    """An interval of each row as text; "" for none."""
    pairs = zip(found[low], found[high], strict=True)
    return ["" if pd.isna(a) else f"{number(a)} to {number(b)}" for a, b in pairs]


def _factors(table: pd.DataFrame) -> pd.DataFrame:
    """What each row of a table of cells is of."""
    shown = pd.DataFrame({"base": stats.bases_in_words(table), "base from": table["base_source"]})
    return shown.join(table[["profile", "allocator"]])


def _known_sizes(table: pd.DataFrame, headings: dict[str, str]) -> pd.DataFrame:
    """The columns of bytes in which any row has a number, in MB under their headings."""
    known = table[list(headings)].dropna(axis=1, how="all")
    return (known.astype(float) / MEGABYTE).rename(columns=headings)


def _with_reason(shown: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A column for why a cell has no number, where one has none."""
    return shown if table["ok"].all() else shown.assign(**{"no number, because": table["reason"]})


def plain(text: str) -> str:
    """A text of a run, which may come from a stranger, as Markdown that shows it and does nothing else."""
    shown = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\[\]`|])", r"\\\1", shown)


def in_markdown(header: list[str], lines: list[list[str]], numbers: Container[int]) -> str:
    """A table of text as Markdown; `numbers` are the places of the columns that have those."""
    ruler = ["---:" if place in numbers else "---" for place in range(len(header))]
    shown = [list(map(plain, header)), ruler, *(list(map(plain, line)) for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in shown)


def style(
    table: pd.DataFrame | dict | list[dict], formats: dict[str, str | Callable] | None = None, warning: str = ""
) -> Styler:
    """A table (or what makes a DataFrame) as a notebook shows it: no index, MB with two decimals unless `formats` says
    otherwise, all text escaped, the warning in its caption."""
    shown = pd.DataFrame(table)
    numbers = shown.select_dtypes("number").columns
    megabytes = {name: "{:.2f}" for name in numbers if "MB" in name}
    styler = shown.style.hide().format(megabytes | (formats or {}), na_rep="", escape="html")
    words = [name for name in shown.columns if name not in numbers]
    left = [{"selector": "td, th", "props": "text-align: left"}]
    styler.set_table_styles({name: left for name in words}, overwrite=False)
    return styler.set_caption(f"Note: {escape(warning)}") if warning else styler
