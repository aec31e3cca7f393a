"""An app of the user's own: its lab.toml, how one is written, and a run of it."""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
import uuid
from pathlib import Path

import pytest
from support.lab import SERVER, TINY, forget, forget_images

from rustimg_lab.analysis import comparison, recommendation
from rustimg_lab.analysis.cells import cell_table
from rustimg_lab.build import bake, dockerfile, lab_toml, lab_toml_values, proposal
from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host import machine, process, proxy, tools
from rustimg_lab.host.files import sha256
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model.app import Check
from rustimg_lab.model.studies import KINDS
from rustimg_lab.paths import MYIP, ORIGIN, REPORTS
from rustimg_lab.pipeline import planner, session
from rustimg_lab.store import runs

MANIFEST = (TINY / "Cargo.toml").read_text()
CHECK = '\n[check]\narguments = ["--version"]\nprints = "answer 42"\n'


def crate(folder: Path, **files: str) -> Path:
    """A copy of the tiny crate with a lockfile of its own and no lab.toml, and some files in place of its own."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns(lab_toml.FILE))
    with (folder / "Cargo.lock").open("a") as lock:
        lock.write(f"# {uuid.uuid4()}\n")
    for name, text in files.items():
        (folder / name.replace("__", "/").replace("_", ".")).write_text(text)
    return folder


def hashes(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_myip_is_an_app_like_others():
    app = lab_toml.load(MYIP)
    assert (app.name, app.package, app.directory, app.member) == ("myip", "myip", MYIP, False)
    assert app.check == Check(https_url="MYIP_URL", https_ca="MYIP_EXTRA_CA")
    assert lab_toml.allocators(app) == list(matrix.ALLOCATORS)


def test_all_that_a_file_says_is_in_the_dockerfile(tmp_path):
    folder = crate(
        tmp_path / "a",
        lab_toml='package = "tiny"\nbinary = "two"\nfeatures = ["x"]\ndefault_features = false\n'
        'packages = ["libssl-dev"]\n[allocators]\njemalloc = "use-jemalloc"\n',
        Cargo_toml=MANIFEST.replace("[features]", '[[bin]]\nname = "two"\npath = "src/main.rs"\n[features]\n'
                                    "x = []\nuse-jemalloc = []"),
    )  # fmt: skip
    app = lab_toml.load(folder)
    text = dockerfile.render(matrix.cell("debian", "opt-s", "jemalloc"), app)
    assert (
        "cargo build --locked --release --target $RUST_TARGET --target-dir /target --package tiny --bin two "
        "--no-default-features --features x,use-jemalloc; \\\n"
    ) in text
    assert "install --yes --no-install-recommends libssl-dev; \\\n" in text
    plain = dockerfile.render(matrix.cell("debian", "opt-s", "system"), app)
    assert "--features x; \\\n" in plain
    with pytest.raises(LabError, match=r"two has no feature for mimalloc: name it in lab\.toml"):
        lab_toml.refuse_cells(app, [matrix.cell("debian", "opt-s", "mimalloc")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("binary = ", "lab.toml: "),
        ("binry = 'a'", "unknown key 'binry': did you mean 'binary'"),
        ("binary = 1", "'binary' is a number, a text is needed"),
        ("features = [1]", "'features' has something in it that is no text"),
        ("features = ['a b']", "'features': 'a b' cannot be such a name"),
        ("packages = ['x; rm']", "'packages': 'x; rm' cannot be such a name"),
        ("binary = 'a b'", "'a b' cannot be the name of a package or a binary"),
        ("[allocators]\njemaloc = 'x'", "unknown [allocators] key 'jemaloc': did you mean 'jemalloc'"),
        ("[allocators]\njemalloc = '-x'", "[allocators] 'jemalloc': '-x' cannot be the name of a feature"),
        ("[check]\nexit_code = true", "[check] 'exit_code' is true or false, a number is needed"),
        ("[chek]\n", "unknown key 'chek': did you mean 'check'"),
        ("[serve]\narguments = ['-p', '80']", "[serve] has no {port} in its arguments or environment"),
        ("[serve]\narguments = ['{port}']\nmethod = 'HEAD'", "'method': 'HEAD' is not one of GET, POST, PUT"),
        ("[check]\nhttps_ca = 'CA'", "[check] 'https_url' goes with 'https_ca' and 'arguments', and with nothing else"),
        ("[check]\nhttps_url = 'URL'\nprints = 'a'", "[check] 'https_url' goes with"),
        ("[serve]\narguments = ['{port}']\npath = 'x'", "[serve] 'path': 'x' cannot be a path: it begins with /"),
        ("[serve]\narguments = ['{port}']\nbefore = ['migrate']", "[serve] 'before' is a list of lists of arguments"),
        ("services = ['db']", "[[services]] 1: is a text, a table is needed"),
        ("[services]\nname = 'db'", "'services' is a table, a list is needed"),
        ("[[services]]\nname = 'db'", "[[services]] 1: has no image"),
        ("[[services]]\nname = 'db'\nimage = 'a'\nreddy = []", "key 'reddy': did you mean 'ready'"),
        ("[[services]]\nname = 'db'\nimage = 'a b'", "'image': 'a b' cannot be the name of an image"),
        ("[[services]]\nname = 'my db'\nimage = 'a'", "'name': 'my db' cannot be a host's name"),
        ("[[services]]\nname = 'db'\nimage = 'a'\nenvironment = { A = 1 }", "has something in it that is no text"),
        (2 * "[[services]]\nname = 'db'\nimage = 'a'\n", "[[services]] 2: 'name': 'db' cannot be a host's name, or is"),
        ("[check]\nhttps_url = 'URL'\n[[services]]\nname = 'db'\nimage = 'a'", "[check] 'https_url' goes with"),
        ("[serve]\narguments = ['{port}']\nhttp = 3", "[serve] 'http': 3 is not within 1 to 2"),
        ("[serve]\narguments = ['{port}']\nstatus = 20", "[serve] 'status': 20 is not within 200 to 599"),
        ("[serve]\narguments = ['{port}']\nstart_timeout_s = 0", "'start_timeout_s': 0 is not within 1 to 600"),
        ("[serve]\narguments = ['{port}']\ngrpc = ''\npath = '/'", "[serve] 'grpc' is the name of a service, and goes"),
        ("[serve]\narguments = ['{port}']\ngrpc = ''\nhttp = 1", "[serve] 'grpc' is the name of a service, and goes"),
        (f"[serve]\narguments = ['{{port}}']\ngrpc = '{'a' * 128}'", "[serve] 'grpc' is the name of a service, and"),
        ("[serve]\narguments = ['{port}']\nhttp = 2\nkeep_alive = false", "'keep_alive' = false goes with HTTP/1"),
        ("[check]\nexit_code = 256", "[check] 'exit_code': 256 is not within 0 to 255"),
        ("[check]\nexit_code = -1", "[check] 'exit_code': -1 is not within 0 to 255"),
        ("[check]\nhttps_url = ''", "[check] 'https_url': '' cannot be the name of a variable"),
        ("[check]\nhttps_url = 'U'\nhttps_ca = 'A B'", "[check] 'https_ca': 'A B' cannot be the name of a variable"),
        (
            "[serve]\narguments = ['{port}']\nenvironment = { 'A=B' = 'x' }",
            "[serve] 'environment': 'A=B' cannot be the",
        ),
        (
            "[[services]]\nname = 'db'\nimage = 'a'\nenvironment = { ' ' = 'x' }",
            "1: 'environment': ' ' cannot be the name",
        ),
        ("[[services]]\nname = 3\nimage = 'a'", "[[services]] 1: 'name' is a number, a text is needed"),
        ("[serve]\narguments = ['{port}']\npath = '/a b'", "[serve] 'path': '/a b' cannot be a path"),
        ('[serve]\narguments = ["{port}"]\npath = "/a\\n"', "[serve] 'path': '/a\\n' cannot be a path"),
        ("[work]\nprints = 'a'", "[work] has no arguments"),
        ("[work]\narguments = ['-j{worker}']", "unknown [work] placeholder '{worker}': did you mean '{workers}'"),
        ("[work]\narguments = []\ninput = '~nobody-here/x'", "[work] 'input': '~nobody-here/x' leads to no file"),
        ("[work]\narguments = []\nexit_code = 256", "[work] 'exit_code': 256 is not within 0 to 255"),
        (
            "[serve]\narguments = ['{port}']\n[work]\narguments = []",
            "[serve] is for a server, and [work] for another program: leave one of them out",
        ),
        ("[serve]\narguments = ['{prot}']", "unknown [serve] placeholder '{prot}': did you mean '{port}'"),
        ("[serve]\narguments = ['{port}', '{hots}']", "placeholder '{hots}': did you mean '{host}'"),
        (
            "[serve]\narguments = ['{port}']\nenvironment = { A = '{Port}' }",
            "placeholder '{Port}': did you mean '{port}'",
        ),
        ("package = ''", "'package': '' cannot be the name of a package"),
        ("package = 'tyni'", "unknown package 'tyni': did you mean 'tiny'"),
        ("binary = 'tyni'", "unknown binary of tiny 'tyni': did you mean 'tiny'? known are tiny; `binary` names"),
        ("features = ['sytem']", "unknown feature of tiny 'sytem': did you mean 'system'"),
        ("[allocators]\njemalloc = 'tikv'", "unknown feature of tiny 'tikv': "),
        ("profile = 'a b;$(x)'", "'profile': 'a b;$(x)' cannot be the name of a profile"),
        ("[serve]\narguments = ['{port}']\nstatus = 2.5", "'status' is a number with a point, a number is needed"),
        ("profile = 'relaese'", "lab.toml: 'profile': unknown profile 'relaese': did you mean 'release'"),
        ("context = '/'", "'context': builds would get all files of this machine"),
        ('build_commands = ["a\\rb"]', "'build_commands': 'a\\rb' cannot be a command of one line"),
        ('build_environment = { A = "x\\n" }', "'A' is no variable with a text of one line"),
        ('build_environment = { A = "x\\r" }', "'A' is no variable with a text of one line"),
        ("build_environment = { TARGETARCH = 'x' }", "'TARGETARCH' is set by the lab or its builder"),
        ("from_environment = ['PATH', 'HOME']", "'PATH' is set by the lab or its builder"),
        ("build_environment = { CARGO_PROFILE_RELEASE_LTO = 'fat' }", "'CARGO_PROFILE_RELEASE_LTO' is cargo's own"),
        ("[serve]\nenvironment = { PORT = 1, A = '{port}' }", "[serve] 'environment' has something in it that is no"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_key(tmp_path, text, said):
    folder = crate(tmp_path / "a", lab_toml=text)
    with pytest.raises(LabError) as told:
        lab_toml.load(folder)
    assert str(told.value).startswith(str(folder / "lab.toml")) and said in str(told.value)


@pytest.mark.parametrize("made", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_what_is_there_and_no_file_is_told(tmp_path, made):
    folder = crate(tmp_path / "a")
    made(folder / lab_toml.FILE)
    with pytest.raises(LabError, match=r"lab\.toml is no file, but a folder, a pipe, or a link that leads to none"):
        lab_toml.load(folder)


def test_a_variable_whose_name_only_begins_as_one_of_cargos_is_the_programs(tmp_path):
    told = (
        'from_environment = ["CARGO_BUILD_NUMBER", "RUST_LOG"]\nbuild_environment = { RUSTONIG_SYSTEM_LIBONIG = "1" }\n'
    )
    assert lab_toml.load(crate(tmp_path / "a", lab_toml=told)).arguments == ("CARGO_BUILD_NUMBER", "RUST_LOG")
    told = '[serve]\narguments = ["{port}", "{method} {status} {path}", "{\\"a\\": 1}"]\n'
    assert lab_toml.load(crate(tmp_path / "b", lab_toml=told)).serve.arguments[1:] == (
        "{method} {status} {path}", '{"a": 1}',
    )  # fmt: skip


@pytest.mark.parametrize("name", ["_app_", "a___b", "App-", "a-_b", "MyApp", "my_app"])
def test_a_name_that_cargo_allows_is_that_of_an_image_too(name):
    # The grammar of github.com/distribution/reference, in which an engine reads the name.
    part = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
    assert re.fullmatch(lab_toml_values.NAME, name)
    assert re.fullmatch(rf"{part}/{part}:\S+", bake.image_name(name, "scratch-optimized-system"))
    assert re.fullmatch(rf"{part}/{part}", client.repository(f"{name}-before"))  # as of `./lab check --before`
    assert bake.image_name("MyApp", "a").endswith("/myapp:a")
    assert bake.image_name("_a", "a") != bake.image_name("a_", "a")


def test_what_is_missing_is_told_with_what_makes_it(tmp_path):
    with pytest.raises(LabError, match=r"no Cargo\.toml there"):
        lab_toml.load(tmp_path)
    folder = crate(tmp_path / "a")
    with pytest.raises(LabError, match=r"no lab\.toml there; `./lab init .*` writes one"):
        lab_toml.load(folder)
    (folder / "Cargo.lock").unlink()
    (folder / lab_toml.FILE).write_text('binary = "tiny"\n')
    with pytest.raises(LabError, match=r"no Cargo\.lock there; make one with `cargo generate-lockfile`"):
        lab_toml.load(folder)


def test_what_an_app_strips_by_itself_is_left_to_the_profile(tmp_path):
    plain = lab_toml.load(crate(tmp_path / "a", lab_toml=""))
    own = lab_toml.load(crate(tmp_path / "b", lab_toml="", Cargo_toml=f"{MANIFEST}\n[profile.release]\nstrip = true\n"))
    cell = matrix.cell("scratch", "baseline", "system")
    assert "CARGO_PROFILE_RELEASE_STRIP" not in dockerfile.render(cell, plain)
    assert "export CARGO_PROFILE_RELEASE_STRIP=debuginfo; \\\n" in dockerfile.render(cell, own)


def test_the_crate_as_published_is_told_nothing_of_the_labs(tmp_path):
    config = "[build]\nrustflags = ['-Cstrip=symbols']\n"
    profiles = "\n[profile.release]\nstrip = true\n[profile.release.package.itoa]\nopt-level = 1\n"
    folder = crate(tmp_path / "a", lab_toml="", Cargo_toml=MANIFEST + profiles)
    (folder / ".cargo").mkdir()
    (folder / ".cargo" / "config.toml").write_text(config)
    app, cell = lab_toml.load(folder), matrix.cell("scratch", "published", "own")
    text, facts = dockerfile.render(cell, app), dockerfile.render(cell, app, template=dockerfile.FACTS)
    assert "    cargo build --locked --release --target $RUST_TARGET --target-dir /target --bin tiny; \\\n" in text
    assert not any(word in text for word in ("STRIP", "RUSTFLAGS", "--config", "strip -s"))
    assert "RUSTC_WORKSPACE_WRAPPER=rustc-with-symbols cargo build --locked --release --target $RUST_TARGET" in facts
    assert "cargo" not in dockerfile.render(matrix.cell("scratch", "strip", "system"), app, template=dockerfile.FACTS)


@pytest.mark.parametrize(
    ("defaults", "told", "options"),
    [
        ("", "", ""),
        ('"system", "mimalloc"', 'default_features = false\nfeatures = ["system"]', " --features system"),
        ('"mimalloc"', "default_features = false", ""),
        ('"all"', 'default_features = false\nfeatures = ["jemalloc"]', " --features jemalloc"),
        ('"system"', "default_features = false", " --no-default-features"),
        ('"system", "mimalloc"', "default_features = false", " --no-default-features --features mimalloc"),
        ('"mimalloc"', 'features = ["jemalloc"]', " --features jemalloc"),
    ],
)
def test_the_crate_as_published_has_its_default_features_where_only_an_allocators_was_moved(
    tmp_path, defaults, told, options
):
    named = f'{told}\n[allocators]\nmimalloc = "mimalloc"\n'
    features = f'[features]\nall = ["mimalloc"]\ndefault = [{defaults}]\n'
    folder = crate(tmp_path / "a", lab_toml=named, Cargo_toml=MANIFEST.replace("[features]\n", features))
    text = dockerfile.render(matrix.cell("scratch", "published", "own"), lab_toml.load(folder))
    assert f" --bin tiny{options}; \\\n" in text
    # The same of a package that the file names in a workspace without one of its own.
    (folder / "Cargo.toml").rename(folder / "src" / "Cargo.toml")
    shutil.copytree(folder / "src", folder / "src" / "src")
    (folder / "src" / "src" / "Cargo.toml").unlink()
    (folder / "Cargo.toml").write_text('[workspace]\nmembers = ["src"]\n')
    (folder / lab_toml.FILE).write_text(f'package = "tiny"\n{named}')
    text = dockerfile.render(matrix.cell("scratch", "published", "own"), lab_toml.load(folder))
    assert f" --package tiny --bin tiny{options}; \\\n" in text


def test_an_app_with_an_allocator_of_its_own_is_built_as_it_is(tmp_path):
    app = lab_toml.load(crate(tmp_path / "a", lab_toml='own_allocator = true\n[allocators]\nmimalloc = "mimalloc"\n'))
    assert lab_toml.allocators(app) == ["own", "mimalloc"]
    assert "--bin tiny; \\\n" in dockerfile.render(matrix.cell("scratch", "baseline", "own"), app)
    with pytest.raises(LabError, match="tiny sets its own allocator: --allocators own,mimalloc build it"):
        lab_toml.refuse_cells(app, [matrix.cell("scratch", "baseline", "system")])
    cells = planner.short(["scratch"], ["baseline"], lab_toml.allocators(app), matrix.DEBIAN)
    assert [cell.allocator for cell in cells] == ["own", "mimalloc"]
    cells = planner.short(["scratch"], ["published", "baseline"], lab_toml.allocators(app), matrix.DEBIAN)
    assert [cell.profile.name for cell in cells] == ["published", "baseline", "baseline"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "scratch-published-own scratch-baseline-own scratch-optimized-own"),
        (("--profiles", "published", "--allocators", "own"), "scratch-published-own"),
        (("--profiles", "baseline"), "scratch-baseline-own"),
        (("--knobs", "strip"), "scratch-baseline-own scratch-strip-own"),
    ],
)
def test_the_crate_as_published_is_the_first_cell_and_one_with_an_own_allocator_has_its_knobs(
    lab, tmp_path, options, expected
):
    folder = crate(tmp_path / "a", lab_toml="own_allocator = true\n")
    done = lab("cells", "--app", str(folder), "--bases", "scratch", *options)
    assert done.stdout.split() == expected.split(), done.stderr


def test_a_dockerfile_of_an_own_app_is_that_of_the_crate_as_published(lab, tmp_path):
    folder = crate(tmp_path / "a", lab_toml='[allocators]\nmimalloc = "mimalloc"\n')
    calls = [(), ("--allocator", "mimalloc"), ("--profile", "strip")]
    heads = [lab("dockerfile", "scratch", "--app", str(folder), *options).stdout.splitlines()[2] for options in calls]
    assert [(head.split("profile ")[1].split()[0], head.split()[-1]) for head in heads] == [
        ("published", "own."), ("optimized", "mimalloc."), ("strip", "system."),
    ]  # fmt: skip


def test_the_date_that_a_program_tells_is_that_of_its_sources(tmp_path):
    folder = crate(tmp_path / "a", lab_toml="", src__more_rs="")
    for path in folder.rglob("*"):
        os.utime(path, (10**9, 10**9))
    os.utime(folder / "src" / "more.rs", (11 * 10**8, 11 * 10**8))
    os.utime(folder / lab_toml.FILE)
    text = dockerfile.render(matrix.cell("scratch", "baseline", "system"), lab_toml.load(folder))
    assert "SOURCE_DATE_EPOCH=1100000000; \\\n" in text
    dated = {**os.environ, "GIT_COMMITTER_DATE": "1200000000 +0000"}
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env=dated)
    assert lab_toml.load(folder).date == 1_200_000_000
    (folder / lab_toml.FILE).write_text("features = []\n")
    os.utime(folder / "src" / "more.rs")
    assert lab_toml.load(folder).date == 1_200_000_000  # nothing that is built is another
    (folder / "src" / "more.rs").write_text("fn more() {}\n")
    os.utime(folder / "src" / "more.rs", (13 * 10**8, 13 * 10**8))
    assert lab_toml.load(folder).date == 1_300_000_000
    (folder / "src" / "more.rs").unlink()
    assert lab_toml.load(folder).date == 1_200_000_000
    assert lab_toml.load(MYIP).date == 0  # its Dockerfiles are committed


def test_of_a_repository_that_git_does_not_trust_the_newest_file_tells_the_date(tmp_path, monkeypatch):
    folder = crate(tmp_path / "a", lab_toml="")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    os.utime(folder / "src/main.rs", (4e9, 4e9))
    assert lab_toml.load(folder).date == 4_000_000_000


def test_a_workspace_member_is_built_in_its_workspace(tmp_path):
    root = crate(tmp_path / "root", lab_toml="", Cargo_toml=f'{MANIFEST}\n[workspace]\nmembers = ["crates/*"]\n')
    shutil.copytree(root, root / "crates" / "inner", ignore=shutil.ignore_patterns("Cargo.lock", "crates"))
    (root / "crates" / "inner" / "Cargo.toml").write_text(MANIFEST)
    app = lab_toml.load(root / "crates" / "inner")
    assert (app.directory, app.subdirectory, app.member) == (root, "crates/inner", True)
    assert "    cd crates/inner; \\\n" in dockerfile.render(matrix.cell("scratch", "baseline", "system"), app)
    assert not lab_toml.load(root).member
    members = f'{MANIFEST}\n[workspace]\nmembers = ["crates/*"]\ndefault-members = ["crates/inner"]\n'
    (root / "Cargo.toml").write_text(members)
    assert lab_toml.load(root).member  # or cargo would build a binary of that name of another package


def test_sources_that_a_client_has_brought_are_of_the_clients_date_and_folder(tmp_path, monkeypatch):
    folder = crate(tmp_path / "apps" / "run", lab_toml="")
    own = lab_toml.load(folder)
    for module in (lab_toml, session):
        monkeypatch.setattr(module, "APPS", tmp_path / "apps")
    assert lab_toml.load(folder) == own and session.folder_digest(own)
    monkeypatch.setenv(ORIGIN, "1200000000,abc")
    assert lab_toml.load(folder).date == 1_200_000_000 and session.folder_digest(own) == "abc"
    assert lab_toml.load(MYIP).date == 0 and session.folder_digest(lab_toml.load(MYIP)) == ""


def test_a_server_is_told_where_to_listen_and_by_how_many_threads(tmp_path):
    folder = crate(
        tmp_path / "a",
        lab_toml='[serve]\narguments = ["--bind={host}:{port}"]\nenvironment = { N = "{workers} of {x}" }\n',
    )
    app = lab_toml.load(folder)
    assert app.check is None and app.server is app
    assert app.serve.invocation(host="::1", port=80, workers=2) == (["--bind=::1:80"], {"N": "2 of {x}"})


def test_services_are_images_or_archives_below_the_folder(tmp_path):
    text = """[serve]
