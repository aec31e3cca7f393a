"""The check that an image does its job must fail where it does not: images made to fail it, each in its own way."""

import pytest
from support.lab import derived, ours

from rustimg_lab.build import lab_toml
from rustimg_lab.engine import client
from rustimg_lab.measure import smoke
from rustimg_lab.paths import MYIP

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
        ("echo 127.0.0.1", "10001:10001", "printed '127.0.0.1', the server had answered"),
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


def test_a_program_that_is_not_there_is_told(images, app, tools):
    image = derived(images["alpine"].image, ["/not/there"])
    try:
        assert smoke.measure_runs(image, app, tools).reason.startswith("does not start: ")
    finally:
        client.connect().images.remove(image, force=True)


def test_no_container_is_left(script, app, tools):
    smoke.measure_runs(script("exit 1"), app, tools)
    assert ours() == []
