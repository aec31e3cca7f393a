"""Real builds of the tiny crate: what is shared, what is compiled anew, what fails and what does not with it."""

import io
import json
import os
import re
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.crates import write
from support.lab import MUSL, forget

from rustimg_lab.build import dockerfile, lab_toml, sources
from rustimg_lab.build.bake import BuildContext, bake_file
from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, machine, process, proxy, tools
from rustimg_lab.measure.binary import elf_facts, linked_allocator
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App
from rustimg_lab.paths import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.builds]

# A build script that adds to the files of an earlier call, keeps a stamp, and tells the time of a file.
KEEPS = """use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=assets");
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    fs::create_dir_all(out.join("assets")).unwrap();
    for each in fs::read_dir("assets").unwrap() {
        let path = each.unwrap().path();
        fs::copy(&path, out.join(&path)).unwrap();
    }
    if !out.join("stamp").exists() {
        fs::copy("VERSION", out.join("stamp")).unwrap();
    }
    let there = fs::read_dir(out.join("assets")).unwrap();
    let mut names: Vec<String> = there.map(|each| each.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let modified = fs::metadata("VERSION").unwrap().modified().unwrap();
    println!("cargo::rustc-env=SEEN={}", names.join(" "));
    println!("cargo::rustc-env=AT={}", modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
}
"""


def compiled(tmp_path) -> list[str]:
    """The crates that cargo compiled, from the logs; cells of one binary share one build and its log."""
    texts = {path.read_text() for path in (tmp_path / "logs").glob("*.log")}
    return [name for text in texts for name in re.findall(r"Compiling (\S+) v", text)]


def printed(image: str) -> str:
    return client.connect().containers.run(image, ["/tiny/tiny"], remove=True, network_mode="none").decode()


def holds(image: str) -> tuple[list[str], dict]:
    """The layers and the configuration of an image. Its id also has the time at which BuildKit made the last layer: of
    two layers that are equal BuildKit may take either, and on a busy engine it has taken another one."""
    told = client.connect().images.get(image).attrs
    return told["RootFS"]["Layers"], told["Config"]


def test_cargo_runs_once_per_binary_and_a_new_allocator_compiles_only_itself(tiny, builds, images, tmp_path):
    cells = matrix.grid(["scratch", *(name for name in images if name != "rust")], ["baseline"], ["system"])
    built = builds(cells, tiny)
    assert all(b.image for b in built), [b.reason for b in built]
    assert sorted(compiled(tmp_path)) == sorted(["itoa", "tiny"] * 2)  # once for musl, once for gnu

    hashes = {b.cell.base.name: files.sha256(b.shipped) for b in built}
    assert hashes["scratch"] == hashes["alpine"] == hashes["static"] != hashes["distroless"] == hashes["debian"]
    assert all(0 < b.cpu_s < 600 for b in built)

    more = builds(matrix.grid(["scratch", "alpine"], ["baseline"], ["system", "mimalloc"]), tiny)
    assert all(b.image for b in more)
    for outcome in more:
        assert linked_allocator(outcome.linked) == outcome.cell.allocator
    added = compiled(tmp_path)
    assert added.count("itoa") == 2 and added.count("mimalloc") == added.count("libmimalloc-sys") == 1

    before = {path: path.read_text() for path in (tmp_path / "logs").iterdir()}
    images_before = {b.cell: holds(b.image) for b in built}
    again = builds(cells, tiny)
    assert {b.cell: holds(b.image) for b in again} == images_before
    assert {path: path.read_text() for path in (tmp_path / "logs").iterdir()} == before  # nothing ran


