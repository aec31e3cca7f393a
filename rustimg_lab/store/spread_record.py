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
    """Return the name that a record has for the binary of a cell; `study` names the program."""
    return f"{study}/{cell}"


def read(path: Path) -> SpreadRecord:
    """Read the record in a run's folder; an empty one for the run of an older lab, which has none. Raises LabError when
    the record cannot be read."""
    file = path / FILE
    if not file.exists():
        return SpreadRecord()
    try:
        record = SpreadRecord(**rows.parse_json(rows.read_text(file)))
        texts = [
            record.id,
            *record.cells.values(),
            *(digest for digests in record.sources.values() for digest in digests.values()),
        ]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("not of that form")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        message = error if isinstance(error, OSError | ValueError) else "not of that form"
        raise LabError(f"{path.name}/{FILE} cannot be read ({message}); restore it, or use another run") from None
    return record


def write(path: Path, record: SpreadRecord) -> None:
    """Write the record of the run in a folder, whole or not at all."""
    write_whole(path / FILE, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def note(path: Path, machine: str, cells: Iterable[str], sources: dict[str, str]) -> None:
    """Record that a machine built these cells last. `sources` has, by binary, the digest of what the machine built it
    of."""
    old_record = read(path)
    machine_sources = {machine: old_record.sources.get(machine, {}) | sources}
    all_cells, all_sources = old_record.cells | dict.fromkeys(cells, machine), old_record.sources | machine_sources
    new_record = replace(old_record, cells=all_cells, sources=all_sources)
    if new_record != old_record:
        write(path, new_record)
