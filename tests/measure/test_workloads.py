"""What a server is asked, and what is said of an answer that is not the right one; here a broken server gives those."""

import json
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trustme
from support import http2

from rustimg_lab.errors import LabError
from rustimg_lab.host import machine
from rustimg_lab.host.machine import Core
from rustimg_lab.measure import load, workloads
from rustimg_lab.measure.tools import client

ROOT = workloads.find_workload("root")
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="this machine has no curl")


@pytest.fixture
def answers() -> Iterator[object]:
    """A server on 127.0.0.1 that says to each connection what it is told to say, and closes it; returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        said = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(said[0])

        threading.Thread(target=serve, daemon=True).start()

        def start(text: bytes) -> int:
            said[:] = [text]
            return listener.getsockname()[1]

        yield start
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def served() -> Iterator[Callable]:
    """Starts a server on 127.0.0.1 by what serves a listener; returns its port."""
    listeners = []

    def start(serve: Callable, *arguments: object) -> int:
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=serve, args=(listeners[-1], *arguments), daemon=True).start()
        return listeners[-1].getsockname()[1]

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)


def serve_tls(listener: socket.socket) -> None:
    """Answers over TLS, with a certificate of another name; what speaks none is cut off."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("example.invalid").configure_cert(context)
    while True:
        try:
            connection = listener.accept()[0]
        except OSError:
            return
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1 << 16)
                secured.sendall(response(ROOT.answer))
        except OSError:
            connection.close()


def request(port: int, **serve: object) -> dict:
    """What `client.py` gets; with something in [serve], any body will do."""
    workload = replace(ROOT, answer=None, serve=replace(ROOT.serve, **serve)) if serve else ROOT
    return workload.request() | {"port": port}


def response(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n42\r\n1;x=y\r\n\n\r\n0\r\n\r\n"


@needs_curl
@pytest.mark.parametrize(
    ("said", "serve", "body_bytes", "closes"),
    [
        (response(ROOT.answer), {}, len(ROOT.answer), False),
        (response(b"42\n", "404 Not Found"), {"status": 404}, 3, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", {"status": 204}, 0, False),
        (CHUNKED, {"http": 1}, 3, False),
        (b"HTTP/1.1 200 OK\r\n\r\n42\n", {"http": 1}, 3, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n42\n", {"http": 1}, 3, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n42\n", {"http": 1}, 3, True),
    ],
)
def test_the_right_answer_has_its_bytes_counted(answers, said, serve, body_bytes, closes):
    found = client.ask(request(answers(said), **serve))
    assert found == {"answer_bytes": len(said), "body_bytes": body_bytes, "closes": closes}


@needs_curl
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (response(b'{"ip":"10.0.0.1","country":"Unknown","cc":"XX"}'), "wrong body"),
        (
            response(b"no page\nat all", "500 Error"),
            "'HTTP/1.1 500 Error': no page; in \\[serve\\], set another path, or ",
        ),
        (
            response(b"", "307 Temporary Redirect"),
            r"'HTTP/1.1 307 Temporary Redirect'; in \[serve\], .* status = 307 if ",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "'Received HTTP/0.9"),
    ],
)
def test_another_answer_loses_the_trial(answers, said, reason):
    with pytest.raises(client.WrongAnswer, match=reason):
        client.ask(request(answers(said)))


@needs_curl
def test_a_server_that_says_it_is_not_ready_is_asked_again_unless_that_is_the_right_answer(answers):
    unready = response(b"wait", "503 Service Unavailable")
    with pytest.raises(client.NotYet, match=r"was answered with 'HTTP/1.1 503 Service Unavailable': wait"):
        client.ask(request(answers(unready)))
    assert client.ask(request(answers(unready), status=503))["body_bytes"] == 4


@needs_curl
def test_a_server_that_is_not_ready_is_not_tried_in_other_ways(answers, monkeypatch):
    monkeypatch.setattr(client, "SOCKETS", [])
    monkeypatch.setattr(client, "_spoken", lambda _: pytest.fail("it answers as lab.toml says"))
    told = client._first_answer(request(answers(response(b"wait", "503 Unavailable"))) | {"seconds": 0})
    assert "503 Unavailable" in told["no_answer"]


