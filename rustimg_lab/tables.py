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

MEGABYTE = 1e6


def machine(findings: list) -> Styler:
    """What a run depends on, and what to do where it is not there. `findings` is `host.findings`."""
    found = pd.DataFrame(findings)
    shown = {"": [each.mark for each in findings], "what": found["name"], "found": found["found"]}
    return style(pd.DataFrame(shown | {"what to do": found["remedy"].where(~found["ok"], "")}))


def cells(asked: list[matrix.Cell]) -> Styler:
    """What each cell is made of."""
    return style(pd.DataFrame([cell.facts() for cell in asked]))


def profiles_known() -> Styler:
    """Every profile of data/profiles.toml, with what is said of it."""
    every = profiles.everything().values()
    return style(
        pd.DataFrame(
            [
                {
                    "profile": each.name,
                    "flags": "unstable" if each.unstable else "stable",
                    "said to gain": each.gain,
                    "at the cost of": each.cost,
                }
                for each in every
            ]
        )
    )


def runs() -> Styler:
    """Every run that there is: whose it is, and what it has."""
    shown = []
    for name in store.runs():
        try:
            rows = store.load(name)
        except LabError as error:
            shown.append({"run": name, "studies": str(error)})
            continue
        own = stats.cells(rows)
        studies = rows.loc[rows["study"] != "", "study"].unique()
        shown.append(
            {
                "run": name,
                "app": stats.app(rows),
                "cells": len(own),
                "cells that work": int(own["ok"].sum()),
                "rows": len(rows),
                "studies": ", ".join(each for each in rows.attrs["environment"].get("studies", {}) if each in studies),
            }
        )
    counts = dict.fromkeys(("cells", "cells that work", "rows"), "{:.0f}")
    return style(pd.DataFrame(shown).fillna({"app": ""}), counts)


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
    shown = _factors(table)
    for column, name in (
        ("unpacked_bytes", "unpacked, MB"),
        ("base_bytes", "base's share, MB"),
        ("app_bytes", "app's share, MB"),
        ("compressed_bytes", "compressed, MB"),
        ("compressed_app_bytes", "of it the app's, MB"),
        ("compressed_zstd_bytes", "compressed by zstd, MB"),
        ("pushed_bytes", "as this engine pushes it, MB"),
    ):
        if table[column].notna().any():
            shown[name] = table[column] / MEGABYTE
    shown["base image is"] = table["base_label"]
    if table["compressed_with"].any():
        shown["compressed with"] = table["compressed_with"]
    return style(_with_reason(shown, table))


def binaries(table: pd.DataFrame) -> Styler:
    """What the binaries are and need, a row per cell. `table` is `stats.cells`."""
    shown = _factors(table)
    shown["binary, MB"] = table["binary_bytes"] / MEGABYTE
    for column, name in (
        ("linkage", "linked"),
        ("linked_allocator", "allocator found"),
        ("glibc_needed", "needs at least"),
    ):
        shown[name] = table[column].fillna("")
    for column in ("pie", "stripped"):
        shown[column] = table[column].map({True: "yes", False: "no"}).fillna("")
    shown["needs libraries"] = table["needed_libraries"].fillna("")
    shown["cargo, CPU s"] = table["build_cpu_s"].astype(float)
    shown["rustc"] = table["rustc"].fillna("").str.split().str[0]
    shown["SHA-256"] = table["binary_sha256"].fillna("").str[:12]
    return style(_with_reason(shown, table), {"cargo, CPU s": "{:.0f}"})


def ladder(found: pd.DataFrame) -> Styler:
    """Each profile with what it gained, what it cost to build, and what is known of it. `found` is `stats.ladder`."""
    known = profiles.everything()
    shown = _factors(found)
    shown["flags"] = found["unstable"].map({True: "unstable", False: "stable"}).fillna("")
    shown["unpacked, MB"] = found["unpacked_bytes"] / MEGABYTE
    shown["/ baseline"] = found["unpacked"]
    shown["compressed, MB"] = found["compressed_bytes"] / MEGABYTE
    shown["compressed / baseline"] = found["compressed"]
    shown["cargo, CPU s"] = found["build_cpu_s"]
    for column, name in (("gain", "said to gain"), ("cost", "at the cost of")):
        shown[name] = [getattr(known[each], column) if each in known else "" for each in found["profile"]]
    ratios = dict.fromkeys(("/ baseline", "compressed / baseline"), "{:.3f}")
    return style(_with_reason(shown, found), ratios | {"cargo, CPU s": "{:.0f}"})


