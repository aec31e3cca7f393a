"""The parts of a build that need no engine: reading progress, times and errors."""

import json
import re

import pytest

from rustimg_lab.build import bake, diagnosis
from rustimg_lab.build.bake import Step
from rustimg_lab.engine import client
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App


def test_events_are_read_on_one_line_and_on_many_with_text_between():
    events, texts = [], []
    read = bake.read_events(events.append, texts.append)
    first, second = {"vertexes": [{"digest": "a", "name": "}"}]}, {"logs": [{"data": "e30K"}]}
    for line in [*json.dumps(first, indent=2).splitlines(True), "ERROR: failed\n", json.dumps(second) + "\n"]:
        read(line)
    assert events == [first, second]
    assert texts == ["ERROR: failed"]


def test_cpu_seconds_are_the_sum_of_all_that_times_prints():
    assert bake.cpu_seconds("0m0.01s 0m0.02s\n1m30.50s 0m4.47s\n") == pytest.approx(95.0)


def test_the_reason_is_the_compilers_first_error_with_its_place():
    output = [
        "   Compiling a v0.1.0\nwarning: unused\n",
        "error[E0425]: cannot find value `x`\n --> src/main.rs:2:5\n  |\n",
        "error: aborting\n",
    ]
    assert diagnosis.first_error(output) == "error[E0425]: cannot find value `x` (src/main.rs:2:5)"
    assert diagnosis.first_error(["one\n", "last words\n\n"]) == "last words"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/usr/bin/ld: warning: a.o: missing .note.GNU-stack section\n/usr/bin/ld: cannot find -lfoo: No such file",
         "/usr/bin/ld: cannot find -lfoo: No such file"),
        ("/usr/bin/ld: x.o: in function `main':\n    x.c:(.text+0x5): undefined reference to `foo'",
         "/usr/bin/ld: x.o: in function `main': x.c:(.text+0x5): undefined reference to `foo'"),
        ("rust-lld: error: undefined symbol: foo", "rust-lld: error: undefined symbol: foo"),
        ("collect2: fatal error", ""),
        ("collect2: fatal error: cannot find 'ld'\n  compilation terminated.",
         "collect2: fatal error: cannot find 'ld'; it lacks the linker"),
        ("clang: error: invalid linker name in argument '-fuse-ld=mold'",
         "clang: error: invalid linker name in argument '-fuse-ld=mold'; it lacks the program mold: packages"),
        ("x.c:(.text+0x5): undefined reference to `foo'\ncollect2: error: ld returned 1 exit status", ""),
        ("/usr/bin/ld: /usr/lib/x86_64-linux-gnu//liba.a(a.o): in function `f':\n  (.text+0x4c): warning: Using "
         "'dlopen' in a static program\n  /usr/bin/ld: b.o: undefined reference to symbol '__tls_get_addr'\n"
         "  /usr/bin/ld: liba.a(a.o): note: the message above does not take linker garbage collection into account",
         "/usr/bin/ld: b.o: undefined reference to symbol '__tls_get_addr'"),
        ("mold: error: undefined symbol: foo\nclang: error: linker command failed with exit code 1 (use -v to see)",
         "mold: error: undefined symbol: foo"),
    ],
)  # fmt: skip
def test_of_a_failed_link_the_linkers_first_error_is_told(said, told):
    lines = f'error: linking with `cc` failed: exit status: 1\n  |\n  = note:  "cc" "-m64"\n  = note: {said}\n'
    reason = diagnosis.first_error([lines, 'error: could not compile `x` (bin "x")\n'])
    assert reason.startswith(f"error: linking with `cc` failed: exit status: 1 {told}".rstrip())
    assert "ld returned" not in reason


def test_an_error_in_colors_is_told_without_them():
    lines = "\x1b[1m\x1b[91merror\x1b[0m: no matching package named `x` found\n\x1b[1m\x1b[94m  --> \x1b[0m..\n"
    assert diagnosis.first_error([lines, "more\n"]).startswith("error: no matching package named `x` found")


def test_a_library_for_glibc_in_a_program_for_musl_is_named():
    lines = (
        'error: linking with `cc` failed: exit status: 1\n  = note:  "cc" "/target/x86_64-unknown-linux-musl/a.o"\n'
        "  = note: /usr/bin/ld: /usr/lib/x86_64-linux-gnu//libmariadb.a(a.o): undefined reference to symbol 'f@GLIBC'\n"
    )
    assert "; libmariadb.a of Debian is for glibc, and this program for musl: take" in diagnosis.first_error([lines])
    assert "glibc, and" not in diagnosis.first_error([lines.replace("-musl/", "-gnu/")])


