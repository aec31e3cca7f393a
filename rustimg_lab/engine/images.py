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
        said = " ".join(proxy.redact(str(getattr(error, "explanation", "") or error)).split())
        passed_on = re.findall(r"(?:HTTP(?: status:)?|unexpected status.*:) (\d{3})\b", said)
        engines = getattr(error, "status_code", None) or 500  # 500 is of any fault
        status = int(passed_on[-1]) if passed_on else engines if engines < 500 else 0
        kind, text = next(
            (kind, text)
            for kind, (codes, words, text) in _ANSWERS.items()
            if status in codes or re.search(words, said, re.I)
        )
        self.answered = kind not in ("strange", "silent")
        self.missing, self.refused, self.failed = (kind == each for each in ("missing", "refused", "failed"))
        last = said.rpartition(": ")[2].strip('"')
        self.cause = "a web page" if last.startswith("<") else last or "no reason given"
        if isinstance(error, Timeout):
            self.cause = f"not within {REGISTRY_TIMEOUT_S} s"
        super().__init__(f"registry {host} {text.format(host=host, reference=reference, cause=self.cause)}")


def inspect(image: str) -> inspection.ImageInfo:
    """Ask the engine about an image, by its name or id. Raises docker's ImageNotFound when it has none."""
    return inspection.image(client.connect().images.get(image).attrs)


def find_image(reference: str) -> Image | None:
    """The image of that name or id in the local engine, if it is there."""
    try:
        return client.connect().images.get(reference)
    except (ImageNotFound, NullResource):
        return None


def command(image: str) -> list[str]:
    """What an image runs unless it is told otherwise: the program, and its arguments; empty where it names none."""
    return list(inspect(image).command)


def command_under(image: str, tool: Sequence[str]) -> list[str]:
    """Return what an image runs with a tool before its program, behind the init (`tini --`) where it has one."""
    whole = command(image)
    at = 2 if whole[1:2] == ["--"] else 0
    return [*whole[:at], *tool, *whole[at:]]


def contents_digest(image: str) -> str:
    """A digest of an image's unpacked layers, or of what a label says it was made of; unlike its id without a time."""
    found = inspect(image)
    if made_of := found.labels.get(client.MADE_OF_LABEL):
        return made_of
    return hashlib.sha256("\n".join(found.layers).encode()).hexdigest()


def import_rootfs(archive: Path, unpacked_bytes: int, name: str, tag: str, changes: list[str]) -> Image:
    """Makes an image of one layer from a root file system archive, with our label and `changes` (Dockerfile lines)."""
    changes = [*changes, f"LABEL {client.IMAGE_LABEL}={client.lab_id()}"]
    repository, api = client.repository(name), client.connect().api
    with _room_for(archive.name, unpacked_bytes):
        api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=changes)
    return client.connect().images.get(f"{repository}:{tag}")


def load_image(archive: Path, name: str) -> Image:
    """Loads an archive of one image, which names it `name`."""
    with _room_for(archive.name, archive.stat().st_size), archive.open("rb") as file:
        client.connect().images.load(file)
    return client.connect().images.get(name)


@contextmanager
def _room_for(what: str, needed_bytes: int) -> Iterator[None]:
    """Raises DiskFull where the engine's disk is full before all of it is there."""
    try:
        yield
    except (APIError, ImageLoadError) as error:
        if not files.is_full(str(error)):
            raise LabError(f"{what} could not be imported: {str(error).splitlines()[0][:200]}") from error
        raise files.DiskFull(f"{what} could not be imported", client.data_folders(), needed_bytes) from error


def split_host(reference: str) -> tuple[str, str]:
    """A reference as its registry's host and the path there, as Docker Hub has it (`library/`) where it is that."""
    host, path = resolve_repository_name(reference)
    return (DOCKER_HUB, path if "/" in path else f"library/{path}") if host == INDEX_NAME else (host, path)


