"""The only room that talks to the Docker Engine or runs a process."""

import atexit
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import IO, Any

import cramjam
import docker
from docker.auth import INDEX_NAME, load_config, resolve_repository_name
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageLoadError, ImageNotFound, NotFound, NullResource
from docker.models.containers import Container
from docker.models.images import Image
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException, Timeout  # docker's APIError is a RequestException too

from rustimg_lab import disk, inspection, proxy
from rustimg_lab.errors import LabError
from rustimg_lab.paths import STATE

IMAGE_LABEL = "io.rustimg-lab.id"  # on every image that this clone makes; its value is the clone's id
CONTAINER_LABEL = "io.rustimg-lab.container"  # containers have one of their own, since they inherit their image's
STAND_IN_LABEL = "io.rustimg-lab.stand-in"  # on an image that only stands in for an official one: for which, and how
MADE_OF_LABEL = "io.rustimg-lab.made-of"  # on an image that no build makes twice alike: a digest of what went into it
PID_LABEL = "io.rustimg-lab.pid"  # the lab's process that a container belongs to, as `process_name` calls it

TIMEOUT_S = 600
REGISTRY_TIMEOUT_S = 30
DOCKER_HUB = "docker.io"
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# What a registry's answer is: the HTTP status that it gave, what engines say of it, and what a user reads.
_ANSWERS = {
    "elsewhere": ((), "no matching manifest|no match for platform",
        "has {reference} for other machines only, not for linux/amd64"),
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

_running: set[subprocess.Popen] = set()
_stopping = threading.Event()


class CommandError(LabError):
    """A command that failed: `args_`, `code`, `stdout`, `stderr`; `disk_full`: it said that a disk is full."""

    def __init__(self, args: list[str], code: int, stdout: str, stderr: str):
        self.args_, self.code, self.stdout, self.stderr = args, code, stdout, stderr
        self.disk_full = disk.is_full(stderr)
        said = proxy.redact(stderr.strip() or stdout.strip() or "it printed nothing").splitlines()
        super().__init__(f"'{shlex.join(args[:3])} ...' failed with exit code {code}: {said[-1]}")


class RegistryError(LabError):
    """A registry that did not give an image. `answered`: it said no, or that it failed, in place of nothing; `missing`:
    it has no such name; `failed`: by a fault of its own; `cause`: what was said last."""

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
        self.missing, self.failed = kind == "missing", kind == "failed"
        last = said.rpartition(": ")[2].strip('"')
        self.cause = "a web page" if last.startswith("<") else last or "no reason given"
        if isinstance(error, Timeout):
            self.cause = f"not within {REGISTRY_TIMEOUT_S} s"
        super().__init__(f"registry {host} {text.format(host=host, reference=reference, cause=self.cause)}")


def run(
    args: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float | None = None
) -> str:
    """Runs a command to its end and returns its standard output. Raises CommandError; LabError when there is none, or
    it takes longer than `timeout` (seconds)."""
    env = {**os.environ, **proxy.environment(), **(env or {})}
    try:
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", env=env, cwd=cwd, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise LabError(f"'{args[0]}' did not end within {timeout:.0f} s") from None
    except FileNotFoundError:
        raise LabError(f"there is no command '{args[0]}' on this machine; install it, or see ./lab doctor") from None
    if done.returncode:
        raise CommandError(args, done.returncode, done.stdout, done.stderr)
    return done.stdout


@contextmanager
def background(args: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A command that runs as long as the block does, its output thrown away."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = _start(args, env={**os.environ, **env}, **quiet)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def stream(args: list[str], on_line: Callable[[str], None]) -> int:
    """Runs a command, hands each line of its output on as it comes, and returns its exit code.

    May be called from several threads; `stopping` ends what is running. The command gets a session of its own, so that
    Ctrl-C reaches the lab alone, which then ends the command in order.
    """
    if _stopping.is_set():
        return -signal.SIGINT
    process = _start(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    _running.add(process)
    try:
        for line in process.stdout:
            on_line(line)
        return process.wait()
    finally:
        _running.discard(process)


@contextmanager
def stopping() -> Iterator[None]:
    """Ends every streamed command: by interrupt, and after ten seconds by force. None can start in the block."""
    _stopping.set()
    try:
        for process in list(_running):
            process.send_signal(signal.SIGINT)
        for process in list(_running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        yield
    finally:
        _stopping.clear()


def _start(args: list[str], **options: Any) -> subprocess.Popen:
    """Start a command in a session of its own. It ends when the lab does, however that ends: by the kernel, where
    util-linux can ask it to."""
    tied = ["setpriv", "--pdeathsig=TERM", "--"] if shutil.which("setpriv") else []
    return subprocess.Popen([*tied, *args], start_new_session=True, **options)


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder below `.lab` for as long as the block lasts; what a lab that was killed has left goes first."""
    for left in STATE.glob("work-*"):
        if not lives("-".join(left.name.split("-")[1:3])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix=f"work-{process_name()}-") as folder:
        yield Path(folder)


def process_name() -> str:
    """Return a name for this process that no other process of this clone has: its number and a random word.

    The process holds a lock on a file of that name below `.lab` for as long as it runs. So another lab can tell that
    it runs also from another PID namespace, where its number says nothing.
    """
    return _named_process(os.getpid())


@cache
def _named_process(pid: int) -> str:
    STATE.mkdir(exist_ok=True)
    name = f"{pid}-{uuid.uuid4().hex[:8]}"
    part, lock = STATE / f".process-{name}", STATE / f"process-{name}"
    # Locked before it has its name, and until the process ends: nothing closes it before.
    fcntl.flock(os.open(part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644), fcntl.LOCK_EX)
    part.rename(lock)
    atexit.register(lock.unlink, missing_ok=True)
    return name


@cache
def lab_id() -> str:
    """This clone's id, eight hex digits, made once. It is in the label and the name of all that the clone makes."""
    path = STATE / "id"
    if not path.exists():
        STATE.mkdir(exist_ok=True)
        with suppress(FileExistsError), path.open("x") as file:
            file.write(uuid.uuid4().hex[:8])
    return path.read_text()


def repository(name: str) -> str:
    """The name of an image of ours, without its tag: never one that an official image has."""
    return f"rustimg-lab-{lab_id()}/{name}"


def host() -> str:
    """The address of the engine: DOCKER_HOST, else the docker client's current context."""
    return os.environ.get("DOCKER_HOST") or ContextAPI.get_current_context().Host or "unix:///var/run/docker.sock"


def builder() -> str:
    """The name of the buildx builder that is the engine itself, whichever the user has selected for other work: such a
    one may not see the engine's images."""
    return "default" if os.environ.get("DOCKER_HOST") else ContextAPI.get_current_context().Name


@cache
def client(timeout_s: int = TIMEOUT_S) -> docker.DockerClient:
    """The engine. Raises LabError, in one line, when none answers."""
    address = host()
    connect = docker.DockerClient.from_env if "DOCKER_HOST" in os.environ else partial(docker.DockerClient, address)
    try:
        # Importing a root file system of more than a gigabyte is one call, and may take minutes.
        found = connect(timeout=timeout_s)
        found.ping()
        return found
    except (DockerException, RequestException):
        if shutil.which("nerdctl") and not shutil.which("docker"):
            raise LabError(
                f"nerdctl has no Docker API, and no engine answers at {address}: install and start Docker Engine or "
                "Podman, and set DOCKER_HOST to its socket"
            ) from None
        raise LabError(
            f"no Docker engine answers at {address}: start it (systemctl start docker), check that you may use it "
            "(group docker), or set DOCKER_HOST"
        ) from None


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the engine refuses, as one line; and a command that failed since a disk is full, with which disk that is."""
    try:
        yield
    except CommandError as error:
        if error.disk_full:
            raise disk.DiskFull(f"'{error.args_[0]}' failed", [STATE, *data_folders()], disk.GRID_BYTES) from error
        raise
    except APIError as error:
        if disk.is_full(str(error.explanation)):
            raise disk.DiskFull("the Docker engine refused", data_folders(), disk.GRID_BYTES) from error
        raise LabError(f"the Docker engine refused: {error.explanation or error}") from error
    except RequestException as error:
        raise LabError(f"the Docker engine at {host()} stopped answering ({error}); start it and call again") from error


def explained(error: APIError) -> str:
    """What the engine refused, in its words. Raises what an engine raises that answers nothing else either: that is no
    fault of what it was asked for."""
    client().ping()
    return error.explanation


def data_folders() -> list[Path]:
    """Where the engine keeps what it has, and programs what is temporary, so far as that is on this machine."""
    folder = about().data_folder if host().startswith("unix://") else ""
    return [*([Path(folder)] if folder else []), Path(tempfile.gettempdir())]


def about() -> inspection.EngineInfo:
    """Ask the engine about itself."""
    return inspection.engine(client().info())


def inspect(image: str) -> inspection.ImageInfo:
    """Ask the engine about an image, by its name or id. Raises docker's ImageNotFound when it has none."""
    return inspection.image(client().images.get(image).attrs)


def find_image(reference: str) -> Image | None:
    """The image of that name or id in the local engine, if it is there."""
    try:
        return client().images.get(reference)
    except (ImageNotFound, NullResource):
        return None


def command(image: str) -> list[str]:
    """What an image runs unless it is told otherwise: the program, and its arguments; empty where it names none."""
    return list(inspect(image).command)


def contents_digest(image: str) -> str:
    """A digest of what an image holds: of its layers, unpacked, or of what it was made of where a label tells that. Its
    id changes with the time it was made, this not."""
    found = inspect(image)
    if made_of := found.labels.get(MADE_OF_LABEL):
        return made_of
    return hashlib.sha256("\n".join(found.layers).encode()).hexdigest()


def import_rootfs(archive: Path, unpacked_bytes: int, name: str, tag: str, changes: list[str]) -> Image:
    """Makes an image of one layer from a root file system archive, with our label and `changes` (Dockerfile lines)."""
    changes = [*changes, f"LABEL {IMAGE_LABEL}={lab_id()}"]
    with _room_for(archive.name, unpacked_bytes):
        client().api.import_image_from_file(str(archive), repository=repository(name), tag=tag, changes=changes)
    return client().images.get(f"{repository(name)}:{tag}")


def load_image(archive: Path, name: str) -> Image:
    """Loads an archive of one image, which names it `name`."""
    with _room_for(archive.name, archive.stat().st_size), archive.open("rb") as file:
        client().images.load(file)
    return client().images.get(name)


@contextmanager
def _room_for(what: str, needed_bytes: int) -> Iterator[None]:
    """Raises DiskFull where the engine's disk is full before all of it is there."""
    try:
        yield
    except (APIError, ImageLoadError) as error:
        if not disk.is_full(str(error)):
            raise LabError(f"{what} could not be imported: {str(error).splitlines()[0][:200]}") from error
        raise disk.DiskFull(f"{what} could not be imported", data_folders(), needed_bytes) from error


def split_host(reference: str) -> tuple[str, str]:
    """A reference as its registry's host and the path there, as Docker Hub has it (`library/`) where it is that."""
    host, path = resolve_repository_name(reference)
    return (DOCKER_HUB, path if "/" in path else f"library/{path}") if host == INDEX_NAME else (host, path)


def manifest_digest(reference: str, host: str) -> str:
    """The digest that a registry has an image under, asked for by the engine. Raises RegistryError, naming `host`."""
    try:
        return client(REGISTRY_TIMEOUT_S).images.get_registry_data(reference).id
    except RequestException as error:
        raise RegistryError(host, reference, error) from error


def pull(reference: str, name: str, host: str, on_progress: Callable[[int, int], None]) -> Image:
    """Pulls an image by digest and gives it the name `name`, which is ours; no other stays that was not there before.

    `on_progress` hears of the bytes done and in all, of the layers known so far. Raises RegistryError, naming `host`.
    """
    was_there = find_image(reference) is not None
    layers: dict[str, tuple[int, int]] = {}
    try:
        for event in client().api.pull(*parse_repository_tag(reference), stream=True, decode=True):
            if "error" in event:
                raise APIError(event["error"])
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and "total" in detail:
                layers[event["id"]] = detail["current"], detail["total"]
                on_progress(*map(sum, zip(*layers.values(), strict=True)))
    except RequestException as error:
        raise RegistryError(host, reference, error) from error
    client().images.get(reference).tag(*name.rsplit(":", 1))
    if not was_there:
        client().images.remove(reference, noprune=True)
    return client().images.get(name)


def login(host: str) -> dict[str, str]:
    """The docker client's login at a registry, as `username` and `password`; empty where there is none."""
    found = load_config().resolve_authconfig(host) or {}
    return {key: found[key.capitalize()] for key in ("username", "password") if found.get(key.capitalize())}


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
    with created(image, command=["nothing"]) as container, tempfile.TemporaryFile() as file:
        file.writelines(container.export())
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            yield archive


@contextmanager
def saved(image: str) -> Iterator[tuple[dict[str, Any], list[IO[bytes]]]]:
    """An image's configuration and the archives of its layers, unpacked, the lowest first, for as long as the block
    lasts. Raises LabError when what the engine gave is not what the image's configuration names.

    An engine with containerd's store saves layers as they came: some compressed, some not.
    """
    with tempfile.TemporaryFile() as file, ExitStack() as opened:
        file.writelines(client().images.get(image).save())
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
    with created(image, command=["nothing"]) as container:
        return b"".join(container.get_archive(path)[0])


@contextmanager
def created(image: str, files: bytes = b"", **options: Any) -> Iterator[Container]:
    """A container for as long as the block lasts, not yet started, with `files` (a tar archive for /) in it."""
    container = create_container(image, **options)
    try:
        if files:
            container.put_archive("/", files)
        yield container
    finally:
        remove_container(container)


def create_container(image: str, **options: Any) -> Container:
    """A container with our labels, not yet started; the caller removes it."""
    labels = {CONTAINER_LABEL: lab_id(), PID_LABEL: process_name()}
    # The proxy of the client's configuration is not for what is measured: it talks to 127.0.0.1.
    return client().containers.create(image, labels=labels, use_config_proxy=False, **options)


def exit_code(container: Container, timeout_s: float) -> int | None:
    """The exit code of a container, for whose end is waited; None for one that does not end in time, or is gone."""
    try:
        return container.wait(timeout=timeout_s)["StatusCode"]
    except RequestException:
        return None


def is_running(container: Container) -> bool:
    """Whether a container runs; one that is gone does not."""
    try:
        container.reload()
    except NotFound:
        return False
    return container.status == "running"


def last_words(container: Container) -> str:
    """The last lines that a container printed, to be put behind the reason why it failed; "" when it is gone."""
    try:
        lines = container.logs(tail=8).decode(errors="replace").split("\n")
    except NotFound:
        return ""
    return "".join(f"; {line.strip()}" for line in lines if line.strip())


def remove_container(container: Container) -> None:
    """Removes a container, running or not; one that is gone already, or just being removed, is no error."""
    try:
        with suppress(APIError):  # it does not run
            container.kill()  # Podman's forced removal stops it first, which may take ten seconds
        container.remove(force=True)
    except APIError as error:
        if error.status_code not in (404, 409):  # 409: two labs clear up after a third that was killed
            raise


def remove_containers(all_of_ours: bool = False) -> int:
    """Removes this clone's containers, running or not, by id: those of this process and of processes that are gone.

    With `all_of_ours` also those of a lab that is running now. Returns how many there were.
    """
    removed = 0
    filters = {"label": f"{CONTAINER_LABEL}={lab_id()}"}
    for container in client().containers.list(all=True, ignore_removed=True, filters=filters):
        owner = container.labels.get(PID_LABEL, "")
        if all_of_ours or owner == process_name() or not lives(owner):
            remove_container(container)
            removed += 1
    return removed


def lives(name: str) -> bool:
    """Whether the lab's process of that name (see `process_name`) still runs. The lock of one that ended is removed."""
    lock = STATE / f"process-{name}"
    if name == process_name():
        return True
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    lock.unlink(missing_ok=True)
    return False


def remove_images() -> tuple[int, list[str]]:
    """Removes, by id, the images that carry this clone's label and have no name but ours; and what it pulled, by name.

    An image that a user built on one of ours inherits its label; it has a name of the user's and stays.
    Returns the number removed, and a line on each that was kept.
    """
    api, removed, kept = client().images, 0, []
    labelled = api.list(all=False, filters={"label": f"{IMAGE_LABEL}={lab_id()}"})
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
    for summary in client().api.images():
        pulled = [tag for tag in summary.get("RepoTags") or [] if _is_ours(tag)]
        if pulled and IMAGE_LABEL not in (summary.get("Labels") or {}):  # the official one: other names of it stay
            for tag in pulled:
                api.remove(tag, noprune=True)
            removed += 1
    return removed, kept


def _is_ours(tag: str) -> bool:
    """Whether this clone gave an image that name, which Podman puts a host before."""
    return tag.removeprefix("docker.io/").removeprefix("localhost/").startswith(repository(""))


def _built_on(image: Image, labelled: list[Image]) -> str:
    """Return the user's name of an image that begins with the layers of `image`, and so inherited its label; or ""."""
    lower, *others = (inspection.image(each.attrs) for each in (image, *labelled))
    above = (each for each in others if each.id != lower.id and each.layers[: len(lower.layers)] == lower.layers)
    return next((name for each in above if lower.layers for name in each.names if not _is_ours(name)), "")
