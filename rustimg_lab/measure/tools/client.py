"""What talks to a program inside the program's own network. Python runs it in the image of the benchmark tools; it uses
the standard library, and curl for what is asked. It prints one JSON object as its last line.

    client.py ask REQUEST      one request, as soon as a server answers, for at most `seconds`
    client.py repeat REQUEST   `count` requests on one connection
    client.py hold REQUEST     opens `count` connections over plain HTTP/1.1, each with one answer of `answer_bytes`,
                               and holds them until it is ended, beside `held` others
    client.py https ANSWER     serves `body` over HTTPS on `port`, with the certificate and the key beside this file

A REQUEST is a JSON object: `port` on 127.0.0.1, `method`, `path`, `body`, `sha256`, of the right answer's body (null:
any will do), and `tls`, `http`, `grpc`, `status` and `keep_alive` as in lab.toml's [serve].
"""

import hashlib
import io
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TIMEOUT_S = 20
PROBE_S = "2"  # how long a server is tried in another way than lab.toml says
POLL_S = 0.0005
FOLDER = Path("/client")
SOCKETS = [Path("/proc/net", name) for name in ("tcp", "tcp6", "unix")]  # the kernel's tables
SERVING = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus
CURL = ("curl", "--disable", "--silent", "--insecure", "--globoff", "--path-as-is", "--noproxy", "*")
NOT_YET = (502, 503, 504)  # statuses by which a server, or a proxy in front of it, says that it is not ready
ESTABLISHED = "01"  # a connection that neither end has closed (include/net/tcp_states.h)
NO_HTTP = 1  # how curl ends where an answer is none of HTTP


class WrongAnswer(Exception):
    """An answer that is not the right one; the text says why."""


class NotYet(OSError):
    """An answer of the protocol that lab.toml names, which says that the server is not ready."""


