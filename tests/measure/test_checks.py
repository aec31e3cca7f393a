"""What a check shows, without an engine: that a program starts is not that it works."""

import socket
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import APIError
from requests.exceptions import ReadTimeout

from rustimg_lab.measure import server, smoke
from rustimg_lab.model.app import App, Check


@pytest.mark.parametrize(
    ("check", "starts"),
    [(Check(("--version",)), True), (Check(("-V",)), True), (Check(("--version",), "answer 42"), True),
     (Check(("version",)), True), (Check(("-v",)), True), (Check(("help",), "a 1.0"), True),
     (Check(("serve", "--help"), "Usage"), True), (Check(("--level", "help.txt")), False),
     (Check(("--version", "--json")), False), (Check(), False), (Check(("/etc/passwd",)), False)],
)  # fmt: skip
def test_a_check_by_version_alone_says_that_the_program_starts(check, starts):
    words = smoke.in_words(App("a", Path(), "", "a", check=check))
    assert words.startswith("note: only its start was checked; CMD ") == starts


class Bot:
    """A container whose program prints its name, and does not end where `ending` is none of its exit codes."""

    def __init__(self, ending):
        self.ending = ending

    def start(self) -> None: ...

    def wait(self, timeout: float) -> dict:
        if isinstance(self.ending, Exception):
            raise self.ending
        return {"StatusCode": self.ending}

    def logs(self, stream: bool = False, **_: object):
        return (piece for piece in (b"bot ", b"is on")) if stream else b"bot is on"


LATE, GONE = ReadTimeout("timed out"), APIError("no", explanation="No such container: 1")
ENDLESS = f"did not end within {smoke.TIMEOUT_S} s; bot is on"


@pytest.mark.parametrize(
    ("ending", "check", "reason"),
    [
        (0, Check(prints="is on"), ""),
        (0, Check(prints="is off"), "did not print 'is off': bot is on"),
        (LATE, Check(prints="bot is on"), ""),
        (LATE, Check(prints="is off"), f"{ENDLESS}; {smoke.NEVER_ENDS}"),
        (LATE, Check(), f"{ENDLESS}; {smoke.NEVER_ENDS}"),
        (LATE, Check(prints="is on", exit_code=1), ENDLESS),  # it must end
        (GONE, Check(prints="is on"), "its container is gone: No such container: 1"),
    ],
)
def test_a_program_that_never_ends_passes_only_by_what_it_prints(ending, check, reason, monkeypatch):
    monkeypatch.setattr(smoke.images, "command", lambda _: ["/bot"])
    monkeypatch.setattr(smoke.containers, "created", lambda *_, **options: nullcontext(Bot(ending)))
    monkeypatch.setattr(smoke.client, "explain_refusal", lambda error: error.explanation)
    assert smoke.why_not("image", App("a", Path(), "", "a", check=check)) == reason


@pytest.mark.parametrize(
    ("said", "way"),
    [
        ("exit code 101; DATABASE_URL must be set: NotPresent", smoke.VARIABLE),
        ("the server ended before it answered; Error: environment variable not found", smoke.VARIABLE),
        ("exit code 2; unknown option --version", smoke.CALLED),
        ("exit code 2; error: unrecognised argument '--version'", smoke.CALLED),
        ("exit code 2; no such order", ""),
        ("exit code 1; /nonexistent/.local", smoke.HOME),
    ],
)
def test_the_way_out_of_a_failed_check_is_told(said, way, monkeypatch):
    monkeypatch.setattr(smoke.images, "inspect", lambda _: SimpleNamespace(user=smoke.USER))
    monkeypatch.setattr(smoke, "why_not", lambda *_: said)
    assert smoke.measure_runs("image", App("a", Path(), "", "a", check=Check())).reason == said + (way and f"; {way}")


def tables() -> str:
    return "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6", "unix"))


def listener(host: str, port: int = 0) -> socket.socket:
    """A listener; "::only" is of IPv6 alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = host == "::"
    return socket.create_server((host.removesuffix("only"), port), family=family, dualstack_ipv6=dual)


@pytest.mark.parametrize(
    ("host", "named"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("0.0.0.0", ""), ("::1", "::1"), ("::", ""),
     ("::ffff:127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1")],
)  # fmt: skip
def test_a_server_that_listens_on_loopback_alone_is_named(host, named):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        bound.listen()
        port = bound.getsockname()[1]
        # A listener of another port, as of metrics, reaches nobody.
        with listener("0.0.0.0") as other:
            assert other.getsockname()[1] != port
            reason = server.unreachable_reason(tables(), port)
            assert reason.startswith(f"listens on {named} alone, which nothing") if named else reason == ""
    assert server.unreachable_reason("", port) == ""


def test_a_server_that_is_not_asked_where_it_listens_is_told_where_that_is(tmp_path):
    with listener("::only") as found:
        port = found.getsockname()[1]
        assert f":: port {port}" in server.other_address_reason(tables(), port)
    with listener("0.0.0.0") as found:
        assert server.other_address_reason(tables(), found.getsockname()[1]) == ""
        assert f"0.0.0.0 port {found.getsockname()[1]}" in server.other_address_reason(tables(), 1)
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "app.sock"))
        found.listen()
        assert f"the Unix socket {tmp_path}/app.sock" in server.other_address_reason(tables(), 1)
    nothing = "; it listens on no port, and must on 0.0.0.0 port 80, which [serve] passes to it"
    assert server.other_address_reason("", 80) == nothing
    dockers = "  0: 0B00007F:9C40 00000000:0000 0A \n"  # 127.0.0.11: its name server
    assert server.other_address_reason(dockers, 80) == nothing
