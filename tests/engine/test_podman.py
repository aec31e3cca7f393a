"""Podman: how its progress is read, what the lab refuses; and, where Podman is the engine, a real run."""

import json
import time
import urllib.request
import uuid
from dataclasses import replace

import pytest
from support.lab import adds_nothing, measured

from rustimg_lab.build import bake
from rustimg_lab.engine import client, containers, local_registry, podman
from rustimg_lab.engine.images import RegistryError, find_image, list_files, read_files, remove_images
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine
from rustimg_lab.model import matrix
from rustimg_lab.store import runs

SAID = [
    "[1/2] STEP 1/3: FROM rust AS builder",
    "[1/2] STEP 2/3: RUN cargo build",
    "--> Using cache 4265b7a9d904a46cfe95c970b96bbf9380bcf21148c2b1bd690e5dd9bc526ed2",
    "--> 4265b7a9d904",
    "[1/2] STEP 3/3: RUN strip tiny",
    "  --> src/main.rs:3:5",
    "--> 134ed59edd9f",
    "[2/2] STEP 1/2: FROM scratch",
    "[2/2] STEP 2/2: COPY --from=builder /build/rootfs/ /",
    "[2/2] COMMIT tiny:scratch",
    "--> 8f872448c821",
    "8f872448c8210a5e22cbe3dbee15a5ba61e4eae720b4399530c600bd6b77ef1b",
    "Successfully tagged docker.io/library/tiny:scratch",
]


def test_progress_is_read_as_that_of_buildkit(monkeypatch, tmp_path):
    events, stages, vertex = [], {}, {"digest": "cell", "name": "[cell internal] build"}
    monkeypatch.setattr(podman, "_tell", events.append)
    for line in SAID:
        vertex = podman._read(line, "cell", stages, vertex)
    printer = tmp_path / "events"
    printer.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    heard: list[str] = []
    code, steps, said = bake._bake(["cat", str(printer)], heard.append)
    assert (code, said) == (0, []) and heard == ["cell builder 2/3", "cell builder 3/3", "--> src/main.rs:3:5"]
    assert [(step.name, step.cached, step.output) for step in steps.values()] == [
        ("[cell builder 1/3] FROM rust AS builder", False, []),
        ("[cell builder 2/3] RUN cargo build", True, []),
        ("[cell builder 3/3] RUN strip tiny", False, ["  --> src/main.rs:3:5\n"]),
        ("[cell stage-2 1/2] FROM scratch", False, []),
        ("[cell stage-2 2/2] COPY --from=builder /build/rootfs/ /", False, []),
    ]


def test_a_dockerfile_of_one_stage_has_steps_too(monkeypatch):
    events: list[dict] = []
    monkeypatch.setattr(podman, "_tell", events.append)
    podman._read("STEP 1/2: FROM rust", "image", {}, {})
    assert [step["name"] for step in events[0]["vertexes"]] == ["[image stage-1 1/2] FROM rust"]


def test_a_bake_file_is_written_without_the_escapes_of_bake_and_a_builder_is_refused(tmp_path):
    text = "FROM ${BASE} %{x} $${kept}"
    podman.build_command(tmp_path, bake._escape({"target": {"cell": {"dockerfile-inline": text}}}))
    written = json.loads((tmp_path / podman.DEFINITION).read_text())
    assert written["target"]["cell"]["dockerfile-inline"] == text
    with pytest.raises(LabError, match="leave --builder out"):
        podman.build_command(tmp_path, {"target": {}}, "other")


@pytest.fixture
def by_podman() -> None:
    if not client.is_podman():
        pytest.skip("the engine is not Podman: tests/support/engines_podman.sh starts one")


@pytest.mark.engine
def test_a_cell_that_fails_takes_no_other_with_it_and_nothing_is_built_twice(by_podman, tiny, builds, images, tmp_path):
    cells = matrix.grid(["scratch", "alpine", "distroless"], ["baseline"], ["system"])
    broken = images | {"alpine": replace(images["alpine"], image="localhost/rustimg-lab-none:none")}
    outcomes = {built.cell.base.name: built for built in builds(cells, tiny, images=broken)}
    assert "rustimg-lab-none" in outcomes["alpine"].reason and not outcomes["alpine"].image
    for base in ("scratch", "distroless"):
        assert outcomes[base].image and outcomes[base].linked.stat().st_size > 0 and outcomes[base].cpu_s > 0
        # The secret, and what carries the Dockerfile to Podman, are in no layer of the builder, and in no history.
        assert "BEGIN CERTIFICATE" not in (tmp_path / "logs" / f"{base}-baseline-system.log").read_text()
    logs = {path: path.read_text() for path in (tmp_path / "logs").iterdir()}
    again = {built.cell.base.name: built for built in builds([cells[0], cells[2]], tiny)}
    assert {base: built.image for base, built in again.items()} == {
        base: built.image for base, built in outcomes.items() if base in again
    }
    assert {path: path.read_text() for path in (tmp_path / "logs").iterdir()} == logs