def manifest_digest(reference: str, host: str) -> str:
    """The digest that a registry has an image under, asked for by the engine. Raises RegistryError, naming `host`."""
    try:
        return client.connect(REGISTRY_TIMEOUT_S).images.get_registry_data(reference).id
    except RequestException as error:
        raise RegistryError(host, reference, error) from error


def pull(
    reference: str, name: str, host: str, on_progress: Callable[[int, int], None], platform: str | None = None
) -> Image:
    """Pulls an image by digest and names it `name`, which is ours; no other name stays that was not there before.
    `platform` selects one of an index (default: the engine's). `on_progress` hears of bytes done and in all, of layers
    known so far. Raises RegistryError, naming `host`."""
    before = find_image(reference)
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
    if not before:
        client.connect().images.remove(reference, noprune=True)
    elif before.id != find_image(name).id:  # the user's was of another architecture: it gets its name back
        client.connect().images.pull(reference, platform=f"linux/{inspect(before.id).architecture}")
    return client.connect().images.get(name)


def push(image: str, repository: str) -> tuple[str, str]:
    """Push an image to a repository of a registry by a new tag, of which the engine keeps nothing. Returns the tag, and
    the image's digest there. Raises LabError when engine or registry refuse."""
    tag = uuid.uuid4().hex[:12]
    with client.readable_errors():
        client.connect().images.get(image).tag(repository, tag)
        try:
            events = list(client.connect().images.push(repository, tag, stream=True, decode=True))
        finally:
            client.connect().images.remove(f"{repository}:{tag}", noprune=True)
    if refused := [event["error"] for event in events if "error" in event]:
        raise LabError(f"the registry at {split_host(repository)[0]} did not take an image: {proxy.redact(refused[0])}")
    return tag, next((each["aux"]["Digest"] for each in events if "Digest" in (each.get("aux") or {})), "")


def login(host: str) -> dict[str, str]:
    """The docker client's login at a registry, as `username` and `password`; empty where there is none."""
    found = load_config().resolve_authconfig(host) or {}
    told = {key.lower(): value for key, value in found.items()}  # of a helper for logins, with capitals
    return {key: told[key] for key in ("username", "password") if told.get(key)}


def read_files(image: str, wanted: Callable[[tarfile.TarInfo], bool]) -> Iterator[tuple[str, io.BytesIO]]:
    """The files of an image that are `wanted`, each by its path and what is in it."""
    with _exported(image) as archive:
        yield from ((m.name, io.BytesIO(archive.extractfile(m).read())) for m in archive if wanted(m))


def list_files(image: str) -> list[tarfile.TarInfo]:
    """Every file, folder and link of an image, as a container of it has them."""
    with _exported(image) as archive:
        return archive.getmembers()


@contextmanager
def _exported(image: str) -> Iterator[tarfile.TarFile]:
    with containers.created(image, command=["nothing"]) as container, tempfile.TemporaryFile() as file:
        file.writelines(container.export())
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            yield archive


@contextmanager
def saved(image: str) -> Iterator[tuple[dict[str, Any], list[IO[bytes]]]]:
    """An image's configuration and the archives of its layers, unpacked (an engine may save some compressed), lowest
    first, in the block. Raises LabError when they are not those that the configuration names."""
    with tempfile.TemporaryFile() as file, ExitStack() as opened:
        file.writelines(client.connect().images.get(image).save())
        file.seek(0)
        archive = opened.enter_context(tarfile.open(fileobj=file))
        try:
            (manifest,) = json.load(archive.extractfile("manifest.json"))
            config = json.load(archive.extractfile(manifest["Config"]))
            layers = [_unpacked(opened, archive.extractfile(name)) for name in manifest["Layers"]]
            diff_ids = config["rootfs"]["diff_ids"]
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"the engine saved image {image[:19]} in a form that cannot be read ({error!r})") from None
        digests = [f"sha256:{hashlib.file_digest(layer, 'sha256').hexdigest()}" for layer in layers]
        if digests != diff_ids:
            raise LabError(f"the engine saved other layers of image {image[:19]} than its configuration names")
        for layer in layers:
            layer.seek(0)
        yield config, layers


