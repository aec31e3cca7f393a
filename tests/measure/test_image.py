"""Sizes of images that are made for the test, and facts of binaries that gcc makes for it."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.request
from contextlib import ExitStack
from importlib import metadata

import cramjam
import pytest

from rustimg_lab.engine import client, local_registry
from rustimg_lab.engine.images import _open_layer, open_layers
from rustimg_lab.errors import LabError
from rustimg_lab.host import process, tools
from rustimg_lab.measure import binary
from rustimg_lab.measure.image import _without_times, measure_image

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc here to make binaries with")


@pytest.fixture
def image(monkeypatch):
    """Makes an image of one layer from files by name."""
    made = []

    def make(files: dict[str, bytes]) -> str:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.LNKTYPE, next(iter(files))
            tar.addfile(link)  # a second name for the first file has no bytes of its own
        repository = client.repository(f"test-sizes-{len(made)}")
        client.connect().api.import_image_from_data(archive.getvalue(), repository=repository, tag="test")
        made.append(f"{repository}:test")
        return client.connect().images.get(made[-1]).id

    yield make
    for tag in made:
        client.connect().images.remove(tag)


@pytest.mark.engine
def test_unpacked_bytes_are_the_bytes_of_the_files_and_not_of_the_archive(image):
    made = image({"a": b"x" * 1000, "b": os.urandom(123_456)})
    rows = {row.metric: row for row in measure_image(made, None, None)}
    assert rows["unpacked_bytes"].value == rows["app_bytes"].value == 124_456
    assert rows["base_bytes"].value == 0
    assert rows["layer_bytes"].detail == "app: imported root file system"


@pytest.mark.engine
def test_what_is_of_the_base_is_no_share_of_the_app(image):
    made = image({"a": b"x" * 1000})
    rows = {row.metric: row.value for row in measure_image(made, made, None)}
    assert (rows["base_bytes"], rows["app_bytes"]) == (1000, 0)


@pytest.mark.engine
def test_compressed_bytes_are_the_images_and_within_5_percent_of_what_this_engine_pushes(image, images):
    if not tools.registry_command():
        pytest.fail("docker-registry could not be fetched")
    compressible = b"".join(f"line {number} of a text\n".encode() for number in range(50_000))
    with local_registry.serve() as own:
        for made in (images["debian"].digest, images["distroless"].digest, image({"a": compressible})):
            pushed = {row.metric: row for row in measure_image(made, None, own)}
            alone = {row.metric: row for row in measure_image(made, None, None)}
            assert pushed["compressed_bytes"] == alone["compressed_bytes"]
            assert alone["pushed_bytes"].value is None and alone["pushed_bytes"].ok
            assert alone["pushed_bytes"].detail == "not measured: docker-registry is missing"
            compressed = pushed["compressed_bytes"].value
            assert compressed == pytest.approx(pushed["pushed_bytes"].value, rel=0.05)
            assert pushed["compressed_zstd_bytes"].value < 1.05 * compressed < pushed["unpacked_bytes"].value


def _zstd(content: bytes) -> int:
    compressor = cramjam.zstd.Compressor(level=3)
    compressor.compress(content)
    return len(compressor.finish())


def without_times(layer) -> bytes:
    with _without_times(layer) as plain:
        return plain.read()


@pytest.mark.engine
def test_each_layer_is_compressed_alone_by_the_pinned_library(image):
    made = image({"a": b"text " * 10_000, "b": os.urandom(10_000)})
    with open_layers(made) as (_, layers):
        archives = [without_times(layer) for layer in layers]
    rows = {row.metric: row for row in measure_image(made, None, None)}
    assert rows["compressed_bytes"].value == sum(len(cramjam.gzip.compress(each, level=6)) for each in archives)
    assert rows["compressed_zstd_bytes"].value == sum(map(_zstd, archives))
    assert rows["compressed_bytes"].detail == f"gzip -6, each layer alone, by cramjam {metadata.version('cramjam')}"


def test_when_and_by_whom_a_file_was_written_changes_no_compressed_size():
    """BuildKit gives a file the time of its build, and each engine writes an archive in its own way."""

    def layer(content: bytes, **attributes: object) -> bytes:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=attributes.pop("format", tarfile.PAX_FORMAT)) as tar:
            member = tarfile.TarInfo("usr/bin/app")
            member.size, member.mode = len(content), 0o755
            for name, value in attributes.items():
                setattr(member, name, value)
            tar.addfile(member, io.BytesIO(content))
        archive.seek(0)
        return without_times(archive)

    plain = layer(b"app" * 1000)
    assert plain == layer(b"app" * 1000, mtime=1_795_000_000.25, uname="root", format=tarfile.PAX_FORMAT)
    assert plain == layer(b"app" * 1000, mtime=1_795_000_000, gname="root", format=tarfile.GNU_FORMAT)
    for other in (layer(b"apq" * 1000), layer(b"app" * 1000, mode=0o700), layer(b"app" * 1000, uid=65532)):
        assert plain != other
    assert layer(b"", pax_headers={"SCHILY.xattr.user.a": "b"}) != layer(b"")
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert archive.extractfile("usr/bin/app").read() == b"app" * 1000


@pytest.mark.parametrize("compress", [bytes, gzip.compress, cramjam.zstd.compress])
def test_a_layer_that_an_engine_saved_compressed_is_unpacked_first(compress):
    content = b"ustar" * 100_000
    with ExitStack() as opened:
        assert _open_layer(opened, io.BytesIO(bytes(compress(content)))).read() == content


@pytest.mark.engine
def test_a_registry_that_does_not_take_a_push_costs_one_size_and_no_other(image):
    made = image({"a": b"x"})
    rows = {row.metric: row for row in measure_image(made, None, local_registry.Registry("127.0.0.1:1"))}
    assert rows["compressed_bytes"].value > 0
    assert rows["pushed_bytes"].value is None and rows["pushed_bytes"].ok
    assert rows["pushed_bytes"].detail.startswith("not measured: the registry at 127.0.0.1:1 did not take an image: ")


@pytest.mark.engine
def test_a_push_leaves_no_name_behind_and_the_registry_ends(image):
    made = image({"a": b"x"})
    before = client.connect().images.get(made).tags
    with local_registry.serve() as own:
        assert own.address.startswith("127.0.0.1:")
        assert len(own.push(made).layer_bytes) == 1
    assert client.connect().images.get(made).tags == before
    with pytest.raises(OSError):
        local_registry._direct.open(f"http://{own.address}/v2/", timeout=2)


@pytest.mark.engine
def test_an_index_in_a_registry_stands_for_the_image_in_it_and_not_for_its_attestation(image):
    """As an engine with containerd's store pushes an image that was built with one."""
    made = image({"a": os.urandom(1000)})
    with local_registry.serve() as own:
        pushed = own.push(made)
        url = f"http://{own.address}/v2/rustimg-lab/manifests/"
        asked = urllib.request.Request(url + pushed.tag, headers={"Accept": local_registry._MANIFESTS[0]})
        with local_registry._direct.open(asked) as answer:
            kind, digest, size = (answer.headers[name] for name in
                                  ("Content-Type", "Docker-Content-Digest", "Content-Length"))  # fmt: skip
        about = {"mediaType": kind, "digest": digest, "size": int(size)}
        attestation = about | {"platform": {"os": "unknown", "architecture": "unknown"}, "size": 1}
        index = {"schemaVersion": 2, "mediaType": local_registry._MANIFESTS[-1], "manifests": [
            attestation, about | {"platform": {"os": "linux", "architecture": "amd64"}},
        ]}  # fmt: skip
        put = urllib.request.Request(url + "index", json.dumps(index).encode(), method="PUT",
                                     headers={"Content-Type": local_registry._MANIFESTS[-1]})  # fmt: skip
        local_registry._direct.open(put).close()
        manifest = own._manifest("index", "amd64")
        assert [layer["size"] for layer in manifest["layers"]] == pushed.layer_bytes
        assert pushed.compressed_by == ("gzip",) or client.engine_info().keeps_in_containerd


