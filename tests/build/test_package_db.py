"""What an image holds, by its own package database: Debian's, distroless', Alpine's."""

import io
import tarfile

import pytest

from rustimg_lab.build import package_db
from rustimg_lab.engine import client
from rustimg_lab.engine.images import import_rootfs, read_files
from rustimg_lab.measure.image import read_layers

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("base", ["debian", "distroless", "static", "alpine"])
def test_the_bytes_of_the_packages_sum_up_to_the_image(base, images):
    image = images[base]
    found = package_db.package_bytes(image.digest)
    assert sum(found.values()) == sum(layer.file_bytes for layer in read_layers(image.digest))
    if image.source == "Debian packages":
        assert set(found) - {package_db.UNPACKAGED} <= set(image.packages)
        large = {"debian": "libc6", "distroless": "libc6", "static": "tzdata", "alpine": "busybox-static"}[base]
        assert found[large] > 500_000
        assert found[package_db.UNPACKAGED] < 0.25 * sum(found.values())


def test_a_static_image_has_no_libraries(images):
    if images["static"].source != "Debian packages":
        pytest.skip("this engine has the official one")
    assert set(images["static"].packages) == {"base-files", "ca-certificates", "media-types", "netbase", "tzdata"}
    paths = [path for path, _ in read_files(images["static"].digest, lambda member: member.isfile())]
    assert not [path for path in paths if ".so" in path or "/bin/" in f"/{path}"]
    assert "etc/ssl/certs/ca-certificates.crt" in paths


def test_apk_is_read_too(tmp_path):
    """Alpine's own database, as in a real image: https://wiki.alpinelinux.org/wiki/Apk_spec."""
    database = "P:musl\nV:1.2.5-r0\nF:lib\nR:ld-musl-x86_64.so.1\nZ:Q1\n\nP:busybox\nV:1.36.1-r29\nF:bin\nR:busybox\n"
    files = {
        "lib/ld-musl-x86_64.so.1": b"m" * 600, "bin/busybox": b"b" * 800, "lib/apk/db/installed": database.encode(),
        "etc/motd": b"hello",
    }  # fmt: skip
    with tarfile.open(tmp_path / "rootfs.tar", "w") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    image = import_rootfs(tmp_path / "rootfs.tar", 10_000, "test-apk", "latest", [])
    try:
        assert package_db.package_bytes(image.id) == {
            "busybox": 800, "musl": 600, package_db.UNPACKAGED: len(database) + len("hello"),
        }  # fmt: skip
        assert package_db.read_packages(image.id)[0] == {"busybox": "1.36.1-r29", "musl": "1.2.5-r0"}
    finally:
        client.connect().images.remove(image.id, force=True)
