"""What `init` reads of crates as other people lay them out: files by whole paths, folders that are written to,
allocators by conditions, servers of other protocols, and what only some machines have."""

import shutil
import subprocess

import pytest
from support.crates import LISTENS, MANIFEST, crate, dependencies, init, locked

from rustimg_lab.errors import LabError

pytestmark = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")
SETS = "#[global_allocator]\nstatic A: T = T;\nfn main() {}\n"
HEAP = MANIFEST.format("a") + "[features]\nheap = []\n"
JEMALLOC = MANIFEST.format("a") + '[dependencies]\ntikv-jemallocator = { version = "*", optional = true }\n'


def program(body: str) -> dict[str, str]:
    return {"src/main.rs": f"fn main() {{ {body}; }}\n"}


@pytest.mark.parametrize(
    ("body", "there", "files"),
    [
        ('ServeDir::new("web/dist")', ["web/dist/a.js", "web/src/a.ts"], {"web/dist": "web/dist"}),
        ('Tera::new("mail/**/*.html")', ["mail/a/b.html"], {"mail": "mail"}),
        ('read("posts/2024/a.md"); read("posts/2024/b.md")', ["posts/2024/a.md"], {"posts/2024": "posts/2024"}),
        ('ServeDir::new("static"); create_dir_all("static/up")', ["static/a.css"], {"static": "static"}),
        ('read("conf/a.toml"); create_dir_all("/conf/cache")', ["conf/a.toml"], {"conf": "conf"}),
        ('File::with_name("Extra")', ["Extra.ron"], {"Extra.ron": "Extra.ron"}),
        ('Loader::builder("./locales"); x("./no"); y("locale")', ["locales/a", "locale/a"], {"locales": "locales"}),
        ('path.push("words")', ["words/a"], {"words": "words"}),
        ('let base = env::current_dir().unwrap(); read(base.join("conf"))', ["conf/a"], {"conf": "conf"}),
        ('read(env::current_dir()?.join("conf/a.toml"))', ["conf/a.toml"], {"conf": "conf"}),
        ('let at = dirs::config_dir(); read(at.join("a.toml"))', ["a.toml"], None),
        ('let at = root.map(|at| at.join("a.toml")); if let Some(to) = root { read(to.join("b.toml")) }',
         ["a.toml", "b.toml"], None),
        ('} fn g(at: &Path) { read(at.join("a.toml")); cache_dir("web")', ["a.toml", "web/a"], None),
        ('read(self.root.join("conf/a.toml")); read(home().unwrap().join("b.toml"))', ["conf/a.toml", "b.toml"], None),
        ('let d: String = "public".into()', ["public/a"], {"public": "public"}),
        ('fs::write("report.html", r); read("input.txt")', ["report.html", "input.txt"], {"input.txt": "input.txt"}),
        ('create_dir_all("data"); read("data/a.json")', ["data/a.json"], {"data": "data"}),
        ('if !exists("a.toml") { fs::write("a.toml", b) } read("a.toml")', ["a.toml"], {"a.toml": "a.toml"}),
        ('concat!(env!("CARGO_MANIFEST_DIR"), "/public")', ["public/a"], {"public": "/src/public"}),
        ('format!("{}/tpl/a.html", env!("CARGO_MANIFEST_DIR"))', ["tpl/a.html"], {"tpl": "/src/tpl"}),
        ('Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")', ["assets/a"], {"assets": "/src/assets"}),
        ('Tera::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tpl/**/*"))', ["tpl/a.html"], {"tpl": "/src/tpl"}),
        ('let at = Path::new(env!("CARGO_MANIFEST_DIR")); read(at.join("tpl/a"))', ["tpl/a"], {"tpl": "/src/tpl"}),
        ('const AT: &str = env!("CARGO_MANIFEST_DIR"); Path::new(AT).join("tpl")', ["tpl/a"], {"tpl": "/src/tpl"}),
        ('let at = env!("CARGO_MANIFEST_DIR"); open(format!("{at}/tpl/a.html"))', ["tpl/a.html"], {"tpl": "/src/tpl"}),
        ('static AT: &str = env!("CARGO_MANIFEST_DIR"); open(format!("{}/a.md", AT))', ["a.md"], {"a.md": "/src/a.md"}),
        ('read(concat!(env!("CARGO_MANIFEST_DIR"), "/tpl/a")).expect("tpl/a")', ["tpl/a"], {"tpl": "/src/tpl"}),
        ('read(at()); fn at() -> &str { "conf/a.toml" }', ["conf/a.toml"], {"conf": "conf"}),
        ('read(if d { "conf/a.toml" } else { "live/b.toml" })', ["live/b.toml"], {"live": "live"}),
        ('read_to_string("words")', ["words"], {"words": "words"}),
        ('h.register_templates_directory("tpl", o)', ["tpl/a.hbs"], {"tpl": "tpl"}),
        ('StaticDir::new(["public"])', ["public/a"], {"public": "public"}),
        ('read("docs/api.yaml"); x.join("doc")', ["docs/api.yaml", "doc/a"], {"docs": "docs"}),
        ('read("src/a.sql")', ["src/a.sql"], None),
        ('read("src/templates/a.html"); read_dir("docs")', ["src/templates/a.html", "docs/a"],
         {"docs": "docs", "src/templates": "src/templates"}),
        ('File::open("VERSION"); read_to_string("MOTD"); File::open(Path::new("README.md"))',
         ["VERSION", "MOTD", "README.md"], {"MOTD": "MOTD", "README.md": "README.md", "VERSION": "VERSION"}),
        ('skip("VERSION"); read("NEWS"); read("Cargo.toml"); read("./Cargo.lock"); read_dir("src")', ["VERSION"], None),
        ('read("pyproject.toml"); open("package.json"); f("pyproject.toml")', ["pyproject.toml", "package.json"], None),
        ('read("examples/c.toml"); read("tests/data/a"); read_dir("benches")',
         ["examples/c.toml", "tests/data/a", "benches/a"], {"examples": "examples", "tests/data": "tests/data"}),
        ('read(".hidden.toml"); File::open("./.config/app.toml"); read(".gitignore"); x.ends_with(".toml")',
         [".hidden.toml", ".config/app.toml", ".gitignore", ".toml"],
         {".config": ".config", ".hidden.toml": ".hidden.toml"}),
        ('OpenOptions::new().read(true).open("seed.bin")', ["seed.bin"], {"seed.bin": "seed.bin"}),
        ('File::options().read(true).write(true).open("./db/seed")', ["db/seed"], {"db": "db"}),
        ('read(PathBuf::from(".").join("a.txt")); let d = Path::new("./"); read(d.join("b.txt"))', ["a.txt", "b.txt"],
         {"a.txt": "a.txt", "b.txt": "b.txt"}),
        ('read(PathBuf::from("/etc").join("a.txt")); let r = o.unwrap_or(PathBuf::from(".")); read(r.join("b.txt"))',
         ["a.txt", "b.txt"], None),
        ('include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/a"))', ["sql/a"], None),
        ('embed_migrations!("sql/up")', ["sql/up/a"], None),
    ],
)  # fmt: skip
def test_what_the_sources_name_is_placed_where_they_look_for_it(tmp_path, body, there, files):
    told, notes = init(crate(tmp_path, program(body) | dict.fromkeys(there, "")))
    assert told.get("files") == files and not ("writable" in told and "options" in body.lower())
    assert not any("CARGO_MANIFEST_DIR" in note for note in notes)


