"""A registry on 127.0.0.1 that serves images made here, and plays what registries and networks do wrong."""

import gzip
import hashlib
import http.server
import io
import json
import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.lab import answering

MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"
RATE_LIMIT = "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"
HTML = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head>\n<body>Log in to the network</body></html>"

# A status, a content type and a body; None closes the connection in the middle.
Answer = tuple[int, str, bytes] | None


def refusal(status: int, code: str, message: str) -> Answer:
    """An error as the distribution specification writes it."""
    return status, "application/json", json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@dataclass
class Images:
    """What a registry holds: blobs and manifests by digest, and the digest that every tag stands for."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tagged: str = ""

    def image(self, architecture: str, content: bytes) -> dict:
        """Adds an image of one layer with one file, and returns its descriptor."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            member = tarfile.TarInfo("content")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        config = {"architecture": architecture, "os": "linux", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]}}  # fmt: skip
        layers = [self._blob(gzip.compress(layer.getvalue(), mtime=0), LAYER)]
        platform = {"architecture": architecture, "os": "linux"}
        return self._image(config, layers) | {"platform": platform}

    def attestation(self, subject: dict) -> dict:
        """Adds a provenance attestation of an image as BuildKit writes one, and returns its descriptor."""
        statement = self._blob(b'{"_type": "https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
        config = {"architecture": "unknown", "os": "unknown", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]}}  # fmt: skip
        return self._image(config, [statement]) | {
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {
                "vnd.docker.reference.digest": subject["digest"],
                "vnd.docker.reference.type": "attestation-manifest",
            },
        }

    def tag(self, *descriptors: dict) -> str:
        """Makes every tag stand for an index, also of one image alone; returns its digest."""
        self.tagged = self._manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(descriptors)})["digest"]
        return self.tagged

    def answer(self, path: str) -> Answer:
        """What a registry without faults answers."""
        name = path.rpartition("/")[2]
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if "/manifests/" in path and (found := self.manifests.get(name if ":" in name else self.tagged)):
            return 200, *found
        if "/blobs/" in path and name in self.blobs:
            return 200, "application/octet-stream", self.blobs[name]
        return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")

    def _image(self, config: dict, layers: list[dict]) -> dict:
        described = self._blob(json.dumps(config).encode(), CONFIG)
        return self._manifest({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers})

    def _blob(self, content: bytes, kind: str) -> dict:
        self.blobs[_digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}

    def _manifest(self, document: dict) -> dict:
        content = json.dumps(document).encode()
        self.manifests[_digest(content)] = document["mediaType"], content
        return {"mediaType": document["mediaType"], "size": len(content), "digest": _digest(content)}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS hello: engines then try without
            self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nplain HTTP only")
        else:
            super().handle()

    def do_GET(self) -> None:
        answer = self.server.answer(self.path)
        if answer is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if kind in (MANIFEST, INDEX):
            self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *about: object) -> None:
        """Prints nothing."""


@contextmanager
def serve(answer: Callable[[str], Answer]) -> Iterator[str]:
    """A server that gives `answer` to the path of every request, for as long as the block lasts; yields its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answer = answer
    with answering(server):
        yield f"127.0.0.1:{server.server_address[1]}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
