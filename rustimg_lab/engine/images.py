"""Images of the engine: found, pulled, loaded, saved, read and removed; and what a registry answers."""

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import cramjam
from docker.auth import INDEX_NAME, load_config, resolve_repository_name
from docker.errors import APIError, ImageLoadError, ImageNotFound, NullResource
from docker.models.images import Image
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException, Timeout

from rustimg_lab.engine import client, containers, inspection
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, proxy

REGISTRY_TIMEOUT_S = 30
DOCKER_HUB = "docker.io"
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# What a registry's answer is: the HTTP status that it gave, what engines say of it, and what a user reads.
_ANSWERS = {
    "elsewhere": ((), "no matching manifest|no match for platform",
        "has {reference} for other architectures only ({cause})"),
    "limited": ((429,), "toomanyrequests|rate limit",
        "refuses {reference} for now, since its rate limit is reached ({cause}); wait, log in with "
        "`docker login {host}`, or name a mirror with --registry HOST"),
    "strange": ((511,), "invalid character|unexpected end of JSON|unmarshalling|missing signature key|<html|<!DOCTYPE|"
        "unexpected media type|^unknown:$|HTTP response to HTTPS client|does not look like a TLS handshake",
        "did not give {reference}: what answers there is no registry ({cause}); check whether the network wants a "
        "login, and the registry's name"),
    "missing": ((404,), "manifest unknown|name unknown", "has no {reference}"),
    "refused": ((401, 403), "unauthorized|denied|no basic auth",
        "refuses {reference} ({cause}); log in with `docker login {host}`"),
    "failed": (range(500, 600), "error from registry|unknown blob|not found$",
        "did not give {reference}, by a fault of its own ({cause}); call again later"),
    "silent": ((), "",
        "did not give {reference}: it does not answer ({cause}); check the network, or name another: --registry HOST"),
}  # fmt: skip


class RegistryError(LabError):
    """A registry that did not give an image. `answered`: it said no, or that it failed, in place of nothing; `missing`:
    it has no such name; `refused`: not to this user; `failed`: by a fault of its own; `cause`: what was said last."""

    def __init__(self, host: str, reference: str, error: RequestException):
        message = " ".join(proxy.redact(str(getattr(error, "explanation", "") or error)).split())
        statuses = re.findall(r"(?:HTTP(?: status:)?|unexpected status.*:) (\d{3})\b", message)
        engine_status = getattr(error, "status_code", None) or 500  # 500 is of any fault
        status = int(statuses[-1]) if statuses else engine_status if engine_status < 500 else 0
        kind, text = next(
            (kind, text)
            for kind, (codes, words, text) in _ANSWERS.items()
            if status in codes or re.search(words, message, re.I)
        )
        self.answered = kind not in ("strange", "silent")
        self.missing, self.refused, self.failed = (kind == name for name in ("missing", "refused", "failed"))
        reason = message.rpartition(": ")[2].strip('"')
        self.cause = "a web page" if reason.startswith("<") else reason or "no reason given"
        if isinstance(error, Timeout):
            self.cause = f"not within {REGISTRY_TIMEOUT_S} s"
        super().__init__(f"registry {host} {text.format(host=host, reference=reference, cause=self.cause)}")


def inspect(image: str) -> inspection.ImageInfo:
    """Return what the engine knows of an image, by its name or id. Raises docker's ImageNotFound when it has none."""
    return inspection.image(client.connect().images.get(image).attrs)


def find_image(reference: str) -> Image | None:
    """Return the image of that name or id in the engine; None when there is none."""
    try:
        return client.connect().images.get(reference)
    except (ImageNotFound, NullResource):
        return None


def command(image: str) -> list[str]:
    """Return the program that an image runs by default, and its arguments; empty when it names none."""
    return list(inspect(image).command)


def command_under(image: str, tool: Sequence[str]) -> list[str]:
    """Return the command of an image with a tool before its program, behind the init (`tini --`) where it has one."""
    words = command(image)
    position = 2 if words[1:2] == ["--"] else 0
    return [*words[:position], *tool, *words[position:]]


def contents_digest(image: str) -> str:
    """Return a digest of what an image contains: of its unpacked layers, or of what it was made of where a label has
    that. Unlike the image's id, the digest does not depend on when the image was made."""
    info = inspect(image)
    if made_of := info.labels.get(client.MADE_OF_LABEL):
        return made_of
    return hashlib.sha256("\n".join(info.layers).encode()).hexdigest()


def import_rootfs(archive: Path, unpacked_bytes: int, name: str, tag: str, changes: list[str]) -> Image:
    """Make an image of one layer from a root file system archive, with the lab's label and `changes` (Dockerfile
    lines). Raises LabError when the import fails, and DiskFull."""
    changes = [*changes, f"LABEL {client.IMAGE_LABEL}={client.lab_id()}"]
    repository, api = client.repository(name), client.connect().api
    with _require_space(archive.name, unpacked_bytes):
        api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes)
    return client.connect().images.get(f"{repository}:{tag}")


