"""Services beside an app: real containers, in which small Python programs are the database and the app."""

from dataclasses import replace
from pathlib import Path

import pytest
from docker.errors import NotFound
from support.lab import derived, ours

from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host.machine import Core
from rustimg_lab.measure import load, plan, server, services, smoke, workloads
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.studies import memory, startup, throughput
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.app import App, Check, Image, Serve, Service

# Keeps the last text that it was sent, on the port of its first argument.
STORE = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
kept = [b""]
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(kept[0])
    def do_POST(self):
        kept[0] = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# Called with `migrate` and a text it keeps that in the store; with `end` it asks for it; else it serves it.
APP = """
import http.client, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
def ask(method, body=None):
    store = http.client.HTTPConnection("store", 5432)
    store.request(method, "/", body)
    return store.getresponse().read()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        text = ask("GET")
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *args): ...
if sys.argv[1:2] == ["migrate"]:
    ask("POST", sys.argv[2])
    sys.exit(print("migrated") or int(sys.argv[3]))
if sys.argv[1:] == ["end"]:
    sys.exit(print("the store has", ask("GET")))
HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
READY = ("python3", "-c", "import http.client as c; h = c.HTTPConnection('store', 5432); h.request('GET', '/')")
SERVE = Serve(environment=(("PORT", "{port}"),), before=(("migrate", "fifty-one", "0"), ("migrate", "forty-two", "0")))


def of(**settings: object) -> App:
    return App("a", Path("/a"), "", "a", **{"serve": SERVE, "check": None} | settings)


def test_what_runs_before_a_server_is_in_its_plan_and_older_plans_stay():
    assert "before" not in workloads.app_workload(of(serve=replace(SERVE, before=()))).parameters()["asked"]
    assert '"before": [["migrate", "fifty-one", "0"], ["migrate"' in workloads.app_workload(of()).parameters()["asked"]


@pytest.mark.parametrize(
    ("cpus", "workers", "expected"), [(2, 1, "0"), (2, 2, "0,1"), (3, 1, "0,1"), (4, 1, "2"), (8, 2, "2,3,4,5")]
)
def test_services_have_no_cpu_of_the_servers_where_there_are_enough(monkeypatch, cpus, workers, expected):
    monkeypatch.setattr(load, "engine_cores", lambda: [Core((cpu,)) for cpu in range(cpus)])
    assert load.service_cpus(workers) == expected
    if cpus > 2:
        assert not set(expected.split(",")) & set(load.split_cpus(workers)[0].split(","))


def test_a_plan_differs_by_a_service_that_came_or_went():
    def planned(**parameters: str) -> dict:
        return {"parameters": parameters, "baseline": "", "seed": 1, "cells": [], "contents": {}}

    assert plan._differences(planned(services="x"), planned()) == ["services x, now None"]
    assert plan._differences(planned(), planned(services="x")) == ["services None, now x"]
    assert plan._differences(planned(services="x"), planned(services="x")) == []


@pytest.fixture
def store(tools):
    """A service: the image is of the benchmark tools, which have Python."""
    return Service("store", tools, command=("python3", "-c", STORE, "5432"), ready=READY)


@pytest.fixture
def image(tools):
    made = derived(tools, ["python3", "/app.py"], files={"app.py": (0o644, APP)})
    yield made
    client.connect().images.remove(made, force=True)


@pytest.fixture
def exposed(tools):
    """An image that says on which port it listens, and where it keeps what it has."""
    container = client.connect().containers.create(tools, ["nothing"], mem_limit=16 << 20)  # it is never started
    made = container.commit(client.repository("test-port"), "1", changes=["EXPOSE 5432", "VOLUME /kept"])
    container.remove()
    yield made.id
    client.connect().images.remove(made.id, force=True)


@pytest.mark.engine
class TestBeside:
    def test_an_app_is_checked_and_measured_beside_its_services(self, image, tools, store):
        other = Service("other-db", tools, command=("python3", "-c", STORE, "5433"))
        app = of(services=(store, other))
        row = smoke.measure_runs(image, app, tools)
        assert row.ok, row.reason
        assert f"; beside store (image {services.describe(app)['services'][13:25]}, settings " in row.detail
        called = replace(app, check=Check(("end",), prints="the store has b''"))
        assert smoke.measure_runs(image, called).ok and not smoke.measure_runs(image, replace(called, services=())).ok

        treatment, workload = (
            Treatment(matrix.cell("debian", "baseline", "system"), image, "a"),
            workloads.app_workload(app),
        )
        under = Load(workload, 1, 4, 1, 1)
        found = {row.metric: row for row in throughput.measure(treatment, under, tools)}
        assert found[metrics.REQUESTS_PER_S].value > 10
        told = {"mode": "first-byte", "invocation": workload.serve.invocation(host="0.0.0.0", workers=1, deadline_s=60)}
        assert len(startup.measure_process(treatment, tools=tools, workload=workload, **told)) == 3 * startup.STARTS
        assert all(row.ok for row in memory.measure_load(treatment, under, tools))
        assert ours() == []

    def test_its_cpu_time_and_the_network_are_not_the_services(self, image, tools, store):
        with server.serving(
            image, workloads.app_workload(of(services=(store,))), tools, workers=1, deadline_s=60
        ) as serving:
            assert serving.body_bytes == len("forty-two")  # by the second call before the server
            beside = next(each for each in ours() if each.attrs["Config"]["Cmd"][-1] == "5432")
            before = server.cpu_ns(serving.container), server.cpu_ns(beside)
            beside.exec_run(["python3", "-c", "import time\nwhile time.process_time() < 1: pass"])
            after = server.cpu_ns(serving.container), server.cpu_ns(beside)
            assert after[0] - before[0] < 2e8 and after[1] - before[1] > 9e8
            _, names = beside.exec_run(["ls", "/sys/class/net"])
            assert names.split() == [b"lo"]
            own = ["python3", "-c", "import socket; print(socket.gethostbyname(socket.gethostname()))"]
            assert [each.exec_run(own)[1] for each in (beside, serving.container)] == [b"127.0.0.1\n"] * 2

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"command": ("/not/there",)}, "the service store does not start: "),
            ({"command": ("sh", "-c", "echo no room; exit 3")}, "the service store ended before it was ready; no room"),
            ({"ready": ("false",)}, "the service store is not ready within 2 s"),
            ({"ready": ("sh", "-c", "sleep 60")}, "the service store is not ready within 2 s"),
            ({"ready": ("/not/there",)}, "the service store: `ready` cannot be called: "),
        ],
        ids=["command", "ends", "not-ready", "hangs", "ready"],
    )
    def test_a_service_that_fails_is_named_with_its_last_words(self, image, tools, store, monkeypatch, change, said):
        monkeypatch.setattr(services, "READY_TIMEOUT_S", 2 if "within" in said else 30)
        row = smoke.measure_runs(image, of(services=(replace(store, **change),)), tools)
        assert not row.ok and row.reason.startswith(said)
        assert ours() == []

    def test_a_service_that_ends_and_a_call_that_fails_are_told(self, image, tools, store):
        with (
            pytest.raises(FailedTrial, match="the service store ended while the app ran"),
            services.run_services((store,)),
        ):
            ours()[0].kill()
        failing = of(services=(store,), serve=replace(SERVE, before=(("migrate", "a", "7"),)))
        said = "the call `migrate a 7` before the server ended with exit code 7; migrated"
        assert smoke.measure_runs(image, failing, tools).reason == said

    def test_what_cannot_be_had_or_run_together_is_refused(self, store, exposed, tmp_path):
        with pytest.raises(LabError, match=r"service store: there is no file .*/db\.tar; 'image' is a path from"):
            services.obtain(replace(store, image=str(tmp_path / "db.tar")))
        with pytest.raises(LabError, match=r"no image localhost:1/db:3, and registry localhost:1 did not give it \("):
            services.obtain(replace(store, image="localhost:1/db:3"))
        one = replace(store, image=exposed)
        with pytest.raises(LabError, match="store and the service b both have port 5432/tcp"):
            services.describe(of(services=(one, replace(one, name="b"))))
        with pytest.raises(LabError, match=r"^a and the service store both have port 5432/tcp"):
            services.describe(of(services=(one,), serve=Serve(("--serve",)), image=Image(ports=(5432,))))

    def test_what_a_service_keeps_goes_with_it(self, store, exposed):
        with services.run_services((replace(store, image=exposed),)):
            (volume,) = ours()[0].attrs["Mounts"]
            assert client.connect().volumes.get(volume["Name"])
        with pytest.raises(NotFound):
            client.connect().volumes.get(volume["Name"])
