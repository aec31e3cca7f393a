"""What several machines have in common, in words and as tables."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.machines import ALL, ANOTHER, MACHINE
from rustimg_lab.report.views.style import intervals, mark_rows, style

_FEW = "With two machines nothing follows for a third"  # which the interval alone would not say as clearly


def sessions(table: pd.DataFrame) -> Styler:
    """Show the ratio of each cell in each run with its 95% interval, a row per run and cell. `table` is what
    `machines.sessions` returns."""
    columns = {
        "cell": comparison.names(table),
        **table[["machine", "run", "ratio"]],
        "95% interval": intervals(table),
        "blocks": table["pairs"],
    }
    return style(columns, {"ratio": "{:.3f}"}, table.attrs["warning"])


def ratios(table: pd.DataFrame) -> Styler:
    """Show the ratios of each cell: on each machine, on all machines combined, and predicted for another machine.
    `table` is what `machines.combine` returns."""
    columns = {
        "cell": comparison.names(table),
        "machine": places(table),
        "sessions": table["sessions"],
        "ratio": table["ratio"].where(table["level"] != ANOTHER),
        "95% interval": intervals(table, number=end),
        "tau": table["tau"],
        "between sessions": table["session_sd"],
        "I²": table["i_squared"],
    }
    formats = {"ratio": "{:.3f}", "tau": "{:.3f}", "between sessions": "{:.3f}", "I²": "{:.1%}"}
    styled = style(pd.DataFrame(columns).dropna(axis=1, how="all"), formats, table.attrs["warning"])
    return mark_rows(styled, table["level"] != MACHINE)


def end(value: float) -> str:
    """Return the end of an interval of ratios with three significant digits, or that it is under 0.001 or over 1,000.
    An interval from two machines may be of any width."""
    return "under 0.001" if value < 0.001 else "over 1,000" if value > 1000 else f"{value:.3g}"


def places(table: pd.DataFrame) -> list[str]:
    """Return in words what each row of `machines.combine` is of: a machine, all machines combined, or another
    machine."""
    phrases = {ALL: "{} machines combined", ANOTHER: "another machine, predicted"}
    return [phrases.get(row.level, row.machine).format(row.machines) for row in table.itertuples()]


def in_words(table: pd.DataFrame) -> str:
    """Return for each cell its ratios, how far the machines differ, and what follows for another machine, as a Markdown
    list. `table` is what `machines.combine` returns."""
    phrase, baseline = table.attrs["metric"].phrase, table.attrs["baseline"]
    sentences = []
    for cell, cell_rows in table.groupby("cell", sort=False):
        by_level = {level: rows for level, rows in cell_rows.groupby("level")}
        of_all, another = by_level[ALL].iloc[0], by_level[ANOTHER].iloc[0]
        numbers = ", ".join(f"{row.ratio:.2f} on {row.machine}" for row in by_level[MACHINE].itertuples())
        ends = intervals(by_level[ANOTHER], number=end)[0]
        follows = f"A machine that was not measured has a ratio of {ends} (95% prediction interval)"
        if another.machines == 2:
            follows = f"{_FEW} (95% prediction interval {ends})"
        elif another.models == 1:
            follows += ". All have one CPU model, so nothing follows for another"
        elif another.low < 1 < another.high:
            follows += ", so it is not known which of the two is better there"
        sentences.append(
            f"**{cell}**, as a ratio to {baseline} in {phrase}: {numbers}. Combined: {of_all.ratio:.2f} (95% interval "
            f"{intervals(by_level[ALL], number=end)[0]}). Between machines: tau {of_all.tau:.2f}, I² "
            f"{of_all.i_squared:.1%}. {follows}."
        )
    return "\n".join(f"- {line}" for line in sentences)
