"""Where base images come from: what the user named, what is to be obtained, and what was obtained."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rustimg_lab.engine import client
from rustimg_lab.model import names
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.model.bases import DEBIAN


@dataclass(frozen=True)
class Sources:
    """What the user said of where images come from.

    `named`: by base an image, an archive's path, or `packages`. `registry`: the one to ask for the default references,
    HOST[:PORT][/PREFIX]; "" for their own. `recorded`: by base, the provenance in a run that goes on.
    """

    named: dict[str, str] = field(default_factory=dict)
    registry: str = ""
    debian: str = DEBIAN
    recorded: dict[str, dict] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where an image comes from, and why from there. `reference` is what was asked for and `manifest` its digest in a
    registry, "" where there is none; `pulled` the name by which others can pull it from there; `image` what a build
    names. Until it is obtained only `why` and `reference` are known, the latter as an image's name or a path."""

    source: str
    why: str
    reference: str
    manifest: str = ""
    pulled: str = ""
    image: str = ""


@dataclass(frozen=True)
class ImageRequest:
    """An image that is to be obtained: for a base, or for the Rust builder, by its name (`names.parse_image_name`).
    `ca` is the CA bundle for the builder's crate registry."""

    name: str
    origin: Origin
    sources: Sources
    say: Callable[[str], None]
    ca: Path | None

    @property
    def architecture(self) -> Architecture:
        """Return the architecture that the image must be of."""
        return names.parse_image_name(self.name)[1]

    def own_name(self, digest: str, kind: str = "") -> str:
        """Return the lab's own name for the image that has a digest (SHA-256, hex)."""
        return f"{client.repository(self.name)}:{kind}{digest.removeprefix('sha256:')[:12]}"

    def obtained(self, image: str, **facts: str) -> Origin:
        """Return the origin of the image that the engine now has by the name `image`; `facts` are fields of it."""
        return replace(self.origin, image=image, **facts)
