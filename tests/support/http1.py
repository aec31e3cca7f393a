"""A server of the standard library, of the kind that is named: `python3 http1.py KIND PORT`. Beside it lies what it
needs for TLS: `tls.pem`."""

import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BODY = b"x" * 3000
HOSTS = {"only_ipv6": "::", "dual": "::", "localhost": "localhost", "after": "127.0.0.1", "absent": "192.0.2.1"}
kind, port = sys.argv[1], int(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0" if kind == "old" else "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if kind == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif kind != "old":
            self.send_header("Content-Length", str(len(BODY)))
        if kind == "closes":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) if kind == "chunked" else BODY)

    def log_message(self, *args: object) -> None: ...


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if HOSTS.get(kind) == "::" else socket.AF_INET
    request_queue_size = 128

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, kind == "only_ipv6")
        super().server_bind()

    def handle_error(self, *args: object) -> None: ...


if kind == "slow":
    time.sleep(3)
if kind == "unix":
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/tmp/app.sock")
    listener.listen()
    time.sleep(60)
if kind == "after":
    metrics = socket.create_server(("0.0.0.0", 9090))
server = Server((HOSTS.get(kind, "0.0.0.0"), port), Handler)
if kind == "tls":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("tls.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("listening", flush=True)
server.serve_forever()