def load_image(archive: Path, name: str) -> Image:
    """Load an archive of one image, and return the image, which the archive names `name`. Raises LabError when the
    import fails, and DiskFull."""
    with _require_space(archive.name, archive.stat().st_size), archive.open("rb") as file:
        client.connect().images.load(file)
    return client.connect().images.get(name)


@contextmanager
def _require_space(name: str, needed_bytes: int) -> Iterator[None]:
    """Raises DiskFull where the engine's disk is full before all of it is there."""
    try:
        yield
    except (APIError, ImageLoadError) as error:
        if not files.is_full(str(error)):
            raise LabError(f"{name} could not be imported: {str(error).splitlines()[0][:200]}") from error
        raise files.DiskFull(f"{name} could not be imported", client.data_folders(), needed_bytes) from error


def split_host(reference: str) -> tuple[str, str]:
    """Return the registry's host and the path of a reference; on Docker Hub an official image's path begins with
    `library/`."""
    host, path = resolve_repository_name(reference)
    return (DOCKER_HUB, path if "/" in path else f"library/{path}") if host == INDEX_NAME else (host, path)


def manifest_digest(reference: str, host: str) -> str:
    """Return an image's digest in its registry, which the engine requests. Raises RegistryError, which names `host`."""
    try:
        return client.connect(REGISTRY_TIMEOUT_S).images.get_registry_data(reference).id
    except RequestException as error:
        raise RegistryError(host, reference, error) from error


def pull(
    reference: str, name: str, host: str, on_progress: Callable[[int, int], None], platform: str | None = None
) -> Image:
    """Pull an image by digest and name it `name`, a name of the lab's. The name that it was pulled by stays only if it
    was there before.

    `platform` selects an image of an index (default: the engine's). `on_progress` gets the bytes done and in total, of
    the layers known so far. Raises RegistryError, which names `host`.
    """
    previous = find_image(reference)
    layers: dict[str, tuple[int, int]] = {}
    try:
        for event in client.connect().api.pull(
            *parse_repository_tag(reference), stream=True, decode=True, platform=platform
        ):
            if "error" in event:
                raise APIError(event["error"])
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and "total" in detail:
                layers[event["id"]] = detail["current"], detail["total"]
                on_progress(*map(sum, zip(*layers.values(), strict=True)))
    except RequestException as error:
        raise RegistryError(host, reference, error) from error
    client.connect().images.get(reference).tag(*name.rsplit(":", 1))
    if not previous:
        client.connect().images.remove(reference, noprune=True)
    elif previous.id != find_image(name).id:  # the user's was of another architecture: it gets its name back
        client.connect().images.pull(reference, platform=f"linux/{inspect(previous.id).architecture}")
    return client.connect().images.get(name)


def push(image: str, repository: str) -> tuple[str, str]:
    """Push an image to a repository of a registry by a new tag, which the engine does not keep. Returns the tag, and
    the image's digest there ("" when the engine reports none). Raises LabError when engine or registry refuse."""
    tag = uuid.uuid4().hex[:12]
    with client.readable_errors():
        client.connect().images.get(image).tag(repository, tag)
        try:
            events = list(client.connect().images.push(repository, tag, stream=True, decode=True))
        finally:
            client.connect().images.remove(f"{repository}:{tag}", noprune=True)
    if errors := [event["error"] for event in events if "error" in event]:
        raise LabError(f"the registry at {split_host(repository)[0]} did not take an image: {proxy.redact(errors[0])}")
    return tag, next((event["aux"]["Digest"] for event in events if "Digest" in (event.get("aux") or {})), "")


def login(host: str) -> dict[str, str]:
    """Return the docker client's login at a registry, with the keys `username` and `password`; empty when there is
    none."""
    config = load_config().resolve_authconfig(host) or {}
    credentials = {key.lower(): value for key, value in config.items()}  # of a helper for logins, with capitals
    return {key: credentials[key] for key in ("username", "password") if credentials.get(key)}


def read_files(image: str, is_wanted: Callable[[tarfile.TarInfo], bool]) -> Iterator[tuple[str, io.BytesIO]]:
    """Yield the path and the content of each file of an image for which `is_wanted` holds."""
    with _open_export(image) as archive:
        yield from (
            (member.name, io.BytesIO(archive.extractfile(member).read())) for member in archive if is_wanted(member)
        )


def list_files(image: str) -> list[tarfile.TarInfo]:
    """Return every file, folder and link of an image, as a container of the image has them."""
    with _open_export(image) as archive:
        return archive.getmembers()


@contextmanager
def _open_export(image: str) -> Iterator[tarfile.TarFile]:
    with containers.created(image, command=["nothing"]) as container, tempfile.TemporaryFile() as file:
        file.writelines(container.export())
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            yield archive


