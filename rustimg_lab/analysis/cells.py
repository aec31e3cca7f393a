"""Rows of a run -> one row per cell, and per layer, section or package. Needs no engine."""

from contextlib import suppress
from typing import NamedTuple

import pandas as pd

from rustimg_lab.errors import LabError, check_known
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.bases import everything
from rustimg_lab.model.matrix import OWN
from rustimg_lab.model.names import MARK, SUBSTITUTE, additions_of
from rustimg_lab.model.profiles import PUBLISHED
from rustimg_lab.paths import ARTICLE, RECORDED_RUN
from rustimg_lab.store.rows import NOT_STARTED, NOTE
from rustimg_lab.store.runs import RunData, current

_FACTORS = ["cell", "architecture", "base", "profile", "allocator", "image"]
# What a note begins with of a cell that was made of something else than the others.
OTHERS = {metrics.SOURCES: "built of other sources", metrics.SETTINGS: "built with other settings of lab.toml"}
ARTICLES_APP = "myip"  # of which the article has figures
# What a command that adds to a run is called with.
OPTIONS_OF_A_RUN = "the run's --bases, --profiles and --allocators, and --app if it is of an own one"


def article() -> pd.DataFrame:
    """The article's two tables: columns base, profile, size_bytes (its MB taken as 1e6 bytes)."""
    return pd.read_csv(ARTICLE, comment="#")


def app_name(run: RunData) -> str:
    """The name of the app that a run is of."""
    return run.environment.app.get("name", ARTICLES_APP)


def bases_in_words(table: pd.DataFrame) -> pd.Series:
    """Return the base of each row as a reader sees it: a substitute is marked."""
    return table["base"].where(~table["stand_in"], table["base"] + SUBSTITUTE)


def allocators_in_words(table: pd.DataFrame) -> pd.Series:
    """Return the allocator of each row; of the crate's own with what the program has, which differs by target."""
    found = table[metrics.LINKED_ALLOCATOR].astype(object).fillna("")
    return table["allocator"].where(~table["allocator"].eq(OWN) | found.eq(""), f"{OWN} (" + found + ")")


def working_cells(run: RunData, purpose: str) -> pd.DataFrame:
    """Return the working cells' rows of `cell_table`, by cell. Raises LabError, with the `purpose`, without any."""
    table = some_cells(run, purpose)
    works = table.query("ok").set_index("cell")
    if works.empty:
        cell, reason = table[["cell", "reason"]].iloc[0]
        raise LabError(f"run '{run.name}' has no cell that works: nothing to {purpose}; {cell}: {reason}")
    return works


def some_cells(run: RunData, purpose: str) -> pd.DataFrame:
    """Return `cell_table`. Raises LabError, with what makes cells, when the run has none."""
    table = cell_table(run)
    if table.empty:
        makes = f"`./lab run --run {run.name}` makes them, with {OPTIONS_OF_A_RUN}"
        remedy = "" if run.name.startswith(RECORDED_RUN) else f"; {makes}"
        raise LabError(f"run '{run.name}' has no sizes and checks of cells: nothing to {purpose}{remedy}")
    return table


def cell_table(run: RunData) -> pd.DataFrame:
    """One row per cell: its factors, a column per metric, the base's provenance, the article's figure, `ok`, `reason`,
    `note` (what a reader must know), and `compressed_with` (how `compressed_bytes` came about, "" for none). A cell
    that was not built, or failed its check, has no sizes: `reason` says why."""
    newest = current(run)
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
    told = notes.agg(lambda texts: "; ".join(text.removeprefix(NOTE).partition(";")[0] for text in texts))
    notes = told.reindex(table.index).fillna("").astype(str)
    table["note"] = notes.str.cat(_made_with(newest, table.index), sep="; ").str.strip("; ")
    sizes = [column for column in table.columns if column.endswith("_bytes")]
    table[sizes] = table[sizes].apply(pd.to_numeric).where(table["ok"])

    # Before this was computed from the layers, it was what the engine pushed, which differs from engine to engine.
    engine = run.environment.machine.get("engine", "of an unknown version")
    compressed = single[single["metric"] == metrics.COMPRESSED_BYTES].set_index("cell")["detail"]
    compressed = compressed.where(compressed != "", f"gzip, as pushed by Docker Engine {engine}")
    table["compressed_with"] = compressed.reindex(table.index).where(table[metrics.COMPRESSED_BYTES].notna()).fillna("")

    images = run.environment.images
    digest = table[metrics.BASE_DIGEST].astype(object).fillna("")
    bases = [(base, images.get(one)) for base, one in zip(table["base"], digest, strict=True)]
    labels = {name: base.label for name, base in everything().items()}
    sources = {name: "empty" for name, base in everything().items() if not base.image}
    table["base_label"] = [image["label"] if image else labels.get(base, base) for base, image in bases]
    table["base_source"] = [image["source"] if image else sources.get(base, "not recorded") for base, image in bases]
    table["stand_in"] = [image["stand_in"] if image else False for _, image in bases]
    figures = article().set_index(["base", "profile"])["size_bytes"]
    if app_name(run) != ARTICLES_APP:
        figures = figures.iloc[:0]
    table["article_bytes"] = figures.reindex(pd.MultiIndex.from_frame(table[["base", "profile"]])).to_numpy()
    return _in_order(table).reset_index()