def candidates_in_words(found: choice.Choice) -> pd.DataFrame:
    """What was to choose from, the best first, all as text: a row per cell with its verdict."""
    table = found.table.sort_values(["score", "transfer"])
    attrs = {"stand_ins": set(table.loc[table["stand_in"], "base"])}
    best = table[choice.THROUGHPUT].max()
    marks = table["unstable"].map({True: " (unstable flags)", False: ""})
    shown = pd.DataFrame(
        {"cell": [comparison.in_words(cell, attrs) + mark for cell, mark in zip(table.index, marks, strict=True)]}
    )
    for name, criterion in choice.ALL.items():
        if name in table and table[name].notna().any():
            shown[criterion.label] = [choice.in_words(name, value) for value in table[name]]
    if pd.notna(best):
        shown["of the best throughput"] = [
            "not measured" if pd.isna(rate) else f"{rate / best:.0%}" for rate in table[choice.THROUGHPUT]
        ]
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
    cells = ["profile", "base", "allocator"]
    wide = found.assign(base=stats.bases_in_words(found), said=said).pivot_table(
        "said", cells, "criterion", "first", sort=False
    )
    return style(wide.reset_index(), warning="; ".join(found.attrs["notes"]))


def changed_sizes(found: pd.DataFrame) -> pd.DataFrame:
    """What changed in bytes between two runs, all as text. `found` is `guard.sizes`; what is the same is left out."""
    own = found[found["verdict"] != "same"]
    told = own["ratio"].notna()
    shown = pd.DataFrame({"cell": _in_words(own), "of": own["what"]}, own.index)
    for name in ("before", "after"):
        shown[name] = (own[name] / MEGABYTE).map("{:.3f}".format).where(told, "")
    shown["bytes"] = own["change"].map("{:+,.0f}".format).where(told, "")
    shown["change"] = (own["ratio"] - 1).map("{:+.2%}".format).where(told, "")
    return shown.assign(verdict=own["verdict"])


def changed_speeds(found: pd.DataFrame) -> pd.DataFrame:
    """The same of what was measured in blocks. `found` is `guard.speeds`."""
    return pd.DataFrame(
        {
            "cell": _in_words(found),
            "of": found["study"] + ": " + found["what"],
            "ratio": found["ratio"].map("{:.3f}".format).where(found["ratio"].notna(), ""),
            "95% interval": _intervals(found, "low", "high"),
            "detectable": found["detectable"].map(comparison.detectable_in_words),
            "verdict": found["verdict"],
        }
    )


def shares(found: pd.DataFrame) -> Styler:
    """What each knob adds between two cells. `found` is `attribution.shares`."""
    about = found.attrs["quantity"]
    shown = pd.DataFrame(
        {
            "knob": attribution.turned(found),
            "share": [attribution.signed(about, value) for value in found["share"]],
        }
    )
    if found["low"].notna().any():
        shown["95% interval"] = _intervals(found, "low", "high", lambda value: attribution.signed(about, value))
    shown = shown.assign(**{"of the whole": found["of_whole"], "verdict": found["verdict"]})
    return style(shown, {"of the whole": "{:.1%}"}, found.attrs["warning"])


def knobs(found: pd.DataFrame) -> Styler:
    """The effect of each knob and of the ten strongest pairs. `found` is `attribution.effects`."""
    kept = found[(found["order"] == 1) | (found.groupby("order").cumcount() < 10)]
    shown = pd.DataFrame({"knobs": kept["knobs"], "ratio": kept["ratio"]})
    if kept["low"].notna().any():
        shown["95% interval"] = _intervals(kept, "low", "high")
    shown["least to most, over the others' settings"] = _intervals(kept, "least", "most")
    return style(shown.assign(verdict=kept["verdict"]), {"ratio": "{:.3f}"}, found.attrs["warning"])


def predictions(found: pd.DataFrame) -> Styler:
    """Cells that were held out, as predicted and as measured. `found` is `attribution.score`."""
    shown = pd.DataFrame({"cell": found["cell"], "measured, MB": found["measured"] / MEGABYTE})
    shown["predicted, MB"] = found["predicted"] / MEGABYTE
    shown["95% prediction interval"] = _intervals(found, "low", "high", lambda value: f"{value / MEGABYTE:.2f}")
    shown["error"] = found["error"]
    shown["the measured one is"] = found["inside"].map({True: "inside", False: "OUTSIDE"})
    return style(shown, {"error": "{:+.1%}"})


def deploys(table: pd.DataFrame) -> Styler:
    """What was measured of deploys. `table` is `deployment.times`."""
    shown = pd.DataFrame(
        {
            "cell": _in_words(table),
            "the machine has": table["has"],
            "Mbit/s": table["bandwidth_mbit"],
            "until the first byte, s": table["seconds"],
            "95% interval": _intervals(table, "low", "high", "{:.2f}".format),
            "of it the pull, s": table["pull_s"],
            "pulled, MB": table["pulled_bytes"] / MEGABYTE,
            "the manifest's, MB": table["manifest_bytes"] / MEGABYTE,
            "trials": table["trials"],
        }
    )
    return style(shown, dict.fromkeys(("until the first byte, s", "of it the pull, s"), "{:.2f}"))


