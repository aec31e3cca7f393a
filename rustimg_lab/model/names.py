"""Names of cells as a reader sees them."""

from typing import Any

from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.matrix import WITH, layout_name

MARK = "~"  # in the name of a treatment, after its cell's: before a setting of the allocator, `before`, and `twin`
TWIN = f"{MARK}twin"  # what the second name of the baseline's image ends with
BEFORE = f"{MARK}before"  # what the name of a cell ends with, ahead of TWIN, whose image is of the app's version before
# What a reader sees behind the name of a base that substitutes for the official image, and of the A/A control.
SUBSTITUTE, CONTROL = " (substitute)", " (A/A control)"


def of_image(name: str) -> tuple[str, Architecture]:
    """Return base (or builder) and architecture of an image's name, `debian-arm64`. Raises LabError if unknown."""
    base, _, mark = name.partition("-")
    return base, Architecture.named(mark) if mark else NATIVE


def listed(text: str) -> list[str]:
    """Return what is between the commas of a text, without the blanks around each."""
    return [each.strip() for each in text.split(",")]


def additions_of(cell: str) -> tuple[str, ...]:
    """Return the names of what a cell's image has beside the program, as its name says; empty where it has nothing."""
    return tuple(filter(None, cell.partition(MARK)[0].partition(WITH)[2].split("_")))


def without_layout(cell: str, layout: int) -> str:
    """Return the name of the cell that a layout with this seed is one of."""
    return cell.replace(layout_name("", layout), "") if layout else cell


def cell_in_words(cell: str, attrs: dict[str, Any]) -> str:
    """Return a cell's name with marks: a substitute base, the version before, the A/A control. `attrs`: a frame's."""
    base, _, rest = cell.removesuffix(TWIN).partition("-")
    mark = SUBSTITUTE if base in attrs.get("stand_ins", ()) else ""
    return f"{base}{mark}-{rest.replace(BEFORE, ' before')}{CONTROL if cell.endswith(TWIN) else ''}"