arguments = ["{port}"]
before = [["migrate", "--all"], ["seed"]]
[[services]]
name = "db"
image = "registry.example:5000/postgres:17@sha256:ab"
environment = { B = "{port}", A = "1" }
command = ["postgres", "-c", "fsync=off"]
ready = ["pg_isready"]
[[services]]
name = "cache"
image = "../redis.tar.gz"
"""
    app = lab_toml.load(crate(tmp_path / "a", lab_toml=text))
    assert app.serve.before == (("migrate", "--all"), ("seed",))
    database, cache = app.services
    assert database.environment == (("A", "1"), ("B", "{port}"))
    assert (database.command, database.ready) == (("postgres", "-c", "fsync=off"), ("pg_isready",))
    assert database.image == "registry.example:5000/postgres:17@sha256:ab"
    assert cache.image == str(tmp_path / "redis.tar.gz")
    with pytest.raises(LabError, match=r"lab\.toml: has \[\[services\]\], which a deploy study does not start"):
        planner.programs(app, KINDS["deploy"], tmp_path / "a")


def proposed(features: dict[str, list[str]], *dependencies: str, named: str = "") -> dict:
    """What init writes for a package with these features and optional dependencies."""
    described = [{"name": each, "kind": None, "rename": None} for each in dependencies]
    package = {"name": "a", "features": features, "dependencies": described, "manifest_path": str(TINY / "Cargo.toml")}
    target = {"name": "a", "src_path": str(TINY / "src/main.rs")}
    return tomllib.loads(proposal.proposal(proposal.Crate(package, target, TINY, TINY, {}), named)[0])


def test_what_init_writes_has_an_allocator_that_is_on_by_default_in_its_own_cells_only():
    features = {
        "default": ["use-jemalloc", "completions"], "completions": [], "use-jemalloc": ["tikv-jemallocator"],
        "tikv-jemallocator": ["dep:tikv-jemallocator"],
    }  # fmt: skip
    told = proposed(features, "tikv-jemallocator", named="fd-find")
    assert told["package"] == "fd-find" and told["allocators"] == {"jemalloc": "use-jemalloc"}
    assert told["features"] == ["completions"] and told["default_features"] is False
    plain = proposed({"default": ["b"], "b": []})
    assert plain["features"] == [] and plain["default_features"] is True and plain["allocators"] == {}
    assert "package" not in plain


@pytest.fixture
def builder(images) -> str:
    return images["rust"].image


@pytest.mark.engine
class TestInit:
    def test_it_writes_what_cargo_says_and_that_can_be_loaded(self, tmp_path, builder):
        folder = crate(tmp_path / "mit Leerzeichen und ä")
        before = hashes(folder)
        path, _ = proposal.init(folder, "", lambda: builder)
        assert {key: value for key, value in hashes(folder).items() if key != path} == before
        app = lab_toml.load(folder)
        assert (app.name, app.package, app.member) == ("tiny", "tiny", False)
        assert lab_toml.allocators(app) == ["system", "mimalloc"]  # its feature jemalloc brings no allocator
        assert app.check == Check(arguments=("--version",))
        with pytest.raises(LabError, match="is there already"):
            proposal.init(folder, "", lambda: builder)

    def test_several_binaries_are_listed(self, tmp_path, builder):
        folder = crate(tmp_path / "a")
        (folder / "src" / "bin").mkdir()
        (folder / "src" / "bin" / "other.rs").write_text("fn main() {}\n")
        with pytest.raises(LabError, match=r"several binaries, choose one with --binary NAME: .*other"):
            proposal.init(folder, "", lambda: builder)
        with pytest.raises(LabError, match="unknown binary 'othr': did you mean 'other'"):
            proposal.init(folder, "othr", lambda: builder)
        proposal.init(folder, "other", lambda: builder)
        assert lab_toml.load(folder).name == "other"

    def test_what_cargo_cannot_read_is_told_in_its_words(self, tmp_path, builder):
        folder = crate(tmp_path / "a", Cargo_toml='[package]\nname = "a"\nedition = "1999"\n')
        with pytest.raises(LabError, match="cargo cannot read it: error"):
            proposal.init(folder, "", lambda: builder)


@pytest.fixture
def own_run(tmp_path):
    """A folder for a crate, and the name of its run; the run and its images go afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield tmp_path / "eine Kiste mit ä", name
    forget(name)
    for program in ("tiny", "answers"):
        forget_images(program)


