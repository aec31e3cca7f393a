"""Base images: where each is obtained, and its provenance.

`decide` says from which kind of source: an image of the engine, a registry (`build/registry.py`), an archive that the
user names (`build/archives.py`), or Debian packages (`build/mmdebstrap.py`). That module obtains the image, and
`describe` says what it is.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rustimg_lab.build import archives, mmdebstrap, package_db, registry
from rustimg_lab.build.origins import Origin, Sources, Wanted
from rustimg_lab.engine import client, images
from rustimg_lab.engine.images import RegistryError
from rustimg_lab.errors import LabError, check_known
from rustimg_lab.host.files import real
from rustimg_lab.model import matrix, names
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import with_builder

LOCAL = "local image"
UNKNOWN = "unknown"

Obtain = Callable[[Wanted], Origin]


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
        """Return the same image by the name under which a builder with a store of its own can pull it. Raises LabError
        when it is in no registry."""
        if not self.pulled:
            raise LabError(
                f"builder '{builder}' cannot see the engine's images, and {self.name} is from no registry that the "
                f"builder could pull it from ({self.source}): push it to one and give --base {self.name}=HOST/NAME, or "
                "leave --builder out"
            )
        return replace(self, image=self.pulled)

    def toolchain(self, debian: str) -> str:
        """For the Rust builder: "" for the one that a Dockerfile names by default, else a name for it."""
        official = matrix.reference(names.of_image(self.name)[0], debian)
        return "" if self.reference == official else f"builder-{self.digest[7:19]}"

    def as_dict(self) -> dict:
        """For the environment of a run: without the name of the image where it holds this clone's id."""
        facts = asdict(self)
        if self.image.startswith(client.repository("")):
            del facts["image"]
        return facts

    def __str__(self) -> str:
        is_ = self.label if self.release in self.label or self.release == UNKNOWN else f"{self.label}, {self.release}"
        return f"{self.name}: {is_} ({self.source}, {self.why}; {self.digest[7:19]})"


def resolve(name: str, sources: Sources, say: Callable[[str], None], ca: Path | None = None) -> Provenance | None:
    """The image for a base, or for the Rust builder, by its name (`names.of_image`); None for an empty base.

    `ca` is the CA bundle for the builder's crate registry. Raises LabError when what was asked for cannot be had, is of
    another architecture, or differs from what the run recorded.
    """
    official = matrix.reference(names.of_image(name)[0], sources.debian)
    if official is None:
        return None
    obtain, origin = decide(name, official, sources)
    if named(name, sources):  # and not what a mirror calls so
        sources = replace(sources, registry="")
    return describe(name, obtain(Wanted(name, origin, sources, say, ca)), sources.recorded.get(name))


def named(name: str, sources: Sources) -> str:
    """Return what the user named for an image, or for its base whatever the architecture; "" for nothing."""
    base, architecture = names.of_image(name)
    return sources.named.get(f"{base}-{architecture.debian}") or sources.named.get(base, "")


def cross(
    builder: Provenance, name: str, say: Callable[[str], None], ca: Path | None, recorded: dict | None = None
) -> Provenance:
    """Return the Rust builder as `name` (`names.of_image`), with what it takes to compile for that architecture. One
    that is not of Debian packages gets that by a step of the Dockerfile; what is in the other is known where a run has
    `recorded` it. Raises LabError when packages cannot be had."""
    if builder.source != mmdebstrap.SOURCE:
        return replace(builder, name=name)
    made = mmdebstrap.make_cross(name, builder.image, say, ca)
    packages, _ = _packages(made.id, recorded)
    return replace(builder, name=name, image=made.tags[0], digest=made.id, packages=packages)


def decide(name: str, official: str, sources: Sources) -> tuple[Obtain, Origin]:
    """Decide how an image is obtained, and why so: what the user named comes first, then what the run recorded, then
    the official image."""
    recorded, architecture = sources.recorded.get(name), names.of_image(name)[1]
    if source := named(name, sources):
        obtain, why = next((obtain, why) for detect, obtain, why in _NAMED if detect(source, architecture))
        return obtain, Origin("", why, source)
    if recorded and (not sources.registry or (recorded["manifest"] and recorded["reference"] == official)):
        by_source = {mmdebstrap.SOURCE: mmdebstrap.obtain}.get(recorded["source"], _still_there)
        origin = Origin(*(recorded.get(field.name, "") for field in fields(Origin)))
        return registry.obtain if origin.manifest else by_source, origin
    if sources.registry:
        return _official, Origin("", "requested with --registry", official)
    # One for another architecture, which was pulled for other work, is not in the way of the registry's.
    if images.find_image(official) and _is_for(images.inspect(official).architecture, architecture):
        return _of_engine, Origin("", "the engine has it", official)
    return _official, Origin("", "which answers", official)