@contextmanager
def open_layers(image: str) -> Iterator[tuple[dict[str, Any], list[IO[bytes]]]]:
    """Yield an image's configuration and the unpacked archives of its layers, the lowest first, for use in the block.
    An engine with containerd's store saves layers as they came: some compressed, some not. Raises LabError when what
    the engine saved does not match the image's configuration."""
    with tempfile.TemporaryFile() as file, ExitStack() as stack:
        file.writelines(client.connect().images.get(image).save())
        file.seek(0)
        archive = stack.enter_context(tarfile.open(fileobj=file))
        try:
            (manifest,) = json.load(archive.extractfile("manifest.json"))
            config = json.load(archive.extractfile(manifest["Config"]))
            layers = [_open_layer(stack, archive.extractfile(name)) for name in manifest["Layers"]]
            diff_ids = config["rootfs"]["diff_ids"]
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"the engine saved image {image[:19]} in a form that cannot be read ({error!r})") from None
        digests = [f"sha256:{hashlib.file_digest(layer, 'sha256').hexdigest()}" for layer in layers]
        if digests != diff_ids:
            raise LabError(f"the engine saved other layers of image {image[:19]} than its configuration names")
        for layer in layers:
            layer.seek(0)
        yield config, layers


def _open_layer(stack: ExitStack, layer: IO[bytes]) -> IO[bytes]:
    """A layer's archive, decompressed where it is gzip or zstd; what that takes is closed by `stack`."""
    magic = layer.read(4)
    layer.seek(0)
    if not magic.startswith((GZIP_MAGIC, ZSTD_MAGIC)):
        return layer
    file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the other files)
    stack.callback(file.close)
    if magic.startswith(GZIP_MAGIC):
        with gzip.open(layer) as unpacked:
            shutil.copyfileobj(unpacked, file, 1 << 20)
    else:
        file.write(cramjam.zstd.decompress(layer.read()))
    file.seek(0)
    return file


@lru_cache(8)
def archive(image: str, path: str) -> bytes:
    """Return a folder of an image (by id) as a tar archive that begins with the folder's own name."""
    with containers.created(image, command=["nothing"]) as container:
        return b"".join(container.get_archive(path)[0])


def remove_images() -> tuple[int, list[str]]:
    """Remove, by id, the images that have this clone's label and only names of the lab; and, by name, those that the
    lab pulled.

    An image that a user built on one of the lab's inherits its label; it has a name of the user's and stays. Returns
    the number removed, and a line on each that was kept.
    """
    api, removed_count, notes = client.connect().images, 0, []
    labelled_images = api.list(all=False, filters={"label": f"{client.IMAGE_LABEL}={client.lab_id()}"})
    # What stands on another is newer, and goes first. The engine's own order is by the second.
    labelled_images.sort(key=lambda image: inspection.image(image.attrs).created, reverse=True)
    for image in labelled_images:
        foreign_tags = [tag for tag in image.tags if not _is_ours(tag)]
        our_tags = [tag for tag in image.tags if _is_ours(tag)]
        try:
            if foreign_tags:
                for tag in our_tags:
                    api.remove(tag, noprune=True)
                notes.append(f"{foreign_tags[0]}: carries the lab's label, but a name that the lab did not give")
            elif user_tag := _find_child_image(image, labelled_images):  # not every engine refuses to remove it
                notes.append(f"{(our_tags or [image.short_id])[0]}: {user_tag} is built on it")
            else:
                for tag in our_tags[1:]:
                    api.remove(tag, noprune=True)
                api.remove(image.id, noprune=True)  # else nameless images below it would go too, whosever they are
                removed_count += 1
        except ImageNotFound:
            removed_count += 1  # it went with the last image that stood on it
        except APIError as error:
            notes.append(f"{(image.tags or [image.short_id])[0]}: {error.explanation}")
    for summary in client.connect().api.images():
        pulled_tags = [tag for tag in summary.get("RepoTags") or [] if _is_ours(tag)]
        labels = summary.get("Labels") or {}
        if pulled_tags and client.IMAGE_LABEL not in labels:  # the official one: other names of it stay
            try:
                for tag in pulled_tags:
                    api.remove(tag, noprune=True)
                removed_count += 1
            except APIError as error:
                notes.append(f"{pulled_tags[0]}: {error.explanation}")
    return removed_count, notes


def plain_name(tag: str) -> str:
    """Return the name that the lab gave an image, without the host that Podman puts before it."""
    return tag.removeprefix("docker.io/").removeprefix("localhost/")


def _is_ours(tag: str) -> bool:
    return plain_name(tag).startswith(client.repository(""))


def _find_child_image(image: Image, labelled_images: list[Image]) -> str:
    """Return the user's name of an image that begins with the layers of `image`, and so inherited its label; or ""."""
    lower, *infos = (inspection.image(candidate.attrs) for candidate in (image, *labelled_images))
    upper = (info for info in infos if info.id != lower.id and info.layers[: len(lower.layers)] == lower.layers)
    return next((name for info in upper if lower.layers for name in info.names if not _is_ours(name)), "")
