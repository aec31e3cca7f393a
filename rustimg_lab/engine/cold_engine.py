"""A second engine that starts empty, with a slow link to a registry: the machine of a deploy study.

The engine has a network namespace, a socket and a folder of its own, and no bridge: the machine's engine never notices,
and nothing of the machine's network is slowed. What is slow is a proxy of ours on the namespace's 127.0.0.1, by which
the engine comes to a registry of ours.
"""

import ctypes
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from rustimg_lab.engine import client as engine_client
from rustimg_lab.engine import containers, images, inspection
from rustimg_lab.engine.client import TIMEOUT_S, engine_address, engine_info
from rustimg_lab.errors import LabError
from rustimg_lab.host import process as host_process

NEEDED = ("ip", "nsenter", "unshare")
START_TIMEOUT_S = 60
NAMESPACES = Path("/run/netns")
_PREFIX = "rustimg-lab-elsewhere-"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SLICE_S = 0.005  # of the rate that is sent at once
# A containerd of the machine's is hidden from the cold engine, which would keep its images there, among the machine's.
# The engine's own sockets are there too: below `.lab`, their paths could be longer than the 107 bytes of unix(7).
_HIDE_CONTAINERD = 'mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && exec "$@"'
_SOCKET = "/run/containerd/engine.sock"
Found = TypeVar("Found")


@dataclass
class Line:
    """The way to the registry: so many bits a second, shared by all that comes by it, and what came by of layers and
    configurations, in bytes. 0 bits are no limit."""

    bits_per_s: float = 0
    blob_bytes: int = 0
    _free_at: float = 0
    _lock: Any = field(default_factory=threading.Lock)

    def reset(self, bits_per_s: float) -> None:
        """Set the rate in bits per second (0 for no limit), and count bytes from 0 again."""
        with self._lock:
            self.bits_per_s, self.blob_bytes, self._free_at = bits_per_s, 0, 0

    def piece(self) -> int:
        """Return the number of bytes that are sent at once."""
        return max(1024, int(self.bits_per_s / 8 * _SLICE_S)) if self.bits_per_s else 1 << 18

    def carry(self, size: int, is_blob: bool) -> None:
        """Wait until `size` bytes have passed at the rate. Those of layers and configurations (`is_blob`) are
        counted."""
        with self._lock:
            self.blob_bytes += size * is_blob
            if not self.bits_per_s:
                return
            self._free_at = max(self._free_at, time.monotonic()) + size * 8 / self.bits_per_s
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)


@dataclass(frozen=True)
class ColdMachine:
    """The engine, the address by which it knows the registry, that by which we do, and the line in between; `inside`
    runs a function that has the engine's 127.0.0.1 in the place of ours."""

    client: docker.DockerClient
    address: str
    registry_address: str
    line: Line
    inside: Callable[[Callable[[], Found]], Found]

    def empty(self) -> None:
        """Remove every container and every image of the engine."""
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)
        for image in self.client.images.list():
            self.client.images.remove(image.id, force=True)

    def check(self) -> None:
        """Raise LabError when the engine or the registry has ended."""
        try:
            self.client.ping()
            host, _, port = self.registry_address.partition(":")
            socket.create_connection((host, int(port)), timeout=images.REGISTRY_TIMEOUT_S).close()
        except (DockerException, RequestException):
            raise LabError("the engine of the lab's own has ended; run the same command to resume") from None
        except OSError:
            raise LabError("the registry of the lab's own has ended; run the same command to resume") from None

    def pull(self, tag: str) -> str:
        """Pull an image of the registry over the slow link, and return its id. Raises LabError when it does not arrive
        whole."""
        name = f"{self.address}/rustimg-lab"
        try:
            for event in self.client.api.pull(name, tag, stream=True, decode=True):
                if "error" in event:
                    raise LabError(f"the image did not come: {event['error']}")
            return self.client.images.get(f"{name}:{tag}").id
        except RequestException as error:
            raise LabError(f"the image did not come: {getattr(error, 'explanation', '') or error}") from None


