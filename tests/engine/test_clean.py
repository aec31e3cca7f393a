"""Clean-up takes what is this clone's, by label and id, and nothing that only looks like it."""

import io
import os
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
from support.lab import as_root

from rustimg_lab.engine import client, doctor, images
from rustimg_lab.engine.containers import create_container, remove_container, remove_containers
from rustimg_lab.host import process as host_process
from rustimg_lab.paths import ROOT, STATE

pytestmark = pytest.mark.engine
NAMES = "rustimg-lab-testtest/cell", "rustimg-lab-testtesu/cell", "rustimg-lab/myip", "rustimg-lab-test-derived/mine"


@pytest.fixture
def another_clone(monkeypatch):
    """The id of a clone that owns nothing yet, so that the test cleans no real one."""
    monkeypatch.setattr(client, "lab_id", lambda: "testtest")
    yield
    for container in client.connect().containers.list(all=True, filters={"name": "rustimg-lab-test-"}):
        container.remove(force=True)
    for name in NAMES:
        if images.find_image(f"{name}:1"):
            client.connect().images.remove(f"{name}:1")


def image(name: str, label: str | None, content: str = "x") -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(content))
    changes = [f"LABEL {client.IMAGE_LABEL}={label}"] if label else []
    client.connect().api.import_image_from_data(archive.getvalue(), repository=name, tag="1", changes=changes)
    return f"{name}:1"


def test_only_this_clones_images_and_containers_go(another_clone):
    ours = image(NAMES[0], "testtest")
    another_clones = image(NAMES[1], "testtesu")
    the_users = image(NAMES[2], None)
    # A user's image built on one of ours inherits the label; a user's container of ours inherits it too.
    container = client.connect().containers.create(ours, ["nothing"], name="rustimg-lab-test-derived")
    container.commit(NAMES[3], "1")
    derived = f"{NAMES[3]}:1"
    own_container = create_container(the_users, command=["nothing"])

    assert remove_containers(all_of_ours=True) == 1
    assert client.connect().containers.get(container.id)
    with pytest.raises(docker.errors.NotFound):
        client.connect().containers.get(own_container.id)

    _, kept = images.remove_images()
    assert any(line.startswith(derived) for line in kept)
    assert any(line.startswith(ours) for line in kept)  # a container of the user's stands on it
    container.remove()
    removed, kept = images.remove_images()
    assert removed == 0 and len(kept) == 2  # the user's image still stands on it, which not every engine minds
    assert f"{ours}: {derived} is built on it" in kept
    assert images.find_image(derived)
    client.connect().images.remove(derived, noprune=True)
    assert images.remove_images() == (1, [])
    assert not images.find_image(ours)
    assert images.find_image(another_clones) and images.find_image(the_users)


def test_what_the_lab_itself_built_on_its_image_keeps_neither(another_clone):
    ours = image(NAMES[0], "testtest")
    container = client.connect().containers.create(ours, ["nothing"], name="rustimg-lab-test-derived")
    own = container.commit("rustimg-lab-testtest/derived", "1", changes=["CMD nothing else"])
    container.remove()
    try:
        assert images.inspect(own.id).layers == images.inspect(ours).layers
        assert images.remove_images() == (2, [])
    finally:
        if images.find_image("rustimg-lab-testtest/derived:1"):
            client.connect().images.remove("rustimg-lab-testtest/derived:1")


def test_a_name_that_podman_lengthens_is_the_labs_and_one_that_only_begins_alike_is_not(another_clone):
    assert images._is_ours("localhost/rustimg-lab-testtest/cell:1") and images._is_ours("rustimg-lab-testtest/cell:1")
    for name in ("rustimg-lab-testtesu/cell:1", "localhost/me/rustimg-lab-testtest/cell:1", "rustimg-lab-testtest:1"):
        assert not images._is_ours(name)


def test_a_container_of_a_lab_that_runs_is_left_and_one_of_a_lab_that_died_is_not(another_clone, monkeypatch):
    the_users = image(NAMES[2], None)
    # The one that runs is in a PID namespace of its own, where the numbers of this one say nothing.
    apart = ["unshare", "--pid", "--fork", "--kill-child"] if os.geteuid() == 0 else []
    labs = {process: process.stdout.readline().strip() for process in (_lab(*apart), _lab())}
    alive, dead = labs
    dead.kill()
    dead.wait()
    containers = {}
    for process, name in labs.items():
        assert (STATE / f"process-{name}").exists()
        monkeypatch.setattr(host_process, "process_name", lambda name=name: name)
        containers[process] = create_container(the_users, command=["nothing"])
    monkeypatch.undo()
    monkeypatch.setattr(client, "lab_id", lambda: "testtest")
    try:
        assert remove_containers() == 1
        assert client.connect().containers.get(containers[alive].id)
    finally:
        alive.kill()
        alive.wait()
        while host_process.lives(labs[alive]):  # the kernel ends what is below `unshare`, in its own time
            time.sleep(0.05)
        assert remove_containers() == 1


def _lab(*prefix: str) -> subprocess.Popen:
    """A process of this clone's lab that prints its name and waits."""
    code = (
        "import time; from rustimg_lab.host import process; print(process.process_name(), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([*prefix, sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return process


def test_what_several_labs_remove_at_once_is_removed_once(another_clone):
    container = create_container(image(NAMES[0], "testtest"), command=["x"])
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(remove_container, container) for _ in range(16)]:
            done.result()
    assert not client.connect().containers.list(all=True, filters={"id": container.id})


def test_what_was_pulled_goes_and_a_name_that_the_user_gave_it_stays(another_clone):
    """An official image carries no label of ours: only the name that the lab gave it says so."""
    the_users = image(NAMES[2], None)
    client.connect().images.get(the_users).tag("rustimg-lab-testtest/alpine", "1")
    only_ours = image("rustimg-lab-testtest/debian", None, content="y")
    assert images.remove_images() == (2, [])
    assert client.connect().images.get(the_users).tags == [the_users]
    assert not images.find_image(only_ours)


def clean() -> str:
    """What `./lab clean` prints, of a clone that owns nothing."""
    script = (
        "import sys; from rustimg_lab.engine import client; client.lab_id = lambda: 'testtest';"
        "from rustimg_lab.cli.main import main; sys.exit(main(['clean']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "removed 0 containers and 0 images" in done.stdout
    return done.stdout


@as_root
def test_clean_says_how_large_the_build_cache_is_that_it_leaves(small_engine):
    """With the driver that most engines have; a fresh engine's cache is empty."""
    small_engine.start(40, driver="overlay2")
    assert re.search(r"build cache, which is not the lab's alone; it holds 0B$", clean(), re.MULTILINE)


def test_an_engine_that_would_have_to_compare_all_layers_is_not_asked_to(monkeypatch):
    if client.connect().info()["Driver"] != "fuse-overlayfs":
        pytest.skip("this machine's engine has another storage driver")
    monkeypatch.setattr(host_process, "run", lambda *arguments: pytest.fail("it was asked"))
    assert "storage driver fuse-overlayfs: `docker buildx du`" in doctor.cache_size()
    monkeypatch.undo()
    assert "it holds what only a long comparison tells" in clean()


def test_no_prune_is_ever_called():
    sources = "".join(path.read_text() for path in (ROOT / "rustimg_lab").rglob("*.py"))
    assert "prune(" not in sources and '"prune"' not in sources
