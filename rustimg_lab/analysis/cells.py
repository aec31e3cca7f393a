"""Rows of a run -> one row per cell, and per layer, section or package. Needs no engine."""

from contextlib import suppress
from typing import NamedTuple

import pandas as pd

from rustimg_lab.errors import LabError, check_known
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.bases import all_bases
from rustimg_lab.model.matrix import OWN
from rustimg_lab.model.names import MARK, SUBSTITUTE, additions_of
from rustimg_lab.model.profiles import PUBLISHED
from rustimg_lab.paths import ARTICLE, RECORDED_RUN
from rustimg_lab.store.rows import NOT_STARTED, NOTE
from rustimg_lab.store.runs import RunData, newest_rows

_FACTORS = ["cell", "architecture", "base", "profile", "allocator", "image"]
# What a note begins with of a cell that was made of something else than the others.
OTHERS = {metrics.SOURCES: "built of other sources", metrics.SETTINGS: "built with other settings of lab.toml"}
ARTICLES_APP = "myip"  # of which the article has figures
# What a command that adds to a run is called with.
OPTIONS_OF_A_RUN = "the run's --bases, --profiles and --allocators, and --app if it is of an own one"


def article() -> pd.DataFrame:
    """Return the article's two tables: columns base, profile, size_bytes (the article's MB taken as 1e6 bytes)."""
    return pd.read_csv(ARTICLE, comment="#")


def app_name(run: RunData) -> str:
    """Return the name of the app that a run is of (default: `myip`)."""
    return run.environment.app.get("name", ARTICLES_APP)


def bases_in_words(table: pd.DataFrame) -> pd.Series:
    """Return the base of each row as a reader sees it: a substitute is marked. `table` is what `cell_table` returns."""
    return table["base"].where(~table["stand_in"], table["base"] + SUBSTITUTE)


def allocators_in_words(table: pd.DataFrame) -> pd.Series:
    """Return the allocator of each row as a reader sees it. The crate's own allocator is followed by the one that was
    detected in the program, since that may depend on the target."""
    allocators = table[metrics.LINKED_ALLOCATOR].astype(object).fillna("")
    return table["allocator"].where(~table["allocator"].eq(OWN) | allocators.eq(""), f"{OWN} (" + allocators + ")")


def working_cells(run: RunData, purpose: str) -> pd.DataFrame:
    """Return the rows of `cell_table` for the cells that work, by cell. Raises LabError when no cell works. The message
    has `purpose`, such as "choose from"."""
    table = some_cells(run, purpose)
    rows = table.query("ok").set_index("cell")
    if rows.empty:
        cell, reason = table[["cell", "reason"]].iloc[0]
        raise LabError(f"run '{run.name}' has no cell that works: nothing to {purpose}; {cell}: {reason}")
    return rows


def some_cells(run: RunData, purpose: str) -> pd.DataFrame:
    """Return `cell_table`. Raises LabError, with what makes cells, when the run has none."""
    table = cell_table(run)
    if table.empty:
        makes = f"`./lab run --run {run.name}` makes them, with {OPTIONS_OF_A_RUN}"
        remedy = "" if run.name.startswith(RECORDED_RUN) else f"; {makes}"
        raise LabError(f"run '{run.name}' has no sizes and checks of cells: nothing to {purpose}{remedy}")
    return table