def test_an_image_of_an_earlier_call_is_taken_until_something_that_it_is_made_of_changes(tiny, builds, images):
    cell = matrix.cell("scratch", "baseline", "system")
    (first,) = builds([cell], tiny)
    kept = {(cell.slug, first.inputs_digest): first.image}

    def is_built(app: App = tiny, **options: object) -> bool:
        (built,) = builds([cell], app, kept_images=kept, **options)
        assert built.image, built.reason
        return built.linked is not None

    assert not is_built()
    assert is_built(replace(tiny, build_environment=(("TINY", "1"),)))
    main = tiny.directory / "src" / "main.rs"
    text = main.read_text()
    main.write_text(text.replace("42", "43"))
    assert is_built()  # and its image has the name now
    main.write_text(text)
    assert is_built(), "the image that was kept has lost its name"
    assert not is_built()
    assert is_built(images=images | {"rust": replace(images["rust"], digest="sha256:" + "0" * 64)})


def test_a_context_is_named_by_what_is_in_it(tiny, tmp_path):
    def name(call: str, git: bool = False) -> str:
        (tmp_path / call).mkdir()
        return sources.copy(tiny.directory, tmp_path / call, git).name

    (tiny.directory / "link").symlink_to("nowhere")
    first = name("first")
    assert name("same") == first
    (tiny.directory / "link").unlink()
    assert name("without the link") != first
    (tiny.directory / "link").symlink_to("nowhere")
    assert name("as before") == first
    (tiny.directory / "Cargo.toml").chmod(0o755)
    assert name("other mode") != first
    (tiny.directory / "Cargo.toml").chmod(0o644)
    with_git = name("with the repository", git=True)
    (tiny.directory / "lab.toml").write_text("# another check\n")
    assert name("another lab.toml") == first and name("of which git would tell", git=True) != with_git


def test_a_changed_source_with_an_older_time_gives_a_new_binary(tiny, builds):
    cell = matrix.cell("scratch", "baseline", "system")
    (first,) = builds([cell], tiny)
    main = tiny.directory / "src" / "main.rs"
    main.write_text(main.read_text().replace("42", "43"))
    os.utime(main, (0, 0))
    (second,) = builds([cell], tiny)
    assert files.sha256(first.shipped) != files.sha256(second.shipped)
    assert printed(second.image) == "answer 43\n"


def test_nothing_that_the_projects_own_packages_wrote_for_other_sources_is_kept(tiny, builds):
    """Neither in OUT_DIR nor beside it; and files have their own times, which programs tell."""
    folder, program = tiny.directory, tiny.directory / "src" / "main.rs"
    write(folder, {"build.rs": KEEPS, "assets/one": "", "assets/two": "", "VERSION": "v1"})
    os.utime(folder / "VERSION", (86_400, 86_400))
    show = 'println!("{} {} {}", env!("SEEN"), include_str!(concat!(env!("OUT_DIR"), "/stamp")), env!("AT"));'
    program.write_text(program.read_text().replace("fn main() {", f"fn main() {{ {show}"))
    cell = matrix.cell("scratch", "baseline", "system")
    (first,) = builds([cell], tiny)
    assert printed(first.image) == "one two v1 86400\nanswer 42\n"
    (folder / "assets" / "two").unlink()
    write(folder, {"assets/six": "", "VERSION": "v2"})
    os.utime(folder / "VERSION", (1, 1))
    (second,) = builds([cell], tiny)
    assert printed(second.image) == "one six v2 1\nanswer 42\n"


# A build script that tells what it finds: variables, the repository, and whether its cargo takes unstable options.
TELLS = """use std::{env, process::Command};

fn main() {
    let said = |program: &str, arguments: &[&str]| Command::new(program).args(arguments).output().unwrap();
    let git = said("git", &["describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=40"]);
    let unstable = said(&env::var("CARGO").unwrap(), &["-Zunstable-options", "metadata", "--no-deps"]).status.success();
    println!("cargo::rustc-env=GIT={}", String::from_utf8(git.stdout).unwrap().trim());
    println!("cargo::rustc-env=FOUND={} unstable={unstable}", env::var("SOURCE_DATE_EPOCH").unwrap());
}
"""
# As cargo's documentation has it: a folder below cargo's home, by the workspace's path, which is one in all builds.
BUILD_DIR = '[build]\nbuild-dir = "{cargo-cache-home}/build/{workspace-path-hash}"\n'


