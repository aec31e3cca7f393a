"""Which engine is called, beside a docker client that is asked too where there is one; and one behind TLS."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from rustimg_lab.engine import client, contexts, doctor
from rustimg_lab.errors import LabError
from rustimg_lab.paths import ROOT


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A client without a configuration, whose engine is looked for anew, in the test and after it."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    client.connect.cache_clear()
    yield
    monkeypatch.undo()
    client.connect.cache_clear()


def made(name: str, address: str) -> None:
    command = ["docker", "context", "create", name, "--docker", f"host={address}"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("docker"), reason="no docker client here")
def test_a_context_counts_where_the_client_has_no_configuration_file(monkeypatch, tmp_path):
    made("far", "tcp://127.0.0.1:9")
    assert not (tmp_path / "config/config.json").exists()
    assert contexts.current() == contexts.Context("default", contexts.USUAL)
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert contexts.current() == contexts.Context("far", "tcp://127.0.0.1:9")
    assert (client.own_builder(), client.engine_address()) == ("far", "tcp://127.0.0.1:9")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:8")  # which the client takes first
    assert contexts.current() == contexts.Context("default", "tcp://127.0.0.1:8")


def test_the_configuration_of_another_folder_does_not_count(monkeypatch, tmp_path):
    (home := tmp_path / "home/.docker").mkdir(parents=True)
    (home / "config.json").write_text('{"currentContext": "far"}')
    monkeypatch.setenv("HOME", str(home.parent))
    assert contexts.current() == contexts.Context("default", contexts.USUAL)
    monkeypatch.delenv("DOCKER_CONFIG")
    with pytest.raises(LabError, match=r"no context 'far', which its config\.json names; see `docker context ls`"):
        contexts.current()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/none"},
            "/none lacks one of ca.pem",
        ),
        ({"DOCKER_CONTEXT": "none"}, "no context 'none' (DOCKER_CONTEXT)"),
    ],
)
def test_the_doctor_has_all_its_findings_where_no_engine_can_be_named(variables, said, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LabError, match=re.escape(said)):
        client.connect()
    found = {each.name: each for each in doctor.findings()}
    assert not found["engine"].ok and said in found["engine"].remedy and {"cpu", "memory", "disk"} <= found.keys()


@pytest.fixture
def behind_tls(tmp_path):
    """What answers as an engine over TLS, with certificates below `tmp_path`; its port."""

    class Engine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"OK" if self.path.endswith("_ping") else json.dumps({"ApiVersion": "1.44"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_an_engine_behind_tls_is_trusted_by_its_own_certificates(monkeypatch, tmp_path, behind_tls):
    """Whatever other authorities a company has set for other programs."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{behind_tls}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    assert client.connect().ping()
    client.connect.cache_clear()
    shutil.copy(other, tmp_path / "ca.pem")
    with pytest.raises(LabError, match=r"no Docker engine can be used at tcp://.*certificate verify failed"):
        client.connect()


def test_the_line_of_an_engine_without_rights_says_so_and_not_to_start_it(tmp_path):
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "s"))
        engine.listen()
        (tmp_path / "s").chmod(0)
        # As nobody, who has root's right to read, since this machine's Python may lie in root's home.
        rights = "-all,+dac_read_search"
        become = ["setpriv", "--reuid=65534", f"--inh-caps={rights}", f"--ambient-caps={rights}"]
        call = [sys.executable, "-c", "from rustimg_lab.engine import client; client.connect()"]
        done = subprocess.run(
            [*(become if os.getuid() == 0 else []), *call],
            cwd=ROOT, env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/s"}, capture_output=True, text=True,
        )  # fmt: skip
    assert f"unix://{tmp_path}/s (Permission denied): join the group docker" in done.stderr
    assert "start it" not in done.stderr