@pytest.mark.engine
def test_a_context_reaches_podman_without_what_is_ignored_and_without_the_secret(by_podman, tiny, images, tmp_path):
    (tiny.directory / ".dockerignore").write_text("# not sources\nleft-out\n")
    (tiny.directory / "left-out").write_text("x")
    secret = tmp_path / "ca"
    secret.write_text("the secret")
    name = f"{client.repository('test-context')}:{uuid.uuid4().hex[:12]}"
    text = f"FROM {images['rust'].image}\nCOPY . /src\nRUN --mount=type=secret,id=ca cp /run/secrets/ca /seen\n"
    (tiny.directory / "Dockerfile").write_text(text)
    podman.build_folder(tiny.directory, name, {}, [f"id=ca,src={secret}"])
    try:
        members = {member.name for member in list_files(name)}
        assert {path for path in members if path.startswith("src/")} == {
            "src/.dockerignore", "src/Cargo.lock", "src/Cargo.toml", "src/Dockerfile", "src/lab.toml", "src/src",
            "src/src/main.rs",
        }  # fmt: skip
        ((_, seen),) = read_files(name, lambda member: member.name == "seen")
        assert seen.read() == b"the secret"
        assert client.connect().images.get(name).labels == {client.IMAGE_LABEL: client.lab_id()}
    finally:
        client.connect().images.remove(name)


@pytest.mark.engine
def test_a_registry_names_the_digest_of_its_manifest(by_podman, images, monkeypatch):
    monkeypatch.setattr(machine, "free_port", lambda: 5000)  # the one that Podman may speak plain HTTP with
    with local_registry.serve() as own:
        pushed = own.push(images["alpine"].digest)
        reference = f"{own.address}/rustimg-lab:{pushed.tag}"
        head = urllib.request.Request(f"http://{own.address}/v2/rustimg-lab/manifests/{pushed.tag}", method="HEAD")
        head.add_header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        with local_registry._direct.open(head) as answer:
            assert podman.manifest_digest(reference, own.address) == answer.headers["Docker-Content-Digest"]
        with pytest.raises(RegistryError) as missing:
            podman.manifest_digest(f"{own.address}/rustimg-lab:none", own.address)
        assert missing.value.missing
    with pytest.raises(RegistryError) as silent:
        podman.manifest_digest(reference, own.address)
    assert not silent.value.answered


@pytest.mark.engine
def test_the_main_job_runs(by_podman, lab, tiny):
    (tiny.directory / "lab.toml").write_text('binary = "tiny"\n[check]\nprints = "answer 42"\n')
    options = ("run", "--app", str(tiny.directory), "--run", "test-podman", "--bases=scratch,alpine")
    command = (*options, "--profiles=baseline", "--blocks=0")
    with measured(lab, "test-podman", command):
        rows = runs.newest_rows(runs.load("test-podman"))
        assert rows["ok"].all() and set(rows["cell"]) == {"scratch-baseline-system", "alpine-baseline-system"}
        sizes = rows[rows["metric"].isin(["unpacked_bytes", "compressed_bytes", "pushed_bytes"])]
        assert len(sizes) == 6 and (sizes["value"].astype(float) > 0).all()
        adds_nothing(lab, "test-podman", command)


@pytest.mark.engine
def test_clean_up_knows_the_names_that_podman_gives(by_podman, images, monkeypatch):
    monkeypatch.setattr(client, "lab_id", lambda: "0123abcd")
    container = containers.create_container(
        images["alpine"].digest, command=["/bin/sh", "-c", "trap '' TERM; sleep 60"]
    )
    made = container.commit(client.repository("test"), "made", changes=[f"LABEL {client.IMAGE_LABEL}=0123abcd"])
    try:
        container.start()
        began = time.monotonic()
        containers.remove_container(container)
        assert time.monotonic() - began < 8  # Podman waits ten seconds for what ignores SIGTERM
        made.tag("rustimg-lab-test-foreign", "kept")
        removed, kept = remove_images()
        assert removed == 0 and len(kept) == 1 and "rustimg-lab-test-foreign:kept" in kept[0]
        assert not find_image(f"{client.repository('test')}:made")
    finally:
        client.connect().images.remove(made.id, force=True)


def test_nerdctl_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "nerdctl").write_text("#!/bin/sh\n")
    (tmp_path / "nerdctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    client.connect.cache_clear()
    with pytest.raises(LabError, match="nerdctl has no Docker API") as refused:
        client.connect()
    assert "\n" not in str(refused.value)