SCRIPT = """   Compiling rpcd v0.3.1 (/src)
error: failed to run custom build command for `rpcd v0.3.1 (/src)`
note: To improve backtraces for build dependencies, set a variable

Caused by:
  process didn't exit successfully: `/target/release/build/rpcd-0/build-script-build` (exit status: 101)
  --- stdout
  cargo:rerun-if-changed=build.rs
  --- stderr
{}
warning: build failed, waiting for other jobs to finish...
"""
PANIC = """
  thread 'main' (7) panicked at build.rs:5:10:
  {}
  note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"""
# Of a dependency by git: the last causes.
FETCH = """error: failed to get `x` as a dependency of package `a v0.1.0 (/src)`

Caused by:
  failed to load source for dependency `x`

Caused by:
  failed to clone into: /cargo/git/db/x-4200ed2d2323eaf3

Caused by:
  {}
"""
# A build script that calls a compiler: what that printed, beside packages that nobody needs, and the script's panic.
COMPILER = """-- Could NOT find Doxygen (missing: DOXYGEN_EXECUTABLE)
  {}
  --- stderr
  thread 'main' (7) panicked at cmake-0.1/src/lib.rs:1119:5:
  command did not execute successfully: "c++" "-O3" "x.c", exit status: 2; build script failed"""
# What cargo 1.95 says of a registry that it does not reach, and apt 2.6 of packages whose lists it could not get.
DOWNLOAD = """    Updating crates.io index
error: failed to get `itoa` as a dependency of package `a v0.1.0 (/src)`

Caused by:
  download of config.json failed

Caused by:
  failed to download from `https://x/config.json`

Caused by:
  {}
"""
APT = """Reading package lists...
W: Failed to fetch {}://x/InRelease  {}
W: Some index files failed to download. They have been ignored, or old ones used instead.
Reading package lists...
E: Unable to locate package libx-dev
"""
CHAIN = """error: failed to get `wire` as a dependency of package `daemon v0.1.0 (/src)`

Caused by:
  failed to load source for dependency `wire`

Caused by:
  No such file or directory (os error 2)
"""


