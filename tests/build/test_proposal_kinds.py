"""What `init` proposes for crates of other kinds: thin binaries over libraries, features without options, what is built
for others, what is made at run time, and names that are of something else."""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from support.crates import BUNDLE, LISTENS, LOCK, MANIFEST, crate, dependencies, init, write

from rustimg_lab.build import dockerfile, lab_toml, sources
from rustimg_lab.cli import main, output
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix

pytestmark = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")
LIBRARY = (
    MANIFEST.format("app")
    + '[dependencies]\naxum = "*"\nreqwest = "*"\nsqlx = { version = "*", features = ["postgres"] }\n'
)
ROOTS = (
    LOCK.format("a")
    + """
[[package]]
name = "other"
version = "1.0.0"
dependencies = ["rustls-native-certs"]

[[package]]
name = "rustls-native-certs"
version = "0.8.0"
"""
)
TELLS = """use std::env::{temp_dir, var};
#[global_allocator]
static A: Other = Other;
pub fn run() { var("HTTP_PORT"); env!("BUILD_ID"); Tera::new("templates/**/*"); temp_dir(); }
pub fn routes() { router.route("/healthz", get(f)); }
"""


@pytest.mark.parametrize(
    ("root", "named"),
    [
        (
            '[workspace]\nmembers = ["server", "app"]\n[workspace.dependencies]\napp = { path = "app" }\n',
            "app.workspace = true",
        ),
        ('[workspace]\nmembers = ["server", "app"]\n', 'app = { path = "../app" }'),
    ],
)
def test_what_a_binary_is_linked_with_is_the_programs_however_the_manifest_names_it(tmp_path, root, named):
    write(tmp_path, {
        "Cargo.toml": root, "Cargo.lock": LOCK.format("server"), "templates/a.html": "",
        "app/Cargo.toml": LIBRARY, "app/src/lib.rs": TELLS, "app/build.rs": 'fn main() { Command::new("npm"); }\n',
        "server/Cargo.toml": f'{MANIFEST.format("server")}[dependencies]\n{named}\n',
        "server/src/main.rs": "fn main() { app::run(); }\n",
    })  # fmt: skip
    told, notes = init(tmp_path / "server")
    assert told["own_allocator"] and told["files"] == {"../templates": "templates"} and told["packages"] == ["npm"]
    assert (told["serve"]["environment"], told["serve"]["path"]) == ({"HTTP_PORT": "{port}"}, "/healthz")
    said = "\n".join(notes)
    assert all(each in said for each in ("postgres", "BUILD_ID", "--with tmp", "--with ca-certificates"))


@pytest.mark.parametrize(("lib", "at"), [('path = "wire.rs"\n', "wire.rs"), ('path = "lib/wire.rs"\n', "lib/wire.rs")])
@pytest.mark.parametrize("place", ["../wire", "in/wire"])
def test_a_library_that_is_linked_is_the_programs_wherever_it_is(tmp_path, lib, at, place):
    more = f'[dependencies]\nwire = {{ path = "{place}" }}\n[workspace]\nexclude = ["in"]\n'
    folder = crate(tmp_path / "app", {"Cargo.toml": MANIFEST.format("a") + more, "motd.txt": "", "words/a": ""})
    heap = f"[lib]\n{lib}[features]\nheap = []\n[dependencies]\ntop = {{ workspace = true }}\naxum = '*'\n"
    root = '[workspace]\nmembers = ["wire", "top"]\n[workspace.dependencies]\ntop = { path = "top" }\n'
    write((folder / place).parent, {
        "Cargo.toml": root, "top/Cargo.toml": MANIFEST.format("top"), "top/src/lib.rs": 'fn f() { read("words/a"); }\n',
        "wire/Cargo.toml": MANIFEST.format("wire") + heap, "wire/src/main.rs": 'fn main() { var("OTHER_PORT"); }\n',
        f"wire/{at}": TELLS.replace("temp_dir();", 'read_to_string("motd.txt");'),
        "wire/build.rs": 'fn main() { Command::new("npm"); }\n', "wire/tests/t.rs": 'fn f() { env!("OF_TESTS"); }\n',
    })  # fmt: skip
    told, notes = init(folder)
    assert told["own_allocator"] and told["files"] == {"motd.txt": "motd.txt", "words": "words"}
    assert told["packages"] == ["npm"] and told["serve"]["environment"] == {"HTTP_PORT": "{port}"}
    assert any("its sources read BUILD_ID when they are compiled" in note for note in notes)
    library = (folder / place / at).read_text()
    (folder / place / at).write_text(library.replace("#[global", '#[cfg(feature = "heap")]\n#[global'))
    assert "own_allocator" not in init(folder)[0]