def deploy_model(found: pd.DataFrame) -> Styler:
    """The model of each cell, and how far it is off where nothing was fitted. `found` is `deployment.model`."""
    held_out = f"{found.attrs['held_out']} Mbit/s"
    shown = pd.DataFrame({"cell": _in_words(found), "the machine has": found["has"]})
    shown["pulled, MB"] = found["bytes"] / MEGABYTE
    shown["apart from the line, s"] = found["fixed_s"]
    shown["factor of the line"] = found["factor"]
    shown[f"measured at {held_out}, s"] = found["held_out_s"]
    shown["model there, s"] = found["predicted_s"]
    shown["error"] = found["error"]
    formats = {name: "{:.2f}" for name in shown.columns[3:7]}
    return style(shown, formats | {"error": "{:+.1%}"})


def stored(found: pd.DataFrame, services: list[int]) -> Styler:
    """What machines store and pull. `found` is `deployment.stored` for these numbers of services."""
    shown = pd.DataFrame({"cell": _in_words(found)})
    for count in services:
        shown[f"on disk for {count} service{'s' * (count != 1)}, MB"] = found[f"stored_{count}"] / MEGABYTE
    shown["1,000 deploys to machines that have nothing, GB"] = found["pulled_cold"] / 1e9
    shown["1,000 to machines that have the base, GB"] = found["pulled_warm"] / 1e9
    return style(shown, {name: "{:.1f}" for name in shown if "GB" in name})


def parts(found: pd.DataFrame) -> Styler:
    """The largest parts of a cell's image, with their share of it. `found` is `stats.composition`."""
    shown = found.nlargest(25, "size_bytes")
    return style(
        pd.DataFrame(
            {
                "of": shown["owner"],
                "package or crate": shown["name"],
                "MB": shown["size_bytes"] / MEGABYTE,
                "share": shown["size_bytes"] / found["size_bytes"].sum(),
            }
        ),
        {"MB": "{:.3f}", "share": "{:.1%}"},
    )


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
    shown = pd.DataFrame(
        {
            **(of or {}),
            "cell": _in_words(found),
            "ratio": found["ratio"],
            "95% interval": _intervals(found, "low", "high"),
            "95%, all at once": _intervals(found, "low_all", "high_all"),
            "smallest detectable": found["detectable"],
            "pairs": found["pairs"],
            "verdict": found["verdict"],
        }
    )
    return style(
        shown, {"ratio": "{:.3f}", "smallest detectable": comparison.detectable_in_words}, found.attrs["warning"]
    )


def summary(found: dict[str, pd.DataFrame]) -> Styler:
    """The cells' own values: by heading, what `comparison.summarize` returns of a metric."""
    columns = []
    for heading, each in found.items():
        low_high = _intervals(each, "low", "high", _number)
        columns.append(pd.DataFrame({heading: each["mean"].to_numpy(), f"{heading}: 95%": low_high}, _in_words(each)))
    shown = pd.concat(columns, axis=1).rename_axis("cell").reset_index()
    warnings = dict.fromkeys(each.attrs["warning"] for each in found.values())
    return style(shown, dict.fromkeys(found, _number), "; ".join(filter(None, warnings)))


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
            columns.append(pd.DataFrame({label: found["mean"].to_numpy()}, _in_words(found)))
        warnings.append(about["warning"] and f"with {about['workers']} workers {about['warning']}")
    shown = pd.concat(columns, axis=1).rename_axis("cell").reset_index()
    return style(shown, dict.fromkeys(shown.columns[1:], _number), "; ".join(filter(None, warnings)))


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
    plans = rows.attrs["environment"].get("studies", {})
    ends = rows[rows["metric"] == "trial"]
    took = rows[rows["metric"] == "trial_s"].groupby("study")["value"].sum()
    shown = []
    for name, plan in plans.items():
        own = ends[ends["study"] == name]
        stopping = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plan["stopping"].items())
        shown.append(
            {
                "study": name,
                "blocks": own.loc[own["ok"], "block"].nunique(),
                "trials": int(own["ok"].sum()),
                "lost": int((~own["ok"]).sum()),
                "took, min": took[name] / 60 if name in took else 0.0,
                "stops at": stopping,
                "seed": str(plan["seed"]),
                "CPUs of the server": plan["parameters"].get("server_cpus", ""),
                "of the generator": plan["parameters"].get("generator_cpus", ""),
                "note": plan["parameters"]["warning"],
            }
        )
    return style(pd.DataFrame(shown), {"took, min": "{:.1f}"})


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
    shown = []
    for name, own in found.groupby("probe", sort=False):
        first = own.iloc[0]
        seen = own.groupby("evidence", sort=False)["cell"].agg(list)
        shown.append(
            {
                "probe": name,
                "what should be": first["question"],
                "what was seen": "; ".join(
                    f"{what} ({', '.join(names[cell] for cell in of)})" for what, of in seen.items()
                ),
                "what to do": first["remedy"],
                "--with": first["addition"],
            }
        )
    return style(pd.DataFrame(shown, columns=["probe", "what should be", "what was seen", "what to do", "--with"]))


