"""Base images: where each is obtained, and its provenance.

`choose_source` says from which kind of source: an image of the engine, a registry (`build/registry.py`), an archive
that the user names (`build/archives.py`), or Debian packages (`build/mmdebstrap.py`). That module obtains the image,
and `describe` says what it is.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rustimg_lab.build import archives, mmdebstrap, package_db, registry
from rustimg_lab.build.origins import ImageRequest, Origin, Sources
from rustimg_lab.engine import client, images
from rustimg_lab.engine.images import RegistryError
from rustimg_lab.errors import LabError, check_known
from rustimg_lab.host.files import resolve_path
from rustimg_lab.model import matrix, names
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import bases_and_builder

LOCAL = "local image"
UNKNOWN = "unknown"

Obtain = Callable[[ImageRequest], Origin]


@dataclass(frozen=True, kw_only=True)
class Provenance(Origin):
    """Where an image came from and what it is: `name` is the base's, `digest` the engine's id of the image, `packages`
    has the versions by name."""

    name: str
    digest: str
    label: str
    release: str
    stand_in: bool
    packages: dict[str, str]

    def for_builder(self, builder: str) -> "Provenance":
        """Return the provenance with the image's name by which a builder with a store of its own can pull it. Raises
        LabError when the image is in no registry."""
        if not self.pulled:
            raise LabError(
                f"builder '{builder}' cannot see the engine's images, and {self.name} is from no registry that the "
                f"builder could pull it from ({self.source}): push it to one and give --base {self.name}=HOST/NAME, or "
                "leave --builder out"
            )
        return replace(self, image=self.pulled)

    def toolchain(self, debian: str) -> str:
        """Return a name for the Rust builder's toolchain; "" for the builder that a Dockerfile names by default."""
        official = matrix.reference(names.parse_image_name(self.name)[0], debian)
        return "" if self.reference == official else f"builder-{self.digest[7:19]}"

    def as_dict(self) -> dict:
        """Return the provenance as the environment of a run records it, without an image's name that has this clone's
        id."""
        facts = asdict(self)
        if self.image.startswith(client.repository("")):
            del facts["image"]
        return facts

    def __str__(self) -> str:
        text = self.label if self.release in self.label or self.release == UNKNOWN else f"{self.label}, {self.release}"
        return f"{self.name}: {text} ({self.source}, {self.why}; {self.digest[7:19]})"


def resolve(name: str, sources: Sources, say: Callable[[str], None], ca: Path | None = None) -> Provenance | None:
    """Obtain the image of a base, or of the Rust builder, by name (`names.parse_image_name`), and return its
    provenance; None for an empty base. `ca` is the CA bundle for the builder's crate registry. Raises LabError when the
    requested image cannot be had, is for another architecture, or differs from what the run recorded."""
    official = matrix.reference(names.parse_image_name(name)[0], sources.debian)
    if official is None:
        return None
    obtain, origin = choose_source(name, official, sources)
    if requested_source(name, sources):  # and not what a mirror calls so
        sources = replace(sources, registry="")
    return describe(name, obtain(ImageRequest(name, origin, sources, say, ca)), sources.recorded.get(name))


def requested_source(name: str, sources: Sources) -> str:
    """Return what the user named for an image, or for its base on any architecture; "" for nothing."""
    base, architecture = names.parse_image_name(name)
    return sources.named.get(f"{base}-{architecture.debian}") or sources.named.get(base, "")


def cross_builder(
    builder: Provenance, name: str, say: Callable[[str], None], ca: Path | None, recorded: dict | None = None
) -> Provenance:
    """Return the Rust builder as `name` (`names.parse_image_name`), with what compiling for that architecture takes.
    For a builder that is not made of Debian packages, a step of the Dockerfile adds that. `recorded` is what the run
    recorded of the image. Raises LabError when packages cannot be had."""
    if builder.source != mmdebstrap.SOURCE:
        return replace(builder, name=name)
    image = mmdebstrap.make_cross(name, builder.image, say, ca)
    packages, _ = _packages(image.id, recorded)
    return replace(builder, name=name, image=image.tags[0], digest=image.id, packages=packages)


def choose_source(name: str, official: str, sources: Sources) -> tuple[Obtain, Origin]:
    """Decide how an image is obtained, and why. What the user named comes first, then what the run recorded, then the
    official image. Returns the function that obtains the image, and its origin so far."""
    recorded, architecture = sources.recorded.get(name), names.parse_image_name(name)[1]
    if source := requested_source(name, sources):
        obtain, why = next((obtain, why) for detect, obtain, why in _NAMED if detect(source, architecture))
        return obtain, Origin("", why, source)
    if recorded and (not sources.registry or (recorded["manifest"] and recorded["reference"] == official)):
        fallback = {mmdebstrap.SOURCE: mmdebstrap.obtain}.get(recorded["source"], _obtain_recorded)
        origin = Origin(*(recorded.get(field.name, "") for field in fields(Origin)))
        return registry.obtain if origin.manifest else fallback, origin
    if sources.registry:
        return _obtain_official, Origin("", "requested with --registry", official)
    # One for another architecture, which was pulled for other work, is not in the way of the registry's.
    if images.find_image(official) and _is_for(images.inspect(official).architecture, architecture):
        return _obtain_from_engine, Origin("", "the engine has it", official)
    return _obtain_official, Origin("", "which answers", official)


