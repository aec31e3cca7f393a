"""How `init` reads where a server listens: by variables, flags and settings, and where its image is to."""

import shutil

import pytest
from support.crates import LISTENS, crate, dependencies, init, locked

from rustimg_lab.build import lab_toml

pytestmark = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")


def test_an_address_by_a_flag_with_a_default_in_brackets_is_the_flags(tmp_path):
    field = "#[arg(long, default_value_t = SocketAddr::from(([127, 0, 0, 1], 8080)))]\nlisten: SocketAddr"
    main = f"#[derive(Parser)]\nstruct A {{ {field} }}\nfn main() {{ axum::serve(TcpListener::bind(a.listen)); }}\n"
    told, notes = init(crate(tmp_path, {"src/main.rs": main}))
    assert told["serve"]["arguments"] == ["--listen", "{host}:{port}"]
    assert [note.endswith("gives it `--listen 0.0.0.0:8080`") for note in notes] == [True], notes


@pytest.mark.parametrize(
    ("body", "opened", "by_hand"),
    [
        ('let a = var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());', {"ADDR": "0.0.0.0:3000"}, ""),
        ('let a = var("ADDR").unwrap_or_else(|_| "0.0.0.0:3000".into());', None, ""),
        ('let a = var("ADDR").expect("no ADDR");', None, ""),
        ('let h = var("HOST").unwrap_or("localhost".into()); let p = var("PORT");', {"HOST": "0.0.0.0"}, ""),
        ('let a = var("APP_LISTEN").unwrap_or(D.into()); const D: &str = "[::1]:9000";', {"APP_LISTEN": "0.0.0.0:9000"},
         ""),
        ('#[arg(env = "LISTEN", default_value = "127.0.0.1:80")]\nlisten: SocketAddr', {"LISTEN": "0.0.0.0:80"}, ""),
        ('#[arg(default_value = "127.0.0.1", env = "HOST")]\nhost: String, #[arg(env = "PORT")]\nport: u16',
         {"HOST": "0.0.0.0"}, ""),
        ('#[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]\npub bind: IpAddr, '
         "#[arg(long)]\nport: u16", None, "--bind 0.0.0.0"),
        ('Arg::new("bind").long("bind").default_value("127.0.0.1"), Arg::new("port").long("port")', None,
         "--bind 0.0.0.0"),
        ('let h = var("HOST"); let p = var("PORT"); builder.set_default("host", "127.0.0.1")', {"HOST": "0.0.0.0"}, ""),
        ('let h = var("HOST"); let p = var("PORT"); } impl Default for Settings { fn default() -> Self { Self { '
         'host: "127.0.0.1".to_string(), port: 8000 } }', {"HOST": "0.0.0.0"}, ""),
        ('let a = var("ADDR"); args.addr.unwrap_or_else(usual) } fn usual() -> SocketAddr { '
         'SocketAddr::from(([127, 0, 0, 1], 8000))', {"ADDR": "0.0.0.0:8000"}, ""),
        ('#[arg(env = "LISTEN")]\nlisten: SocketAddr, #[arg(env = "STATUS", default_value = "127.0.0.1:9090")]\n'
         "status: String", None, ""),
        ('Arg::new("bind").long("bind"), Arg::new("port").long("port"), Arg::new("to").default_value("127.0.0.1")',
         None, ""),
    ],
)  # fmt: skip
def test_a_server_that_is_closed_by_default_is_open_in_its_image(tmp_path, body, opened, by_hand):
    told, notes = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}fn f() {{ {body} }}\n"}))
    assert told["serve"]["arguments"] or told["serve"]["environment"]
    assert told.get("environment") == opened
    assert [by_hand in note for note in notes if "listens on 127.0.0.1 by default" in note] == [True] * bool(by_hand)
    assert lab_toml.load(tmp_path).image.environment == tuple((opened or {}).items())


