"""What several machines have in common, in words and as tables."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.machines import ALL, ANOTHER, MACHINE
from rustimg_lab.report.views.style import intervals, marked, style

_FEW = "With two machines nothing follows for a third"  # which the interval alone would not say as clearly


def sessions(found: pd.DataFrame) -> Styler:
    """Show what each machine has measured in each run. `found` is what `machines.sessions` returns."""
    shown = {
        "cell": comparison.names(found),
        **found[["machine", "run", "ratio"]],
        "95% interval": intervals(found),
        "blocks": found["pairs"],
    }
    return style(shown, {"ratio": "{:.3f}"}, found.attrs["warning"])


def ratios(found: pd.DataFrame) -> Styler:
    """Show the ratios of each machine, of all, and of another one. `found` is what `machines.combine` returns."""
    shown = {
        "cell": comparison.names(found),
        "machine": places(found),
        "sessions": found["sessions"],
        "ratio": found["ratio"].where(found["level"] != ANOTHER),
        "95% interval": intervals(found, number=end),
        "tau": found["tau"],
        "between sessions": found["session_sd"],
        "I²": found["i_squared"],
    }
    formats = {"ratio": "{:.3f}", "tau": "{:.3f}", "between sessions": "{:.3f}", "I²": "{:.1%}"}
    styled = style(pd.DataFrame(shown).dropna(axis=1, how="all"), formats, found.attrs["warning"])
    return marked(styled, found["level"] != MACHINE)


def end(value: float) -> str:
    """Return the end of an interval of ratios with three digits. An interval from two machines may be of any width."""
    return "under 0.001" if value < 0.001 else "over 1,000" if value > 1000 else f"{value:.3g}"


def places(found: pd.DataFrame) -> list[str]:
    """Return what each row of `machines.combine` is of, in words."""
    told = {ALL: "{} machines combined", ANOTHER: "another machine, predicted"}
    return [told.get(each.level, each.machine).format(each.machines) for each in found.itertuples()]


def in_words(found: pd.DataFrame) -> str:
    """Tell each cell's ratios, how far machines differ, and what follows for another one, as a Markdown list."""
    about, baseline = found.attrs["metric"].phrase, found.attrs["baseline"]
    said = []
    for cell, own in found.groupby("cell", sort=False):
        by = {level: rows for level, rows in own.groupby("level")}
        of_all, another = by[ALL].iloc[0], by[ANOTHER].iloc[0]
        each = ", ".join(f"{row.ratio:.2f} on {row.machine}" for row in by[MACHINE].itertuples())
        ends = intervals(by[ANOTHER], number=end)[0]
        follows = f"A machine that was not measured has a ratio of {ends} (95% prediction interval)"
        if another.machines == 2:
            follows = f"{_FEW} (95% prediction interval {ends})"
        elif another.models == 1:
            follows += ". All have one CPU model, so nothing follows for another"
        elif another.low < 1 < another.high:
            follows += ", so it is not known which of the two is better there"
        said.append(
            f"**{cell}**, as a ratio to {baseline} in {about}: {each}. Combined: {of_all.ratio:.2f} (95% interval "
            f"{intervals(by[ALL], number=end)[0]}). Between machines: tau {of_all.tau:.2f}, I² "
            f"{of_all.i_squared:.1%}. {follows}."
        )
    return "\n".join(f"- {line}" for line in said)
