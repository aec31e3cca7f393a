"""The contribution of each factor, in words and as tables."""

from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.model import names
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.views.style import intervals, style


def in_words(contributions: pd.DataFrame) -> str:
    """Return the contributions as a sentence in Markdown, from the start's value to the target's. `contributions` is
    `attribution.shares`."""
    metric, attrs = contributions.attrs["quantity"], contributions.attrs
    start, target = (escape(names.cell_in_words(attrs[name], attrs)) for name in ("start", "target"))
    if contributions.empty and attrs["is_named"]:
        return f"**{metric.phrase}**: start and target are the same cell, {start}, {metric.in_words(attrs['from'])}."
    if contributions.empty:
        return f"**{metric.phrase}**: none is below that of {start}, {metric.in_words(attrs['from'])}."
    parts = "; ".join(
        f"{escape(name)} {metric.signed(row.share)}"
        + ("" if pd.isna(row.low) else f" ({metric.signed(row.low)} to {metric.signed(row.high)}; {row.verdict})")
        for name, row in zip(factor_settings(contributions), contributions.itertuples(), strict=True)
    )
    first_value, last_value = metric.in_words(attrs["from"]), metric.in_words(attrs["to"])
    selection = (
        f", of {attrs['blocks']} blocks; the target is by {attrs['chosen_on']} more" if attrs["chosen_on"] else ""
    )
    return f"**{metric.phrase}**, from {first_value} ({start}) to {last_value} ({target}){selection}: {parts}."


def score_in_words(scores: pd.DataFrame) -> str:
    """Return how good the predictions are, in Markdown: the median and the largest error, and how many are inside their
    interval. `scores` is `factorials.score`."""
    if scores.empty:
        return f"No prediction can be scored here: {scores.attrs['why']}."
    return (
        f"From {scores.attrs['fitted']} cells, {len(scores)} others that were measured too: median error "
        f"**{scores['error'].abs().median():.1%}**, largest {scores['error'].abs().max():.1%}; "
        f"**{scores['inside'].mean():.0%}** of them inside their 95% prediction interval."
    )


def factor_settings(contributions: pd.DataFrame) -> list[str]:
    """Return what each factor is set to, in words, a text per row of `attribution.shares`."""
    levels = {"on": "{0}", "off": "without {0}"}
    return [levels.get(row.level, "{0}: {1}").format(row.knob, row.level) for row in contributions.itertuples()]


def shares(table: pd.DataFrame) -> Styler:
    """Show what each factor adds between two cells, a row per factor, in the unit of the metric. `table` is
    `attribution.shares`."""

    def signed(value: float) -> str:
        return table.attrs["quantity"].signed(value)

    columns = pd.DataFrame({"factor": factor_settings(table), "contribution": list(map(signed, table["share"]))})
    if table["low"].notna().any():
        columns["95% interval"] = intervals(table, number=signed)
    columns["of the whole"] = table["of_whole"]
    return style(columns.assign(verdict=table["verdict"]), {"of the whole": "{:.1%}"}, table.attrs["warning"])


def knobs(effects: pd.DataFrame) -> Styler:
    """Show the effect of each factor and of the ten strongest pairs, as ratios with 95% intervals. `effects` is
    `attribution.effects`."""
    rows = effects[(effects["order"] == 1) | (effects.groupby("order").cumcount() < 10)]
    columns = rows[["knobs", "ratio"]].rename(columns={"knobs": "factors"})
    if rows["low"].notna().any():
        columns["95% interval"] = intervals(rows)
    columns["least to most, over the others' settings"] = intervals(rows, "least", "most")
    return style(columns.assign(verdict=rows["verdict"]), {"ratio": "{:.3f}"}, effects.attrs["warning"])


def predictions(scores: pd.DataFrame) -> Styler:
    """Show the cells that were held out, as predicted and as measured, in MB (1e6 bytes). `scores` is
    `factorials.score`."""
    columns = pd.DataFrame({"cell": scores["cell"], "measured, MB": scores["measured"] / MEGABYTE})
    columns["predicted, MB"] = scores["predicted"] / MEGABYTE
    columns["95% prediction interval"] = intervals(scores, number=lambda value: f"{value / MEGABYTE:.2f}")
    columns["error"] = scores["error"]
    columns["the measured one is"] = scores["inside"].map({True: "inside", False: "OUTSIDE"})
    return style(columns, {"error": "{:+.1%}"})
