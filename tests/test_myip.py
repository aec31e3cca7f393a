"""The example app: its own tests in the builder, and its server in a container."""

import contextlib
import json
import socket
import time
import urllib.request

import pytest

from rustimg_lab import apps, dockerfile, engine, host, matrix
from rustimg_lab.paths import MYIP

pytestmark = pytest.mark.engine
CELL = matrix.cell("scratch", "baseline", "jemalloc")


@pytest.fixture
def cargo(images, tmp_path):
    """Runs a cargo command on myip in the builder, over the caches of its cells, and makes an image of `last`."""
    tag = f"{engine.repository('test-myip')}:test"

    def run(command: str, last: str) -> str:
        text = dockerfile.render(CELL, apps.load(MYIP))
        start = text.index("    cargo build")
        text = text[:start] + f"    {command}\nFROM scratch\n{last}\n"
        source = tmp_path / "Dockerfile"
        source.write_text(text)
        secret = ["--secret", f"id=ca,src={host.ca_bundle()}"] if host.ca_bundle() else []
        engine.run(
            [*host.buildx_command(), "build", "--progress=plain", "--output=type=docker", "--tag", tag, *secret,
             "--build-arg", f"RUST_IMAGE={images['rust'].image}", "--file", str(source), str(MYIP)]
        )  # fmt: skip
        return tag

    yield run
    if engine.find_image(tag):
        engine.client().images.remove(tag)


def test_its_own_tests_pass_and_the_public_roots_are_among_them(cargo):
    tag = cargo(
        f"cargo test --locked --release --target {CELL.base.target} --features jemalloc > /said",
        "COPY --from=builder /said /said",
    )
    container = engine.create_container(tag, command=["nothing"])
    try:
        said = b"".join(container.get_archive("/said")[0]).decode()
    finally:
        container.remove()
    assert "test tests::public_roots_are_compiled_in ... ok" in said
    assert "test tests::an_extra_authority_is_added_to_the_public_ones ... ok" in said


def test_the_server_answers_with_the_callers_address_and_ends_on_sigterm(cargo):
    release = f"/target/{CELL.base.target}/release"
    tag = cargo(
        f"cargo build --locked --release --target {CELL.base.target} --features jemalloc,server --bin myip-server; "
        f"install -D {release}/myip-server /out/myip-server",
        'COPY --from=builder /out/ /\nUSER 10001:10001\nCMD ["/myip-server"]',
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    container = engine.create_container(tag, network_mode="host", environment={"MYIP_LISTEN": address})
    try:
        container.start()
        answer = _get(f"http://{address}/")
        assert answer == {"ip": "127.0.0.1", "country": "Unknown", "cc": "XX"}
        container.kill("SIGTERM")
        assert container.wait(timeout=5)["StatusCode"] == 0
    finally:
        container.remove(force=True)


def _get(url: str) -> dict:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(100):
        with contextlib.suppress(OSError), direct.open(url, timeout=2) as response:
            return json.load(response)
        time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")
