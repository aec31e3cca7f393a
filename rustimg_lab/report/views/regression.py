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
    """Return the outcome of a check as Markdown for a pull request: the findings, then the sizes in MB (1e6 bytes), a
    row per cell. With `before`, each size has its change over that run in percent."""
    failed, unsure = (len(checked.findings_with(verdict)) for verdict in (Verdict.FAIL, Verdict.CANNOT_TELL))
    counts = [f"{failed} check{'s' * (failed != 1)} failed"] * bool(failed)
    counts += [f"{unsure} check{'s' * (unsure != 1)} cannot tell"] * bool(unsure)
    lines = [f"### Run {name}: {', '.join(counts) or 'all checks passed'}", ""]
    lines += [
        f"- **{_text(finding.cell)}**: {finding.verdict}: {_text(finding.message)}" for finding in checked.findings
    ]
    lines += [f"- note: {_text(note)}" for note in checked.notes]
    lines += [""] * bool(checked.findings or checked.notes)
    lines += ["| cell | unpacked, MB | compressed, MB | works |", "| --- | ---: | ---: | --- |"]
    table = cells.cell_table(after)
    attrs = {"stand_ins": set(table.loc[table["stand_in"], "base"])}
    ratios = {}
    if before is not None:
        ratios = regression.sizes(before, after).set_index(["cell", "metric"])["ratio"].to_dict()
    for cell in table.itertuples():
        unpacked = _with_change(cell.unpacked_bytes, ratios.get((cell.cell, metrics.UNPACKED_BYTES)))
        compressed = _with_change(
            cell.compressed_bytes, ratios.get((cell.cell, metrics.COMPRESSED_BYTES)), regression.about_in_words(cell)
        )
        status = "yes" if cell.ok else f"NO: {_text(cell.reason)}"
        lines.append(f"| {names.cell_in_words(cell.cell, attrs)} | {unpacked} | {compressed} | {status} |")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Return what a program may have printed as one line that stays one cell of a table, and is no HTML."""
    return escape(" ".join(text.split())).replace("|", "&#124;")


def _with_change(size_bytes: float, ratio: float | None, prefix: str = "") -> str:
    if pd.isna(size_bytes):
        return ""
    change = f" ({ratio - 1:+.2%})" if pd.notna(ratio) and ratio != 1 else ""
    return f"{prefix}{size_bytes / 1e6:.3f}{change}"


def changed_sizes(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return what changed in bytes between two runs, as text, a row per cell and size. Sizes are in MB (1e6 bytes);
    equal sizes are left out. `sizes` is `regression.sizes`."""
    rows = sizes[sizes["change"].ne(0)]
    columns = pd.DataFrame({"cell": comparison.names(rows), "of": rows["what"]}, rows.index)
    columns["before"] = (rows["before"] / MEGABYTE).map("{:.3f}".format)
    columns["after"] = (rows["after"] / MEGABYTE).map("{:.3f}".format)
    columns["bytes"] = rows["change"].map("{:+,.0f}".format)
    columns["change"] = (rows["ratio"] - 1).map("{:+.2%}".format)
    columns.loc[rows["ratio"].isna(), ["before", "after", "bytes", "change"]] = ""
    return columns.assign(verdict=rows["verdict"])


def changed_speeds(speeds: pd.DataFrame) -> pd.DataFrame:
    """Return the ratios between two runs of what was measured in blocks, as text, a row per cell and metric. `speeds`
    is `regression.speeds`."""
    columns = ratios_in_words(speeds).assign(verdict=speeds["verdict"])
    columns.insert(1, "of", speeds["study"] + ": " + speeds["what"])
    return columns


def comparisons_in_words(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return every comparison as text, a row per cell: ratio, intervals, minimum detectable effect, blocks, verdict.
    `comparisons` is what `comparison.compare` returns."""
    columns = ratios_in_words(comparisons)
    columns.insert(3, SIMULTANEOUS, intervals(comparisons, "low_all", "high_all"))
    return columns.assign(blocks=comparisons["pairs"].astype(str), verdict=comparisons["verdict"])


def ratios_in_words(comparisons: pd.DataFrame) -> pd.DataFrame:
    columns = pd.DataFrame({"cell": comparison.names(comparisons)}, comparisons.index)
    columns["ratio"] = comparisons["ratio"].map("{:.3f}".format).where(comparisons["ratio"].notna(), "")
    columns["95% interval"] = intervals(comparisons)
    return columns.assign(**{EFFECT: comparisons["detectable"].map(format.detectable_in_words)})
