"""Settings of allocators that a program reads from its environment when it starts: `narenas=1` -> variables."""

import re
from dataclasses import dataclass, field

from rustimg_lab.errors import LabError, check_known

# By name: whose setting it is, as jemalloc(3) and mimalloc's readme describe it.
KNOWN = {"purge_delay": "mimalloc", "dirty_decay_ms": "jemalloc", "narenas": "jemalloc"}


@dataclass(frozen=True)
class Setting:
    """A setting of `allocator`, by its name in `KNOWN`, and the variables by which a program is told."""

    name: str
    value: int
    allocator: str
    environment: dict[str, str] = field(hash=False)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def parse(text: str) -> Setting:
    """Return the setting in a text such as `narenas=1`. Raises LabError, with the nearest name, for an unknown name,
    and for a value that is no whole number."""
    name, _, value = text.partition("=")
    check_known("setting", name, KNOWN)
    if not re.fullmatch(r"-?\d{1,9}", value):
        raise LabError(f"setting '{text}': after '{name}=' comes a whole number, as in {name}=1")
    environment = {"MIMALLOC_PURGE_DELAY": value}
    if KNOWN[name] == "jemalloc":  # without the prefix where tikv-jemallocator has `unprefixed_malloc` on
        environment = dict.fromkeys(("_RJEM_MALLOC_CONF", "MALLOC_CONF"), f"{name}:{value}")
    return Setting(name, int(value), KNOWN[name], environment)
