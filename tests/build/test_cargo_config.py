"""What a project tells cargo holds in every cell: workspace, flags, profiles and toolchain, checked by cargo itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.crates import LOCK, MANIFEST, crate, write
from support.lab import GNU, MUSL

from rustimg_lab.build import cargo_config, dockerfile, lab_toml
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix

needs_cargo = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")
CONFIG = ".cargo/config.toml"


def text(folder: Path, profile: str = "cpu-v3", base: str = "debian", allocator: str = "system") -> str:
    """The Dockerfile of a cell of the crate."""
    return dockerfile.render(matrix.cell(base, profile, allocator), lab_toml.load(folder))


def rustc_calls(folder: Path, profile: str) -> list[str]:
    """The calls of rustc that cargo makes where it is called as the Dockerfile says, on this machine."""
    lines = [line.strip().removesuffix("; \\") for line in text(folder, profile).splitlines()]
    said = [
        line for line in lines if line.startswith(("cd ", "cargo build", "export CARGO_PROFILE", "export RUSTFLAGS"))
    ]
    said += [line for line in lines if line.startswith("export CARGO_ENCODED")]
    script = "; ".join(sorted(said, reverse=True)).replace("cargo build", "cargo check --verbose")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("RUSTFLAGS")}
    environment |= {"RUST_TARGET": GNU}
    app = lab_toml.load(folder)
    script = script.replace("--target-dir /target", f"--target-dir '{folder}/target'")
    done = subprocess.run(
        ["bash", "-ec", script], cwd=app.directory, capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"Running `(.*)`", done.stderr)


FLAGS = {
    "build": ('[build]\nrustflags = ["--cfg", "one"]', "one", "one"),
    "one text": ('[build]\nrustflags = "--cfg one --cfg two"', "one two", "one two"),
    "target, not build": (
        f'[build]\nrustflags = ["--cfg", "one"]\n[target.{GNU}]\nrustflags = ["--cfg", "two"]', "two", "one"),
    "target and cfg": (
        f'[target."cfg(unix)"]\nrustflags = ["--cfg", "two"]\n[target.{GNU}]\nrustflags = ["--cfg", "one"]',
        "one two", "two"),
    "cfgs in another order than their names'": (
        "[target.'cfg(unix)']\nrustflags = [\"--cfg\", \"two\"]\n"
        "[target.'cfg(all())']\nrustflags = [\"--cfg\", \"one\"]", "one two", "one two"),
    "cfg that does not hold": (
        '[build]\nrustflags = ["--cfg", "one"]\n[target."cfg(windows)"]\nrustflags = ["--cfg", "two"]', "one", "one"),
    "cfg of musl": (
        '[build]\nrustflags = ["--cfg", "one"]\n'
        "[target.'cfg(all(target_env = \"musl\", not(windows)))']\nrustflags = [\"--cfg\", \"two\"]", "one", "two"),
    "of an own condition": (
        "[build]\nrustflags = [\"--cfg\", \"one\"]\n[target.'cfg(one)']\n"
        'rustflags = ["--cfg", "one", "--cfg", "two"]', "one two", "one two"),
    "of a condition that such flags set": (
        f"[target.{GNU}]\nrustflags = [\"--cfg\", \"one\"]\n[target.'cfg(one)']\nrustflags = [\"--cfg\", \"two\"]\n"
        "[target.'cfg(two)']\nrustflags = [\"--cfg\", \"three\"]", "one two", ""),
    "a space in one": ('[build]\nrustflags = ["--cfg", "one=\\"a b\\""]', 'one="a b"', 'one="a b"'),
}  # fmt: skip


@needs_cargo
@pytest.mark.parametrize(("configuration", "gnu", "musl"), FLAGS.values(), ids=FLAGS.keys())
def test_flags_of_a_lab_profile_join_those_that_cargo_takes_by_itself(tmp_path, configuration, gnu, musl):
    folder = crate(tmp_path, {CONFIG: configuration, "src/main.rs": "#![allow(unexpected_cfgs)]\nfn main() {}\n"})
    told = dict(lab_toml.load(folder).configuration.rustflags)
    assert [" ".join(flag for flag in told[target] if flag != "--cfg") for target in (GNU, MUSL)] == [gnu, musl]
    (plain,), (joined,) = rustc_calls(folder, "baseline"), rustc_calls(folder, "cpu-v3")
    assert re.findall(r"--cfg ('.*?'|\S+)", plain) == re.findall(r"--cfg ('.*?'|\S+)", joined) != []
    assert joined.count("target-cpu=x86-64-v3") == 1 and "target-cpu" not in plain


def test_flags_for_another_architecture_are_not_this_ones(tmp_path):
    flags = "[target.'cfg({})']\nrustflags = [\"-C{}\"]\n"
    configuration = flags.format('target_arch = "x86_64"', "target-feature=+aes") + flags.format(
        'all(target_arch = "aarch64", target_feature = "neon")', "target-feature=+lse"
    )
    told = dict(lab_toml.load(crate(tmp_path, {CONFIG: configuration})).configuration.rustflags)
    assert {target: flags for target, flags in told.items() if target.endswith("musl")} == {
        "x86_64-unknown-linux-musl": ("-Ctarget-feature=+aes",),
        "aarch64-unknown-linux-musl": ("-Ctarget-feature=+lse",),
    }


@needs_cargo
@pytest.mark.parametrize("target", [GNU, MUSL])
def test_what_the_compiler_says_of_a_target_is_known(target):
    """All that rustc says of a target holds where it is asked as cargo does: for crates of all types at once, macros
    too, which are not linked with musl."""
    types = [f"--crate-type={each}" for each in ("bin", "rlib", "dylib", "cdylib", "staticlib", "proc-macro")]
    command = ["rustc", "-", "--crate-name=a", *types, f"--target={target}", "--print=cfg"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    assert len(said.splitlines()) > 10
    assert {each for each in said.splitlines() if not cargo_config.cfg_holds(f"cfg({each})", target)} <= {"proc_macro"}
    of_crt = 'target_feature="crt-static"'
    assert cargo_config.cfg_holds(f"cfg({of_crt})", target) == (of_crt in said)


def test_configuration_of_a_member_counts_before_that_of_its_workspace_and_lists_are_joined(tmp_path):
    root = write(tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["agent"]\n', "Cargo.lock": LOCK.format("agent")})
    write(root, {CONFIG: '[build]\nrustflags = ["--cfg", "low"]\njobs = 1\n'})
    member = crate(root / "agent", {CONFIG: 'include = "more.toml"\n[build]\nrustflags = ["--cfg", "high"]\n'}, "agent")
    write(member, {".cargo/more.toml": "[build]\njobs = 2\n"})
    configuration = cargo_config.read(list(cargo_config.files(member)))
    assert configuration["build"] == {"rustflags": ["--cfg", "low", "--cfg", "high"], "jobs": 2}
    assert "RUSTFLAGS='--cfg low --cfg high -Ctarget-cpu=x86-64-v3'" in text(member)
    assert "    cd agent; \\\n    cargo build --locked --release" in text(member)


@pytest.mark.parametrize(
    ("flags", "profile", "said"),
    [
        ("-Ctarget-cpu=native", "cpu-v3",
         "'cpu-v3' has -Ctarget-cpu=x86-64-v3, .cargo/config.toml has -Ctarget-cpu=native"),
        ("-C target-feature=+avx2,-crt-static", "glibc-static",
         "has -Ctarget-feature=+crt-static, .cargo/config.toml has -Ctarget-feature=-crt-static for x86_64-unknown"),
        ("--codegen opt-level=3", "opt-s", "'opt-s' has -Copt-level=s, .cargo/config.toml has -Copt-level=3"),
        ("-C opt_level=3", "opt-z", "has -Copt-level=3"),
        ("-O", "opt-z", "'opt-z' has -Copt-level=z, .cargo/config.toml has -Copt-level=3"),
    ],
)  # fmt: skip
def test_flags_that_contradict_a_profile_are_refused_with_both_sources(tmp_path, flags, profile, said):
    app = lab_toml.load(crate(tmp_path, {CONFIG: f'[build]\nrustflags = "{flags}"\n'}))
    with pytest.raises(LabError, match=re.escape(said)):
        lab_toml.refuse_cells(app, [matrix.cell("debian", profile, "system")])
    lab_toml.refuse_cells(
        app, [matrix.cell("debian", "baseline", "system"), matrix.cell("debian", "lto-fat", "system")]
    )


@pytest.mark.parametrize("flags", ["-Clto", "-C lto=yes", "--codegen=lto=on", "-C lto=fat"])
def test_words_of_the_compiler_for_one_value_are_no_contradiction(tmp_path, flags):
    app = lab_toml.load(crate(tmp_path, {CONFIG: f'[build]\nrustflags = "{flags}"\n'}))
    lab_toml.refuse_cells(app, [matrix.cell("debian", "smallest", "system")])
    with pytest.raises(LabError, match=r"has -Clto=thin, \.cargo/config\.toml has -Clto=fat"):
        lab_toml.refuse_cells(app, [matrix.cell("debian", "lto-thin", "system")])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (CONFIG, "build = 3\n", "config.toml: 'build' is no table"),
        (CONFIG, "[build]\nrustflags = 3\n", "config.toml: 'build.rustflags' is no text or list, as cargo takes it"),
        (CONFIG, "[build]\nrustflags = [3]\n", "config.toml: 'build.rustflags.1' is no text"),
        (CONFIG, "include = 3\n", "config.toml: include: 3 is no other file"),
        (CONFIG, 'include = ["config.toml"]\n', "config.toml: include: 'config.toml' is no other file"),
        (CONFIG, 'include = "../.cargo/config.toml"\n', "include: '../.cargo/config.toml' is no other file"),
        (CONFIG, "paths = 3\n", "config.toml: 'paths' is no list"),
        (CONFIG, "[source.v]\ndirectory = 3\n", "config.toml: 'source.v.directory' is no text"),
        (CONFIG, "net = 3\n", "config.toml: 'net' is no table"),
        (CONFIG, "[target]\nx = 3\n", "config.toml: 'target.x' is no table"),
        ("Cargo.toml", MANIFEST.format("a") + "[profile]\nrelease = 3\n", "Cargo.toml: 'profile.release' is no table"),
        ("Cargo.toml", MANIFEST.format("a") + "[bin]\nname = 'a'\n", "Cargo.toml: 'bin' is no list"),
        (CONFIG, '[build]\nrustc-wrapper = ["a"]\n', "config.toml: 'build.rustc-wrapper' is no text"),
        (CONFIG, f"[target.{GNU}]\nlinker = 3\n", f"config.toml: 'target.{GNU}.linker' is no text"),
        (CONFIG, "[target.'cfg(']\nx = 3\n", r"config.toml: \[target.'cfg\('\] cannot be read"),
        (CONFIG, "[profile.release]\npackage = 3\n", "config.toml: 'profile.release.package' is no table"),
        ("Cargo.toml", MANIFEST.format("a") + "[profile.x]\ninherits = [1]\n", "'profile.x.inherits' is no text"),
        ("Cargo.toml", MANIFEST.format("a") + "[features]\na = 3\n", "Cargo.toml: 'features.a' is no list"),
        ("Cargo.toml", MANIFEST.format("a") + "[features]\ndefault = [3]\n", "'features.default.1' is no text"),
        ("Cargo.toml", MANIFEST.format("a") + "workspace = 3\n", "Cargo.toml: 'package.workspace' is no text"),
        ("Cargo.toml", MANIFEST.format("a") + 'workspace = "b"\n', "'package.workspace' is 'b': no Cargo.toml there"),
        ("Cargo.toml", MANIFEST.format("a") + 'workspace = "\\u0000"\n', "'package.workspace' has the character NUL"),
        ("Cargo.toml", "[package]\nname = 3\n", "Cargo.toml: 'package.name' is no text"),
        ("../Cargo.toml", "[workspace]\nexclude = [3]\n", "Cargo.toml: 'workspace.exclude.1' is no text"),
        (".dockerignore", "a\n\n[z-a]\n", r".dockerignore, line 3: '\[z-a\]' is no pattern: bad character range"),
        ("lab.toml", 'context = "\\u0000"\n', "lab.toml: 'context' has the character NUL"),
        ("rust-toolchain.toml", "toolchain = 3\n", "rust-toolchain.toml: 'toolchain' is no table"),
    ],
)
def test_what_cargo_could_not_read_is_one_line_with_the_file(tmp_path, name, text, said):
    folder = crate(tmp_path / "a", {name: text})
    with pytest.raises(LabError, match=said):
        list(cargo_config.entry_files(folder))
        lab_toml.load(folder)


@pytest.mark.parametrize("flags", ["-Ctarget-feature=", "-Ctarget-feature=+a,,-b"])
def test_an_empty_feature_of_the_processor_is_none(flags):
    assert set(cargo_config.options((flags,))) <= {"-Ctarget-feature=a", "-Ctarget-feature=b"}


def test_a_flag_that_takes_musl_out_of_the_program_is_named_before_the_build(tmp_path):
    configuration = f'[target.{MUSL}]\nrustflags = ["-C", "target-feature=-crt-static"]\n'
    app = lab_toml.load(crate(tmp_path, {CONFIG: configuration}))
    said = r"\.cargo/config\.toml has -Ctarget-feature=-crt-static for .*-musl: .* which scratch has not"
    with pytest.raises(LabError, match=said):
        lab_toml.refuse_cells(app, [matrix.cell("scratch", "baseline", "system")])
    lab_toml.refuse_cells(app, matrix.grid(["alpine", "debian"], ["baseline"], ["system"]))


@pytest.mark.parametrize(
    "files",
    [{CONFIG: "[profile.release]\nstrip = true\n"}, {CONFIG: '[build]\nrustflags = ["-C", "strip=symbols"]\n'},
     {"Cargo.toml": MANIFEST.format("a") + "[profile.release]\nstrip = true\n"}],
    ids=["configuration", "flags", "manifest"],
)  # fmt: skip
def test_strip_is_left_to_the_lab_wherever_a_project_says_it(tmp_path, files):
    told = text(crate(tmp_path, files), "baseline")
    assert "STRIP=debuginfo" in told or "RUSTFLAGS='-C strip=symbols -Cstrip=debuginfo'" in told


@needs_cargo
def test_features_are_the_packages_and_not_those_of_the_folder_that_cargo_is_called_in(tmp_path):
    """With cargo's resolver 1, which takes options for the package of the folder."""
    features = '[features]\ndefault = ["slow"]\nslow = []\nfast = []\n'
    manifest = MANIFEST.format("{}").replace("2021", "2018")
    folder = crate(tmp_path, {
        "Cargo.toml": f'{manifest.format("a")}[workspace]\nmembers = ["tool"]\n',
        "Cargo.lock": LOCK.format("a") + LOCK.format("tool").removeprefix("version = 3\n"),
        "tool/Cargo.toml": manifest.format("tool") + features, "tool/src/main.rs": "fn main() {}\n",
        "lab.toml": 'package = "tool"\nbinary = "tool"\nfeatures = ["fast"]\ndefault_features = false\n',
    })  # fmt: skip
    (call,) = rustc_calls(folder, "baseline")
    assert 'feature="fast"' in call and 'feature="slow"' not in call and "--crate-name tool" in call