def cell_table(run: RunData) -> pd.DataFrame:
    """Return one row per cell: factors, a column per metric (sizes in bytes), the base's provenance, the article's
    figure. Also `ok`, `reason`, `note` (what a reader must know of the cell), and `compressed_with`: how
    `compressed_bytes` came about ("" without one).

    `run` is what `runs.load` returns. A cell whose image was not built, or failed its check, has no sizes (NaN). They
    would be sizes of something that does not work. `reason` says why."""
    newest = newest_rows(run)
    factors = newest[_FACTORS].drop_duplicates("cell").set_index("cell")
    single = newest[newest["metric"].isin(metrics.SINGLE)].drop_duplicates(["cell", "metric"], keep="last")
    wide = single[single["ok"]].pivot(index="cell", columns="metric", values="value")
    wide = wide.reindex(index=factors.index, columns=wide.columns.union(metrics.OF_CELLS))
    reasons = newest[~newest["ok"]].groupby("cell")["reason"].agg("; ".join)

    table, reasons = factors.join(wide), reasons.reindex(factors.index).fillna("")
    table["reason"] = reasons
    table["ok"] = table["runs"].isin([True, NOT_STARTED]) & wide[metrics.UNPACKED_BYTES].notna() & reasons.eq("")
    table.loc[~table["ok"] & table["reason"].eq(""), "reason"] = "not measured to the end; call `./lab run` again"
    notes = single[single["detail"].str.startswith(NOTE)].groupby("cell")["detail"]
    cell_notes = notes.agg(lambda texts: "; ".join(text.removeprefix(NOTE).partition(";")[0] for text in texts))
    notes = cell_notes.reindex(table.index).fillna("").astype(str)
    table["note"] = notes.str.cat(_cell_notes(newest, table.index), sep="; ").str.strip("; ")
    sizes = [column for column in table.columns if column.endswith("_bytes")]
    table[sizes] = table[sizes].apply(pd.to_numeric).where(table["ok"])

    # Before this was computed from the layers, it was what the engine pushed, which differs from engine to engine.
    engine = run.environment.machine.get("engine", "of an unknown version")
    compressed = single[single["metric"] == metrics.COMPRESSED_BYTES].set_index("cell")["detail"]
    compressed = compressed.where(compressed != "", f"gzip, as pushed by Docker Engine {engine}")
    table["compressed_with"] = compressed.reindex(table.index).where(table[metrics.COMPRESSED_BYTES].notna()).fillna("")

    images = run.environment.images
    digests = table[metrics.BASE_DIGEST].astype(object).fillna("")
    bases = [(base, images.get(digest)) for base, digest in zip(table["base"], digests, strict=True)]
    labels = {name: base.label for name, base in all_bases().items()}
    sources = {name: "empty" for name, base in all_bases().items() if not base.image}
    table["base_label"] = [image["label"] if image else labels.get(base, base) for base, image in bases]
    table["base_source"] = [image["source"] if image else sources.get(base, "not recorded") for base, image in bases]
    table["stand_in"] = [image["stand_in"] if image else False for _, image in bases]
    figures = article().set_index(["base", "profile"])["size_bytes"]
    if app_name(run) != ARTICLES_APP:
        figures = figures.iloc[:0]
    table["article_bytes"] = figures.reindex(pd.MultiIndex.from_frame(table[["base", "profile"]])).to_numpy()
    return _sort_cells(table).reset_index()


def _cell_notes(newest: pd.DataFrame, names: pd.Index) -> list[str]:
    """Return the note on each of the cells: its additions, and whether it differs from the cell that was built last in
    what `OTHERS` names. `newest` is `runs.newest_rows`."""
    notes = {name: f"with {', '.join(additions)}" if (additions := additions_of(name)) else "" for name in names}
    for phrase, (last_cell, differing_cells) in built_otherwise(newest, names).items():
        for name in differing_cells:
            notes[name] += f"; {phrase} than {last_cell}: `./lab run` with all cells builds it anew"
    return list(notes.values())


def built_otherwise(newest: pd.DataFrame, names: pd.Index) -> dict[str, tuple[str, list[str]]]:
    """Return by each phrase of `OTHERS` the cell that was built last and the list of those of `names` that were built
    of something else. `newest` is `runs.newest_rows`; rows of older labs do not tell."""
    groups = {}
    for metric, phrase in OTHERS.items():
        digests = newest[newest["metric"] == metric].set_index("cell")["value"].to_dict()
        last_cell = next(reversed(digests), "")
        last_digest = digests.get(last_cell)
        groups[phrase] = last_cell, [name for name in names if digests.get(name, last_digest) != last_digest]
    return groups