def curl(request: dict[str, Any], *options: str) -> tuple[list[dict[str, Any]], str, bytes]:
    """Send a request `count` times (default: once), on one connection where the server keeps it. Returns curl's report
    on each answer, all headers and trailers, and all bodies. A certificate is not verified. Raises OSError when a
    request fails."""
    service, tls, payload = request["grpc"], "s" if request["tls"] else "", request["body"].encode()
    headers = [_host(request), "User-Agent:", "Accept:", "Expect:", "Content-Type: application/json"]
    headers += [] if request["keep_alive"] or request["http"] == 2 else ["Connection: close"]
    if service is not None:  # a HealthCheckRequest, whose field 1 is the service, behind its length
        message = b"\n" + bytes([len(service)]) + service.encode() if service else b""
        payload = b"\0" + len(message).to_bytes(4, "big") + message
        headers[-1:] = ["Content-Type: application/grpc", "TE: trailers"]
    version = "--http1.1" if request["http"] == 1 else "--http2" if tls else "--http2-prior-knowledge"
    with tempfile.NamedTemporaryFile() as head:
        command = [*CURL, version, *(f"-H{header}" for header in headers)]
        command += ["--max-time", str(TIMEOUT_S), "--request", request["method"], "--dump-header", head.name, *options]
        command += ["--data-binary", "@-"] if payload else ["--header", "Content-Length: 0"]
        command += ["--write-out", "%{stderr}%{json}\n"]
        urls = [f"http{tls}://127.0.0.1:{request['port']}{request['path']}"] * request.get("count", 1)
        result = subprocess.run([*command, *urls], input=payload, capture_output=True, check=False)
        head_text = head.read().decode("latin-1")
    replies = [json.loads(line) for line in result.stderr.decode(errors="replace").splitlines()]
    for reply in replies:
        if reply["exitcode"] not in (0, NO_HTTP):
            raise OSError(reply["errormsg"])
    return replies, head_text, result.stdout


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Send a request once. Returns `answer_bytes` with headers, `body_bytes`, and `closes`: whether the server closes
    the connection. Raises WrongAnswer, or OSError when there is no whole answer."""
    (reply,), head, body = curl(request)
    checked(request, reply, head.partition("\r\n")[0], body)
    head, size = head.lower(), reply["size_header"] + len(body)
    if "\ntransfer-encoding: chunked" in head:
        size = reply["size_header"] + len(curl(request, "--raw")[2])
    has_length = "\ncontent-length:" in head or "\ntransfer-encoding:" in head or reply["http_code"] in (204, 304)
    closes = request["http"] == 1 and (
        reply["http_version"] != "1.1" or "\nconnection: close" in head or not has_length
    )
    if request["grpc"] is not None:
        _healthy(head, body)
    return {"answer_bytes": size, "body_bytes": len(body), "closes": closes}


def _host(request: dict[str, Any]) -> str:
    """The header that wrk and oha send: a server may repeat it in its answer."""
    return f"Host: 127.0.0.1:{request['port']}"


def checked(request: dict[str, Any], reply: dict[str, Any], line: str, body: bytes) -> None:
    """Raise WrongAnswer when an answer is not the right one, or NotYet when the server is not ready. `reply` is curl's
    report on it, `line` its status line."""
    call, status, start = f"{request['method']} {request['path']}", reply["http_code"], body.strip().partition(b"\n")[0]
    if status != request["status"] or reply["http_version"][:1] != str(request["http"]):
        answer = f"'{(line or reply['errormsg'])[:40]}'" + (f": {start[:80].decode(errors='replace')}" if start else "")
        is_other = status in (0, 400) or reply["http_version"][:1] != str(request["http"])
        if status in NOT_YET and not is_other:
            raise NotYet(f"{call} was answered with {answer}")
        remedy = _spoken(request) if is_other else ""
        if not remedy and status not in (0, request["status"]) and request["grpc"] is None:
            remedy = f"; in [serve], set another path, or status = {status} if that is right"
        raise WrongAnswer(f"{call} was answered with {answer}{remedy}")
    if request["sha256"] not in (None, hashlib.sha256(body).hexdigest()):
        raise WrongAnswer(f"{call} was answered with the wrong body ({body[:40]!r}...)")


def _healthy(head: str, body: bytes) -> None:
    code = re.search(r"\ngrpc-status: *(\d+)", head)
    if not code or code[1] != "0":
        hint = {"12": ": it has no grpc.health.v1.Health, see crate tonic-health", "5": ": it knows no such service"}
        status = f"{code[1]}{hint.get(code[1], '')}" if code else "missing"
        raise WrongAnswer(f"grpc.health.v1.Health/Check was answered with gRPC status {status}")
    health = body[6] if body[5:6] == b"\x08" else 0
    if health != SERVING:  # it may still be starting
        raise OSError(f"grpc.health.v1.Health/Check was answered with ServingStatus {health}, which is not SERVING")


def _spoken(request: dict[str, Any]) -> str:
    """Return what a server speaks that does not answer as lab.toml says, with what to set there; "" when that is not
    known."""
    pairs = {(True, 1), (False, 1), (True, 2), (False, 2)} - {(request["tls"], request["http"])}
    for tls, http in sorted(pairs, key=lambda pair: pair[1]):
        with suppress(OSError):
            (reply,), _, _ = curl(request | {"tls": tls, "http": http}, "--max-time", PROBE_S)
            if reply["http_code"] not in (0, 400) and reply["http_version"][:1] == str(http):
                spoken = f"{'TLS' if tls else 'no TLS'} and HTTP/{http}"
                return f"; it speaks {spoken}: set tls = {str(tls).lower()} and http = {http} in [serve]"
    return ""


def _first_answer(request: dict[str, Any]) -> dict[str, Any]:
    deadline, report = time.monotonic() + request["seconds"], {}
    while not report:
        try:
            report = ask(request)
        except OSError as error:
            time.sleep(POLL_S)
            if time.monotonic() > deadline:
                spoken = "" if isinstance(error, NotYet) else _spoken(request)
                report = {"wrong": f"{error}{spoken}"} if spoken else {"no_answer": str(error)}
                with suppress(OSError):  # while it was tried in other ways it may have become ready
                    report = ask(request)
    return report | {"sockets": "".join(path.read_text() for path in SOCKETS if path.exists())}


def _repeat(request: dict[str, Any]) -> dict[str, Any]:
    replies, _, output = curl(request)
    bodies = io.BytesIO(output)
    for reply in replies:
        checked(request, reply, f"code {reply['http_code']}", bodies.read(reply["size_download"]))
    return {"asked": request["count"]}


def _hold(request: dict[str, Any]) -> dict[str, Any]:
    connections, body = [], request["body"].encode()
    headers = f"{_host(request)}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for number in range(request["count"]):
        try:
            connections.append(socket.create_connection(("127.0.0.1", request["port"]), timeout=TIMEOUT_S))
            connections[-1].sendall(f"{request['method']} {request['path']} HTTP/1.1\r\n{headers}".encode() + body)
            answer = connections[-1].makefile("rb").read(request["answer_bytes"])
        except OSError as error:
            return {"failed": f"connection {number + 1} of {request['count']} more: {error}"}
        if len(answer) < request["answer_bytes"] or not answer.startswith(f"HTTP/1.1 {request['status']}".encode()):
            return {
                "failed": f"connection {number + 1} of {request['count']} more: another answer ({answer[:40]!r}...)"
            }
    if (closed_count := request["held"] + len(connections) - _standing(request["port"])) > 0:
        return {"failed": f"the server closed {closed_count} connections meanwhile, as by its keep-alive time-out"}
    _tell({"held": len(connections)})
    time.sleep(request["seconds"])
    return {}


def _standing(port: int) -> int:
    """How many connections to a port of 127.0.0.1 neither end has closed, by this end's line in the kernel's table."""
    lines = (line.split() for line in SOCKETS[0].read_text().splitlines()[1:])
    return sum(line[2].endswith(f":{port:04X}") and line[3] == ESTABLISHED for line in lines)


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
    """Do what `mode` says with the JSON object in `text`, and print the outcome as a JSON object."""
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
