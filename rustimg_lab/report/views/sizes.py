"""Tables of sizes: cells, layers, sections, profiles."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.model import metrics, profiles
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.views.style import factors, known_sizes, style, with_reason

FLAGS = {True: "unstable", False: "stable"}


def then_and_now(table: pd.DataFrame) -> Styler:
    """Show sizes in MB (1e6 bytes) in the article and today, with their ratio, a row per cell. `table` is
    `cells.article_grid`."""
    columns = factors(table)
    columns["article 2021, MB"] = table["article_bytes"] / MEGABYTE
    columns["today, MB"] = table[metrics.UNPACKED_BYTES] / MEGABYTE
    columns["today / article"] = table[metrics.UNPACKED_BYTES] / table["article_bytes"]
    columns["base image is"] = table["base_label"]
    return style(with_reason(columns, table), {"today / article": "{:.2f}"})


def breakdown(table: pd.DataFrame) -> Styler:
    """Show what the base and the app take up in MB (1e6 bytes), unpacked and compressed, a row per cell. `table` is
    `cells.cell_table`."""
    sizes = {
        metrics.UNPACKED_BYTES: "unpacked, MB",
        metrics.BASE_BYTES: "base image, MB",
        metrics.APP_BYTES: "app layer, MB",
        metrics.COMPRESSED_BYTES: "compressed, MB",
        metrics.COMPRESSED_APP_BYTES: "compressed app layer, MB",
        metrics.COMPRESSED_ZSTD_BYTES: "compressed by zstd, MB",
        metrics.PUSHED_BYTES: "as this engine pushes it, MB",
    }
    columns = factors(table).join(known_sizes(table, sizes)).assign(**{"base image is": table["base_label"]})
    if table["compressed_with"].any():
        columns["compressed with"] = table["compressed_with"]
    return style(with_reason(columns, table))


def binaries(table: pd.DataFrame) -> Styler:
    """Show what the binaries are and what they need, a row per cell. `table` is `cells.cell_table`."""
    columns = factors(table)
    columns["binary, MB"] = table[metrics.BINARY_BYTES] / MEGABYTE
    columns["linked"] = table["linkage"].fillna("")
    columns["allocator found"] = table[metrics.LINKED_ALLOCATOR].fillna("")
    columns["needs at least"] = table[metrics.GLIBC_NEEDED].fillna("")
    for column in ("pie", "stripped"):
        columns[column] = table[column].map({True: "yes", False: "no"}).fillna("")
    columns["needs libraries"] = table[metrics.NEEDED_LIBRARIES].fillna("")
    columns["cargo, CPU s"] = table[metrics.BUILD_CPU_S].astype(float)
    columns["rustc"] = table["rustc"].fillna("").str.split().str[0]
    columns["SHA-256"] = table[metrics.BINARY_SHA256].fillna("").str[:12]
    return style(with_reason(columns, table), {"cargo, CPU s": "{:.0f}"})


def ladder(rungs: pd.DataFrame) -> Styler:
    """Show what each profile gained, what it cost to build (CPU seconds), and what is known of it, a row per cell.
    Sizes are in MB (1e6 bytes) and as ratios to the baseline. `rungs` is `cells.ladder`."""
    columns = factors(rungs)
    columns["flags"] = rungs["unstable"].map(FLAGS).fillna("")
    columns["unpacked, MB"] = rungs[metrics.UNPACKED_BYTES] / MEGABYTE
    columns["/ baseline"] = rungs["unpacked"]
    columns["compressed, MB"] = rungs[metrics.COMPRESSED_BYTES] / MEGABYTE
    columns["compressed / baseline"] = rungs["compressed"]
    columns["cargo, CPU s"] = rungs[metrics.BUILD_CPU_S]
    catalogue = profiles.all_profiles()
    columns["expected gain"] = [catalogue[name].gain if name in catalogue else "" for name in rungs["profile"]]
    columns["at the cost of"] = [catalogue[name].cost if name in catalogue else "" for name in rungs["profile"]]
    formats = {"/ baseline": "{:.3f}", "compressed / baseline": "{:.3f}", "cargo, CPU s": "{:.0f}"}
    return style(with_reason(columns, rungs), formats)


def parts(table: pd.DataFrame) -> Styler:
    """Show the 25 largest parts of a cell's image in MB (1e6 bytes), with their percentage of the image. `table` is
    `cells.composition`."""
    largest = table.nlargest(25, "size_bytes")
    facts = {"of": largest["owner"], "package or crate": largest["name"]}
    facts |= {"MB": largest["size_bytes"] / MEGABYTE, "of the image": largest["size_bytes"] / table["size_bytes"].sum()}
    return style(facts, {"MB": "{:.3f}", "of the image": "{:.1%}"})


def sections(table: pd.DataFrame) -> Styler:
    """Show the 15 largest sections of the binaries in MB (1e6 bytes), a column per cell. `table` is `cells.parts` of
    `section_bytes`."""
    wide = table.pivot_table("size_bytes", "name", "cell", aggfunc="sum", sort=False) / MEGABYTE
    wide = wide.loc[wide.max(axis=1).sort_values(ascending=False).index[:15]]
    return style(wide.rename_axis("section, MB").reset_index(), dict.fromkeys(wide.columns, "{:.3f}"))


def layers(table: pd.DataFrame) -> Styler:
    """Show each layer with its size in MB (1e6 bytes) and the instruction that made it. `table` is
    `cells.layer_table`."""
    columns = factors(table)
    columns["layer"] = table["order"]
    columns["of"] = table["owner"]
    columns["files, MB"] = table["file_bytes"] / MEGABYTE
    columns["made by"] = table["instruction"]
    return style(columns)