def test_what_is_linked_with_tests_or_build_scripts_alone_is_not_the_programs(tmp_path):
    helper = 'pub fn f() { var("MOCK_PORT"); TcpListener::bind(a); read("fixture.json"); temp_dir(); }\n'
    own = "#[global_allocator]\nstatic A: Counting = Counting;\n"
    more = '[dev-dependencies]\nhelper = { path = "helper" }\n[build-dependencies]\ncodegen = { path = "codegen" }\n'
    told, notes = init(crate(tmp_path, {
        "Cargo.toml": f'{MANIFEST.format("a")}{more}[workspace]\nmembers = ["helper", "codegen"]\n', "fixture.json": "",
        "helper/Cargo.toml": MANIFEST.format("helper"), "helper/src/lib.rs": helper + own,
        "codegen/Cargo.toml": MANIFEST.format("codegen"), "codegen/src/lib.rs": 'fn f() { Command::new("protoc"); }\n',
    }))  # fmt: skip
    assert not {"own_allocator", "files", "serve"} & told.keys() and not notes
    assert told["packages"] == ["protobuf-compiler"]


def test_a_dependency_that_a_default_feature_names_itself_stays(tmp_path):
    more = (
        '[features]\ndefault = ["dep:log", "tls"]\ntls = []\n[dependencies]\nlog = { version = "1", optional = true }\n'
    )
    told, notes = init(crate(tmp_path / "plain", {"Cargo.toml": MANIFEST.format("a") + more}))
    assert told["default_features"] and told["features"] == [] and not notes
    bundle = BUNDLE.replace('default = ["full"]', 'default = ["mimalloc", "dep:log", "tls"]')
    bundle = bundle.replace("[dependencies]\n", '[dependencies]\nlog = { version = "0.4", optional = true }\n')
    folder = crate(tmp_path / "allocating", {"Cargo.toml": MANIFEST.format("a") + bundle})
    told, notes = init(folder)
    assert (told["default_features"], told["features"]) == (False, ["tls", "cli"])
    assert any("turn on dep:log, which no option can" in note for note in notes)
    app = lab_toml.load(folder)
    published = dockerfile.render(matrix.cell("debian", "published", matrix.OWN), app)
    assert "--no-default-features" not in published


def test_the_proposal_does_not_depend_on_the_order_of_the_files(tmp_path, monkeypatch):
    texts = {
        "src/grpc.rs": 'fn f() { var("API_GRPC_PORT"); "/ready" }\n',
        "src/http.rs": 'fn f() { var("HTTP_PORT"); "/health" }\n',
    }
    folder = crate(tmp_path, texts | {"src/main.rs": LISTENS})
    walked = list(sources.walk(folder))
    told = []
    for order in (walked, walked[::-1]):
        monkeypatch.setattr(sources, "walk", lambda *_, order=order: iter(order))
        told.append(init(folder)[0])
    assert told[0] == told[1] and told[0]["serve"]["environment"] == {"HTTP_PORT": "{port}"}


def test_what_git_ignores_is_a_note_and_what_the_sources_make_is_writable(tmp_path):
    main = (
        'fn main() { read("certs/key.pem"); read("pages/a.html"); create_dir_all("data/uploads"); '
        'File::create("logs/app.log"); create_dir("/var/lib/app"); File::create("/tmp/a/b"); }\n'
    )
    ignored = {
        ".gitignore": "/certs\n/data\n",
        "certs/key.pem": "",
        "data/a.db": "",
        "logs/old.log": "",
        "pages/a.html": "",
    }
    folder = crate(tmp_path, ignored | {"src/main.rs": main})
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    told, notes = init(folder)
    assert told["files"] == {"pages": "pages"} and told["writable"] == ["data/uploads", "/var/lib/app", "logs"]
    assert notes[-1].startswith("its sources name certs, which git ignores")
    assert lab_toml.load(folder).image.writable


@pytest.mark.parametrize(
    ("manifest", "sources"),
    [
        (MANIFEST.format("a") + '[dependencies]\naxum = { version = "*", optional = true }\n', ""),
        (MANIFEST.format("a") + "[target.'cfg(windows)'.dependencies]\naxum = \"*\"\n", ""),
        (dependencies("hyper"), "fn f() { hyper::Client::new(); }"),
    ],
)
def test_a_tool_that_could_be_a_server_elsewhere_is_a_tool(tmp_path, manifest, sources):
    text = f"{sources}\n#[derive(Parser)]\nstruct O {{ #[arg(long)] port: u16 }}\nfn main() {{}}\n"
    told, _ = init(crate(tmp_path, {"Cargo.toml": manifest, "src/main.rs": text}))
    assert "check" in told and "serve" not in told


