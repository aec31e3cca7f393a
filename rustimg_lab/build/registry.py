"""Base images of a registry: pulled by digest, through one of the lab's own where the engine has no way there."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from docker.utils import parse_repository_tag

from rustimg_lab.build.origins import ImageRequest, Origin
from rustimg_lab.engine import client, images, local_registry, podman
from rustimg_lab.engine.images import RegistryError
from rustimg_lab.errors import LabError
from rustimg_lab.host import process, tools
from rustimg_lab.model.architecture import NATIVE, Architecture

_silent: dict[str, RegistryError] = {}  # what did not answer is not asked again: each time may take seconds


def parse(text: str) -> str:
    """Return a registry as HOST[:PORT][/PREFIX]. Raises LabError on what an image's name cannot begin with."""
    host = text.partition("/")[0]
    if "://" in text or not host or not ("." in host or ":" in host or host == "localhost"):
        raise LabError(f"--registry {text}: give HOST:PORT or HOST/PREFIX, without http://")
    return text.rstrip("/")


def obtain(request: ImageRequest) -> Origin:
    """Pull an image, unless the engine has it, by the digest that a run recorded, or under its first name that the
    registry knows. Raises RegistryError, and LabError when the registry has another image under the recorded name."""
    origin, candidates = request.origin, names(request.origin.reference, request.sources.registry)
    if origin.manifest and images.find_image(image_name := request.own_name(origin.manifest)):
        return request.obtained(image_name)
    host = images.split_host(candidates[0])[0]
    try:
        with _find_name(host, [_pin_digest(name, origin.manifest) for name in candidates]) as (reference, digest):
            digest = _platform_digest(reference, digest, request.architecture)
            image_name = request.own_name(digest)
            if not images.find_image(image_name):
                request.say(f"{request.name}: pulling {origin.reference} from {host} ({digest[:19]})")
                platform = f"linux/{request.architecture.debian}"
                images.pull(_pin_digest(reference, digest), image_name, host, _progress(request), platform)
    except RegistryError as error:
        if not (origin.manifest and error.missing):
            raise
        with _find_name(host, candidates) as (_, served_digest):
            if served_digest == origin.manifest:  # what is missing is a part of it
                raise error
            raise LabError(
                f"{request.name}: this run recorded {origin.reference} as {origin.manifest}, {host} has it as "
                f"{served_digest} and not the recorded one; ask the registry that it came from, or begin a new run "
                "with --run NAME"
            ) from None
    # By way of a registry of the lab's own on 127.0.0.1 nobody else can pull it.
    pulled = _pin_digest(reference, digest) if images.split_host(reference)[0] == host else ""
    return request.obtained(image_name, source=f"registry {host}", manifest=digest, pulled=pulled)


def _platform_digest(reference: str, digest: str, architecture: Architecture) -> str:
    """Return the digest by which an image is pulled. Of an index that is the image for the architecture, if the engine
    keeps both images of an index under one name. By that name such an engine reports only on its own architecture."""
    if architecture is NATIVE or not client.engine_info().keeps_in_containerd:
        return digest
    try:
        text = process.run([*tools.buildx_command(), "imagetools", "inspect", "--raw", _pin_digest(reference, digest)])
        return local_registry.digest_in_index(json.loads(text), architecture.debian) or digest
    except (LabError, ValueError):  # where only the engine has a way to the registry, what it pulled is seen later
        return digest


def names(reference: str, mirror: str) -> list[str]:
    """Return the names that an image may have: its own, or two in a `mirror`. For Docker Hub these are with and without
    `library/`, for other registries without and with their host."""
    if not mirror:
        return [reference]
    host, path = images.split_host(reference)
    if host == images.DOCKER_HUB:
        return [f"{mirror}/{path}", f"{mirror}/{path.removeprefix('library/')}"]
    return [f"{mirror}/{path}", f"{mirror}/{host}/{path}"]


@contextmanager
def _find_name(host: str, candidates: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the first of the names that a registry knows, as the engine reaches it, and the digest of its manifest.
    Raises RegistryError.

    If the engine has no way to the registry and the lab does, the way is a pull-through registry of the lab's own on
    127.0.0.1. A proxy and a company's certificate authority are such ways, which no engine takes from its client.
    """
    if host in _silent:
        raise _silent[host]
    with ExitStack() as stack:
        try:
            answer = _first_known(candidates, host)
        except RegistryError as error:
            if error.answered:
                raise
            try:
                relay = stack.enter_context(local_registry.serve(upstream=host))
                answer = _first_known([f"{relay.address}/{images.split_host(name)[1]}" for name in candidates], host)
            except RegistryError as relay_error:
                # What went wrong behind the lab's own registry is a fault of that one, in its words.
                raise (relay_error if relay_error.answered and not relay_error.failed else error) from None
            except LabError:
                _silent[host] = error
                raise error from None
        yield answer


def _first_known(candidates: list[str], host: str) -> tuple[str, str]:
    """The first of the names that the registry has, and the digest that it has it under. Raises RegistryError.

    Some registries refuse a name that they do not have, so that nobody learns which there are.
    """
    digest_of = podman.manifest_digest if client.is_podman() else images.manifest_digest
    errors = []
    for name in candidates:
        try:
            return name, digest_of(name, host)
        except RegistryError as error:
            if not (error.missing or error.refused):
                raise
            errors.append(error)
    raise next((error for error in errors if error.refused), errors[-1])


def _pin_digest(reference: str, digest: str) -> str:
    """A reference with a digest in place of its tag and its own digest; as it is where there is none to put there."""
    repository = parse_repository_tag(parse_repository_tag(reference)[0])[0]
    return f"{repository}@{digest}" if digest else reference


def _progress(request: ImageRequest) -> Callable[[int, int], None]:
    """Tells of a pull every five seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            request.say(f"{request.name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return tell