def _unpacked(opened: ExitStack, layer: IO[bytes]) -> IO[bytes]:
    """A layer's archive, decompressed where it is gzip or zstd; what that takes is closed by `opened`."""
    magic = layer.read(4)
    layer.seek(0)
    if not magic.startswith((GZIP_MAGIC, ZSTD_MAGIC)):
        return layer
    file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the other files)
    opened.callback(file.close)
    if magic.startswith(GZIP_MAGIC):
        with gzip.open(layer) as unpacked:
            shutil.copyfileobj(unpacked, file, 1 << 20)
    else:
        file.write(cramjam.zstd.decompress(layer.read()))
    file.seek(0)
    return file


@lru_cache(8)
def archive(image: str, path: str) -> bytes:
    """A folder of an image, which is named by its id, as a tar archive that begins with the folder's own name."""
    with containers.created(image, command=["nothing"]) as container:
        return b"".join(container.get_archive(path)[0])


def remove_images() -> tuple[int, list[str]]:
    """Removes, by id, the images with this clone's label and no name but ours (a user's image on one of ours inherits
    the label), and what it pulled, by name. Returns the number removed, and a line on each that was kept."""
    api, removed, kept = client.connect().images, 0, []
    labelled = api.list(all=False, filters={"label": f"{client.IMAGE_LABEL}={client.lab_id()}"})
    # What stands on another is newer, and goes first. The engine's own order is by the second.
    labelled.sort(key=lambda image: inspection.image(image.attrs).created, reverse=True)
    for image in labelled:
        foreign = [tag for tag in image.tags if not _is_ours(tag)]
        own = [tag for tag in image.tags if _is_ours(tag)]
        try:
            if foreign:
                for tag in own:
                    api.remove(tag, noprune=True)
                kept.append(f"{foreign[0]}: carries the lab's label, but a name that the lab did not give")
            elif users := _built_on(image, labelled):  # not every engine refuses to remove it
                kept.append(f"{(own or [image.short_id])[0]}: {users} is built on it")
            else:
                for tag in own[1:]:
                    api.remove(tag, noprune=True)
                api.remove(image.id, noprune=True)  # else nameless images below it would go too, whosever they are
                removed += 1
        except ImageNotFound:
            removed += 1  # it went with the last image that stood on it
        except APIError as error:
            kept.append(f"{(image.tags or [image.short_id])[0]}: {error.explanation}")
    for summary in client.connect().api.images():
        pulled = [tag for tag in summary.get("RepoTags") or [] if _is_ours(tag)]
        labels = summary.get("Labels") or {}
        if pulled and client.IMAGE_LABEL not in labels:  # the official one: other names of it stay
            try:
                for tag in pulled:
                    api.remove(tag, noprune=True)
                removed += 1
            except APIError as error:
                kept.append(f"{pulled[0]}: {error.explanation}")
    return removed, kept


def plain_name(tag: str) -> str:
    """Return a name of an image as the lab gave it, without the host that Podman puts before it."""
    return tag.removeprefix("docker.io/").removeprefix("localhost/")


def _is_ours(tag: str) -> bool:
    return plain_name(tag).startswith(client.repository(""))


def _built_on(image: Image, labelled: list[Image]) -> str:
    """Return the user's name of an image that begins with the layers of `image`, and so inherited its label; or ""."""
    lower, *others = (inspection.image(each.attrs) for each in (image, *labelled))
    above = (each for each in others if each.id != lower.id and each.layers[: len(lower.layers)] == lower.layers)
    return next((name for each in above if lower.layers for name in each.names if not _is_ours(name)), "")