@pytest.mark.parametrize(
    ("sources", "environment", "arguments"),
    [
        ('var("APP_MIN_PORT"); var("APP_PORT")', {"APP_PORT": "{port}"}, []),
        ('var("PORT"); var("PGHOST")', {"PORT": "{port}"}, []),
        ('var("ALLOWED_HOSTS"); var("MQTT_PORT"); var("HTTP_PORT")', {"HTTP_PORT": "{port}"}, []),
        ('var("TLS_PORT"); var("APP_PORT"); var("APP_HOST")', {"APP_PORT": "{port}", "APP_HOST": "{host}"}, []),
        ('var("ADMIN_PORT"); var("MY_SERVICE_PORT"); var("PORT")', {"PORT": "{port}"}, []),
        ('var("RABBITMQ_PORT"); var("MY_SERVICE_PORT")', {"MY_SERVICE_PORT": "{port}"}, []),
        ('var("S3_HOST"); var("APP_S3_PORT"); var("APP_PORT")', {"APP_PORT": "{port}"}, []),
        ('"--etcd-port"; "--syslog-addr"; "--port"', {}, ["--port", "{port}"]),
        ('env_or("PORT", "80"); set_env_var("A_PORT", b)', {"PORT": "{port}"}, []),
        ('get_env::<u16>("APP_PORT"); getenv("APP_HOST")', {"APP_PORT": "{port}", "APP_HOST": "{host}"}, []),
        ('config::var_or_default("PORT")', {"PORT": "{port}"}, []),
        ('#[envconfig(default = "80", from = "PORT")]', {"PORT": "{port}"}, []),
        ('set_var("APP_PORT", a); remove_var("A_PORT"); cmd.env_remove("B_PORT"); "--port"', {}, ["--port", "{port}"]),
        ('"--hostname"; "--port"; "--bind"', {}, ["--port", "{port}", "--bind", "{host}"]),
    ],
)
def test_an_address_is_the_servers_own(tmp_path, sources, environment, arguments):
    serve = init(crate(tmp_path, {"src/main.rs": LISTENS, "src/options.rs": f"fn f() {{ {sources} }}\n"}))[0]["serve"]
    assert (serve["environment"], serve["arguments"]) == (environment, arguments)


def test_a_name_of_a_service_is_the_servers_own_where_it_is_that_service(tmp_path):
    read = " ".join(f'var("{name}");' for name in ("VAULT_PORT", "ETCD_PORT", "XDS_ADDRESS", "CA_ADDRESS"))
    sources = {"src/main.rs": f"{LISTENS}fn f() {{ {read} }}\n"}
    for name, served in (("vault", {"VAULT_PORT": "{port}"}), ("vault-client", None)):
        told, _ = init(crate(tmp_path / name, sources, name))
        assert told.get("serve", {}).get("environment") == served


@pytest.mark.parametrize(
    ("sources", "ports"),
    [
        ('fn main() { let x = 1; // was var("OLD_PORT")\n TcpListener::bind("0.0.0.0:3000"); }', [3000]),
        ('fn main() { send(var("EMAIL_ADDRESS")); TcpListener::bind("0.0.0.0:3000"); }', [3000]),
        ('const ADDR: &\'static str = "0.0.0.0:3000"; fn main() { TcpListener::bind(ADDR); }', [3000]),
        ('fn main() { TcpListener::bind(("0.0.0.0", conf::PORT)); } mod conf { pub const PORT: u16 = 3_000; }', [3000]),
        ("const AT: ([u8; 4], u16) = ([0, 0, 0, 0], 3000); fn main() { TcpListener::bind(AT); }", [3000]),
        ('const H: &str = "0.0.0.0"; const P: u16 = 3000; fn main() { TcpListener::bind(format!("{H}:{P}")) }', [3000]),
        ('fn main() { let port = 3000; TcpListener::bind(&format!("0.0.0.0:{}", port)); }', [3000]),
        ('fn main() { let bind_addr = "0.0.0.0:3000"; TcpListener::bind(bind_addr.parse()); }', [3000]),
        ("fn main() { TcpListener::bind((net::Ipv4Addr::UNSPECIFIED, 3000)); }", [3000]),
        ("fn main() { TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 3000)); }", [3000]),
        ('fn main() { TcpListener::bind(SocketAddr::new("0.0.0.0".parse().unwrap(), 3000)); }', [3000]),
        ("fn main() { let addr = ([0, 0, 0, 0], 3000); TcpListener::bind(addr); }", [3000]),
        (
            "const DB_PORT: u16 = 1111; fn main() { SocketAddr::from(([0, 0, 0, 0], DB_PORT)); TcpListener::bind(x); }",
            None,
        ),
        (
            "const DEFAULT: u16 = 80; fn main() { SocketAddr::from(([0, 0, 0, 0], DEFAULT)); TcpListener::bind(a) }",
            None,
        ),
        ('fn main() { let port = 3000; let port = a.unwrap_or(port); TcpListener::bind(("0.0.0.0", port)); }', None),
        ('fn main() { let port = 5432; } fn f(port: u16) { TcpListener::bind(("0.0.0.0", port)); }', None),
        ('fn main() { let port = 5432; TcpListener::bind(("0.0.0.0", config.port)); }', None),
        ("fn main() { warp::serve(routes).run(([0, 0, 0, 0], 3030)); }", [3030]),
        ("fn main() { axum::serve(a, b); layer().server_addr(([0, 0, 0, 0], 6669)).spawn(); }", None),
        ('fn main() { salvo::Server::new(TcpListener::new("0.0.0.0:5800").bind()); }', [5800]),
    ],
)
def test_a_port_that_the_sources_name_is_the_servers(tmp_path, sources, ports):
    assert init(crate(tmp_path, {"src/main.rs": f"{sources}\n"}))[0].get("ports") == ports