def _made_with(newest: pd.DataFrame, names: pd.Index) -> list[str]:
    """What to note of each of the cells: its additions, and whether `made_otherwise` has it."""
    notes = {name: f"with {', '.join(more)}" if (more := additions_of(name)) else "" for name in names}
    for differs, (last, others) in made_otherwise(newest, names).items():
        for name in others:
            notes[name] += f"; {differs} than {last}: `./lab run` with all cells builds it anew"
    return list(notes.values())


def made_otherwise(newest: pd.DataFrame, names: pd.Index) -> dict[str, tuple[str, list[str]]]:
    """By each of `OTHERS`: the cell that was built last, and those of `names` that are made of something else than it.
    `newest` is `current` of a run; rows of older labs do not tell."""
    found = {}
    for metric, differs in OTHERS.items():
        of = newest[newest["metric"] == metric].set_index("cell")["value"].to_dict()
        last = next(reversed(of), "")
        found[differs] = last, [name for name in names if of.get(name, of.get(last)) != of.get(last)]
    return found


def layer_table(run: RunData) -> pd.DataFrame:
    """One row per layer of each cell that works: factors, order (0 is the lowest), file_bytes, owner, instruction."""
    columns = ["cell", "base", "base_source", "profile", "allocator", metrics.LINKED_ALLOCATOR, "stand_in"]
    works, newest = cell_table(run).query("ok")[columns], current(run)
    layers = newest.loc[newest["metric"] == metrics.LAYER_BYTES, ["cell", "order", "value", "detail"]]
    found = works.merge(layers, on="cell")
    detail = found.pop("detail").astype(str).str.split(": ", n=1)
    return found.assign(file_bytes=found.pop("value").astype("int64"), owner=detail.str[0], instruction=detail.str[1])


def smallest(table: pd.DataFrame) -> str:
    """The cell with the fewest bytes unpacked; "" where none works. `table` is `cells`."""
    works = table[table["ok"]]
    return works.loc[works[metrics.UNPACKED_BYTES].idxmin(), "cell"] if len(works) else ""


def parts(run: RunData, metric: str) -> pd.DataFrame:
    """One row per section (`section_bytes`) or crate (`crate_bytes`) of each working cell: cell, name, size_bytes."""
    newest = current(run)
    works = cell_table(run).query("ok")["cell"]
    found = newest.loc[(newest["metric"] == metric) & newest["cell"].isin(works), ["cell", "detail", "value"]]
    found = found.rename(columns={"detail": "name", "value": "size_bytes"})
    return found.astype({"size_bytes": "int64"}).reset_index(drop=True)


def check_works(table: pd.DataFrame, cell: str) -> None:
    """Raises LabError, with the nearest name, when no cell of that name works. `table` is `cell_table`."""
    check_known("cell that works", cell, table.loc[table["ok"], "cell"].to_list())


