"""A forward proxy on 127.0.0.1 that asks for a login, as companies have them, and notes what went through it."""

import base64
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class ForwardProxy:
    """`passed`: the hosts that were reached with the right login; `refused`: how many calls came without."""

    address: str
    passed: list[str] = field(default_factory=list)
    refused: int = 0


@contextmanager
def serve(user: str, password: str, elsewhere: dict[str, str]) -> Iterator[ForwardProxy]:
    """Serves as long as the block lasts. `elsewhere`: where a host of the test's own really is, by name."""
    listener = socket.create_server(("127.0.0.1", 0))
    state = ForwardProxy(f"127.0.0.1:{listener.getsockname()[1]}")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()

    def handle(client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65536)):
                    return
                head += data
            head, _, body = head.partition(b"\r\n\r\n")
            first, *headers = head.decode().split("\r\n")
            method, target, version = first.split(" ")
            if f"proxy-authorization: basic {login}".lower() not in (line.lower() for line in headers):
                state.refused += 1
                answer = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=test"
                client.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                return
            url = urlsplit(target if "://" in target else f"//{target}")
            host, port = elsewhere.get(url.hostname, f"{url.hostname}:{url.port or 80}").split(":")
            state.passed.append(url.hostname)
            with socket.create_connection((host, int(port)), 30) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    # One request a connection: the next may be for another host.
                    kept = [line for line in headers if not line.lower().startswith(("proxy-", "connection:"))]
                    path = f"{url.path or '/'}{'?' + url.query if url.query else ''}"
                    request = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
                    server.sendall("\r\n".join(request).encode())
                server.sendall(body)
                _copy(client, server)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield state
    finally:
        listener.close()


def _copy(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until either side is done, or silent for a minute."""
    while ready := select.select([one, other], [], [], 60)[0]:
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
