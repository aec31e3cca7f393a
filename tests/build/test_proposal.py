"""What `init` proposes for a crate, from what cargo of this machine and the crate's sources say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.crates import BUNDLE, LISTENS, LOCK, MANIFEST, crate, dependencies, init, locked, write

from rustimg_lab.build import lab_toml, proposal
from rustimg_lab.errors import LabError

pytestmark = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")
SERVER = 'fn main() {{ let port = std::env::var("{}"); std::net::TcpListener::bind(port).unwrap(); "HTTP/1.1 200"; }}\n'


def test_a_binary_that_two_packages_have_is_not_guessed(tmp_path):
    binary = '[[bin]]\nname = "server"\npath = "src/main.rs"\n'
    root = write(
        tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["api", "worker"]\n', "Cargo.lock": LOCK.format("api")}
    )
    for name in ("api", "worker"):
        crate(root / name, {"Cargo.toml": MANIFEST.format(name) + binary}, name)
    with pytest.raises(LabError, match=rf"several packages have a binary 'server'.*{root}/api, {root}/worker"):
        init(root)
    told, _ = init(root / "worker")
    assert (told["package"], told["binary"]) == ("worker", "server")


def test_features_that_a_binary_requires_are_written(tmp_path):
    more = '[features]\ndefault = ["b"]\nb = []\ncli = []\n[[bin]]\nname = "a"\npath = "src/main.rs"\n'
    told, _ = init(crate(tmp_path, {"Cargo.toml": f'{MANIFEST.format("a")}{more}required-features = ["b", "cli"]\n'}))
    assert told["features"] == ["cli"] and told["default_features"] is True


FEATURES = """[features]
default = ["full"]
full = ["no-jemalloc-docs", "fast"]
fast = ["dep:je"]
no-jemalloc-docs = []
program = ["fast", "dep:regex"]
[dependencies]
je = { package = "tikv-jemallocator", version = "0.6", optional = true }
mimalloc = { version = "0.1", optional = true }
regex = { version = "1", optional = true }
"""


def test_an_allocators_feature_is_the_one_that_turns_its_crate_on(tmp_path):
    told, _ = init(crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + FEATURES}))
    assert told["allocators"] == {"jemalloc": "fast", "mimalloc": "mimalloc"}
    assert (told["features"], told["default_features"]) == (["no-jemalloc-docs"], False)  # what else `full` turns on


def test_an_allocator_for_other_systems_alone_is_none_of_the_crates(tmp_path):
    more = """[features]