@pytest.mark.parametrize(
    ("crates", "files"),
    [
        (["rocket", "rocket_dyn_templates"], {"Rocket.toml": "Rocket.toml", "templates": "templates"}),
        (["loco-rs"], {"config": "config"}),
    ],
)
def test_what_a_crate_reads_by_itself_is_placed(tmp_path, crates, files):
    there = {"Cargo.toml": dependencies(*crates), "Rocket.toml": "", "templates/a.tera": "", "config/live.yaml": ""}
    told, _ = init(crate(tmp_path, there))
    assert told["files"] == files


@pytest.mark.parametrize(
    ("more", "noted"),
    [
        ({".gitignore": ".env\n", "web/.env": "KEY=1", "web/a.html": ""},
         "`files` takes what git ignores in web too (web/.env)"),
        ({".gitignore": "/web/dist\n", "web/dist/a.js": ""}, "its sources name web/dist, which git ignores"),
        ({"web/src/a.ts": ""}, "its sources name web/dist, which is not there: `build_commands`"),
        ({".dockerignore": "**/*.md\n", "web/a.html": "", "web/a.md": ""},
         "the image lacks a file of web: .dockerignore leaves web/a.md out, by its line '**/*.md'"),
    ],
)  # fmt: skip
def test_what_of_a_placed_folder_an_image_has_unasked_or_lacks_is_told(tmp_path, more, noted):
    body = 'ServeDir::new("web/dist")' if "dist" in noted else 'ServeDir::new("web")'
    folder = crate(tmp_path, program(body) | more)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    _, notes = init(folder)
    assert [note.startswith(noted) for note in notes] == [True]