def test_rocket_listens_on_all_addresses_in_its_image(tmp_path):
    main = "#[launch]\nfn rocket() -> _ { rocket::build() }\n"
    told, _ = init(crate(tmp_path, {"Cargo.toml": dependencies("rocket"), "src/main.rs": main}))
    assert told["environment"] == {"ROCKET_ADDRESS": "0.0.0.0"}
    main = 'fn rocket() -> _ { rocket::custom(figment().merge(("port", var("PORT")))) }\n'
    (tmp_path / "src/main.rs").write_text(main)
    told, _ = init(tmp_path)
    assert (told["environment"], told["serve"]["environment"]) == ({"ROCKET_ADDRESS": "0.0.0.0"}, {"PORT": "{port}"})


def test_an_address_that_is_whole_is_no_host_beside_a_port(tmp_path):
    fields = "#[arg(long)]\nport: Option<u16>, #[arg(long)]\naddr: Option<std::net::SocketAddr>"
    told, _ = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}struct A {{ {fields} }}\n"}))
    assert told["serve"]["arguments"] == ["--addr", "{host}:{port}"]


@pytest.mark.parametrize(
    ("sources", "arguments"),
    [
        (
            '#[derive(Subcommand)]\nenum C { Check { a: u8 }, #[command(about = "a, b")]\nServe(Options), Run }',
            ["serve"],
        ),
        ("#[derive(clap::Parser)]\n#[clap(version)]\npub enum C { Run { #[arg(short)] a: u8 } }", ["run"]),
        ('#[derive(Subcommand)]\nenum C { #[command(name = "up")]\nStart, Stop }', []),
        ('#[derive(Subcommand)]\nenum C { #[command(name = "run")]\n#[command(about = "a")]\nRun, Stop }', ["run"]),
        ("#[derive(Subcommand)]\nenum C { Serve, Start }", []),
        ("#[derive(Debug)]\nenum State { Start, Stop }", []),
        (
            'fn f() { Command::new("a").subcommand(Command::new("serve").about("x")); Command::new("start"); }',
            ["serve"],
        ),
    ],
)
def test_a_subcommand_that_serves_by_its_name_stands_first(tmp_path, sources, arguments):
    main = f'{LISTENS}{sources}\nfn port() {{ var("PORT"); }}\n'
    assert init(crate(tmp_path, {"src/main.rs": main}))[0]["serve"]["arguments"] == arguments


def test_flags_of_another_subcommand_are_not_the_servers(tmp_path):
    client = "Local { #[clap(short, long, default_value_t = 0)]\nport: u16, #[clap(long)]\nlocal_host: String }"
    commands = f"#[derive(Subcommand)]\nenum C {{ {client}, Server {{ #[clap(long)]\nlisten_port: u16 }} }}"
    proposal, _ = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}{commands}\n"}))
    assert proposal["serve"]["arguments"] == ["server", "--listen-port", "{port}"]


def test_a_client_of_grpc_is_no_server_of_it(tmp_path):
    manifest = {"Cargo.toml": dependencies("tonic", "hyper")}
    told, _ = init(crate(tmp_path, manifest | {"src/main.rs": 'fn main() { TcpListener::bind("0.0.0.0:80"); }\n'}))
    assert "http" not in told["serve"] and "grpc" not in told["serve"]
    told, _ = init(crate(tmp_path, manifest | {"src/main.rs": "fn main() { Client::connect(x); }\n"}))
    assert "serve" not in told and "check" in told


def test_a_port_of_metrics_and_a_variable_that_is_set_are_not_the_servers(tmp_path):
    main = (
        "const METRICS_ADDR: SocketAddr = SocketAddr::new(A, 9117);\n"
        'fn main() { Command::new("x").env("LISTEN_ADDRESS", at()); TcpListener::bind("0.0.0.0:8080"); }\n'
    )
    told, _ = init(crate(tmp_path, {"src/main.rs": main}))
    assert told["ports"] == [8080] and told["serve"]["environment"] == {}