@needs_cargo
def test_a_profile_of_the_lab_holds_for_packages_with_settings_of_their_own(tmp_path):
    """Also for those in a profile that the chosen one inherits."""
    own = '[profile.release.package.b]\nopt-level = 3\n[profile.dist]\ninherits = "release"\nlto = "thin"\n'
    folder = crate(tmp_path, {
        "Cargo.toml": f'{MANIFEST.format("a")}[dependencies]\nb = {{ path = "b" }}\n{own}',
        "Cargo.lock": LOCK.format("a") + 'dependencies = ["b"]\n' + LOCK.format("b").removeprefix("version = 3\n"),
        "b/Cargo.toml": MANIFEST.format("b"), "b/src/lib.rs": "", "lab.toml": 'profile = "dist"\n',
    })  # fmt: skip
    levels = [re.search(r"opt-level=(\w)", call)[1] for call in rustc_calls(folder, "opt-s")]
    assert levels == ["s", "s"] and "--profile dist --config" in text(folder, "opt-s")
    assert "/target/$RUST_TARGET/dist/a /build/out/a" in text(folder, "opt-s")
    assert "CARGO_PROFILE" not in text(folder, "opt-s")
    write(folder, {"lab.toml": 'profile = "dst"\n'})
    with pytest.raises(LabError, match="unknown profile 'dst': did you mean 'dist'"):
        lab_toml.load(folder)
    # cargo takes CARGO_PROFILE_RELEASE_LTO_OPT_LEVEL for `lto` of `release`.
    for name in ("release-lto", "release_lto"):
        named = own.replace("profile.dist", f"profile.{name}")
        write(folder, {
            "Cargo.toml": f'{MANIFEST.format("a")}[dependencies]\nb = {{ path = "b" }}\n{named}',
            "lab.toml": f'profile = "{name}"\n',
        })  # fmt: skip
        assert [re.search(r"opt-level=(\w)", call)[1] for call in rustc_calls(folder, "opt-s")] == ["s", "s"]