@pytest.mark.parametrize(
    ("main", "script", "noted"),
    [
        ('include_dir!("$CARGO_MANIFEST_DIR/pages")', "", True),
        ('} #[derive(RustEmbed)] #[folder = "pages/"] struct A; fn g() {', "", True),
        ("", 'for each in read_dir("pages") {} println!("cargo:rerun-if-changed=src")', True),
        ("", 'glob("./pages/**/*.html"); WalkDir::new(a)', True),
        ("", 'println!("cargo:rerun-if-changed=pages"); compile(&["pages/sub/b.html"])', False),
        ('include_str!("../pages/a.html")', 'read_dir("src")', False),
    ],
)
def test_what_of_a_folder_that_the_build_reads_dockerignore_leaves_out_is_told(tmp_path, main, script, noted):
    there = {".dockerignore": "**/*.md\n", **dict.fromkeys(["pages/a.html", "pages/sub/b.md", "src/c.md"], "")}
    _, notes = init(crate(tmp_path, program(main) | there | {"build.rs": f"fn main() {{ {script}; }}\n"}))
    said = "the program lacks a file of pages: .dockerignore leaves pages/sub/b.md out, by its line '**/*.md'"
    assert [note.startswith(said) for note in notes] == [True] * noted, notes


def test_what_gitignore_names_is_told_where_git_reads_no_repository(tmp_path, monkeypatch):
    more = {".gitignore": "web/.env\n/keys\n", "web/.env": "KEY=1", "web/a.html": "", "keys/a": ""}
    folder = crate(tmp_path, program('ServeDir::new("web"); read("keys/a")') | more)
    told, unpacked = init(folder)
    assert told["files"] == {"web": "web"}
    assert [note.split(":")[0] for note in unpacked] == [
        "its sources name keys, which git ignores", "`files` takes what git ignores in web too (web/.env)",
    ]  # fmt: skip
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    told, notes = init(folder)
    assert told["files"] == {"web": "web"} and [each for each in notes if "safe.directory" not in each] == unpacked


@pytest.mark.parametrize(
    ("body", "writable"),
    [
        ('let (old, new) = ("/urls.sqlite", "/var/lib/urls.sqlite3")', ["/var/lib"]),
        ('read("/usr/share/zones.db")', None),
        ('connect("sqlite://data/a.db?mode=rwc")', ["data"]),
        ('Connection::open("app.db")', ["."]),
        ('const DB: &str = "store/db"; sled::open(DB)', ["store/db"]),
        ('rolling::daily("logs", "a.log")', ["logs"]),
        ('OpenOptions::new().create(true).append(true).open("log/audit.log")', ["log"]),
        ('OpenOptions::new().read(true).open("x")', ["."]),
        ('UnixListener::bind("run/app.sock")', ["run"]),
        ('fs::write(format!("up/{}.bin", 1), b)', ["up"]),
        ('fs::write(&format!("log-{n}"), b)', ["."]),
        ('create_dir_all(format!("users/u{id}/a")); create_dir(format!("{root}/a"))', ["users"]),
        ('create_dir_all(Path::new("state")); create_dir(&std::path::PathBuf::from("kept"))', ["state", "kept"]),
        ('create_dir_all(config::DATA_DIR); mod config { pub const DATA_DIR: &str = "data"; }', ["data"]),
        ('const LOG_DIR: &str = "logs"; File::create(format!("{LOG_DIR}/a.log"))', ["logs"]),
        ('let at = "logs"; File::create(Path::new(&at).join("a.log"))', ["logs"]),
        ('const LOG_DIR: &str = "logs"; File::create(Path::new(LOG_DIR).join("a.log"))', ["logs"]),
        ('redb::Database::create("db/a.redb"); rocksdb::DB::open_default("rocks")', ["rocks", "db"]),
        ('File::options().create(true).append(true).open("log/a.log")', ["log"]),
        ('fs::copy("a.txt", "out/b")', ["out"]),
        ('fs::rename(temporary(&at), Path::new("kept/b")); symlink("x", "/var/lib/a/y")', ["kept", "/var/lib/a"]),
        ('fs::copy("in/a", to); fs::rename(from, to)', None),
        ('DirBuilder::new().recursive(true).create("cache")', ["cache"]),
        ('fs::write("/var/lib/a/state", b)', ["/var/lib/a"]),
        ('fs::write("/var/run/a.pid", b); fs::write("/a", b); create_dir_all("/tmp/x")', None),
        ('let at = var("D").unwrap_or_else(|_| "./data".to_string()); create_dir_all(&at)', ["data"]),
        ('let mut at: PathBuf = PathBuf::from("store"); create_dir_all(at.join("a"))', ["store"]),
        ('let to = var("L").unwrap_or("log/a.log".into()); File::create(&to)', ["log"]),
        ('let db = var("DB").unwrap_or(String::from("/data/a.db")); Connection::open(db.as_str())', ["/data"]),
        (
            'let at = "run"; fs::write(format!("{at}/a"), b); File::create(format!("{}/{}", c.log_dir, n)); '
            'fn default_log_dir() -> String { "log".to_owned() }',
            ["run", "log"],
        ),
        (
            'let p = find("sh"); File::create(&p); let n = "out".to_string(); if let File(n) = o { fs::write(n, b) }',
            None,
        ),
        ('let to = "a/b"; } fn g(to: &Path) { File::create(to)', None),
        ('let p = Path::new("data").join("a"); File::create(&p); create_dir_all(p.parent().unwrap())', ["data"]),
        ('let o = SqliteConnectOptions::new().filename("db/a.db"); csv::Writer::from_path("out/a.csv")', ["db", "out"]),
        ('rocksdb::DB::open(&options, "rocks"); fs::write(&options, "text")', ["rocks"]),
        ('UnixListener::bind("/run/app/app.sock"); fs::write("/run/app.pid", id)', ["/run/app"]),
        (
            "create_dir_all(&config.data_dir); } impl Default for Config { fn default() -> Self { Config { "
            'data_dir: "data".into(), port: 80 } }',
            ["data"],
        ),
        (
            'create_dir_all(&args.data_dir)?; struct Args {\n#[arg(long, env = "D", default_value = "pastes")]\n'
            "/// Kept.\n#[serde(skip)]\npub data_dir: PathBuf }",
            ["pastes"],
        ),
        (
            'fs::create_dir_all(&config.data_dir); fn default_data_dir() -> PathBuf { "/var/lib/a".into() }',
            ["/var/lib/a"],
        ),
    ],
)
def test_the_folders_that_a_program_writes_to_are_writable(tmp_path, body, writable):
    told, _ = init(crate(tmp_path, program(body)))
    assert told.get("writable") == writable
    assert ("workdir" in told) == (writable == ["."])