def test_of_a_folder_of_settings_those_files_count_that_the_sources_name(tmp_path):
    main = 'fn main() { read("conf/a.toml"); axum::serve(listener(), app()); }\n'
    files = {"src/main.rs": main, "conf/a.toml": "port = 8000\n", "conf/tracker.toml": "port = 9000\n"}
    told, _ = init(crate(tmp_path, files))
    assert told["ports"] == [8000] and told["files"] == {"conf": "conf"}


@pytest.mark.parametrize(
    ("name", "text", "ports"),
    [
        ("a.yaml", "application:\n  port: 8000\ndatabase:\n  port: 5432\nredis_uri: redis://127.0.0.1:6379\n", [8000]),
        ("a.toml", '[server]\naddress = "127.0.0.1:8100"\n[smtp]\nport = 25\n', [8100]),
        ("a.json", '{"service": {"http_port": 6333}, "p2p": {"port": 6335}}', [6333]),
        ("a.yml", "one:\n  port: 6333\ntwo:\n  port: 6335\n", None),
        ("a.toml", "[server]\nport = 70000\n", None),
        ("a.toml", "port = [", None),
        ("a.yaml", "port: [", None),
    ],
)
def test_the_port_of_a_configuration_that_is_read_is_the_servers(tmp_path, name, text, ports):
    main = 'fn main() { read("conf/a"); axum::serve(listener(), app()); }\n'
    told, notes = init(crate(tmp_path, {"src/main.rs": main, f"conf/{name}": text}))
    assert told.get("ports") == ports and ("it looks like a server" in str(notes)) == (not ports)


def test_what_is_served_beside_grpc_is_asked_without_it(tmp_path):
    serves = 'actix_web::HttpServer::new(a).bind("0.0.0.0:6333"); Server::builder().add_service(b)'
    main = {"src/main.rs": f"fn main() {{ {serves}; }}\n"}
    for crates, http in (("actix-web tonic", None), ("axum tonic", 2)):
        told = init(crate(tmp_path, {"Cargo.toml": dependencies(*crates.split())} | main))[0]
        assert told["serve"].get("http") == http and told["ports"] == [6333]
    apart = 'axum::serve(TcpListener::bind("0.0.0.0:6333"), a); Server::builder().add_service(b).serve(address)'
    files = {"Cargo.toml": dependencies("axum", "tonic"), "src/main.rs": f"fn main() {{ {apart}; }}\n"}
    assert "http" not in init(crate(tmp_path, files))[0]["serve"]


def test_a_configuration_file_is_found_without_its_ending_and_a_crate_is_no_file(tmp_path):
    main = 'fn main() { config::File::with_name("settings"); read("crates/x/schema.sql"); }\n'
    more = {
        "settings.toml": "",
        "crates/x/Cargo.toml": MANIFEST.format("x"),
        "crates/x/src/lib.rs": "",
        "crates/x/schema.sql": "",
    }
    assert init(crate(tmp_path, more | {"src/main.rs": main}))[0]["files"] == {"settings.toml": "settings.toml"}


