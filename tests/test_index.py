"""One Dockerfile, built for two platforms into one image index, on an engine that can: `./lab test --engines`."""

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from support import engines

from rustimg_lab.build import bases, dockerfile
from rustimg_lab.engine import client
from rustimg_lab.host import files, machine, tools
from rustimg_lab.host.process import background
from rustimg_lab.model import matrix
from rustimg_lab.model.architecture import NATIVE, Architecture

pytestmark = [pytest.mark.engine, pytest.mark.builds, pytest.mark.engines]
PORT = 5000  # in the engine's own network namespace


@pytest.mark.skipif(NATIVE is not Architecture.X86_64, reason="the builder that is loaded is for x86_64")
def test_the_text_makes_one_index_whose_programs_are_those_of_the_cells(tiny, builds, images, tmp_path):
    engines.check()
    ca = machine.ca_bundle()
    images = images | {"rust-arm64": bases.cross_builder(images["rust"], "rust-arm64", print, ca)}
    cell = matrix.cell("scratch", "optimized", "mimalloc")
    built = builds([replace(cell, architecture=each) for each in Architecture], tiny, images=images)
    wanted = {each.cell.architecture.debian: files.sha256(each.shipped) for each in built}
    (tmp_path / "Dockerfile").write_text(dockerfile.render(cell, tiny))
    with engines.dockerd("sid", containerd_store=True) as engine, _registry(engine, tmp_path):
        reference = f"127.0.0.1:{PORT}/tiny:1"
        _hand_over(images["rust-arm64"].image, engine)
        subprocess.run(
            [*tools.buildx_command(), "build", "--builder=default", "--platform=linux/amd64,linux/arm64", "--push",
             f"--tag={reference}",
             *([f"--secret=id=ca,src={ca}"] if ca else []), f"--build-arg=RUST_IMAGE={images['rust-arm64'].image}",
             "--provenance=false", f"--file={tmp_path}/Dockerfile", str(tiny.directory)],
            env=engine.environment(), check=True,
        )  # fmt: skip
        found = {platform: _program(engine, reference, platform) for platform in wanted}
    assert found == wanted and len(set(found.values())) == 2


def _registry(engine: engines.Engine, folder: Path):
    """An empty registry on the engine's 127.0.0.1."""
    settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": f"{folder}/registry"}}}
    (folder / "registry.json").write_text(json.dumps(settings | {"http": {"addr": f"127.0.0.1:{PORT}"}}))
    return background([*engine.inside, tools.registry_command(), "serve", str(folder / "registry.json")], {})


def _hand_over(image: str, engine: engines.Engine) -> None:
    """Give an image of the machine's engine to another, by its name."""
    saved = client.connect().images.get(image).save(named=True)
    load = subprocess.Popen(["docker", "load", "--quiet"], env=engine.environment(), stdin=subprocess.PIPE)
    for block in saved:
        load.stdin.write(block)
    load.stdin.close()
    assert load.wait() == 0


def _program(engine: engines.Engine, reference: str, platform: str) -> str:
    """The SHA-256 of the program in the image of an index for a platform."""
    api = engine.client().api
    for event in api.pull(reference, platform=f"linux/{platform}", stream=True, decode=True):
        assert "error" not in event, event
    container = api.create_container(reference, platform=f"linux/{platform}")["Id"]
    archive = b"".join(api.get_archive(container, "/tiny/tiny")[0])
    api.remove_container(container)
    with tarfile.open(fileobj=io.BytesIO(archive)) as held:
        return hashlib.sha256(held.extractfile("tiny").read()).hexdigest()
