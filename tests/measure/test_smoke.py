"""The check that an image does its job must fail where it does not: images made to fail it, each in its own way."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from support.lab import derived, ours

from rustimg_lab.build import lab_toml
from rustimg_lab.engine import client
from rustimg_lab.measure import load, server, smoke, workloads
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App, Check, Serve
from rustimg_lab.paths import MYIP

SERVERS = Path(__file__).parent.parent / "support"
HEALTH = {"http": 2, "grpc": "", "method": "POST", "path": "/grpc.health.v1.Health/Check"}
MEMORY = {"mem_limit": 256 << 20}

pytestmark = pytest.mark.engine


@pytest.fixture
def app():
    """myip, which fetches over HTTPS and prints what it got."""
    return lab_toml.load(MYIP)


@pytest.fixture
def script(images):
    """Makes an image on the alpine stand-in whose CMD is a shell script."""
    made = []

    def make(text: str, user: str = "10001:10001") -> str:
        made.append(derived(images["alpine"].image, ["/bin/sh", "-c", text], user))
        return made[-1]

    yield make
    for image in made:
        client.connect().images.remove(image, force=True)


@pytest.mark.parametrize(
    ("text", "user", "reason"),
    [
        ("exit 0", "root", "runs as 'root', not as user 10001"),
        ("echo no luck; exit 3", "10001:10001", "exit code 3; no luck"),
        (
            r"printf '\033[2m10:15\033[0m \033[31mERROR\033[0m no luck'; exit 3",
            "10001:10001",
            "exit code 3; 10:15 ERROR no luck",
        ),
        ("echo 127.0.0.1", "10001:10001", "printed '127.0.0.1', the server had answered"),
        (
            "yes a line of what it found | head -c 9000000",
            "10001:10001",
            "printed more than 8 MiB; [check] in lab.toml",
        ),
    ],
)
def test_an_image_that_does_not_do_its_job(text, user, reason, script, app, tools):
    row = smoke.measure_runs(script(text, user), app, tools)
    assert not row.ok and row.value is False
    assert row.reason.startswith(reason)


def test_a_program_that_never_ends_is_ended(script, monkeypatch, app, tools):
    monkeypatch.setattr(smoke, "TIMEOUT_S", 2)
    row = smoke.measure_runs(script("echo waiting; exec busybox sleep 60"), app, tools)
    assert row.reason == "did not end within 2 s; waiting"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (Check(prints="waiting"), ""),
        (Check(prints="done"), f"did not end within 2 s; waiting; {smoke.NEVER_ENDS}"),
        (Check(), f"did not end within 2 s; waiting; {smoke.NEVER_ENDS}"),
        (Check(prints="waiting", exit_code=1), "did not end within 2 s; waiting"),
    ],
)
def test_a_program_that_never_ends_passes_by_what_it_prints(check, said, script, monkeypatch):
    monkeypatch.setattr(smoke, "TIMEOUT_S", 2)
    image = script("echo waiting; exec busybox sleep 60")
    assert smoke.why_not(image, App("a", Path(), "", "a", check=check)) == said


def test_a_program_that_is_not_there_is_told(images, app, tools):
    image = derived(images["alpine"].image, ["/not/there"])
    try:
        assert smoke.measure_runs(image, app, tools).reason.startswith("does not start: ")
    finally:
        client.connect().images.remove(image, force=True)


def test_no_container_is_left(script, app, tools):
    smoke.measure_runs(script("exit 1"), app, tools)
    assert ours() == []


@pytest.fixture(scope="module")
def kinds(tools) -> Iterator[str]:
    """An image of servers that start at once; see `support/http1.py` and `http2.py`."""
    files = {f"srv/{name}": (0o644, (SERVERS / name).read_text()) for name in ("http1.py", "http2.py")}
    certificate = trustme.CA().issue_cert("example.invalid").private_key_and_cert_chain_pem.bytes().decode()
    image = derived(tools, ["python3"], files=files | {"srv/tls.pem": (0o644, certificate)})
    yield image
    client.connect().images.remove(image, force=True)


def served(kind: str, **serve: object) -> App:
    """The app of a server of that kind, which is asked so."""
    program, *more = kind.split()
    arguments = ("/srv/http2.py", "{port}", *more) if program == "http2" else ("/srv/http1.py", program, "{port}")
    return App("a", Path(), "", "a", check=None, serve=Serve(arguments, **serve))


@pytest.mark.parametrize(
    ("kind", "serve"),
    [
        ("tls", {"tls": True}), ("old", {}), ("dual", {}), ("slow", {}), ("http2", {"http": 2}), ("http2 0 1", HEALTH),
    ],
)  # fmt: skip
def test_a_server_of_any_kind_answers(kind, serve, kinds, tools):
    assert smoke.why_not(kinds, served(kind, **serve), tools, **MEMORY) == ""


ELSEWHERE = "no answer within 2 s; it listens on {}, and must on 0.0.0.0 port 20080, which [serve] passes to it"


@pytest.mark.parametrize(
    ("kind", "serve", "said"),
    [
        ("tls", {}, "it speaks TLS and HTTP/1: set tls = true and http = 1 in [serve]; listening"),
        ("http2 12 1", HEALTH, "gRPC status 12: it has no grpc.health.v1.Health, see crate tonic-health; listening"),
        ("http2 0 2", HEALTH | {"start_timeout_s": 2}, "ServingStatus 2, which is not SERVING); listening"),
        ("after", {}, "listens on 127.0.0.1 alone, which nothing outside of its container reaches: it must listen on"),
        ("only_ipv6", {"start_timeout_s": 2}, ELSEWHERE.format(":: port 20080")),
        ("unix", {"start_timeout_s": 2}, ELSEWHERE.format("the Unix socket /tmp/app.sock")),
    ],
)  # fmt: skip
def test_a_server_that_is_not_reached_or_asked_rightly_says_so(kind, serve, said, kinds, tools):
    assert said in smoke.why_not(kinds, served(kind, **serve), tools, **MEMORY)


def test_a_path_that_is_answered_as_one_that_is_not_there_is_noted(kinds, tools):
    """This server has one answer for all paths; only / may well have that of all others."""
    for path, begin in (("/health?a=b", smoke.ANY_PATH), ("/", "CMD, as its own user, answers")):
        row = smoke.measure_runs(kinds, served("dual", path=path), tools)
        assert row.ok and row.detail.startswith(begin)


def test_a_server_that_asks_for_an_address_that_no_container_has_is_told_where_to_listen(kinds, tools):
    row = smoke.measure_runs(kinds, served("absent"), tools)
    assert not row.ok and row.reason.endswith(f"; {smoke.LISTENS}")


def treatment(image: str) -> Treatment:
    return Treatment(matrix.cell("debian", "optimized", "system"), image, "kinds")


@pytest.mark.parametrize(
    ("kind", "serve"), [("tls", {"tls": True}), ("chunked", {}), ("closes", {"keep_alive": False})]
)
def test_a_server_of_any_kind_is_put_under_load(kind, serve, kinds, tools):
    asked = load.Load(workloads.app_workload(served(kind, **serve)), 1, 4, 1, 3)
    with load.serve(treatment(kinds), asked, tools, **MEMORY) as found:
        requests, _ = load.ask(found, asked, asked.seconds)
        assert requests and found.body_bytes == 3000
        assert server.ask(found.client, "repeat", asked.workload, count=3) == {"asked": 3}
        if kind == "chunked":
            server.hold_connections(found, asked.workload, 0, 3, 1)


def test_a_study_of_a_server_that_closes_its_connections_or_is_not_reached_says_so(kinds, tools):
    for kind, said in (("closes", "set keep_alive = false in"), ("localhost", "listens on 127.0.0.1 alone")):
        asked = load.Load(workloads.app_workload(served(kind)), 1, 4, 1, 1)
        with pytest.raises(FailedTrial, match=said), load.serve(treatment(kinds), asked, tools, **MEMORY):
            pass
