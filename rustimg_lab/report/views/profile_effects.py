"""What a build profile changes, in words and as a table."""

import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import cells
from rustimg_lab.report.views.style import style


def in_words(found: pd.DataFrame) -> str:
    """Where each profile gains and where it loses, as a Markdown list with every number from `of_profiles`."""
    said = []
    for profile, own in found.groupby("profile", sort=False):
        told = []
        for criterion, each in own.groupby("criterion", sort=False):
            low, high = each["ratio"].min(), each["ratio"].max()
            times = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
            counts = each["verdict"].value_counts()
            verdicts = [f"{name} in {n} of {len(each)}" if n < len(each) else name for name, n in counts.items()]
            told.append(f"{criterion} {times} times ({', '.join(verdicts)})")
        pairs = own.groupby(["base", "allocator"]).ngroups
        said.append(f"- **{profile}** beside {found.attrs['reference']}, {pairs} pairs of cells: {'; '.join(told)}.")
    return "\n".join(said)


def effects(found: pd.DataFrame) -> Styler:
    """What each profile changes, as ratios to the reference's cell. `found` is `profile_effects.of_profiles`."""
    said = [
        f"{ratio:.2f} {verdict}" if pd.isna(low) else f"{ratio:.2f} ({low:.2f} to {high:.2f}) {verdict}"
        for ratio, low, high, verdict in found[["ratio", "low", "high", "verdict"]].itertuples(index=False)
    ]
    shown = found.assign(base=cells.bases_in_words(found), said=said)
    wide = shown.pivot_table("said", ["profile", "base", "allocator"], "criterion", "first", sort=False)
    return style(wide.reset_index(), warning="; ".join(found.attrs["notes"]))
