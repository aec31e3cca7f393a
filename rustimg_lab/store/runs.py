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

from rustimg_lab.errors import LabError, unknown_name
from rustimg_lab.host.files import write_whole
from rustimg_lab.model import metrics, probes
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.matrix import Cell
from rustimg_lab.model.names import additions_of
from rustimg_lab.paths import DEFAULT_RUN, RECORDED, RECORDED_RUN, RUNS
from rustimg_lab.store import spread_record
from rustimg_lab.store.environment import SCHEMA, Environment, parse_fields, read_environment, refuse_other_machine
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
        """Append one row per observation, in one write that is on disk when this returns. `name` replaces the cell's
        name in these rows; `setting` is its allocator's. Raises DiskFull on a full disk; earlier rows stay valid."""
        columns = {"run_id": self.name, "study": study, "cell": name or cell.slug,
                   "architecture": cell.architecture.value, "base": cell.base.name,
                   "profile": cell.profile.name, "allocator": cell.allocator, "setting": setting,
                   "layout": cell.layout, "image": image}  # fmt: skip
        text = "".join(json.dumps(columns | vars(o), allow_nan=False) + "\n" for o in observations).encode()
        append_rows(self.path, text)

    def save_environment(self, **changes: Any) -> None:
        """Update environment.json with `changes`, whole or not at all; an equal file is left alone."""
        self.environment.update(changes)
        path, text = self.path / "environment.json", json.dumps(self.environment, indent=1, sort_keys=True) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)


@dataclass(frozen=True)
class RunData:
    """A run that was read. `rows`: one per observation, with the columns of `COLUMNS`, in the order in which they were
    written. `broken`: a line on each row that could not be read; the rest is there. `elsewhere`: by which names the
    studies are read that are left out here, since each is of one machine."""

    rows: pd.DataFrame
    environment: Environment
    broken: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.environment.run

    @property
    def unread(self) -> str:
        """Return the number of rows that could not be read, in words; "" for none."""
        count = len(self.broken)
        return f"{count} row{'s' * (count != 1)} could not be read" if count else ""

    @property
    def left_out(self) -> str:
        """Return where the studies are that are left out here, in words; "" for none."""
        names = ", ".join(self.elsewhere)
        return f"the studies of run '{self.name}' are left out, since each is of one machine: {names}" if names else ""


@contextmanager
def open_run(name: str, machine: dict[str, Any]) -> Iterator[Run]:
    """Open a run of the user's own for writing; make it when it is not there. Raises LabError when another lab writes
    to it, or it was begun on another `machine`, or is of several."""
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
    """Open a run of several machines for writing, made when it is not there; yield the folder of their runs. Raises
    LabError when another lab writes to it, or when it is of one machine."""
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
    """Return the folder of a run of the user's own. Raises LabError for what cannot be a run's name."""
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
            remedy = "wait for it, or choose --run NAME"
            raise LabError(f"run '{path.name}' is being written by another lab; {remedy}") from None
        yield


def load(name: str, whole: bool = False) -> RunData:
    """Read a run. With images for two architectures, only those for the run's machine are read, or by the name
    `RUN@arm64` only the others; with `whole`, all are. Of a run of several machines, only the rows on cells are read,
    from all machines; by the name `RUN@MACHINE`, all rows of one machine. Raises LabError when there is no such run,
    when it has nothing for that architecture, or is of a newer lab."""
    path = run_path(name)
    if machine_names := _machines(path):
        machine_runs = {machine: load(f"{name}{AT}{machine}", whole) for machine in machine_names}
        return _combine_machines(name, path, machine_runs)
    if (path / MACHINES).is_dir():
        raise LabError(f"run '{name}' has no rows yet: no machine has sent any; the same command resumes it")
    stamps = tuple((file.name, (status := file.stat()).st_mtime_ns, status.st_size) for file in _files(path))
    run = _read_folder(path, stamps)
    # A run may have been written under another name. pandas copies the rows that are changed then.
    is_machine = path.parent.name == MACHINES
    run_name = name if is_machine else name.partition(AT)[0]
    run = replace(run, rows=run.rows.copy(deep=False), environment=replace(run.environment, run=run_name))
    return run if whole or is_machine else _select_architecture(run, name.partition(AT)[2])


def parts(name: str) -> list[str]:
    """Return the names by which `load` reads a run, one per architecture or machine. Raises LabError as `load` does."""
    if machine_names := machines(name):
        merged_names = [name] if len(load(name).rows) else []  # which were built by `run`, and not only for a study
        return merged_names + [f"{name}{AT}{machine}" for machine in machine_names]
    architectures = [] if AT in name else _architectures(load(name, whole=True))[1:]
    return [name, *(f"{name}{AT}{architecture.debian}" for architecture in architectures)]