@needs_cargo
def test_a_package_that_strips_itself_keeps_its_symbols_for_the_lab(tmp_path):
    own = '[profile.release.package.a]\nstrip = "symbols"\n'
    folder = crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + own})
    (call,) = rustc_calls(folder, "baseline")
    assert "strip=debuginfo" in call and "strip=symbols" not in call
    assert "strip" not in text(folder, "published", allocator="own").partition("cargo build")[2].partition("\n")[0]


@needs_cargo
def test_a_build_script_may_call_cargo_which_has_a_target_directory_of_its_own(tmp_path):
    """For a guest, or what runs in the kernel. In ours that cargo would wait for the first one, and for ever."""
    script = """fn main() {
    let inner = std::process::Command::new(std::env::var("CARGO").unwrap()).args(["build", "--release"])
        .current_dir("inner").status().unwrap();
    assert!(inner.success());
}
"""
    inner = {"inner/Cargo.toml": MANIFEST.format("inner") + "[workspace]\n", "inner/src/main.rs": "fn main() {}\n"}
    main = 'fn main() { println!("{}", include_bytes!("../inner/target/release/inner").len()); }\n'
    folder = crate(tmp_path, {"build.rs": script, "src/main.rs": main, **inner})
    assert any("--crate-name a " in call for call in rustc_calls(folder, "opt-s"))


