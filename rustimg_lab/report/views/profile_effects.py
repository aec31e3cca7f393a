"""What a build profile changes, in words and as a table."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import cells
from rustimg_lab.report.views.style import style


def in_words(table: pd.DataFrame) -> str:
    """Return where each profile gains and where it loses against the reference profile, as a Markdown list. `table` is
    `profile_effects.of_profiles`."""
    lines = []
    for profile, profile_rows in table.groupby("profile", sort=False):
        parts = []
        for criterion, rows in profile_rows.groupby("criterion", sort=False):
            low, high = rows["ratio"].min(), rows["ratio"].max()
            times = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
            counts = rows["verdict"].value_counts()
            verdicts = [f"{name} in {n} of {len(rows)}" if n < len(rows) else name for name, n in counts.items()]
            parts.append(f"{criterion} {times} times ({', '.join(verdicts)})")
        pairs = profile_rows.groupby(["base", "allocator"]).ngroups
        lines.append(f"- **{profile}** beside {table.attrs['reference']}, {pairs} pairs of cells: {'; '.join(parts)}.")
    return "\n".join(lines)


def effects(table: pd.DataFrame) -> Styler:
    """Show what each profile changes, as ratios to the reference's cell: a row per profile, base and allocator, a
    column per criterion. `table` is `profile_effects.of_profiles`."""
    texts = [
        f"{ratio:.2f} {verdict}" if pd.isna(low) else f"{ratio:.2f} ({low:.2f} to {high:.2f}) {verdict}"
        for ratio, low, high, verdict in table[["ratio", "low", "high", "verdict"]].itertuples(index=False)
    ]
    rows = table.assign(base=cells.bases_in_words(table), said=texts)
    wide = rows.pivot_table("said", ["profile", "base", "allocator"], "criterion", "first", sort=False)
    return style(wide.reset_index(), warning="; ".join(table.attrs["notes"]))