@pytest.mark.parametrize(
    ("manifest", "main", "own"),
    [
        (HEAP, f'#[cfg(not(feature = "heap"))]\n{SETS}', True),
        (HEAP.replace("heap = []", 'default = ["heap"]\nheap = []'), f'#[cfg(not(feature = "heap"))]\n{SETS}', False),
        (HEAP, SETS.replace("#[global", '#[cfg_attr(not(feature = "heap"), global').replace("]\n", ")]\n", 1), True),
        (JEMALLOC, 'cfg_if! { if #[cfg(feature = "jemalloc")] {\n' + SETS.replace("fn main", "}}\nfn main"), False),
        (JEMALLOC, '#[cfg(feature = "jemalloc")]\nmod alloc {\nuse x::T;\n'
         + SETS.replace("fn main", "}\nfn main"), False),
        (HEAP, "mod alloc {\nuse x::T;\n" + SETS.replace("fn main", "}\nfn main"), True),
        (HEAP, '#[cfg(target_env = "musl")]\n' + SETS, True),
        (HEAP, '#[cfg(not(any(feature = "heap", target_os = "illumos")))]\n' + SETS, True),
        (HEAP, '#[cfg(all(not(feature = "heap"), any(target_os = "linux", windows), not(miri)))]\n' + SETS, True),
        (HEAP.replace("heap = []", 'default = ["heap"]\nheap = []'), f'#[cfg(feature = "heap")]\n{SETS}', True),
        (HEAP, "#[cfg(not(all(unix)))]\n" + SETS, False),
        (HEAP, "#[cfg(debug_assertions)]\n" + SETS, False),
    ],
)  # fmt: skip
def test_an_allocator_is_the_crates_own_where_no_feature_turns_it_on(tmp_path, manifest, main, own):
    assert init(crate(tmp_path, {"Cargo.toml": manifest, "src/main.rs": main}))[0].get("own_allocator", False) == own


@pytest.mark.parametrize(
    ("condition", "manifest", "configuration", "own"),
    [
        ("debug_assertions", "[profile.release]\ndebug-assertions = true\n", "", True),
        ("debug_assertions", "", "[profile.release]\ndebug-assertions = true\n", True),
        ("debug_assertions", "[profile.dev]\ndebug-assertions = true\n", "", False),
        ("custom", "", '[build]\nrustflags = ["--cfg", "custom"]\n', True),
        ('heap = "own"', "", "[build]\nrustflags = ['--cfg=heap=\"own\"']\n", True),
        ("custom", "", '[build]\nrustflags = ["--cfg", "other"]\n', False),
    ],
)
def test_an_allocator_is_the_crates_own_where_the_projects_own_settings_turn_it_on(
    tmp_path, condition, manifest, configuration, own
):
    files = {"Cargo.toml": MANIFEST.format("a") + manifest, "src/main.rs": f"#[cfg({condition})]\n{SETS}"}
    told, _ = init(crate(tmp_path, files | {".cargo/config.toml": configuration}))
    assert told.get("own_allocator", False) == own


def test_what_a_stable_compiler_is_told_to_take_needs_no_nightly_one(tmp_path):
    files = {"src/main.rs": "#![feature(let_chains)]\nfn main() {}\n"}
    assert not init(crate(tmp_path, files | {".cargo/config.toml": '[env]\nRUSTC_BOOTSTRAP = "1"\n'}))[1]


