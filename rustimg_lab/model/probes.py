"""The probes of `data/probes.toml`: what each asks of an image, and what to do where the image fails."""

from dataclasses import dataclass

from rustimg_lab.model import metrics, toml
from rustimg_lab.paths import PROBES_FILE

STUDY = "probes"
PASSED, FAILED, NOT_APPLICABLE = OUTCOMES = ("passed", "failed", "not applicable")
FACTS = (
    metrics.UNPACKED_BYTES, metrics.COMPRESSED_BYTES, metrics.FILES, metrics.EXECUTABLES, metrics.PACKAGES,
    metrics.CRATES_SEEN,
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """An entry of the file: what is true where the image passes; what to do where it fails, and the addition (`--with`)
    that does it, "" where none does."""

    group: str
    question: str
    remedy: str
    addition: str = ""


PROBES = toml.entries(PROBES_FILE, "probe", lambda _, table, __: toml.make(Probe, table))
