"""What a build gets beside its sources: arguments, secrets, the SSH agent, the repository, commands of the shell."""

import base64
import io
import json
import re
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from support import sparse_registry
from support.crates import MANIFEST, crate, write

from rustimg_lab.build import bake, dockerfile, inputs, lab_toml, sources
from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host import proxy
from rustimg_lab.model import matrix
from rustimg_lab.model.studies import KINDS
from rustimg_lab.pipeline import planner
from rustimg_lab.pipeline.session import identify

CANARY, WRONG = "canary-5d1e77-in-a-secret", "canary-of-a-wrong-token"
CELL = matrix.cell("scratch", "baseline", "system")


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch):
    monkeypatch.setattr(proxy, "_hidden", set())


def load(folder: Path, told: str, **files: str):
    return lab_toml.load(crate(folder, {"lab.toml": told, **files}))


def step(text: str) -> str:
    """The step that calls cargo."""
    (found,) = [each for each in re.split(r"\n(?=RUN |ARG |COPY |FROM )", text) if "cargo build --locked" in each]
    return found


def test_only_the_step_that_calls_cargo_gets_what_is_given_and_no_value_is_in_the_text(tmp_path, monkeypatch):
    told = 'from_environment = ["NUMBER"]\nsecrets = { TOKEN = "env", KEY = "~/a key.pem" }\nssh = true\n'
    app = load(tmp_path / "a", told)
    monkeypatch.setenv("NUMBER", "argument-17")
    monkeypatch.setenv("TOKEN", CANARY)
    text = dockerfile.render(CELL, app)
    cargo = step(text)
    for mount in ("secret,id=TOKEN ", "secret,id=KEY ", "secret,id=known_hosts ", "ssh "):
        assert text.count(f"--mount=type={mount}") == cargo.count(f"--mount=type={mount}") == 1
    assert text.index("\nARG NUMBER\n") < text.index(cargo) < text.index("cargo build --locked")
    assert "argument-17" not in text and CANARY not in text
    assert 'export TOKEN="$(cat /run/secrets/TOKEN)"; ' in cargo and "export KEY=/run/secrets/KEY; " in cargo
    assert "StrictHostKeyChecking=yes" in cargo and "install-recommends git openssh-client; " in text
    header = text.partition("\nFROM ")[0]
    for option in (
        "build-arg NUMBER",
        "secret id=TOKEN,env=TOKEN",
        'secret "id=KEY,src=$HOME/a key.pem"',
        "ssh default",
    ):
        assert f"#   --{option}\n" in header and f"'error: give --{option}'" in cargo


