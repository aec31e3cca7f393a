"""The cell that was chosen, why the others were not, and how sure that is, in words and as a table."""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from rustimg_lab.analysis import recommendation
from rustimg_lab.model import metrics
from rustimg_lab.report.views.style import marked, style


def evidence(found: recommendation.Choice) -> list[str]:
    """What was selected, by what objective, and how sure that is, in lines."""
    wanted = [
        f"{metrics.CRITERIA[name].phrase} at most {metrics.CRITERIA[name].exactly(limit)}"
        for name, limit in found.wishes.limits.items()
    ]
    wanted += [f"at least {found.wishes.min_throughput:.0%} of the best throughput"] * bool(found.wishes.min_throughput)
    wanted += ["a shell"] * found.wishes.needs_shell + ["no unstable flags"] * found.wishes.stable
    weights = ", ".join(f"{metrics.ALL[name].phrase} x {weight:g}" for name, weight in found.wishes.weights.items())
    said = [f"Constraints: {'; '.join(wanted) or 'none'}. Objective: the lowest {weights}."]
    if day := found.wishes.day:
        deploys = f"{day.deploys:,.0f} deploys to machines that lack the image, at {day.bandwidth_mbit:g} Mbit/s"
        said.append(f"A day brings {deploys}, and {day.requests:,.0f} requests.")
    said += [f"Note: {note}." for note in found.notes]
    if not found.picked:
        table = found.table.assign(failed=found.table["reason"].str.count(";")).sort_values(["failed", "transfer"])
        first = f"{found.name(table.index[0])} fails the fewest: {table['reason'].iloc[0]}"
        return [*said, f"No cell meets all constraints. {first}."]
    return [*said, f"Selected: {found.name(found.picked)}: {facts(found)}.", sure(found)]


def facts(found: recommendation.Choice) -> str:
    """What was measured of the selected cell."""
    one = found.table.loc[found.picked]
    known = [name for name in metrics.ALL if name in one and not np.isnan(one[name])]
    said = [f"{metrics.ALL[name].phrase} {metrics.ALL[name].in_words(one[name])}" for name in known]
    return ", ".join(said + ["unstable flags"] * bool(one["unstable"]))


def sure(found: recommendation.Choice) -> str:
    """How sure it is that the selected cell is the best one, in a sentence."""
    if found.is_of_sizes:
        kind = ", as estimated" if found.table["estimated"].any() else ", in which nothing is noise"
        return f"Sure: it depends on sizes alone{kind}."
    if not found.sureness:
        return (
            "How sure that is cannot be computed: a study that it depends on has too few blocks of a cell, no A/A "
            "control, or is missing."
        )
    share = found.sureness.get(found.picked, 0.0)
    seldom = {cell: own for cell, own in found.sureness.items() if cell != found.picked and own > 0.005}
    others = ", ".join(f"{found.name(cell)} in {own:.0%}" for cell, own in seldom.items())
    none = 1 - sum(found.sureness.values())
    rest = "; ".join(filter(None, [others, f"none meets it in {none:.0%}" if none > 0.005 else ""]))
    word = "Sure" if share >= recommendation.SURE else "Not sure"
    picked = f"{share:.0%}{f' ({rest})' if rest else ''}"
    return f"{word}: with values drawn from the measured intervals it is selected in {picked}.{unmeasured(found)}"


def of_two_programs(found: recommendation.Choice) -> str:
    """What a reader must know of facts that are of two programs, in a sentence; "" where all are of one."""
    if recommendation.TWO_PROGRAMS not in found.notes:
        return ""
    return (
        "Sizes are those of the program's image; speeds and memory are those of its server, in another image of the "
        "same base, profile and allocator."
    )


def unmeasured(found: recommendation.Choice) -> str:
    """Which cells might have been selected, had they been measured, in a sentence after a space; "" for none."""
    named = [found.name(cell) for cell in found.unmeasured]
    if not named:
        return ""
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f" Not measured in all of this, so not among them: {', '.join(named[:3])}{more}."


def candidates_in_words(found: recommendation.Choice) -> pd.DataFrame:
    """What was to choose from, the best first, all as text: a row per cell with its verdict."""
    table = found.table.sort_values(["score", "transfer"])
    best = table[metrics.REQUESTS_PER_S].max()
    marks = table["unstable"].map({True: " (unstable flags)", False: ""})
    shown = pd.DataFrame({"cell": [found.name(cell) + marks[cell] for cell in table.index]})
    for name, criterion in metrics.ALL.items():
        if name in table and table[name].notna().any():
            shown[criterion.phrase] = list(map(criterion.in_words, table[name]))
    if pd.notna(best):
        rates = table[metrics.REQUESTS_PER_S]
        shown["of the best throughput"] = ["not measured" if pd.isna(rate) else f"{rate / best:.0%}" for rate in rates]
    fronts = zip(table["on_front"], table["front_share"], strict=True)
    shown["Pareto front"] = ["" if not on else "yes" if pd.isna(how) else f"yes ({how:.0%})" for on, how in fronts]
    shown["verdict"] = ["SELECTED" if cell == found.picked else table.loc[cell, "reason"] for cell in table.index]
    return shown


def candidates(found: recommendation.Choice) -> Styler:
    """The same as a table of a report."""
    table = found.table.sort_values(["score", "transfer"])
    return marked(style(candidates_in_words(found), warning="; ".join(found.notes)), table["on_front"].astype(bool))