def machines(name: str) -> list[str]:
    """Return the names of a run's machines; none for a run of one. Raises LabError when there is no such run."""
    return _machines(run_path(name))


def _machines(path: Path) -> list[str]:
    return sorted(file.parent.name for file in (path / MACHINES).glob("*/environment.json"))


def _combine_machines(name: str, path: Path, machine_runs: dict[str, RunData]) -> RunData:
    """Return the rows on the cells of a run of several machines. A cell has the rows of the machine that built it last,
    or of all machines where that is not recorded. Studies are of one machine each, and left out."""
    builders = {cell: machine for cell, machine in spread_record.read(path).cells.items() if machine in machine_runs}
    tables = []
    for machine, run in machine_runs.items():
        tables.append(run.rows.loc[[builders.get(cell, machine) == machine for cell in run.rows["cell"]]])
    rows = pd.concat(tables, ignore_index=True)
    rows = rows[(rows["study"] == "") & ~rows["metric"].isin(OF_MACHINE)]
    environments = [run.environment for run in machine_runs.values()]
    images = {digest: image for environment in environments for digest, image in environment.images.items()}
    bases = {base: digest for environment in environments for base, digest in environment.bases.items()}
    commands = list(dict.fromkeys(command for environment in environments for command in environment.commands))
    merged_environment = replace(environments[0], run=name, images=images, bases=bases, commands=commands, studies={})
    elsewhere = tuple(f"{name}{AT}{machine}" for machine, run in machine_runs.items() if run.environment.studies)
    broken = tuple(line for run in machine_runs.values() for line in run.broken)
    return RunData(rows, merged_environment, broken, elsewhere)


def _architectures(run: RunData) -> list[Architecture]:
    """Return the architectures that a run has images for, the machine's own first."""
    native = run.environment.machine.get("architecture")
    names = sorted(run.rows["architecture"].unique(), key=lambda name: (name != native, name))
    return list(map(Architecture, names)) or [NATIVE]


def _select_architecture(run: RunData, mark: str) -> RunData:
    """Return the rows of a run for one architecture, with their base images."""
    architectures = _architectures(run)
    arch = Architecture.named(mark) if mark else architectures[0]
    if arch not in architectures:
        hint = "" if run.name.startswith(RECORDED_RUN) else f"; `./lab run --run {run.name} --arch {mark}` builds some"
        raise LabError(f"run '{run.name}' has no image for {mark}{hint}")
    suffix = "" if arch.value == run.environment.machine.get("architecture", arch.value) else f"-{arch.debian}"
    bases = {
        name.removesuffix(suffix): digest
        for name, digest in run.environment.bases.items()
        if name.partition("-")[2] == suffix[1:]
    }
    environment = replace(run.environment, run=f"{run.name}{AT}{mark}" if mark else run.name, bases=bases)
    return replace(run, rows=run.rows[run.rows["architecture"] == arch.value], environment=environment)


@lru_cache(maxsize=16)  # a report asks a dozen times
def _read_folder(path: Path, stamps: tuple) -> RunData:
    """Return the run in a folder. `stamps` are of its files, so that a changed file is read again."""
    environment = read_environment(path)
    rows, broken = [], []
    if (path / "rows.jsonl").exists():
        with (path / "rows.jsonl").open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(read_lines(file), 1):
                try:
                    rows.append(read_row(line))
                except ValueError as error:
                    broken.append(f"{path.name}/rows.jsonl:{number}: {error}; left out")
    exact_types = {column: types[0] for column, types in COLUMNS.items() if types in ((bool,), (int,))}
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(exact_types)  # also where there is no row to tell
    return RunData(frame, parse_fields(environment), tuple(broken))


def refuse_mixed(run: Run, cells: list[Cell]) -> None:
    """Raise LabError when a run has cells with other additions: tables identify cells by base, profile, allocator."""
    rows = load(run.name).rows
    begun_cells = rows.loc[rows["study"] != probes.STUDY, "cell"].unique()
    if other_additions := {additions_of(cell) for cell in begun_cells} - {cells[0].additions}:
        example = next(filter(None, other_additions), ())
        option = f"with --with {','.join(example)}" if example else "without --with"
        raise LabError(f"run '{run.name}' was begun {option}: call it so, or choose another with --run NAME")