def test_a_librarys_allocator_that_its_default_turns_on_is_the_programs_own(tmp_path):
    manifest = MANIFEST.format("a") + '[dependencies]\nb = { path = "b" }\n[workspace]\nmembers = ["b"]\n'
    library = MANIFEST.format("b") + '[features]\ndefault = ["fast"]\nfast = []\n'
    text = '#[cfg(feature = "fast")]\n' + SETS.replace("fn main() {}\n", "")
    folder = crate(tmp_path, {"Cargo.toml": manifest, "b/Cargo.toml": library, "b/src/lib.rs": text})
    assert init(folder)[0]["own_allocator"]


@pytest.mark.parametrize(
    ("without", "features", "noted"),
    [
        ("", ["ssr"], False),
        ('#[cfg(not(feature = "ssr"))]\npub fn main() {}\n', ["ssr"], False),
        ('#[cfg(not(feature = "ssr"))]\nfn main() { println!("{}", 1); }\n', [], True),
    ],
)
def test_a_main_behind_a_feature_takes_that_feature(tmp_path, without, features, noted):
    main = f'#[cfg(feature = "ssr")]\n#[tokio::main]\nasync fn main() {{ run(); }}\n{without}'
    told, notes = init(
        crate(tmp_path, {"Cargo.toml": f"{MANIFEST.format('a')}[features]\nssr = []\n", "src/main.rs": main})
    )
    assert told["features"] == features and ("its main is another one with the feature ssr" in str(notes)) == noted


@pytest.mark.parametrize(
    ("sources", "environment", "ports"),
    [
        ('var("STATSD_PORT"); var("STATSD_HOST"); TcpListener::bind("0.0.0.0:3000")', {}, [3000]),
        ('var("CACHE_PORT"); TcpListener::bind("0.0.0.0:3000")', {}, [3000]),
        ('var("LISTEN_PORT"); TcpListener::bind("0.0.0.0:3000")', {"LISTEN_PORT": "{port}"}, None),
        ('var("HEALTH_PORT"); var("SERVER_PORT")', {"SERVER_PORT": "{port}"}, None),
    ],
)
def test_a_variable_of_something_else_is_not_the_servers(tmp_path, sources, environment, ports):
    told, _ = init(crate(tmp_path, program(f'TcpListener::bind(a); "HTTP/1.1"; {sources}')))
    assert told["serve"]["environment"] == environment and told.get("ports") == ports


@pytest.mark.parametrize(
    ("more", "noted"),
    [
        (program('TcpListener::bind("0.0.0.0:6379")'), "its sources name no HTTP"),
        (program("UdpSocket::bind(a)"), "it listens, and not by TCP"),
        (program('serve(r).run(([127, 0, 0, 1], 3030))'), "its sources bind 127.0.0.1"),
        (program('const ADDR: &str = "127.0.0.1:3000"; serve(TcpListener::bind(ADDR))'), "its sources bind 127.0.0.1"),
        (program("serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 3000)))"), "its sources bind 127.0.0.1"),
        (program('serve(TcpListener::bind(format!("127.0.0.1:{p}")), var("PORT"))'), "its sources bind 127.0.0.1"),
        ({".cargo/config.toml": "[unstable]\nbuild-std = ['std']\n"}, "it needs a nightly compiler ([unstable]"),
        ({"src/main.rs": "#![feature(let_chains)]\nfn main() {}\n"},
         "it needs a nightly compiler (#![feature(let_chains)]"),
        ({".cargo/config.toml": "[build]\nrustflags = ['-Ctarget-cpu=native']\n"},
         "its cargo configuration compiles for the"),
        ({"../rust-toolchain.toml": "[toolchain]\nchannel = '1.81'\n"}, "rustup reads "),
    ],
)  # fmt: skip
def test_what_some_machines_or_checks_lack_is_told(tmp_path, more, noted):
    _, notes = init(crate(tmp_path / "a", more))
    assert [note.startswith(noted) for note in notes] == [True], notes


def test_tests_with_texts_that_look_like_their_end_are_left_out(tmp_path):
    texts = 'const A: &str = r#"\n}\n"#; const B: char = \'{\'; const C: &str = "\\"}"; fn f<\'a>(x: &\'a str) {}\n'
    tests = f'#[cfg(test)]\nmod tests {{\n{texts}fn g() {{ TcpListener::bind("0.0.0.0:9999"); }}\n}}\n'
    main = f'fn main() {{}}\n{tests}fn after() {{ TcpListener::bind("0.0.0.0:80"); }}\n'
    assert init(crate(tmp_path, {"src/main.rs": main}))[0]["ports"] == [80]