def layer_table(run: RunData) -> pd.DataFrame:
    """Return one row per layer of each cell that works: factors, order (0 is the lowest), file_bytes, owner,
    instruction."""
    columns = ["cell", "base", "base_source", "profile", "allocator", metrics.LINKED_ALLOCATOR, "stand_in"]
    factors, newest = cell_table(run).query("ok")[columns], newest_rows(run)
    layers = newest.loc[newest["metric"] == metrics.LAYER_BYTES, ["cell", "order", "value", "detail"]]
    table = factors.merge(layers, on="cell")
    detail = table.pop("detail").astype(str).str.split(": ", n=1)
    return table.assign(file_bytes=table.pop("value").astype("int64"), owner=detail.str[0], instruction=detail.str[1])


def smallest_cell(table: pd.DataFrame) -> str:
    """Return the cell with the fewest bytes unpacked; "" where none works. `table` is what `cell_table` returns."""
    rows = table[table["ok"]]
    return rows.loc[rows[metrics.UNPACKED_BYTES].idxmin(), "cell"] if len(rows) else ""


def parts(run: RunData, metric: str) -> pd.DataFrame:
    """Return one row per part of each cell that works: columns cell, name, size_bytes (int). `metric` says which parts:
    sections (`section_bytes`) or crates (`crate_bytes`)."""
    newest = newest_rows(run)
    cells = cell_table(run).query("ok")["cell"]
    rows = newest.loc[(newest["metric"] == metric) & newest["cell"].isin(cells), ["cell", "detail", "value"]]
    rows = rows.rename(columns={"detail": "name", "value": "size_bytes"})
    return rows.astype({"size_bytes": "int64"}).reset_index(drop=True)


def check_works(table: pd.DataFrame, cell: str) -> None:
    """Raise LabError, with the nearest name, unless a cell of that name works. `table` is what `cell_table` returns."""
    check_known("cell that works", cell, table.loc[table["ok"], "cell"].to_list())


def composition(run: RunData, cell: str) -> pd.DataFrame:
    """Return what takes up the space in a cell's image: one row per part. Columns: owner (base image, binary or other
    files), name (a package or crate), size_bytes. The sizes sum to the image's. A base without recorded packages is one
    part; so is a binary that UPX packed. No row when a size could not be read. Raises LabError when no cell of that
    name works."""
    table = cell_table(run)
    check_works(table, cell)
    facts = table.set_index("cell").loc[cell]
    if facts[[metrics.BINARY_BYTES, metrics.BASE_BYTES, metrics.APP_BYTES]].isna().any():
        return pd.DataFrame(columns=["owner", "name", "size_bytes"])
    packages = run.environment.package_bytes.get(facts[metrics.BASE_DIGEST], {})
    crates = parts(run, metrics.CRATE_BYTES).query("cell == @cell").set_index("name")["size_bytes"]
    binary, base = int(facts[metrics.BINARY_BYTES]), int(facts[metrics.BASE_BYTES])
    rows = [("base image", name, size) for name, size in packages.items()]
    rows.append(("base image", "(of no package)" if packages else facts["base_label"], base - sum(packages.values())))
    if crates.sum() <= binary:
        rows += [("binary", name, size) for name, size in crates.items()]
        rows.append(("binary", "(symbols, headers)" if len(crates) else "binary", binary - int(crates.sum())))
    else:
        rows.append(("binary", "packed by UPX", binary))
    rows.append(("other files", "passwd, group, own files", int(facts[metrics.APP_BYTES]) - binary))
    return pd.DataFrame([row for row in rows if row[2]], columns=["owner", "name", "size_bytes"])


