"""Images for arm64 on a machine that is none: one text, compiled here, started by an emulator that goes at the end."""

import os
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
from elftools.elf.elffile import ELFFile
from support.lab import NO_ENGINE, TINY

from rustimg_lab.build import bake, bases, dockerfile, lab_toml, mmdebstrap
from rustimg_lab.build.bake import Built
from rustimg_lab.engine import emulation, images
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine
from rustimg_lab.measure import abi, smoke
from rustimg_lab.measure.probes import runner
from rustimg_lab.model import matrix, probes
from rustimg_lab.model.app import Check
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.paths import MYIP, PACKAGE
from rustimg_lab.pipeline import session
from rustimg_lab.store.rows import NOT_STARTED

ARM64 = Architecture.AARCH64
elsewhere = pytest.mark.skipif(NATIVE is ARM64, reason="this machine is arm64")


def cells(*about: str) -> list[matrix.Cell]:
    """The cell of these names for both architectures."""
    return [replace(matrix.cell(*about), architecture=each) for each in Architecture]


def test_no_image_of_what_measures_is_for_one_architecture_alone():
    """What measures is built on the machine that measures, which may be arm64."""
    for path in (PACKAGE / "measure").rglob("Dockerfile*"):
        assert not re.search("x86_64|amd64|aarch64|arm64", path.read_text()), path


@pytest.mark.parametrize("base", ["scratch", "debian"])
@pytest.mark.parametrize("allocator", ["jemalloc", "mimalloc"])
def test_one_text_is_for_both_architectures_and_names_neither_outside_its_choice(base, allocator):
    app = lab_toml.load(MYIP)
    texts = {dockerfile.render(cell, app) for cell in cells(base, "optimized", allocator)}
    (text,) = texts
    assert "FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS builder" in text
    choice = re.search(r'case "\$TARGETARCH".*?esac', text, re.DOTALL)[0]
    assert all(f"{each.debian}) machine={each.value} ;;" in choice for each in Architecture)
    rest = re.sub(r"#.*", "", text.replace(choice, ""))
    assert not re.search(r"x86_64|amd64|arm64|aarch64(?! \]; then gcc)", rest)


def test_images_for_another_architecture_have_names_of_their_own():
    own, other = cells("debian", "baseline", "system")
    assert (own.slug, other.slug) == ("debian-baseline-system", "debian-baseline-system-arm64")
    assert own.binary != other.binary and own.binary.slug != other.binary.slug
    assert {own.images, other.images} >= {("debian", "rust")}
    assert len({*own.images, *other.images}) == 4


def test_a_profile_for_one_architecture_is_refused_for_the_other():
    own, other = cells("scratch", "cpu-v3", "system")
    lab_toml.refuse_cells(lab_toml.load(MYIP), [own])
    with pytest.raises(LabError, match="profile 'cpu-v3' is for x86_64 alone"):
        lab_toml.refuse_cells(lab_toml.load(MYIP), [other])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["cells", "--arch", "x64"], "unknown architecture 'x64': did you mean 'x86_64'?"),
        (["measure", "--arch", "arm64,amd64", "--study", "startup"], "--arch arm64: this machine would emulate"),
    ],
)
@elsewhere
def test_what_no_machine_can_do_is_refused_in_one_line_before_an_engine_is_asked(lab, arguments, line):
    done = lab(*arguments, **NO_ENGINE)
    assert done.returncode == 2 and done.stderr.startswith(f"lab: {line}") and done.stderr.count("\n") == 1


def test_cells_are_listed_for_each_architecture_by_either_name(lab):
    done = lab("cells", "--arch", "aarch64,amd64", "--bases", "scratch", "--profiles", "baseline")
    assert done.stdout.split() == ["scratch-baseline-jemalloc-arm64", "scratch-baseline-jemalloc"]