@needs_cargo
@pytest.mark.parametrize("exclude", [True, False])
def test_the_workspace_is_the_one_that_cargo_finds(tmp_path, exclude):
    """A lockfile that lies in a member is not read by cargo."""
    members = 'members = ["svc"]' if not exclude else 'members = []\nexclude = ["svc"]'
    root = write(
        tmp_path / "root", {"Cargo.toml": f"[workspace]\n{members}\n", "Cargo.lock": LOCK.format("svc") + "# root\n"}
    )
    member = crate(root / "svc", name="svc")
    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version=1"]
    told = subprocess.run(command, cwd=member, capture_output=True, text=True, check=True).stdout
    found = cargo_config.workspace_root(member)
    assert f'"workspace_root":"{found}"' in told
    assert lab_toml.load(member).directory == found == (member if exclude else root)
    assert (lab_toml.load(member).lock_sha256 == lab_toml.sha256(root / "Cargo.lock")) != exclude


def test_a_program_that_the_configuration_names_is_looked_for_before_cargo_is_called(tmp_path):
    of_target = f'[target.{GNU}]\nlinker = "clang"\nrustflags = ["-Clink-arg=-fuse-ld=mold"]\n'
    configuration = f'{of_target}[build]\nrustc-wrapper = "sccache"\n'
    folder = crate(tmp_path, {CONFIG: configuration})
    told = text(folder, "baseline")
    for name in ("clang", "mold", "sccache"):
        assert told.index(f"command -v {name} || {{ echo 'error: .cargo/config.toml names") < told.index(
            "    cargo build"
        )
    assert "command -v clang" not in text(folder, "baseline", "scratch")