def test_a_folder_of_crates_is_no_file_of_one_of_them(tmp_path):
    root = {"Cargo.toml": '[workspace]\nmembers = ["crates/*"]\n', "crates/a/Cargo.toml": MANIFEST.format("a")}
    folder = crate(tmp_path, root | {"crates/a/src/main.rs": 'fn main() { data.join("crates"); }\n'})
    (folder / "src" / "main.rs").unlink()
    assert "files" not in init(folder)[0]


@pytest.mark.parametrize(
    ("more", "files", "noted"),
    [
        ("", {"src/main.rs": 'fn main() { let to = std::env::args().nth(1); }\n'}, "seems not to know --version"),
        ('clap = "*"\n',
         {"src/main.rs": f"{LISTENS}#[derive(Subcommand)]\nenum C {{ Serve {{ #[arg(long)] port: u16 }} }}\n"},
         "it has subcommands: where one of them serves"),
        ('clap = "*"\n',
         {"src/main.rs": f'{LISTENS}#[command(subcommand)]\nfn at() {{ env::var("PORT"); }}\n'},
         "it has subcommands: where one of them serves"),
        ('clap = "*"\n',
         {"src/main.rs": f'{LISTENS}#[derive(Subcommand)]\nenum C {{ Serve }}\nfn at() {{ env::var("PORT"); }}\n'},
         "it has subcommands: where one of them serves"),
        ('other = "*"\n', {"Cargo.lock": ROOTS},
         "it may ask over TLS, since its lockfile has rustls-native-certs"),
        ("", {"src/main.rs": 'fn main() { now.in_tz("Europe/Berlin"); }\n'}, "--with tzdata"),
    ],
)  # fmt: skip
def test_what_a_check_or_an_image_lacks_is_told(tmp_path, more, files, noted):
    _, notes = init(crate(tmp_path, {"Cargo.toml": f"{MANIFEST.format('a')}[dependencies]\n{more}"} | files))
    assert [noted in note for note in notes].count(True) == 1, notes


@pytest.mark.parametrize(
    ("condition", "stops"),
    [
        ('not(any(feature = "sqlite", feature = "mysql"))', True),
        ('all(feature = "one", feature = "two")', True),
        ('not(feature = "one")', False),
        ('not(any(feature = "default", feature = "two"))', False),
        ('all(windows, feature = "one")', False),
        ('all(target_env = "musl", feature = "one")', True),
        ("not(any(sqlite, mysql))", False),  # which a build script sets
    ],
)
def test_features_without_which_a_build_stops_are_told(tmp_path, condition, stops):
    features = '[features]\ndefault = ["one", "two"]\none = []\ntwo = []\nsqlite = []\nmysql = []\n'
    script = (
        f'fn main() {{\n    #[cfg({condition})]\n    compile_error!(\n        "Enable \\\n        one."\n    );\n}}\n'
    )
    files = {"Cargo.toml": MANIFEST.format("a") + features, "build.rs": script}
    told = 'a build with these features stops: "Enable one."; `features` there takes others'
    assert (told in init(crate(tmp_path, files))[1]) == stops


@pytest.mark.parametrize("known", ['Long("version") => show()', 'options.optflag("V", "version", "show it")'])
def test_a_version_that_a_parser_is_told_of_is_known(tmp_path, known):
    main = f"fn main() {{ let to = std::env::args(); {known}; }}\n"
    assert "seems not to know --version" not in str(init(crate(tmp_path, {"src/main.rs": main}))[1])


def test_what_a_build_links_is_proposed_as_packages(tmp_path):
    script = 'fn main() { pkg_config::probe_library("sqlite3"); println!("cargo:rustc-link-lib=pcap"); }\n'
    more = '[build-dependencies]\ncmake = "*"\ngit2 = "*"\nbindgen = "*"\n'
    folder = crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + more, "build.rs": script})
    (folder / ".git").mkdir()
    told, _ = init(folder)
    assert told["packages"] == ["cmake", "libclang-dev", "libpcap-dev", "libsqlite3-dev"] and told["git"]


def test_at_a_root_the_binary_is_that_which_cargo_would_build(tmp_path):
    for name in ("own", "default"):
        root = '[workspace]\nmembers = ["server", "xtask"]\n'
        root = MANIFEST.format("a") + root if name == "own" else f'{root}default-members = ["server"]\n'
        folder = crate(tmp_path / name, {"Cargo.toml": root})
        for member in ("server", "xtask"):
            crate(folder / member, {}, member)
            (folder / member / "lab.toml").unlink()
        if name == "default":
            (folder / "src" / "main.rs").unlink()
        assert init(folder)[0]["binary"] == ("a" if name == "own" else "server")
        assert init(folder, "xtask")[0]["binary"] == "xtask"


