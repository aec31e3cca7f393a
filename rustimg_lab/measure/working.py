"""Does an image do its job? Started without privileges, its program must do what the app's check says."""

import http.server
import ipaddress
import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
import trustme

from rustimg_lab import engine
from rustimg_lab.matrix import App, Check
from rustimg_lab.measure import workloads
from rustimg_lab.measure.serving import serving
from rustimg_lab.measure.trials import Lost
from rustimg_lab.store import Observation

TIMEOUT_S = 30
USER = "10001:10001"  # as the Dockerfiles have it


@dataclass
class AddressServer:
    """An HTTPS server on 127.0.0.1 that answers as api.myip.com does, with an address that nobody can guess. Its
    certificate is signed as those of public hosts are: by an authority between it and the root in `ca_pem`."""

    url: str
    ca_pem: str
    address: str
    requests: int = field(default=0)


@contextmanager
def address_server() -> Iterator[AddressServer]:
    """Serves for as long as the block lasts; a certificate authority made for it signs its certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.create_child_ca().issue_cert("127.0.0.1", "localhost").configure_cert(context)
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


def measure_runs(image: str, app: App) -> Observation:
    """Starts the image's program as its own user and checks what it does: a row `runs`, not ok with the reason."""
    if (user := engine.inspect(image).user) != USER:
        reason = f"runs as '{user or 'root'}', not as user 10001"
    else:
        reason = why_not(image, app)
    return Observation("runs", not reason, ok=not reason, reason=reason, detail=in_words(app))


def why_not(image: str, app: App, **options: Any) -> str:
    """Why the image's program does not do what the app's check says, in a container with `options`; "" when it does."""
    if app.check is None:
        return _answers(image, app, **options)
    if app.check.https_url:
        return _fetches(image, app.check, **options)
    return _prints(image, app.check, **options)


def in_words(app: App) -> str:
    """What is checked: with another check, what was found by this one is nothing to go by."""
    if app.check is None:
        return f"CMD, as its own user, answers: {workloads.own(app).parameters()['asked']}"
    command = " ".join(["CMD", *app.check.arguments])
    if app.check.https_url:
        return f"{command} over HTTPS, as its own user"
    return f"{command}, as its own user, ends with {app.check.exit_code} and prints '{app.check.prints}'"


def _answers(image: str, app: App, **options: Any) -> str:
    """Why the server does not answer what its app says it is asked; "" when it does."""
    try:
        with serving(image, workloads.own(app), workers=1, deadline_s=TIMEOUT_S, **options):
            return ""
    except Lost as lost:
        return str(lost)


def _fetches(image: str, check: Check, **options: Any) -> str:
    """Why the program did not fetch from a server of this call's and print what that had answered; "" when it did."""
    with address_server() as server:
        environment = {check.https_url: server.url} | ({check.https_ca: server.ca_pem} if check.https_ca else {})
        said, reason = _ended(image, check, stderr=False, network_mode="host", environment=environment, **options)
    if reason:
        return reason
    if said.strip() != server.address:
        return f"printed '{said.strip()[:80]}', the server had answered '{server.address}'"
    if server.requests != 1:
        return f"made {server.requests} requests in place of one"
    return ""


def _prints(image: str, check: Check, **options: Any) -> str:
    """Why the program, called as the check says, did not end and print as it says; "" when it did."""
    said, reason = _ended(image, check, stderr=True, network_mode="none", **options)
    if not reason and check.prints not in said:
        reason = f"did not print '{check.prints}': {said.strip()[:80]}"
    return reason


def _ended(image: str, check: Check, *, stderr: bool, **options: Any) -> tuple[str, str]:
    """What the image's program printed, called as the check says, to stderr too where that counts, and why it did not
    end with the check's code; `options` are the container's."""
    container = engine.create_container(image, command=[*engine.command(image), *check.arguments], **options)
    try:
        try:
            container.start()
            code = container.wait(timeout=TIMEOUT_S)["StatusCode"]
        except engine.docker.errors.APIError as error:
            return "", f"does not start: {engine.explained(error)}"
        except requests.exceptions.RequestException:
            return "", f"did not end within {TIMEOUT_S} s{engine.last_words(container)}"
        said = container.logs(stderr=stderr).decode(errors="replace")
        return said, "" if code == check.exit_code else f"exit code {code}{engine.last_words(container)}"
    finally:
        container.remove(force=True)
