"""Names of cells as a reader sees them."""

from typing import Any

from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.matrix import WITH, layout_name

MARK = "~"  # in the name of a treatment, after its cell's: before a setting of the allocator, `before`, and `twin`
TWIN = f"{MARK}twin"  # what the second name of the baseline's image ends with
BEFORE = f"{MARK}before"  # what the name of a cell ends with, ahead of TWIN, whose image is of the app's version before
# What a reader sees behind the name of a base that substitutes for the official image, and of the A/A control.
SUBSTITUTE, CONTROL = " (substitute)", " (A/A control)"


def parse_image_name(name: str) -> tuple[str, Architecture]:
    """Return the base (or the builder) and the architecture that an image's name has, as `debian-arm64`. A name without
    a mark is of this machine's architecture. Raises LabError for an unknown architecture."""
    base, _, mark = name.partition("-")
    return base, Architecture.named(mark) if mark else NATIVE


def split_list(text: str) -> list[str]:
    """Return the parts of a text between its commas, without the blanks around each."""
    return [part.strip() for part in text.split(",")]


def additions_of(cell: str) -> tuple[str, ...]:
    """Return the names of the additions in a cell's name; empty where there are none."""
    return tuple(filter(None, cell.partition(MARK)[0].partition(WITH)[2].split("_")))


def without_layout(cell: str, layout: int) -> str:
    """Return the name of the cell that a layout with this seed belongs to."""
    return cell.replace(layout_name("", layout), "") if layout else cell


def cell_in_words(cell: str, attrs: dict[str, Any]) -> str:
    """Return a cell's name as a reader sees it: a substitute base, the version before and the A/A control are marked.
    `attrs` is that of the frame; its `stand_ins` are the substitute bases."""
    base, _, suffix = cell.removesuffix(TWIN).partition("-")
    mark = SUBSTITUTE if base in attrs.get("stand_ins", ()) else ""
    return f"{base}{mark}-{suffix.replace(BEFORE, ' before')}{CONTROL if cell.endswith(TWIN) else ''}"
