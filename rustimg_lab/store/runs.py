"""A run on disk: rows appended as JSON lines, the environment beside them; load -> RunData.

data/runs/RUN/rows.jsonl         one observation a line, see `COLUMNS`
data/runs/RUN/environment.json   the machine, the tools, the app, and every base image's provenance by digest
data/runs/RUN/dockerfiles/       the text that each cell was built from
data/runs/RUN/logs/              each cell's build log
data/runs/RUN/machines/NAME/     in place of all these, where Dask workers did the work: a run of each machine
data/runs/RUN/spread.json        beside those: see `store/spread_record.py`

Rows with a `study` are trials of that study (see `measure/trials.py`), whose plan is in the environment's `studies`;
rows without one are what a cell's image is.
"""

import fcntl
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from rustimg_lab.errors import LabError, unknown
from rustimg_lab.host.files import write_whole
from rustimg_lab.model import metrics, probes
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.matrix import Cell
from rustimg_lab.model.names import additions_of
from rustimg_lab.paths import DEFAULT_RUN, RECORDED, RECORDED_RUN, RUNS
from rustimg_lab.store import spread_record
from rustimg_lab.store.environment import SCHEMA, Environment, read_environment, refuse_other_machine, typed
from rustimg_lab.store.rows import COLUMNS, Observation, append_rows, cut_last_line, end_last_line, read_lines, read_row

AT = "@"  # in the name that a run is read by, before an architecture or a machine
MACHINES = "machines"  # the folder of a run whose work is spread over machines
# What says something of the machine and not of the image, and is left out where cells of several machines are together.
OF_MACHINE = (metrics.BUILD_CPU_S,)


@dataclass(frozen=True)
class Run:
    """A run that is open for writing; `open_run` makes it and holds its lock."""

    name: str
    path: Path
    environment: dict[str, Any]

    def append(
        self, cell: Cell, image: str, observations: Iterable[Observation], *, study: str = "", name: str = "",
        setting: str = "",
    ) -> None:  # fmt: skip
        """Appends one row per observation, in one write that is on disk when this returns. `name`: the cell's in these
        rows, if another than its own; `setting`: its allocator's. Raises DiskFull; what was there stays valid."""
        about = {"run_id": self.name, "study": study, "cell": name or cell.slug,
                 "architecture": cell.architecture.value, "base": cell.base.name,
                 "profile": cell.profile.name, "allocator": cell.allocator, "setting": setting,
                 "layout": cell.layout,
                 "image": image}  # fmt: skip
        text = "".join(json.dumps(about | vars(o), allow_nan=False) + "\n" for o in observations).encode()
        append_rows(self.path, text)

    def save_environment(self, **changes: Any) -> None:
        """Updates environment.json, whole or not at all; one that says so already is left alone."""
        self.environment.update(changes)
        path, text = self.path / "environment.json", json.dumps(self.environment, indent=1, sort_keys=True) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)


@dataclass(frozen=True)
class RunData:
    """A run that was read. `rows`: one per observation, with the columns of `COLUMNS`, in the order in which they were
    written. `broken`: a line on each row that could not be read; the rest is there. `elsewhere`: the names by which the
    studies are read that are left out here, since each is of one machine of several."""

    rows: pd.DataFrame
    environment: Environment
    broken: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.environment.run

    @property
    def unread(self) -> str:
        """Return how many rows could not be read, in words; "" for none."""
        count = len(self.broken)
        return f"{count} row{'s' * (count != 1)} could not be read" if count else ""

    @property
    def left_out(self) -> str:
        """Return where the studies are that are left out here, in words; "" for none."""
        names = ", ".join(self.elsewhere)
        return f"the studies of run '{self.name}' are left out, since each is of one machine: {names}" if names else ""