def ladder(table: pd.DataFrame) -> pd.DataFrame:
    """Return every profile compared with `baseline` on the same base with the same allocator: one row per cell.
    Columns: cell, base, base_source, stand_in, profile, allocator, linked_allocator, unstable, ok, reason,
    unpacked_bytes, compressed_bytes, build_cpu_s. `unpacked` and `compressed` are both sizes as ratios to the
    baseline's.

    `table` is what `cell_table` returns. Bases with fewer than three profiles of an allocator, or no `baseline`, are
    left out."""
    columns = ["cell", "base", "base_source", "stand_in", "profile", "allocator", metrics.LINKED_ALLOCATOR]
    columns += ["unstable", "ok", "reason", metrics.UNPACKED_BYTES, metrics.COMPRESSED_BYTES]
    sweep = table[columns].assign(build_cpu_s=pd.to_numeric(table[metrics.BUILD_CPU_S]))
    is_baseline, groups = sweep["profile"] == "baseline", [sweep["base"], sweep["allocator"]]
    for ratio, size in (("unpacked", sweep[metrics.UNPACKED_BYTES]), ("compressed", sweep[metrics.COMPRESSED_BYTES])):
        sweep[ratio] = size / size.where(is_baseline).groupby(groups).transform("first")
    counts, has_baseline = (is_baseline.groupby(groups).transform(method) for method in ("size", "any"))
    return sweep[(counts > 2) & has_baseline].reset_index(drop=True)


def article_grid(run: RunData) -> pd.DataFrame:
    """Return the rows of `cell_table` for the cells of the article: its bases and profiles, with its allocator on each
    base."""
    table = cell_table(run)
    allocators = table["base"].map({name: base.article_allocator for name, base in all_bases().items()})
    return table[table["article_bytes"].notna() & (table["allocator"] == allocators)].reset_index(drop=True)


def plotted_cells(table: pd.DataFrame, grid: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a plot has room for: `grid` (`article_grid`). If `grid` is empty, return those of `table`
    (`cell_table`) with the first two profiles and the first allocator on each base."""
    if len(grid):
        return grid
    return table[table["profile"].isin(table["profile"].unique()[:2])].drop_duplicates(["base", "profile"])


def _sort_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows sorted: profiles as first written (`published` first), bases in the article's order, then
    allocators."""
    ranks = table[["profile", "base", "allocator"]].copy()
    for factor in ("profile", "allocator"):
        ranks[factor] = pd.Categorical(table[factor], table[factor].unique()).codes
    ranks["profile"] = ranks["profile"].mask(table["profile"] == PUBLISHED.name, -1)
    ranks["base"] = table["base"].map({name: rank for rank, name in enumerate(all_bases())}).fillna(len(all_bases()))
    return table.loc[ranks.sort_values(list(ranks)).index]


class Pair(NamedTuple):
    """A cell with an `allocator`, and the `baseline` with `malloc`, which is musl's or glibc's."""

    base: str
    profile: str
    allocator: str
    malloc: str
    cell: str
    baseline: str


def beside_malloc(samples: pd.DataFrame) -> list[Pair]:
    """Return a pair for each allocator of a study beside malloc of the C library on the same base and profile, where
    the lab knows both. `samples` is what `comparison.samples` returns; settings of allocators are left out."""
    pairs = []
    plain_samples = samples[~samples["cell"].str.contains(MARK)]
    for (base, profile), rows in plain_samples.groupby(["base", "profile"], sort=False):
        cells = rows.drop_duplicates("allocator").set_index("allocator")["cell"]
        if "system" in cells:
            with suppress(LabError):  # this lab does not know the base or the profile
                malloc = f"{'musl' if matrix.cell(base, profile, 'system').libc == 'musl' else 'glibc'} malloc"
                others = cells.drop("system").items()
                pairs += [Pair(base, profile, allocator, malloc, cell, cells["system"]) for allocator, cell in others]
    return pairs
