"""How `init` reads which files a program takes from its image, and which folders it writes to."""

import shutil

import pytest
from support.crates import MANIFEST, crate, init

pytestmark = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")


@pytest.mark.parametrize(
    ("main", "files"),
    [
        ('let mut p = std::env::current_exe().unwrap();\np.set_file_name("a.toml"); read(p)', {"a.toml": "/a/a.toml"}),
        ('let mut p = std::env::current_exe().unwrap();\np.pop();\np.push("a.toml"); read(p)', {"a.toml": "/a/a.toml"}),
        ('let mut p = config_dir(); p.push("a.toml"); read(p)', None),
        ('let f = match open(elsewhere().join("b.toml")) { Err(_) => { let cwd = std::env::current_dir().unwrap(); '
         'open(cwd.join("a.toml")) } Ok(f) => f };', {"a.toml": "a.toml"}),
        ('html! { link href="static/a.css"; img src="./static/a.png"; form action="static/a" { } }', None),
        ('read(Utf8Path::new("static"))', {"static": "static"}),
    ],
)  # fmt: skip
def test_a_file_is_placed_where_the_program_looks_for_it(tmp_path, main, files):
    present = dict.fromkeys(("a.toml", "b.toml", "static/a.css", "static/a.png", "static/a"), "")
    told, notes = init(crate(tmp_path, {"src/main.rs": f"fn main() {{ {main}; }}\n"} | present))
    assert told.get("files") == files
    assert not any("is not there" in note for note in notes)


def test_of_its_own_folder_a_program_gets_the_file_alone(tmp_path):
    (tmp_path / "Cargo.toml").write_text('[workspace]\nmembers = ["own"]\n')
    main = 'fn main() { read("own/a.toml"); read("own/static/a.css"); }\n'
    told, _ = init(crate(tmp_path / "own", {"src/main.rs": main, "a.toml": "", "static/a.css": ""}))
    assert told["files"] == {"a.toml": "own/a.toml", "static": "own/static"}


@pytest.mark.parametrize(
    "main", ['SqliteConnectionManager::file("data/a.db")', 'fs::create_dir_all(Utf8PathBuf::from("data"))']
)
def test_a_folder_that_the_program_makes_files_in_is_writable(tmp_path, main):
    assert init(crate(tmp_path, {"src/main.rs": f"fn main() {{ {main}; }}\n"}))[0]["writable"] == ["data"]


def test_what_is_compiled_in_a_debug_build_alone_is_not_the_programs(tmp_path):
    main = (
        'fn main() { open("static/a.css"); if cfg!(debug_assertions) { open("a.toml"); } }\n'
        '#[cfg(debug_assertions)]\nfn f() { fs::create_dir_all("out"); }\n'
        '#[cfg(not(debug_assertions))]\nfn f() { fs::create_dir_all("data"); }\n'
    )
    told, _ = init(crate(tmp_path, {"src/main.rs": main, "static/a.css": "", "a.toml": ""}))
    assert (told["files"], told["writable"]) == ({"static": "static"}, ["data"])


def test_a_procedural_macro_is_of_the_build(tmp_path):
    """What it calls is needed by builds, and what it reads is not in the image."""
    macro = 'fn f() { Command::new("msgfmt").output(); fs::create_dir_all("out"); open("a.toml"); var("A_LANG"); }\n'
    files = {
        "Cargo.toml": MANIFEST.format("a") + '[dependencies]\nmacro = { path = "macro" }\n[workspace]\n',
        "src/main.rs": "fn main() {}\n",
        "a.toml": "",
        "macro/Cargo.toml": MANIFEST.format("macro") + "[lib]\nproc-macro = true\n",
        "macro/src/lib.rs": f"{macro}#[cfg(test)]\nmod tests;\n",
        "macro/src/tests.rs": 'fn f() { Command::new("cmake").output(); }\n',
    }
    told, notes = init(crate(tmp_path, files))
    assert told["packages"] == ["gettext"] and not {"files", "writable"} & told.keys()
    assert not any("when it runs" in note for note in notes)
