"""The only room that talks to the Docker Engine or runs a process."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
from docker.context import ContextAPI
from docker.models.containers import Container
from docker.models.images import Image

from rustimg_lab.errors import LabError
from rustimg_lab.paths import STATE

IMAGE_LABEL = "io.rustimg-lab.id"  # on every image that this clone makes; its value is the clone's id
CONTAINER_LABEL = "io.rustimg-lab.container"  # containers have one of their own, since they inherit their image's
PID_LABEL = "io.rustimg-lab.pid"  # the lab's process that a container belongs to

TIMEOUT_S = 600

_running: set[subprocess.Popen] = set()
_stopping = threading.Event()


class CommandError(LabError):
    """A command that failed: `args_`, `code`, `stdout`, `stderr`."""

    def __init__(self, args: list[str], code: int, stdout: str, stderr: str):
        self.args_, self.code, self.stdout, self.stderr = args, code, stdout, stderr
        said = (stderr.strip() or stdout.strip() or "it printed nothing").splitlines()
        super().__init__(f"'{shlex.join(args[:3])} ...' failed with exit code {code}: {said[-1]}")


def run(args: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs a command to its end and returns its standard output. Raises CommandError; LabError when there is none."""
    env = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", env=env, cwd=cwd)
    except FileNotFoundError:
        raise LabError(f"there is no command '{args[0]}' on this machine; install it, or see ./lab doctor") from None
    if done.returncode:
        raise CommandError(args, done.returncode, done.stdout, done.stderr)
    return done.stdout


@contextmanager
def background(args: list[str]) -> Iterator[subprocess.Popen]:
    """A command that runs as long as the block does, its output thrown away."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(_tied(args), start_new_session=True, **quiet)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def stream(args: list[str], on_line: Callable[[str], None]) -> int:
    """Runs a command, hands each line of its output on as it comes, and returns its exit code.

    May be called from several threads; `stop_all` ends what is running. The command gets a session of its own, so that
    Ctrl-C reaches the lab alone, which then ends the command in order.
    """
    if _stopping.is_set():
        return -signal.SIGINT
    process = subprocess.Popen(
        _tied(args),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _running.add(process)
    try:
        for line in process.stdout:
            on_line(line)
        return process.wait()
    finally:
        _running.discard(process)


def stop_all() -> None:
    """Ends every streamed command: by interrupt, and after ten seconds by force. No other can start afterwards."""
    _stopping.set()
    for process in list(_running):
        process.send_signal(signal.SIGINT)
    for process in list(_running):
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _tied(args: list[str]) -> list[str]:
    """The command, made to end when the lab does, however that ends: by the kernel, where util-linux can ask it to."""
    return ["setpriv", "--pdeathsig=TERM", "--", *args] if shutil.which("setpriv") else args


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder below `.lab` for as long as the block lasts; what a lab that was killed has left goes first."""
    for left in STATE.glob("work-*"):
        if not _lives(left.name.split("-")[1]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix=f"work-{os.getpid()}-") as folder:
        yield Path(folder)


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


@cache
def client() -> docker.DockerClient:
    """The engine. Raises LabError, in one line, when none answers."""
    address = host()
    try:
        # Importing a root file system of more than a gigabyte is one call, and may take minutes.
        if "DOCKER_HOST" in os.environ:
            found = docker.DockerClient.from_env(timeout=TIMEOUT_S)
        else:
            found = docker.DockerClient(address, timeout=TIMEOUT_S)
        found.ping()
        return found
    except (docker.errors.DockerException, requests.exceptions.RequestException):
        raise LabError(
            f"no Docker engine answers at {address}: start it (systemctl start docker), check that you may use it "
            "(group docker), or set DOCKER_HOST"
        ) from None


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the engine refuses, as one line."""
    try:
        yield
    except docker.errors.APIError as error:
        raise LabError(f"the Docker engine refused: {error.explanation or error}") from error
    except requests.exceptions.RequestException as error:
        raise LabError(f"the Docker engine at {host()} stopped answering ({error}); start it and call again") from error


def find_image(reference: str) -> Image | None:
    """The image of that name or id in the local engine, if it is there."""
    try:
        return client().images.get(reference)
    except (docker.errors.ImageNotFound, docker.errors.NullResource):
        return None


def import_rootfs(archive: str, name: str, tag: str, changes: list[str]) -> Image:
    """Makes an image of one layer from a root file system archive, with our label and `changes` (Dockerfile lines)."""
    changes = [*changes, f"LABEL {IMAGE_LABEL}={lab_id()}"]
    client().api.import_image_from_file(archive, repository=repository(name), tag=tag, changes=changes)
    return client().images.get(f"{repository(name)}:{tag}")


def create_container(image: str, **options: Any) -> Container:
    """A container with our labels, not yet started; the caller removes it."""
    labels = {CONTAINER_LABEL: lab_id(), PID_LABEL: str(os.getpid())}
    return client().containers.create(image, labels=labels, **options)


def remove_containers(all_of_ours: bool = False) -> int:
    """Removes this clone's containers, running or not, by id: those of this process and of processes that are gone.

    With `all_of_ours` also those of a lab that is running now. Returns how many there were.
    """
    removed = 0
    for container in client().containers.list(all=True, filters={"label": f"{CONTAINER_LABEL}={lab_id()}"}):
        pid = container.labels.get(PID_LABEL, "")
        if all_of_ours or pid == str(os.getpid()) or not _lives(pid):
            with suppress(docker.errors.NotFound):
                container.remove(force=True)
                removed += 1
    return removed


def _lives(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


def remove_images() -> tuple[int, list[str]]:
    """Removes, by id, the images that carry this clone's label and have no name but ours.

    An image that a user built on one of ours inherits its label; it has a name of the user's and stays.
    Returns the number removed, and a line on each that was kept.
    """
    api, ours = client().images, f"rustimg-lab-{lab_id()}/"
    removed, kept = 0, []
    for image in api.list(all=False, filters={"label": f"{IMAGE_LABEL}={lab_id()}"}):
        foreign = [tag for tag in image.tags if not tag.startswith(ours)]
        own = [tag for tag in image.tags if tag.startswith(ours)]
        try:
            for tag in own if foreign else own[1:]:
                api.remove(tag, noprune=True)
            if foreign:
                kept.append(f"{foreign[0]}: carries the lab's label, but a name that the lab did not give")
                continue
            api.remove(image.id, noprune=True)  # without: nameless images below it would go too, whosever they are
            removed += 1
        except docker.errors.ImageNotFound:
            removed += 1  # it went with the last image that stood on it
        except docker.errors.APIError as error:
            kept.append(f"{(image.tags or [image.short_id])[0]}: {error.explanation}")
    return removed, kept
