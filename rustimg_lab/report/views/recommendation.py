"""The cell that was chosen, why the others were not, and how sure that is, in words and as a table."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import recommendation
from rustimg_lab.model import metrics
from rustimg_lab.report.views.style import mark_rows, style


def evidence(choice: recommendation.Choice) -> list[str]:
    """Return lines that say what was selected, under which constraints and objective, and how sure the selection is.
    Without a selection the last line names the closest cell."""
    constraints = [
        f"{metrics.CRITERIA[name].phrase} at most {metrics.CRITERIA[name].exactly(limit)}"
        for name, limit in choice.wishes.limits.items()
    ]
    constraints += [f"at least {choice.wishes.min_throughput:.0%} of the best throughput"] * bool(
        choice.wishes.min_throughput
    )
    constraints += ["a shell"] * choice.wishes.needs_shell + ["no unstable flags"] * choice.wishes.stable
    weights = ", ".join(f"{metrics.ALL[name].phrase} x {weight:g}" for name, weight in choice.wishes.weights.items())
    lines = [f"Constraints: {'; '.join(constraints) or 'none'}. Objective: the lowest {weights}."]
    if day := choice.wishes.day:
        deploys = f"{day.deploys:,.0f} deploys to machines that lack the image, at {day.bandwidth_mbit:g} Mbit/s"
        lines.append(f"A day brings {deploys}, and {day.requests:,.0f} requests.")
    lines += [f"Note: {note}." for note in choice.notes]
    if not choice.picked:
        table = choice.table.assign(failed=choice.table["reason"].str.count(";")).sort_values(["failed", "transfer"])
        closest = f"{choice.name(table.index[0])} fails the fewest: {table['reason'].iloc[0]}"
        return [*lines, f"No cell meets all constraints. {closest}."]
    return [*lines, f"Selected: {choice.name(choice.picked)}: {facts(choice)}.", sure(choice)]


def facts(choice: recommendation.Choice) -> str:
    """Return what was measured of the selected cell, in words."""
    row = choice.table.loc[choice.picked]
    names = [name for name in metrics.ALL if name in row and not np.isnan(row[name])]
    texts = [f"{metrics.ALL[name].phrase} {metrics.ALL[name].in_words(row[name])}" for name in names]
    return ", ".join(texts + ["unstable flags"] * bool(row["unstable"]))


def sure(choice: recommendation.Choice) -> str:
    """Return how sure it is that the selected cell is the best one, in a sentence or two."""
    if choice.is_of_sizes:
        kind = ", as estimated" if choice.table["estimated"].any() else ", in which nothing is noise"
        return f"Sure: it depends on sizes alone{kind}."
    if not choice.sureness:
        return (
            "How sure that is cannot be computed: a study that it depends on has too few blocks of a cell, no A/A "
            "control, or is missing."
        )
    share = choice.sureness.get(choice.picked, 0.0)
    runners_up = {cell: chance for cell, chance in choice.sureness.items() if cell != choice.picked and chance > 0.005}
    alternatives = ", ".join(f"{choice.name(cell)} in {chance:.0%}" for cell, chance in runners_up.items())
    unmet = 1 - sum(choice.sureness.values())
    remainder = "; ".join(filter(None, [alternatives, f"none meets it in {unmet:.0%}" if unmet > 0.005 else ""]))
    word = "Sure" if share >= recommendation.SURE else "Not sure"
    picked = f"{share:.0%}{f' ({remainder})' if remainder else ''}"
    return f"{word}: with values drawn from the measured intervals it is selected in {picked}.{unmeasured(choice)}"


def of_two_programs(choice: recommendation.Choice) -> str:
    """Return a sentence that says that sizes and speeds are of two programs; "" where all facts are of one program."""
    if recommendation.TWO_PROGRAMS not in choice.notes:
        return ""
    return (
        "Sizes are those of the program's image; speeds and memory are those of its server, in another image of the "
        "same base, profile and allocator."
    )


def unmeasured(choice: recommendation.Choice) -> str:
    """Return which cells might have been selected if they had been measured, in a sentence after a space; "" for
    none."""
    names = [choice.name(cell) for cell in choice.unmeasured]
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" Not measured in all of this, so not among them: {', '.join(names[:3])}{more}."


def candidates_in_words(choice: recommendation.Choice) -> pd.DataFrame:
    """Return the cells to choose from as text, the best first: a row per cell, with a column per measured criterion,
    and the verdict."""
    table = choice.table.sort_values(["score", "transfer"])
    best = table[metrics.REQUESTS_PER_S].max()
    marks = table["unstable"].map({True: " (unstable flags)", False: ""})
    frame = pd.DataFrame({"cell": [choice.name(cell) + marks[cell] for cell in table.index]})
    for name, criterion in metrics.ALL.items():
        if name in table and table[name].notna().any():
            frame[criterion.phrase] = list(map(criterion.in_words, table[name]))
    if pd.notna(best):
        rates = table[metrics.REQUESTS_PER_S]
        frame["of the best throughput"] = ["not measured" if pd.isna(rate) else f"{rate / best:.0%}" for rate in rates]
    fronts = zip(table["on_front"], table["front_share"], strict=True)
    frame["Pareto front"] = ["" if not on else "yes" if pd.isna(rate) else f"yes ({rate:.0%})" for on, rate in fronts]
    frame["verdict"] = ["SELECTED" if cell == choice.picked else table.loc[cell, "reason"] for cell in table.index]
    return frame


def candidates(choice: recommendation.Choice) -> Styler:
    """Show the cells to choose from, with the columns of `candidates_in_words`. Rows on the Pareto front are marked."""
    table = choice.table.sort_values(["score", "transfer"])
    return mark_rows(
        style(candidates_in_words(choice), warning="; ".join(choice.notes)), table["on_front"].astype(bool)
    )
