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
    """Create a container, not yet started, with `files` (a tar archive for /) in it, and yield it. It is removed after
    the block."""
    container = create_container(image, **options)
    try:
        if files:
            container.put_archive("/", files)
        yield container
    finally:
        remove_container(container)


def create_container(image: str, command: Sequence[str], **options: Any) -> Container:
    """Create a container, not yet started, that has the lab's labels and runs `command` alone. The caller removes
    it."""
    options |= command_options(command)
    options["healthcheck"] = {"test": ["NONE"]}  # a check would run beside what is measured
    labels = {client.CONTAINER_LABEL: client.lab_id(), client.PID_LABEL: process.process_name()}
    # The proxy of the client's configuration is not for what is measured: it talks to 127.0.0.1.
    return client.connect().containers.create(image, labels=labels, use_config_proxy=False, log_config=LOG, **options)


def command_options(command: Sequence[str]) -> dict[str, list[str]]:
    """Return the options by which a container runs exactly this command, whatever the image's entry point."""
    return {"entrypoint": list(command[:1]), "command": list(command[1:])}


def exit_code(container: Container, timeout_s: float) -> int | None:
    """Wait for the end of a container, and return its exit code; None when it does not end in time, or is gone."""
    try:
        return container.wait(timeout=timeout_s)["StatusCode"]
    except RequestException:
        return None


def is_running(container: Container) -> bool:
    """Return whether a container runs; False for one that is gone."""
    try:
        container.reload()
    except NotFound:
        return False
    return container.status == "running"


@contextmanager
def open_output(container: Container, **options: Any) -> Iterator[Iterable[bytes]]:
    """Yield an iterator of what a container prints, in pieces of bytes, for use in the block. `options` are those of
    `logs`."""
    chunks = container.logs(stream=True, **options)
    try:
        yield chunks
    finally:
        with suppress(DockerException):  # over SSH, docker-py cannot end a stream before its end
            chunks.close()


def decode_output(output: bytes) -> str:
    """Return a container's output as text, without the codes that color it in a terminal. Other control characters, and
    those that turn the text's direction (Unicode's UAX 9), become U+FFFD."""
    return _NO_TEXT.sub("\ufffd", click.unstyle(output.decode(errors="replace")))


def last_words(container: Container) -> str:
    """Return the last lines that a container printed, each behind a semicolon, to append to a reason; "" when it is
    gone."""
    try:
        lines = decode_output(container.logs(tail=8)).split("\n")
    except NotFound:
        return ""
    return "".join(f"; {line.strip()}" for line in lines if line.strip())


def remove_container(container: Container) -> None:
    """Remove a container and its volumes, running or not. One that is gone, or is being removed, is no error."""
    try:
        with suppress(APIError):  # it does not run
            container.kill()  # Podman's forced removal stops it first, which may take ten seconds
        container.remove(force=True, v=True)  # with the volumes that its image asks for
    except APIError as error:
        if error.status_code not in (404, 409):  # 409: two labs clear up after a third that was killed
            raise


def remove_containers(all_of_ours: bool = False) -> int:
    """Remove this clone's containers, running or not: those of this process and of processes that have ended. With
    `all_of_ours`, remove also those of a lab that is running now. Returns how many were removed."""
    removed_count = 0
    filters = {"label": f"{client.CONTAINER_LABEL}={client.lab_id()}"}
    for container in client.connect().containers.list(all=True, ignore_removed=True, filters=filters):
        owner = container.labels.get(client.PID_LABEL, "")
        if all_of_ours or owner == process.process_name() or not process.lives(owner):
            remove_container(container)
            removed_count += 1
    return removed_count