def test_of_several_binaries_the_one_that_needs_no_more_features_is_that_which_cargo_would_build(tmp_path):
    binaries = "".join(
        f'[[bin]]\nname = "{name}"\npath = "src/main.rs"\nrequired-features = ["{name}"]\n' for name in ("cli", "gui")
    )
    features = '[features]\ndefault = ["full"]\nfull = ["cli"]\ncli = []\ngui = []\n'
    manifest = MANIFEST.format("a") + features + binaries
    folder = crate(tmp_path, {"Cargo.toml": manifest})
    assert init(folder)[0]["binary"] == "cli"
    told, _ = init(folder, "gui")
    assert (told["binary"], told["features"]) == ("gui", ["gui"])
    for name in ("both", "neither"):
        changed = manifest.replace('full = ["cli"]', 'full = ["cli", "gui"]' if name == "both" else "full = []")
        with pytest.raises(LabError, match=r"several binaries, .*: cli, gui"):
            init(crate(tmp_path / name, {"Cargo.toml": changed}))
    default = manifest.replace("[features]", 'default-run = "gui"\n[features]')
    assert init(crate(tmp_path / "default", {"Cargo.toml": default}))[0]["binary"] == "gui"


@pytest.mark.parametrize(
    ("name", "crates", "noted"),
    [
        (".env", ["dotenvy"], True),
        (".env.example", ["dotenv"], True),
        (".env", ["clap"], False),
        ("env", ["dotenvy"], False),
    ],
)
def test_variables_that_a_program_finds_in_a_file_are_told(tmp_path, name, crates, noted):
    main = f'{LISTENS}fn at() {{ env::var("PORT"); env::var("GREETING"); }}\n'
    there = {name: "# of here\nPORT=80\nexport GREETING = hello\nUNUSED=1\n"}
    told, notes = init(crate(tmp_path, {"Cargo.toml": dependencies(*crates), "src/main.rs": main} | there))
    said = "no image has its .env: `environment` there gives GREETING to the program"
    assert told["serve"]["environment"] == {"PORT": "{port}"} and (said in notes) == noted


def test_an_image_of_a_program_with_capitals_can_be_built_as_its_dockerfile_says(tmp_path):
    binary = '[[bin]]\nname = "UpperServer"\npath = "src/main.rs"\n'
    folder: Path = crate(
        tmp_path, {"Cargo.toml": MANIFEST.format("a") + binary, "lab.toml": 'binary = "UpperServer"\n'}
    )
    assert "--tag upperserver:debian " in dockerfile.render(
        matrix.cell("debian", "optimized", "system"), lab_toml.load(folder)
    )


FOREIGN = """use std::process::Command;
mod linux;
#[cfg(target_os = "macos")] mod mac;
#[cfg(windows)] #[path = "win32.rs"] mod imp;
#[cfg(unix)] #[path = "posix.rs"] mod imp;
cfg_select! {
    target_os = "freebsd" => { mod bsd; }
    _ => {}
}
#[cfg(not(unix))] pub fn end() -> u8 { Command::new("taskkill"); 1 }
#[cfg(any(feature = "x", unix))] fn kept() { Command::new("ours"); }
#[cfg(all(feature = "x", windows))] fn left_out() { Command::new("taskkill"); }
fn main() {
    #[cfg(windows)]
    let readme = include_str!("..\\\\..\\\\README.md");
    #[cfg(any(windows, target_os = "macos"))]
    { Command::new("theirs"); }
    let program = var("EDITOR").unwrap_or_else(|_| { if cfg!(target_os = "windows") { "notepad" } else { "nano" } });
    Command::new(program);
}
"""


def test_what_is_compiled_for_other_systems_alone_is_not_the_programs(tmp_path):
    calls = 'use std::process::Command;\npub fn f() { Command::new("NAME"); }\n'
    names = {"linux": "lsblk", "mac": "ps", "win32": "wsl", "posix": "lscpu", "bsd": "df"}
    files = {f"src/{file}.rs": calls.replace("NAME", name) for file, name in names.items()}
    _, notes = init(crate(tmp_path, {"src/main.rs": FOREIGN} | files))
    assert len(notes) == 1 and notes[0].startswith("its sources call lsblk, lscpu, nano, ours when it runs"), notes