@pytest.mark.parametrize("attribute", ["test", 'tokio::test(flavor = "multi_thread")', "rstest", "wasm_bindgen_test"])
def test_a_function_that_is_a_test_is_not_the_programs(tmp_path, attribute):
    test = f'#[{attribute}]\n#[should_panic(expected = "x")]\nfn it() {{ read("samples/a"); bind("0.0.0.0:99"); }}\n'
    main = f'fn main() {{ TcpListener::bind("0.0.0.0:80"); serve(x); }}\n{test}fn f() {{ read("data/b"); }}\n'
    told, _ = init(crate(tmp_path, {"src/main.rs": main, "samples/a": "", "data/b": ""}))
    assert told["ports"] == [80] and told["files"] == {"data": "data"}


def test_what_a_build_script_or_a_test_does_is_not_the_programs(tmp_path):
    script = 'fn main() { env!("CARGO_MANIFEST_DIR"); temp_dir(); Local::now(); dirs::home_dir(); "--version"; }\n'
    tests = 'fn f() { temp_dir(); create_dir_all("out"); read("samples/a"); }\n'
    main = (
        "fn main() {}\n#[cfg(test)]\nmod checks;\n#[cfg(all(test, unix))]\n#[allow(unused)]\nmod more {\n"
        + tests
        + "}\n"
    )
    folder = crate(tmp_path, {"build.rs": script, "src/main.rs": main, "src/checks.rs": tests, "samples/a": ""})
    told, notes = init(folder)
    assert not notes and not {"files", "writable"} & told.keys()


def test_committed_answers_of_a_database_are_used(tmp_path):
    needed = MANIFEST.format("a") + '[dependencies]\nsqlx = { version = "*", features = ["postgres"] }\n'
    told, _ = init(crate(tmp_path / "with", {"Cargo.toml": needed, ".sqlx/query-1.json": "{}"} | program("query!(a)")))
    assert told["build_environment"] == {"SQLX_OFFLINE": "true"}
    told, notes = init(crate(tmp_path / "without", {"Cargo.toml": needed} | program("query_as!(T, a)")))
    assert "build_environment" not in told and any("`cargo sqlx prepare`" in note for note in notes)


def test_crates_of_the_lockfile_that_nothing_of_the_program_uses_count_for_nothing(tmp_path):
    lock = locked({"a": "", "openssl-sys": "", "native-tls": ""})
    needed = MANIFEST.format("a") + '[dev-dependencies]\nnative-tls = "*"\n'
    told, notes = init(crate(tmp_path, {"Cargo.toml": needed, "Cargo.lock": lock}))
    assert told["packages"] == [] and not notes


def test_a_member_that_cargo_treats_otherwise_in_its_own_folder_is_told(tmp_path):
    member = {
        "svc/Cargo.toml": MANIFEST.format("svc"),
        "svc/src/main.rs": "fn main() {}\n",
        "svc/rust-toolchain.toml": "",
    }
    folder = crate(tmp_path, member | {"Cargo.toml": '[workspace]\nmembers = ["svc"]\n'})
    (folder / "src/main.rs").unlink()
    assert f"cargo reads svc/rust-toolchain.toml only where it is called there: `./lab init {folder}/svc`" in str(
        init(folder)[1]
    )


def test_a_library_that_its_crate_compiles_itself_is_no_package(tmp_path):
    lock = locked({"a": "", "libsqlite3-sys": "cc", "cc": ""})
    needed = MANIFEST.format("a") + '[dependencies]\nlibsqlite3-sys = "*"\n'
    assert init(crate(tmp_path, {"Cargo.toml": needed, "Cargo.lock": lock}))[0]["packages"] == []


def test_a_library_that_a_feature_which_is_off_would_compile_is_a_package(tmp_path):
    locks = {"pq-sys": "", "pq-src": "", "libsqlite3-sys": "cc", "cc": "", "openssl-sys": "", "openssl-src": ""}
    lock = locked({"a": ""} | locks)
    needed = dependencies(*locks) + 'client = { version = "*", optional = true }\n[features]\n'
    bundled = 'bundled = ["pq-sys/bundled", "libsqlite3-sys/bundled"]\n'
    for more, packages in (
        (bundled, ["libpq-dev", "libsqlite3-dev", "pkg-config"]),
        (bundled + 'default = ["bundled"]\n', []),
        ('vendored-tls = ["client?/vendored-tls"]\n', ["libssl-dev", "pkg-config"]),
        ('json = ["client?/json"]\n', []),
    ):
        told, _ = init(crate(tmp_path, {"Cargo.toml": needed + more, "Cargo.lock": lock}))
        assert told["packages"] == packages


