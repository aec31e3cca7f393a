"""What changed between two runs, as tables and as Markdown for a pull request."""

from html import escape

import pandas as pd

from rustimg_lab.analysis import cells, comparison, regression
from rustimg_lab.model import metrics, names
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.report import format
from rustimg_lab.report.format import MEGABYTE
from rustimg_lab.report.views.style import EFFECT, SIMULTANEOUS, intervals
from rustimg_lab.store.runs import RunData


def markdown(name: str, after: RunData, checked: regression.Checked, before: RunData | None = None) -> str:
    """The outcome for a pull request: the findings, and every cell's sizes with their change over the other run's."""
    failed, unsure = (len(checked.of(verdict)) for verdict in (Verdict.FAIL, Verdict.CANNOT_TELL))
    counts = [f"{failed} check{'s' * (failed != 1)} failed"] * bool(failed)
    counts += [f"{unsure} check{'s' * (unsure != 1)} cannot tell"] * bool(unsure)
    lines = [f"### Run {name}: {', '.join(counts) or 'all checks passed'}", ""]
    lines += [f"- **{_text(each.cell)}**: {each.verdict}: {_text(each.what)}" for each in checked.findings]
    lines += [f"- note: {_text(note)}" for note in checked.notes]
    lines += [""] * bool(checked.findings or checked.notes)
    lines += ["| cell | unpacked, MB | compressed, MB | works |", "| --- | ---: | ---: | --- |"]
    table = cells.cell_table(after)
    attrs = {"stand_ins": set(table.loc[table["stand_in"], "base"])}
    was = {}
    if before is not None:
        was = regression.sizes(before, after).set_index(["cell", "metric"])["ratio"].to_dict()
    for cell in table.itertuples():
        unpacked = _with_change(cell.unpacked_bytes, was.get((cell.cell, metrics.UNPACKED_BYTES)))
        compressed = _with_change(
            cell.compressed_bytes, was.get((cell.cell, metrics.COMPRESSED_BYTES)), regression.about_in_words(cell)
        )
        works = "yes" if cell.ok else f"NO: {_text(cell.reason)}"
        lines.append(f"| {names.cell_in_words(cell.cell, attrs)} | {unpacked} | {compressed} | {works} |")
    return "\n".join(lines) + "\n"


def _text(said: str) -> str:
    """What a program may have printed, so that it stays one cell of a table and one line, and is no HTML."""
    return escape(" ".join(said.split())).replace("|", "&#124;")


def _with_change(size_bytes: float, ratio: float | None, about: str = "") -> str:
    if pd.isna(size_bytes):
        return ""
    change = f" ({ratio - 1:+.2%})" if pd.notna(ratio) and ratio != 1 else ""
    return f"{about}{size_bytes / 1e6:.3f}{change}"


def changed_sizes(found: pd.DataFrame) -> pd.DataFrame:
    """What changed in bytes between two runs, all as text; equal sizes are left out. `found` is `regression.sizes`."""
    own = found[found["change"].ne(0)]
    shown = pd.DataFrame({"cell": comparison.names(own), "of": own["what"]}, own.index)
    shown["before"] = (own["before"] / MEGABYTE).map("{:.3f}".format)
    shown["after"] = (own["after"] / MEGABYTE).map("{:.3f}".format)
    shown["bytes"] = own["change"].map("{:+,.0f}".format)
    shown["change"] = (own["ratio"] - 1).map("{:+.2%}".format)
    shown.loc[own["ratio"].isna(), ["before", "after", "bytes", "change"]] = ""
    return shown.assign(verdict=own["verdict"])


def changed_speeds(found: pd.DataFrame) -> pd.DataFrame:
    """The same of what was measured in blocks. `found` is `regression.speeds`."""
    shown = ratios_in_words(found).assign(verdict=found["verdict"])
    shown.insert(1, "of", found["study"] + ": " + found["what"])
    return shown


def comparisons_in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Every comparison, all as text, a row per cell. `found` is what `comparison.compare` returns."""
    shown = ratios_in_words(found)
    shown.insert(3, SIMULTANEOUS, intervals(found, "low_all", "high_all"))
    return shown.assign(blocks=found["pairs"].astype(str), verdict=found["verdict"])


def ratios_in_words(found: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"cell": comparison.names(found)}, found.index)
    shown["ratio"] = found["ratio"].map("{:.3f}".format).where(found["ratio"].notna(), "")
    shown["95% interval"] = intervals(found)
    return shown.assign(**{EFFECT: found["detectable"].map(format.detectable_in_words)})