def test_what_a_configuration_names_closes_a_server_or_is_a_folder_that_it_fills(tmp_path):
    settings = """[server]
listen = "127.0.0.1:8100"
[store]
path = "./data/kv/"
log_file_path = "log/a.log"
there_dir = "src"
[redis]
host = "localhost"
"""
    main = 'fn main() { read_to_string("config/a.toml"); TcpListener::bind(x); }\n'
    told, notes = init(crate(tmp_path, {"src/main.rs": main, "config/a.toml": settings}))
    assert told["ports"] == [8100] and told["writable"] == ["data/kv"]
    assert [each for each in notes if "has it listen on 127.0.0.1 (server_listen in a.toml), which" in each], notes
    settings = settings.replace("127.0.0.1", "0.0.0.0")
    told, notes = init(crate(tmp_path, {"src/main.rs": main, "config/a.toml": settings}))
    assert told["ports"] == [8100] and "127.0.0.1" not in str(notes)


@pytest.mark.parametrize(
    ("name", "body", "environment"),
    [
        ("ldap", 'var("LDAP_HTTP_PORT"); var("LDAP_HTTP_HOST")',
         {"LDAP_HTTP_PORT": "{port}", "LDAP_HTTP_HOST": "{host}"}),
        ("meilisearch", 'const A: &str = "MEILI_HTTP_ADDR"; #[clap(long, env = A)]\nhttp_addr: String',
         {"MEILI_HTTP_ADDR": "{host}:{port}"}),
        ("a", '#[clap(default_value = "3000", long, short, env)]\nport: u16, #[clap(long, env)]\nhost: String',
         {"PORT": "{port}", "HOST": "{host}"}),
        ("a", '#[arg(env = "A_ADDR", default_value = "0.0.0.0:8000")]\na: String, #[arg(env = "A_RPC_PORT")]\nf: u16',
         {"A_ADDR": "{host}:{port}"}),
        ("a", 'var("A_FLIGHT_PORT"); let a = var("A_HOST").unwrap_or_else(|_| "0.0.0.0:8000".into());',
         {"A_HOST": "{host}:{port}"}),
        ("a", 'var("A_PORT"); let a = var("A_HOST").unwrap_or("0.0.0.0".into()); let b = "1.1.1.1:53";',
         {"A_PORT": "{port}", "A_HOST": "{host}"}),
        ("postgres-exporter", 'var("POSTGRES_HOST"); var("POSTGRES_PORT"); bind("0.0.0.0:9187")', {}),
    ],
)  # fmt: skip
def test_variables_of_the_programs_own_name_and_of_fields_are_its_own(tmp_path, name, body, environment):
    told, _ = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}fn f() {{ {body}; }}\n"}, name))
    assert told["serve"]["environment"] == environment


def test_an_address_by_default_in_a_constant_is_that_of_its_variable(tmp_path):
    body = 'const DEFAULT_HTTP_ADDR: &str = "localhost:7700"; let a = var("A_HTTP_ADDR").unwrap_or(default());'
    told, _ = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}fn f() {{ {body} }}\n"}))
    assert told["environment"] == {"A_HTTP_ADDR": "0.0.0.0:7700"}


def test_a_request_that_is_sent_closes_no_connection_of_the_server(tmp_path):
    sent = 'send(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n")'
    for body, closes in ((sent, False), (sent.replace("GET / HTTP/1.1", "HTTP/1.1 200 OK"), True)):
        told, _ = init(crate(tmp_path, {"src/main.rs": f'fn main() {{ TcpListener::bind("0.0.0.0:80"); {body}; }}\n'}))
        assert ("keep_alive" in told["serve"]) == closes


