"""Deploys: for real, by an engine that starts empty and a slow line; and the model, on runs that are made up."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support.lab import adds_nothing, as_root, derived, measured

from rustimg_lab.analysis import deploy as analysis_deploy
from rustimg_lab.analysis import recommendation
from rustimg_lab.analysis.recommendation import Wishes
from rustimg_lab.engine import client, cold_engine, inspection, local_registry
from rustimg_lab.engine.images import list_files
from rustimg_lab.errors import LabError
from rustimg_lab.host import process
from rustimg_lab.measure import trials, workloads
from rustimg_lab.measure.plan import FailedTrial, Study, Treatment
from rustimg_lab.measure.studies.deploy import BANDWIDTHS, measure, stored_bytes
from rustimg_lab.model import matrix, metrics, studies
from rustimg_lab.model.app import Serve
from rustimg_lab.model.metrics import Verdict
from rustimg_lab.model.names import TWIN
from rustimg_lab.paths import REPORTS, ROOT, RUNS
from rustimg_lab.report import plots, views
from rustimg_lab.store import runs
from rustimg_lab.store.rows import Observation

pytestmark = pytest.mark.slow

NAME = "test-deploy"
MEASURE = ("measure", "--study", "deploy", "--run", NAME, "--bases", "scratch,distroless", "--blocks", "2")


@pytest.fixture(scope="module")
def study(lab):
    """A short study through the command line."""
    with measured(lab, NAME, MEASURE) as done:
        yield done


@pytest.fixture
def machine():
    with local_registry.serve() as own, cold_engine.start(own.address) as found:
        yield own, found


@as_root
@pytest.mark.engine
def test_what_is_pulled_is_what_the_manifest_says(study):
    run = runs.load(NAME)
    assert run.rows["ok"].all() and (RUNS / NAME / "rows.jsonl").exists()
    times = analysis_deploy.times(run)
    assert len(times) == 2 * (4 + 2)
    cold = times[times["has"] == studies.EMPTY]
    assert (cold["pulled_bytes"] == cold["manifest_bytes"]).all() and (cold["pulled_bytes"] > 5e5).all()
    warm = times[times["has"] == studies.BASE_THERE].set_index(["cell", "bandwidth_mbit"])
    distroless = warm.loc["distroless-optimized-system"]
    assert (distroless["pulled_bytes"] < 0.3 * distroless["manifest_bytes"]).all()
    assert (distroless["base_stored_bytes"] > 0.8 * distroless["stored_bytes"]).all()
    assert (times.groupby("cell")["stored_bytes"].nunique() == 1).all()
    assert (REPORTS / NAME / "report.html").exists()


@as_root
@pytest.mark.engine
def test_a_slow_line_takes_its_time_and_no_more(study):
    times = analysis_deploy.times(runs.load(NAME))
    on_line = 8 * times["pulled_bytes"] / (times["bandwidth_mbit"] * 1e6)
    assert (times["pull_s"] > 0.97 * on_line).all()
    slow = times[(times["bandwidth_mbit"] == 10) & (times["has"] == studies.EMPTY)].set_index("base")["seconds"]
    fast = times[(times["bandwidth_mbit"] == 1000) & (times["has"] == studies.EMPTY)].set_index("base")["seconds"]
    assert slow["distroless"] > 2 * slow["scratch"] and (slow > fast).all()


@as_root
@pytest.mark.engine
def test_the_same_call_measures_nothing_again_and_leaves_nothing(study, pageless):
    adds_nothing(pageless, NAME, MEASURE)
    assert not list(cold_engine.NAMESPACES.glob(f"rustimg-lab-elsewhere-{client.lab_id()}-*"))


@as_root
@pytest.mark.engine
def test_a_registry_that_dies_in_the_middle_of_a_pull_is_one_line(images, machine):
    """Of an image that is larger than what sockets hold, so that there is a middle."""
    own, far = machine
    cell, image = matrix.cell("debian", "optimized", "system"), images["debian"].digest
    trial = {"workload": workloads.find_workload("root"), "machine": far, "pushed": {image: own.push(image)},
             "stored": {image: 1}, "bases": {}}  # fmt: skip
    killed = threading.Timer(2, lambda: subprocess.run(["pkill", "--full", f"docker-registry.*work-{os.getpid()}-"]))
    killed.start()
    begun = time.monotonic()
    with pytest.raises(LabError, match="the registry of the lab's own has ended; run the same command to resume"):
        measure(Treatment(cell, image, cell.slug), bits_per_s=20e6, **trial)
    killed.join()
    assert time.monotonic() - begun < 60
    far.empty()
    assert far.client.images.list() == []


@as_root
@pytest.mark.engine
def test_an_image_that_does_not_come_is_a_lost_trial(images, machine):
    _, far = machine
    cell, image = matrix.cell("debian", "optimized", "system"), images["debian"].digest
    unknown = local_registry.Pushed("no-such-tag", 1, [1])
    trial = {"workload": workloads.find_workload("root"), "machine": far, "pushed": {image: unknown},
             "stored": {image: 1}, "bases": {}}  # fmt: skip
    with pytest.raises(FailedTrial, match=r"the image did not come: .*not found"):
        measure(Treatment(cell, image, cell.slug), bits_per_s=0, **trial)


@as_root
@pytest.mark.engine
def test_the_line_is_not_the_machines_and_the_other_engine_begins_with_nothing(machine):
    _, far = machine
    port = int(far.address.rpartition(":")[2])
    far.inside(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close())
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    roots = {each.info()["DockerRootDir"] for each in (far.client, client.connect())}
    assert far.client.images.list() == [] and len(roots) == 2


@as_root
@pytest.mark.engine
def test_what_a_killed_lab_has_left_goes_with_the_next():
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = f"rustimg-lab-elsewhere-{client.lab_id()}-{ended.pid}-00000000"
    process.run(["ip", "netns", "add", left])
    with subprocess.Popen(["ip", "netns", "exec", left, "sleep", "60"]) as engine_that_ends:
        while not process.run(["ip", "netns", "pids", left]).strip():
            time.sleep(0.05)
        cold_engine.remove_leftovers()
        assert (cold_engine.NAMESPACES / left).exists()
        engine_that_ends.kill()
    cold_engine.remove_leftovers()
    assert not (cold_engine.NAMESPACES / left).exists()


@pytest.fixture
def two_layers(images) -> Iterator[tuple[str, str]]:
    """An image of one layer, and one on it that serves a file of 1,000 bytes by busybox."""
    base = images["alpine"].digest
    program = ["/bin/busybox", "httpd", "-f", "-h", "/served", "-p"]
    image = derived(base, program, files={"served/index.html": (0o644, "x" * 1000)})
    yield base, image
    client.connect().images.remove(image, force=True)


@as_root
@pytest.mark.engine
def test_a_trial_counts_what_came_by_the_line_and_the_unpacked_files(two_layers, machine):
    own, far = machine
    base, image = two_layers
    workload = replace(workloads.find_workload("root"), serve=Serve(arguments=("{host}:{port}",)))
    pushed, stored = ({each: work(each) for each in two_layers} for work in (own.push, stored_bytes))
    assert stored[image] == stored[base] + 1000
    trial = {"workload": workload, "machine": far, "bits_per_s": 0, "pushed": pushed, "stored": stored}
    cell = matrix.cell("alpine", "optimized", "system")
    for bases in ({}, {"alpine": base}):
        rows = measure(Treatment(cell, image, cell.slug), **trial, bases=bases)
        value = {row.metric: row.value for row in rows}
        whole = pushed[image].config_bytes + sum(pushed[image].layer_bytes)
        assert value["manifest_bytes"] == whole
        assert value["pulled_bytes"] == (whole - pushed[base].layer_bytes[0] if bases else whole)
        assert (value["stored_bytes"], value["base_stored_bytes"]) == (stored[image], stored[base] if bases else 0)


@pytest.mark.engine
def test_stored_bytes_are_of_the_files_of_every_layer(images):
    once = derived(images["alpine"].digest, ["x"], files={"a": (0o644, "1" * 1000), "b": (0o600, "2" * 50)})
    twice = derived(once, ["x"], files={"a": (0o644, "3" * 400)})
    try:
        base, first, second = map(stored_bytes, (images["alpine"].digest, once, twice))
        files = list_files(images["alpine"].digest)
        made_by_the_engine = {".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf"}
        assert base == sum(each.size for each in files if each.isfile() and each.name not in made_by_the_engine)
        assert (first, second) == (base + 1050, base + 1450)
    finally:
        for image in (twice, once):
            client.connect().images.remove(image, force=True)


def asked(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers but for the date, and body of an answer."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {k: v for k, v in answer.headers.items() if k != "Date"}, answer.read()


@as_root
@pytest.mark.engine
def test_the_line_answers_a_tls_hello_as_plain_http_does(machine):
    """By that status line, and by nothing else, containerd learns that the registry has no TLS."""
    _, far = machine
    port = int(far.address.rpartition(":")[2])

    def hello() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01" + bytes(512))
            return b"".join(iter(lambda: connection.recv(4096), b""))  # until it is closed, and not reset

    assert far.inside(hello).startswith(b"HTTP/1.1 400 ")
    assert far.inside(lambda: asked(far.address, "/v2/"))[0] == 200


@as_root
@pytest.mark.engine
def test_the_line_hands_on_what_is_asked_and_answered(two_layers, machine):
    own, far = machine
    _, image = two_layers
    tag = own.push(image).tag
    manifest = f"/v2/rustimg-lab/manifests/{tag}"
    accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
    digest = asked(own.address, manifest, Accept=accept)[1]["Docker-Content-Digest"]
    layer = json.loads(asked(own.address, manifest, Accept=accept)[2])["layers"][-1]
    blob = f"/v2/rustimg-lab/blobs/{layer['digest']}"
    for status, path, method, headers in (
        (200, manifest, "GET", {"Accept": accept}),
        (200, manifest, "HEAD", {"Accept": accept}),
        (304, manifest, "GET", {"Accept": accept, "If_None_Match": f'"{digest}"'}),
        (404, "/v2/rustimg-lab/manifests/none", "GET", {}),
        (200, blob, "GET", {}),
        (200, blob, "HEAD", {}),
        (206, blob, "GET", {"Range": "bytes=10-"}),
        (206, blob, "GET", {"Range": "bytes=10-19"}),
    ):
        straight = asked(own.address, path, method, **headers)
        far.line.reset(0)
        by_line = far.inside(
            lambda path=path, method=method, headers=headers: asked(far.address, path, method, **headers)
        )
        assert by_line == straight and straight[0] == status
        assert far.line.blob_bytes == len(straight[2]) * ("/blobs/" in path)


@as_root
@pytest.mark.engine
def test_an_answer_of_no_length_told_ends_with_its_connection(machine):
    class Chunked(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")

        def log_message(self, *_: object) -> None: ...

    _, far = machine
    (namespace,) = cold_engine.NAMESPACES.glob(f"rustimg-lab-elsewhere-{client.lab_id()}-{process.process_name()}")
    with ThreadingHTTPServer(("127.0.0.1", 0), Chunked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with cold_engine._line(f"127.0.0.1:{server.server_port}", namespace.name) as (port, _):
            status, headers, body = far.inside(lambda: asked(f"127.0.0.1:{port}", "/"))
        server.shutdown()
    assert (status, body) == (200, b"firstsecond") and "Transfer-Encoding" not in headers


@as_root
@pytest.mark.engine
def test_the_cold_engine_is_the_machines_own_and_empty(machine):
    _, far = machine
    hot, cold = (inspection.engine(each.info()) for each in (client.connect(), far.client))
    assert (hot.version, hot.driver, hot.keeps_in_containerd) == (cold.version, cold.driver, cold.keeps_in_containerd)
    cold_engine._compare(far.client, hot)
    for wrong in ({"driver": "vfs"}, {"keeps_in_containerd": not hot.keeps_in_containerd}):
        with pytest.raises(LabError, match=r"the cold engine keeps images by \(.*\), not \(.*\) "):
            cold_engine._compare(far.client, replace(hot, **wrong))
    with pytest.raises(LabError, match="is not empty: it shares images with another engine"):
        cold_engine._compare(client.connect(), hot)


@as_root
@pytest.mark.engine
def test_a_clone_may_be_in_a_folder_with_a_long_name(tmp_path, monkeypatch):
    """Longer than the path of a socket may be."""
    (long := tmp_path / ("x" * 100)).mkdir()
    monkeypatch.setattr(process, "STATE", long)
    with local_registry.serve() as own, cold_engine.start(own.address) as far:
        assert far.client.ping()
    assert list(long.iterdir()) == []


@as_root
@pytest.mark.engine
def test_a_containerd_of_the_machines_is_not_the_cold_engines(tmp_path, images):
    """Where one listens at its usual place, an engine uses it, and would find the machine's images in it."""
    script = """
        mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd || exit 1
        containerd --root "$1/root" --state "$1/state" --address /run/containerd/containerd.sock 2>"$1/log" &
        until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; kill -0 $! || exit 1; done
        "$2" -c "$3"; code=$?; kill $!; wait $!; exit $code
    """
    code = """
from pathlib import Path
from rustimg_lab.engine import cold_engine, local_registry
with local_registry.serve() as own, cold_engine.start(own.address) as far:
    engine = (Path(far.client.info()["DockerRootDir"]).parent / "engine.pid").read_text()
    print(len(list(Path(f"/proc/{engine}/root/run/containerd/exec/containerd").glob("containerd.pid"))))
"""
    command = ["unshare", "--mount", "sh", "-c", script, "sh", tmp_path, sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


@pytest.fixture
def another_dockerd(tmp_path, monkeypatch) -> Path:
    """A `dockerd` of another version, first in PATH."""
    program = tmp_path / "bin" / "dockerd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'Docker version 1.2.3, build 0000000'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


@as_root
@pytest.mark.engine
def test_the_dockerd_is_that_of_the_engines_own_process(another_dockerd):
    found = cold_engine.find_dockerd()
    assert found != another_dockerd
    assert f"version {client.connect().info()['ServerVersion']}," in process.run([str(found), "--version"])


@as_root
@pytest.mark.engine
def test_a_dockerd_of_another_version_is_refused_with_both_versions(another_dockerd, tmp_path, monkeypatch):
    wanted = client.connect().info()["ServerVersion"]
    with socket.socket(socket.AF_UNIX) as listener:  # as where the engine is started by a manager that listens for it
        listener.bind(f"{tmp_path}/engine.sock")
        listener.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
        both = re.escape(f"the engine is version {wanted}, but {another_dockerd} is 1.2.3: ")
        with pytest.raises(LabError, match=both + ".* first in PATH"):
            cold_engine.find_dockerd()
        another_dockerd.unlink()
        assert f"version {wanted}," in process.run([str(cold_engine.find_dockerd()), "--version"])


@as_root
@pytest.mark.engine
def test_an_engine_of_another_machine_or_loopback_is_refused_before_anything_is_built(small_engine, lab, monkeypatch):
    small_engine.start(100)
    with pytest.raises(LabError, match=r"does not reach a registry on this machine's 127\.0\.0\.1: call"):
        cold_engine.check()
    done = lab("measure", "--study", "deploy", "--run", "test-deploy-refused")
    assert done.returncode != 0 and not (RUNS / "test-deploy-refused").exists()
    assert "does not reach a registry on this machine's 127.0.0.1" in done.stderr and "Traceback" not in done.stderr
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    with pytest.raises(LabError, match=r"the engine at tcp://192\.0\.2\.1:2375 is not on this machine"):
        cold_engine.check()


def test_a_line_carries_no_more_than_its_rate():
    line = cold_engine.Line()
    line.reset(8e6)
    begun = time.monotonic()
    threads = [threading.Thread(target=lambda: [line.carry(line.piece(), True) for _ in range(20)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert line.blob_bytes == 40 * line.piece()
    assert time.monotonic() - begun >= 0.95 * line.blob_bytes * 8 / 8e6


def test_without_root_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="takes root"), cold_engine.start("127.0.0.1:1"):
        pass


CELLS = {base: matrix.cell(base, "optimized", "system") for base in ("scratch", "debian")}
BYTES = {("scratch", studies.EMPTY): 1.5e6, ("debian", studies.EMPTY): 32e6,
         ("scratch", studies.BASE_THERE): 1.5e6, ("debian", studies.BASE_THERE): 1.2e6}  # fmt: skip
FIXED = {("scratch", studies.EMPTY): 0.5, ("debian", studies.EMPTY): 2.5,
         ("scratch", studies.BASE_THERE): 0.5, ("debian", studies.BASE_THERE): 0.4}  # fmt: skip


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A run whose times are a fixed part and a line that carries 3% more than the bytes, with noise of 1%."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    generator = np.random.default_rng(3)
    treatments = [Treatment(cell, "sha256:1", cell.slug) for cell in CELLS.values()]
    treatments.append(Treatment(CELLS["scratch"], "sha256:1", treatments[0].name + TWIN))
    with runs.open_run("d", {}) as run:
        for cell in CELLS.values():
            size = int(BYTES[cell.base.name, studies.EMPTY])
            sizes = {"compressed_bytes": size, "unpacked_bytes": 2 * size, "app_bytes": size, "runs": True}
            run.append(cell, "sha256:1", [Observation(name, value) for name, value in sizes.items()])
        for has, bandwidths in BANDWIDTHS.items():
            for bandwidth in bandwidths:

                def observe(treatment: Treatment, has=has, bandwidth=bandwidth) -> list[Observation]:
                    base = treatment.cell.base.name
                    size = BYTES[base, has]
                    pull = 1.03 * 8 * size / bandwidth / 1e6
                    noise = float(np.exp(0.01 * generator.standard_normal()))
                    return [
                        Observation(metrics.FIRST_RESPONSE_S, (FIXED[base, has] + pull) * noise),
                        Observation("pull_s", pull * 1.05), Observation("pulled_bytes", size),
                        Observation("manifest_bytes", BYTES[base, studies.EMPTY]),
                        Observation("stored_bytes", 3e6 if base == "scratch" else 83e6),
                        Observation("base_stored_bytes", 80e6 * (base == "debian" and has != studies.EMPTY)),
                    ]  # fmt: skip

                name = f"deploy-{'cold' if has == studies.EMPTY else 'base'}-{bandwidth}mbit"
                about = {"bandwidth_mbit": bandwidth, "has": has, "warning": ""}
                names = dict.fromkeys((each.name for each in treatments), "0")
                of = (name, studies.DEPLOY, about, tuple(treatments), treatments[0].name, metrics.FIRST_RESPONSE_S)
                plan = Study(*of, blocks=10, seed=1, contents=names)
                trials.run_in_turns([(plan, observe)], run)
    return runs.load("d")


def test_the_model_finds_what_was_put_in_and_is_near_where_it_was_not_fitted(recorded):
    found = analysis_deploy.model(analysis_deploy.times(recorded))
    for each in found.itertuples():
        assert each.fixed_s == pytest.approx(FIXED[each.base, each.has], rel=0.05)
        assert each.factor == pytest.approx(1.03, rel=0.05)
    cold = found[found["has"] == studies.EMPTY]
    assert (cold["error"].abs() < 0.03).all() and found["error"].notna().sum() == 2


def test_services_share_what_their_base_is(recorded):
    found = analysis_deploy.model(analysis_deploy.times(recorded))
    one, many = (
        analysis_deploy.service_seconds(found, np.array([10.0]), np.array([count])).iloc[0] for count in (1, 1000)
    )
    assert one["scratch-optimized-system"] < one["debian-optimized-system"]
    assert many["scratch-optimized-system"] > many["debian-optimized-system"]
    stored = analysis_deploy.stored_bytes(analysis_deploy.times(recorded), [1, 10]).set_index("cell")
    assert stored.loc["debian-optimized-system", ["stored_1", "stored_10"]].tolist() == [83e6, 80e6 + 10 * 3e6]
    assert stored.loc["scratch-optimized-system", "stored_10"] == 30e6


def test_where_it_stops_to_matter_is_said(recorded):
    found = analysis_deploy.compare_cells(recorded, "", "")
    assert (found.attrs["baseline"], found.attrs["cell"]) == ("scratch-optimized-system", "debian-optimized-system")
    told = views.deploy.in_words(found)
    assert (
        "; 100 Mbit/s 5.1" in told
        and " s against 0.6" in told
        and "They differ at every bandwidth that was measured, up to 1,000 Mbit/s" in told
    )
    assert "slower" in views.studies.ratios(found, {"Mbit/s": found["bandwidth_mbit"]}).to_html()
    alike = views.deploy.in_words(analysis_deploy.compare_cells(recorded, "", "scratch-optimized-system" + TWIN))
    assert "From 10 Mbit/s on there is **no difference detectable**" in alike
    noisy = found.assign(verdict=Verdict.TOO_NOISY)
    noisy.attrs = found.attrs
    assert "From 10 Mbit/s on it was **too noisy** to tell" in views.deploy.in_words(noisy)
    with pytest.raises(LabError, match="unknown cell that was deployed 'debian-optimized-sytem': did you mean"):
        analysis_deploy.compare_cells(recorded, "", "debian-optimized-sytem")
    control = "scratch-optimized-system" + TWIN
    untried = replace(recorded, rows=recorded.rows[recorded.rows["cell"] != control])
    with pytest.raises(LabError, match=f"unknown cell that was deployed '{control}': did you mean"):
        analysis_deploy.compare_cells(untried, control, "")


def test_of_a_study_that_was_broken_off_nothing_is_said_that_it_does_not_tell(recorded):
    one = replace(recorded, rows=recorded.rows[recorded.rows["study"].isin(["", "deploy-cold-10mbit"])])
    assert not analysis_deploy.is_measured(one)
    with pytest.raises(LabError, match="has deploys at one bandwidth only, and needs two"):
        analysis_deploy.times(one)
    wishes = Wishes(weights={metrics.DAY: 1.0}, day=recommendation.Day(100, 1000))
    assert any("compressed bytes alone" in note for note in recommendation.choose(one, wishes).notes)
    two = replace(
        recorded, rows=recorded.rows[recorded.rows["study"].isin(["", "deploy-cold-10mbit", "deploy-cold-100mbit"])]
    )
    found = analysis_deploy.model(analysis_deploy.times(two))
    assert found.empty and "its error is not known" in views.deploy.error_in_words(found)
    assert analysis_deploy.complete_models(found).empty


def test_a_run_without_deploys_says_how_to_measure_them():
    with pytest.raises(LabError, match=r"has no study of deploys; `./lab measure --run NAME --study deploy`"):
        analysis_deploy.times(runs.load("recorded/article"))


def test_plots_say_what_they_show(recorded):
    times = analysis_deploy.times(recorded)
    found = analysis_deploy.model(times)
    assert "scratch-optimized-system at 10 1." in plots.deploy.deploys(times, found, studies.EMPTY).alt
    label = plots.deploy.soonest(analysis_deploy.complete_models(found)).alt
    assert "by bandwidth, Mbit/s and services on the machine" in label
    assert "scratch-optimized-system" in label and "debian-optimized-system" in label


def test_a_choice_goes_by_what_a_day_brings(recorded):
    wishes = Wishes(weights={metrics.DAY: 1.0}, day=recommendation.Day(100, 10))
    found = recommendation.choose(recorded, wishes)
    assert found.picked == "scratch-optimized-system" and any(
        "deploys are of the same cells' servers" in each for each in found.notes
    )
    seconds = 100 * (0.5 + 1.03 * 8 * 1.5e6 / 10e6)
    assert found.table.loc[found.picked, metrics.DAY] == pytest.approx(seconds, rel=0.03)
    told = "\n".join(views.recommendation.evidence(found))
    assert "A day brings 100 deploys to machines that lack the image, at 10 Mbit/s, and 0 requests." in told
    assert (
        "seconds a day 17" in told
        and "Sure: with values drawn from the measured intervals it is selected in 100%." in told
    )
    measured = analysis_deploy.first_response(recorded, 10).loc[found.picked]
    assert measured["trials"] == 10 and measured["low"] < seconds / 100 < measured["high"]
    unweighted = Wishes(day=recommendation.Day(100, 10, 1e6))
    assert recommendation.choose(recorded, unweighted).picked == "scratch-optimized-system"
    with pytest.raises(LabError, match="has not measured cpu"):
        recommendation.choose(recorded, Wishes(weights={metrics.DAY: 1.0}, day=recommendation.Day(100, 10, 1e6)))


def test_deploys_and_requests_are_weighed_against_each_other():
    run = runs.load("recorded/service")
    few, many = (
        recommendation.choose(run, Wishes(weights={metrics.DAY: 1.0}, day=recommendation.Day(deploys, 10, 1e7)))
        for deploys in (1, 100_000)
    )
    assert few.picked != many.picked
    assert few.table.loc[few.picked, "cpu"] < many.table.loc[many.picked, "cpu"]
    assert few.table.loc[few.picked, "transfer"] > many.table.loc[many.picked, "transfer"]
    assert any("count the compressed bytes alone" in note for note in few.notes) and not few.sureness