def files(name: str) -> list[Path]:
    """Return the paths that a run's rows are read from. Raises LabError when there is no such run."""
    path, machine_names = run_path(name), machines(name)
    if not machine_names:
        return _files(path)
    record = [path / spread_record.FILE] if (path / spread_record.FILE).exists() else []
    return [*record, *(file for machine in machine_names for file in files(f"{name}{AT}{machine}"))]


def _files(path: Path) -> list[Path]:
    return [file for file in (path / "rows.jsonl", path / "environment.json") if file.exists()]


def dockerfile(name: str, cell: str) -> str:
    """Return the text that a cell of a run was built from, last where machines differ. Raises LabError without one."""
    for path in _dockerfiles(name, cell):
        with suppress(OSError, ValueError):
            return path.read_text(encoding="utf-8")
    raise LabError(f"run '{name}' has no Dockerfile.{cell}; `./lab dockerfile` writes it anew")


def changed_dockerfiles(before: str, after: str) -> list[str]:
    """Return the cells that two runs have built from two texts. Raises LabError when there is no such run."""
    cells = sorted({path.name.removeprefix("Dockerfile.") for path in run_path(before).glob("**/dockerfiles/D*")})
    names = (before, after)
    pairs = [(cell, [next(filter(Path.is_file, _dockerfiles(name, cell)), None) for name in names]) for cell in cells]
    return [cell for cell, (old, new) in pairs if old and new and old.read_bytes() != new.read_bytes()]


def _dockerfiles(name: str, cell: str) -> list[Path]:
    """Where the text that a cell of a run was built from can be; first where the machine is that built it last."""
    last_machine = spread_record.read(run_path(name)).cells.get(cell)
    machine_names = sorted(machines(name), key=lambda machine: machine != last_machine)
    folders = [run_path(name), *(run_path(f"{name}{AT}{machine}") for machine in machine_names)]
    return [] if "/" in cell else [folder / "dockerfiles" / f"Dockerfile.{cell}" for folder in folders]


def newest_rows(run: RunData) -> pd.DataFrame:
    """Return the newest rows of each cell's newest image: one per metric and part. Rows of studies are left out.

    Where a cell's newest row is a failed build, only that row is returned of the cell."""
    rows = run.rows[run.rows["study"] == ""]
    if rows.empty:
        return rows
    newest_images = rows.groupby("cell")["image"].transform("last")
    latest = rows[rows["image"] == newest_images]
    part = latest["detail"].where(latest["metric"].isin(metrics.PARTS), "")
    return latest[~latest.assign(part=part).duplicated(["cell", "metric", "block", "order", "part"], keep="last")]


def trials(run: RunData, study: str, metric: str) -> pd.DataFrame:
    """Return the rows of a study that have a value of a metric, without warm-ups and failed trials. A lab that was
    killed in mid-write has left half a trial, which was then repeated: the repetition counts."""
    rows = run.rows
    trial_rows = rows[(rows["study"] == study) & (rows["metric"] == metric) & rows["ok"] & ~rows["is_warmup"]]
    return trial_rows.drop_duplicates(["cell", "block", "detail"], keep="last")


def run_path(name: str) -> Path:
    """Return the folder of an existing run. Raises LabError, with the nearest name, when there is none, or it holds a
    link."""
    folders, (name, _, part) = runs(), name.partition(AT)
    path = RECORDED / DEFAULT_RUN if name == RECORDED_RUN else folders.get(name)
    if path is None:
        raise unknown_name("run", name, [*folders, RECORDED_RUN])
    _refuse_foreign(path)
    machine_names = sorted(folder.name for folder in (path / MACHINES).glob("*"))
    if part and machine_names and part not in machine_names:
        raise unknown_name(f"machine of run '{name}'", part, machine_names)
    return path / MACHINES / part if part and machine_names else path


def _refuse_foreign(path: Path) -> None:
    """Raise LabError where a run's folder has a link, a device, or a folder in the place of a file. It may come from a
    stranger: what is read of it goes into reports, and what is written must stay in it."""
    for entry in path.rglob("*"):
        is_folder = entry.is_dir() and "." not in entry.name
        if entry.is_symlink() or (entry.exists() and not is_folder and not entry.is_file()):
            raise LabError(
                f"run '{path.name}' holds {entry.name}, which is a link, or no file where one should be; remove it and "
                "call again"
            )


def runs() -> dict[str, Path]:
    """Return the folders of all runs, by name: the user's own, then the recorded ones."""
    folders = {path.name: path for path in sorted(RUNS.glob("*")) if path.is_dir()}
    return folders | {f"{RECORDED_RUN}/{path.name}": path for path in sorted(RECORDED.glob("*")) if path.is_dir()}