@elsewhere
def test_a_base_that_cannot_be_had_for_arm64_fails_its_cells_alone(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(bake, "build", lambda chosen, context: (Built(each, "text", "sha256:1") for each in chosen))
    chosen, lost = cells("debian", "baseline", "system"), {"debian-arm64": "why"}
    request = session.Request(lab_toml.load(MYIP), "a")
    opened = session.Session(request, SimpleNamespace(path=tmp_path), None, lost=lost)
    with session.building(session.Batch(chosen, request.app), opened, {}) as built:
        found = {each.cell.slug: (each.image, each.reason) for each in built}
    assert found == {"debian-baseline-system-arm64": ("", "why"), "debian-baseline-system": ("sha256:1", "")}


def test_an_addition_that_changes_the_program_is_a_binary_of_its_own():
    cell = matrix.cell("scratch", "baseline", "jemalloc", additions=("large-pages", "tmp"))
    assert cell.binary.additions == ("large-pages",)
    text = dockerfile.render(cell, lab_toml.load(MYIP))
    assert "JEMALLOC_SYS_WITH_LG_PAGE=16" in text
    assert "LG_PAGE" not in dockerfile.render(replace(cell, additions=("tmp",)), lab_toml.load(MYIP))


@pytest.fixture(scope="module")
def both(images) -> dict[str, bases.Provenance]:
    """The images of this machine's architecture and of arm64: the builder and two bases."""
    for name in ("rust-arm64", "distroless-arm64", "alpine-arm64"):
        base, ca = name.partition("-")[0], machine.ca_bundle()
        made = bases.cross_builder(images["rust"], name, print, ca) if base == "rust" else None
        images |= {name: made or bases.resolve(name, bases.Sources(named={base: "packages"}), print, ca)}
    return images


@pytest.fixture
def emulated():
    """An emulator for arm64, unless the machine has one, as long as the test lasts."""
    if os.geteuid() and not emulation.emulates("aarch64"):
        pytest.skip("only root registers an emulator")
    emulation.prepare("aarch64", True, print)
    yield
    emulation.remove()


@elsewhere
@pytest.mark.engine
@pytest.mark.builds
def test_the_tiny_crate_is_compiled_here_for_arm64_and_works_under_emulation(tiny, builds, both, emulated):
    """With C code, for both C libraries; the image of this machine's architecture stays what it is without."""
    app = replace(tiny, check=Check(prints="answer 42"))
    chosen = [*cells("scratch", "optimized", "mimalloc"), *cells("distroless", "baseline", "system")]
    built = {each.cell: each for each in builds(chosen, app, images=both)}
    for cell in chosen:
        assert built[cell].image, built[cell].reason
        assert images.inspect(built[cell].image).architecture == cell.architecture.debian
        with built[cell].shipped.open("rb") as file:
            assert ELFFile(file)["e_machine"] == cell.architecture.elf
        assert abi.measure_base(built[cell].linked, both.get(cell.images[0])).ok
        row = smoke.measure_runs(built[cell].image, app, emulated=cell.architecture is not NATIVE)
        assert row.ok and row.value is True, row.reason
        assert ("checked under emulation" in row.detail) == (cell.architecture is not NATIVE)


@elsewhere
@pytest.mark.engine
@pytest.mark.builds
@pytest.mark.skipif(emulation.emulates("aarch64"), reason="this machine has an emulator of its own")
def test_without_an_emulator_an_image_is_built_and_not_started(tiny, builds, both):
    app = replace(tiny, check=Check(prints="answer 42"))
    (built,) = builds(cells("scratch", "baseline", "system")[1:], app, images=both)
    row = smoke.measure_runs(built.image, app, emulated=True)
    assert (row.ok, row.value) == (True, NOT_STARTED)
    assert not smoke.measure_runs(built.image, app).ok  # of this machine's own it would be a failure


@elsewhere
@pytest.mark.engine
@pytest.mark.builds
def test_jemalloc_stops_on_pages_of_64_kib_and_works_with_the_addition(builds, both):
    """By QEMU, for which nothing is registered. The crate has jemalloc 5.3.0: since 5.3.1 it is compiled for 64 KiB."""
    plain = cells("scratch", "baseline", "jemalloc")[1]
    chosen = [plain, replace(plain, additions=("large-pages",)), replace(plain, allocator="system")]
    app = lab_toml.load(TINY.with_name("pages"))
    found = []
    for built in sorted(builds(chosen, app, images=both), key=lambda each: chosen.index(each.cell)):
        assert built.image, built.reason
        subject = runner.Subject(app, built.image, built.image, None, "", "", "", architecture=ARM64)
        found.append(dict(runner.GROUPS["pages"](subject, [])))
    outcomes = [[outcome for outcome, _ in each.values()] for each in found]
    passed, failed = probes.PASSED, probes.FAILED
    assert outcomes[0] == [passed, failed, failed], found
    assert "Unsupported system page size" in found[0]["pages_64k"][1]
    assert outcomes[1:] == [[passed] * 3] * 2, found


def test_where_no_emulator_can_be_had_pages_of_other_sizes_are_not_asked_for(monkeypatch):
    """As on a Mac, which has no apt: the other probes hold, and are not made again at each call."""

    def refuse(*_):
        raise LabError("qemu-user-static is missing; install it")

    monkeypatch.setattr(emulation, "program", refuse)
    outcomes = [each for _, each in runner._pages(SimpleNamespace(architecture=ARM64), [])]
    assert outcomes == [(probes.NOT_APPLICABLE, "not measured: qemu-user-static is missing; install it")] * 3


@elsewhere
@pytest.mark.skipif(os.geteuid() != 0 or emulation.emulates("aarch64"), reason="root, and no emulator")
def test_an_emulator_is_announced_and_removed_and_nobody_elses_is():
    said = []
    emulation.prepare("aarch64", True, said.append)
    assert emulation.emulates("aarch64") and "binfmt_misc" in said[-1]
    emulator = emulation.program("aarch64", print)
    assert subprocess.run([emulator, "-version"], capture_output=True, text=True, check=True).stdout.startswith("qemu-")
    emulation.prepare("aarch64", True, pytest.fail)  # there is one already
    assert emulation.remove() == 1
    assert not emulation.emulates("aarch64") and emulation.remove() == 0


@pytest.mark.skipif(NATIVE is ARM64, reason="this machine is arm64")
def test_a_base_of_installed_packages_is_unpacked_where_no_program_of_it_starts(monkeypatch):
    monkeypatch.setattr(mmdebstrap, "emulates", lambda name: False)
    recipe = mmdebstrap._without_programs(bases.bases_and_builder()["debian"].packages)
    assert recipe.variant == "extract" and recipe.stand_in and "not set up" in recipe.label
    assert mmdebstrap._without_programs(bases.bases_and_builder()["alpine"].packages).label.startswith("substitute")
