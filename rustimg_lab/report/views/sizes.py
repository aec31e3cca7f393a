"""Tables of sizes: cells, layers, sections, profiles."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.model import metrics, profiles
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.views.style import factors, known_sizes, style, with_reason

FLAGS = {True: "unstable", False: "stable"}


def then_and_now(table: pd.DataFrame) -> Styler:
    """The article's table beside ours. `table` is `cells.article_grid`."""
    shown = factors(table)
    shown["article 2021, MB"] = table["article_bytes"] / MEGABYTE
    shown["today, MB"] = table[metrics.UNPACKED_BYTES] / MEGABYTE
    shown["today / article"] = table[metrics.UNPACKED_BYTES] / table["article_bytes"]
    shown["base image is"] = table["base_label"]
    return style(with_reason(shown, table), {"today / article": "{:.2f}"})


def breakdown(table: pd.DataFrame) -> Styler:
    """What the base brings and what the app adds, on disk and over the network. `table` is `cells.cell_table`."""
    sizes = {
        metrics.UNPACKED_BYTES: "unpacked, MB",
        metrics.BASE_BYTES: "base image, MB",
        metrics.APP_BYTES: "app layer, MB",
        metrics.COMPRESSED_BYTES: "compressed, MB",
        metrics.COMPRESSED_APP_BYTES: "compressed app layer, MB",
        metrics.COMPRESSED_ZSTD_BYTES: "compressed by zstd, MB",
        metrics.PUSHED_BYTES: "as this engine pushes it, MB",
    }
    shown = factors(table).join(known_sizes(table, sizes)).assign(**{"base image is": table["base_label"]})
    if table["compressed_with"].any():
        shown["compressed with"] = table["compressed_with"]
    return style(with_reason(shown, table))


def binaries(table: pd.DataFrame) -> Styler:
    """What the binaries are and need, a row per cell. `table` is `cells.cell_table`."""
    shown = factors(table)
    shown["binary, MB"] = table[metrics.BINARY_BYTES] / MEGABYTE
    shown["linked"] = table["linkage"].fillna("")
    shown["allocator found"] = table[metrics.LINKED_ALLOCATOR].fillna("")
    shown["needs at least"] = table[metrics.GLIBC_NEEDED].fillna("")
    for column in ("pie", "stripped"):
        shown[column] = table[column].map({True: "yes", False: "no"}).fillna("")
    shown["needs libraries"] = table[metrics.NEEDED_LIBRARIES].fillna("")
    shown["cargo, CPU s"] = table[metrics.BUILD_CPU_S].astype(float)
    shown["rustc"] = table["rustc"].fillna("").str.split().str[0]
    shown["SHA-256"] = table[metrics.BINARY_SHA256].fillna("").str[:12]
    return style(with_reason(shown, table), {"cargo, CPU s": "{:.0f}"})


def ladder(found: pd.DataFrame) -> Styler:
    """Each profile with what it gained, what it cost to build, and what is known of it. `found` is `cells.ladder`."""
    shown = factors(found)
    shown["flags"] = found["unstable"].map(FLAGS).fillna("")
    shown["unpacked, MB"] = found[metrics.UNPACKED_BYTES] / MEGABYTE
    shown["/ baseline"] = found["unpacked"]
    shown["compressed, MB"] = found[metrics.COMPRESSED_BYTES] / MEGABYTE
    shown["compressed / baseline"] = found["compressed"]
    shown["cargo, CPU s"] = found[metrics.BUILD_CPU_S]
    known = profiles.everything()
    shown["expected gain"] = [known[name].gain if name in known else "" for name in found["profile"]]
    shown["at the cost of"] = [known[name].cost if name in known else "" for name in found["profile"]]
    formats = {"/ baseline": "{:.3f}", "compressed / baseline": "{:.3f}", "cargo, CPU s": "{:.0f}"}
    return style(with_reason(shown, found), formats)


def parts(found: pd.DataFrame) -> Styler:
    """The largest parts of a cell's image, with their percentage of it. `found` is `cells.composition`."""
    largest = found.nlargest(25, "size_bytes")
    shown = {"of": largest["owner"], "package or crate": largest["name"]}
    shown |= {"MB": largest["size_bytes"] / MEGABYTE, "of the image": largest["size_bytes"] / found["size_bytes"].sum()}
    return style(shown, {"MB": "{:.3f}", "of the image": "{:.1%}"})


def sections(found: pd.DataFrame) -> Styler:
    """The sections of each binary, a column per cell. `found` is `cells.parts` of `section_bytes`."""
    wide = found.pivot_table("size_bytes", "name", "cell", aggfunc="sum", sort=False) / MEGABYTE
    wide = wide.loc[wide.max(axis=1).sort_values(ascending=False).index[:15]]
    return style(wide.rename_axis("section, MB").reset_index(), dict.fromkeys(wide.columns, "{:.3f}"))


def layers(table: pd.DataFrame) -> Styler:
    """Each layer with the instruction that made it. `table` is `cells.layer_table`."""
    shown = factors(table)
    shown["layer"] = table["order"]
    shown["of"] = table["owner"]
    shown["files, MB"] = table["file_bytes"] / MEGABYTE
    shown["made by"] = table["instruction"]
    return style(shown)