@pytest.mark.parametrize(
    ("names", "body", "is_server"),
    [
        (["tower-lsp-server"], "Server::new(stdin, stdout, socket).serve(service)", False),
        (["rmcp"], "A::new().serve(stdio())", False), (["rmcp", "axum"], "axum::serve(listener, app)", True),
        (["tower-lsp"], "TcpListener::bind(address); Server::new(read, write, socket).serve(service)", True),
        (["hyper"], "server.serve(make)", True),
    ],
)  # fmt: skip
def test_a_program_that_serves_by_its_standard_input_is_no_server(tmp_path, names, body, is_server):
    files = {"Cargo.toml": dependencies(*names), "src/main.rs": f"fn main() {{ {body}; }}\n"}
    _, notes = init(crate(tmp_path, files))
    assert any("it looks like a server" in each for each in notes) == is_server


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("#[arg(long)]\nhttp_port: u16, #[arg(long)]\nhost_key_file: String", ["--http-port", "{port}"]),
        ('#[arg(long)]\nrrdp_local_addr: Option<IpAddr>, #[arg(long = "rtr", value_name = "A")]\n'
         'rtr_listen: Option<Vec<SocketAddr>>, #[arg(long = "http-tls")]\nhttp_tls_listen: Option<Vec<SocketAddr>>, '
         '#[arg(long = "http", value_name = "A")]\nhttp_listen: Option<Vec<SocketAddr>>', ["--http", "{host}:{port}"]),
        ("#[arg(long)]\ndns_port: u16, #[arg(long)]\nbind_before_connect: Option<SocketAddr>", None),
        ('#[arg(long = "ipaddr")]\naddress: IpAddr, #[arg(long)]\nhttp_port: u16',
         ["--http-port", "{port}", "--ipaddr", "{host}"]),
    ],
)  # fmt: skip
def test_addresses_of_requests_and_ports_of_other_protocols_are_no_servers(tmp_path, options, arguments):
    told, _ = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}struct A {{ {options} }}\n"}))
    assert told.get("serve", {}).get("arguments") == arguments


def test_a_loopback_address_in_the_place_of_an_argument_is_its_default_and_that_of_metrics_is_none(tmp_path):
    options = '#[clap(long, env = "A_PORT")]\nport: u16, #[clap(long, env = "A_HOST")]\nhost: Option<IpAddr>'
    body = "SocketAddr::new(host.unwrap_or(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1))), port)"
    told, _ = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}struct A {{ {options} }}\nfn f() {{ {body}; }}\n"}))
    assert told["environment"] == {"A_HOST": "0.0.0.0"}
    metrics = "let a = config.prometheus_listen.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9000));"
    told, notes = init(crate(tmp_path, {"src/main.rs": f"{LISTENS}fn f() {{ {metrics} }}\n"}))
    assert "serve" not in told and "127.0.0.1" not in str(notes)


@pytest.mark.parametrize(
    ("names", "body", "told_of"),
    [
        ([], 'TcpListener::bind("0.0.0.0:7878"); say("see https://redis.io")', "no HTTP server"),
        (["reqwest"], 'TcpListener::bind("0.0.0.0:7878"); get("http://a/"); hyper::Client::new()', "no HTTP server"),
        (["pgwire", "axum"], 'TcpListener::bind("0.0.0.0:7878"); axum::serve(metrics)', "(pgwire)"),
        (["axum"], 'TcpListener::bind("0.0.0.0:1883"); axum::serve(metrics)', "(port 1883)"),
        (["axum"], 'TcpListener::bind("0.0.0.0:7878"); axum::serve(app)', ""),
        ([], 'TcpListener::bind("0.0.0.0:7878"); write("HTTP/1.1 200 OK")', ""),
        (["hyper"], 'TcpListener::bind("0.0.0.0:7878"); hyper::server::conn::http1::Builder::new()', ""),
    ],
)  # fmt: skip
def test_a_server_of_another_protocol_is_told_though_its_sources_name_http(tmp_path, names, body, told_of):
    files = {"Cargo.toml": dependencies(*names), "src/main.rs": f"fn main() {{ {body}; }}\n"}
    told, notes = init(crate(tmp_path, files))
    said = [each for each in notes if "take a [check] in place of [serve]" in each]
    assert told["ports"] and len(said) == bool(told_of) and told_of in "".join(said)


def test_a_program_for_a_screen_that_listens_is_checked_by_its_start(tmp_path):
    main = "struct A { #[arg(long)]\nport: u16 }\n" + LISTENS
    for name, is_server in (("ratatui", False), ("crossterm", True)):
        told, notes = init(crate(tmp_path, {"Cargo.toml": dependencies(name), "src/main.rs": main}))
        assert ("serve" in told) == is_server and ("it draws on a screen" in str(notes)) != is_server


NESTED = (
    "#[derive(Debug, Deserialize)]\npub struct Settings { pub database: Database, pub application: Application }\n"
    "#[derive(serde::Deserialize)]\npub struct Database { pub host: String, pub port: u16 }\n"
    '#[derive(Deserialize, Clone)]\npub struct Application { #[serde(alias = "p")]\npub port: u16, pub host: String }\n'
)
FLAT = (
    "#[derive(Deserialize)]\n#[serde(default)]\nstruct Config { database_url: Url, port: u16, host: Option<IpAddr> }\n"
)