@pytest.mark.parametrize(
    ("said", "told", "help"),
    [
        (SCRIPT.format(PANIC.format("`protoc` is needed: NotFound")), "panicked at build.rs:5:10: `protoc` is needed",
         'it lacks the program protoc: packages = ["protobuf-compiler"]'),
        (SCRIPT.format(PANIC.format("failed to execute command: os error 2\n  is `cmake` not installed?")),
         "is `cmake` not installed?", 'packages = ["cmake"]'),
        (SCRIPT.format("  sh: 1: autoreconf: not found"), "sh: 1: autoreconf: not found", 'packages = ["autoconf"]'),
        (SCRIPT.format(PANIC.format("Unable to find libclang: set LIBCLANG_PATH")), "libclang", '"libclang-dev"'),
        (SCRIPT.format('  failed to find tool "x86_64-linux-musl-g++": No such file or directory'), "musl-g++",
         "Debian has no C++ compiler for musl"),
        ("error[E0554]: `#![feature]` may not be used on the stable release channel\n --> src/main.rs:1:1\n",
         "(src/main.rs:1:1)", "it needs a nightly compiler: --base rust=IMAGE"),
        ("error: the option `Z` is only accepted on the nightly compiler\n", "", "it needs a nightly compiler"),
        ("error: failed to parse manifest at `/src/Cargo.toml`\n\nCaused by:\n  the cargo feature `codegen-backend` "
         "requires a nightly version of Cargo\n", "caused by: the cargo feature", "it needs a nightly compiler"),
        ("error: linker `mold` not found\n  |\n", "linker `mold` not found", 'packages = ["mold"]'),
        ("error: a.toml names the program sccache, which the builder lacks\n", "", 'packages = ["sccache"]'),
        (CHAIN, "caused by: failed to load source for dependency `wire` caused by: No such file", ""),
        ("error: environment variable `ID` not defined at compile time\n --> src/main.rs:1:5\n", "(src/main.rs:1:5)",
         'build_environment = { NAME = "VALUE" }'),
        ("error: cannot update the lock file /src/Cargo.lock because --locked was passed to prevent this\n", "",
         "`cargo update --workspace` renews it"),
        ("error: failed to parse lock file at: /src/Cargo.lock\n\nCaused by:\n  lock file version `4` was found, but "
         "this version of Cargo does not understand this lock file, perhaps Cargo needs to be updated?\n",
         "version `4`", "asks for a newer compiler"),
        ("error: the lock file /src/Cargo.lock needs to be updated but --locked was passed to prevent this\n", "",
         "`cargo update --workspace` renews it"),
        ("error: failed to parse manifest at `/src/Cargo.toml`\n\nCaused by:\n  feature `edition2024` is required\n\n"
         "  The feature is not stabilized in this version of Cargo (1.84.0).\n", "`edition2024`",
         "asks for a newer compiler"),
        ("error[E0658]: use of unstable library feature `async_closure`\n --> src/main.rs:5:1\n", "(src/main.rs:5:1)",
         "asks for a newer compiler"),
        ("error: error communicating with database: Connection refused\n --> src/main.rs:5:1\n", "(src/main.rs:5:1)",
         "commit the folder .sqlx"),
        (SCRIPT.format("  sh: 1: yacc: not found\n  make: *** [Makefile:2: y.c] Error 127" + PANIC.format("failed")),
         "sh: 1: yacc: not found", 'packages = ["bison"]'),
        (SCRIPT.format(PANIC.format("protoc not found: CannotFindBinaryPath")), "protoc not found",
         "protobuf-compiler"),
        (SCRIPT.format(PANIC.format("please have nasm installed")), "have nasm installed", 'packages = ["nasm"]'),
        (SCRIPT.replace("  --- stderr\n{}", "  cargo:warning=protoc not found, install it{}").format(""),
         "protoc not found, install it", "protobuf-compiler"),
        (SCRIPT.replace("  --- stderr", "  cargo::error=protoc is required\n  --- stderr").format(PANIC.format("no")),
         "`rpcd v0.3.1 (/src)` protoc is required thread 'main' (7) panicked at build.rs:5:10: no",
         "protobuf-compiler"),
        (SCRIPT.format(PANIC.format("ID must be set: NotPresent")), "ID must be set", 'build_environment = { NAME'),
        ("error: say which\n --> src/main.rs:1:5\n  |\n1 | env!(\"ID\", \"say which\");\n", "say which (env!, src/",
         'build_environment = { NAME = "VALUE" }'),
        ("error[E0425]: cannot find value `x`\n --> src/main.rs:1:5\n  |\n1 | (x, env!(\"ID\"));\n", "`x` (src", ""),
        (SCRIPT.format(PANIC.format("error: no Python 3.x interpreter found")), "no Python", 'packages = ["python3"]'),
        (SCRIPT.format("  sh: 1: wasm-pack: not found" + PANIC.format("build failed")),
         "sh: 1: wasm-pack: not found thread 'main' (7) panicked at build.rs:5:10: build failed", ""),
        (SCRIPT.format("  error[E0463]: can't find crate for `core`\n    |" + PANIC.format("build failed")),
         "error[E0463]: can't find crate for `core`", ""),
        (SCRIPT.format("  Can't locate FindBin.pm in @INC (you may need it)" + PANIC.format("Error configuring")),
         "Can't locate FindBin.pm", 'packages = ["perl"]'),
        (FETCH.format("failed to authenticate when downloading repository"), "to authenticate", "names a token"),
        (FETCH.format("could not execute process `git fetch --no-tags 'https://x/x'` (never executed)\n\n"
                      "Caused by:\n  No such file or directory (os error 2)"), "never executed", 'packages = ["git"]'),
        (DOWNLOAD.format("[7] Could not connect to server (Failed to connect to x port 443)"), "caused by: [7]",
         "HTTPS_PROXY is passed to builds; a mirror stands in .cargo/config.toml of the project"),
        (DOWNLOAD.format("[60] SSL peer certificate or SSH remote key was not OK (SSL certificate problem: self-signed "
                         "certificate in certificate chain)"), "caused by: [60]", "SSL_CERT_FILE names a bundle"),
        (APT.format("http", "Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)"),
         "E: Unable to locate package libx-dev: Failed to fetch http://x/InRelease  Could not connect",
         "HTTP_PROXY and HTTPS_PROXY are passed to builds"),
        (APT.format("https", "Certificate verification failed: The certificate is NOT trusted."),
         "E: Unable to locate package libx-dev: Failed to fetch https://x/InRelease", "SSL_CERT_FILE names a bundle"),
        ("Reading package lists...\nE: Unable to locate package libx-dev\n", "locate package libx-dev", ""),
        (SCRIPT.format(PANIC.format("cannot make sense, please go on, no such luck")), "cannot make sense", ""),
        (SCRIPT.format("  NASM command not found! Cannot continue."), "NASM command", 'packages = ["nasm"]'),
        (SCRIPT.format('  Error: "running cmake: No such file or directory (os error 2)"'), "cmake", '["cmake"]'),
        (SCRIPT.format(PANIC.format("No: the pkg-config command could not be found")), "No:", '["pkg-config"]'),
        (SCRIPT.format("  Could not run `A=1 pkg-config --libs --cflags libudev`\n  The pkg-config command could not "
                       "be found.\n\n  Most likely, you need a package.\n\n  See docs.\n  If you\n  did not, see x"),
         "did not, see x", 'packages = ["pkg-config", "libudev-dev"]'),
        (SCRIPT.format(PANIC.format("git failed: fatal: not a git repository: .git")), "git failed", "`git = true`"),
        ("error: failed to run `rustc` to learn about target-specific information\n\nCaused by:\n  process didn't exit "
         "successfully: `rustc - -Zthreads=8` (exit status: 1)\n  --- stderr\n  error: the option `Z` is only accepted "
         "on the nightly compiler\n\n  help: consider nightly\n\n  note: of +toolchain\n\n  note: of stability\n\n  "
         "error: 1 nightly option were parsed\n\n", "error: the option `Z` is only", "it needs a nightly compiler"),
        ("rustc-LLVM ERROR: 64-bit code requested on a subtarget that doesn't support it!\nerror: could not compile "
         "`q` (bin \"q\")\n\nCaused by:\n  process didn't exit successfully: `rustc` (exit status: 101)\n",
         "rustc-LLVM ERROR: 64-bit code requested", ""),
    ],
)  # fmt: skip
def test_the_cause_of_a_failed_build_is_told_with_the_package_that_helps(said, told, help):
    reason = diagnosis.first_error([said])
    assert told in reason and help in reason and len(reason.splitlines()) == 1
    assert bool(help) == ("; " in reason)
    assert "note:" not in reason and "didn't exit successfully" not in reason


