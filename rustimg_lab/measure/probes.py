"""Does an image do its job? Started as its Dockerfile says, it must fetch over HTTPS, print the address, and exit 0."""

import http.server
import ipaddress
import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests
import trustme

from rustimg_lab import engine
from rustimg_lab.store import Observation

TIMEOUT_S = 30


@dataclass
class AddressServer:
    """An HTTPS server on 127.0.0.1 that answers as api.myip.com does, with an address that nobody can guess."""

    url: str
    ca_pem: str
    address: str
    requests: int = field(default=0)


@contextmanager
def address_server() -> Iterator[AddressServer]:
    """Serves for as long as the block lasts; a certificate authority made for it signs its certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    # 2001:db8::/32 is for documentation (RFC 3849): no machine has such an address.
    address = str(ipaddress.IPv6Address("2001:db8::") + secrets.randbits(64))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            body = json.dumps({"ip": address, "country": "Unknown", "cc": "XX"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass  # the lab's terminal is for the lab

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass  # a client that breaks off is seen in its own exit code

    server = Server(("127.0.0.1", 0), Handler)
    # The handshake belongs to the connection's own thread: a client that stalls in it must not stall the server.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state = AddressServer(
        f"https://127.0.0.1:{server.server_port}/", authority.cert_pem.bytes().decode("ascii"), address
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def measure_runs(image: str) -> Observation:
    """Starts the image's own CMD as its own user and checks what it prints: a row `runs`, not ok with the reason."""
    with address_server() as server:
        container = engine.create_container(
            image,
            network_mode="host",
            environment={"MYIP_URL": server.url, "MYIP_EXTRA_CA": server.ca_pem},
        )
        try:
            reason = _reason(container, server)
        finally:
            container.remove(force=True)
    return Observation("runs", not reason, ok=not reason, reason=reason, detail="CMD over HTTPS, as its own user")


def _reason(container: engine.Container, server: AddressServer) -> str:
    """Why the container did not do its job; "" when it did."""
    user = container.attrs["Config"]["User"]
    if user != "10001:10001":
        return f"runs as '{user or 'root'}', not as user 10001"
    try:
        container.start()
        code = container.wait(timeout=TIMEOUT_S)["StatusCode"]
    except engine.docker.errors.APIError as error:
        return f"does not start: {error.explanation}"
    except requests.exceptions.RequestException:
        return f"did not end within {TIMEOUT_S} s{engine.last_words(container)}"
    said = container.logs(stderr=False).decode(errors="replace").strip()
    if code:
        return f"exit code {code}{engine.last_words(container)}"
    if said != server.address:
        return f"printed '{said[:80]}', the server had answered '{server.address}'"
    if server.requests != 1:
        return f"made {server.requests} requests in place of one"
    return ""