@needs_curl
def test_a_server_that_became_ready_while_it_was_tried_in_other_ways_is_not_called_wrong(answers, monkeypatch):
    monkeypatch.setattr(client, "SOCKETS", [])
    port = answers(b"")

    def spoken(_: dict) -> str:
        answers(response(ROOT.answer))
        return "; it speaks TLS and HTTP/1"

    monkeypatch.setattr(client, "_spoken", spoken)
    assert client._first_answer(request(port) | {"seconds": 0})["answer_bytes"] == len(response(ROOT.answer))


def test_connections_that_the_server_has_closed_are_not_counted_as_held(answers, capsys):
    said = response(ROOT.answer)
    asked = request(answers(said)) | {"count": 3, "held": 2, "answer_bytes": len(said), "seconds": 0}
    told = client._hold(asked)["failed"]  # the last one may stand a moment longer
    assert re.fullmatch("the server closed [45] connections meanwhile, as by its keep-alive time-out", told)
    assert not capsys.readouterr().out


@needs_curl
def test_a_server_hears_the_host_that_the_load_generators_send(served):
    heard = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(1 << 16))
            connection.sendall(response(ROOT.answer))

    port = served(serve)
    client.ask(request(port))
    assert f"\r\nHost: 127.0.0.1:{port}\r\n".encode() in heard[0]


@needs_curl
def test_an_answer_that_breaks_off_and_a_port_where_nobody_listens_can_be_asked_again(answers):
    with pytest.raises(OSError):
        client.ask(request(answers(response(ROOT.answer)[:-5])))
    with pytest.raises(OSError):
        client.ask(request(answers(CHUNKED[:-5]), http=1))
    with pytest.raises(OSError):
        client.ask(request(machine.free_port()))


@needs_curl
def test_a_server_is_asked_over_tls_whatever_its_certificate_names(served):
    port = served(serve_tls)
    assert client.ask(request(port, tls=True))["body_bytes"] == len(ROOT.answer)
    told = client._first_answer(request(port) | {"seconds": 0})
    assert told["wrong"].endswith("it speaks TLS and HTTP/1: set tls = true and http = 1 in [serve]")


@needs_curl
@pytest.mark.parametrize("serve", [{"tls": True}, {"http": 2}, {"tls": True, "http": 2}])
def test_a_server_that_speaks_plain_http_is_named(answers, serve):
    told = client._first_answer(request(answers(response(ROOT.answer)), **serve) | {"seconds": 0})
    assert told["wrong"].endswith("it speaks no TLS and HTTP/1: set tls = false and http = 1 in [serve]")


HEALTH = {"method": "POST", "path": "/grpc.health.v1.Health/Check"}


@needs_curl
def test_http_2_without_tls_is_asked_and_named(served):
    port = served(http2.serve)
    assert client.ask(request(port, http=2))["body_bytes"] == 3
    told = client._first_answer(request(port) | {"seconds": 0})
    assert told["wrong"].endswith("it speaks no TLS and HTTP/2: set tls = false and http = 2 in [serve]")


@needs_curl
@pytest.mark.parametrize(
    ("status", "health", "said"),
    [
        ("0", 1, ""), ("12", 1, "gRPC status 12: it has no grpc.health.v1.Health"), ("5", 1, "knows no such service"),
        ("0", 2, "ServingStatus 2, which is not SERVING"), ("0", 0, "ServingStatus 0"),
    ],
)  # fmt: skip
def test_the_health_of_a_grpc_server_is_asked(served, status, health, said):
    asked = request(served(http2.serve, status, health), http=2, grpc="a.B") | HEALTH | {"seconds": 0}
    if not said:
        assert client.ask(asked)["body_bytes"] == 7
    else:
        with pytest.raises((client.WrongAnswer, OSError), match=said):
            client.ask(asked)


def test_a_batch_asks_for_addresses_of_both_kinds_no_two_alike():
    batch = workloads.find_workload("batch")
    asked, answer = json.loads(batch.serve.body), json.loads(batch.answer)
    assert len(set(asked)) == workloads.BATCH == len(answer)
    assert {each["family"] for each in answer} == {"IPv4", "IPv6"}


def test_a_misspelt_workload_is_told_with_the_nearest():
    with pytest.raises(LabError, match="did you mean 'batch'"):
        workloads.find_workload("bach")


