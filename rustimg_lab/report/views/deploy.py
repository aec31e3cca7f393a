"""Deploys, in words and as tables."""

from html import escape

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison
from rustimg_lab.model import metrics, names
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.report.format import MEGABYTE, TOO_FEW
from rustimg_lab.report.views.style import intervals, style


def error_in_words(model: pd.DataFrame) -> str:
    """Return how far the model is off at the bandwidth that it was not fitted to, in a sentence. `model` is
    `deploy.model`."""
    held_out, error = model.attrs["held_out"], model["error"].abs().max()
    if np.isnan(error):
        return f"Nothing was measured at {held_out} Mbit/s, which it was not fitted to: its error is not known."
    return f"At {held_out} Mbit/s, which it was not fitted to, the model is off by {error:.1%} at most."


def in_words(ratios: pd.DataFrame) -> str:
    """Return from which bandwidth on two cells do not differ, as Markdown, with the seconds at each bandwidth. `ratios`
    is `deploy.against`."""
    cell, baseline = (escape(names.cell_in_words(ratios.attrs[name], ratios.attrs)) for name in ("cell", "baseline"))
    if cell == baseline or ratios.empty:
        return f"There is no cell to compare with {baseline}."
    times = "; ".join(
        f"{row.bandwidth_mbit:,} Mbit/s {row.seconds:.2f} s against {row.baseline_s:.2f}, "
        f"**{row.ratio:.2f}** times ({row.low:.2f} to {row.high:.2f}, {row.verdict})"
        if row.pairs > 1
        else f"{row.bandwidth_mbit:,} Mbit/s {TOO_FEW}"
        for row in ratios.itertuples()
    )
    is_alike, is_noisy = (ratios["verdict"].eq(verdict) for verdict in (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY))
    apart = ratios.loc[~is_alike & ~is_noisy, "bandwidth_mbit"]
    higher_rows = ratios[ratios["bandwidth_mbit"] > (apart.max() if len(apart) else 0)]
    if higher_rows.empty:
        bandwidths = f"every bandwidth that was measured, up to {apart.max():,} Mbit/s"
        if len(apart) < len(ratios):
            bandwidths = f"{', '.join(f'{mbit:,}' for mbit in apart)} Mbit/s, with the highest that was measured"
        verdict = f"They differ at {bandwidths}: there is none yet from which on there would be "
        verdict += "**no difference detectable**."
    elif is_noisy[higher_rows.index].any():
        verdict = f"From {higher_rows['bandwidth_mbit'].min():,} Mbit/s on it was **too noisy** to tell."
    else:
        verdict = f"From {higher_rows['bandwidth_mbit'].min():,} Mbit/s on there is **no difference detectable**."
    return f"On a machine that has nothing, {cell} takes until its first byte, against {baseline}: {times}. {verdict}"


def deploys(table: pd.DataFrame) -> Styler:
    """Show what was measured of deploys: a row per cell, what the machine had, and bandwidth. `table` is
    `deploy.times`."""
    columns = {
        "cell": comparison.names(table),
        "the machine has": table["has"],
        "Mbit/s": table["bandwidth_mbit"],
        "until the first byte, s": table["seconds"],
        "95% interval": intervals(table, number="{:.2f}".format),
        "pull alone, s": table[metrics.PULL_S],
        "pulled, MB": table[metrics.PULLED_BYTES] / MEGABYTE,
        "the manifest's, MB": table[metrics.MANIFEST_BYTES] / MEGABYTE,
        "trials": table["trials"],
    }
    return style(columns, {"until the first byte, s": "{:.2f}", "pull alone, s": "{:.2f}"})


def deploy_model(model: pd.DataFrame) -> Styler:
    """Show the model of each cell and its error at the bandwidth that was held out: a row per cell and what the machine
    had. `model` is `deploy.model`."""
    seconds = {
        "apart from the link, s": model["fixed_s"],
        "factor of the link": model["factor"],
        f"measured at {model.attrs['held_out']} Mbit/s, s": model["held_out_s"],
        "model there, s": model["predicted_s"],
    }
    facts = {"cell": comparison.names(model), "the machine has": model["has"], "pulled, MB": model["bytes"] / MEGABYTE}
    return style(facts | seconds | {"error": model["error"]}, dict.fromkeys(seconds, "{:.2f}") | {"error": "{:+.1%}"})


def stored(totals: pd.DataFrame, services: list[int]) -> Styler:
    """Show the bytes that machines store (MB) and pull in 1,000 deploys (GB), a row per cell. `totals` is
    `deploy.stored_bytes` for these numbers of services."""
    columns = pd.DataFrame({"cell": comparison.names(totals)})
    for count in services:
        columns[f"on disk for {count} service{'s' * (count != 1)}, MB"] = totals[f"stored_{count}"] / MEGABYTE
    columns["1,000 deploys to machines that have nothing, GB"] = totals["pulled_cold"] / 1e9
    columns["1,000 to machines that have the base, GB"] = totals["pulled_warm"] / 1e9
    return style(columns, {name: "{:.1f}" for name in columns if "GB" in name})