fast = ["dep:mimalloc", "dep:tikv-jemallocator"]
[target.'cfg(any(windows, target_os = "macos"))'.dependencies]
mimalloc = { version = "0.1", optional = true }
[target.x86_64-unknown-linux-gnu.dependencies]
tikv-jemallocator = { version = "0.6", optional = true }
"""
    told, _ = init(crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + more}))
    assert told["allocators"] == {"jemalloc": "fast"}


@pytest.mark.parametrize(
    ("attribute", "own"),
    [('#[cfg(target_env = "musl")]\n', True), ("", True), ('#[cfg(feature = "mimalloc")]\n', False),
     ("#[cfg(test)]\n", False), ("/// Under its own ", False), ("/* the former:\n", False)],
)  # fmt: skip
def test_an_allocator_that_asks_no_feature_is_found_in_the_sources(tmp_path, attribute, own):
    text = (
        f"use std::alloc::System;\n{attribute}#[global_allocator]\nstatic A: System = System;\n/* */ fn main() {{}}\n"
    )
    folder = crate(tmp_path, {"src/main.rs": text})
    assert init(folder)[0].get("own_allocator", False) == own
    assert lab_toml.allocators(lab_toml.load(folder)) == ["own" if own else "system"]


def test_what_only_tests_and_benches_have_is_not_the_programs(tmp_path):
    own = "#[global_allocator]\nstatic A: std::alloc::System = std::alloc::System;\nfn main() {}\n"
    manifest = MANIFEST.format("a") + '[[bench]]\nname = "b"\npath = "src/bench.rs"\nharness = false\n'
    files = {"Cargo.toml": manifest, "src/bench.rs": own, "tests/t.rs": own, "tests/common/more.rs": own}
    known = 'let icons = [ ("deny.toml", 1), ]; Arg::new("flag"); match name { "deny.toml" => 1, _ => 2 }'
    main = f'fn main() {{ std::fs::read("page.html"); {known} }}\n'  # tables of names, and a flag
    folder = crate(tmp_path, files | {"src/main.rs": main, "page.html": "", "deny.toml": "", "flag/a": ""})
    told = init(folder)[0]
    assert "own_allocator" not in told and told["files"] == {"page.html": "page.html"}


@pytest.mark.parametrize(
    "sources",
    [
        'fn main() { let here = std::env::current_dir().unwrap(); here.join("read"); }\n',
        'const FROM: &str = "read";\nstatic TO: &\'static str = "other";\n',
        'fn main() { std::env::var("FROM").unwrap_or_else(|_| "read".into()); }\n',
        'fn main() { std::env::var("FROM").unwrap_or_else(|_| "./read/a.toml".into()); }\n',
        '#[derive(Parser)]\nstruct O { #[arg(long, default_value = "read/a.toml")] from: PathBuf }\n',
    ],
)
def test_a_folder_that_a_program_reads_is_proposed_however_its_sources_name_it(tmp_path, sources):
    folder = crate(tmp_path, {"src/main.rs": sources, "read/a.toml": "", "unread/a.toml": ""})
    assert init(folder)[0]["files"] == {"read": "read"}


SCRIPT = 'fn main() { let said = std::process::Command::new("%s").arg("x").output(); }\n'


@pytest.mark.parametrize(
    ("more", "files", "asks"),
    [
        ("", {"build.rs": SCRIPT % "git"}, True),
        ("", {"build.rs": 'fn main() { run("git", &["rev-parse", "HEAD"]); }\n'}, True),
        ("", {"build.rs": 'fn main() { run_command("git", &["rev-parse"]); }\n'}, True),
        ("", {"build.rs": 'fn main() { duct::cmd!("git", "log").read(); }\n'}, True),
        ("", {"build.rs": 'fn main() { cmd!(sh, "git rev-parse HEAD").read(); }\n'}, True),
        ("", {"build.rs": "fn main() { run_fun!(git rev-parse HEAD); }\n"}, True),
        ("", {"build.rs": 'fn main() { Command::new("sh").args(["-c", "git describe"]); }\n'}, True),
        ("", {"build.rs": 'fn main() { Command::new("sh").arg("-c").arg("git describe"); }\n'}, True),
        ("", {"build.rs": 'fn main() { println!("git is not asked"); join("git"); }\n'}, False),
        ("", {"build.rs": 'fn main() { println!("cargo:rerun-if-changed=.git/HEAD"); }\n'}, True),
        ("", {"build.rs": 'fn main() { read(folder.join(".git").join("HEAD")); }\n'}, True),
        ("", {"src/main.rs": 'fn main() { skip(".git"); }\n'}, False),  # what it walks through when it runs
        ("", {"src/main.rs": "fn main() { println!(git_version::git_version!()); }\n"}, True),
        ('[build-dependencies]\nvergen-gitcl = "1"\n', {}, True),
        ('[build-dependencies]\nvergen = { version = "8", features = ["build", "git"] }\n', {}, True),
        ('[build-dependencies]\nvergen = { version = "8", features = ["build"] }\n', {}, False),
        ('[dev-dependencies]\nshadow-rs = "1"\n', {}, False),
        ("", {"src/main.rs": SCRIPT % "git"}, False),  # when it runs
    ],
)
def test_a_build_that_asks_git_gets_the_repository(tmp_path, more, files, asks):
    folder = crate(tmp_path / "own", {"Cargo.toml": MANIFEST.format("a") + more} | files)
    told, notes = init(folder)
    assert "git" not in told and any("its build asks git" in note for note in notes) == asks
    (folder.parent / ".git").mkdir()
    way = f'context = ".." and git = true send it that of {folder.parent}'
    assert any(note.endswith(way) for note in init(folder)[1]) == asks
    (folder / ".git").mkdir()
    told, notes = init(folder)
    assert told.get("git", False) == asks and told["packages"] == [] and not any("asks git" in note for note in notes)


@pytest.mark.parametrize("at", [".", "app"])
def test_a_build_that_asks_git_in_a_worktree_is_told_the_way(tmp_path, at):
    folder = crate(tmp_path / at, {"build.rs": SCRIPT % "git"})
    (tmp_path / ".git").write_text("gitdir: /elsewhere/.git/worktrees/a\n")
    (note,) = (each for each in init(folder)[1] if "its build asks git" in each)
    assert note.endswith(f"is a file; `git clone {tmp_path} FOLDER` makes one with a folder")


def test_a_default_feature_that_brings_an_allocator_keeps_its_other_parts(tmp_path):
    told, _ = init(crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + BUNDLE}))
    assert (told["features"], told["default_features"]) == (["tls", "cli"], False)
    assert told["allocators"] == {"mimalloc": "mimalloc"}


STATIC = "struct A;\n#[global_allocator]\nstatic G: A = A;\n"


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({"src/main.rs": f"{STATIC}fn main() {{}}\n"}, True),
        ({"src/main.rs": f"#[cfg(test)]\nmod tests {{\n  fn f() {{}}\n}}\n{STATIC}fn main() {{}}\n"}, True),
        ({"src/main.rs": '#[cfg(feature = "x")]\nmod heap;\nfn main() {}\n', "src/heap.rs": STATIC}, False),
        ({"vendor/b/Cargo.toml": MANIFEST.format("b"), "vendor/b/src/lib.rs": STATIC}, False),  # another crate's
        ({"src/bin/other.rs": f"{STATIC}fn main() {{}}\n"}, False),  # another binary's
        ({"core/Cargo.toml": MANIFEST.format("core"), "core/src/lib.rs": STATIC}, True),  # of a dependency by path
    ],
)
def test_the_sources_of_a_binary_are_its_packages_and_of_what_it_depends_on_by_path(tmp_path, files, own):
    depends = '[dependencies]\ncore = { path = "core" }\n' if "core/Cargo.toml" in files else ""
    rest = "[workspace]\n" + depends
    folder = crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + rest} | files)
    told, _ = init(folder, "a")
    assert told.get("own_allocator", False) == own


@pytest.mark.parametrize(
    ("depends", "features", "own"),
    [
        ("", "", True),
        (", default-features = false", "", False),
        (', default-features = false, features = ["heap"]', "", True),
        (", default-features = false", '[features]\ndefault = ["fast"]\nfast = ["mem/heap"]\n', True),
        (", default-features = false", '[features]\nfast = ["mem/heap"]\n', False),
    ],
)
def test_an_allocator_of_a_library_is_there_with_the_features_that_the_program_takes_of_it(
    tmp_path, depends, features, own
):
    rest = f'{features}[dependencies]\nmem = {{ path = "mem", package = "a-mem"{depends} }}\n[workspace]\n'
    library = MANIFEST.format("a-mem") + '[features]\ndefault = ["heap"]\nheap = []\n'
    files = {"mem/Cargo.toml": library, "mem/src/lib.rs": '#[cfg(feature = "heap")]\nmod heap;\n'}
    files |= {"mem/src/heap.rs": STATIC, "Cargo.toml": MANIFEST.format("a") + rest}
    assert init(crate(tmp_path, files))[0].get("own_allocator", False) == own


def test_a_variable_that_the_build_script_reads_is_named(tmp_path):
    script = (
        'fn main() { let id = std::env::var("BUILD_ID"); std::env::var("OUT_DIR"); std::env::var_os("DEP_Z_ROOT");\n'
        'let at = env_or("BUILD_AT", ""); command.env("GIVEN", id); }\n'
    )
    _, notes = init(crate(tmp_path, {"build.rs": script}))
    assert notes == ["its sources read BUILD_ID, BUILD_AT when they are compiled: see `build_environment` there"]


@pytest.mark.parametrize(
    ("name", "packages", "noted"),
    [
        ("/usr/bin/protoc", ["protobuf-compiler"], False),
        ("sassc", [], True),
        ("/opt/tools/sassc", [], True),
        ("date", [], False),
        ("/bin/sh", [], False),
        ("rc.exe", [], False),
        ("xcrun", [], False),
    ],
)
def test_a_program_of_the_build_is_a_package_or_a_note(tmp_path, name, packages, noted):
    folder = crate(tmp_path, {"build.rs": SCRIPT % name, "src/main.rs": 'fn main() { Tool::new("sassc"); }\n'})
    told, notes = init(folder)
    said = "its build calls sassc, which the builder may lack: `packages` there is for what has it"
    assert told["packages"] == packages and notes == [said] * noted


def test_a_manifest_for_a_nightly_compiler_is_read(tmp_path):
    manifest = 'cargo-features = ["codegen-backend"]\n' + MANIFEST.format("a")
    assert init(crate(tmp_path, {"Cargo.toml": manifest}))[0]["binary"] == "a"


def test_what_a_build_script_calls_is_a_package_of_the_build(tmp_path):
    assert init(crate(tmp_path, {"build.rs": SCRIPT % "python3"}))[0]["packages"] == ["python3"]


@pytest.mark.parametrize(
    ("variable", "environment"),
    [("PORT", {"PORT": "{port}"}), ("APP_LISTEN", {"APP_LISTEN": "{host}:{port}"}), ("MODE", None)],
)
def test_a_server_is_asked_where_its_sources_say_how(tmp_path, variable, environment):
    told, notes = init(crate(tmp_path, {"src/main.rs": SERVER.format(variable)}))
    if environment:
        assert told["serve"]["environment"] == environment and "check" not in told and not notes
    else:
        assert "serve" not in told and told["check"]["arguments"] == ["--version"]
        assert notes == ["it looks like a server: fill in [serve]; until then its check shows only a start"]


CLAP = "#[derive(Parser)]\n#[command(version)]\nstruct Options {\n    /// Where.\n%s\n}\n"


@pytest.mark.parametrize(
    ("sources", "environment", "arguments"),
    [
        (CLAP % '#[arg(long, env = "PORT", default_value_t = 80)]\n    pub port: u16,', {"PORT": "{port}"}, []),
        (CLAP % "#[arg(short, long)]\n    port: u16,\n    #[arg(long)]\n    /// On.\n    bind_to: IpAddr,", {},
         ["--port", "{port}", "--bind-to", "{host}"]),
        (CLAP % '#[clap(long = "listen", default_value = "[::]:80")]\n    on: SocketAddr,', {},
         ["--listen", "{host}:{port}"]),
        (CLAP % '#[clap(default_value = "0.0.0.0:3536", env)]\n    pub host: SocketAddr,\n    #[arg(long)] port: u16,',
         {"HOST": "{host}:{port}"}, []),
        (CLAP % "#[arg(long)]\n    ftp_addr: SocketAddr,\n    #[arg(long)]\n    http_addr: SocketAddr,", {},
         ["--http-addr", "{host}:{port}"]),
        (CLAP % "#[arg(short, default_value_t = 80)]\n    port: u16,\n    #[arg(long)]\n    address: IpAddr,", {},
         ["-p", "{port}", "--address", "{host}"]),
        (CLAP % "#[clap(short = 'P', help = \"The server's\")]\n    port: u16,\n    #[arg(short)]\n    all: bool,", {},
         ["-P", "{port}"]),
        ("fn listen() { Arg::new(\"port\").short('p'); Arg::new(\"bind\").short('b').long(\"bind\"); }\n", {},
         ["-p", "{port}", "--bind", "{host}"]),
        ("struct O { #[argh(option, default = 80)]\n  listen_addr: String }\n", {}, ["--listen-addr", "{host}:{port}"]),
        ('fn listen() { Arg::new("p").long("port"); Arg::new("r").long("report"); }\n', {}, ["--port", "{port}"]),
        ('fn listen() { pargs.opt_value_from_str("--port"); let db = "--db-port"; }\n', {}, ["--port", "{port}"]),
        ('fn listen() { var("DB_PORT"); var("HTTP_PORT"); var("REDIS_ADDR"); var("BIND_ADDR"); var("LISTEN_FD"); }\n',
         {"HTTP_PORT": "{port}", "BIND_ADDR": "{host}"}, []),
        ('fn listen() { "--console-address"; "--prometheus-port"; "--port"; }\n', {}, ["--port", "{port}"]),
        ('fn listen() { "--allow-hosts"; "--no-bind"; "--sni-binding"; "--port"; "--host"; }\n', {},
         ["--port", "{port}", "--host", "{host}"]),
        ('fn listen() { var("PORT"); var("TOOLS_WASM_BINDGEN"); var("BINDINGS_DIR"); }\n', {"PORT": "{port}"}, []),
        ('fn listen() { "--port"; "--bindir"; "--forward-host-env"; "--listener-skip-inbox"; "--inspect-host"; }\n', {},
         ["--port", "{port}"]),
        ('const AT: &str = "AN_ADDR_PORT";\nfn listen() { var(vars::AT); }\n', {"AN_ADDR_PORT": "{host}:{port}"},
         []),
        ("fn read(new: &str, old: &str) -> String { var(new).or_else(|_| var(old)) }\n"
         'fn listen() { read("A_PORT", "port"); read("A_HOST", "host"); other("A_IP"); }\n',
         {"A_PORT": "{port}", "A_HOST": "{host}"}, []),
        ('fn listen() { var("A_PORT"); var("HOSTNAME"); var("A_TEST_HOST"); }\n', {"A_PORT": "{port}"}, []),
        ('fn listen() { var("PORT"); var("DOCKER_HOST"); }\n', {"PORT": "{port}"}, []),
        ('fn listen() { var("HTTP_PORT"); var("FLIGHT_ADDR"); var("HOST_IP"); }\n',
         {"HTTP_PORT": "{port}", "HOST_IP": "{host}"}, []),
        ('fn listen() { var("A_PORT"); var("STORE_EMULATOR_HOST").unwrap_or("localhost:8086".into()); }\n',
         {"A_PORT": "{port}"}, []),
        ('fn listen() { var("RAFT_ADDR"); var("API_ADDR"); }\n', {"API_ADDR": "{host}:{port}"}, []),
        ("#[arg(long)] port: u16, #[arg(long)] listen_too: bool, #[arg(long)] host: String\nfn f() { listen() }\n", {},
         ["--port", "{port}", "--host", "{host}"]),
    ],
)  # fmt: skip
def test_variables_or_flags_of_a_servers_address_are_proposed(tmp_path, sources, environment, arguments):
    serve = init(crate(tmp_path, {"src/main.rs": LISTENS, "src/options.rs": sources}))[0]["serve"]
    assert (serve["environment"], serve["arguments"]) == (environment, arguments)


@pytest.mark.parametrize(
    ("names", "sources", "asked", "noted"),
    [
        (["axum"], '.route("/api/users", a).route("/healthz", b)', {"path": "/healthz"}, ""),
        (["actix-web"], '#[get("/health_check")]', {"path": "/health_check"}, ""),
        (["axum"], '.route("/", a)', {"path": "/"}, ""),
        (["axum"], 'write!(s, "200 OK\\r\\nConnection: close\\r\\n")', {"keep_alive": False}, ""),
        (["tonic", "tonic-health"], "Server::builder()", {"grpc": ""}, ""),
        (["tonic"], "Server::builder()", {"http": 2}, "it has no crate tonic-health: that it answers is checked"),
    ],
)
def test_what_a_server_is_asked_is_what_tells_its_health(tmp_path, names, sources, asked, noted):
    text = f'fn main() {{ var("PORT"); {sources} }}\n'
    folder = crate(tmp_path, {"Cargo.toml": dependencies(*names), "src/main.rs": text})
    told, notes = init(folder)
    assert told["serve"]["environment"] == {"PORT": "{port}"} and asked.items() <= told["serve"].items()
    assert "".join(notes).startswith(noted) and bool(noted) == bool(notes)
    assert lab_toml.load(folder).serve.grpc == asked.get("grpc")


ROCKET = {"ROCKET_ADDRESS": "{host}", "ROCKET_PORT": "{port}"}


@pytest.mark.parametrize(
    ("name", "sources", "environment"),
    [
        ("rocket", "", ROCKET),
        ("rocket", 'rocket::build().mount("/", r); var("BACKEND_PORT")', ROCKET),
        ("rocket", 'rocket::custom(figment.merge(("port", var("PORT"))))', {"PORT": "{port}"}),
        ("rocket", 'rocket::build().configure(c(var("PORT")))', {"PORT": "{port}"}),
        ("rocket", 'set_var("ROCKET_PORT", var("PORT")); rocket::build()', {"PORT": "{port}"}),
        ("leptos_axum", 'bind(o.site_addr); var("BACKEND_PORT")', {"LEPTOS_SITE_ADDR": "{host}:{port}"}),
        ("leptos_axum", 'bind(([0, 0, 0, 0], var("PORT")))', {"PORT": "{port}"}),
    ],
)
def test_a_server_whose_crate_reads_variables_of_its_own_is_passed_those(tmp_path, name, sources, environment):
    crates = [name] + (["axum"] if name != "rocket" else [])
    main = f"fn main() {{ {sources}; }}\n"
    told, notes = init(crate(tmp_path, {"Cargo.toml": dependencies(*crates), "src/main.rs": main}))
    assert told["serve"]["environment"] == environment and not notes


@pytest.mark.parametrize(
    ("names", "sources", "arguments", "noted"),
    [
        (["clap"], '#[command(name = "a", version)]', ["--version"], False),
        (["clap"], "#[derive(Parser)]", ["--help"], False),
        (["argh"], "#[derive(FromArgs)]", ["--help"], False),
        (["ureq"], "", ["--version"], True),
        (["rustls-native-certs"], "", ["--version"], True),
    ],
)
def test_a_tool_is_called_as_it_knows_and_one_that_asks_over_tls_is_told_so(tmp_path, names, sources, arguments, noted):
    text = f"{sources}\nfn main() {{}}\n"
    told, notes = init(crate(tmp_path, {"Cargo.toml": dependencies(*names), "src/main.rs": text}))
    assert told["check"]["arguments"] == arguments and "serve" not in told
    assert (notes == ["it asks over TLS: take `--with ca-certificates`, and a check that fetches"]) == noted


@pytest.mark.parametrize(
    ("sources", "noted"),
    [
        ("use chrono::Local;\nfn now() { Local::now(); }", "--with tzdata"),
        ("fn now() { jiff::Zoned::now(); }", "--with tzdata"),
        ("fn now() { chrono::Utc::now(); }", ""),
        ("fn f() { std::env::current_exe().unwrap().parent().unwrap(); }", "begin with /a/"),
        ("fn f() { let path = dirs::config_dir(); }", "HOME"),
        ('fn f() { std::env::var("HOME"); directories::ProjectDirs::from(a, b, c); }', "a home folder"),
        ("fn f() { let mut p = current_exe().unwrap();\np.pop(); }", "begin with /a/"),
        ("fn f() { std::process::Command::new(std::env::current_exe().unwrap()); }", ""),
        ("fn f() { let path = std::env::temp_dir(); }", "--with tmp"),
        ("use tempfile::NamedTempFile;", "--with tmp"),
        ('fn f() { fs::read("/etc/ssl/certs/ca-certificates.crt"); }', "--with ca-certificates"),
        ('const ZONES: &str = "/usr/share/zoneinfo/";', "--with tzdata"),
        ('fn f() { fs::read_link("/etc/localtime"); }', "--with tzdata"),
        (
            'fn f() { File::open(Path::new("/etc/mime.types")); }',
            "its sources name /etc/mime.types, which no image has",
        ),
        ('const WORDS: &str = "/usr/share/dict/words";', "its sources name /usr/share/dict/words, which"),
        ('fn f() { fs::read("/usr/share/a/theme.css"); fs::read("/etc/hosts"); fs::read("/etc/a/a.toml"); }', ""),
        ('fn f() { println!("see /usr/share/doc/b/README"); skip("/usr/share/fonts/b"); }', ""),
        ('use std::process::{self, Command};\nfn f() { Command::new("git").arg("log"); }', "call git when it runs"),
        ('async fn f() { tokio::process::Command::new("ffmpeg").spawn(); }', "call ffmpeg when it runs"),
        (
            'use clap::{Arg, Command};\nfn f() { Command::new("add"); std::process::Command::new("git"); }',
            "sources call git when it runs",
        ),
        ('async fn f() { tokio::process::Command::new("/usr/bin/git").spawn(); }', "call git when it runs"),
        (
            'use std::process::Command;\nconst TOOL: &str = "ffmpeg";\nfn f() { Command::new(TOOL); }',
            "call ffmpeg when",
        ),
        (
            'use std::process::Command;\nfn f() { let git = var("GIT").unwrap_or("git".into()); Command::new(&git) }',
            "call git when it runs",
        ),
        ('use std::process::Command;\nfn f() { let at = "x"; let b = find(); Command::new(b); }', ""),
        ('use std::process::Command;\nfn f() { let b = "x"; }\nfn g() { let b = find(); Command::new(b); }', ""),
        ('use std::process::Command;\nfn f() { let b = env::var("TOOL").unwrap(); Command::new(b); }', ""),
        ('use std::process::Command;\nfn f() { run(which("btrfs").unwrap()); }', "call btrfs when it runs"),
        ("fn f() { UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)); }", ""),
        ('use std::process::Command;\nfn f() { Command::new("cmd"); Command::new("a"); }', ""),
        ('use clap::Command;\nfn f() { Command::new("tool").get_matches(); }', ""),
        ('use std::process::Command;\nfn f() { ClapCommand::new("b"); clap::Command::new("c"); }', ""),
    ],
)
def test_what_a_program_looks_for_in_its_image_is_told(tmp_path, sources, noted):
    _, notes = init(crate(tmp_path, {"src/main.rs": f"{sources}\nfn main() {{}}\n"}))
    assert len(notes) == bool(noted) and all(noted in each for each in notes)


@pytest.mark.parametrize(
    ("sources", "noted"),
    [
        ('std::process::Command::new(std::env::current_exe().unwrap().with_file_name("b-worker"))', True),
        ('let mut at = env::current_exe().unwrap(); at.pop(); at.push(format!("b-worker{EXE_SUFFIX}"))', True),
        ('std::process::Command::new("b-worker")', True),
        ('println!("b-worker"); std::env::current_exe()', False),
    ],
)
def test_another_binary_of_the_package_that_the_program_calls_is_told(tmp_path, sources, noted):
    more = {"src/main.rs": f"fn main() {{ {sources}; }}\n", "src/bin/b-worker.rs": "fn main() {}\n"}
    notes = init(crate(tmp_path, more), "a")[1]
    said = "it calls b-worker of the same package, and its image has one binary alone"
    assert notes == [said] * noted


def test_variables_that_sources_read_when_compiled_are_named(tmp_path):
    names = 'option_env!("RELEASE_ID"), dotenv!("API_URL"), env!("SET"), env!("CARGO_PKG_NAME"), env!("GIVEN")'
    text = f'fn main() {{ println!("{{:?}}", ({names})); }}'
    folder = crate(tmp_path, {
        "src/main.rs": text, "build.rs": 'fn main() { println!("cargo:rustc-env=SET=1"); }',
        ".cargo/config.toml": '[env]\nGIVEN = "1"\n',
    })  # fmt: skip
    _, notes = init(folder)
    assert notes == ["its sources read RELEASE_ID, API_URL when they are compiled: see `build_environment` there"]
    assert '\n# build_environment = { RELEASE_ID = "", API_URL = "" }  # what' in (folder / "lab.toml").read_text()


def test_a_variable_that_a_build_script_takes_from_the_environment_and_passes_on_is_named(tmp_path):
    script = """fn main() {
    let sha = std::env::var("GIT_SHA").unwrap_or_else(|_| "unknown".into());
    println!("cargo:rustc-env=GIT_SHA={sha}");
    println!("cargo:rustc-env=OWN=1");
    println!("cargo:rerun-if-env-changed=CHANNEL");
    println!("cargo:rustc-env=CHANNEL=dev");
}
"""
    main = 'fn main() { println!("{}{}{}", env!("GIT_SHA"), env!("OWN"), env!("CHANNEL")); }\n'
    folder = crate(tmp_path, {"build.rs": script, "src/main.rs": main})
    assert "read GIT_SHA, CHANNEL when they are compiled" in init(folder)[1][0]


SQLX = 'sqlx = { version = "0.8", default-features = false, features = ["postgres"] }\n'
OPTIONAL = '[dependencies]\nsqlx = { version = "0.8", default-features = false, optional = true }\n'


@pytest.mark.parametrize(
    ("dependencies", "services"),
    [
        (f"[dependencies]\n{SQLX}", ["postgres"]),
        ('[dependencies]\ndeadpool-redis = "0.20"\ntokio-postgres = "0.7"\n', ["postgres", "redis"]),
        ('[dependencies]\nsqlx = { version = "0.8", features = ["sqlite"] }\n', []),
        ('[dependencies]\nactix-session = { version = "0.10", features = ["redis-session-rustls"] }\n', ["redis"]),
        ('[dependencies]\ntower-sessions-mongodb-store = "0.3"\nredis-protocol = "6"\n', ["mongo"]),
        (f"[dev-dependencies]\n{SQLX}", []),
        (f'[features]\ndefault = ["pg"]\npg = ["dep:sqlx", "sqlx/postgres"]\n{OPTIONAL}', ["postgres"]),
        (f'[features]\ndefault = ["pg"]\npg = ["dep:sqlx", "sqlx?/postgres"]\n{OPTIONAL}', ["postgres"]),
        (f'[features]\npg = ["dep:sqlx", "sqlx/postgres"]\n{OPTIONAL}', []),
    ],
)
def test_a_service_that_a_crate_talks_to_is_proposed(tmp_path, dependencies, services):
    told, notes = init(crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + dependencies}))
    assert "services" not in told
    assert notes == ([f"it seems to use {', '.join(services)}: see [[services]] there"] if services else [])
    path = tmp_path / "lab.toml"
    text = re.sub(r"^# (\[\[services|name|image|environment = \{ POSTGRES|ready)", r"\1", path.read_text(), flags=re.M)
    path.write_text(text)  # as a user takes it
    app = lab_toml.load(tmp_path)
    assert [each.name for each in app.services] == services
    assert all(each.ready and each.image.startswith(f"{each.name}:") for each in app.services)


def test_what_builds_do_not_get_and_own_profiles_are_told(tmp_path):
    more = '[dependencies]\nwire = { path = "../wire" }\n[profile.dist]\ninherits = "release"\n'
    folder = crate(tmp_path / "a", {"Cargo.toml": MANIFEST.format("a") + more})
    crate(tmp_path / "wire", {"src/lib.rs": ""}, "wire")
    (folder / "schemas").symlink_to("../shared")
    (folder / "lab.toml").unlink()
    path, notes = proposal.init(folder, "", str)
    assert f"depends on wire: {tmp_path}/wire/Cargo.toml is outside of {folder}; context = " in notes[0]
    assert notes[1].startswith(f"schemas is a link that leads out of {folder}, to ../shared")
    text = path.read_text()
    assert '# context = ".."' in text and '# profile = "dist"  # a profile of the crate' in text
    path.write_text(
        text.replace('# context = ".."', 'context = ".."').replace('# profile = "dist"', 'profile = "dist"')
    )
    app = lab_toml.load(folder)
    assert (app.directory, app.subdirectory, app.profile) == (tmp_path, "a", "dist")


def test_the_context_holds_workspaces_that_dependencies_outside_of_the_crates_own_inherit_from(tmp_path):
    """An app that no workspace has; a member of one above it, and one of another, which inherits where a crate is."""
    inherits = '[package]\nname = "{}"\nversion.workspace = true\nedition = "2021"\n'
    root = '[workspace]\nmembers = ["{}"]\nexclude = ["grp"]\n[workspace.package]\nversion = "0.1.0"\n'
    needs = '[dependencies]\nlib = {{ path = "../lib" }}\n{}[workspace]\n'
    folder = crate(tmp_path / "ws/grp/app", {"Cargo.toml": MANIFEST.format("a") + needs.format("")})
    write(tmp_path / "ws", {"Cargo.toml": root.format("grp/lib"), "grp/lib/src/lib.rs": "", "src/main.rs": ""})
    write(tmp_path / "ws/grp/lib", {"Cargo.toml": inherits.format("lib")})
    _, notes = init(folder)
    said = f'builds do not get lib, its workspace, outside of {folder}: `context = "../.."` there sends them'
    text = (folder / "lab.toml").read_text()
    assert notes[0] == said and '# context = "../.."' in text and "do not get lib, its workspace\n" in text
    (folder / "lab.toml").write_text('context = ".."\n')
    with pytest.raises(LabError, match=rf"lib/Cargo.toml depends on its workspace: {tmp_path}/ws/Cargo.toml is outs"):
        lab_toml.load(folder)
    (folder / "lab.toml").write_text('context = "../.."\n')
    (tmp_path / "ws/.dockerignore").write_text("/src\n")  # of the workspace's own package, which no build compiles
    assert lab_toml.load(folder).directory == tmp_path / "ws"

    other = {"Cargo.toml": root.format("a") + '[workspace.dependencies]\nb = { path = "../../third/b" }\n'}
    other["Cargo.toml"] += 'unused = { path = "../../../unused" }\n'
    other |= {"a/Cargo.toml": MANIFEST.format("o") + "[dependencies]\nb.workspace = true\n", "a/src/lib.rs": ""}
    write(tmp_path / "ws/other", other)
    crate(tmp_path / "third/b", {"src/lib.rs": ""}, "b")
    write(
        folder, {"Cargo.toml": MANIFEST.format("a") + '[dependencies]\no = { path = "../../other/a" }\n[workspace]\n'}
    )
    assert init(folder)[1][0].startswith("builds do not get o, its workspace, b, outside of ")
    assert '# context = "../../.."' in (folder / "lab.toml").read_text()


@pytest.mark.parametrize(
    ("line", "context"),
    [
        ('read_to_string("../VERSION").unwrap_or("dev".into()); println!("cargo:rerun-if-changed=../VERSION")', ".."),
        ('Path::new(&folder).join("../../proto")', "../.."),
        ('println!("cargo:rerun-if-changed=../NONE"); read("../in/.git/HEAD"); read("../app/made"); "{}/../x"', ""),
    ],
)
def test_what_a_build_script_reads_above_the_crate_is_in_the_context(tmp_path, line, context):
    folder = crate(tmp_path / "in/app", {"build.rs": f"fn main() {{ {line}; }}\n", "made": ""})
    write(tmp_path, {"in/VERSION": "1", "in/.git/HEAD": "", "proto/a.proto": "", "in/x": ""})
    notes = init(folder)[1]
    assert (f'# context = "{context}"' in (folder / "lab.toml").read_text()) == bool(context)
    assert [f'`context = "{context}"` there sends' in each for each in notes if "outside of" in each] == [True] * bool(
        context
    )


def test_what_the_compiler_reads_above_the_crate_is_in_the_context(tmp_path):
    """An include goes by the source's folder, an embedded folder by the package's; what is not there is not sent."""
    of_source = 'const A: &str = include_str!("../../motd"); const B: &str = include_str!("../../../none");'
    folder = crate(tmp_path / "in/app", {"src/a.rs": of_source})
    write(tmp_path, {"in/motd": "", "web/a": ""})
    assert '# context = ".."' in (init(folder), (folder / "lab.toml").read_text())[1]
    (folder / "src/b.rs").write_text('#[derive(RustEmbed)] #[folder = "../../web"] struct Web;')
    assert "builds do not get ../../motd, ../../web, outside of " in "".join(init(folder)[1])
    assert '# context = "../.."' in (folder / "lab.toml").read_text()


def test_a_dependency_outside_that_inherits_nothing_needs_no_workspace(tmp_path):
    folder = crate(
        tmp_path / "ws/app",
        {"Cargo.toml": MANIFEST.format("a") + '[dependencies]\nb = { path = "../in/b" }\n[workspace]\n'},
    )
    write(tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["ws/in/b"]\n'})
    crate(tmp_path / "ws/in/b", {"src/lib.rs": ""}, "b")
    notes = init(folder)[1]
    assert len(notes) == 1 and 'context = ".."' in notes[0]


def test_what_must_be_done_before_a_build_is_a_note(tmp_path):
    folder = crate(tmp_path, {".dockerignore": "Cargo.lock\n"})
    assert init(folder)[1] == [
        "cargo needs Cargo.lock: .dockerignore leaves Cargo.lock out, by its line 'Cargo.lock'; "
        "add the line !Cargo.lock"
    ]
    (folder / "Cargo.lock").unlink()
    assert "no Cargo.lock there; make one with `cargo generate-lockfile`" in init(folder)[1][0]


@pytest.mark.parametrize("name", ["build.rs", "src/main.rs", "made/script.rs", "src/cli.rs"])
def test_a_source_that_dockerignore_hides_is_a_note_and_builds_are_refused(tmp_path, name):
    """Without build.rs cargo would build, and another program."""
    more = (
        'build = "made/script.rs"\n[[bin]]\nname = "a"\npath = "src/cli.rs"\n'
        if name in ("made/script.rs", "src/cli.rs")
        else ""
    )
    sources = dict.fromkeys(("build.rs", "made/script.rs", "src/cli.rs"), "fn main() {}\n")
    files = {"Cargo.toml": MANIFEST.format("a") + more, ".dockerignore": f"{name}\n", **sources}
    folder = crate(tmp_path, files)
    said = f"{Path(name).name}: .dockerignore leaves {name} out, by its line '{name}'; add the line !{name}"
    assert init(folder)[1] == [f"cargo needs {said}"]
    with pytest.raises(LabError, match=re.escape(said)):
        lab_toml.load(folder)


def test_variables_that_a_build_script_reads_are_told(tmp_path):
    lines = "".join(f'println!("cargo:rerun-if-env-changed={name}"); ' for name in ("APP_VERSION", "CC", "src/x"))
    script = f"fn main() {{ {lines}}}\n"
    assert init(crate(tmp_path, {"build.rs": script}))[1] == [
        "its sources read APP_VERSION when they are compiled: see `build_environment` there"
    ]


@pytest.mark.parametrize(
    ("call", "noted"),
    [('std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/a"))', True),
     ('std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("a")', True),
     ('include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/a"))', False)],
)  # fmt: skip
def test_files_below_the_folder_of_the_build_are_told(tmp_path, call, noted):
    tests = '#[cfg(test)]\nmod tests { fn f() { env!("CARGO_MANIFEST_DIR"); } }\n'
    notes = init(crate(tmp_path, {"src/main.rs": f"fn main() {{ let _ = {call}; }}\n{tests}"}))[1]
    assert any("CARGO_MANIFEST_DIR" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("code", "ports"),
    [('TcpListener::bind("0.0.0.0:3000")', [3000]), ('TcpListener::bind("[::]:3000")', [3000]),
     ('HttpServer::new(f).bind(("127.0.0.1", 8080))', [8080]),
     ("axum::serve(SocketAddr::from(([0, 0, 0, 0], 3000)))", [3000]),
     ('let addr = "127.0.0.1:8080"; TcpListener::bind(addr)', [8080]),
     ('Server::build().bind("web", "0.0.0.0:8080", f)', [8080]), ('Service::start_on("0.0.0.0:8080")', [8080]),
     ('serve(UdpSocket::bind("0.0.0.0:5353")); println!("at {}", "0.0.0.0:8080")', None),
     ('TcpListener::bind("0.0.0.0:3000"); TcpListener::bind("0.0.0.0:9000")', None),
     ('TcpListener::bind("127.0.0.1:0")', None), ('TcpListener::bind(x); connect("127.0.0.1:6379")', None)],
)  # fmt: skip
def test_a_port_that_the_sources_name_is_the_servers_own(tmp_path, code, ports):
    tests = '#[cfg(test)]\nmod tests { fn f() { TcpListener::bind("127.0.0.1:9999"); } }\n'
    told, notes = init(crate(tmp_path, {"src/main.rs": f"fn main() {{ {code}; }}\n{tests}"}))
    assert told.get("ports") == ports
    assert ("serve" in told) == bool(ports) and ("it looks like a server" in str(notes)) == (not ports)


def test_programs_that_the_configuration_names_are_in_the_packages(tmp_path):
    configuration = '[target.x86_64-unknown-linux-gnu]\nlinker = "clang"\nrustflags = "-Clink-arg=-fuse-ld=mold"\n'
    assert init(crate(tmp_path, {".cargo/config.toml": configuration}))[0]["packages"] == ["clang", "mold"]


@pytest.mark.parametrize("by_program", [True, False])
@pytest.mark.parametrize(
    ("source", "packages"), [("git+https://x.example/b#0123", ["git"]), ("registry+https://github.com/x", [])]
)
def test_git_is_in_the_packages_where_cargo_calls_it_for_a_dependency(tmp_path, source, packages, by_program):
    lock = LOCK.format("b") + f'source = "{source}"\n'
    configuration = f"[net]\ngit-fetch-with-cli = {str(by_program).lower()}\n"
    folder = crate(tmp_path, {".cargo/config.toml": configuration, "Cargo.lock": lock})
    assert init(folder)[0]["packages"] == (packages if by_program else [])


@pytest.mark.parametrize(
    ("crates", "packages"),
    [
        (["prost-build"], ["protobuf-compiler"]),
        (["prost", "capnpc"], ["capnproto"]),
        (["prost-build", "protoc-bin-vendored"], []),
        (["prost"], []),
        (["openssl", "openssl-sys"], ["libssl-dev", "pkg-config"]),
        (["openssl-sys", "openssl-src"], []),
        (["alsa-sys", "pq-sys", "pq-src"], ["libasound2-dev", "pkg-config"]),
        (["libsqlite3-sys"], ["libsqlite3-dev", "pkg-config"]),
        (["hidapi", "libdbus-sys"], ["libdbus-1-dev", "libudev-dev", "pkg-config"]),
        (["librocksdb-sys", "yeslogic-fontconfig-sys"], ["libclang-dev", "libfontconfig-dev", "pkg-config"]),
        (["libxml", "libxml bindgen"], ["libclang-dev", "libxml2-dev", "pkg-config"]),
        (["ng-sys", "ng-sys cmake", "aws-lc-sys", "aws-lc-sys bindgen"], ["cmake"]),
    ],
)
def test_what_locked_crates_call_or_link_in_a_build_is_in_the_packages(tmp_path, crates, packages):
    depended = dict(each.split() for each in crates if " " in each)
    crates = [each for each in crates if " " not in each]
    lock = locked({name: depended.get(name, "") for name in ["a", *crates]})
    needed = "[dependencies]\n" + "".join(f'{name} = "*"\n' for name in crates)
    folder = crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + needed, "Cargo.lock": lock})
    assert init(folder)[0]["packages"] == packages


def test_packages_are_those_of_features_that_are_on_where_cargo_has_all_crates(tmp_path):
    needed = '[features]\ntls = ["dep:openssl-sys"]\n[dependencies]\nopenssl-sys = { path = "ssl", optional = true }\n'
    library = (
        MANIFEST.format("openssl-sys") + '[target."cfg(windows)".build-dependencies]\ncmake = { path = "../cmake" }\n'
    )
    lock = locked({"a": "openssl-sys", "cmake": "", "openssl-sys": "cmake"})
    more = {"ssl/Cargo.toml": library, "cmake/Cargo.toml": MANIFEST.format("cmake"), "Cargo.lock": lock}
    sources = {"ssl/src/lib.rs": "", "cmake/src/lib.rs": ""}
    off = MANIFEST.format("a") + needed
    assert init(crate(tmp_path, {"Cargo.toml": off} | more | sources))[0]["packages"] == []
    on = off.replace("tls = [", 'default = ["tls"]\ntls = [')
    told, notes = init(crate(tmp_path, {"Cargo.toml": on} | more))
    assert told["packages"] == ["libssl-dev", "pkg-config"] and not any("cargo fetch" in each for each in notes)

    (tmp_path / "cmake" / "src" / "lib.rs").unlink()  # as what is not downloaded, cargo cannot read it
    told, notes = init(tmp_path)
    assert told["packages"] == ["cmake", "libssl-dev", "pkg-config"] and "cargo fetch" in str(notes)


def test_a_toolchain_file_makes_rustup_download_nothing(tmp_path):
    folder = crate(tmp_path, {"rust-toolchain.toml": '[toolchain]\nchannel = "1.81.0"\n'})
    before = (
        subprocess.run(["rustup", "toolchain", "list"], capture_output=True).stdout if shutil.which("rustup") else b""
    )
    assert init(folder)[0]["binary"] == "a"
    assert before == (subprocess.run(["rustup", "toolchain", "list"], capture_output=True).stdout if before else b"")


def test_a_registry_that_only_the_configuration_names_is_known(tmp_path):
    dependency = '[dependencies]\nb = { version = "1", registry = "company" }\n'
    registry = '[registries.company]\nindex = "sparse+https://registry.invalid/"\n'
    folder = crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + dependency, ".cargo/config.toml": registry})
    assert init(folder)[0]["binary"] == "a"


def test_two_gigabytes_that_dockerignore_leaves_out_cost_nothing(tmp_path):
    folder = crate(tmp_path / "a", {".dockerignore": "data\n"})
    (folder / "lab.toml").unlink()
    (folder / "data").mkdir()
    for number in range(4):
        with (folder / "data" / f"{number}").open("wb") as file:
            file.truncate(1 << 29)
    os.mkfifo(folder / "pipe")
    code = (
        "import sys; from pathlib import Path; from rustimg_lab.build import proposal, sources; "
        "proposal.init(Path(sys.argv[1]), '', str); sources.copy(Path(sys.argv[1]), Path(sys.argv[2])); "
        "print(Path('/proc/self/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code, folder, tmp_path], capture_output=True, text=True, check=True)
    assert int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) < 200 << 10  # KiB; rusage has the parent's too
    assert sum(path.stat().st_size for path in tmp_path.glob("context-*/**/*") if path.is_file()) < 1 << 20


def test_without_cargo_on_this_machine_that_of_the_builder_is_asked(tmp_path, monkeypatch):
    def builder() -> str:
        raise LabError("no Docker engine answers")

    folder = crate(tmp_path)
    (folder / "lab.toml").unlink()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="no Docker engine answers"):
        proposal.init(folder, "", builder)
    assert not (folder / "lab.toml").exists()


@pytest.mark.parametrize("manifest", ["[package]\nname = 1\n", "[package\n"])
def test_what_cargo_cannot_read_is_one_line(tmp_path, manifest):
    folder = crate(tmp_path, {"Cargo.toml": manifest})
    with pytest.raises(LabError) as told:
        init(folder)
    assert str(folder) in str(told.value) and len(str(told.value).splitlines()) == 1
