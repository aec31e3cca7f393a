"""DataFrame -> what a reader sees: columns in words, bytes as MB (1e6 bytes), a failed cell with its reason."""

from html import escape

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

MEGABYTE = 1e6


def then_and_now(table: pd.DataFrame) -> Styler:
    """The article's table beside ours. `table` is `stats.article_grid`."""
    shown = _factors(table)
    shown["article 2021, MB"] = table["article_bytes"] / MEGABYTE
    shown["today, MB"] = table["unpacked_bytes"] / MEGABYTE
    shown["today / article"] = table["unpacked_bytes"] / table["article_bytes"]
    shown["base image is"] = table["base_label"]
    return _style(_with_reason(shown, table), {"today / article": "{:.2f}"})


def breakdown(table: pd.DataFrame) -> Styler:
    """What the base brings and what the app adds, on disk and over the network. `table` is `stats.cells`."""
    shown = _factors(table)
    for column, name in (
        ("unpacked_bytes", "unpacked, MB"),
        ("base_bytes", "base's share, MB"),
        ("app_bytes", "app's share, MB"),
        ("compressed_bytes", "compressed, MB"),
        ("compressed_app_bytes", "of it the app's, MB"),
        ("compressed_estimate_bytes", "compressed, estimate, MB"),
    ):
        if table[column].notna().any():
            shown[name] = table[column] / MEGABYTE
    shown["base image is"] = table["base_label"]
    return _style(_with_reason(shown, table))


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
    return _style(_with_reason(shown, table), {"cargo, CPU s": "{:.0f}"})


def layers(table: pd.DataFrame) -> Styler:
    """Each layer with the instruction that made it. `table` is `stats.layers`."""
    shown = _factors(table)
    shown["layer"] = table["order"]
    shown["of"] = table["owner"]
    shown["files, MB"] = table["file_bytes"] / MEGABYTE
    shown["made by"] = table["instruction"]
    return _style(shown)


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
    return _style(shown)


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
    return _style(pd.DataFrame({"what": list(facts), "was": [str(value) for value in facts.values()]}))


def _factors(table: pd.DataFrame) -> pd.DataFrame:
    base = table["base"].where(~table["stand_in"], table["base"] + " (stand-in)")
    return pd.DataFrame(
        {
            "base": base,
            "base from": table["base_source"],
            "profile": table["profile"],
            "allocator": table["allocator"],
        }
    )


def _with_reason(shown: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A column for why a cell has no number, where one has none."""
    return shown if table["ok"].all() else shown.assign(**{"no number, because": table["reason"]})


def _style(shown: pd.DataFrame, formats: dict[str, str] | None = None) -> Styler:
    numbers = shown.select_dtypes("number").columns
    megabytes = {name: "{:.2f}" for name in numbers if "MB" in name}
    styler = shown.style.hide().format(megabytes | (formats or {}), na_rep="", escape="html")
    words = [name for name in shown.columns if name not in numbers]
    left = [{"selector": "td, th", "props": "text-align: left"}]
    return styler.set_table_styles({name: left for name in words}, overwrite=False)