def composition(run: RunData, cell: str) -> pd.DataFrame:
    """Whose the bytes of a cell's image are: owner, name (a package, a crate), size_bytes; their sum is the image's.
    The base is one part where its packages are not recorded; so is a binary packed by UPX. Empty where a size could not
    be read. Raises LabError for a cell that does not work."""
    table = cell_table(run)
    check_works(table, cell)
    one = table.set_index("cell").loc[cell]
    if one[[metrics.BINARY_BYTES, metrics.BASE_BYTES, metrics.APP_BYTES]].isna().any():
        return pd.DataFrame(columns=["owner", "name", "size_bytes"])
    packages = run.environment.package_bytes.get(one[metrics.BASE_DIGEST], {})
    crates = parts(run, metrics.CRATE_BYTES).query("cell == @cell").set_index("name")["size_bytes"]
    binary, base = int(one[metrics.BINARY_BYTES]), int(one[metrics.BASE_BYTES])
    found = [("base image", name, size) for name, size in packages.items()]
    found.append(("base image", "(of no package)" if packages else one["base_label"], base - sum(packages.values())))
    if crates.sum() <= binary:
        found += [("binary", name, size) for name, size in crates.items()]
        found.append(("binary", "(symbols, headers)" if len(crates) else "binary", binary - int(crates.sum())))
    else:
        found.append(("binary", "packed by UPX", binary))
    found.append(("other files", "passwd, group, own files", int(one[metrics.APP_BYTES]) - binary))
    return pd.DataFrame([each for each in found if each[2]], columns=["owner", "name", "size_bytes"])


def ladder(table: pd.DataFrame) -> pd.DataFrame:
    """Every profile beside `baseline` on the same base with the same allocator: cell, base, base_source, stand_in,
    profile, allocator, linked_allocator, unstable, ok, reason, unpacked_bytes, compressed_bytes, build_cpu_s, and
    ratios of both sizes to the baseline's (`unpacked`, `compressed`), in the order of `table`; of bases with three
    profiles or more."""
    columns = ["cell", "base", "base_source", "stand_in", "profile", "allocator", metrics.LINKED_ALLOCATOR]
    columns += ["unstable", "ok", "reason", metrics.UNPACKED_BYTES, metrics.COMPRESSED_BYTES]
    found = table[columns].assign(build_cpu_s=pd.to_numeric(table[metrics.BUILD_CPU_S]))
    is_baseline, together = found["profile"] == "baseline", [found["base"], found["allocator"]]
    for ratio, size in (("unpacked", found[metrics.UNPACKED_BYTES]), ("compressed", found[metrics.COMPRESSED_BYTES])):
        found[ratio] = size / size.where(is_baseline).groupby(together).transform("first")
    rungs, based = (is_baseline.groupby(together).transform(how) for how in ("size", "any"))
    return found[(rungs > 2) & based].reset_index(drop=True)


def article_grid(run: RunData) -> pd.DataFrame:
    """The cells that the article has too: its bases and profiles, its allocator on each. Same columns as `cells`."""
    table = cell_table(run)
    theirs = table["base"].map({name: base.article_allocator for name, base in everything().items()})
    return table[table["article_bytes"].notna() & (table["allocator"] == theirs)].reset_index(drop=True)


def drawn(table: pd.DataFrame, grid: pd.DataFrame) -> pd.DataFrame:
    """The cells that have room side by side: `grid` (`article_grid`), else two profiles with one allocator a base."""
    if len(grid):
        return grid
    return table[table["profile"].isin(table["profile"].unique()[:2])].drop_duplicates(["base", "profile"])


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """By profile as first written (`published` first), base in the article's order, allocator as first written."""
    ranks = table[["profile", "base", "allocator"]].copy()
    for factor in ("profile", "allocator"):
        ranks[factor] = pd.Categorical(table[factor], table[factor].unique()).codes
    ranks["profile"] = ranks["profile"].mask(table["profile"] == PUBLISHED.name, -1)
    ranks["base"] = table["base"].map({name: rank for rank, name in enumerate(everything())}).fillna(len(everything()))
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
    found = []
    plain = samples[~samples["cell"].str.contains(MARK)]
    for (base, profile), own in plain.groupby(["base", "profile"], sort=False):
        cells = own.drop_duplicates("allocator").set_index("allocator")["cell"]
        if "system" in cells:
            with suppress(LabError):  # this lab does not know the base or the profile
                malloc = f"{'musl' if matrix.cell(base, profile, 'system').libc == 'musl' else 'glibc'} malloc"
                others = cells.drop("system").items()
                found += [Pair(base, profile, allocator, malloc, cell, cells["system"]) for allocator, cell in others]
    return found