@pytest.mark.parametrize(
    ("sources", "port", "host"),
    [
        (f'{FLAT}fn f() {{ Figment::new().merge(Env::prefixed("APP_")).extract(); }}', "APP_PORT", "APP_HOST"),
        (f'{FLAT}fn f() {{ envy::prefixed("APP_").from_env::<Config>(); }}', "APP_PORT", "APP_HOST"),
        (f"{FLAT}fn f() {{ envy::from_env::<Config>(); }}", "PORT", "HOST"),
        (f'{FLAT}fn f() {{ Environment::with_prefix("APP"); }}', "APP_PORT", "APP_HOST"),
        (f'{FLAT}static P: &str = "app";\nfn f() {{ Environment::with_prefix(&P.to_uppercase()).separator("__"); }}',
         "APP__PORT", "APP__HOST"),
        (f'{FLAT}fn f() {{ Environment::with_prefix("app"); var("APP_HOST_NAME"); var("APP_HOST_USER"); }}',
         "APP_PORT", "APP_HOST"),
        (f'{NESTED}fn f() {{ Figment::new().merge(Env::prefixed("APP_").split("__")); }}',
         "APP_APPLICATION__PORT", "APP_APPLICATION__HOST"),
        (f'{NESTED}fn f() {{ Environment::with_prefix("APP").separator("__"); }}',
         "APP__APPLICATION__PORT", "APP__APPLICATION__HOST"),
        (f'{NESTED}fn f() {{ config::Environment::with_prefix("APP").prefix_separator("_").separator("__"); }}',
         "APP_APPLICATION__PORT", "APP_APPLICATION__HOST"),
        (f'{FLAT}const MARK: &str = "__";\nfn f() {{ Environment::with_prefix("APP").separator(MARK); }}',
         "APP__PORT", "APP__HOST"),
        (f'{FLAT}fn f() {{ a.merge(Env::prefixed("APP_")).merge(Env::prefixed("OLD_").split("__")); }}',
         "APP_PORT", "APP_HOST"),
        (f'{NESTED}fn f() {{ Environment::default().separator("__"); }}', "APPLICATION__PORT", "APPLICATION__HOST"),
    ],
)  # fmt: skip
def test_variables_that_are_read_by_their_prefix_are_a_servers(tmp_path, sources, port, host):
    other = "#[derive(Deserialize)]\nstruct Config { timeout: u64 }\n"  # a module's own, by the name of another's
    body = f"{other}#[derive(Deserialize)]\nstruct Body {{ bind_host: String }}\n"
    told, notes = init(crate(tmp_path, {"src/main.rs": f"mod body;\n{LISTENS}{sources}\n", "src/body.rs": body}))
    assert told["serve"]["environment"] == {port: "{port}", host: "{host}"}
    assert ("its sources read all variables that begin with APP_" in str(notes)) == port.startswith("APP_")


@pytest.mark.parametrize(
    ("text", "body", "told_of"),
    [
        ('[default.tls]\ncerts = "a.pem"\n[database]\nssl_cert = "c"\n', "", "default_tls_certs in Rocket.toml"),
        ('[debug.tls]\ncerts = "a.pem"\n[database]\nssl_cert = "c"\n', "", ""),
        ("", "a.bind_rustls_0_23(address, config)", "bind_rustls_0_23"),
    ],
)  # fmt: skip
def test_a_certificate_of_a_server_is_told(tmp_path, text, body, told_of):
    main = f"#[launch]\nfn rocket() -> _ {{ rocket::build(); {body} }}\n"
    files = {"Cargo.toml": dependencies("rocket"), "Cargo.lock": locked({"a": "", "rocket": ""}), "src/main.rs": main}
    _, notes = init(crate(tmp_path, files | {"Rocket.toml": text}))
    assert [each for each in notes if "TLS" in each] == [
        f"it can answer over TLS ({told_of}): where it does, `tls = true` stands in [serve]"
    ] * bool(told_of)
