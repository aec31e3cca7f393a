"""What talks to a program inside the program's own network. Python runs it in the image of the benchmark tools; it uses
the standard library alone. It prints one JSON object as its last line.

    client.py ask REQUEST      one request, as soon as a server answers, for at most `seconds`
    client.py repeat REQUEST   `count` requests on one connection
    client.py hold REQUEST     opens `count` connections, each with one answer, and holds them until it is ended
    client.py https ANSWER     serves `body` over HTTPS on `port`, with the certificate and the key beside this file

A REQUEST is a JSON object: `port` on 127.0.0.1, `method`, `path`, `body`, and `sha256`, of the right answer's body
(null: any will do).
"""

import hashlib
import json
import re
import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TIMEOUT_S = 20
POLL_S = 0.0005
FOLDER = Path("/client")


class WrongAnswer(Exception):
    """An answer that is not the right one; the text says why."""


def ask(request: dict[str, Any]) -> tuple[int, int]:
    """Ask once, on a connection of its own; see `ask_on`."""
    with connect(request) as connection:
        return ask_on(connection, request)


def connect(request: dict[str, Any]) -> socket.socket:
    """Connect to the server. Raises OSError."""
    return socket.create_connection(("127.0.0.1", request["port"]), timeout=TIMEOUT_S)


def ask_on(connection: socket.socket, request: dict[str, Any]) -> tuple[int, int]:
    """Ask once. Returns the bytes of the answer, headers included, and without them.

    Raises WrongAnswer, or OSError when the connection ends before the answer does.
    """
    asked, sent = f"{request['method']} {request['path']}", request["body"].encode()
    headers = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    connection.sendall(f"{asked} HTTP/1.1\r\n{headers}".encode() + sent)
    head = b""
    while b"\r\n\r\n" not in head:
        head += _receive(connection)
    head, _, body = head.partition(b"\r\n\r\n")
    length = re.search(rb"^content-length: (\d+)\r?$", head, re.IGNORECASE | re.MULTILINE)
    while length and len(body) < int(length[1]):
        body += _receive(connection)
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if not re.match(r"HTTP/1\.1 200\b", status):
        raise WrongAnswer(f"{asked} was answered with '{status[:40]}'")
    if not length:
        raise WrongAnswer(f"{asked} was answered without a Content-Length: its end cannot be told")
    if request["sha256"] not in (None, hashlib.sha256(body).hexdigest()):
        raise WrongAnswer(f"{asked} was answered with the wrong body ({body[:40]!r}...)")
    return len(head) + 4 + len(body), len(body)


def _receive(connection: socket.socket) -> bytes:
    if not (data := connection.recv(1 << 16)):
        raise ConnectionResetError("the connection ended before the answer did")
    return data


def _first_answer(request: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + request["seconds"]
    while time.monotonic() < deadline:
        try:
            answer_bytes, body_bytes = ask(request)
            return {"answer_bytes": answer_bytes, "body_bytes": body_bytes}
        except OSError:
            time.sleep(POLL_S)
    return {"no_answer": True}


def _repeat(request: dict[str, Any]) -> dict[str, Any]:
    with connect(request) as connection:
        for _ in range(request["count"]):
            ask_on(connection, request)
    return {"asked": request["count"]}


def _hold(request: dict[str, Any]) -> dict[str, Any]:
    held = []
    for number in range(request["count"]):
        try:
            held.append(connect(request))
            ask_on(held[-1], request)
        except OSError as error:
            return {"failed": f"connection {number + 1} of {request['count']} more: {error}"}
    _tell({"held": len(held)})
    time.sleep(request["seconds"])
    return {}


def _serve_https(answer: dict[str, Any]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            print("request", flush=True)
            body = answer["body"].encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None: ...  # a client that breaks off is seen in its own exit code

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "certificate.pem", FOLDER / "key.pem")
    server = Server(("127.0.0.1", answer["port"]), Handler)
    # The handshake belongs to the connection's own thread: a client that stalls in it must not stall the server.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()


def _tell(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)


def main(mode: str, text: str) -> None:
    """Do what `mode` says, and print the outcome."""
    request = json.loads(text)
    if mode == "https":
        _serve_https(request)
    try:
        _tell({"ask": _first_answer, "repeat": _repeat, "hold": _hold}[mode](request))
    except WrongAnswer as error:
        _tell({"wrong": str(error)})
    except OSError as error:
        _tell({"failed": str(error)})


if __name__ == "__main__":
    main(*sys.argv[1:])