def test_a_build_finds_what_the_projects_own_configuration_says(tiny, builds):
    folder, program = tiny.directory, tiny.directory / "src" / "main.rs"
    names = '[option_env!("name"), option_env!("hash"), option_env!("root"), option_env!("own")]'
    tells = 'println!("{} {} {}", env!("GIT"), env!("FOUND"), ' + names + '.map(|each| each.unwrap()).join("-"));'
    program.write_text(program.read_text().replace("fn main() {", f"fn main() {{ {tells}"))
    told = 'git = true\nbuild_environment = { name = "n", hash = "h", root = "r", own = "o" }\n'
    write(folder, {
        ".cargo/config.toml": BUILD_DIR + '[env]\nSOURCE_DATE_EPOCH = "1700000000"\n', "build.rs": TELLS,
        ".dockerignore": "docs\n", "docs/a.md": "", "lab.toml": told + (folder / "lab.toml").read_text(),
    })  # fmt: skip
    cell = matrix.cell("scratch", "baseline", "system")
    for answer in ("42", "43"):
        program.write_text(program.read_text().replace("42", answer))
        os.utime(program, (0, 0))
        commit = committed(folder)
        (built,) = builds([cell], lab_toml.load(folder))
        assert built.image, built.reason
        assert printed(built.image) == f"{commit} 1700000000 unstable=false n-h-r-o\nanswer {answer}\n"


def committed(folder: Path) -> str:
    """Commit all that is in a folder. Returns the commit."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    process.run([*git, "init", "--quiet"], cwd=folder)
    process.run([*git, "add", "--all"], cwd=folder)
    process.run([*git, "commit", "--quiet", "--message=a"], cwd=folder)
    return process.run([*git, "rev-parse", "HEAD"], cwd=folder).strip()


def test_builds_in_different_target_directories_overlap(tiny, builds, monkeypatch):
    monkeypatch.setattr(client, "parallel_builds", lambda: 2)  # whatever this machine's cores would allow
    (tiny.directory / "build.rs").write_text("fn main() { std::thread::sleep(std::time::Duration::from_secs(8)); }")
    spans: dict[str, list[float]] = {}
    lock = threading.Lock()

    def on_step(binary, text):
        with lock:
            spans.setdefault(binary.slug, []).append(time.monotonic())

    built = builds(matrix.grid(["scratch", "debian"], ["baseline"], ["system"]), tiny, on_step=on_step)
    assert all(b.image for b in built)
    (start_a, *_, end_a), (start_b, *_, end_b) = spans.values()
    assert max(start_a, start_b) < min(end_a, end_b)


def test_a_crate_that_does_not_compile_takes_no_other_cell_with_it(tiny, builds, tmp_path):
    main = tiny.directory / "src" / "main.rs"
    main.write_text(main.read_text() + '\n#[cfg(feature = "mimalloc")]\nconst BROKEN: u32 = "not a number";\n')
    cells = matrix.grid(["scratch", "alpine", "debian"], ["baseline"], ["system", "mimalloc"])
    built = {b.cell.slug: b for b in builds(cells, tiny)}
    assert len(built) == 6
    for slug, outcome in built.items():
        if slug.endswith("mimalloc"):
            error = r"error\[E0308\]: mismatched types \(src/main\.rs:\d+:\d+\); the whole log: (\S+)"
            log = tmp_path / "logs" / f"{slug}.log"
            assert (ROOT / re.fullmatch(error, outcome.reason)[1]).samefile(log)
            assert "const BROKEN" in log.read_text()
        else:
            assert outcome.image and not outcome.reason


def test_a_final_stage_that_fails_is_set_aside_and_its_sibling_is_built(tiny, builds, images):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))  # a file where the image needs a folder
    repository = client.repository("test-broken-base")
    client.connect().api.import_image_from_data(archive.getvalue(), repository=repository, tag="test")
    try:
        broken = images | {"alpine": replace(images["alpine"], image=f"{repository}:test")}
        cells = matrix.grid(["scratch", "alpine"], ["baseline"], ["system"])
        built = {b.cell.base.name: b for b in builds(cells, tiny, images=broken)}
    finally:
        client.connect().images.remove(f"{repository}:test")
    assert built["scratch"].image
    assert not built["alpine"].image and "etc" in built["alpine"].reason


def test_what_is_no_source_never_enters_the_context(tiny, builds):
    for folder in ("target", ".git", "left-out"):
        (tiny.directory / folder).mkdir()
        (tiny.directory / folder / "huge").write_text("huge")
    (tiny.directory / "src" / "target").mkdir()
    (tiny.directory / "src" / "target" / "wanted").write_text("a folder of the user's that only has the name")
    (tiny.directory / ".dockerignore").write_text("left-out\n")
    (tiny.directory / "build.rs").write_text(
        'fn main() { for name in ["target", ".git", "left-out"] {'
        ' assert!(!std::path::Path::new(name).exists(), "{name} is in the context"); }'
        ' assert!(std::path::Path::new("src/target/wanted").exists()); }'
    )
    (built,) = builds([matrix.cell("scratch", "baseline", "system")], tiny)
    assert built.image, built.reason


BY_HAND = """ARG RUST_IMAGE
FROM ${{RUST_IMAGE}} AS builder
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=ca,mode=0444 \\
    --mount=type=cache,id=rustimg-lab-cargo-home,target=/cargo \\
    if [ -f /run/secrets/ca ]; then export CARGO_HTTP_CAINFO=/run/secrets/ca; fi; \\
    export CARGO_HOME=/cargo CARGO_TARGET_DIR=/target SOURCE_DATE_EPOCH={date}; \\
    cargo build --release --locked --target {target}
