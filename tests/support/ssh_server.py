"""An SSH server on 127.0.0.1 that lets one key in and runs what it is asked to, as a machine with an engine does."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko

CHUNK = 1 << 16


class _Door(paramiko.ServerInterface):
    def __init__(self, key: paramiko.PKey) -> None:
        self.key = key

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL if key == self.key else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_serve, args=(channel, command.decode()), daemon=True).start()
        return True


def _serve(channel: paramiko.Channel, command: str) -> None:
    """Run a command whose input and output are the channel's."""
    process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def bring() -> None:
        while heard := channel.recv(CHUNK):
            process.stdin.write(heard)
        process.stdin.close()

    threading.Thread(target=bring, daemon=True).start()
    with suppress(OSError, EOFError):  # the one who asked is gone
        while said := process.stdout.read(CHUNK):
            channel.sendall(said)
        channel.send_exit_status(process.wait())
        channel.close()


@contextmanager
def serving(home: Path) -> Iterator[int]:
    """Serve for as long as the block lasts; returns the port. `home` gets the folder .ssh of a user who may come in."""
    own, users = (paramiko.RSAKey.generate(2048) for _ in range(2))
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    users.write_private_key_file(str(home / ".ssh" / "id_rsa"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {own.get_name()} {own.get_base64()}\n")
        threading.Thread(target=_accept, args=(listener, own, users), daemon=True).start()
        yield port


def _accept(listener: socket.socket, own: paramiko.PKey, users: paramiko.PKey) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed
            return
        transport = paramiko.Transport(connection)
        transport.add_server_key(own)
        transport.start_server(server=_Door(users))