def check() -> None:
    """Raise LabError unless this machine can have a cold engine that equals its own. That takes root, `NEEDED`, the
    engine's `dockerd`, and an engine that reaches a registry on 127.0.0.1."""
    if os.geteuid() != 0:
        raise LabError("an engine of its own, in a network namespace, takes root: call this study as root")
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        raise LabError(f"{missing[0]} is missing: install it (iproute2, util-linux) for an engine of its own")
    if not engine_address().startswith("unix://"):
        raise LabError(
            f"the engine at {engine_address()} is not on this machine: call this study on the engine's machine"
        )
    find_dockerd()
    connections: list[bool] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *_: connections.append(True)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with suppress(images.RegistryError):  # no registry is there: the engine only has to come
            images.manifest_digest(f"127.0.0.1:{server.server_address[1]}/rustimg-lab:none", "")
        server.shutdown()
    if not connections:
        raise LabError(
            f"the engine at {engine_address()} does not reach a registry on this machine's 127.0.0.1: call this study "
            "in the engine's network namespace, or use an engine that is neither rootless nor in a virtual machine"
        )


def find_dockerd() -> Path:
    """Return the path of the `dockerd` that the machine's engine runs: of the process behind the engine's socket, else
    the one in PATH. Raises LabError, with the versions found, when neither has the engine's version."""
    wanted_version = engine_info().version
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(engine_address().removeprefix("unix://"))
        pid, *_ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    paths = {
        host_process.run([path, "--version"], timeout=START_TIMEOUT_S).partition("version ")[2].partition(",")[0]: Path(
            path
        )
        for path in (shutil.which("dockerd") or "", os.path.realpath(f"/proc/{pid}/exe"))
        if Path(path).name == "dockerd" and Path(path).exists()
    }
    if wanted_version not in paths:
        candidates = ", ".join(f"{path} is {version}" for version, path in paths.items()) or "there is no dockerd here"
        raise LabError(
            f"the engine is version {wanted_version}, but {candidates}: put the folder of its own dockerd first in PATH"
        )
    return paths[wanted_version]


def remove_leftovers() -> None:
    """Remove the network namespaces of killed labs of this clone whose engines have ended, and those of this
    process."""
    for path in NAMESPACES.glob(f"{_PREFIX}{engine_client.lab_id()}-*"):
        owner = path.name.removeprefix(f"{_PREFIX}{engine_client.lab_id()}-")
        is_used = host_process.lives(owner) or host_process.run(["ip", "netns", "pids", path.name]).strip()
        if owner == host_process.process_name() or not is_used:
            host_process.run(["ip", "netns", "delete", path.name])


@contextmanager
def start(registry_address: str) -> Iterator[ColdMachine]:
    """Run a cold engine while the block lasts, with a slow link to the registry at `registry_address`. Raises LabError
    as `check` does, and when the engine does not start, or keeps images otherwise than the machine's engine."""
    check()
    remove_leftovers()
    name = f"{_PREFIX}{engine_client.lab_id()}-{host_process.process_name()}"
    host_process.run(["ip", "netns", "add", name])
    try:
        host_process.run(["ip", "netns", "exec", name, "ip", "link", "set", "lo", "up"])
        with host_process.work_folder() as folder:
            hot, program = engine_info(), find_dockerd()
            settings = {"features": {"containerd-snapshotter": hot.keeps_in_containerd}}
            (folder / "engine.json").write_text(json.dumps(settings))
            command = [
                # Its mounts are in a namespace of their own too: they end with it.
                "nsenter", f"--net={NAMESPACES / name}", "unshare", "--mount", "sh", "-c", _HIDE_CONTAINERD, "sh",
                str(program), "--config-file", f"{folder}/engine.json",
                "--data-root", f"{folder}/data", "--exec-root", "/run/containerd/exec",
                "--pidfile", f"{folder}/engine.pid", "--host", f"unix://{_SOCKET}",
                "--bridge=none", "--iptables=false", "--ip6tables=false",
                "--max-download-attempts=1",  # what was tried twice is no time of a pull
                "--storage-driver", hot.driver,
            ]  # fmt: skip
            # Beside that dockerd are the containerd and runc that came with it.
            search_path = f"{program.parent}:{program.parents[1]}/bin:{program.parents[1]}/sbin:{os.environ['PATH']}"
            with (
                host_process.background(command, {"PATH": search_path}) as process,
                _line(registry_address, name) as (port, line),
            ):
                client = _client(f"unix:///proc/{process.pid}/root{_SOCKET}", process)  # as that process sees it
                _compare(client, hot)
                try:
                    yield ColdMachine(client, f"127.0.0.1:{port}", registry_address, line, partial(_call_inside, name))
                finally:
                    # One that has ended has ended its containers.
                    with suppress(RequestException):
                        for container in client.containers.list(all=True):
                            containers.remove_container(container)
    finally:
        host_process.run(["ip", "netns", "delete", name])


