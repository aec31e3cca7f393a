"""A server of HTTP/2 without TLS (h2c), by hand, since Python has none: `python3 http2.py PORT [STATUS [HEALTH]]`.

It answers every request with 3 bytes; or with a gRPC status and, where that is 0, the health of grpc.health.v1."""

import contextlib
import socket
import struct
import sys
import threading

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header as HPACK has it, without its tables."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def answer(stream: int, status: str, health: int) -> bytes:
    head = b"\x88" + literal(b"content-type", b"application/grpc" if status else b"text/plain")  # 0x88: `:status: 200`
    if not status:
        return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, b"42\n")
    said = frame(DATA, 0, stream, b"\0\0\0\0\x02\x08" + bytes([health])) if status == "0" else b""
    trailers = literal(b"grpc-status", status.encode())
    return frame(HEADERS, END_HEADERS, stream, head) + said + frame(HEADERS, 5, stream, trailers)


def converse(connection: socket.socket, status: str, health: int) -> None:
    with connection, connection.makefile("rb") as file, contextlib.suppress(OSError, struct.error):
        if file.read(len(PREFACE)) != PREFACE:
            return
        connection.sendall(frame(SETTINGS, 0, 0))
        while True:
            size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + file.read(9))
            file.read(size)
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                connection.sendall(answer(stream, status, health))


def serve(listener: socket.socket, status: str = "", health: int = 1) -> None:
    with contextlib.suppress(OSError):  # it is closed
        while True:
            threading.Thread(target=converse, args=(listener.accept()[0], status, health), daemon=True).start()


if __name__ == "__main__":
    port, status, health = [*sys.argv[1:], "", "1"][:3] if len(sys.argv) < 4 else sys.argv[1:]
    print("listening", flush=True)
    serve(socket.create_server(("0.0.0.0", int(port))), status, int(health))