FROM scratch
COPY --from=builder /target/{target}/release/tiny /
"""


@pytest.mark.parametrize(
    ("base", "manifest", "flags", "allocator"),
    [
        ("debian", "[profile.release]\nstrip = true\nlto = true\n[profile.release.package.itoa]\nopt-level = 1\n",
         "", "system"),
        ("scratch", "[profile.release]\ndebug = true\n", '"-Cstrip=symbols", "-Copt-level=2"', "mimalloc"),
        ("scratch", "", '"-C", "link-arg=-Wl,-s", "-Clink-arg=-Wl,--gc-sections,-s", "-Clink-arg=-lc"', "system"),
    ],
    ids=[
        "strips, with a setting for a package", "an allocator by default, with flags of its own", "its linker strips",
    ],
)  # fmt: skip
def test_the_crate_as_published_is_what_cargo_makes_by_hand(
    base, manifest, flags, allocator, tiny, builds, images, tmp_path
):
    path = tiny.directory / "Cargo.toml"
    defaults = '[features]\ndefault = ["system", "mimalloc"]\n' if allocator == "mimalloc" else "[features]\n"
    path.write_text(path.read_text().replace("[features]\n", defaults) + manifest)
    if flags:
        (tiny.directory / ".cargo").mkdir()
        (tiny.directory / ".cargo" / "config.toml").write_text(f"[build]\nrustflags = [{flags}]\n")
    text = (tiny.directory / "lab.toml").read_text()  # as init writes it
    kept = 'default_features = false\nfeatures = ["system"]\n' if allocator == "mimalloc" else ""
    (tiny.directory / "lab.toml").write_text(kept + text.replace('system = "system"\n', ""))

    app, (cell,) = lab_toml.load(tiny.directory), matrix.grid([base], ["published"], ["system"])
    (built,) = builds([cell], app)
    assert built.image, built.reason
    source, out = tmp_path / "by-hand", tmp_path / "made"
    source.write_text(BY_HAND.format(date=app.date, target=cell.target))
    bundle = ["--secret", f"id=ca,src={machine.ca_bundle()}"] if machine.ca_bundle() else []
    process.run(
        [*tools.buildx_command(), "build", f"--output=type=local,dest={out}", *bundle, *proxy.build_options(),
         "--build-arg", f"RUST_IMAGE={images['rust'].image}", f"--file={source}", str(tiny.directory)]
    )  # fmt: skip
    assert files.sha256(built.shipped) == files.sha256(out / "tiny")
    assert elf_facts(built.shipped)["stripped"]
    assert linked_allocator(built.linked) == allocator  # of a link of its own, with the symbols
    assert "tiny::main" in built.symbols.read_text()


CANARY = "canary-7f3a91c2-in-the-ca-bundle"


@pytest.fixture
def looked(tiny, monkeypatch) -> Callable[[str], str]:
    """Makes the measured text with one line before cargo that looks whether the secret is there for the step."""

    def make(probe: str) -> str:
        cell = matrix.cell("scratch", "baseline", "system")
        render = dockerfile.render
        text = render(cell, tiny).replace("    root=$(", f"    {probe}; \\\n    root=$(")
        assert probe in text
        monkeypatch.setattr(
            dockerfile, "render", lambda *arguments: render(*arguments) if dockerfile.FACTS in arguments else text
        )
        return text

    return make


def test_without_a_ca_bundle_no_secret_is_there(looked, tiny, builds):
    looked("! ls /run/secrets/ca")
    (built,) = builds([matrix.cell("scratch", "baseline", "system")], tiny, ca=None)
    assert built.image, built.reason


def test_the_ca_bundle_reaches_the_build_and_is_in_no_layer_and_no_history(looked, tiny, builds, images, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes((machine.ca_bundle().read_bytes() if machine.ca_bundle() else b"") + f"\n# {CANARY}\n".encode())
    text = looked(f"grep -c '{CANARY[:12]}' /run/secrets/ca")
    (built,) = builds([matrix.cell("scratch", "baseline", "system")], tiny, ca=bundle)
    assert built.image, built.reason

    # The builder stage too: it stays on the machine that builds, and may be pushed as a cache.
    tag = f"{client.repository('test-builder-stage')}:test"
    source = tmp_path / "Dockerfile"
    source.write_text(text)
    process.run(
        [*tools.buildx_command(), "build", "--quiet", "--output=type=docker", "--target=builder", "--tag", tag,
         "--secret", f"id=ca,src={bundle}", "--build-arg", f"RUST_IMAGE={images['rust'].image}", "--file", str(source),
         str(tiny.directory)]
    )  # fmt: skip
    try:
        for image, skip in ((built.image, 0), (tag, len(_layers(images["rust"].image)))):
            assert CANARY not in str(client.connect().images.get(image).history())
            assert CANARY.encode() not in _saved(image, skip)
    finally:
        client.connect().images.remove(tag)


def _layers(image: str) -> list[str]:
    return client.connect().images.get(image).attrs["RootFS"]["Layers"]


def _saved(image: str, skip: int) -> bytes:
    """The configuration and the layers of an image, but for its first `skip`, as bytes."""
    archive = io.BytesIO(b"".join(client.connect().images.get(image).save()))
    with tarfile.open(fileobj=archive) as tar:
        manifest = tar.extractfile("manifest.json").read()
        names = re.findall(r'"([^"]+layer\.tar|blobs/[^"]+)"', manifest.decode())
        layers = [name for name in names if name in tar.getnames()]
        wanted = [name for name in tar.getnames() if name.endswith(".json")] + layers[skip:]
        assert layers[skip:]
        return b"".join(tar.extractfile(name).read() for name in wanted if tar.getmember(name).isfile())


def test_the_text_that_is_built_is_the_text_that_is_handed_out(tiny, images, tmp_path):
    """bake reads `${` as an expression; what it makes of ours must be ours again."""
    cell = matrix.cell("alpine", "optimized", "system")
    bake = tmp_path / "bake.json"
    context = BuildContext(tiny, images, tmp_path / "logs", tmp_path)
    bake.write_text(json.dumps(bake_file({cell: dockerfile.render(cell, tiny)}, context, tiny.directory)))
    printed = json.loads(process.run([*tools.buildx_command(), "bake", "--print", "--file", str(bake), cell.slug]))
    assert printed["target"][cell.slug]["dockerfile-inline"] == dockerfile.render(cell, tiny)


def test_a_builder_that_cannot_see_a_base_is_refused_in_one_line(lab, images):
    name = f"rustimg-lab-test-{os.getpid()}"
    command = ("run", "--run", name, "--bases", "scratch", "--profiles", "baseline", "--builder", name)
    done = lab(*command)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and name in done.stderr
    process.run([*tools.buildx_command(), "create", "--name", name, "--driver", "remote", "tcp://127.0.0.1:1"])
    try:
        done = lab(*command)
    finally:
        process.run([*tools.buildx_command(), "rm", name])
        forget(name)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"builder '{name}' cannot see the engine's images, and rust is from no registry" in done.stderr


@pytest.mark.parametrize(("missing", "message"), [("Cargo.toml", "no Cargo.toml"), ("Cargo.lock", "no Cargo.lock")])
def test_a_folder_that_is_no_app_is_refused(missing, message, tiny):
    (tiny.directory / missing).unlink()
    with pytest.raises(LabError, match=message):
        lab_toml.load(tiny.directory)


@pytest.mark.parametrize(("base", "compiler"), [("scratch", 'exec musl-gcc -mno-outline-atomics "$@"'), ("debian", "")])
def test_on_a_machine_of_arm64_c_code_for_musl_calls_no_atomics_of_gccs_library(base, compiler, tiny, images, tmp_path):
    """With a substitute for uname. They need __getauxval of glibc: see fd#1165 and rust#89626 on GitHub."""
    text = dockerfile.render(matrix.cell(base, "baseline", "system"), tiny)
    step = text[text.index("RUN --mount") : text.index("WORKDIR")].split("\n\n")[0]
    made = "/usr/local/bin/aarch64-linux-musl-gcc"
    checks = f"grep -qxF '{compiler}' {made} && grep -q TARGET_CC /target.sh" if compiler else f"! [ -e {made} ]"
    source = tmp_path / "Dockerfile"
    source.write_text(
        "ARG RUST_IMAGE\nFROM ${RUST_IMAGE}\nENV TARGETARCH=arm64\n"
        "RUN printf '#!/bin/sh\\necho aarch64\\n' > /usr/local/bin/uname && chmod +x /usr/local/bin/uname\n"
        f"{step}\nRUN grep RUST_TARGET=aarch64-unknown-linux /target.sh && {checks}\n"
    )
    process.run(
        [*tools.buildx_command(), "build", "--no-cache", "--output=type=cacheonly",
         "--build-arg", f"RUST_IMAGE={images['rust'].image}", "--file", str(source), str(tiny.directory)]
    )  # fmt: skip