@pytest.mark.parametrize(("folder", "tool"), [("it's", "clang"), ("$(x)", "a'b; x"), ("a", "$HOME")])
def test_a_program_and_a_folder_are_words_of_the_shell_whatever_is_in_them(tmp_path, folder, tool):
    write(tmp_path, {"Cargo.toml": f'[workspace]\nmembers = ["{folder}"]\n', "Cargo.lock": LOCK.format("a")})
    member = crate(tmp_path / folder, {CONFIG: f'[target.{GNU}]\nlinker = "{tool}"\n'})
    (line,) = [each for each in text(member, "baseline").splitlines() if "command -v" in each and "echo" in each]
    done = subprocess.run(
        ["/bin/sh", "-c", line.removesuffix("; \\")], capture_output=True, text=True, env={"PATH": "/nothing"}
    )
    assert done.stdout == f"error: {folder}/{CONFIG} names the program {tool}, which the builder lacks\n"


@pytest.mark.parametrize(
    "files",
    [
        {CONFIG: '[build]\nrustflags = ["a b", "c\\nd"]\n'}, {CONFIG: '[build]\nrustc-wrapper = "a\\rb"\n'},
        {"Cargo.toml": MANIFEST.format("a") + '[profile.release.package."x\\ny"]\nopt-level = 1\n'},
    ],
)  # fmt: skip
def test_what_a_dockerfile_cannot_hold_is_refused(tmp_path, files):
    with pytest.raises(LabError, match="cannot be in a Dockerfile"):
        lab_toml.load(crate(tmp_path / "a", files))
    write(tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["*"]\n', "Cargo.lock": LOCK.format("a")})
    with pytest.raises(LabError, match="cannot be in a Dockerfile"):
        lab_toml.load(crate(tmp_path / "b\nc"))


@pytest.mark.parametrize(
    "files", [{"rust-toolchain.toml": '[toolchain]\nchannel = "1.81.0"\n'}, {"rust-toolchain": "1.81.0\n"}]
)
def test_a_toolchain_file_gets_its_target_where_the_builder_has_rustup(tmp_path, files):
    folder = crate(tmp_path, files)
    assert lab_toml.load(folder).configuration.toolchain == "1.81.0"
    assert "rustup target add $RUST_TARGET; fi; \\\n    cargo build" in text(folder, "baseline", "scratch")
    with_std = "rustup target add $RUST_TARGET; rustup component add rust-src; fi; \\\n    cargo build"
    assert with_std in text(folder, "std-size", "scratch")


def test_a_toolchain_file_that_names_a_folder_is_not_taken_for_one_that_asks_for_nothing(tmp_path):
    folder = crate(tmp_path, {"rust-toolchain.toml": '[toolchain]\npath = "/opt/rust-1.81"\n'})
    assert lab_toml.load(folder).configuration.toolchain == "/opt/rust-1.81"


def test_what_the_build_finds_in_its_environment_is_in_the_dockerfile(tmp_path):
    folder = crate(tmp_path, {"lab.toml": '[build_environment]\nRELEASE_ID = "it\'s $1"\n'})
    assert """export RELEASE_ID='it'"'"'s $1'; \\\n""" in text(folder, "baseline")
    write(folder, {"lab.toml": '[build_environment]\nRUSTFLAGS = "-O"\n'})
    with pytest.raises(LabError, match=r"'RUSTFLAGS' is cargo's own"):
        lab_toml.load(folder)
    for wrong in ("A = 1", '"A B" = "x"', 'A = "x\\ny"'):
        write(folder, {"lab.toml": f"[build_environment]\n{wrong}\n"})
        with pytest.raises(LabError, match=r"lab\.toml: '.*' is no variable"):
            lab_toml.load(folder)


def test_a_text_with_flags_of_one_architecture_is_for_that_one_alone(tmp_path):
    both = text(crate(tmp_path / "a", {CONFIG: '[build]\nrustflags = ["--cfg", "a"]\n'}), "relr", "scratch")
    assert "--platform linux/amd64,linux/arm64" in both and "amd64) " in both and "arm64) " in both
    own = crate(tmp_path / "b", {CONFIG: f'[target.{MUSL}]\nrustflags = ["-Ctarget-cpu=znver3"]\n'})
    for profile, is_left_to_cargo in (("relr", False), ("opt-s", True), ("published", True)):
        found = text(own, profile, "scratch", "own" if profile == "published" else "system")
        assert ("--platform linux/amd64,linux/arm64" in found) == is_left_to_cargo
        assert ("        arm64) machine=" in found) == is_left_to_cargo and "        amd64) machine=" in found
        assert ("znver3" in found) != is_left_to_cargo


@pytest.mark.parametrize("name", ["a\nb", os.fsdecode(b"a\xff")])
def test_a_folder_that_no_dockerfile_can_name_is_refused(tmp_path, name):
    root = crate(tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["*"]\n'})
    with pytest.raises(LabError, match="of its manifests or a folder's name, cannot be in a Dockerfile") as error:
        lab_toml.load(crate(root / name))
    assert len(str(error.value).splitlines()) == 1
