"""What a run of several machines has beside their rows: its id, who built each cell last, and what each binary is of.

data/runs/RUN/spread.json   of the client's run; a worker keeps the id alone, in its own part of the run
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rustimg_lab.errors import LabError
from rustimg_lab.host.files import write_whole
from rustimg_lab.store import rows

FILE = "spread.json"


@dataclass(frozen=True)
class SpreadRecord:
    """`id`: drawn when the run is begun, "" where there is none; `cells`: the machine that built each cell last;
    `sources`: by machine and binary (see `binary`), a digest of what it was built of, "" where that is not known."""

    id: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)


def binary(study: str, cell: str) -> str:
    """Return what a record calls the binary of a cell; `study` names the program."""
    return f"{study}/{cell}"


def read(path: Path) -> SpreadRecord:
    """Return the record in a run's folder; an empty one where it has none. Raises LabError when it cannot be read."""
    file = path / FILE
    if not file.exists():
        return SpreadRecord()
    try:
        found = SpreadRecord(**rows.parse_json(rows.read_text(file)))
        told = [found.id, *found.cells.values(), *(each for of in found.sources.values() for each in of.values())]
        if not all(isinstance(each, str) for each in told):
            raise ValueError("not of that form")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        said = error if isinstance(error, OSError | ValueError) else "not of that form"
        raise LabError(f"{path.name}/{FILE} cannot be read ({said}); restore it, or use another run") from None
    return found


def write(path: Path, record: SpreadRecord) -> None:
    """Write the record of the run in a folder, whole or not at all."""
    write_whole(path / FILE, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def note(path: Path, machine: str, cells: Iterable[str], sources: dict[str, str]) -> None:
    """Record that a machine has built these cells last, and of which sources it has built these binaries."""
    before = read(path)
    of_machine = {machine: before.sources.get(machine, {}) | sources}
    now = replace(before, cells=before.cells | dict.fromkeys(cells, machine), sources=before.sources | of_machine)
    if now != before:
        write(path, now)