def call(lab, folder: Path, name: str, *options: str) -> tuple[subprocess.CompletedProcess, dict]:
    done = lab("run", "--app", str(folder), "--run", name, "--bases", "scratch", "--allocators", "system", *options)
    return done, cell_table(runs.load(name)).set_index("profile").to_dict("index")


@pytest.mark.engine
def test_an_own_app_is_built_checked_reported_and_chosen(lab, own_run):
    """One that works, and with panic=abort does not: a row like every other."""
    folder, name = own_run
    source = (TINY / "src" / "main.rs").read_text().replace(
        "fn main() {", 'fn main() {\n    if cfg!(panic = "abort") {\n        std::process::abort();\n    }'
    )  # fmt: skip
    crate(folder, lab_toml=f'binary = "tiny"{CHECK}', src__main_rs=source)
    before = hashes(folder)
    done, cells = call(lab, folder, name, "--profiles", "optimized,abort")
    assert done.returncode == 1 and hashes(folder) == before
    assert cells["optimized"]["ok"] and not cells["abort"]["ok"]
    assert cells["abort"]["reason"].startswith("exit code 1")
    page = (REPORTS / name / "report.html").read_text()
    assert "of tiny" in page and "The article has no figures" in page
    chosen = lab("choose", "--run", name, "--max-transfer", "3MB")
    assert chosen.returncode == 0 and "Selected: scratch-optimized-system" in chosen.stdout
    assert "--bin tiny; \\\n" in chosen.stdout

    refused = lab("run", "--run", name, "--bases", "scratch", "--blocks", "0")
    assert refused.returncode == 2 and f"run '{name}' is of tiny, not of myip" in refused.stderr
    refused = lab("run", "--app", str(folder), "--allocators", "jemalloc")
    assert refused.returncode == 2 and "tiny has no feature for jemalloc" in refused.stderr


