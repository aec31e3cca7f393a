"""The example app's own tests, in the builder."""

import pytest

from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.engine import client, containers
from rustimg_lab.host import machine, process, tools
from rustimg_lab.model import matrix
from rustimg_lab.paths import MYIP

pytestmark = [pytest.mark.engine, pytest.mark.builds]


def test_its_own_tests_pass_and_the_public_roots_are_among_them(images, tmp_path):
    """Over the caches of its cells."""
    cell, tag = matrix.cell("scratch", "baseline", "jemalloc"), f"{client.repository('test-myip')}:test"
    text, called, _ = dockerfile.render(cell, lab_toml.load(MYIP)).partition("    cargo ")
    assert called
    text += f"    cargo test --locked --release --target {cell.target} --features jemalloc > /said\n"
    source = tmp_path / "Dockerfile"
    source.write_text(f"{text}FROM scratch\nCOPY --from=builder /said /said\n")
    secret = ["--secret", f"id=ca,src={machine.ca_bundle()}"] if machine.ca_bundle() else []
    process.run(
        [*tools.buildx_command(), "build", "--progress=plain", "--output=type=docker", "--tag", tag, *secret,
         "--build-arg", f"RUST_IMAGE={images['rust'].image}", "--file", str(source), str(MYIP)]
    )  # fmt: skip
    container = containers.create_container(tag, command=["nothing"])
    try:
        said = b"".join(container.get_archive("/said")[0]).decode()
    finally:
        container.remove()
        client.connect().images.remove(tag)
    assert "test tests::public_roots_are_compiled_in ... ok" in said
    assert "test tests::an_extra_authority_is_added_to_the_public_ones ... ok" in said