def test_the_file_of_a_secret_is_named_as_seen_from_the_folder_that_builds_get(tmp_path):
    root = crate(tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["web"]\n'})
    told = 'secrets = { KEY = "a~b.txt", HOME_KEY = "~/c~d", TOKEN = "env" }\n'
    text = dockerfile.render(CELL, lab_toml.load(crate(root / "web", {"lab.toml": told})))
    for option in ('"id=KEY,src=web/a~b.txt"', '"id=HOME_KEY,src=$HOME/c~d"', "id=TOKEN,env=TOKEN"):
        assert f"#   --secret {option}\n" in text and f"'error: give --secret {option}'" in text


def test_the_bake_files_have_where_a_secret_is_and_no_value(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBER", "${17}")
    monkeypatch.setenv("TOKEN", CANARY)
    told = 'from_environment = ["NUMBER"]\nsecrets = { TOKEN = "env", KEY = "../key" }\nssh = true\n'
    app = load(tmp_path / "a", told)
    facts = {"image": "a", "digest": "b", "toolchain": lambda self, debian: ""}
    of_images = dict.fromkeys(("rust", "scratch"), type("Image", (), facts)())
    context = bake.BuildContext(app, of_images, tmp_path, tmp_path, ca=Path("/ca.pem"))
    own = bake.bake_file({CELL: dockerfile.render(CELL, app)}, context, app.directory)
    for definition in (own, bake.official_file([CELL], app)):
        target = definition["target"][CELL.slug]
        assert target["secret"][1:3] == ["id=TOKEN,env=TOKEN", f"id=KEY,src={tmp_path}/key"]
        assert target["ssh"] == ["default"] and CANARY not in json.dumps(definition)
    assert own["target"][CELL.slug]["args"]["NUMBER"] == "$${17}" and "id=ca,src=/ca.pem" in target_of(own)["secret"]
    recorded = "NUMBER=${17}; secret known_hosts; secret TOKEN; secret KEY"
    assert inputs.in_words(app) == identify(app, "run", {})["input"] == recorded
    assert target["args"] == {"NUMBER": "${NUMBER}"} and definition["variable"] == {"NUMBER": {"default": ""}}


def target_of(definition: dict) -> dict:
    return definition["target"][CELL.slug]


def test_commands_run_before_cargo_and_each_must_succeed(tmp_path):
    commands = ["cd made && touch it\\'s # not the rest", "echo \"one\" > '../a b'", "export MADE=1"]
    app = load(tmp_path / "a", f"build_commands = {json.dumps(commands)}\n")
    cargo = step(dockerfile.render(CELL, app))
    places = [cargo.index(word) for word in ("rm -rf /target", "cd made", "echo", "export MADE", "cargo build")]
    assert places == sorted(places)
    shell = "set -eu; \\\n" + "".join(f"{line}\n" for line in cargo.splitlines() if "eval " in line)
    (tmp_path / "made").mkdir()
    done = subprocess.run(["sh", "-c", f"{shell} echo $MADE"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "1\n" and (tmp_path / "made" / "it's").exists()
    assert (tmp_path / "a b").read_text() == "one\n"
    failed = subprocess.run(["sh", "-c", f"{shell} echo $MADE"], cwd=tmp_path / "a", capture_output=True, text=True)
    assert failed.returncode and failed.stdout == ""  # `false && true` alone would not end a script with `set -e`


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ('from_environment = ["A B"]', "'from_environment': 'A B' cannot be such a name"),
        ('from_environment = ["RUSTFLAGS"]', "'RUSTFLAGS' is cargo's own"),
        (
            'from_environment = ["CARGO_REGISTRIES_A_TOKEN"]',
            "'CARGO_REGISTRIES_A_TOKEN' is cargo's own, which it or the lab sets; the place is [secrets]",
        ),
        ('secrets = { CARGO_HOME = "env" }', "'CARGO_HOME' is cargo's own"),
        ('secrets = { ca = "a.pem" }', "'ca' is set by the lab"),
        ('secrets = { A = "" }', "[secrets] 'A': '' is neither"),
        ('secrets = { A = "a,b" }', "[secrets] 'A': 'a,b' is neither"),
        ("secrets = { A = true }", "'A' is no variable with a text of one line"),
        ('from_environment = ["A"]\nsecrets = { A = "env" }', "the variable 'A' is there twice"),
        ('build_commands = ["a\\nb"]', "'build_commands': 'a\\nb' cannot be a command of one line"),
        ("ssh = 1", "'ssh' is a number, true or false is needed"),
    ],
)
def test_what_no_build_can_get_is_refused_with_the_name(tmp_path, told, said):
    with pytest.raises(LabError) as refused:
        load(tmp_path / "a", told)
    assert str(refused.value).startswith(f"{tmp_path}/a/lab.toml: ") and said in str(refused.value)


def refusal(app) -> str:
    with pytest.raises(LabError) as refused:
        inputs.check(app)
    assert len(str(refused.value).splitlines()) == 1 and str(refused.value).startswith(str(app.directory))
    return str(refused.value)


def test_what_is_not_there_is_told_before_anything_is_built(tmp_path, monkeypatch):
    app = load(
        tmp_path / "a", 'from_environment = ["NUMBER"]\nsecrets = { TOKEN = "env", KEY = "key.pem" }\nssh = true\n'
    )
    app = replace(app, secrets=app.secrets[1:])  # known_hosts may be there
    monkeypatch.delenv("NUMBER", raising=False)
    assert "need the variable NUMBER, which is not set" in refusal(app)
    monkeypatch.setenv("NUMBER", "17")
    monkeypatch.setenv("TOKEN", "")
    assert "need the variable TOKEN" in refusal(app)
    monkeypatch.setenv("TOKEN", CANARY)
    assert f"secret KEY: {app.directory}/key.pem is no file" in refusal(app)
    write(app.directory, {"key.pem": f"user {CANARY}-2\n"})
    assert "would be sent with the sources: name it in .dockerignore" in refusal(app)
    write(app.directory, {".dockerignore": "*.pem\n"})
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    assert "'ssh' needs an SSH agent" in refusal(app)
    assert proxy.redact(f"a {CANARY} and {CANARY}-2 b") == "a [secret] and [secret] b"
    inputs.check(replace(app, ssh=False))


def test_a_secret_is_out_of_the_log_though_it_comes_in_two_parts(tmp_path):
    proxy.hide(CANARY)
    parts = [f"a {CANARY[:9]}", f"{CANARY[9:]} b\n"]
    logs = [{"logs": [{"vertex": "1", "data": base64.b64encode(part.encode()).decode()}]} for part in parts]
    (tmp_path / "events").write_text("".join(f"{json.dumps(each)}\n" for each in logs))
    _, steps, _ = bake._bake(["cat", str(tmp_path / "events")], lambda text: None)
    assert "".join(steps["1"].output) == "a [secret] b\n"


def test_the_repository_is_sent_on_request_and_without_a_login(tmp_path):
    app = load(tmp_path / "a", "git = true\n")
    assert "is no folder, as in a worktree" in refusal(app)
    subprocess.run(["git", "init", "-q"], cwd=app.directory, check=True)
    inputs.check(app)
    assert Path(".git/HEAD") in set(sources.walk(app.directory, git=True)) - set(sources.walk(app.directory))
    assert "install-recommends git; " in dockerfile.render(CELL, app)
    write(app.directory, {".dockerignore": ".git\n"})
    assert ".dockerignore leaves .git out" in refusal(app)
    remote = ["git", "remote", "add", "origin", f"https://user:{CANARY}@git.example.org/a"]
    subprocess.run(remote, cwd=app.directory, check=True)
    assert ".git/config has a login in it" in refusal(app) and CANARY not in refusal(app)


def test_a_study_of_builds_is_refused_where_its_containers_would_lack_something(tmp_path):
    kind = KINDS["build"]
    token = 'secrets = { CARGO_REGISTRIES_COMPANY_TOKEN = "env" }\nfrom_environment = ["NUMBER"]\nssh = true\n'
    app = load(tmp_path / "a", token)
    assert planner.programs(app, kind, app.directory) == [app]
    stage = dockerfile.cold_stage(CELL, app)
    assert (
        stage.index('ENV NUMBER="${NUMBER}"') < stage.index("--mount=type=ssh ") < stage.index("cargo fetch --locked")
    )
    assert "_COMPANY_CREDENTIAL_PROVIDER=cargo:token; \\\n" in stage.partition("cargo fetch")[0]
    for told in ('secrets = { TOKEN = "env" }', 'build_commands = ["true"]'):
        other = load(tmp_path / "a", told)
        with pytest.raises(LabError, match=r"a needs '(TOKEN|true)': a study of builds calls cargo alone"):
            planner.programs(other, kind, other.directory)


SCRIPT = """
fn main() {
    let secret = std::env::var("TOKEN").unwrap();
    let file = std::fs::read_to_string(std::env::var("KEY").unwrap()).unwrap();
    println!("cargo:warning=printed {} and {}", secret, file.trim());
    println!("cargo:rustc-env=LENGTH={}", secret.len());
    assert!(std::path::Path::new("made").exists() && option_env!("NUMBER").is_some());
}
"""
MAIN = 'fn main() { println!("answer {} {}", env!("NUMBER"), env!("LENGTH")); }\n'
TOLD = """binary = "tiny"
from_environment = ["NUMBER"]
secrets = { TOKEN = "env", KEY = "../key" }
build_commands = ["test -n \\"$TOKEN\\" && touch made"]
"""


def everything(image: str, logs: Path) -> bytes:
    """All that is left of a build: the image's configuration, history and layers, and the logs."""
    found = client.connect().images.get(image)
    left = json.dumps([found.attrs, found.history()]).encode()
    with tarfile.open(fileobj=io.BytesIO(b"".join(found.save()))) as archive:
        left += b"".join(archive.extractfile(member).read() for member in archive if member.isfile())
    return left + b"".join(path.read_bytes() for path in logs.rglob("*") if path.is_file())


@pytest.mark.engine
@pytest.mark.builds
def test_a_secret_is_in_nothing_that_is_left_and_a_changed_one_builds_nothing_again(
    tiny, builds, tmp_path, monkeypatch
):
    write(tiny.directory, {"build.rs": SCRIPT, "src/main.rs": MAIN, "lab.toml": TOLD})
    (tmp_path / "key").write_text(f"{CANARY}-file\n")
    monkeypatch.setenv("TOKEN", CANARY)
    monkeypatch.setenv("NUMBER", "17")
    app, logs = lab_toml.load(tiny.directory), tmp_path / "logs"
    (first,) = builds([CELL], app)
    assert first.image, first.reason
    log = (logs / f"{CELL.slug}.log").read_text()
    assert "printed [secret] and [secret]" in log
    assert CANARY.encode() not in everything(first.image, logs) and CANARY not in first.text
    assert CANARY.encode() not in first.linked.read_bytes()
    bake_files = [path for path in tmp_path.glob("work*/*.bake/*") if path.is_file()]
    assert bake_files and not [path for path in bake_files if CANARY.encode() in path.read_bytes()]

    monkeypatch.setenv("TOKEN", f"{CANARY}-another")
    (second,) = builds([CELL], app)
    assert second.image == first.image and (logs / f"{CELL.slug}.log").read_text() == log  # nothing ran
    monkeypatch.setenv("NUMBER", "18")
    (third,) = builds([CELL], app)
    answer = client.connect().containers.run(
        third.image, ["/tiny/tiny"], remove=True, network_mode="none", mem_limit="64m"
    )
    assert answer == f"answer 18 {len(CANARY) + len('-another')}\n".encode()

    write(tiny.directory, {"src/main.rs": 'fn main() { println!("{}", env!("TOKEN")); }\n'})
    (leaking,) = builds([CELL], lab_toml.load(tiny.directory))
    assert not leaking.image and leaking.reason == "the program has the secret TOKEN in it, for all who have the image"


@pytest.mark.engine
@pytest.mark.builds
def test_a_registry_that_asks_for_a_token_gets_it_and_nothing_else_does(tiny, builds, tmp_path, monkeypatch):
    name = sparse_registry.CRATE
    with sparse_registry.serve(CANARY) as registry:
        lock = (
            f'version = 3\n\n[[package]]\nname = "{name}"\nversion = "0.1.0"\nsource = "{registry.index}"\n'
            f'checksum = "{registry.checksum}"\n\n[[package]]\nname = "tiny"\nversion = "0.1.0"\n'
            f'dependencies = [\n "{name}",\n]\n'
        )
        files = {
            "Cargo.toml": MANIFEST.format("tiny")
            + f'\n[dependencies]\n{name} = {{ version = "0.1", registry = "company" }}\n',
            "Cargo.lock": lock,
            ".cargo/config.toml": f'[registries.company]\nindex = "{registry.index}"\n',
            "src/main.rs": f'fn main() {{ println!("answer {{}}", {name}::answer()); }}\n',
            "lab.toml": 'binary = "tiny"\nsecrets = { CARGO_REGISTRIES_COMPANY_TOKEN = "env" }\n',
        }
        app = lab_toml.load(write(tiny.directory, files))
        monkeypatch.setenv("CARGO_REGISTRIES_COMPANY_TOKEN", WRONG)
        (failed,) = builds([CELL], app)
        assert registry.refused and not registry.served and "company" in failed.reason
        monkeypatch.setenv("CARGO_REGISTRIES_COMPANY_TOKEN", CANARY)
        (built,) = builds([CELL], app)
        assert built.image, built.reason
        assert f"/dl/{name}/0.1.0/download" in registry.served
        (cold,) = builds([CELL], app, cold=True)
        assert cold.image, cold.reason
    engine = client.connect()
    left = everything(built.image, tmp_path / "logs") + json.dumps(engine.images.get(cold.image).attrs).encode()
    assert CANARY.encode() not in left and WRONG.encode() not in left
    search = f"! grep -rqE '{CANARY}|{WRONG}' /build /cargo /etc /root /run /src /tmp /var"
    engine.containers.run(cold.image, ["sh", "-c", search], remove=True, network_mode="none", mem_limit="256m")
    done = engine.containers.run(cold.image, remove=True, network_mode="none", mem_limit="2g", stderr=True)
    assert b"Finished `release`" in done  # without the network and without the token
    assert CANARY.encode() not in done
    engine.images.remove(cold.image, force=True)


FIRST = '[[package]]\nname = "a"\nversion = "0.1.0"\ndependencies = [\n "b",\n]\n'
OTHERS = '\n[[package]]\nname = "b"\nversion = "1.0.0"\nsource = "registry+https://x"\n'
OTHERS += '\n[[package]]\nname = "z-z"\nversion = "1.0.0"\n'


@pytest.mark.parametrize("head", ["# Made by cargo.\n", "version = 4\n\n"], ids=["of an old cargo", "of a new one"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_packages_that_nothing_is_kept_of_are_those_without_a_source(tmp_path, head, end):
    text = dockerfile.render(CELL, load(tmp_path / "a", ""))
    (line,) = [line.strip().removesuffix("\\") for line in text.splitlines() if line.strip().startswith("own=")]
    (tmp_path / "Cargo.lock").write_text((head + FIRST + OTHERS).replace("\n", end), newline="")
    done = subprocess.run(["sh", "-c", f"root={tmp_path}/Cargo.toml; {line} echo $own"], capture_output=True, text=True)
    assert done.stdout == "a z-z\n", done.stderr
