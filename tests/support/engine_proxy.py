"""A proxy before the engine's socket, which a test makes fail, stop or answer late."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from rustimg_lab.engine.client import engine_address


class Proxy:
    """A socket in front of the engine's; `fault` is what it does to a request: "", "slow", "500" or "drop"."""

    def __init__(self, path: Path):
        self.address, self.fault, self.after = f"unix://{path}", "", 0
        self._engine = engine_address().removeprefix("unix://")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request a connection, which the engine is told: so none passes unseen on one that was kept open."""
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(1 << 16)):
                    return
                head += data
            self.after -= 1
            fault = self.fault if self.after < 0 else ""
            if fault == "drop":
                return
            if fault == "500":
                body = b'{"message": "the database of images is locked"}'
                head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close"
                client.sendall(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
                return
            if fault == "slow":
                time.sleep(1)
            with socket.socket(socket.AF_UNIX) as upstream:
                upstream.connect(self._engine)
                if b"\r\nUpgrade:" not in head:
                    head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
                upstream.sendall(head)
                back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
                back.start()
                pump(client, upstream)
                back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