FEATURES = """use std::process::Command;
#[cfg(feature = "metrics")] mod metrics;
#[cfg(not(feature = "tls"))] mod plain;
#[cfg(feature = "tls")] mod tls;
#[cfg(feature = "cli")] mod shared;
#[cfg(feature = "helper")] fn h() { Command::new("on-dependency"); }
mod whole;
cfg_if! {
    if #[cfg(all(feature = "metrics", unix))] { fn f() { Command::new("off-block"); } }
    else { fn f() { Command::new("on-block"); } }
}
#[cfg(feature = "cli")] #[derive(Default)] struct Options { program: fn() = { Command::new("off-struct"); } }
#[cfg(any(feature = "metrics", custom))] fn g() { Command::new("on-custom"); }
fn parts() {
    #[cfg(feature = "cli")] #[expect(a, b = ["}"])]
    run(&[1, 2], Command::new("off-statement"));
    #[cfg(feature = "cli")] let a = if b { c } else { Command::new("off-let") };
    #[cfg(feature = "cli")] for a in b { Command::new("off-loop"); }
    let c = Parts { #[cfg(feature = "cli")] d: Command::new("off-field"), e: Command::new("on-field") };
    match c {
        #[cfg(feature = "cli")] Off { f } => { Command::new("off-arm"); }
        g => Command::new("on-arm"),
        #[cfg(feature = "cli")] h => Command::new("off-last")
    };
    #[cfg(not(feature = "tls"))] { Command::new("off-end"); }
    #[cfg(feature = "tls")] #[cfg(feature = "cli")] run(Command::new("off-second"));
    #[program = Command::new("off-attribute")] #[cfg(feature = "cli")] run();
    Command::new("on-end");
}
fn main() { if cfg!(feature = "cli") { Command::new("off-macro"); } Command::new("on-main"); helper::f(); }
"""
WITH_FEATURES = f"""{MANIFEST.format("a")}[workspace]
[features]
default = ["tls", "helper/on"]
tls = []
metrics = []
cli = []
[dependencies]
helper = {{ path = "helper", optional = true }}
"""


ON = "on-arm, on-block, on-custom, on-dependency, on-end, on-field, on-library, on-main, on-module, on-shared"
OFF = (
    "off-arm, off-attribute, off-below, off-block, off-end, off-field, off-last, off-let, off-library, off-loop, "
    "off-macro, off-module, off-not, off-second, off-statement, off-struct, off-whole"
)
STOPS = '#[cfg(not(any(feature = "metrics", feature = "cli")))]\ncompile_error!("choose");\n'
TURNS_ON = r'fn main() { println!("cargo:rustc-cfg=feature=\"metrics\""); }'


@pytest.mark.parametrize(
    ("stops", "script", "program_calls"), [("", "", ON), (STOPS, "", f"{OFF}, {ON}"), ("", TURNS_ON, f"{OFF}, {ON}")]
)
def test_what_features_that_are_off_leave_out_is_not_the_programs_unless_no_build_works_so_or_a_script_turns_them_on(
    tmp_path, stops, script, program_calls
):
    def calls(name: str, condition: str = "") -> str:
        return f'use std::process::Command;\n{condition} fn f() {{ Command::new("{name}"); }}\n'

    library = "".join(calls(f"{name}-library", f'#[cfg(feature = "{name}")]') for name in ("on", "off"))
    files = {
        "Cargo.toml": WITH_FEATURES, "build.rs": script or "fn main() {}", "src/main.rs": stops + FEATURES,
        "src/metrics.rs": f"mod below;\n{calls('off-module')}", "src/metrics/below.rs": calls("off-below"),
        "src/plain.rs": calls("off-not"), "src/tls.rs": calls("on-module"), "src/shared.rs": calls("on-shared"),
        "src/lib.rs": "mod shared;\n",
        "src/whole.rs": f'#![allow(unused)]\n#![cfg(feature = "cli")]\n{calls("off-whole")}',
        "helper/Cargo.toml": f'{MANIFEST.format("helper")}[features]\non = []\noff = []\n',
        "helper/src/lib.rs": library,
    }  # fmt: skip
    _, notes = init(crate(tmp_path, files))
    assert any(note.startswith(f"its sources call {program_calls} when it runs") for note in notes), notes