@pytest.mark.parametrize(
    ("workers", "cpus", "split"),
    [
        (1, [0, 1], ("1", "0")),
        (1, [0, 1, 2, 3], ("3", "0,1")),
        (2, [0, 1, 2, 3], ("2,3", "0,1")),
        (2, [0, 1, 2, 3, 4, 5], ("4,5", "0,1")),
        (4, [0, 1, 2, 3, 4, 5], ("2,3,4,5", "0,1")),
        (8, [0, 1, 2, 3, 4, 5], ("2,3,4,5", "0,1")),
        (2, [4, 6], ("4,6", "4,6")),
    ],
)
def test_server_and_generator_have_cpus_of_their_own_or_every_table_says_that_they_have_not(workers, cpus, split):
    *found, warning = load.split_cpus(workers, [Core((cpu,)) for cpu in cpus])
    assert tuple(found) == split
    assert bool(warning) == (split[0] == split[1])


def test_an_engine_that_keeps_no_container_to_cpus_is_not_told_to(monkeypatch):
    """It may refuse to start such a container, as rootless Podman does without the controller of cgroups."""
    monkeypatch.setattr(load, "engine_cores", lambda: [Core((0,)), Core((1,))])
    told = {}
    monkeypatch.setattr(load, "serving", lambda image, workload, tools, **options: told.update(options))
    treatment = SimpleNamespace(image="", setting=None)
    asked = load.Load(workloads.find_workload("batch"), 1, 8, 1, 1)
    for pinned, cpus in ((True, ("1", "0")), (False, ("", ""))):
        load.serve(treatment, replace(asked, pinned=pinned), "")
        assert (told["cpus"], told["client"]["cpuset_cpus"]) == cpus
    assert "pinned" not in asked.parameters() and asked.parameters()["warning"] == ""
    told = replace(asked, pinned=False).parameters()["warning"]
    assert told.startswith("this engine keeps no container to some CPUs")


@pytest.mark.parametrize(
    ("cpus", "workers"), [(1, [1]), (2, [1, 2]), (3, [1, 2]), (4, [1, 2]), (6, [1, 2, 4]), (16, [1, 2, 4, 8])]
)
def test_a_machine_with_more_cpus_has_more_of_the_curve_each_worker_with_a_cpu(cpus, workers):
    cores = [Core((cpu,)) for cpu in range(cpus)]
    assert load.usual_workers(cores) == workers
    for number in workers if cpus > 3 else []:
        assert len(load.split_cpus(number, cores)[0].split(",")) == number


@pytest.mark.parametrize(
    ("workers", "cores", "split"),
    [
        (1, [(0, 2), (1, 3)], ("1", "0,2")),  # as of a cloud's four CPUs: two threads of each core
        (2, [(0, 2), (1, 3)], ("1,3", "0,2")),
        (2, [(0, 4), (1, 5), (2, 6), (3, 7)], ("2,3", "0,4")),
        (4, [(0, 4), (1, 5), (2, 6), (3, 7)], ("1,2,3,7", "0,4")),
        (1, [(0,), (1, 2), (3, 4)], ("3", "0,1")),
    ],
)
def test_a_server_has_cores_of_its_own_where_there_are_enough(workers, cores, split):
    assert load.split_cpus(workers, list(map(Core, cores))) == (*split, "")


def test_a_server_has_the_fastest_cores_and_is_told_of_two_kinds():
    cores = [Core((number,), 1) for number in (4, 5, 6)] + [Core((0, 1), 2), Core((2, 3), 2)]
    assert load.split_cpus(2, cores) == ("0,2", "4,5", "")
    server, generator, warning = load.split_cpus(5, cores)
    assert (server, generator) == ("0,1,2,3,6", "4,5") and "several kinds of core" in warning


def test_a_program_at_work_has_a_cpu_for_each_thread_and_no_load_generator_beside_it():
    cores = [Core((0, 4), 1), Core((1, 5), 2), Core((2, 6), 2)]
    assert [load.split_cpus(number, cores, alone=True)[:2] for number in (1, 2)] == [("2", ""), ("1,2", "")]
    assert load.split_cpus(1, [Core((0,))], alone=True) == ("0", "", "")
    assert load.usual_workers(cores, alone=True) == [1, 2, 4] and load.usual_workers([Core((0,))], alone=True) == [1]
    with pytest.raises(LabError, match="8 threads are measured on as many CPUs, here are 6; use fewer"):
        load.split_cpus(8, cores, alone=True)


@pytest.mark.parametrize(("workers", "cpus"), [(1, [0]), (4, [0, 1]), (4, [0, 1, 2])])
def test_too_few_cpus_are_refused(workers, cpus):
    with pytest.raises(LabError, match="CPU"):
        load.split_cpus(workers, [Core((cpu,)) for cpu in cpus])