def test_the_branch_for_the_official_image_installs_what_it_lacks(tiny, images, tmp_path):
    """With a stand-in for rustup that notes how it was called; apt and the rest of the branch are real."""
    source = tmp_path / "Dockerfile"
    text = dockerfile.render(matrix.cell("scratch", "baseline", "jemalloc"), tiny)
    branch = text[text.index("ARG TARGETARCH") : text.index("WORKDIR")]
    assert "rustup target add" in branch
    source.write_text(
        "ARG RUST_IMAGE\nFROM ${RUST_IMAGE}\n"
        "RUN printf '#!/bin/sh\\necho rustup \"$@\" >> /said\\n' > /usr/bin/rustup && chmod +x /usr/bin/rustup\n"
        f"{branch}\n"
        'RUN test -z "$(ls /var/lib/apt/lists)"\n'
        f"RUN grep -qx 'rustup target add {MUSL}' /said\n"
    )
    secret = ["--secret", f"id=ca,src={machine.ca_bundle()}"] if machine.ca_bundle() else []
    process.run(
        [*tools.buildx_command(), "build", "--no-cache", "--output=type=cacheonly", *secret,
         "--build-arg", f"RUST_IMAGE={images['rust'].image}", "--file", str(source), str(tiny.directory)]
    )  # fmt: skip