@pytest.mark.parametrize(
    ("body", "there", "missing"),
    [
        ('include_str!("../web/index.html")', [], "web/index.html"),
        ('include_dir!("$CARGO_MANIFEST_DIR/dist")', [], "dist"),
        ('} #[derive(RustEmbed)] #[folder = "static/"] struct A; fn g() {', [], "static"),
        ('include_bytes!("../web/a.png")', ["web/a.png"], ""),
        ('include_bytes!(concat!(env!("OUT_DIR"), "/a"))', [], ""),
        ('include_bytes!("../made.bin")', [], ""),
    ],
)
def test_what_the_compiler_puts_into_the_program_and_is_not_there_is_told(tmp_path, body, there, missing):
    script = {"build.rs": 'fn main() { std::fs::write("made.bin", "").unwrap(); }\n'}
    _, notes = init(crate(tmp_path, program(body) | script | dict.fromkeys(there, "")))
    found = [each for each in notes if each.startswith("its sources include ")]
    said = f"include {missing} when they are compiled, and it is not there"
    assert [said in each for each in found] == [True] * bool(missing), notes


def test_a_file_that_is_compiled_in_and_that_builds_do_not_get_is_told(tmp_path):
    files = {".dockerignore": "data\n", "data/a.txt": "", "web/a.txt": ""}
    _, notes = init(crate(tmp_path, program('include_str!("../data/a.txt"); include_str!("../web/a.txt")') | files))
    assert [each[:79] for each in notes] == [
        "its sources include ../data/a.txt when they are compiled: .dockerignore leaves d"[:79]
    ]


@pytest.mark.parametrize(
    ("body", "script", "named"),
    [
        ('read(concat!(env!("OUT_DIR"), "/table.txt"))', "", "OUT_DIR"),
        ('include!(concat!(env!("OUT_DIR"), "/made.rs"))', "", ""),
        ('include_bytes!(env!("DATA_DIR"))', 'println!("cargo:rustc-env=DATA_DIR={}", current_dir());', ""),
        ('read(Path::new(env!("DATA_DIR")).join("a"))', 'println!("cargo:rustc-env=DATA_DIR={}", current_dir());',
         "DATA_DIR"),
        ('read(env!("CONF_PATH"))', 'println!("cargo::rustc-env=CONF_PATH=/etc/a");', ""),
        ('print(env!("REVISION"))', 'println!("cargo:rustc-env=REVISION={}", revision(current_dir()));', ""),
        ('Path::new(file!()).parent()', "", "file!()"),
        ('println!("{}:{}", file!(), line!())', "", ""),
    ],
)  # fmt: skip
def test_what_a_program_reads_in_the_folder_of_its_build_is_told(tmp_path, body, script, named):
    _, notes = init(crate(tmp_path, program(body) | {"build.rs": f"fn main() {{ {script} }}\n"}))
    assert [note.partition(",")[0] for note in notes] == [f"its sources name {named}"] * bool(named), notes


def test_a_text_that_is_longer_than_a_name_is_no_file(tmp_path):
    assert "files" not in init(crate(tmp_path, program(f'parse("{"QUJD/" * 4}{"A" * 300}.x")')))[0]


def test_queries_of_a_member_that_are_committed_are_found(tmp_path):
    sqlx = '[dependencies]\nsqlx = { version = "0.8", default-features = false, features = ["postgres"] }\n'
    member = {"db/Cargo.toml": MANIFEST.format("db") + sqlx, "db/src/lib.rs": 'fn f() { query!("x"); }\n'}
    manifest = MANIFEST.format("a") + '[dependencies]\ndb = { path = "db" }\n[workspace]\nmembers = ["db"]\n'
    folder = crate(tmp_path, member | {"Cargo.toml": manifest, "db/.sqlx/query-1.json": "{}"})
    told, notes = init(folder)
    assert told["build_environment"] == {"SQLX_OFFLINE": "true"} and "commit the folder .sqlx" not in str(notes)


def test_what_its_own_dockerfile_says_and_the_proposal_does_not_is_told(tmp_path):
    own = """# EXPOSE 1
FROM rust AS builder
ENV STAGE=builder
RUN apt-get update && apt-get install -y --no-install-recommends \\
    # for the script
    cmake libssl-dev curl && rm -rf /x
FROM debian
ENV RUN_MODE=production LISTEN="0.0.0.0:80"
ENV RUST_LOG info
EXPOSE 8080/tcp
HEALTHCHECK CMD curl -f http://localhost:8080/settings || exit 1
"""
    script = {"build.rs": 'fn main() { Command::new("cmake").status(); }\n', "Dockerfile": own}
    _, notes = init(crate(tmp_path, program("") | script))
    said = "package libssl-dev, RUN_MODE=production, LISTEN=0.0.0.0:80, EXPOSE 8080/tcp, a health check of /settings"
    assert notes == [f"its own Dockerfile has {said}: see what of it is missing there"]
    listens = {"src/main.rs": LISTENS + 'fn f() { var("LISTEN"); "/health" }\n'}
    _, notes = init(crate(tmp_path, listens | script))
    left = "package libssl-dev, RUN_MODE=production, a health check of /settings"
    assert [each for each in notes if "Dockerfile" in each] == [
        f"its own Dockerfile has {left}: see what of it is missing there"
    ]
    assert not [each for each in init(crate(tmp_path, {"Dockerfile": "\n"}))[1] if "Dockerfile" in each]


