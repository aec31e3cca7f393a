"""Where bases come from: the engine, a registry on 127.0.0.1, an archive, Debian packages."""

import base64
import gzip
import io
import json
import os
import re
import socket
import struct
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
import requests
from support import registry_faults
from support.lab import GNU, MUSL
from support.registries import PROGRAM, push, registry_on, rootfs
from support.registry_faults import HTML, RATE_LIMIT, refusal

from rustimg_lab.build import archives, bases, mmdebstrap, registry
from rustimg_lab.build.bases import Sources
from rustimg_lab.engine import client as engine_client
from rustimg_lab.engine import containers, inspection, local_registry
from rustimg_lab.engine import images as engine_images
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.model.bases import RUST_VERSION


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("alpine", "give it as NAME=SOURCE"),
        ("alpine=", "give it as NAME=SOURCE"),
        ("alpin=x", "did you mean 'alpine'"),
        ("scratch=x", "scratch is empty"),
        ("alpine=./nosuch.tar.gz", "there is no file ./nosuch.tar.gz"),
        ("alpine=nosuch.tar", "there is no file nosuch.tar"),
    ],
)
def test_a_named_base_that_makes_no_sense_is_refused(option, message):
    with pytest.raises(LabError, match=message):
        bases.parse_named([option])


@pytest.mark.parametrize("text", ["http://127.0.0.1:5000", "mirror", "", "/x"])
def test_a_registry_that_no_image_can_be_named_by_is_refused(text):
    with pytest.raises(LabError, match="give HOST:PORT"):
        registry.parse(text)


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("alpine:3.24", ["m:5/library/alpine:3.24", "m:5/alpine:3.24"]),
        ("gcr.io/distroless/cc-debian13", ["m:5/distroless/cc-debian13", "m:5/gcr.io/distroless/cc-debian13"]),
    ],
)
def test_a_mirror_is_asked_by_the_names_that_mirrors_use(reference, names):
    assert registry.names(reference, "m:5") == names


NAMED, ASKED = "named by the user", "requested with --registry"


def recorded(source: str, manifest: str = "", reference: str = "r") -> dict[str, dict]:
    """What a run has of its base."""
    return {"alpine": {"source": source, "why": "w", "manifest": manifest, "reference": reference}}


@pytest.mark.parametrize(
    ("sources", "engine_has", "obtain", "why", "reference"),
    [
        (Sources({"alpine": "packages"}), "", mmdebstrap.obtain, "requested with --base", "packages"),
        (Sources({"alpine": "./a.tar"}), "", archives.obtain, NAMED, "./a.tar"),
        (Sources({"alpine": "mine:1"}), "mine:1", bases._obtain_from_engine, NAMED, "mine:1"),
        (Sources({"alpine": "mine:1"}), "", registry.obtain, "named by the user, not in the engine", "mine:1"),
        (Sources(), "alpine:3", bases._obtain_from_engine, "the engine has it", "alpine:3"),
        (Sources(), "", bases._obtain_official, "which answers", "alpine:3"),
        (Sources(registry="m:5"), "alpine:3", bases._obtain_official, ASKED, "alpine:3"),
        (Sources(recorded=recorded("Debian packages")), "", mmdebstrap.obtain, "w", "r"),
        (Sources(recorded=recorded("local image")), "", bases._obtain_recorded, "w", "r"),
        (Sources(recorded=recorded("registry x", "m")), "", registry.obtain, "w", "r"),
        (Sources({"alpine": "./a.tar"}, recorded=recorded("x", "m")), "", archives.obtain, NAMED, "./a.tar"),
        (Sources(registry="m:5", recorded=recorded("x", "m")), "", bases._obtain_official, ASKED, "alpine:3"),
        (Sources(registry="m:5", recorded=recorded("x", "m", "alpine:3")), "", registry.obtain, "w", "alpine:3"),
    ],
)
def test_what_the_user_named_comes_before_what_a_run_recorded_and_that_before_the_official_image(
    sources, engine_has, obtain, why, reference, monkeypatch
):
    monkeypatch.setattr(engine_images, "find_image", lambda name: name == engine_has or None)
    monkeypatch.setattr(engine_images, "inspect", lambda name: SimpleNamespace(architecture=NATIVE.debian))
    decided, origin = bases.choose_source("alpine", "alpine:3", sources)
    assert (decided, origin.why, origin.reference) == (obtain, why, reference)


