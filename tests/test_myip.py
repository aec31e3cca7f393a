"""The example app's own tests, in the builder."""

import pytest

from rustimg_lab import apps, dockerfile, engine, host, matrix
from rustimg_lab.paths import MYIP

pytestmark = [pytest.mark.engine, pytest.mark.builds]


def test_its_own_tests_pass_and_the_public_roots_are_among_them(images, tmp_path):
    """Over the caches of its cells."""
    cell, tag = matrix.cell("scratch", "baseline", "jemalloc"), f"{engine.repository('test-myip')}:test"
    text, called, _ = dockerfile.render(cell, apps.load(MYIP)).partition("    cargo ")
    assert called
    text += f"    cargo test --locked --release --target {cell.target} --features jemalloc > /said\n"
    source = tmp_path / "Dockerfile"
    source.write_text(f"{text}FROM scratch\nCOPY --from=builder /said /said\n")
    secret = ["--secret", f"id=ca,src={host.ca_bundle()}"] if host.ca_bundle() else []
    engine.run(
        [*host.buildx_command(), "build", "--progress=plain", "--output=type=docker", "--tag", tag, *secret,
         "--build-arg", f"RUST_IMAGE={images['rust'].image}", "--file", str(source), str(MYIP)]
    )  # fmt: skip
    container = engine.create_container(tag, command=["nothing"])
    try:
        said = b"".join(container.get_archive("/said")[0]).decode()
    finally:
        container.remove()
        engine.client().images.remove(tag)
    assert "test tests::public_roots_are_compiled_in ... ok" in said
    assert "test tests::an_extra_authority_is_added_to_the_public_ones ... ok" in said