def test_what_a_build_script_called_is_told_by_its_own_line(tmp_path):
    (tmp_path / "build.rs").write_text(
        'fn main() {\n    Command::new("flex")\n        .status()\n        .unwrap();\n}\n'
    )
    lacks = PANIC.format("called `Result::unwrap()` on an `Err` value: Os { code: 2, kind: NotFound }")
    reason = diagnosis.first_error([SCRIPT.format(lacks.replace("build.rs:5:10", "build.rs:4:10"))])
    assert (
        diagnosis.find_called_program(tmp_path, reason)
        == '; it lacks the program flex: packages = ["flex"] in lab.toml brings it'
    )
    assert diagnosis.find_called_program(tmp_path, reason.replace("build.rs:4", "build.rs:1")) == ""
    assert (
        diagnosis.find_called_program(tmp_path / "no", reason)
        == diagnosis.find_called_program(tmp_path, "error: other")
        == ""
    )
    (tmp_path / "build.rs").write_text('fn main() { Command::new("own-tool").status().unwrap(); }\n')
    assert diagnosis.find_called_program(tmp_path, reason) == "; it calls own-tool"
    (tmp_path / "build.rs").write_text('fn main() { Command::new("/usr/bin/flex").status().unwrap(); }\n')
    assert diagnosis.find_called_program(tmp_path, reason).startswith("; it lacks the program flex")
    (tmp_path / "build.rs").write_text('fn main() { which::which("flatc").unwrap(); }\n')
    reason = diagnosis.first_error(
        [SCRIPT.format(PANIC.format("an `Err` value: CannotFindBinaryPath").replace("rs:5", "rs:1"))]
    )
    assert diagnosis.find_called_program(tmp_path, reason).startswith("; it lacks the program flatc")


@pytest.mark.parametrize(("at", "folder"), [("/src", ""), ("/src/crates/a", "crates/a")])
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('let said = Command::new("capnp").status()?;', '; it lacks the program capnp: packages = ["capnproto"] in'),
        ('Command::new("own-tool").status()?;', "; it calls own-tool"),
        ('Command::new("capnp").status()?; Command::new("flex").status()?;', ""),
        ('Command::new("capnp").status()?; fs::read("made")?;', ""),
    ],
)
def test_the_program_that_a_build_script_without_a_panic_called_is_told(tmp_path, at, folder, script, told):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "build.rs").write_text(f"fn main() -> Result<(), Error> {{ {script} Ok(()) }}\n")
    reason = diagnosis.first_error([
        f"error: failed to run custom build command for `a v0.1.0 ({at})`\n\nCaused by:\n  process didn't exit "
        "successfully: `/target/release/build/a-1/build-script-build` (exit status: 1)\n  --- stderr\n  "
        'Error: Os { code: 2, kind: NotFound, message: "No such file or directory" }\n'
    ])  # fmt: skip
    found = diagnosis.find_called_program(tmp_path, reason)
    assert found.startswith(told) and bool(found) == bool(told)


