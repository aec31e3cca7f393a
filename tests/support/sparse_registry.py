"""A registry of crates of a test's own, as companies have them: it answers nobody without the token."""

import hashlib
import io
import json
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support import crates
from support.lab import answering

CRATE = "companyanswer"  # its one crate: `answer()` is 42


@dataclass
class SparseRegistry:
    """`index`: its address as cargo has it; `checksum`: of the crate; `served`: the paths that were asked for with the
    token; `refused`: how many requests came without."""

    index: str
    checksum: str
    served: list[str] = field(default_factory=list)
    refused: int = 0


def _packed() -> bytes:
    files = {"Cargo.toml": crates.MANIFEST.format(CRATE), "src/lib.rs": "pub fn answer() -> u8 { 42 }\n"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{CRATE}-0.1.0/{name}")
            member.size, member.mode = len(text), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@contextmanager
def serve(token: str) -> Iterator[SparseRegistry]:
    """Serves, as long as the block lasts, at an address of this machine that builds reach on the engine's bridge."""
    crate = _packed()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent: it tells the address that is not loopback
        host = probe.getsockname()[0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == token
            if known:
                state.served.append(self.path)
            state.refused += not known
            line = {
                "name": CRATE,
                "vers": "0.1.0",
                "deps": [],
                "cksum": state.checksum,
                "features": {},
                "yanked": False,
            }
            answers = {
                "/config.json": json.dumps({"dl": f"http://{address}/dl", "auth-required": True}).encode(),
                f"/co/mp/{CRATE}": json.dumps(line).encode(),
                f"/dl/{CRATE}/0.1.0/download": crate,
            }
            body = answers.get(self.path, b"") if known else b""
            self.send_response(200 if body else 404 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    address = f"{host}:{server.server_port}"
    state = SparseRegistry(f"sparse+http://{address}/", hashlib.sha256(crate).hexdigest())
    with answering(server):
        yield state