def survival_facts(rows: pd.DataFrame) -> Styler:
    """What is in each image that was probed, and how many probes it passed."""
    found, names = survival.facts(rows), survival.names(rows)
    shown = pd.DataFrame({"cell": [names[cell] for cell in found.index]}, found.index)
    shown["passed"], shown["failed"] = found["passed"], found["failed"]
    for column, name in (
        ("unpacked_bytes", "unpacked, MB"),
        ("compressed_bytes", "compressed, MB"),
    ):
        if found[column].notna().any():
            shown[name] = found[column] / MEGABYTE
    for name in ("files", "executables", "packages"):
        shown[name] = found[name]
    shown["crates that a scanner sees"] = found["crates_seen"]
    return style(shown, dict.fromkeys(["files", "executables", "packages", "crates that a scanner sees"], "{:.0f}"))


def survival_costs(rows: pd.DataFrame) -> Styler:
    """What additions cost in bytes and mend, beside the same cell without. `rows` has some (`survival.costs`)."""
    found, names = survival.costs(rows), survival.names(rows)
    return style(
        pd.DataFrame(
            {
                "cell": found["cell"].map(names),
                "unpacked, bytes more": found["unpacked_bytes"],
                "compressed, bytes more": found["compressed_bytes"],
                "mends": found["mended"],
                "still fails": found["left"],
            }
        ),
        dict.fromkeys(["unpacked, bytes more", "compressed, bytes more"], "{:+,.0f}"),
    )


def provenance(rows: pd.DataFrame) -> Styler:
    """Every base image of a run: what it is, whence, its digest; its packages are in `packages`."""
    images = rows.attrs["environment"].get("images", {}).values()
    shown = pd.DataFrame(
        [
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
            for image in images
        ]
    )
    return style(shown)


def packages(rows: pd.DataFrame) -> HTML:
    """The packages of each base image with their versions, folded away."""
    folds = (
        f"<details><summary>{escape(image['label'])}: {len(image['packages'])} packages</summary><p>"
        + escape(", ".join(f"{name} {version}" for name, version in image["packages"].items()))
        + "</p></details>"
        for image in rows.attrs["environment"].get("images", {}).values()
    )
    return HTML("".join(folds))


def environment(rows: pd.DataFrame) -> Styler:
    """The machine and the tools that a run was made with."""
    found = rows.attrs["environment"]
    facts = {**found.get("machine", {}), **found.get("tools", {}), **found.get("app", {})}
    return style(pd.DataFrame({"what": list(facts), "was": [str(value) for value in facts.values()]}))


def _number(value: float) -> str:
    """Four significant digits or more, never with an exponent; "" for none."""
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _in_words(found: pd.DataFrame) -> list[str]:
    return [comparison.in_words(cell, found.attrs) for cell in found["cell"]]


def _intervals(found: pd.DataFrame, low: str, high: str, number: Callable[[float], str] = "{:.3f}".format) -> list[str]:
    pairs = zip(found[low], found[high], strict=True)
    return ["" if pd.isna(a) else f"{number(a)} to {number(b)}" for a, b in pairs]


def _factors(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "base": stats.bases_in_words(table),
            "base from": table["base_source"],
            "profile": table["profile"],
            "allocator": table["allocator"],
        }
    )


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


def style(shown: pd.DataFrame, formats: dict[str, str | Callable] | None = None, warning: str = "") -> Styler:
    """A table as a notebook shows it: no index, MB with two decimals unless `formats` says otherwise, all text escaped,
    the warning in its caption."""
    numbers = shown.select_dtypes("number").columns
    megabytes = {name: "{:.2f}" for name in numbers if "MB" in name}
    styler = shown.style.hide().format(megabytes | (formats or {}), na_rep="", escape="html")
    words = [name for name in shown.columns if name not in numbers]
    left = [{"selector": "td, th", "props": "text-align: left"}]
    styler.set_table_styles({name: left for name in words}, overwrite=False)
    return styler.set_caption(f"Note: {escape(warning)}") if warning else styler
