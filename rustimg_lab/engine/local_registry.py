"""A registry on 127.0.0.1: it measures sizes as pushed, and pulls images through a proxy for the engine."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rustimg_lab.engine import images, podman
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine, tools
from rustimg_lab.host.process import background, work_folder

START_TIMEOUT_S = 10
_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    # Several images under one name: what an engine with containerd's store pushes of an image with an attestation.
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
_API_HOSTS = {images.DOCKER_HUB: "registry-1.docker.io"}  # docs.docker.com/docker-hub/image-library/mirror
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # 127.0.0.1 is behind no proxy


@dataclass(frozen=True)
class Pushed:
    """An image in a registry: its tag, and the bytes of its configuration and its layers, the base's first, as its
    manifest has them; and how the layers are compressed: `gzip`, `zstd`, or `nothing`."""

    tag: str
    config_bytes: int
    layer_bytes: list[int]
    compressed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    address: str

    def push(self, image: str) -> Pushed:
        """Push an image, and return its tag and its sizes in bytes from the manifest. Raises LabError when engine or
        registry refuse."""
        with podman.plain_http(repository := f"{self.address}/rustimg-lab"):
            tag, _ = images.push(image, repository)
        try:
            manifest = self._manifest(tag, images.inspect(image).architecture)
            sizes = [layer["size"] for layer in manifest["layers"]]
            suffixes = {re.split(r"[.+]", layer["mediaType"])[-1] for layer in manifest["layers"]}
            compressions = {suffix if suffix in ("gzip", "zstd") else "nothing" for suffix in suffixes}
            return Pushed(tag, manifest["config"]["size"], sizes, tuple(sorted(compressions)))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise LabError(f"the registry at {self.address} has no manifest of the pushed image ({error!r})") from None

    def _manifest(self, name: str, architecture: str) -> dict[str, Any]:
        """The manifest of a tag or digest; of an index that of the image in it for an architecture."""
        request = urllib.request.Request(
            f"http://{self.address}/v2/rustimg-lab/manifests/{name}", headers={"Accept": ", ".join(_MANIFESTS)}
        )
        with _direct.open(request, timeout=10) as response:
            manifest = json.load(response)
        digest = digest_in_index(manifest, architecture)
        return self._manifest(digest, architecture) if digest else manifest


def digest_in_index(manifest: dict[str, Any], architecture: str) -> str:
    """Return the digest of an index's image for an architecture, by Docker's name. It is "" when the index has none, or
    when `manifest` is no index."""
    for entry in manifest.get("manifests", []):
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return entry["digest"]
    return ""


@contextmanager
def serve(upstream: str = "") -> Iterator[Registry]:
    """Run a registry while the block lasts: an empty one, or one that passes on what `upstream` (its host) has. It
    connects to `upstream` by the proxy variables, the CA bundle and the docker client's logins. Raises LabError when
    this machine has no `docker-registry`, or it ends at once, as when `upstream` is not there."""
    program = tools.registry_command()
    if program is None:
        raise LabError(f"docker-registry is missing; {tools.REMEDIES['docker-registry']}")
    address = f"127.0.0.1:{machine.free_port()}"
    with work_folder() as folder:
        storage = {"filesystem": {"rootdirectory": f"{folder}/data"}}
        settings = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": address}}
        if upstream:
            settings["proxy"] = {"remoteurl": f"https://{_API_HOSTS.get(upstream, upstream)}", **images.login(upstream)}
        config = folder / "config.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(settings))
        environment = {"SSL_CERT_FILE": str(ca)} if (ca := machine.ca_bundle()) else {}
        with background([program, "serve", str(config)], environment) as process:
            _wait(address, process)
            yield Registry(address)


def _wait(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            _direct.open(f"http://{address}/v2/", timeout=1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise LabError(f"docker-registry ended at once, with exit code {process.returncode}") from None
            time.sleep(0.05)
    raise LabError(f"docker-registry does not answer at {address}")
