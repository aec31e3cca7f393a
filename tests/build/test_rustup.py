"""The branch of the Dockerfiles for the official Rust image, with a real rustup, which that image has.

No registry need answer: the image is made as the official slim one is, of Debian packages, and rustup installs from a
distribution server of the test's own.
"""

import io
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker.models.images import Image
from support import distribution
from support.lab import MUSL, add_file

from rustimg_lab.build import dockerfile, mmdebstrap
from rustimg_lab.engine import client, containers
from rustimg_lab.engine.images import find_image
from rustimg_lab.host import machine, process, proxy, tools
from rustimg_lab.model import matrix

pytestmark = [pytest.mark.engine, pytest.mark.builds, pytest.mark.engines]

# The variables and the places of the official image, and what its Dockerfile installs. Its rustup is rust-lang's, this
# one Debian's.
HOMES = {"RUSTUP_HOME": "/usr/local/rustup", "CARGO_HOME": "/usr/local/cargo"}
PATH = "/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SET_UP = """
set -eu
apt_ca='-o Acquire::https::CAInfo=/ca.pem'
apt-get $apt_ca update
apt-get $apt_ca install --yes --no-install-recommends ca-certificates gcc libc6-dev rustup
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*
mkdir -p "$CARGO_HOME/bin"
for link in $(find /usr/bin -lname '*rustup'); do mv "$link" "$CARGO_HOME/bin/"; done
mv /usr/bin/rustup "$CARGO_HOME/bin/"
rustup toolchain install --profile minimal "$RUST_VERSION"
rustup default "$RUST_VERSION"
rustc --version
rm /ca.pem
"""


@pytest.fixture(scope="module")
def served(images) -> Iterator[distribution.Distribution]:
    with distribution.serve(images["rust"].image) as server:
        yield server


@pytest.fixture(scope="module")
def ca(served, tmp_path_factory) -> Path:
    """A CA bundle as of a company: the usual authorities, and the one that is between here and the distribution."""
    bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    bundle.write_bytes((machine.ca_bundle().read_bytes() if machine.ca_bundle() else b"") + served.authority)
    return bundle


@pytest.fixture(scope="module")
def official(served, ca, images) -> Iterator[str]:
    """An image as the official slim one: rustup, one toolchain without any other target, gcc, and no make."""
    variables = HOMES | {"PATH": PATH, "RUST_VERSION": served.version, "RUSTUP_DIST_SERVER": served.address}
    container = containers.create_container(
        images["debian"].image, command=["sleep", "infinity"], network_mode="host", mem_limit="2g", init=True
    )
    image = ""
    try:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as out:
            add_file(out, "ca.pem", 0o644, ca.read_bytes())
        container.put_archive("/", archive.getvalue())
        container.start()
        environment = variables | proxy.environment() | {"SSL_CERT_FILE": "/ca.pem"}
        code, output = container.exec_run(["sh", "-c", SET_UP], environment=environment)
        assert code == 0, output.decode()
        changes = ['ENTRYPOINT ["env"]']  # which runs what it is given; the container's own is `sleep`
        changes += [f"ENV {name}={value}" for name, value in variables.items()]
        image = container.commit(client.repository("test-rustup"), uuid.uuid4().hex[:12], changes=changes).tags[0]
        containers.remove_container(container)
        yield image
    finally:
        containers.remove_container(container)
        if image:
            client.connect().images.remove(image)


@pytest.fixture
def made(official, ca, tmp_path) -> Iterator[Callable[..., Image]]:
    """Builds a Dockerfile on the official image, as a user does by hand; the images are removed afterwards."""
    tags: list[str] = []

    def build(text: Path, context: Path, *options: str) -> Image:
        tags.append(f"{client.repository('test-rustup')}:{uuid.uuid4().hex[:12]}")
        process.run(
            [*tools.buildx_command(), "build", "--builder=default", "--output=type=docker", "--tag", tags[-1],
             "--label", f"{client.IMAGE_LABEL}={client.lab_id()}", "--network=host", *proxy.build_options(),
             "--secret", f"id=ca,src={ca}",
             "--build-arg", f"RUST_IMAGE={official}", *options, "--file", str(text), str(context)]
        )  # fmt: skip
        return client.connect().images.get(tags[-1])

    yield build
    for tag in tags:
        if find_image(tag):
            client.connect().images.remove(tag)


def run(image: str, *command: str) -> str:
    """What a container of the image prints, with no network."""
    options = {"network_mode": "none", "mem_limit": "256m", "remove": True}
    return client.connect().containers.run(image, list(command) or None, **options).decode()


def archives(served: distribution.Distribution, first: int) -> list[str]:
    """The components that rustup downloaded since the call of that number."""
    return [name for name in served.served[first:] if name.endswith(".tar.gz")]


def test_the_official_image_has_neither_the_musl_target_nor_its_compiler_nor_make(official, served):
    assert run(official, "rustup", "target", "list", "--installed").split() == [distribution.HOST]
    assert run(official, "sh", "-c", "command -v rustc musl-gcc make x86_64-linux-musl-gcc || true").split() == [
        "/usr/local/cargo/bin/rustc"
    ]
    assert f"rustc {served.version} " in run(official, "rustc", "--version")


def test_what_is_handed_out_is_built_by_what_rustup_and_apt_add(made, served, tiny, tmp_path):
    """With mimalloc, C code is compiled for musl. The step is the same for both cells, and so runs once."""
    before = len(served.served)
    for allocator in ("system", "mimalloc"):
        (tmp_path / "Dockerfile").write_text(dockerfile.render(matrix.cell("scratch", "baseline", allocator), tiny))
        assert run(made(tmp_path / "Dockerfile", tiny.directory).id) == "answer 42\n"
    assert archives(served, before) == [f"rust-std-{served.version}-{MUSL}.tar.gz"]


def test_cargo_finds_the_sources_of_the_standard_library_that_rustup_adds(made, served, tiny, tmp_path):
    """As far as cargo goes before it compiles, which takes minutes here."""
    cell = matrix.cell("scratch", "std-size", "system")
    branch = dockerfile.render(cell, tiny).partition("WORKDIR")[0]
    (tmp_path / "Dockerfile").write_text(
        f"{branch}\nWORKDIR /src\nCOPY . .\nRUN --mount=type=secret,id=ca,mode=0444 . /target.sh; RUSTC_BOOTSTRAP=1 "
        "CARGO_HOME=/cargo CARGO_HTTP_CAINFO=/run/secrets/ca "
        f"cargo fetch --locked --target $RUST_TARGET {' '.join(cell.profile.cargo)}\n"
    )
    before = len(served.served)
    made(tmp_path / "Dockerfile", tiny.directory)
    version = served.version
    assert archives(served, before) == [f"rust-std-{version}-{MUSL}.tar.gz", f"rust-src-{version}.tar.gz"]


def test_what_measures_is_compiled_by_what_rustup_adds(made, images):
    folder = mmdebstrap.MEASURE_FOLDER / "tools"
    options = ("--target", "builder", "--build-arg", f"DEBIAN_IMAGE={images['debian'].image}")
    image = made(folder / "Dockerfile", folder, *options)
    assert "starter" in run(image.id, "ls", "/out/starter")