@pytest.mark.engine
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"build_rs": 'fn main() { panic!("The system library `openssl` required by crate `x` was not found.") }'},
         'it lacks the library openssl: packages = ["pkg-config", "libssl-dev"] in lab.toml'),
        ({"Cargo_toml": MANIFEST.replace("edition", 'rust-version = "1.999"\nedition')}, "requires rustc 1.999"),
        ({"src__main_rs": "fn main() { let a: u8 = \"\"; }"}, "mismatched types"),
    ],
    ids=["library", "msrv", "source"],
)  # fmt: skip
def test_a_crate_that_cannot_be_built_is_a_row_with_what_may_help(pageless, own_run, files, said):
    folder, name = own_run
    crate(folder, lab_toml='binary = "tiny"\n', **files)
    done, cells = call(pageless, folder, name, "--profiles", "baseline")
    assert done.returncode == 1 and said in cells["baseline"]["reason"]


@pytest.mark.engine
def test_a_program_that_does_not_print_what_it_should_has_no_size(pageless, own_run):
    folder, name = own_run
    crate(folder, lab_toml='binary = "tiny"\n[check]\nprints = "answer 43"\n')
    done, cells = call(pageless, folder, name, "--profiles", "baseline")
    assert done.returncode == 1
    assert cells["baseline"]["reason"] == "did not print 'answer 43': answer 42"