def test_sources_that_no_target_names_are_not_the_programs_and_those_that_one_names_by_a_path_are(tmp_path):
    tells = '#![feature(box_patterns)]\nfn f() { create_dir("vendor"); File::open("data/a.txt"); }\n'
    main = '#[path = "../shared/more.rs"]\nmod more;\nfn main() { args(); }\n'
    script = 'include!("src/cli.rs");\n#[path = "build/made.rs"]\nmod made;\nfn main() { Command::new("protoc"); }\n'
    told, notes = init(crate(tmp_path, {
        "src/main.rs": main, "src/cli.rs": '#[command(version)]\nstruct Cli {}\n', "build.rs": script,
        "build/made.rs": 'fn f() { env!("MADE_FOR"); }\n', "data/a.txt": "", "cases/one/src/lib.rs": tells,
        "ci/publish.rs": tells, "shared/more.rs": 'fn f() { env!("SHARED_ID"); create_dir("kept"); }\n',
    }))  # fmt: skip
    assert (told["check"]["arguments"], told["packages"]) == (["--version"], ["protobuf-compiler"])
    assert "files" not in told and told["writable"] == ["kept"]
    assert notes == ["its sources read SHARED_ID, MADE_FOR when they are compiled: see `build_environment` there"]


def test_what_is_not_there_for_a_build_of_a_package_without_a_script_is_told_whatever_others_scripts_name(tmp_path):
    manifest = MANIFEST.format("a") + '[dependencies]\napi = { path = "api" }\n[workspace]\n'
    script = 'fn main() { tonic_build::configure(); println!("build"); }\n'
    main = '#[derive(RustEmbed)]\n#[folder = "../ui/build"]\nstruct Asset;\nfn main() {}\n'
    folder = crate(tmp_path / "server", {
        "Cargo.toml": manifest, "src/main.rs": main, "api/Cargo.toml": MANIFEST.format("api"), "api/build.rs": script,
        "api/src/lib.rs": "",
    })  # fmt: skip
    said = "its sources include ../ui/build when they are compiled, and it is not there"
    assert any(each.startswith(said) for each in init(folder)[1])
    _, notes = init(crate(folder, {"Cargo.toml": manifest, "src/main.rs": main, "build.rs": script}))
    assert not any(each.startswith(said) for each in notes)


def test_a_folder_of_the_programs_own_sources_is_no_file_of_its_image(tmp_path):
    manifest = MANIFEST.format("a") + '[[bin]]\nname = "a"\npath = "main.rs"\n'
    main = 'mod daemon;\nfn main() { path.push("daemon"); path.push("assets"); }\n'
    sources = {"main.rs": main, "daemon/mod.rs": "", "assets/a.css": ""}
    assert init(crate(tmp_path, sources | {"Cargo.toml": manifest}))[0]["files"] == {"assets": "assets"}


def test_a_submodule_that_is_not_there_is_told(tmp_path):
    modules = "".join(f'[submodule "{name}"]\n\tpath = {name}\n\turl = ../{name}\n' for name in ("text", "more"))
    folder = crate(tmp_path, {".gitmodules": modules, "more/a": ""})
    (folder / "text").mkdir()
    assert "its submodules are not there (text): `git submodule update --init` helps" in init(folder)[1]


def test_a_member_whose_folder_is_empty_is_told_as_a_submodule(tmp_path):
    folder = crate(tmp_path, {"Cargo.toml": MANIFEST.format("a") + '[workspace]\nmembers = ["libs/common"]\n'})
    (folder / "libs" / "common").mkdir(parents=True)
    with pytest.raises(LabError, match=r"libs/common is empty: if it is a submodule, `git submodule update --init`"):
        init(folder)


@pytest.mark.parametrize(
    ("manifest", "noted"),
    [
        ('version = "0.1.0"\nrust-version = "1.99"\n', ["it asks for Rust 1.99, the lab's builder has"]),
        ('version = "0.1.0"\nrust-version = "1.56.1"\n[dependencies]\nb = "1"\n', []),
        (
            'version = "0.2.0"\n[dependencies]\nb = "1"\n[dev-dependencies]\nc = "1"\n',
            ["its Cargo.lock lacks a 0.2.0, c, which"],
        ),
    ],
)
def test_a_compiler_and_a_lockfile_that_are_older_than_the_manifest_are_told(tmp_path, manifest, noted):
    lock = LOCK.format("a") + '\n[[package]]\nname = "b"\nversion = "1.0.0"\nsource = "registry+https://x.example/b"\n'
    files = {"Cargo.toml": f'[package]\nname = "a"\nedition = "2021"\n{manifest}', "Cargo.lock": lock}
    _, notes = init(crate(tmp_path, files))
    said = [each for each in notes if "Cargo.lock lacks" in each or "asks for Rust" in each]
    assert len(said) == len(noted) and all(map(str.startswith, said, noted)), notes


def test_a_terminal_shows_that_the_sources_are_being_read(tmp_path, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=500)
    monkeypatch.setattr(output, "console", screen)
    (crate(tmp_path) / "lab.toml").unlink()
    assert main.main(["init", str(tmp_path)]) == 0
    assert f"reading {tmp_path}" in screen.file.getvalue()