def _client(address: str, process: subprocess.Popen) -> docker.DockerClient:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(DockerException, RequestException):
            client = docker.DockerClient(address, timeout=TIMEOUT_S)
            client.ping()
            return client
        time.sleep(0.1)
    raise LabError(f"an engine of its own does not start (exit code {process.poll()}); `dockerd --debug` may tell why")


def _compare(client: docker.DockerClient, expected: inspection.EngineInfo) -> None:
    """Raise LabError when a cold engine does not keep its images as the machine's engine does, or has any."""
    cold, hot = ((info.driver, info.keeps_in_containerd) for info in (inspection.engine(client.info()), expected))
    if cold != hot:
        raise LabError(f"the cold engine keeps images by {cold}, not {hot} (driver, in containerd): see `docker info`")
    if client.images.list():
        raise LabError("the cold engine is not empty: it shares images with another engine; nothing was measured")


@contextmanager
def _line(registry_address: str, namespace: str) -> Iterator[tuple[int, Line]]:
    """The proxy before the registry, on a port of the namespace."""
    line = Line()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(ConnectionError):  # an engine that ends a connection which it kept has had all that it wanted
                if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS hello (RFC 8446, 5.1)
                    self.connection.recv(1 << 16)  # by this answer containerd learns that it is to speak plain HTTP
                    self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    return
                super().handle()

        def do_GET(self) -> None:
            _forward_request(self, registry_address, line)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = _call_inside(namespace, lambda: socket.create_server(("127.0.0.1", 0), backlog=64))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.socket.getsockname()[1], line
    finally:
        server.shutdown()
        server.server_close()


def _forward_request(request: BaseHTTPRequestHandler, registry_address: str, line: Line) -> None:
    """Pass the engine's request on to the registry, and the registry's answer back over the slow link."""
    upstream = http.client.HTTPConnection(registry_address, timeout=images.REGISTRY_TIMEOUT_S)
    try:
        upstream.request(request.command, request.path, headers=request.headers)
        answer = upstream.getresponse()
        request.send_response_only(answer.status)
        for header, value in answer.headers.items():
            if header != "Transfer-Encoding":  # it is decoded: the end of the connection is its end
                request.send_header(header, value)
        request.end_headers()
        while piece := answer.read(line.piece()):
            line.carry(len(piece), "/blobs/" in request.path)
            request.wfile.write(piece)
        request.close_connection |= answer.length != 0  # what is missing of it will not come
    except (OSError, http.client.HTTPException):
        request.close_connection = True  # the registry is gone, or the engine: the other learns it by that
    finally:
        upstream.close()


def _call_inside(namespace: str, work: Callable[[], Found]) -> Found:
    """What a function returns in a network namespace: sockets that it opens are there. It has a thread of its own,
    which alone is there."""

    def enter() -> Found:
        with (NAMESPACES / namespace).open() as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()
