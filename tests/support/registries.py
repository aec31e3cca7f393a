"""Registries of a test's own on 127.0.0.1, and small root file systems to push there."""

import io
import json
import socket
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rustimg_lab.engine import client as engine_client
from rustimg_lab.host import tools
from rustimg_lab.host.process import background

PROGRAM = Path(sys.executable).resolve()


OS_RELEASE = 'NAME="Test"\nVERSION_ID=1.2.3\nPRETTY_NAME="Test Linux v1.2"\n'


def rootfs(path: Path, *files: tuple[str, bytes], release: str = OS_RELEASE) -> Path:
    """An archive of a root file system: a program and a release, and `files`; compressed as its name says."""
    content = [("bin/program", PROGRAM.read_bytes()), ("etc/os-release", release.encode()), *files]
    with tarfile.open(path, "w:" + path.suffix.lstrip(".").replace("tar", "")) as archive:
        for name, data in content:
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(data), 0o755 if name.startswith("bin/") else 0o644
            archive.addfile(member, io.BytesIO(data))
    return path


def push(address: str, name: str, path: Path) -> str:
    """Pushes the archive of a root file system as an image, and returns its digest there."""
    api = engine_client.connect()
    repository, tag = f"{address}/{name}".rsplit(":", 1)
    api.api.import_image_from_file(str(path), repository=repository, tag=tag)
    try:
        events = list(api.images.push(repository, tag, stream=True, decode=True))
        (digest,) = [event["aux"]["Digest"] for event in events if "aux" in event]
    finally:
        api.images.remove(f"{repository}:{tag}", noprune=True)
    return digest


@contextmanager
def registry_on(folder: Path, **settings: dict) -> Iterator[str]:
    """A registry whose store outlives it; returns its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    storage = {"filesystem": {"rootdirectory": str(folder / "store")}}
    config = folder / "registry.json"
    http = {**settings.pop("http", {}), "addr": address}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": http, **settings}))
    with background([tools.registry_command(), "serve", str(config)], {}) as process:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(address.partition(":")[2])), 1):
                break
            time.sleep(0.05)
        assert process.poll() is None
        yield address