@pytest.fixture
def own_server(own_run):
    """A copy of a server that compiles in seconds."""
    folder, name = own_run
    shutil.copytree(SERVER, folder)
    return folder, name


@pytest.mark.engine
def test_an_own_server_is_built_asked_and_measured(pageless, own_server, images, tmp_path):
    folder, name = own_server
    cells = ["--app", str(folder), "--run", name, "--bases", "scratch", "--profiles", "optimized"]
    done = pageless("run", *cells, "--blocks", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    run = runs.load(name)
    found = comparison.of_study(run, comparison.find_study(run, "throughput", workload="own"))
    assert set(found["cell"]) == {"scratch-optimized-mimalloc", "scratch-optimized-system~twin"}
    assert found["pairs"].eq(2).all()
    done = pageless("measure", *cells, "--study", "startup", "--blocks", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = recommendation.choose(runs.load(name), recommendation.Wishes(weights={"cpu": 1.0}))
    assert chosen.table[["transfer", "startup", "cpu"]].notna().all().all()
    # What else is on the machine decides whether so small a server is busy; where it is idle, a note says so.
    idle = any("the load and not the cell" in note for note in chosen.notes)
    assert chosen.table[metrics.REQUESTS_PER_S].isna().eq(idle).all()
    assert not [note for note in chosen.notes if "servers" in note]  # sizes and speeds are of the same images
    built_again_from_its_record(folder, name, images, tmp_path)


def built_again_from_its_record(folder: Path, name: str, images: dict, tmp_path: Path) -> None:
    """With the sources, the recorded text and the recorded builder, in a folder that has nothing else: the same binary.
    It has C code in it."""
    recorded = cell_table(runs.load(name)).set_index("cell").loc["scratch-optimized-mimalloc"]
    assert recorded["ok"] and runs.load(name).environment.bases["rust"] == images["rust"].digest
    again, out = tmp_path / "again", tmp_path / "out"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("target", lab_toml.FILE))
    (again / "Dockerfile").write_text(runs.dockerfile(name, "scratch-optimized-mimalloc"))
    secret = ["--secret", f"id=ca,src={ca}"] if (ca := machine.ca_bundle()) else []
    process.run(
        [*tools.buildx_command(), "build", "--builder=default", "--no-cache", *secret, *proxy.build_options(),
         "--build-arg", f"RUST_IMAGE={images['rust'].image}", f"--output=type=local,dest={out}", str(again)]
    )  # fmt: skip
    assert sha256(out / "answers" / "answers") == recorded["binary_sha256"]


@pytest.mark.engine
def test_a_server_that_listens_elsewhere_is_a_row_with_its_last_words(pageless, own_server):
    folder, name = own_server
    told = (folder / lab_toml.FILE).read_text()
    (folder / lab_toml.FILE).write_text(told.replace("ANSWERS_ON", "ANSWER_ON"))
    done, cells = call(pageless, folder, name, "--profiles", "baseline", "--blocks", "2")
    assert done.returncode == 1
    assert cells["baseline"]["reason"].startswith("no answer within 20 s; it listens on 127.0.0.1 port ")
    assert (
        "note: no study: none of its cells works" in done.stdout + done.stderr
        and not runs.load(name).environment.studies
    )