def parse_named(options: list[str]) -> dict[str, str]:
    """`NAME=SOURCE` options as a dict, the name of an architecture as Debian has it. Raises LabError on a name that is
    no base with an image, or an empty source."""
    named = {}
    for option in options:
        name, separator, source = option.partition("=")
        if not separator or not source:
            raise LabError(
                f"--base {option}: give it as NAME=SOURCE, an image, an archive's path or `packages`: for example "
                "--base alpine=alpine:3.24"
            )
        base, architecture = names.of_image(name)
        check_known("base", base, with_builder())
        if not with_builder()[base].image:
            raise LabError(f"--base {name}=...: {name} is empty and has no image")
        if archives.detect(source) and not real(source, where=f"--base {option}: ").is_file():
            raise LabError(f"--base {option}: there is no file {source}")
        key = base if name == base else f"{base}-{architecture.debian}"
        if named.setdefault(key, source) != source:
            raise LabError(f"--base {option}: {name} is {named[key]} already; name one of the two")
    return named


def describe(name: str, origin: Origin, recorded: dict | None = None) -> Provenance:
    """Say what an image is and holds, which is known of one that a run has `recorded`. Raises LabError when it is of
    another architecture."""
    about = images.inspect(origin.image)
    base, architecture = names.of_image(name)
    if not _is_for(about.architecture, architecture):
        raise LabError(
            f"{name}: {origin.reference} is for {about.architecture}, not for {architecture.debian}; name one that is: "
            f"--base {base}-{architecture.debian}=SOURCE"
        )
    installed, release = _packages(about.id, recorded)
    stand_in = about.labels.get(client.STAND_IN_LABEL, "")
    if stand_in:
        label = stand_in
    elif origin.source == mmdebstrap.SOURCE:
        label = f"{with_builder()[base].packages.label}, {release}"
    else:
        label = release if origin.source.startswith("archive ") and release else origin.reference.partition("@")[0]
    found = {"label": label, "release": release or UNKNOWN, "stand_in": bool(stand_in), "packages": installed}
    return Provenance(name=name, digest=about.id, **vars(origin), **found)


def _packages(digest: str, recorded: dict | None) -> tuple[dict[str, str], str]:
    """`package_db.read_packages` of an image, without a container where a run has recorded this very image."""
    if not recorded or recorded["digest"] != digest:
        return package_db.read_packages(digest)
    return recorded["packages"], "" if recorded["release"] == UNKNOWN else recorded["release"]


def _is_for(told: str, architecture: Architecture) -> bool:
    return told in (architecture.debian, architecture.value)


def _has(reference: str, architecture: Architecture) -> bool:
    """Whether the engine has an image of that name, for another architecture than this machine's one for that."""
    found = images.find_image(reference)
    return bool(found) and (architecture is NATIVE or _is_for(images.inspect(reference).architecture, architecture))


def _of_engine(wanted: Wanted) -> Origin:
    return wanted.obtained(wanted.origin.reference, source=LOCAL)


def _official(wanted: Wanted) -> Origin:
    """The image of a registry, or one of packages where no registry answers and none was named. Raises LabError."""
    name = wanted.name
    try:
        return registry.obtain(wanted)
    except RegistryError as error:
        if error.answered or wanted.sources.registry:
            raise LabError(f"{error}; or take --base {name}=packages, an image or an archive") from None
        why = f"since no registry answers: {error.cause}"
        try:
            return mmdebstrap.obtain(replace(wanted, origin=replace(wanted.origin, why=why)))
        except LabError as no:
            no.args = (f"{no}; before that, {error}",)
            raise


def _still_there(wanted: Wanted) -> Origin:
    """The image that a run began with, of the engine or of an archive, and nothing else in its place."""
    name, origin, recorded = wanted.name, wanted.origin, wanted.sources.recorded[wanted.name]
    build_name = origin.image or wanted.own_name(origin.reference, "archive-")
    image = images.find_image(build_name)
    if image is None or image.id != recorded["digest"]:
        now = f"has as {image.id[7:19]} now" if image else "has no longer"
        raise LabError(
            f"{name}: this run began with {recorded['label']} ({origin.source}, {recorded['digest'][7:19]}), "
            f"which the engine {now}; name it with --base {name}=SOURCE, or begin a new run with --run NAME"
        )
    return wanted.obtained(build_name)


# What a source that the user names can be, the first that it is: how that is seen and obtained, and why it is taken.
_NAMED: tuple[tuple[Callable[[str, Architecture], object], Obtain, str], ...] = (
    (lambda source, _: source == "packages", mmdebstrap.obtain, "requested with --base"),
    (lambda source, _: archives.detect(source), archives.obtain, "named by the user"),
    (_has, _of_engine, "named by the user"),
    (lambda source, _: True, registry.obtain, "named by the user, not in the engine"),
)