@contextmanager
def open_run(name: str, machine: dict[str, Any]) -> Iterator[Run]:
    """Opens a run of the user's own, made if missing. Raises LabError if another lab or machine has it, or several."""
    path = _own_folder(name)
    if (path / MACHINES).is_dir():
        raise LabError(f"run '{name}' is of several machines: resume it with --scheduler, or choose another with --run")
    for folder in ("dockerfiles", "logs"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    with _locked(path):
        environment = read_environment(path) if (path / "environment.json").exists() else {}
        refuse_other_machine(name, environment.get("machine", machine), machine)
        run = Run(name, path, {"run": name, "images": {}} | environment)
        run.save_environment(machine=machine, schema=SCHEMA)
        end_last_line(path / "rows.jsonl")
        yield run


@contextmanager
def open_spread(name: str) -> Iterator[Path]:
    """Open a run of several machines, made if missing; returns the folder of their runs. Raises LabError likewise."""
    path = _own_folder(name)
    if (path / "rows.jsonl").exists():
        raise LabError(f"run '{name}' is of one machine: resume it without --scheduler, or choose another with --run")
    (path / MACHINES).mkdir(parents=True, exist_ok=True)
    with _locked(path):
        for rows in (path / MACHINES).glob("*/rows.jsonl"):
            cut_last_line(rows)
        if not (record := spread_record.read(path)).id:
            spread_record.write(path, replace(record, id=uuid.uuid4().hex))
        yield path / MACHINES


def _own_folder(name: str) -> Path:
    """The folder of a run of the user's own. Raises LabError for what cannot be a run's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == RECORDED_RUN:
        rule = f"use letters, digits, dots and dashes, and not '{RECORDED_RUN}'"
        raise LabError(f"'{name}' cannot be a run's name: {rule}")
    _refuse_foreign(RUNS / name)
    return RUNS / name


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                f"run '{path.name}' is being written by another lab; wait for it, or choose --run NAME"
            ) from None
        yield


def load(name: str, whole: bool = False) -> RunData:
    """Read a run. Of one with images for two architectures those for its machine's own, or as `RUN@arm64` the others;
    `whole`: all of it. Of one of several machines what the cells are, from all of them; as `RUN@MACHINE` all that one
    gave. Raises LabError when there is none such, or a newer lab wrote it."""
    path = run_path(name)
    if spread := _machines(path):
        return _together(name, path, {each: load(f"{name}{AT}{each}", whole) for each in spread})
    if (path / MACHINES).is_dir():
        raise LabError(f"run '{name}' has no rows yet: no machine has sent any; the same command resumes it")
    stamps = tuple((file.name, (status := file.stat()).st_mtime_ns, status.st_size) for file in _files(path))
    found = _loaded(path, stamps)
    # A run may have been written under another name. pandas copies the rows that are changed then.
    is_machine = path.parent.name == MACHINES
    own = name if is_machine else name.partition(AT)[0]
    found = replace(found, rows=found.rows.copy(deep=False), environment=replace(found.environment, run=own))
    return found if whole or is_machine else _part(found, name.partition(AT)[2])


def parts(name: str) -> list[str]:
    """Return the names by which `load` gives a run, one for each architecture or machine. Raises LabError as `load`."""
    if spread := machines(name):
        together = [name] if len(load(name).rows) else []  # which were built by `run`, and not only for a study
        return together + [f"{name}{AT}{each}" for each in spread]
    others = [] if AT in name else _architectures(load(name, whole=True))[1:]
    return [name, *(f"{name}{AT}{each.debian}" for each in others)]


def machines(name: str) -> list[str]:
    """Return the machines that a run is spread over; none where it is of one. Raises LabError as `load` does."""
    return _machines(run_path(name))


def _machines(path: Path) -> list[str]:
    return sorted(found.parent.name for found in (path / MACHINES).glob("*/environment.json"))


def _together(name: str, path: Path, found: dict[str, RunData]) -> RunData:
    """What the cells of a run of several machines are, each as the machine has it that built it last; of a cell of
    which that is not recorded, what all have. What was measured in studies is of one machine, and left out."""
    last = {cell: of for cell, of in spread_record.read(path).cells.items() if of in found}
    kept = [each.rows.loc[[last.get(cell, own) == own for cell in each.rows["cell"]]] for own, each in found.items()]
    rows = pd.concat(kept, ignore_index=True)
    rows = rows[(rows["study"] == "") & ~rows["metric"].isin(OF_MACHINE)]
    of_all = [each.environment for each in found.values()]
    images = {digest: image for each in of_all for digest, image in each.images.items()}
    bases = {base: digest for each in of_all for base, digest in each.bases.items()}
    commands = list(dict.fromkeys(command for each in of_all for command in each.commands))
    merged = replace(of_all[0], run=name, images=images, bases=bases, commands=commands, studies={})
    elsewhere = tuple(f"{name}{AT}{own}" for own, each in found.items() if each.environment.studies)
    return RunData(rows, merged, tuple(line for each in found.values() for line in each.broken), elsewhere)


def _architectures(run: RunData) -> list[Architecture]:
    """The architectures that a run has images for, the machine's own first."""
    own = run.environment.machine.get("architecture")
    found = sorted(run.rows["architecture"].unique(), key=lambda each: (each != own, each))
    return list(map(Architecture, found)) or [NATIVE]


def _part(run: RunData, mark: str) -> RunData:
    """The rows of a run for one architecture, and the base images of those."""
    known = _architectures(run)
    chosen = Architecture.named(mark) if mark else known[0]
    if chosen not in known:
        built = "" if run.name.startswith(RECORDED_RUN) else f"; `./lab run --run {run.name} --arch {mark}` builds some"
        raise LabError(f"run '{run.name}' has no image for {mark}{built}")
    end = "" if chosen.value == run.environment.machine.get("architecture", chosen.value) else f"-{chosen.debian}"
    bases = {
        name.removesuffix(end): of for name, of in run.environment.bases.items() if name.partition("-")[2] == end[1:]
    }
    environment = replace(run.environment, run=f"{run.name}{AT}{mark}" if mark else run.name, bases=bases)
    return replace(run, rows=run.rows[run.rows["architecture"] == chosen.value], environment=environment)


@lru_cache(maxsize=16)  # a report asks a dozen times
def _loaded(path: Path, stamps: tuple) -> RunData:
    """The run in a folder. `stamps` are of the files: what has changed is read again."""
    environment = read_environment(path)
    rows, broken = [], []
    if (path / "rows.jsonl").exists():
        with (path / "rows.jsonl").open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(read_lines(file), 1):
                try:
                    rows.append(read_row(line))
                except ValueError as error:
                    broken.append(f"{path.name}/rows.jsonl:{number}: {error}; left out")
    exact = {column: types[0] for column, types in COLUMNS.items() if types in ((bool,), (int,))}
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(exact)  # also where there is no row to tell
    return RunData(frame, typed(environment), tuple(broken))


def refuse_mixed(run: Run, cells: list[Cell]) -> None:
    """Raises LabError when a run has cells with other additions: its tables tell cells by base, profile, allocator."""
    rows = load(run.name).rows
    begun = rows.loc[rows["study"] != probes.STUDY, "cell"].unique()
    if others := {additions_of(cell) for cell in begun} - {cells[0].additions}:
        some = next(filter(None, others), ())
        told = f"with --with {','.join(some)}" if some else "without --with"
        raise LabError(f"run '{run.name}' was begun {told}: call it so, or choose another with --run NAME")


def files(name: str) -> list[Path]:
    """What a run's rows are read from. Raises LabError as `load` does."""
    path, spread = run_path(name), machines(name)
    if not spread:
        return _files(path)
    record = [path / spread_record.FILE] if (path / spread_record.FILE).exists() else []
    return [*record, *(file for each in spread for file in files(f"{name}{AT}{each}"))]


def _files(path: Path) -> list[Path]:
    return [file for file in (path / "rows.jsonl", path / "environment.json") if file.exists()]


def dockerfile(name: str, cell: str) -> str:
    """The text that a cell of a run was built from, last where machines differ. Raises LabError when there is none."""
    last = spread_record.read(run_path(name)).cells.get(cell)
    spread = sorted(machines(name), key=lambda each: each != last)
    folders = [run_path(name), *(run_path(f"{name}{AT}{each}") for each in spread)]
    for path in (folder / "dockerfiles" / f"Dockerfile.{cell}" for folder in folders):
        with suppress(OSError, ValueError):
            if "/" not in cell:
                return path.read_text(encoding="utf-8")
    raise LabError(f"run '{name}' has no Dockerfile.{cell}; `./lab dockerfile` writes it anew")


def changed_dockerfiles(before: str, after: str) -> list[str]:
    """The cells that two runs have built from two texts. Raises LabError as `load` does."""
    folders = [run_path(run) / "dockerfiles" for run in (before, after)]
    one, other = ({path.name: path.read_bytes() for path in folder.glob("D*")} for folder in folders)
    changed = [name for name, text in one.items() if other.get(name, text) != text]
    return [name.removeprefix("Dockerfile.") for name in changed]


def current(run: RunData) -> pd.DataFrame:
    """The rows of each cell's newest image, and of what was observed twice there, the newest; none of a study. Where a
    cell's newest row is a failed build, that is all there is of it."""
    rows = run.rows[run.rows["study"] == ""]
    if rows.empty:
        return rows
    newest = rows.groupby("cell")["image"].transform("last")
    same = rows[rows["image"] == newest]
    part = same["detail"].where(same["metric"].isin(metrics.PARTS), "")
    return same[~same.assign(part=part).duplicated(["cell", "metric", "block", "order", "part"], keep="last")]


def trials(run: RunData, study: str, metric: str) -> pd.DataFrame:
    """The rows of a study that have a number of a metric, warm-ups and lost trials left out. A lab that was killed in
    the middle of a write has left half a trial, which was then repeated: the repetition counts."""
    rows = run.rows
    found = rows[(rows["study"] == study) & (rows["metric"] == metric) & rows["ok"] & ~rows["is_warmup"]]
    return found.drop_duplicates(["cell", "block", "detail"], keep="last")


def run_path(name: str) -> Path:
    """The folder of a run that is there. Raises LabError, with the nearest name, when it is not, or holds a link."""
    known, (name, _, part) = runs(), name.partition(AT)
    path = RECORDED / DEFAULT_RUN if name == RECORDED_RUN else known.get(name)
    if path is None:
        raise unknown("run", name, [*known, RECORDED_RUN])
    _refuse_foreign(path)
    spread = sorted(each.name for each in (path / MACHINES).glob("*"))
    if part and spread and part not in spread:
        raise unknown(f"machine of run '{name}'", part, spread)
    return path / MACHINES / part if part and spread else path


def _refuse_foreign(path: Path) -> None:
    """Raises LabError where a run's folder has a link, a device, or a folder in the place of a file. It may come from a
    stranger: what is read of it goes into reports, and what is written must stay in it."""
    for each in path.rglob("*"):
        folder = each.is_dir() and "." not in each.name
        if each.is_symlink() or (each.exists() and not folder and not each.is_file()):
            raise LabError(
                f"run '{path.name}' holds {each.name}, which is a link, or no file where one should be; remove it and "
                "call again"
            )


def runs() -> dict[str, Path]:
    """The folders of all runs, by name: the user's own, then the recorded ones."""
    known = {path.name: path for path in sorted(RUNS.glob("*")) if path.is_dir()}
    return known | {f"{RECORDED_RUN}/{path.name}": path for path in sorted(RECORDED.glob("*")) if path.is_dir()}