def test_what_the_last_stage_of_its_own_dockerfile_copies_beside_the_program_is_told(tmp_path):
    own = """FROM rust AS builder
COPY . .
FROM debian
COPY --from=builder --chown=1:1 /app/target/release/a /usr/local/bin/a
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY ["templates", "./settings.yml", "/app/"]
COPY --from=web /usr/src/app/build build
COPY --from=builder /srv/data /data
ADD /out/a /a
"""
    reads = {"src/main.rs": 'fn main() { read_dir("templates"); }\n', "templates/a.html": ""}
    _, notes = init(crate(tmp_path, reads | {"Dockerfile": own}))
    assert [each for each in notes if "Dockerfile" in each] == [
        "its own Dockerfile has COPY ./settings.yml, COPY /usr/src/app/build, COPY /srv/data: see what of it is "
        "missing there"
    ]
    alone = own.partition("FROM debian")[0] + 'CMD ["a"]\n'
    _, notes = init(crate(tmp_path, {"Dockerfile": alone}))
    assert not [each for each in notes if "Dockerfile" in each]


@pytest.mark.parametrize(
    ("served", "missing"),
    [
        ('ServeDir::new("build").fallback(ServeFile::new("./build/spa.html"))', "build"),
        ('Files::new("/", "./dist/").index_file("index.html")', "dist"), ('warp::fs::dir("www")', "www"),
        ('FileServer::from("public"); create_dir_all("public")', ""), ('ServeDir::new("there")', ""),
        ('Files::new("word")', ""), ('ServeDir::new(&root)', ""),
    ],
)  # fmt: skip
def test_a_folder_that_a_server_answers_with_and_that_is_not_there_is_told(tmp_path, served, missing):
    files = {"src/main.rs": f"fn main() {{ {served}; }}\n", "there/a.html": ""}
    _, notes = init(crate(tmp_path, files))
    told = f"its sources name {missing}, which is not there: `build_commands` can make it before the build, `writable`"
    found = [each for each in notes if "which is not there" in each]
    assert (len(found), found[0].startswith(told)) == (1, True) if missing else not found


def test_files_and_folders_with_spaces_in_their_names_are_found_and_sentences_are_none(tmp_path):
    body = 'const T: &str = "my pages"; read("conf/app two.toml"); println!("no such file in conf/none.toml or here")'
    folder = crate(tmp_path, program(body) | {"my pages/a.html": "", "conf/app two.toml": ""})
    told, notes = init(folder)
    assert told["files"] == {"conf": "conf", "my pages": "my pages"} and not any("conf/none" in each for each in notes)


def test_profiles_of_the_configuration_are_told_and_a_package_with_an_example_alone_says_the_way(tmp_path):
    profile = '[profile.small]\ninherits = "release"\n'
    folder = crate(tmp_path / "a", {".cargo/config.toml": profile})
    init(folder)
    assert '# profile = "small"' in (folder / "lab.toml").read_text()
    only = crate(tmp_path / "b", {"examples/shown.rs": "fn main() {}\n", "src/lib.rs": ""})
    (only / "src" / "main.rs").unlink()
    with pytest.raises(LabError, match=r"has a binary; of the example shown a \[\[bin\]\] in Cargo\.toml makes one"):
        init(only)


@pytest.mark.parametrize(("kinds", "noted"), [('["dylib"]', True), ('["dylib", "rlib"]', False), ('["lib"]', False)])
def test_a_library_that_is_linked_when_the_program_starts_is_told(tmp_path, kinds, noted):
    library = MANIFEST.format("core-a") + f"[lib]\ncrate-type = {kinds}\n"
    manifest = MANIFEST.format("a") + '[dependencies]\ncore-a = { path = "core-a" }\n[workspace]\n'
    folder = crate(
        tmp_path, {"Cargo.toml": manifest, "core-a/Cargo.toml": library, "core-a/src/lib.rs": "pub fn a() {}\n"}
    )
    assert any(note.startswith("its library core-a is a dylib") for note in init(folder)[1]) == noted


def test_a_file_that_a_program_reads_beside_itself_is_placed_there(tmp_path):
    body = 'std::fs::read(std::env::current_exe().unwrap().parent().unwrap().join("settings.ini")); read("b/c.txt")'
    told, notes = init(crate(tmp_path, program(body) | {"settings.ini": "", "b/c.txt": ""}))
    assert told["files"] == {"settings.ini": "/a/settings.ini", "b": "b"}
    assert any("places in `files` then begin with /a/" in note for note in notes)