@pytest.mark.engine
def test_a_registry_without_the_pushed_manifest_is_one_line(image, monkeypatch):
    made = image({"a": b"x"})
    with local_registry.serve() as own:
        manifest = own._manifest
        monkeypatch.setattr(local_registry.Registry, "_manifest", lambda self, _, *more: manifest("none", *more))
        with pytest.raises(LabError, match=r"the registry at 127\.0\.0\.1:\d+ has no manifest of the pushed .*404"):
            own.push(made)


@pytest.mark.engine
def test_without_docker_registry_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tools, "registry_command", lambda: None)
    with pytest.raises(LabError, match="install the package docker-registry"), local_registry.serve():
        pass


@pytest.fixture
def compile_c(tmp_path):
    def run(name: str, *options: str, source: str = "int main(void) { return 0; }"):
        path = tmp_path / name
        (tmp_path / f"{name}.c").write_text(source)
        process.run(["gcc", str(tmp_path / f"{name}.c"), "-o", str(path), *options])
        return path

    return run


@needs_gcc
@pytest.mark.parametrize(
    ("options", "linkage", "pie", "stripped"),
    [
        (("-static",), "static", False, False),
        (("-static-pie",), "static", True, False),
        (("-pie", "-fPIE", "-s"), "dynamic", True, True),
        (("-no-pie",), "dynamic", False, False),
    ],
)
def test_elf_facts(options, linkage, pie, stripped, compile_c):
    facts = binary.elf_facts(compile_c("program", *options))
    assert (facts["linkage"], facts["pie"], facts["stripped"]) == (linkage, pie, stripped)
    assert facts["needed_libraries"] == ("libc.so.6" if linkage == "dynamic" else "")
    assert bool(facts["glibc_needed"]) == (linkage == "dynamic")


