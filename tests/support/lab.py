"""Helpers of tests that call the lab: what it left behind, and images and runs of a test's own."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from docker.models.containers import Container

from rustimg_lab.engine import client, containers
from rustimg_lab.measure import smoke
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.paths import REPORTS, RUNS, STATE

as_root = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root mounts a tmpfs")


MUSL, GNU = (NATIVE.rust(libc) for libc in ("musl", "gnu"))  # Rust's targets
# The lab without its page at the end, which takes ten seconds of a CPU.
WITHOUT_PAGE = """
import sys
from rustimg_lab.cli import main, output
output.make_report = print
sys.exit(main.main(sys.argv[1:]))
"""
TINY = Path(__file__).parent.parent / "crates" / "tiny"
SERVER = TINY.with_name("server")
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent"}  # for a command that must ask none, or say that none answers


def passing_tiny(folder: Path) -> Path:
    """A copy of the tiny crate in `folder`, with a check that it passes."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("target"))
    text = (TINY / "lab.toml").read_text().partition("# It prints no address")[0]
    (folder / "lab.toml").write_text(f'{text}\n[check]\nprints = "answer 42"\n')
    return folder


def ours(of: int | None = None) -> list[Container]:
    """This clone's containers, running or not, but for those of tests that run beside these; of one process on request:
    those that a killed lab of the tests beside these leaves until its next command cannot be told from others."""
    filters = {"label": f"{client.CONTAINER_LABEL}={client.lab_id()}"}
    listed = client.connect().containers.list(all=True, ignore_removed=True, filters=filters)
    owners = [(container, container.labels[client.PID_LABEL].partition("-")[0]) for container in listed]
    return [container for container, pid in owners if (pid == str(of) if of else _is_ours(pid))]


def work_folders(of: int) -> list[Path]:
    """What a process of the lab works in, and should have left nothing of. Of one process: those that a killed lab of
    the tests beside these leaves until the next command cannot be told from others."""
    return list(STATE.glob(f"work-{of}-*"))


def _is_ours(pid: str) -> bool:
    """Whether a process is this one, began below it, or is gone."""
    while Path(f"/proc/{pid}").exists() and pid not in ("0", str(os.getpid())):
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            return True
    return pid != "0"


@contextmanager
def answering(server: ThreadingHTTPServer) -> Iterator[None]:
    """A server that answers for as long as the block lasts."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def wait_for(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something holds before the time is over."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def forget(run: str) -> None:
    """Removes a run of a test's, and its reports: of each of its machines too, where it has several."""
    for folder in (RUNS / run, REPORTS / run, *REPORTS.glob(f"{run}@*")):
        shutil.rmtree(folder, ignore_errors=True)


def forget_images(program: str) -> None:
    """Removes the images that commands made of a program, by name: what another test built of equal files has the id of
    one of them, and would go with an id."""
    repository = client.repository(program)
    for image in client.connect().images.list(repository):
        for tag in image.tags:
            if tag.startswith(f"{repository}:"):
                client.connect().images.remove(tag, force=True)


@contextmanager
def measured(lab: Callable, run: str, command: tuple[str, ...]) -> Iterator[subprocess.CompletedProcess]:
    """A run as the command line makes it, for as long as the block lasts."""
    forget(run)
    done = lab(*command)
    assert done.returncode == 0, done.stderr
    yield done
    forget(run)


def adds_nothing(lab: Callable, run: str, command: tuple[str, ...]) -> None:
    """Asserts that a call that is made again measures nothing again, and leaves no container."""
    before = (RUNS / run / "rows.jsonl").read_text()
    done = lab(*command)
    assert done.returncode == 0, done.stderr
    assert (RUNS / run / "rows.jsonl").read_text() == before
    assert not ours()


def derived(image: str, command: list[str], user: str = smoke.USER, files: dict | None = None) -> str:
    """An image on another, by its id, with a command, and with files (mode and text by path) in it. It is a container
    committed: no build, and so no buildx, stands between a test and what it is about."""
    container = containers.create_container(image, command=["nothing"])
    for path, (mode, text) in (files or {}).items():
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as out:
            add_file(out, path, mode, text.encode())
        container.put_archive("/", archive.getvalue())
    runs = [f"ENTRYPOINT {json.dumps(command[:1])}", f"CMD {json.dumps(command[1:])}"]
    changes = [f"USER {user}"] * bool(user) + runs
    made = container.commit(client.repository("test-derived"), uuid.uuid4().hex[:12], changes=changes)
    container.remove()
    return made.id


def add_file(archive: tarfile.TarFile, path: str, mode: int, content: bytes) -> None:
    """Adds a file to an archive that is open for writing."""
    member = tarfile.TarInfo(path)
    member.mode, member.size = mode, len(content)
    archive.addfile(member, io.BytesIO(content))


def small_builder(image: str, cargo: str, path: Path) -> Path:
    """The archive of a builder that is small enough for a small disk: busybox, and in cargo's place a script."""
    container = containers.create_container(image, command=["nothing"])
    with path.open("wb") as file:
        file.writelines(container.export())
    container.remove()
    with tarfile.open(path, "a") as archive:
        add_file(archive, "usr/bin/cargo", 0o755, cargo.encode())
    return path
