"""Base images: where each is obtained, and its provenance.

An image of the local engine, a registry, an archive that the user names, or Debian packages (`build/mmdebstrap.py`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from docker.models.images import Image
from docker.utils import parse_repository_tag

from rustimg_lab.build import archives, mmdebstrap, package_db
from rustimg_lab.engine import client, images, inspection, local_registry, podman
from rustimg_lab.engine.images import RegistryError
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.host import files
from rustimg_lab.model import matrix
from rustimg_lab.model.matrix import DEBIAN

LOCAL = "local image"
UNKNOWN = "unknown"


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
class _Origin:
    """Where an image was found, in the words of `Provenance`."""

    source: str
    why: str
    reference: str
    manifest: str = ""
    pulled: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where an image came from, and why from there. `image` is what a build names; `digest` the engine's id of it;
    `reference` what was asked for and `manifest` its digest in a registry, "" where there is none; `pulled` the name by
    which others can pull it from there; `packages` by name.
    """

    name: str
    image: str
    digest: str
    source: str
    why: str
    label: str
    release: str
    stand_in: bool
    reference: str
    manifest: str
    packages: dict[str, str]
    pulled: str = ""

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
        return "" if self.reference == matrix.reference(self.name, debian) else f"builder-{self.digest[7:19]}"

    def as_dict(self) -> dict:
        """For the environment of a run: without the name of the image where it holds this clone's id."""
        fields = asdict(self)
        if self.image.startswith(client.repository("")):
            del fields["image"]
        return fields

    def __str__(self) -> str:
        is_ = self.label if self.release in self.label or self.release == UNKNOWN else f"{self.label}, {self.release}"
        return f"{self.name}: {is_} ({self.source}, {self.why}; {self.digest[7:19]})"


def resolve(name: str, sources: Sources, say: Callable[[str], None], ca: Path | None = None) -> Provenance | None:
    """The image for a base, or for the Rust builder, by its name; None for scratch.

    `ca` is the CA bundle for the builder's crate registry. Raises LabError when what was asked for cannot be had, is of
    another architecture, or differs from what the run recorded.
    """
    reference = matrix.reference(name, sources.debian)
    if reference is None:
        return None
    chosen = sources.named.get(name, "")
    recorded = sources.recorded.get(name, {})
    if chosen == "packages":
        return _of_packages(name, sources, "as asked for", say, ca)
    if _is_path(chosen):
        return _of_archive(name, Path(chosen).expanduser(), say)
    if chosen:
        if image := images.find_image(chosen):
            return _describe(name, image, chosen, _Origin(LOCAL, "named by the user", chosen))
        return _of_registry(name, [chosen], _Origin("", "named by the user, not in the engine", chosen), say)
    if recorded and (not sources.registry or (recorded["manifest"] and recorded["reference"] == reference)):
        return _as_recorded(name, sources, recorded, say, ca)
    if not sources.registry and (image := images.find_image(reference)):
        return _describe(name, image, reference, _Origin(LOCAL, "the engine has it", reference))
    why = "asked for by --registry" if sources.registry else "which answers"
    try:
        return _of_registry(name, _names(reference, sources), _Origin("", why, reference), say)
    except RegistryError as error:
        if error.answered or sources.registry:
            raise LabError(f"{error}; or take --base {name}=packages, an image or an archive") from None
        try:
            return _of_packages(name, sources, f"since no registry answers: {error.cause}", say, ca)
        except LabError as no:
            no.args = (f"{no}; before that, {error}",)
            raise


def parse_named(options: list[str]) -> dict[str, str]:
    """`NAME=SOURCE` options as a dict. Raises LabError on a name that is no base with an image, or an empty source."""
    named = {}
    for option in options:
        name, separator, source = option.partition("=")
        if not separator or not source:
            raise LabError(
                f"--base {option}: give it as NAME=SOURCE, an image, an archive's path or `packages`: for example "
                "--base alpine=alpine:3.24"
            )
        if name == "scratch":
            raise LabError("--base scratch=...: scratch is empty and has no image")
        if name not in mmdebstrap.RECIPES:
            raise unknown("base", name, mmdebstrap.RECIPES)
        if _is_path(source) and not Path(source).expanduser().is_file():
            raise LabError(f"--base {option}: there is no file {source}")
        named[name] = source
    return named


def parse_registry(text: str) -> str:
    """A registry as HOST[:PORT][/PREFIX]. Raises LabError on what an image's name cannot begin with."""
    host = text.partition("/")[0]
    if "://" in text or not host or not ("." in host or ":" in host or host == "localhost"):
        raise LabError(f"--registry {text}: give HOST:PORT or HOST/PREFIX, without http://")
    return text.rstrip("/")


def _is_path(source: str) -> bool:
    """Whether a source is an archive: a path says so by how it begins or ends, as no image's name does."""
    endings = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")
    return source.startswith(("/", "./", "../", "~")) or source.endswith(endings)


def _names(reference: str, sources: Sources) -> list[str]:
    """The names that an image may have: in a mirror, as Docker Hub has it and as one types it."""
    where = sources.registry
    if not where:
        return [reference]
    host, path = images.split_host(reference)
    if host == images.DOCKER_HUB:
        return [f"{where}/{path}", f"{where}/{path.removeprefix('library/')}"]
    return [f"{where}/{path}", f"{where}/{host}/{path}"]


