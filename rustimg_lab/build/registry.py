"""Base images of a registry: pulled by digest, through one of the lab's own where the engine has no way there."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from docker.utils import parse_repository_tag

from rustimg_lab.build.origins import Origin, Wanted
from rustimg_lab.engine import client, images, local_registry, podman
from rustimg_lab.engine.images import RegistryError
from rustimg_lab.errors import LabError
from rustimg_lab.host import process, tools
from rustimg_lab.model.architecture import NATIVE, Architecture

_silent: dict[str, RegistryError] = {}  # what did not answer is not asked again: each time may take seconds


def parse(text: str) -> str:
    """Read a registry as HOST[:PORT][/PREFIX]. Raises LabError on what an image's name cannot begin with."""
    host = text.partition("/")[0]
    if "://" in text or not host or not ("." in host or ":" in host or host == "localhost"):
        raise LabError(f"--registry {text}: give HOST:PORT or HOST/PREFIX, without http://")
    return text.rstrip("/")


def obtain(wanted: Wanted) -> Origin:
    """Pull an image under the first of its names that the registry knows, or with the digest that a run recorded, when
    the engine has it not. Raises RegistryError, and LabError when the registry has another under the recorded name."""
    origin, candidates = wanted.origin, names(wanted.origin.reference, wanted.sources.registry)
    if origin.manifest and images.find_image(own := wanted.own_name(origin.manifest)):
        return wanted.obtained(own)
    host = images.split_host(candidates[0])[0]
    try:
        with _way_to(host, [_with_digest(each, origin.manifest) for each in candidates]) as (where, digest):
            digest = _of_architecture(where, digest, wanted.architecture)
            own = wanted.own_name(digest)
            if not images.find_image(own):
                wanted.say(f"{wanted.name}: pulling {origin.reference} from {host} ({digest[:19]})")
                platform = f"linux/{wanted.architecture.debian}"
                images.pull(_with_digest(where, digest), own, host, _progress(wanted), platform)
    except RegistryError as error:
        if not (origin.manifest and error.missing):
            raise
        with _way_to(host, candidates) as (_, serves):
            if serves == origin.manifest:  # what is missing is a part of it
                raise error
            raise LabError(
                f"{wanted.name}: this run recorded {origin.reference} as {origin.manifest}, {host} has it as {serves} "
                "and not the recorded one; ask the registry that it came from, or begin a new run with --run NAME"
            ) from None
    # By way of a registry of the lab's own on 127.0.0.1 nobody else can pull it.
    pulled = _with_digest(where, digest) if images.split_host(where)[0] == host else ""
    return wanted.obtained(own, source=f"registry {host}", manifest=digest, pulled=pulled)


def _of_architecture(where: str, digest: str, architecture: Architecture) -> str:
    """The digest by which an image is pulled: of an index that of its image for the architecture, where the engine
    keeps both images of an index under one name, and by that name tells of its own architecture's alone."""
    if architecture is NATIVE or not client.engine_info().keeps_in_containerd:
        return digest
    try:
        said = process.run([*tools.buildx_command(), "imagetools", "inspect", "--raw", _with_digest(where, digest)])
        return local_registry.digest_in_index(json.loads(said), architecture.debian) or digest
    except (LabError, ValueError):  # where only the engine has a way to the registry, what it pulled is seen later
        return digest


def names(reference: str, mirror: str) -> list[str]:
    """Return the names that an image may have: in a mirror, as Docker Hub has it and as one types it."""
    if not mirror:
        return [reference]
    host, path = images.split_host(reference)
    if host == images.DOCKER_HUB:
        return [f"{mirror}/{path}", f"{mirror}/{path.removeprefix('library/')}"]
    return [f"{mirror}/{path}", f"{mirror}/{host}/{path}"]


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
    """The first of the names that the registry has, and the digest that it has it under. Raises RegistryError.

    Some registries refuse a name that they do not have, so that nobody learns which there are.
    """
    digest_of = podman.manifest_digest if client.is_podman() else images.manifest_digest
    failed = []
    for name in names:
        try:
            return name, digest_of(name, host)
        except RegistryError as error:
            if not (error.missing or error.refused):
                raise
            failed.append(error)
    raise next((error for error in failed if error.refused), failed[-1])


def _with_digest(reference: str, digest: str) -> str:
    """A reference with a digest in place of its tag and its own digest; as it is where there is none to put there."""
    repository = parse_repository_tag(parse_repository_tag(reference)[0])[0]
    return f"{repository}@{digest}" if digest else reference


def _progress(wanted: Wanted) -> Callable[[int, int], None]:
    """Tells of a pull every five seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            wanted.say(f"{wanted.name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return tell