def test_an_image_for_another_architecture_that_the_engine_has_is_not_in_the_way_of_the_registrys(monkeypatch):
    """As `DOCKER_DEFAULT_PLATFORM` leaves one behind."""
    (other,) = (each for each in Architecture if each is not NATIVE)
    monkeypatch.setattr(engine_images, "find_image", lambda name: True)
    monkeypatch.setattr(engine_images, "inspect", lambda name: SimpleNamespace(architecture=other.debian))
    assert bases.choose_source("alpine", "alpine:3", Sources())[0] == bases._obtain_official


def test_a_base_is_named_for_one_architecture_by_each_name_of_it_the_machines_own_too():
    for each in Architecture:
        for mark in (each.debian, each.value):
            sources = Sources(bases.parse_named([f"alpine-{mark}=a:1", "alpine=b:1"]))
            for asked in Architecture:
                name = "alpine" if asked is NATIVE else f"alpine-{asked.debian}"
                assert bases.requested_source(name, sources) == ("a:1" if asked is each else "b:1")
    with pytest.raises(LabError, match=f"alpine-{NATIVE.value} is a:1 already"):
        bases.parse_named([f"alpine-{NATIVE.debian}=a:1", f"alpine-{NATIVE.value}=b:1"])


def test_a_login_is_found_with_a_helper_that_keeps_it_and_without(tmp_path, monkeypatch):
    own = {
        "auths": {"a.example": {"auth": base64.b64encode(b"me:word").decode()}},
        "credHelpers": {"b.example": "mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(own))
    helper = tmp_path / "docker-credential-mine"
    helper.write_text("""#!/bin/sh\necho '{"ServerURL": "b.example", "Username": "me", "Secret": "word"}'\n""")
    helper.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert (
        engine_images.login("a.example") == engine_images.login("b.example") == {"username": "me", "password": "word"}
    )
    assert engine_images.login("c.example") == {}


def test_the_default_references_are_of_the_release_that_is_asked_for():
    assert matrix.reference("debian", "bookworm") == "debian:bookworm-slim"
    assert matrix.reference("distroless", "bookworm") == "gcr.io/distroless/cc-debian12"
    assert matrix.reference("rust", "bookworm") == f"rust:{RUST_VERSION}-slim-bookworm"
    assert matrix.reference("alpine", "bookworm") == matrix.reference("alpine", "trixie")
    with pytest.raises(LabError, match="unknown Debian release 'bookwrm': did you mean 'bookworm'"):
        matrix.grid(["debian"], ["baseline"], ["system"], "bookwrm")


@pytest.mark.engine
def test_what_is_made_of_packages_says_so(images):
    assert set(images) >= {"rust", "alpine", "distroless", "debian", "static"}
    for image in images.values():
        if image.source != "Debian packages":
            continue  # this engine has the official one
        assert image.image.startswith(f"rustimg-lab-{engine_client.lab_id()}/")
        assert image.packages and all(image.packages.values())
        assert image.digest.startswith("sha256:")
        assert image.why.startswith("since no registry answers: ")
        assert (
            engine_client.connect().images.get(image.digest).labels[engine_client.IMAGE_LABEL] == engine_client.lab_id()
        )
        assert "image" not in image.as_dict()
    if images["alpine"].source == "Debian packages":
        assert images["alpine"].stand_in and "substitute" in images["alpine"].label
        assert set(images["alpine"].packages) == {"musl", "busybox-static"}
    if images["distroless"].source == "Debian packages":
        assert {"libc6", "libgcc-s1", "ca-certificates"} <= set(images["distroless"].packages)
        assert not {"debconf", "openssl", "mawk"} & set(images["distroless"].packages)


@pytest.mark.engine
def test_an_image_that_a_run_has_recorded_is_not_read_again(images, monkeypatch):
    known = images["debian"]
    monkeypatch.setattr(bases.package_db, "read_packages", lambda image: ({"another": "1"}, "another"))
    again = bases.resolve("debian", Sources(recorded={"debian": known.as_dict()}), print)
    assert (again.digest, again.packages, again.label) == (known.digest, known.packages, known.label)
    other = Sources(recorded={"debian": known.as_dict() | {"digest": "sha256:0"}})
    assert bases.resolve("debian", other, print).packages == {"another": "1"}


@pytest.mark.engine
def test_an_image_of_the_engine_is_a_base_with_its_own_provenance(images):
    """Not made of packages by the lab in this call, but found under the user's own name."""
    name = "rustimg-lab-test-of-the-users:1"
    engine_client.connect().images.get(images["debian"].digest).tag(*name.split(":"))
    try:
        found = bases.resolve("debian", Sources({"debian": name}), pytest.fail)
    finally:
        engine_client.connect().images.remove(name, noprune=True)
    assert (found.source, found.label, found.reference) == ("local image", name, name)
    assert not found.stand_in and found.manifest == ""
    assert found.packages == images["debian"].packages and found.release.startswith("Debian GNU/Linux")


@pytest.mark.engine
def test_a_stand_in_stays_one_under_any_name(images):
    if not images["alpine"].stand_in:
        pytest.skip("this engine has the official alpine")
    name = "rustimg-lab-test-of-the-users:2"
    engine_client.connect().images.get(images["alpine"].digest).tag(*name.split(":"))
    try:
        found = bases.resolve("alpine", Sources({"alpine": name}), pytest.fail)
    finally:
        engine_client.connect().images.remove(name, noprune=True)
    assert found.stand_in and found.label == images["alpine"].label


@pytest.mark.engine
def test_the_builder_has_both_targets_and_no_trace_of_how_it_was_made(images):
    container = containers.create_container(
        images["rust"].image,
        command=["sh", "-c", "ls $(rustc --print sysroot)/lib/rustlib; ls -A /tmp; ls -A /root | grep cargo; true"],
    )
    try:
        container.start()
        container.wait(timeout=60)
        said = container.logs().decode().split()
    finally:
        container.remove(force=True)
    assert {MUSL, GNU} <= set(said)
    assert ".cargo" not in said and "musl-std.sh" not in said


@pytest.mark.engine
def test_a_run_that_began_with_packages_goes_on_with_them_and_asks_no_registry(images, monkeypatch):
    monkeypatch.setattr(engine_images, "manifest_digest", lambda *arguments: pytest.fail("a registry was asked"))
    recorded = {name: image.as_dict() for name, image in images.items()}
    said = []
    assert bases.resolve("distroless", Sources(recorded=recorded), said.append) == images["distroless"]
    assert said == []


@pytest.mark.engine
def test_a_run_goes_on_where_the_engine_calls_the_same_images_otherwise(resolve):
    """As one does that has changed its image store: an id is then of another kind."""
    registry._silent.clear()
    held = registry_faults.Images()
    digest = held.tag(held.image("amd64", b"of a registry"))
    with registry_faults.serve(held.answer) as address:
        pulled = resolve("alpine", Sources(registry=address))
    made = resolve("alpine", Sources({"alpine": "packages"}))
    for found in (pulled, made):
        recorded = found.as_dict() | {"digest": f"sha256:{'0' * 64}"}
        assert resolve("alpine", Sources(recorded={"alpine": recorded}), pytest.fail) == found
    assert pulled.manifest == digest


# Archives


def names() -> list[str]:
    """The images that this clone has, by name."""
    filters = {"reference": f"{engine_client.repository('*')}"}
    return sorted(tag for image in engine_client.connect().images.list(filters=filters) for tag in image.tags)


@pytest.fixture
def resolve() -> Iterator[Callable[..., bases.Provenance]]:
    """Resolves a base; what that brought into the engine goes afterwards."""
    before = names()

    def run(name: str, sources: Sources, say: Callable[[str], None] = print) -> bases.Provenance:
        return bases.resolve(name, sources, say)

    yield run
    for name in set(names()) - set(before):
        engine_client.connect().images.remove(name, noprune=True)


@pytest.mark.engine
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
def test_an_archive_is_shown_as_the_release_that_it_holds(ending, resolve, tmp_path):
    path = rootfs(tmp_path / f"mine.{ending}", ("lib/apk/db/installed", b"P:musl\nV:1.2.5-r0\n\nP:zlib\nV:1.3-r1\n"))
    found = resolve("alpine", Sources({"alpine": str(path)}))
    assert found.label == found.release == "Test Linux v1.2 (1.2.3)"
    assert found.source == f"archive mine.{ending}" and not found.stand_in
    assert found.packages == {"musl": "1.2.5-r0", "zlib": "1.3-r1"}
    assert str(tmp_path) not in str(found.as_dict()) and "image" not in found.as_dict()
    assert engine_client.connect().images.get(found.digest).labels[engine_client.IMAGE_LABEL] == engine_client.lab_id()
    assert resolve("alpine", Sources({"alpine": str(path)}), pytest.fail) == found  # imported once


@pytest.mark.engine
def test_what_docker_save_wrote_is_a_base_and_takes_no_name_of_the_users(resolve, tmp_path):
    """Its own name in the archive is one that the user's engine has for another image by now."""
    name = f"rustimg-lab-test-saved-{uuid.uuid4().hex[:8]}"
    api = engine_client.connect().images
    saved = tmp_path / "saved.tar"
    try:
        for content in (b"first", b"second"):
            path = rootfs(tmp_path / "rootfs.tar", ("content", content))
            engine_client.connect().api.import_image_from_file(str(path), repository=name, tag="1")
            if content == b"first":
                first = api.get(f"{name}:1").id
                with saved.open("wb") as file:
                    file.writelines(api.get(f"{name}:1").save(named=True))
        second = api.get(f"{name}:1").id
        found = resolve("alpine", Sources({"alpine": str(saved)}))
        assert found.digest == first != second == api.get(f"{name}:1").id
        assert found.label == "Test Linux v1.2 (1.2.3)" and found.source == "archive saved.tar"
    finally:
        api.remove(f"{name}:1", noprune=True)


def _cut(path: Path) -> Path:
    whole = rootfs(path.with_name("whole.tar.gz")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def _arm(path: Path) -> Path:
    program = bytearray(PROGRAM.read_bytes()[:4096])
    program[18:20] = struct.pack("<H", 183)  # e_machine: EM_AARCH64
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("bin/program")
        member.size, member.mode = len(program), 0o755
        archive.addfile(member, io.BytesIO(program))
    return path


def _text(path: Path) -> Path:
    path.write_text("no archive " * 1000)
    return path


def _gzipped_text(path: Path) -> Path:
    path.write_bytes(gzip.compress(b"no archive " * 1000))
    return path


def _only_text(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"))
    return path


@pytest.mark.engine
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_cut, "not a whole tar archive"),
        (_text, "not a whole tar archive"),
        (_gzipped_text, "not a whole tar archive"),
        (_arm, "bin/program is for AARCH64, this base is for x86_64"),
        (_only_text, "holds no program"),
    ],
)
def test_an_archive_that_is_no_base_is_refused_in_one_line(make, message, tmp_path):
    before = names()
    with pytest.raises(LabError, match=message) as caught:
        bases.resolve("alpine", Sources({"alpine": str(make(tmp_path / "a.tar"))}), print)
    assert "\n" not in str(caught.value)
    assert names() == before


@pytest.mark.engine
def test_a_run_goes_on_with_what_it_began_with_or_not_at_all(resolve, tmp_path):
    archive = rootfs(tmp_path / "a.tar")
    name = "rustimg-lab-test-of-the-users:3"
    from_archive = resolve("alpine", Sources({"alpine": str(archive)}))
    api = engine_client.connect().images
    api.get(from_archive.digest).tag(*name.split(":"))
    try:
        local = resolve("alpine", Sources({"alpine": name}))
        for found in (from_archive, local):
            assert resolve("alpine", Sources(recorded={"alpine": found.as_dict()}), pytest.fail) == found
        engine_client.connect().api.import_image_from_file(
            str(rootfs(tmp_path / "b.tar", ("other", b""))), repository=name.split(":")[0], tag=name.split(":")[1]
        )
        with pytest.raises(LabError, match=f"began with {name} .*which the engine has as .* now; name it with --base"):
            resolve("alpine", Sources(recorded={"alpine": local.as_dict()}))
    finally:
        api.remove(name, noprune=True)
    for found in (from_archive, local):
        if found is from_archive:
            api.remove(found.image, noprune=True)
        with pytest.raises(LabError, match="which the engine has no longer; name it with --base alpine=SOURCE"):
            resolve("alpine", Sources(recorded={"alpine": found.as_dict()}))


# Registries


@pytest.fixture
def own_registry() -> Iterator[local_registry.Registry]:
    registry._silent.clear()
    with local_registry.serve() as own:
        yield own
    registry._silent.clear()


@pytest.mark.engine
@pytest.mark.parametrize("path", ["library/alpine", "alpine"])
def test_a_base_is_pulled_by_tag_and_then_by_digest(path, own_registry, resolve, tmp_path):
    """The tag moves on; the run that recorded the digest does not."""
    tag = matrix.reference("alpine").partition(":")[2]
    first = push(own_registry.address, f"{path}:{tag}", rootfs(tmp_path / "a.tar", ("content", b"first")))
    sources = Sources(registry=own_registry.address)
    found = resolve("alpine", sources)
    assert found.manifest == first and found.reference == matrix.reference("alpine")
    assert found.source == f"registry {own_registry.address}" and found.label == matrix.reference("alpine")
    assert found.release == "Test Linux v1.2 (1.2.3)" and "image" not in found.as_dict()
    image = engine_client.connect().images.get(found.digest)
    assert image.tags == [found.image] and image.attrs["RepoDigests"] == []
    assert found.for_builder("elsewhere").image == f"{own_registry.address}/{path}@{first}"

    second = push(own_registry.address, f"{path}:{tag}", rootfs(tmp_path / "b.tar", ("content", b"second")))
    assert second != first and resolve("alpine", sources).manifest == second
    recorded = Sources(registry=own_registry.address, recorded={"alpine": found.as_dict()})
    assert resolve("alpine", recorded) == found
    assert resolve("alpine", Sources(recorded={"alpine": found.as_dict()})) == found  # as the same command goes on
    engine_client.connect().images.remove(found.image, noprune=True)
    assert resolve("alpine", recorded) == found  # pulled anew, by its digest
    by_digest = f"{own_registry.address}/{path}:{tag}@{first}"
    assert resolve("alpine", Sources({"alpine": by_digest})).digest == found.digest


@pytest.mark.engine
def test_by_default_a_registry_that_answers_is_taken_and_its_no_is_an_error(
    own_registry, resolve, monkeypatch, tmp_path
):
    """With a default reference on 127.0.0.1, since the real ones cannot be reached everywhere."""
    reference = f"{own_registry.address}/alpine:3.24"
    monkeypatch.setattr(matrix, "reference", lambda name, debian: reference)
    with pytest.raises(LabError, match=r"has no .*/alpine:3\.24; or take --base alpine=packages"):
        resolve("alpine", Sources())
    manifest = push(own_registry.address, "alpine:3.24", rootfs(tmp_path / "a.tar"))
    found = resolve("alpine", Sources())
    assert (found.manifest, found.why) == (manifest, "which answers")
    assert found.source == f"registry {own_registry.address}"


@pytest.mark.engine
def test_a_mirror_that_differs_from_what_was_recorded_is_refused_with_both_digests(own_registry, resolve, tmp_path):
    reference = matrix.reference("alpine")
    recorded_digest = push(own_registry.address, f"library/{reference}", rootfs(tmp_path / "a.tar", ("a", b"1")))
    found = resolve("alpine", Sources(registry=own_registry.address))
    # What is here already needs no registry, be it down or another.
    down = Sources(registry="127.0.0.1:1", recorded={"alpine": found.as_dict()})
    assert resolve("alpine", down, pytest.fail) == found
    engine_client.connect().images.remove(found.image, noprune=True)
    with local_registry.serve() as mirror:
        other = push(mirror.address, f"library/{reference}", rootfs(tmp_path / "b.tar", ("a", b"2")))
        with pytest.raises(LabError) as caught:
            resolve("alpine", Sources(registry=mirror.address, recorded={"alpine": found.as_dict()}))
    assert recorded_digest in str(caught.value) and other in str(caught.value)
    assert "or begin a new run with --run NAME" in str(caught.value)


@pytest.mark.engine
def test_an_image_that_the_registry_lacks_is_refused_under_the_names_that_were_asked(own_registry):
    for sources in (Sources(registry=own_registry.address), Sources({"alpine": f"{own_registry.address}/alpine:3.24"})):
        with pytest.raises(LabError, match=f"registry {own_registry.address} has no .*alpine:3.24"):
            bases.resolve("alpine", sources, print)


@pytest.mark.parametrize(
    ("status", "said", "answered", "missing"),
    [
        (404, "manifest unknown: manifest unknown", True, True),
        (401, "unauthorized: authentication required", True, False),
        (403, "denied: requested access to the resource is denied", True, False),
        (500, "toomanyrequests: You have reached your pull rate limit", True, False),
        (500, 'Get "https://r/v2/": dial tcp: lookup r: no such host', False, False),
        (500, 'Get "https://r/v2/": x509: certificate signed by unknown authority', False, False),
        (500, 'Get "https://r/v2/": net/http: request canceled (Client.Timeout exceeded)', False, False),
    ],
)
def test_a_no_is_told_from_no_answer(status, said, answered, missing):
    """By what engines say of registries that cannot all be had here."""
    response = requests.Response()
    response.status_code = status
    error = engine_images.RegistryError("r", "r/alpine:1", docker.errors.APIError("x", response, explanation=said))
    assert (error.answered, error.missing) == (answered, missing)
    assert "\n" not in str(error) and "r/alpine:1" in str(error)


NOT_FOUND = refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
FAULTS = {  # what is answered to /v2/ and to all else; what is said of it; `answered`
    "a name that it lacks": (None, NOT_FOUND, "registry R has no X", True),
    "Docker Hub's rate limit": (
        None, refusal(429, "TOOMANYREQUESTS", RATE_LIMIT),
        rf"its rate limit is reached \({RATE_LIMIT}\); wait, log in with `docker login R`, or name a mirror", True),
    "another's rate limit": (None, (429, "text/plain", b"Too Many Requests"), "its rate limit is reached", True),
    "a fault of its own": (
        None, refusal(500, "UNKNOWN", "unknown error"),
        r"did not give X, by a fault of its own \(500 Internal Server Error\); call again", True),
    "a gateway before it": (None, (502, "text/html", HTML), r"by a fault of its own \(502 Bad Gateway\)", True),
    "a login that is wanted": (
        None, refusal(401, "UNAUTHORIZED", "unauthorized"), "refuses X .*log in with `docker login R`", True),
    "a captive portal": (
        (200, "text/html", HTML), (200, "text/html", HTML), "what answers there is no registry .*wants a login", False),
    "a captive portal that refuses": (
        (403, "text/html", HTML), (403, "text/html", HTML), "what answers there is no registry .*wants a login", False),
    "a captive portal by its status": ((511, "text/html", HTML), (511, "text/html", HTML), "is no registry", False),
    "another web server": ((404, "text/html", HTML), (404, "text/html", HTML), "is no registry", False),
    "what is no manifest": (None, (200, "application/json", b'{"a": 1}'), "is no registry", False),
    "a connection that is closed": (None, "closed", "did not give X: it does not answer .*check the network", False),
}  # fmt: skip


@pytest.mark.engine
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_registry_is_one_line_that_says_what_to_do(fault, monkeypatch):
    """As the engine passes it on: each has its own words. Where one answered, packages do not take its place."""
    ping, answer, line, answered = FAULTS[fault]
    registry._silent.clear()

    def play(path: str) -> registry_faults.Answer:
        if path == "/v2/":
            return ping or (200, "application/json", b"{}")
        return None if answer == "closed" else answer

    with registry_faults.serve(play) as address:
        with pytest.raises(engine_images.RegistryError) as error:
            engine_images.manifest_digest(f"{address}/alpine:3", address)
        monkeypatch.setattr(matrix, "reference", lambda name, debian: f"{address}/alpine:3")
        monkeypatch.setattr(mmdebstrap, "make", raises("packages"))
        with pytest.raises(LabError) as default:
            bases.resolve("alpine", Sources(), print)
        monkeypatch.setattr(matrix, "reference", lambda name, debian: "alpine:3")
        with pytest.raises(LabError) as asked:
            bases.resolve("alpine", Sources(registry=address), print)
    assert error.value.answered is answered
    for caught in (error, default, asked):
        said = re.sub(rf"{address}(/library)?/alpine:3", "X", str(caught.value)).replace(address, "R")
        assert re.search(line, said), said
        assert "\n" not in said and "<body>" not in said
    assert ("or take --base alpine=packages" in str(default.value)) is answered
    assert str(default.value).startswith("no packages; before that, registry") is not answered
    assert "or take --base alpine=packages" in str(asked.value)


def raises(said: str) -> Callable:
    """A function that raises what packages raise that cannot be had."""

    def run(*arguments: object) -> None:
        raise LabError(f"no {said}")

    return run


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["one platform", "two platforms", "a provenance attestation"])
def test_of_an_index_the_image_for_this_machine_is_taken_and_the_index_recorded(kind, resolve):
    registry._silent.clear()
    held = registry_faults.Images()
    own = held.image("amd64", kind.encode())
    beside = {
        "one platform": [],
        "two platforms": [held.image("arm64", b"other")],
        "a provenance attestation": [held.attestation(own)],
    }[kind]
    digest = held.tag(*beside[:1], own)
    with registry_faults.serve(held.answer) as address:
        found = resolve("alpine", Sources(registry=address))
        assert resolve("alpine", Sources(recorded={"alpine": found.as_dict()}), pytest.fail) == found
    assert found.manifest == digest
    layers = inspection.image(engine_client.connect().images.get(found.image).attrs).layers
    config = next(json.loads(blob) for blob in held.blobs.values() if b'"amd64"' in blob)
    assert list(layers) == config["rootfs"]["diff_ids"]


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["for others", "one for others", "cut"])
def test_an_index_without_an_image_for_this_machine_is_one_line(kind, resolve):
    registry._silent.clear()
    held = registry_faults.Images()
    other = held.image("arm64", b"other")
    own = held.image("amd64", b"cut")
    held.tag(*{"for others": [other], "one for others": [other], "cut": [other, own]}[kind])
    if kind == "one for others":
        held.tagged = other["digest"]
    del held.manifests[own["digest"]]
    line = {
        "for others": "has .*for other architectures only .*linux/amd64",
        "one for others": "is for arm64, not for amd64; name one that is|for other architectures only",
        "cut": f"has no .*@{held.tagged}|by a fault of its own .*not found",
    }
    with registry_faults.serve(held.answer) as address:
        with pytest.raises(LabError, match=line[kind]) as caught:
            resolve("alpine", Sources(registry=address))
        recorded = {"manifest": held.tagged, "reference": "alpine:3", "source": f"registry {address}", "why": "x"}
        with pytest.raises(LabError, match=line[kind]) as again:
            resolve("alpine", Sources({}, address, recorded={"alpine": recorded}))
    assert "\n" not in f"{caught.value}{again.value}"


