"""What a server is asked, and what is said of an answer that is not the right one; here a broken server gives those."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.host import machine
from rustimg_lab.measure import load, workloads
from rustimg_lab.measure.tools import client

ROOT = workloads.find("root")


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


def request(port: int) -> dict:
    return ROOT.request() | {"port": port}


def response(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def test_the_right_answer_has_its_bytes_counted(answers):
    right = response(ROOT.answer)
    assert client.ask(request(answers(right))) == (len(right), len(ROOT.answer))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (response(b'{"ip":"10.0.0.1","country":"Unknown","cc":"XX"}'), "wrong body"),
        (response(ROOT.answer, "503 Service Unavailable"), "'HTTP/1.1 503 Service Unavailable'"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "'SSH-2.0-OpenSSH'"),
    ],
)
def test_another_answer_loses_the_trial(answers, said, reason):
    with pytest.raises(client.WrongAnswer, match=reason):
        client.ask(request(answers(said)))


def test_an_answer_that_breaks_off_and_a_port_where_nobody_listens_can_be_asked_again(answers):
    with pytest.raises(OSError):
        client.ask(request(answers(response(ROOT.answer)[:-5])))
    with pytest.raises(OSError):
        client.ask(request(machine.free_port()))


def test_a_batch_asks_for_addresses_of_both_kinds_no_two_alike():
    batch = workloads.find("batch")
    asked, answer = json.loads(batch.body), json.loads(batch.answer)
    assert len(set(asked)) == workloads.BATCH == len(answer)
    assert {each["family"] for each in answer} == {"IPv4", "IPv6"}


def test_a_misspelt_workload_is_told_with_the_nearest():
    with pytest.raises(LabError, match="did you mean 'batch'"):
        workloads.find("bach")


@pytest.mark.parametrize(
    ("workers", "cpus", "split"),
    [
        (1, [0, 1], ("1", "0")),
        (1, [0, 1, 2, 3], ("3", "0,1")),
        (2, [0, 1, 2, 3], ("2,3", "0,1")),
        (8, [0, 1, 2, 3, 4, 5], ("4,5", "0,1")),
        (2, [4, 6], ("4,6", "4,6")),
    ],
)
def test_server_and_generator_have_cpus_of_their_own_or_every_table_says_that_they_have_not(workers, cpus, split):
    *found, warning = load.split_cpus(workers, cpus)
    assert tuple(found) == split
    assert bool(warning) == (split[0] == split[1])


@pytest.mark.parametrize(("workers", "cpus"), [(1, [0]), (4, [0, 1]), (4, [0, 1, 2])])
def test_too_few_cpus_are_refused(workers, cpus):
    with pytest.raises(LabError, match="CPU"):
        load.split_cpus(workers, cpus)
