"""What a check shows, without an engine: that a program starts is not that it works."""

import socket
from pathlib import Path

import pytest

from rustimg_lab.measure import smoke
from rustimg_lab.model.app import App, Check


@pytest.mark.parametrize(
    ("check", "starts"),
    [(Check(("--version",)), True), (Check(("-V",)), True), (Check(("--version",), "answer 42"), False),
     (Check(("--version", "--json")), False), (Check(), False), (Check(("/etc/passwd",)), False)],
)  # fmt: skip
def test_a_check_by_version_alone_says_that_the_program_starts(check, starts):
    words = smoke.in_words(App("a", Path(), "", "a", check=check))
    assert words.startswith("note: only its start was checked; CMD ") == starts


@pytest.mark.parametrize(("host", "reached"), [("127.0.0.1", False), ("0.0.0.0", True), ("::1", False), ("::", True)])
def test_a_server_that_listens_on_loopback_alone_is_named(host, reached):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        sockets = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        assert ("127.0.0.1 alone" in smoke.not_reached(sockets, server.getsockname()[1])) != reached
    assert smoke.not_reached("", 80) == ""