@pytest.mark.parametrize(
    "said",
    [
        "error: could not compile `a`\n\nCaused by:\n  process didn't exit successfully: `/bin/rustc --crate-name a "
        "a.rs` (signal: 9, SIGKILL: kill)\n",
        'error: linking with `cc` failed: signal: 9 (SIGKILL)\n  |\n  = note:  "cc" "-m64"\n  = note: \n',
        "error: linking with `cc` failed: exit status: 1\n  = note: collect2: fatal error: ld terminated with signal 9",
        SCRIPT.format("  cargo:warning=c++: fatal error: Killed signal terminated program cc1plus"),
    ],
)
def test_what_the_kernel_ended_for_want_of_memory_is_told(said):
    reason = diagnosis.first_error([said])
    assert (
        re.search("(?i)signal.*; .*for want of memory", reason) and "\n" not in reason and "--crate-name" not in reason
    )


@pytest.mark.parametrize(
    ("said", "help"),
    [
        (
            "src/x.c:1:10: fatal error: sasl/sasl.h: No such file or directory",
            'header sasl.h: packages = ["libsasl2-dev"]',
        ),
        ("/src/x.cpp:1:10: fatal error: 'own/deep/x.hpp' file not found", "it lacks the header x.hpp: `packages` in"),
        ("src/x.c:7:5: error: too few arguments to function 'y'", ""),
        ("configure: error: zlib is required", ""),
        ("CMake Error at F.cmake:230 (message):\n    Could NOT find ZLIB (missing: ZLIB_LIBRARY)", 'g", "zlib1g-dev"]'),
        (
            "CMake Error at F.cmake:230 (message):\n    Could NOT find PkgConfig (missing: X)",
            'packages = ["pkg-config"]',
        ),
        (
            "CMake Error at F.cmake:230 (message):\n    Could NOT find Perl (missing: PERL_EXECUTABLE)",
            'program perl: packages = ["perl"]',
        ),
        ('../meson.build:3:0: ERROR: Dependency "zlib" not found, tried pkgconfig', '["pkg-config", "zlib1g-dev"]'),
    ],
)
def test_of_a_build_script_that_calls_a_compiler_the_compilers_error_is_told(said, help):
    reason = diagnosis.first_error([SCRIPT.format(COMPILER.format(said))])
    assert " ".join(said.split()) in reason and help in reason and bool(help) == ("; " in reason)
    assert "c++" not in reason and "Doxygen" not in reason


def test_a_failed_builder_stage_fails_every_cell_of_the_binary_and_a_final_stage_only_its_own():
    cells = matrix.grid(["scratch", "alpine"], ["baseline"], ["system"])
    slug = cells[1].slug
    of_all = Step(f"[{cells[0].slug} builder 4/6] RUN cargo", error="exit code: 101", output=["error: no\n"])
    of_one = Step(f"[{slug} stage-1 2/2] COPY", error="not a directory")
    cancelled = Step(f"[{cells[0].slug} stage-1 2/2] COPY", error="context canceled")
    assert bake._culprits({"1": of_all}, cells) == dict.fromkeys(cells, "error: no")
    exported = Step(f"[{cells[0].slug}] exporting to docker image format", [], "no space")
    assert list(bake._culprits({"1": exported}, cells)) == [cells[0]]
    assert bake._culprits({"1": cancelled, "2": of_one}, cells) == {cells[1]: "not a directory"}


def test_binaries_that_share_a_target_directory_take_turns(tmp_path):
    app = App("myip", tmp_path, "0" * 64, "myip")
    groups = {}
    for cell in matrix.grid(["scratch", "debian"], ["baseline"], ["system", "jemalloc"]):
        groups.setdefault(cell.binary, []).append(cell)
    turn = [binary.slug for binary in bake._sort_binaries(groups, app)]
    assert turn == ["musl-baseline-system", "gnu-baseline-system", "musl-baseline-jemalloc", "gnu-baseline-jemalloc"]


@pytest.mark.parametrize(("cpus", "gibibytes", "builds"), [(8, 64, 4), (8, 4, 2), (2, 24, 1), (1, 24, 1), (4, 1, 1)])
def test_no_more_builds_at_once_than_the_engines_cpus_and_memory_allow(cpus, gibibytes, builds, monkeypatch):
    """The engine's machine is another than the lab's on macOS and Windows."""
    monkeypatch.setattr(client, "machine", lambda: {"cpus": cpus, "memory_gib": gibibytes})
    assert client.parallel_builds() == builds
