"""Containers of the engine, each with the labels of this clone."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import LogConfig
from requests.exceptions import RequestException

from rustimg_lab.engine import client
from rustimg_lab.host import process

# What is printed is read from the engine's log, which the engine's own settings may cut short, or keep where nobody can
# read it. Files of 1 GB: each byte that is printed may be a line of 73 bytes in the log.
LOG = LogConfig(type="json-file", config={"max-size": "1g", "max-file": "2"})
_NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


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


def create_container(image: str, command: Sequence[str], **options: Any) -> Container:
    """A container with our labels that runs `command` and nothing else, not yet started; the caller removes it."""
    options |= whole(command) | {"healthcheck": {"test": ["NONE"]}}  # a check would run beside what is measured
    labels = {client.CONTAINER_LABEL: client.lab_id(), client.PID_LABEL: process.process_name()}
    # The proxy of the client's configuration is not for what is measured: it talks to 127.0.0.1.
    return client.connect().containers.create(image, labels=labels, use_config_proxy=False, log_config=LOG, **options)


def whole(command: Sequence[str]) -> dict[str, list[str]]:
    """Return the options by which the engine runs a command as it is, whatever an image's entry point."""
    return {"entrypoint": list(command[:1]), "command": list(command[1:])}


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


@contextmanager
def printed(container: Container, **options: Any) -> Iterator[Iterable[bytes]]:
    """What a container prints, as `logs` has it, in pieces for as long as the block lasts."""
    chunks = container.logs(stream=True, **options)
    try:
        yield chunks
    finally:
        with suppress(DockerException):  # over SSH, docker-py cannot end a stream before its end
            chunks.close()


def text(said: bytes) -> str:
    """Return what a container printed without colors; what is no text, or turns its direction (UAX 9), is marked."""
    return _NO_TEXT.sub("\ufffd", click.unstyle(said.decode(errors="replace")))


def last_words(container: Container) -> str:
    """The last lines that a container printed, to be put behind the reason why it failed; "" when it is gone."""
    try:
        lines = text(container.logs(tail=8)).split("\n")
    except NotFound:
        return ""
    return "".join(f"; {line.strip()}" for line in lines if line.strip())


def remove_container(container: Container) -> None:
    """Removes a container, running or not; one that is gone already, or just being removed, is no error."""
    try:
        with suppress(APIError):  # it does not run
            container.kill()  # Podman's forced removal stops it first, which may take ten seconds
        container.remove(force=True, v=True)  # with the volumes that its image asks for
    except APIError as error:
        if error.status_code not in (404, 409):  # 409: two labs clear up after a third that was killed
            raise


def remove_containers(all_of_ours: bool = False) -> int:
    """Removes this clone's containers, running or not, by id: those of this process and of processes that are gone;
    with `all_of_ours` also those of a lab that is running now. Returns how many there were."""
    removed = 0
    filters = {"label": f"{client.CONTAINER_LABEL}={client.lab_id()}"}
    for container in client.connect().containers.list(all=True, ignore_removed=True, filters=filters):
        owner = container.labels.get(client.PID_LABEL, "")
        if all_of_ours or owner == process.process_name() or not process.lives(owner):
            remove_container(container)
            removed += 1
    return removed
