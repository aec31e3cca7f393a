"""The contribution of each factor, in words and as tables."""

from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.model import names
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.views.style import intervals, style


def in_words(found: pd.DataFrame) -> str:
    """The contributions as a sentence, Markdown, with every number from `shares`."""
    about, of_all = found.attrs["quantity"], found.attrs
    start, target = (escape(names.cell_in_words(of_all[name], of_all)) for name in ("start", "target"))
    if found.empty and of_all["is_named"]:
        return f"**{about.phrase}**: start and target are the same cell, {start}, {about.in_words(of_all['from'])}."
    if found.empty:
        return f"**{about.phrase}**: none is below that of {start}, {about.in_words(of_all['from'])}."
    told = "; ".join(
        f"{escape(name)} {about.signed(each.share)}"
        + ("" if pd.isna(each.low) else f" ({about.signed(each.low)} to {about.signed(each.high)}; {each.verdict})")
        for name, each in zip(turned(found), found.itertuples(), strict=True)
    )
    first, last = about.in_words(of_all["from"]), about.in_words(of_all["to"])
    chosen = (
        f", of {of_all['blocks']} blocks; the target is by {of_all['chosen_on']} more" if of_all["chosen_on"] else ""
    )
    return f"**{about.phrase}**, from {first} ({start}) to {last} ({target}){chosen}: {told}."


def score_in_words(found: pd.DataFrame) -> str:
    """How good the predictions are, as Markdown, with every number from `score`."""
    if found.empty:
        return f"No prediction can be scored here: {found.attrs['why']}."
    return (
        f"From {found.attrs['fitted']} cells, {len(found)} others that were measured too: median error "
        f"**{found['error'].abs().median():.1%}**, largest {found['error'].abs().max():.1%}; "
        f"**{found['inside'].mean():.0%}** of them inside their 95% prediction interval."
    )


def turned(found: pd.DataFrame) -> list[str]:
    """What each factor of `shares` is set to, as a reader sees it."""
    levels = {"on": "{0}", "off": "without {0}"}
    return [levels.get(each.level, "{0}: {1}").format(each.knob, each.level) for each in found.itertuples()]


def shares(found: pd.DataFrame) -> Styler:
    """What each factor adds between two cells. `found` is `attribution.shares`."""

    def signed(value: float) -> str:
        return found.attrs["quantity"].signed(value)

    shown = pd.DataFrame({"factor": turned(found), "contribution": list(map(signed, found["share"]))})
    if found["low"].notna().any():
        shown["95% interval"] = intervals(found, number=signed)
    shown["of the whole"] = found["of_whole"]
    return style(shown.assign(verdict=found["verdict"]), {"of the whole": "{:.1%}"}, found.attrs["warning"])


def knobs(found: pd.DataFrame) -> Styler:
    """The effect of each factor and of the ten strongest pairs. `found` is `attribution.effects`."""
    kept = found[(found["order"] == 1) | (found.groupby("order").cumcount() < 10)]
    shown = kept[["knobs", "ratio"]].rename(columns={"knobs": "factors"})
    if kept["low"].notna().any():
        shown["95% interval"] = intervals(kept)
    shown["least to most, over the others' settings"] = intervals(kept, "least", "most")
    return style(shown.assign(verdict=kept["verdict"]), {"ratio": "{:.3f}"}, found.attrs["warning"])


def predictions(found: pd.DataFrame) -> Styler:
    """Cells that were held out, as predicted and as measured. `found` is `factorials.score`."""
    shown = pd.DataFrame({"cell": found["cell"], "measured, MB": found["measured"] / MEGABYTE})
    shown["predicted, MB"] = found["predicted"] / MEGABYTE
    shown["95% prediction interval"] = intervals(found, number=lambda value: f"{value / MEGABYTE:.2f}")
    shown["error"] = found["error"]
    shown["the measured one is"] = found["inside"].map({True: "inside", False: "OUTSIDE"})
    return style(shown, {"error": "{:+.1%}"})
