import pytest

from rustimg_lab import bases, engine, host, matrix
from rustimg_lab.errors import LabError


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("alpine", "give it as NAME=IMAGE"),
        ("alpine=", "give it as NAME=IMAGE"),
        ("alpin=x", "did you mean 'alpine'"),
        ("scratch=x", "scratch is empty"),
    ],
)
def test_a_named_base_that_makes_no_sense_is_refused(option, message):
    with pytest.raises(LabError, match=message):
        bases.parse_named([option])


@pytest.mark.engine
def test_an_image_that_the_engine_lacks_is_refused():
    with pytest.raises(LabError, match="the engine has no such image"):
        bases.resolve(matrix.base("alpine"), {"alpine": "no/such:image"}, print)


@pytest.mark.engine
def test_what_is_made_of_packages_says_so(images):
    assert set(images) == {"rust", "alpine", "distroless", "debian"}
    for image in images.values():
        if image.source != "Debian packages":
            continue  # this engine has the official one
        assert image.image.startswith(f"rustimg-lab-{engine.lab_id()}/")
        assert image.packages and all(image.packages.values())
        assert image.digest.startswith("sha256:")
        assert engine.client().images.get(image.digest).labels[engine.IMAGE_LABEL] == engine.lab_id()
        assert "image" not in image.as_dict()
    if images["alpine"].source == "Debian packages":
        assert images["alpine"].stand_in and "stand-in" in images["alpine"].label
        assert set(images["alpine"].packages) == {"musl", "busybox-static"}
    if images["distroless"].source == "Debian packages":
        assert {"libc6", "libgcc-s1", "ca-certificates"} <= set(images["distroless"].packages)
        assert not {"debconf", "openssl", "mawk"} & set(images["distroless"].packages)


@pytest.mark.engine
def test_an_image_of_the_engine_is_a_base_with_its_own_provenance(images):
    """Not made of packages by the lab in this call, but found under the user's own name."""
    engine.client().images.get(images["debian"].digest).tag("rustimg-lab-test-of-the-users", "1")
    try:
        found = bases.resolve(matrix.base("debian"), {"debian": "rustimg-lab-test-of-the-users:1"}, pytest.fail)
    finally:
        engine.client().images.remove("rustimg-lab-test-of-the-users:1", noprune=True)
    assert (found.source, found.label) == ("local image, named by the user", "rustimg-lab-test-of-the-users:1")
    assert not found.stand_in
    assert found.packages == images["debian"].packages and found.release.startswith("Debian GNU/Linux")


@pytest.mark.engine
def test_the_builder_has_both_targets_and_no_trace_of_how_it_was_made(images):
    container = engine.create_container(
        images["rust"].image,
        command=["sh", "-c", "ls $(rustc --print sysroot)/lib/rustlib; ls -A /tmp; ls -A /root | grep cargo; true"],
    )
    try:
        container.start()
        container.wait(timeout=60)
        said = container.logs().decode().split()
    finally:
        container.remove(force=True)
    assert {matrix.MUSL, matrix.GNU} <= set(said)
    assert ".cargo" not in said and "musl-std.sh" not in said


@pytest.mark.engine
def test_a_base_of_packages_is_made_once(images):
    said = []
    again = bases.resolve(matrix.base("distroless"), {}, said.append, host.ca_bundle())
    assert again == images["distroless"] and said == []
