"""Will it run there: what the lab decides by symbols is held against what the loader really does."""

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rustimg_lab.build import bases
from rustimg_lab.engine import containers, doctor
from rustimg_lab.engine import images as engine_images
from rustimg_lab.host import machine, process
from rustimg_lab.measure import abi, smoke
from rustimg_lab.model import matrix
from rustimg_lab.model.bases import BUILDER
from rustimg_lab.pipeline import grid

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc here to make binaries with")
BOOKWORM = "bookworm"
# C that asks for GLIBC_2.38 where the builder's headers are that new, and for 2.2.5 where they are older.
BUILD_SCRIPT = """
use std::{env, fs, process::Command};
fn main() {
    let out = env::var("OUT_DIR").unwrap();
    fs::write(format!("{out}/parse.c"), "#define _GNU_SOURCE\\n#include <stdlib.h>\\n\\
        long parse(const char *text) { return strtol(text, 0, 10); }\\n").unwrap();
    let run = |program: &str, arguments: &[&str]| assert!(
        Command::new(program).args(arguments).current_dir(&out).status().unwrap().success());
    run("gcc", &["-O2", "-fPIC", "-c", "parse.c"]);
    run("ar", &["crs", "libparse.a", "parse.o"]);
    println!("cargo:rustc-link-search={out}");
    println!("cargo:rustc-link-lib=static=parse");
}
"""
PROGRAM = """
extern "C" { fn parse(text: *const u8) -> i64; }
fn main() {
    println!("answer {}", itoa::Buffer::new().format(unsafe { parse(b"42\\0".as_ptr()) }));
}
"""


@pytest.fixture(scope="session")
def bookworm() -> dict[str, bases.Provenance]:
    """The builder, debian slim and distroless of the older release, of packages."""
    doctor.prepare(print)
    names = (BUILDER, "debian", "distroless")
    sources = bases.Sources(dict.fromkeys(names, "packages"), debian=BOOKWORM)
    return {name: bases.resolve(name, sources, print, machine.ca_bundle()) for name in names}