@needs_gcc
def test_the_highest_glibc_version_is_by_number_and_not_by_letter(compile_c):
    source = "#include <stdlib.h>\n#include <math.h>\nint main(int c, char **v) { return (int)exp(c) + atoi(v[0]); }"
    assert binary.elf_facts(compile_c("program", "-lm", "-no-pie", source=source))["glibc_needed"] in (
        "GLIBC_2.29",  # where exp was last given a new version
        "GLIBC_2.34",  # where __libc_start_main was
        "GLIBC_2.38",
    )
    assert sorted(["GLIBC_2.34", "GLIBC_2.4", "GLIBC_2.2.5"], key=binary.glibc_version)[-1] == "GLIBC_2.34"


@needs_gcc
@pytest.mark.parametrize(
    ("symbol", "allocator"),
    [("_rjem_malloc", "jemalloc"), ("mallocx", "jemalloc"), ("mi_malloc_aligned", "mimalloc"), ("other", "system"),
     ("sn_rust_alloc", "snmalloc"), ("tc_malloc", "tcmalloc"), ("_ZN8dlmalloc6global4lockE", "dlmalloc"),
     ("_ZN4core3fmtE", "unknown"), ("_ZN4core3fmtE_posix_memalign", "unknown"), ("posix_memalign", "system")],
)  # fmt: skip
def test_the_allocator_is_told_by_its_symbols(symbol, allocator, compile_c):
    source = f"void *{symbol}(int n) {{ return 0; }} int main(void) {{ return 0; }}"
    linked = compile_c("program", source=source)
    assert binary.linked_allocator(linked) == allocator
    rows = {row.metric: row for row in binary.measure_binary(linked, linked, "jemalloc")}
    assert rows["linked_allocator"].ok == (allocator == "jemalloc")
    if allocator != "jemalloc":
        assert rows["linked_allocator"].reason == f"requested jemalloc, the linker kept {allocator}"


OWN = (
    "#[global_allocator]\nstatic GLOBAL: Own = Own;\nstruct Own;\n"
    + """
unsafe impl std::alloc::GlobalAlloc for Own {
    unsafe fn alloc(&self, _: std::alloc::Layout) -> *mut u8 { std::ptr::null_mut() }
    unsafe fn dealloc(&self, _: *mut u8, _: std::alloc::Layout) {}
}"""
)


@pytest.mark.skipif(not shutil.which("rustc"), reason="this machine has no rustc")
@pytest.mark.parametrize("linker", [[], ["-Clink-arg=-fuse-ld=bfd"]], ids=["rustc's linker", "GNU ld"])
@pytest.mark.parametrize("options", [[], ["-Clto=fat", "-Copt-level=z", "-Cpanic=abort"]], ids=["plain", "lto"])
@pytest.mark.parametrize(("allocator", "found"), [("", "system"), (OWN, "unknown")], ids=["system", "own"])
def test_an_allocator_that_the_lab_does_not_know_is_told_from_that_of_the_system(
    tmp_path, linker, options, allocator, found
):
    """With fat LTO the functions by which it is set are inlined. GNU ld puts versions behind the names of symbols."""
    (tmp_path / "a.rs").write_text(f'{allocator}\nfn main() {{ println!("{{:?}}", std::env::args().next()); }}\n')
    subprocess.run(["rustc", *linker, *options, "-o", "a", "a.rs"], cwd=tmp_path, check=True)
    assert binary.linked_allocator(tmp_path / "a") == found
    assert binary.allocator_mismatch(found, "own") == ""
    assert ("own_allocator = true" in binary.allocator_mismatch(found, "system")) == (found == "unknown")


@pytest.mark.skipif(not shutil.which("rustc"), reason="this machine has no rustc")
def test_a_toolchain_that_was_asked_for_and_not_used_is_a_note(tmp_path):
    (tmp_path / "a.rs").write_text("fn main() {}\n")
    subprocess.run(["rustc", "-o", "a", "a.rs"], cwd=tmp_path, check=True)
    used = binary.elf_facts(tmp_path / "a")["rustc"].split()[0]
    stable = (used, f"{used}-x86_64-unknown-linux-gnu", "", "stable", "stable-x86_64-unknown-linux-gnu")
    for asked, noted in (*((each, False) for each in stable), ("1.2.3", True), ("nightly-2024-01-01", True)):
        rows = {row.metric: row for row in binary.measure_binary(tmp_path / "a", tmp_path / "a", "system", asked)}
        assert (f", not {asked} as the project's toolchain file asks" in rows["rustc"].detail) == noted
        assert rows["rustc"].detail.startswith("note: compiled by rustc") == noted and rows["rustc"].ok


@needs_gcc
def test_a_stripped_binary_tells_no_allocator(compile_c):
    linked = compile_c("program", "-s")
    assert binary.linked_allocator(linked) == ""
    rows = {row.metric: row for row in binary.measure_binary(linked, linked, "system")}
    assert not rows["linked_allocator"].ok and rows["linked_allocator"].reason.startswith("no symbols, so")
    assert binary.allocator_mismatch("", "own") == ""  # it was asked for none


def test_what_is_no_elf_file_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(LabError, match="not an ELF file"):
        binary.elf_facts(path)