def _of_registry(name: str, candidates: list[str], origin: _Origin, say: Callable[[str], None]) -> Provenance:
    """The image that a registry has under the first of the names that it knows, or with the origin's `manifest`, where
    there is one, as its digest."""
    host, manifest = images.split_host(candidates[0])[0], origin.manifest
    names = [f"{_repository(each)}@{manifest}" for each in candidates] if manifest else candidates
    try:
        with _way_to(host, names) as (where, digest):
            own = _own_name(name, digest)
            image = images.find_image(own)
            if image is None:
                say(f"{name}: pulling {origin.reference} from {host} ({digest[:19]})")
                image = images.pull(f"{_repository(where)}@{digest}", own, host, _progress(name, say))
    except RegistryError as error:
        if not (manifest and error.missing):
            raise
        with _way_to(host, candidates) as (_, serves):
            if serves == manifest:  # what is missing is a part of it
                raise error
            raise LabError(
                f"{name}: this run recorded {origin.reference} as {manifest}, {host} has it as {serves} and not the "
                "recorded one; ask the registry that it came from, or begin a new run with --run NAME"
            ) from None
    # By way of a registry of the lab's own on 127.0.0.1 nobody else can pull it.
    pulled = f"{_repository(where)}@{digest}" if images.split_host(where)[0] == host else ""
    return _describe(name, image, own, replace(origin, source=f"registry {host}", manifest=digest, pulled=pulled))


_silent: dict[str, RegistryError] = {}  # what did not answer is not asked again: each time may take seconds


@contextmanager
def _way_to(host: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """The first of the names that a registry knows, as the engine reaches it, and the digest of its manifest.

    Where the engine has no way to the registry and the lab does (a proxy, a company's certificate authority, neither
    of which an engine takes from its client), that is through a pull-through registry of the lab's own on 127.0.0.1.
    Raises RegistryError.
    """
    if host in _silent:
        raise _silent[host]
    with ExitStack() as stack:
        try:
            found = _first_known(names, host)
        except RegistryError as error:
            if error.answered:
                raise
            try:
                through = stack.enter_context(local_registry.serve(upstream=host))
                found = _first_known([f"{through.address}/{images.split_host(each)[1]}" for each in names], host)
            except RegistryError as no:
                # What went wrong behind the lab's own registry is a fault of that one, in its words.
                raise (no if no.answered and not no.failed else error) from None
            except LabError:
                _silent[host] = error
                raise error from None
        yield found


def _first_known(names: list[str], host: str) -> tuple[str, str]:
    """The first of the names that the registry has, and the digest that it has it under. Raises RegistryError."""
    digest_of = podman.manifest_digest if client.is_podman() else images.manifest_digest
    *others, last = names
    for name in others:
        try:
            return name, digest_of(name, host)
        except RegistryError as error:
            if not error.missing:
                raise
    return last, digest_of(last, host)


def _repository(reference: str) -> str:
    """A reference without its tag and its digest."""
    return parse_repository_tag(parse_repository_tag(reference)[0])[0]


def _own_name(name: str, digest: str, kind: str = "") -> str:
    return f"{client.repository(name)}:{kind}{digest.removeprefix('sha256:')[:12]}"


def _progress(name: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Tells of a pull every five seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            say(f"{name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return tell


def _of_archive(name: str, path: Path, say: Callable[[str], None]) -> Provenance:
    digest = files.sha256(path)
    own = _own_name(name, digest, "archive-")
    image = images.find_image(own)
    if image is None:
        say(f"{name}: importing {path.name}")
        image = archives.load(path, name, own.rpartition(":")[2])
    return _describe(name, image, own, _Origin(f"archive {path.name}", "named by the user", f"sha256:{digest}"))


def _as_recorded(
    name: str, sources: Sources, recorded: dict, say: Callable[[str], None], ca: Path | None
) -> Provenance:
    """What a run that goes on began with, and nothing else in its place."""
    origin = _Origin(*(recorded[each] for each in ("source", "why", "reference", "manifest")))
    if origin.source == mmdebstrap.SOURCE:
        return _of_packages(name, sources, origin.why, say, ca)
    if origin.manifest:
        own = _own_name(name, origin.manifest)
        if image := images.find_image(own):
            return _describe(name, image, own, replace(origin, pulled=recorded.get("pulled", "")))
        return _of_registry(name, _names(origin.reference, sources), origin, say)
    build_name = recorded.get("image") or _own_name(name, origin.reference, "archive-")
    image = images.find_image(build_name)
    if image is None or image.id != recorded["digest"]:
        now = f"has as {image.id[7:19]} now" if image else "has no longer"
        raise LabError(
            f"{name}: this run began with {recorded['label']} ({origin.source}, {recorded['digest'][7:19]}), "
            f"which the engine {now}; give it again with --base {name}=SOURCE, or begin a new run with --run NAME"
        )
    return _describe(name, image, build_name, origin)


def _of_packages(name: str, sources: Sources, why: str, say: Callable[[str], None], ca: Path | None) -> Provenance:
    made = mmdebstrap.make(name, sources.debian, say, ca)
    origin = _Origin(mmdebstrap.SOURCE, why, matrix.reference(name, sources.debian))
    return _describe(name, images.find_image(made), made, origin)


def _describe(name: str, image: Image, build_name: str, origin: _Origin) -> Provenance:
    about = inspection.image(image.attrs)
    if about.architecture not in ("amd64", "x86_64"):
        raise LabError(f"{name}: {origin.reference} is for {about.architecture}; the lab builds for x86_64 only")
    installed, release = package_db.read_packages(image.id)
    stand_in = about.labels.get(client.STAND_IN_LABEL, "")
    if stand_in:
        label = stand_in
    elif origin.source == mmdebstrap.SOURCE:
        label = f"{mmdebstrap.RECIPES[name].label}, {release}"
    else:
        label = release if origin.source.startswith("archive ") and release else origin.reference.partition("@")[0]
    about_it = {"label": label, "release": release or UNKNOWN, "stand_in": bool(stand_in), "packages": installed}
    return Provenance(name, build_name, image.id, **vars(origin), **about_it)
