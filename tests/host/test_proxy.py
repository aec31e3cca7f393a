"""Behind a proxy: it and an extra certificate authority reach what needs them, and stay nowhere."""

import base64
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from support import forward_proxy
from support.lab import forget, work_folders
from support.registries import push, registry_on, rootfs

from rustimg_lab.build import bake, bases, lab_toml, registry
from rustimg_lab.engine import client
from rustimg_lab.engine.images import find_image
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine, process, proxy
from rustimg_lab.model import matrix
from rustimg_lab.paths import REPORTS, ROOT, RUNS

CANARY = "canary5f0c"
USER, PASSWORD = f"{CANARY}user", f"{CANARY}@pass"
LOGIN = base64.b64encode(f"{CANARY}user:{CANARY}pass".encode()).decode()


@pytest.fixture(autouse=True)
def no_proxy_yet(monkeypatch):
    for name in proxy.NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def variables(tmp_path) -> dict[str, str]:
    """A CA bundle with a canary in it, named as a user names one, and a login at registries with one; a proxy's
    variables are added by `through`."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(machine.ca_bundle().read_text() + f"\n# {CANARY}\n")
    (tmp_path / "docker").mkdir()
    logins = {key: {"auth": LOGIN} for key in ("https://index.docker.io/v1/", "gcr.io")}
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": logins}))
    return {
        "SSL_CERT_FILE": str(bundle), "CARGO_HTTP_CAINFO": str(bundle), "DOCKER_CONFIG": str(tmp_path / "docker"),
    }  # fmt: skip


def through(address: str) -> dict[str, str]:
    url = f"http://{USER}:{PASSWORD.replace('@', '%40')}@{address}"
    return {"HTTP_PROXY": url, "https_proxy": url, "NO_PROXY": f"127.0.0.1,localhost,{CANARY}.internal"}


def test_the_variables_are_found_in_either_case_and_handed_on_in_both(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://upper:1")
    monkeypatch.setenv("https_proxy", "http://lower:2")
    assert proxy.variables() == {"HTTP_PROXY": "http://upper:1", "HTTPS_PROXY": "http://lower:2"}
    assert proxy.environment()["http_proxy"] == proxy.environment()["HTTP_PROXY"] == "http://upper:1"
    assert proxy.build_options() == ["--build-arg", "HTTP_PROXY", "--build-arg", "HTTPS_PROXY"]  # no value to be seen
    assert not proxy.is_on_this_machine()
    assert process.run(["sh", "-c", "echo $http_proxy"]) == "http://upper:1\n"


@pytest.mark.parametrize("address", ["http://127.0.0.1:3128", "localhost:3128", "http://u:p@[::1]:3128"])
def test_a_proxy_on_this_machine_needs_its_network(address, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", address)
    assert proxy.is_on_this_machine() and proxy.build_options()[-1] == "--network=host"


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("http://127.0.0.1:3128", "http://host.docker.internal:3128"),
        ("localhost:3128", "host.docker.internal:3128"),
        ("http://u:p%40@[::1]:3128", "http://u:p%40@host.docker.internal:3128"),
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
    ],
)
def test_builds_in_a_virtual_machine_reach_a_proxy_on_loopback_by_this_machines_name(address, seen, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    about = SimpleNamespace(kernel="6.12.5-linuxkit", memory_bytes=8 << 30)
    monkeypatch.setattr(client, "engine_info", lambda: about)
    monkeypatch.setattr(client, "is_podman", lambda: False)
    name = client.machine_in_builds()
    assert proxy.variables(name) == {"HTTPS_PROXY": seen, "NO_PROXY": "127.0.0.1"}
    assert "--network=host" not in proxy.build_options(name)
    about.kernel, about.memory_bytes = platform.release(), machine.memory_bytes()
    assert client.machine_in_builds() == ""


def test_what_is_printed_of_a_proxy_is_left_out(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss@proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,.corp.internal")
    for text in (
        "via http://me:p%40ss@proxy.corp:3128",
        "could not resolve proxy: proxy.corp",
        "login p@ss was refused",
        "NO_PROXY=127.0.0.1,.corp.internal",
    ):
        said = proxy.redact(text)
        assert "[proxy]" in said and not any(secret in said for secret in ("corp", "p%40ss", "p@ss"))
    assert proxy.redact("127.0.0.1:5000 is no proxy") == "127.0.0.1:5000 is no proxy"


def test_without_a_proxy_nothing_is_handed_on_and_nothing_left_out():
    assert proxy.build_options() == [] and proxy.environment() == {}
    assert proxy.redact("http://me:secret@host") == "http://me:secret@host"


@pytest.mark.engine
def test_a_pull_goes_through_the_proxy_and_past_the_authority_that_the_engine_does_not_know(
    tmp_path, monkeypatch, variables
):
    """The engine cannot reach this registry at all: its name is known to the proxy, its authority to the lab."""
    authority = trustme.CA()
    certificate = authority.issue_cert("registry.invalid")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "certificate.pem", append=True)
    tls = {"certificate": str(tmp_path / "certificate.pem"), "key": str(tmp_path / "key.pem")}
    reference = matrix.reference("alpine")
    with registry_on(tmp_path) as address:
        digest = push(address, f"library/{reference}", rootfs(tmp_path / "a.tar"))
    registry._silent.clear()
    with (
        registry_on(tmp_path, http={"tls": tls}) as address,
        forward_proxy.serve(USER, PASSWORD, {"registry.invalid": address}) as own,
    ):
        for name, value in (variables | through(own.address)).items():
            monkeypatch.setenv(name, value)
        sources = bases.Sources(registry="registry.invalid")
        with pytest.raises(LabError, match=r"registry registry\.invalid did not give"):  # no way for us either
            bases.resolve("alpine", sources, print)
        registry._silent.clear()
        with Path(variables["SSL_CERT_FILE"]).open("ab") as bundle:
            bundle.write(authority.cert_pem.bytes())
        found = bases.resolve("alpine", sources, print)
    try:
        assert found.manifest == digest and found.source == "registry registry.invalid"
        image = client.connect().images.get(found.digest)
        assert image.tags == [found.image] and image.attrs["RepoDigests"] == []
        assert "registry.invalid" in own.passed and own.refused == 0
        assert CANARY not in str(found.as_dict())
    finally:
        client.connect().images.remove(found.image, noprune=True)
        registry._silent.clear()


@pytest.mark.engine
def test_apt_and_cargo_go_through_the_proxy_and_the_canaries_are_nowhere(images, tiny, tmp_path, variables):
    """A whole `lab run`; its build script prints what it must not, in a build that succeeds and in one that fails."""
    (tiny.directory / "build.rs").write_text(
        'fn main() { for (name, value) in std::env::vars() { if name.to_lowercase().contains("proxy") {'
        ' println!("cargo:warning={name}={value}"); } }'
        ' if std::env::var("CARGO_FEATURE_MIMALLOC").is_ok() {'
        ' panic!("failed by way of {}", std::env::var("HTTPS_PROXY").unwrap()); } }'
    )
    run = "test-proxy"
    forget(run)
    script = tmp_path / "lab.py"
    script.write_text(
        "import pathlib, sys\n"
        "from rustimg_lab.build import dockerfile\n"
        "from rustimg_lab.cli import main, selection\n"
        f"selection.MYIP = pathlib.Path({str(tiny.directory)!r})\n"
        "plain = dockerfile.render\n"
        # The measured text: as with the official builder, for apt; with no step and nothing of cargo's from before.
        "def render(*arguments):\n"
        f"    text = plain(*arguments).replace('if command -v rustup', 'if : {uuid.uuid4()}')\n"
        f"    text = text.replace('rustimg-lab-cargo-home', 'rustimg-lab-test-{uuid.uuid4().hex[:8]}')\n"
        "    return text.replace('rustup target add', ': rustup target add')\n"
        "dockerfile.render = render\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, str(script), "run", "--run", run, "--blocks", "0", "--bases", "scratch",
               "--profiles", "baseline", "--allocators", "system,mimalloc"]  # fmt: skip
    with forward_proxy.serve(USER, PASSWORD, {}) as own:
        environment = {**os.environ, **variables, **through(own.address)}
        begun = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        out, err = begun.communicate(timeout=900)
    app = lab_toml.load(tiny.directory)
    cells = matrix.grid(["scratch"], ["baseline"], ["system", "mimalloc"])
    image = bake.image_tag(cells[0], app)
    try:
        assert begun.returncode == 1, err  # a tiny crate does no client's job
        assert "failed to run custom build command" in err
        assert own.refused == 0
        debian = {name for name in own.passed if "debian" in name or "deb" in name.split(".")}
        assert debian and set(own.passed) - debian, own.passed  # apt's, and cargo's

        logs = "".join(path.read_text() for path in (RUNS / run / "logs").iterdir())
        # The variables were there, and their values are not here.
        assert "HTTPS_PROXY=[proxy]" in logs and "failed by way of [proxy]" in logs
        written = [path for folder in (RUNS / run, REPORTS / run) for path in folder.rglob("*") if path.is_file()]
        assert {"rows.jsonl", "environment.json", "report.html"} <= {path.name for path in written}
        assert work_folders(begun.pid) == []
        for path in written:
            text = path.read_text(errors="replace")
            assert CANARY not in text and LOGIN not in text, path
        assert CANARY not in out + err
        assert CANARY not in str(client.connect().images.get(image).history())
        assert CANARY not in str(client.connect().images.get(image).attrs)
        assert CANARY.encode() not in saved(image) and LOGIN.encode() not in saved(image)
    finally:
        forget(run)
        if find_image(image):
            client.connect().images.remove(image)


def saved(image: str) -> bytes:
    """All that an image is, layers unpacked."""
    archive = io.BytesIO(b"".join(client.connect().images.get(image).save()))
    with tarfile.open(fileobj=archive) as tar:
        assert any(re.search(r"layer\.tar$|^blobs/", name) for name in tar.getnames())
        return b"".join(tar.extractfile(member).read() for member in tar if member.isfile())
