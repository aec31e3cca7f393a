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


def off_in_words(found: pd.DataFrame) -> str:
    """How far the model is off where it was not fitted."""
    held_out, off = found.attrs["held_out"], found["error"].abs().max()
    if np.isnan(off):
        return f"Nothing was measured at {held_out} Mbit/s, which it was not fitted to: its error is not known."
    return f"At {held_out} Mbit/s, which it was not fitted to, the model is off by {off:.1%} at most."


def in_words(found: pd.DataFrame) -> str:
    """From which bandwidth on there is no difference between the two, as Markdown, with every number from `against`."""
    cell, baseline = (escape(names.cell_in_words(found.attrs[name], found.attrs)) for name in ("cell", "baseline"))
    if cell == baseline or found.empty:
        return f"There is no cell to compare with {baseline}."
    told = "; ".join(
        f"{each.bandwidth_mbit:,} Mbit/s {each.seconds:.2f} s against {each.baseline_s:.2f}, "
        f"**{each.ratio:.2f}** times ({each.low:.2f} to {each.high:.2f}, {each.verdict})"
        if each.pairs > 1
        else f"{each.bandwidth_mbit:,} Mbit/s {TOO_FEW}"
        for each in found.itertuples()
    )
    alike, noisy = (found["verdict"].eq(verdict) for verdict in (Verdict.NO_DIFFERENCE, Verdict.TOO_NOISY))
    apart = found.loc[~alike & ~noisy, "bandwidth_mbit"]
    rest = found[found["bandwidth_mbit"] > (apart.max() if len(apart) else 0)]
    if rest.empty:
        where = f"every bandwidth that was measured, up to {apart.max():,} Mbit/s"
        if len(apart) < len(found):
            where = f"{', '.join(f'{each:,}' for each in apart)} Mbit/s, with the highest that was measured"
        verdict = f"They differ at {where}: there is none yet from which on there would be "
        verdict += "**no difference detectable**."
    elif noisy[rest.index].any():
        verdict = f"From {rest['bandwidth_mbit'].min():,} Mbit/s on it was **too noisy** to tell."
    else:
        verdict = f"From {rest['bandwidth_mbit'].min():,} Mbit/s on there is **no difference detectable**."
    return f"On a machine that has nothing, {cell} takes until its first byte, against {baseline}: {told}. {verdict}"


def deploys(table: pd.DataFrame) -> Styler:
    """What was measured of deploys. `table` is `deploy.times`."""
    shown = {
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
    return style(shown, {"until the first byte, s": "{:.2f}", "pull alone, s": "{:.2f}"})


def deploy_model(found: pd.DataFrame) -> Styler:
    """The model of each cell, and how far it is off where nothing was fitted. `found` is `deploy.model`."""
    seconds = {
        "apart from the link, s": found["fixed_s"],
        "factor of the link": found["factor"],
        f"measured at {found.attrs['held_out']} Mbit/s, s": found["held_out_s"],
        "model there, s": found["predicted_s"],
    }
    shown = {"cell": comparison.names(found), "the machine has": found["has"], "pulled, MB": found["bytes"] / MEGABYTE}
    return style(shown | seconds | {"error": found["error"]}, dict.fromkeys(seconds, "{:.2f}") | {"error": "{:+.1%}"})


def stored(found: pd.DataFrame, services: list[int]) -> Styler:
    """What machines store and pull. `found` is `deploy.stored` for these numbers of services."""
    shown = pd.DataFrame({"cell": comparison.names(found)})
    for count in services:
        shown[f"on disk for {count} service{'s' * (count != 1)}, MB"] = found[f"stored_{count}"] / MEGABYTE
    shown["1,000 deploys to machines that have nothing, GB"] = found["pulled_cold"] / 1e9
    shown["1,000 to machines that have the base, GB"] = found["pulled_warm"] / 1e9
    return style(shown, {name: "{:.1f}" for name in shown if "GB" in name})
