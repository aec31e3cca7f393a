"""One row of a run: one value of one cell, or the reason why there is none; read, checked and appended by lines."""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rustimg_lab.host.files import DiskFull, is_full
from rustimg_lab.model import metrics
from rustimg_lab.model.architecture import Architecture

# A row has some hundred letters, an environment some ten thousand; a run may come from a stranger.
LINE_LIMIT, NUMBER_LIMIT = 1 << 20, 1 << 63
LEAST_NUMBER = 1e-30  # of an amount above 0: the ratio of two is a number then
ENVIRONMENT_LIMIT = 64 << 20
ESTIMATE = "gzip -6 by zlib, an estimate"  # how compressed bytes came about where no registry could be used

# Every column with the types that its JSON may have.
COLUMNS: dict[str, tuple[type, ...]] = {
    "run_id": (str,),
    "study": (str,),
    "cell": (str,),  # in a study the twin too, by a name of its own
    "architecture": (str,),  # that the image is for, in the kernel's words
    "base": (str,),
    "profile": (str,),
    "allocator": (str,),
    "setting": (str,),  # of the allocator, in a study of servers
    "layout": (int,),  # the seed of the order of the functions; 0 for the linker's own order
    "image": (str,),  # the id of the image that was observed; "" where none was built
    "metric": (str,),
    "value": (int, float, str, bool, type(None)),
    "unit": (str,),
    "block": (int,),
    "order": (int,),
    "is_warmup": (bool,),
    "ok": (bool,),
    "reason": (str,),  # why not, where `ok` is false
    "detail": (str,),  # what the value is of, where the metric alone does not say: a layer's instruction
}
# Of those, what rows of older labs lack.
_LATER = {"study": "", "setting": "", "layout": 0, "architecture": Architecture.X86_64.value}

NOTE = "note: "  # begins a detail that tables show beside the cell
NOT_STARTED = "not started: no emulator"  # in place of whether an image works that is for another architecture


@dataclass(frozen=True)
class Observation:
    """One value of one cell, or the reason why there is none."""

    metric: str
    value: float | int | str | bool | None
    unit: str = ""  # the metric's own unless given
    block: int = 0
    order: int = 0
    is_warmup: bool = False
    ok: bool = True
    reason: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.unit or getattr(self.metric, "unit", ""))


def read_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file. A line of more than `LINE_LIMIT` letters is cut to little more than that."""
    while line := file.readline(LINE_LIMIT + 1):
        while not line.endswith("\n") and (chunk := file.readline(LINE_LIMIT)):
            line = line[:LINE_LIMIT] + "..." + chunk[-1:]
        yield line


def read_row(line: str) -> dict[str, Any]:
    """Return the row in a JSON line, by column. Raises ValueError, with the fault, where the line is no valid row."""
    if len(line) > LINE_LIMIT:
        raise ValueError(f"longer than {LINE_LIMIT:,} letters")
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    row = _LATER | row
    if row.get("metric") == "compressed_estimate_bytes":  # as a lab called it that had no registry to push to
        row |= {"metric": str(metrics.COMPRESSED_BYTES), "detail": ESTIMATE}
    for column, types in COLUMNS.items():
        if column not in row:
            raise ValueError(f"has no '{column}'")
        if not isinstance(row[column], types) or (isinstance(row[column], bool) and bool not in types):
            raise ValueError(f"'{column}' has the wrong type")
        if column == "architecture" and row[column] not in (architecture.value for architecture in Architecture):
            raise ValueError(f"'{row[column][:20]}' is no architecture that the lab builds for")
        if isinstance(row[column], int | float) and not abs(row[column]) < NUMBER_LIMIT:
            raise ValueError(f"'{column}' is a number out of range")
    if row["ok"]:
        _check_value(row)
    return row


def _check_value(row: dict[str, Any]) -> None:
    """Raise ValueError where the value of a row is none that its metric may have. A metric that this lab does not know
    is checked by its unit alone."""
    value, name = row["value"], row["metric"]
    metric = metrics.METRICS.get(name)
    if not metric and not row["unit"]:
        return
    types = metric.holds if metric else metrics.AMOUNT
    is_amount = type(value) in metrics.AMOUNT
    if type(value) not in types or (is_amount and not (value == 0 or value > LEAST_NUMBER)):
        kind = "amount" if int in types else "text" if str in types else "true or false"
        raise ValueError(f"{name} is {str(value)[:20]!r}, and no {kind}")


def read_text(path: Path) -> str:
    """Read a file beside the rows. Raises OSError, and ValueError where the file is too long or not UTF-8."""
    if path.stat().st_size > ENVIRONMENT_LIMIT:
        raise ValueError(f"longer than {ENVIRONMENT_LIMIT:,} bytes")
    return path.read_text(encoding="utf-8")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError for invalid JSON, NaN, infinity, and half a letter (a lone
    surrogate)."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half a letter, as \\ud800 alone, is in no file
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value")


def append_rows(path: Path, text: bytes) -> None:
    """Append lines to the rows of the run in a folder, in one write that is on disk when this returns. Raises DiskFull
    when the disk is full; earlier rows stay valid."""
    with (path / "rows.jsonl").open("ab", buffering=0) as file:
        start = file.tell()
        try:
            if file.write(text) != len(text):  # what a disk does that is full before the end
                raise OSError(errno.ENOSPC, "the disk took only a part")
            os.fsync(file.fileno())
        except BaseException as error:
            file.truncate(start)
            if isinstance(error, OSError) and is_full(error):
                raise DiskFull("rows could not be written", [path], len(text)) from error
            raise


def end_last_line(path: Path) -> None:
    """End the last line of a file with a newline where it lacks one. A lab that was killed in mid-write may have left
    half a line."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def cut_last_line(path: Path) -> None:
    """Cut off the last line of rows that came from another machine where it is half a line, or no row. That row comes
    again."""
    rows = path.read_bytes()
    head = rows[: rows.rfind(b"\n", 0, -1) + 1]  # without the last line
    try:
        if not rows.endswith(b"\n"):
            raise ValueError("half a line")
        read_row(rows[len(head) :].decode())
    except ValueError:
        os.truncate(path, len(head))