@pytest.mark.engine
@pytest.mark.builds
def test_a_second_name_of_a_base_that_is_removed_during_a_build_is_not_what_it_is_built_from(images, tiny, builds):
    """It sorts before the lab's own: a user's, or one that a test beside these gives for a push."""
    if images["debian"].source != "Debian packages":
        pytest.skip("this engine has the official debian")
    api, second = engine_client.connect().images, f"000-test/{uuid.uuid4().hex[:8]}"
    api.get(images["debian"].digest).tag(second, "1")

    def remove(*step: object) -> None:
        if engine_images.find_image(f"{second}:1"):
            api.remove(f"{second}:1", noprune=True)

    try:
        found = bases.resolve("debian", Sources({"debian": "packages"}), pytest.fail)
        named = images | {"debian": found}
        first = builds(matrix.grid(["debian"], ["baseline"], ["system"]), tiny, images=named, on_step=remove)
        assert engine_images.find_image(f"{second}:1") is None  # it went while that was built
        then = builds(matrix.grid(["debian"], ["optimized"], ["system"]), tiny, images=named)
    finally:
        remove()
    assert all(built.image for built in [*first, *then]), [built.reason for built in [*first, *then]]
    assert found.image.startswith(engine_client.repository("debian"))


@pytest.mark.engine
def test_a_platform_that_the_user_set_for_other_work_is_not_that_of_the_labs_own_images(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/s390x")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    name = f"{engine_client.repository('test-platform')}:1"
    image = mmdebstrap.build_folder(tmp_path, name, {}, None)
    try:
        assert image.attrs["Architecture"] == matrix.NATIVE.debian
    finally:
        engine_client.connect().images.remove(name)


@pytest.mark.engine
def test_a_registry_that_is_down_is_told_in_one_line():
    registry._silent.clear()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(LabError, match=f"registry {address} did not give .*connection refused") as caught:
            bases.resolve("alpine", Sources(registry=address), print)
    assert "\n" not in str(caught.value)


@pytest.mark.engine
def test_a_registry_that_goes_down_in_the_middle_leaves_nothing(own_registry, tmp_path):
    """A forwarder before the registry breaks off after some of a layer's bytes, and never answers again."""
    path = rootfs(tmp_path / "a.tar", ("blob", os.urandom(20_000_000)))
    push(own_registry.address, f"library/{matrix.reference('alpine')}", path)
    before = names()
    with (
        forwarder(own_registry.address, limit_bytes=5_000_000) as address,
        pytest.raises(LabError, match=f"registry {address} did not give") as caught,
    ):
        bases.resolve("alpine", Sources(registry=address), print)
    assert "\n" not in str(caught.value)
    assert names() == before


@contextmanager
def forwarder(target: str, limit_bytes: int) -> Iterator[str]:
    """Listens on 127.0.0.1 and forwards, until so many bytes have come back; then it closes all and listens no more."""
    host, port = target.split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    left = limit_bytes
    open_sockets = [listener]

    def copy(source: socket.socket, sink: socket.socket, counted: bool) -> None:
        nonlocal left
        try:
            while data := source.recv(65536):
                if counted:
                    left -= len(data)
                if left < 0:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for each in open_sockets if left < 0 else (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
            except OSError:
                return
            open_sockets.extend((client, server))
            threading.Thread(target=copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=copy, args=(server, client, True), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in open_sockets:
            each.close()


# A published test vector of bcrypt (Openwall's crypt_blowfish), the one hash that docker-registry takes.
PASSWORD, HASH = "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


@pytest.fixture
def logged_in(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Gives the docker client a configuration of its own, in which it is logged in at a registry."""

    def log_in(address: str, password: str) -> None:
        auth = base64.b64encode(f"reader:{password}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}} if password else {}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        engine_client.connect.cache_clear()

    yield log_in
    monkeypatch.undo()
    engine_client.connect.cache_clear()


@pytest.mark.engine
def test_a_login_is_the_docker_clients_and_where_it_is_refused_one_line_says_so(logged_in, resolve, tmp_path):
    with registry_on(tmp_path) as address:
        manifest = push(address, f"library/{matrix.reference('alpine')}", rootfs(tmp_path / "a.tar"))
    (tmp_path / "htpasswd").write_text(f"reader:{HASH}\n")
    guard = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registry_on(tmp_path, auth=guard) as address:
        for password in ("", "wrong"):
            logged_in(address, password)
            with pytest.raises(LabError, match=f"registry {address} refuses .*log in with `docker login {address}`"):
                resolve("alpine", Sources(registry=address))
        logged_in(address, PASSWORD)
        found = resolve("alpine", Sources(registry=address))
    assert found.manifest == manifest
    assert PASSWORD not in str(found.as_dict())
