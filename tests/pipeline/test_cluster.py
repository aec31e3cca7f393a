"""Work given to Dask workers: a real scheduler, real workers, and faults of both. What is done takes no engine."""

import os
import signal
import threading
import time

import pytest
import trustme
from support import dask
from support.lab import wait_for

from rustimg_lab.errors import LabError
from rustimg_lab.pipeline import cluster
from rustimg_lab.pipeline.cluster import Unit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A scheduler with two workers, and the client."""
    logs = tmp_path_factory.mktemp("logs")
    with (
        dask.scheduler(logs / "scheduler") as address,
        dask.worker(address, "alpha", logs / "alpha"),
        dask.worker(address, "beta", logs / "beta"),
        cluster.connected(address, insecure=False) as client,
    ):
        assert wait_for(lambda: len(cluster.workers(client)) == 2, 60)
        yield client


def perform(client, units, path, seconds=0.0, names=frozenset({"alpha", "beta"}), aside=None):
    """The failures, and who did what: (machine, process) in the order of the ends."""
    done = []

    def ended(unit, name, outcome):
        done.append((name, outcome[1]))
        return (aside or {}).get(name, "")

    failures = cluster.perform_all(
        client, units, dask.told, lambda unit, name: (str(path), str(seconds)), ended, set(names)
    )
    return failures, done


def test_what_is_for_any_machine_goes_to_all_and_each_unit_is_done_once(two, tmp_path):
    failures, done = perform(two, [Unit(("a",))] * 8, tmp_path / "told", seconds=0.2)
    assert failures == [] and len(done) == 8 == len((tmp_path / "told").read_text().split())
    assert {name for name, _ in done} == {"alpha", "beta"}


def test_what_is_for_one_machine_is_done_there_in_its_order_and_one_at_a_time(two, tmp_path):
    sent, units = [], [Unit((str(number),), name) for name in ("alpha", "beta") for number in range(4)]

    def note(unit, name):
        assert unit.machine == name
        sent.append((name, int(unit.arguments[0])))
        return str(tmp_path / name), "0.05"

    assert cluster.perform_all(two, units, dask.told, note, lambda unit, name, outcome: "", {"alpha", "beta"}) == []
    for name in ("alpha", "beta"):
        assert [number for machine, number in sent if machine == name] == [0, 1, 2, 3]
        assert len(set((tmp_path / name).read_text().split())) == 1  # one process, and so one worker


def test_a_machine_that_cannot_go_on_gets_nothing_more_and_the_others_do_what_is_for_any(two, tmp_path):
    units = [Unit(("a",))] * 6 + [Unit(("b",), "alpha")] * 2
    failures, done = perform(two, units, tmp_path / "told", seconds=0.05, aside={"alpha": "its disk is full"})
    assert [name for name, _ in done].count("alpha") == 1 and len(done) >= 7
    assert failures[0] == "alpha: its disk is full" and "units of work left: 1" in failures[1]


def test_a_machine_that_is_put_aside_is_out_of_the_set_that_later_work_goes_by(two, tmp_path):
    names, units = {"alpha", "beta"}, [Unit(("a",), name) for name in ("alpha", "beta")]
    for each in ("first", "second"):
        cluster.perform_all(
            two, [unit for unit in units if unit.machine in names], dask.told,
            lambda unit, name, each=each: (str(tmp_path / f"{each}-{name}"), "0"),
            lambda unit, name, outcome: "its disk is full" if name == "alpha" else "", names,
        )  # fmt: skip
    assert names == {"beta"} and not (tmp_path / "second-alpha").exists() and (tmp_path / "second-beta").exists()


def test_a_worker_that_is_killed_takes_its_unit_alone_and_its_nannys_next_does_it_again(two, tmp_path):
    path = tmp_path / "told"

    def kill() -> None:
        assert wait_for(lambda: path.exists() and path.read_text().count("\n") >= 2, 30)
        os.kill(int(path.read_text().split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failures, done = perform(two, [Unit((str(i),), name) for i in range(3) for name in ("alpha", "beta")], path, 2)
    killer.join()
    assert failures == [] and len(done) == 6
    assert path.read_text().count("\n") == 7  # one of them twice, for which one result counts
    assert path.read_text().split()[0] not in {str(process) for _, process in done}


def test_what_kills_every_worker_is_given_up(two, tmp_path):
    failures = cluster.perform_all(
        two, [Unit(("a",), "alpha"), Unit(("b",), "alpha")], dask.deadly, lambda unit, name: unit.arguments,
        lambda unit, name, outcome: "", {"alpha"},
    )  # fmt: skip
    assert "alpha: its worker ended 3 times" in failures[0] and "the same command resumes the run" in failures[1]


def test_a_worker_that_cannot_do_its_work_gets_nothing_more_and_is_not_said_to_have_ended(two, tmp_path):
    failures, done = perform(two, [Unit(("a",), "alpha"), Unit(("b",), "beta")], tmp_path / "none" / "told")
    assert done == [] and len(failures) == 2
    for failure in failures:
        assert failure.partition(": ")[2] == f"[Errno 2] No such file or directory: '{tmp_path}/none/told'"


def test_machines_that_never_come_back_are_waited_for_and_then_named(two, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RETURN_S", 2.0)
    failures, done = perform(two, [Unit(("a",), "gamma")], tmp_path / "told", names={"gamma"})
    assert done == [] and failures == [
        "gamma: units of work left: 1, since no worker is left; the same command resumes the run"
    ]


@pytest.mark.parametrize("prepares", [False, True])
def test_a_scheduler_that_is_lost_ends_the_work_in_one_line(prepares, tmp_path):
    with (
        dask.scheduler(tmp_path / "log") as address,
        dask.worker(address, "alpha", tmp_path / "log"),
        pytest.raises(LabError, match="stopped answering; start it again, and call the same command to resume"),
        cluster.connected(address, insecure=False) as client,
    ):
        assert wait_for(lambda: cluster.workers(client), 60)
        pid = client.run_on_scheduler(os.getpid)
        threading.Timer(2, os.kill, (pid, signal.SIGKILL)).start()
        if prepares:
            client.run(time.sleep, 20)
        perform(client, [Unit(("a",))] * 9, tmp_path / "told", seconds=1, names={"alpha"})


@pytest.mark.parametrize(
    "address, said",
    [
        ("tcp://192.0.2.1:8786", "without TLS who reaches the scheduler can run programs on each machine"),
        ("here", "no address of a Dask scheduler"),
        ("http://127.0.0.1:1", "no address of a Dask scheduler"),
        ("tcp://127.0.0.1:1", "no Dask scheduler can be used at tcp://127.0.0.1:1"),
        ("tls://127.0.0.1:1", "names no certificate for its client"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_one_line(address, said, lab):
    refused = lab("measure", "--study", "throughput", "--scheduler", address)
    assert refused.returncode == 2 and said in refused.stderr and refused.stderr.count("\n") == 1


def test_images_for_another_architecture_are_refused(lab):
    refused = lab("run", "--arch", "amd64,arm64", "--scheduler", "tcp://127.0.0.1:1")
    assert refused.returncode == 2 and "each worker builds for its own architecture" in refused.stderr


def test_with_tls_a_client_without_certificate_is_refused_and_one_with_it_is_not(tmp_path, monkeypatch):
    authority = trustme.CA()
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "own", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(files["key"])
    certificate.cert_chain_pems[0].write_to_path(files["own"])
    options = ("--tls-ca-file", files["ca"], "--tls-cert", files["own"], "--tls-key", files["key"])
    import dask as settings

    with dask.scheduler(tmp_path / "log", "--protocol", "tls", *options) as address:
        with pytest.raises(LabError, match="names no certificate"), cluster.connected(address, insecure=False):
            pass
        key = "distributed.comm.tls"
        own = {f"{key}.ca-file": files["ca"], f"{key}.client.cert": files["own"], f"{key}.client.key": files["key"]}
        with settings.config.set(own), cluster.connected(address, insecure=False) as client:
            assert cluster.workers(client) == {}