def parse_named(options: list[str]) -> dict[str, str]:
    """Return `NAME=SOURCE` options as a dictionary of sources by name, with the architecture in the name as Debian has
    it. Raises LabError on a name that is no base with an image, on an empty source, a missing file, or two sources for
    one name."""
    choices = {}
    for option in options:
        name, separator, source = option.partition("=")
        if not separator or not source:
            raise LabError(
                f"--base {option}: give it as NAME=SOURCE, an image, an archive's path or `packages`: for example "
                "--base alpine=alpine:3.24"
            )
        base, architecture = names.parse_image_name(name)
        check_known("base", base, bases_and_builder())
        if not bases_and_builder()[base].image:
            raise LabError(f"--base {name}=...: {name} is empty and has no image")
        if archives.detect(source) and not resolve_path(source, where=f"--base {option}: ").is_file():
            raise LabError(f"--base {option}: there is no file {source}")
        key = base if name == base else f"{base}-{architecture.debian}"
        if choices.setdefault(key, source) != source:
            raise LabError(f"--base {option}: {name} is {choices[key]} already; name one of the two")
    return choices


def describe(name: str, origin: Origin, recorded: dict | None = None) -> Provenance:
    """Return the provenance of an image. Its packages come from `recorded`, the run's record, if that is of this image.
    Raises LabError when the image is for another architecture."""
    info = images.inspect(origin.image)
    base, architecture = names.parse_image_name(name)
    if not _is_for(info.architecture, architecture):
        raise LabError(
            f"{name}: {origin.reference} is for {info.architecture}, not for {architecture.debian}; name one that is: "
            f"--base {base}-{architecture.debian}=SOURCE"
        )
    packages, release = _packages(info.id, recorded)
    stand_in = info.labels.get(client.STAND_IN_LABEL, "")
    if stand_in:
        label = stand_in
    elif origin.source == mmdebstrap.SOURCE:
        label = f"{bases_and_builder()[base].packages.label}, {release}"
    else:
        label = release if origin.source.startswith("archive ") and release else origin.reference.partition("@")[0]
    facts = {"label": label, "release": release or UNKNOWN, "stand_in": bool(stand_in), "packages": packages}
    return Provenance(name=name, digest=info.id, **vars(origin), **facts)


def _packages(digest: str, recorded: dict | None) -> tuple[dict[str, str], str]:
    """`package_db.read_packages` of an image, without a container where a run has recorded this very image."""
    if not recorded or recorded["digest"] != digest:
        return package_db.read_packages(digest)
    return recorded["packages"], "" if recorded["release"] == UNKNOWN else recorded["release"]


def _is_for(image_architecture: str, architecture: Architecture) -> bool:
    return image_architecture in (architecture.debian, architecture.value)


def _engine_has(reference: str, architecture: Architecture) -> bool:
    """Whether the engine has an image of that name, for another architecture than this machine's one for that."""
    image = images.find_image(reference)
    return bool(image) and (architecture is NATIVE or _is_for(images.inspect(reference).architecture, architecture))


def _obtain_from_engine(request: ImageRequest) -> Origin:
    return request.obtained(request.origin.reference, source=LOCAL)


def _obtain_official(request: ImageRequest) -> Origin:
    """The image of a registry, or one of packages where no registry answers and none was named. Raises LabError."""
    name = request.name
    try:
        return registry.obtain(request)
    except RegistryError as error:
        if error.answered or request.sources.registry:
            raise LabError(f"{error}; or take --base {name}=packages, an image or an archive") from None
        why = f"since no registry answers: {error.cause}"
        try:
            return mmdebstrap.obtain(replace(request, origin=replace(request.origin, why=why)))
        except LabError as packages_error:
            packages_error.args = (f"{packages_error}; before that, {error}",)
            raise


def _obtain_recorded(request: ImageRequest) -> Origin:
    """The image that a run began with, of the engine or of an archive, and nothing else in its place."""
    name, origin, recorded = request.name, request.origin, request.sources.recorded[request.name]
    build_name = origin.image or request.own_name(origin.reference, "archive-")
    image = images.find_image(build_name)
    if image is None or image.id != recorded["digest"]:
        state = f"has as {image.id[7:19]} now" if image else "has no longer"
        raise LabError(
            f"{name}: this run began with {recorded['label']} ({origin.source}, {recorded['digest'][7:19]}), "
            f"which the engine {state}; name it with --base {name}=SOURCE, or begin a new run with --run NAME"
        )
    return request.obtained(build_name)


# What a source that the user names can be, the first that it is: how that is seen and obtained, and why it is taken.
_NAMED: tuple[tuple[Callable[[str, Architecture], object], Obtain, str], ...] = (
    (lambda source, _: source == "packages", mmdebstrap.obtain, "requested with --base"),
    (lambda source, _: archives.detect(source), archives.obtain, "named by the user"),
    (_engine_has, _obtain_from_engine, "named by the user"),
    (lambda source, _: True, registry.obtain, "named by the user, not in the engine"),
)