def start(image: str) -> tuple[int, str]:
    """Starts an image for real; its exit code and all that it printed."""
    container = containers.create_container(image, engine_images.command(image), network_mode="none")
    try:
        container.start()
        return container.wait(timeout=60)["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.mark.builds
@pytest.mark.engine
@pytest.mark.parametrize("base", ["debian", "distroless"])
def test_a_newer_builders_binary_that_asks_for_nothing_new_runs_on_an_older_base(
    base, tiny, builds: Callable, images, bookworm
):
    """Release names say that it cannot; the symbols say that it can, and so it does."""
    (built,) = builds([matrix.cell(base, "baseline", "system")], tiny, images=images | {base: bookworm[base]})
    assert built.image, built.reason
    row = abi.measure_base(built.shipped, bookworm[base])
    assert row.ok, row.reason
    assert "GLIBC_2.34" in row.detail
    assert start(built.image) == (0, "answer 42\n")


@pytest.mark.builds
@pytest.mark.engine
def test_a_newer_builders_binary_that_asks_for_more_is_found_before_a_container_starts(
    tiny, builds: Callable, images, bookworm, monkeypatch
):
    (tiny.directory / "build.rs").write_text(BUILD_SCRIPT)
    (tiny.directory / "src" / "main.rs").write_text(PROGRAM)
    cell = matrix.cell("debian", "baseline", "system")
    (built,) = builds([cell], tiny, images=images | {"debian": bookworm["debian"]})
    assert built.image, built.reason
    monkeypatch.setattr(smoke, "measure_runs", lambda *about: pytest.fail("it was started"))
    older = images | {"debian": bookworm["debian"]}
    rows = {row.metric: row for row in grid._observe(built, tiny, older, None, "")}
    reason = rows["base_satisfies"].reason
    assert not rows["base_satisfies"].ok and "runs" not in rows and "unpacked_bytes" not in rows
    assert "needs GLIBC_2.38 of libc.so.6 (for __isoc23_strtol)" in reason and "\n" not in reason
    assert "its glibc ends at GLIBC_2.36" in reason
    for remedy in ("--debian bookworm", "take a newer base", "musl"):
        assert remedy in reason
    code, said = start(built.image)  # and so it is
    assert code == 1 and "version `GLIBC_2.38' not found" in said

    # The remedies, each for real: the newer base, and the older builder.
    (built,) = builds([cell], tiny)
    assert abi.measure_base(built.shipped, images["debian"]).ok
    assert start(built.image) == (0, "answer 42\n")
    (built,) = builds([matrix.cell("debian", "baseline", "system", BOOKWORM)], tiny, images=images | bookworm)
    assert built.image, built.reason
    assert abi.measure_base(built.shipped, bookworm["debian"]).ok
    assert start(built.image) == (0, "answer 42\n")


@pytest.mark.builds
@pytest.mark.engine
def test_the_older_release_is_that_of_builder_slim_and_distroless_alike(tiny, builds: Callable, images, bookworm):
    for image in bookworm.values():
        assert image.release.startswith("Debian GNU/Linux 12 (bookworm)")
        assert matrix.reference(image.name, BOOKWORM) == image.reference
    assert bookworm["distroless"].packages["libssl3"].startswith("3.0.")
    assert not {"debconf", "openssl", "mawk"} & set(bookworm["distroless"].packages)
    cells = matrix.grid(["scratch", "distroless"], ["baseline"], ["system", "mimalloc"], BOOKWORM)
    for built in builds(cells, tiny, images=images | bookworm):
        assert built.image, built.reason
        assert start(built.image) == (0, "answer 42\n")


@pytest.mark.builds
@pytest.mark.engine
def test_a_dynamic_binary_on_a_base_without_glibc_is_found(images):
    """The machine's own shell, held against the alpine base."""
    shell = Path(shutil.which("sh")).resolve()
    row = abi.measure_base(shell, images["alpine"])
    assert not row.ok
    assert row.reason.startswith("needs glibc's loader and libraries (libc.so.6, ld-linux-x86-64.so.2)")
    assert abi.measure_base(shell, None).reason.count("scratch has none") == 1
    assert abi.measure_base(shell, images["debian"]).ok


NEEDS = abi.Needs(("libc.so.6", "libgcc_s.so.1"), {"libc.so.6": {"GLIBC_2.38": ("a", "b", "c", "d")}}, "EM_X86_64")


@pytest.mark.parametrize(
    ("defined", "reason"),
    [
        ({"libc.so.6": frozenset({"GLIBC_2.38"}), "libgcc_s.so.1": frozenset({"GCC_3.0"})}, ""),
        ({"libc.so.6": frozenset(), "libgcc_s.so.1": frozenset()}, ""),  # without versions: the loader only warns
        ({"libc.so.6": frozenset({"GLIBC_2.38"})}, "needs libgcc_s.so.1, which it lacks: take a base that has it"),
        (
            {"libc.so.6": frozenset({"GLIBC_2.9", "GLIBC_2.36", "GLIBC_PRIVATE"}), "libgcc_s.so.1": frozenset()},
            "needs GLIBC_2.38 of libc.so.6 (for a, b, c and 1 more), which it lacks (its glibc ends at GLIBC_2.36)",
        ),
    ],
)
def test_what_is_missing(defined, reason):
    assert abi.missing(NEEDS, defined, "it").startswith(reason)
    assert bool(abi.missing(NEEDS, defined, "it")) == bool(reason)


@needs_gcc
@pytest.mark.parametrize("weak", [True, False])
def test_a_need_that_is_marked_weak_is_none_as_for_the_loader(weak, tmp_path):
    """Built against a library with two versions, started with one that has only the first."""
    (tmp_path / "program.c").write_text("int must(void); int extra(void) __attribute__((weak));\n"
                                        "int main(void) { return must() + (extra ? 1 : 0); }")  # fmt: skip
    for folder, more in (("old", ""), ("new", "int extra(void) { return 0; }")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lib.c").write_text(f"int must(void) {{ return 0; }} {more}")
        versions = "NEW_1.0 { global: must; };\n" + ("NEW_2.0 { global: extra; } NEW_1.0;\n" if more else "")
        (tmp_path / folder / "versions").write_text(versions)
        process.run(["gcc", "-shared", "-fPIC", "-Wl,--version-script=versions", "-Wl,-soname,libnew.so",
                    "-o", "libnew.so", "lib.c"], cwd=tmp_path / folder)  # fmt: skip
    program = tmp_path / "program"
    process.run(["gcc", "-o", str(program), "program.c", "-Lnew", "-lnew"], cwd=tmp_path)
    assert set(abi.read_needs(program).versions["libnew.so"]) == {"NEW_1.0", "NEW_2.0"}
    if weak:  # no linker at hand marks it by itself: the flags follow the hash of the name in the version table
        entry = struct.pack("<IH", _elf_hash("NEW_2.0"), 0)
        assert program.read_bytes().count(entry) == 1
        program.write_bytes(program.read_bytes().replace(entry, struct.pack("<IH", _elf_hash("NEW_2.0"), 2)))
    needs = abi.read_needs(program)
    defined = {name: frozenset() for name in needs.libraries} | {"libnew.so": frozenset({"NEW_1.0"})}
    assert bool(abi.missing(needs, defined, "it")) == (not weak)
    done = subprocess.run([program], env={"LD_LIBRARY_PATH": str(tmp_path / "old")}, capture_output=True, text=True)
    assert (done.returncode == 0) == weak, done.stderr
    assert f": {'weak ' * weak}version `NEW_2.0' not found" in done.stderr


def _elf_hash(name: str) -> int:
    """The hash of the System V ABI."""
    value = 0
    for letter in name.encode():
        value = (value << 4) + letter
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value


@needs_gcc
def test_a_static_binary_needs_nothing(tmp_path):
    (tmp_path / "program.c").write_text("int main(void) { return 0; }")
    process.run(["gcc", "-static", "-o", "program", "program.c"], cwd=tmp_path)
    assert abi.read_needs(tmp_path / "program") == abi.Needs((), {}, "EM_X86_64")
    assert abi.measure_base(tmp_path / "program", None).ok
