"""Any source tree: what builds get of it, and what is said of what they do not get."""

import os
import shutil
import socket
from pathlib import Path

import pytest
from support.crates import MANIFEST, crate, write

from rustimg_lab.build import cargo_config, crate_settings, diagnosis, lab_toml, sources
from rustimg_lab.errors import LabError


def sent(folder: Path) -> list[str]:
    found = [path for path in sources.walk(folder) if (folder / path).is_symlink() or (folder / path).is_file()]
    return sorted(map(str, found))


def test_what_dockerignore_names_and_what_is_no_source_is_left_out(tmp_path):
    folder = crate(tmp_path, {
        ".dockerignore": "\ufeff# notes\r\n*.md\r\ndata/\r\n!data/kept.sql\r\n",
        "a.md": "", "data/big": "", "data/kept.sql": "",
        "target/release/a": "", "src/target/mod.rs": "", ".git/HEAD": "", "sub/.git": "gitdir: x", "lab.toml": "",
    })  # fmt: skip
    os.mkfifo(folder / "pipe")
    (folder / "out").symlink_to("/etc")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "s"))
    assert sent(folder) == [
        ".dockerignore", "Cargo.lock", "Cargo.toml", "data/kept.sql", "lab.toml", "out", "src/main.rs",
        "src/target/mod.rs",
    ]  # fmt: skip
    copied = sources.copy(folder, tmp_path.with_name("work"))
    assert sent(copied) == [each for each in sent(folder) if each != "lab.toml"] and (
        copied / "out"
    ).readlink() == Path("/etc")


def test_what_cargo_made_is_known_by_its_mark_and_a_crate_called_target_is_none(tmp_path):
    mark = "Signature: 8a477f597d28d172789f06886806bc55\n"
    folder = crate(
        tmp_path, {"out/CACHEDIR.TAG": mark, "out/release/a": "", "target/Cargo.toml": "", "target/a.rs": ""}
    )
    assert sent(folder) == ["Cargo.lock", "Cargo.toml", "lab.toml", "src/main.rs", "target/Cargo.toml", "target/a.rs"]
    (folder / "target" / "CACHEDIR.TAG").write_text(mark)
    assert not [each for each in sent(folder) if "target" in each]


def test_a_pointer_of_git_lfs_is_refused_unless_no_build_gets_it(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    folder = crate(tmp_path / "a", {"logo.png": pointer, "notes.txt": f"It begins with:\n{pointer}"})
    with pytest.raises(LabError, match=r"logo\.png is a pointer of Git LFS.*call `git lfs pull`"):
        sources.copy(folder, tmp_path / "1")
    (folder / ".dockerignore").write_text("*.png\n")
    assert "notes.txt" in sent(sources.copy(folder, tmp_path / "2"))


@pytest.mark.parametrize(
    ("lines", "there", "left"),
    [
        # From github.com/moby/patternmatcher: a line holds for what is below any folder that it is for.
        ("*\n!**/src\n", ["crates/a/src/main.rs", "crates/a/src/deep/b.rs", "crates/a/README"], ["crates/a/README"]),
        ("ASSETS\n", ["assets/a"], []),
        ("assets\n!assets/k[ae]pt\n", ["assets/a", "assets/kept"], ["assets/a"]),
        ("**\n!a/*/c\n", ["a/b/c/d/e", "a/b/x"], ["a/b/x"]),
        ("data\n!./data/kept\n! data/also\n", ["data/a", "data/kept", "data/also"], ["data/a"]),
        ("/data/\n", ["data/a/b", "sub/data/a"], ["data/a/b"]),
        ("d[^o]cs\n", ["docs/a", "dacs/a"], ["dacs/a"]),  # as Go has it: ^ negates, and ! does not
        ("[!a-d]*\n", ["a1", "e1", "!1"], ["a1", "!1"]),
        (
            "x\\[1\\].txt\n\\#hash\na+b.(c)\n",
            ["x[1].txt", "x1.txt", "#hash", "a+b.(c)", "aab.c"],
            ["x[1].txt", "#hash", "a+b.(c)"],
        ),
        ("a/**/z\n**/m\nq/**\n", ["a/z", "a/b/c/z", "m", "c/m", "q/r/s"], ["a/z", "a/b/c/z", "m", "c/m", "q/r/s"]),
    ],
)
def test_dockerignore_is_read_as_docker_reads_it(tmp_path, lines, there, left):
    write(tmp_path, {".dockerignore": lines} | dict.fromkeys(there, ""))
    assert set(there) - set(sent(tmp_path)) == set(left)
    assert [name for name in there if sources.why_missing(tmp_path, Path(name))] == left


@pytest.mark.parametrize(("hidden", "at"), [("app", "."), ("core", "."), ("core", "app")])
def test_a_build_script_that_builds_do_not_get_is_refused_wherever_it_is(tmp_path, hidden, at):
    depends = '[dependencies]\ncore = { path = "../core" }\n'
    root = write(tmp_path, {
        "Cargo.toml": '[workspace]\nmembers = ["app", "core"]\n', "Cargo.lock": "version = 4\n",
        ".dockerignore": f"{hidden}/build.rs\n", "app/Cargo.toml": MANIFEST.format("app") + depends,
        "app/src/main.rs": "", "core/Cargo.toml": MANIFEST.format("core"), "core/src/lib.rs": "",
        "app/build.rs": "", "core/build.rs": "", f"{at}/lab.toml": 'package = "app"\n',
    })  # fmt: skip
    with pytest.raises(LabError, match=rf"cargo needs build.rs: .dockerignore leaves {hidden}/build.rs out"):
        lab_toml.load(root / at)


def test_links_in_a_circle_and_files_that_an_editor_has_removed_meanwhile_stop_nothing(tmp_path, monkeypatch):
    folder, walk = crate(tmp_path / "a", {"src/kept.rs": "", "src/.gone.swp": "", "old/gone.rs": ""}), sources.walk
    (folder / "circle").symlink_to("circle")
    (folder / "self").symlink_to(".")
    assert not sources.leads_out(folder, Path("circle")) and not sources.leads_out(folder, Path("self"))
    assert sources.why_missing(folder, Path("circle/a.rs")) == ""

    def walked(*about: object) -> list[Path]:
        found = list(walk(*about))
        (folder / "src" / ".gone.swp").unlink()
        shutil.rmtree(folder / "old")
        return found

    monkeypatch.setattr(sources, "walk", walked)
    copied = sources.copy(folder, tmp_path / "work")
    assert (copied / "circle").readlink() == Path("circle") and (copied / "src" / "kept.rs").is_file()
    assert not list(copied.rglob("*gone*"))


@pytest.mark.parametrize("name", ["Cargo.lock", "Cargo.toml", ".cargo/config.toml"])
def test_a_file_that_cargo_needs_and_dockerignore_hides_is_named_with_the_line(tmp_path, name):
    folder = crate(tmp_path, {".dockerignore": f"/target\n{name}\n", ".cargo/config.toml": ""})
    with pytest.raises(LabError, match=f"leaves {name} out, by its line '{name}'; add the line !{name}"):
        lab_toml.load(folder)
    write(folder, {".dockerignore": f"{name}\n!{name}\n"})
    lab_toml.load(folder)


def test_a_link_that_leads_out_of_the_folder_is_named(tmp_path):
    (tmp_path / "shared").mkdir()
    folder = crate(tmp_path / "svc")
    (folder / "schemas").symlink_to("../shared")
    (folder / "inside").symlink_to("src")
    said = sources.why_missing(folder, Path("schemas/schema.json"))
    assert said.startswith(f"schemas is a link that leads out of {folder}, to ../shared; context = ")
    assert sources.why_missing(folder, Path("inside/main.rs")) == sources.why_missing(folder, Path("nowhere")) == ""
    (folder / "far").symlink_to("/etc/hostname")
    assert sources.why_missing(folder, Path("far")).endswith("in the link's place, or name the link in .dockerignore")
    (folder / "whole").symlink_to(folder / "src")
    assert sources.why_missing(folder, Path("whole")).endswith("/svc/src, a place that no build has: make it relative")
    write(folder, {"lab.toml": 'context = ".."\n'})
    app = lab_toml.load(folder)
    assert (app.directory, app.subdirectory) == (tmp_path, "svc") and sources.why_missing(
        tmp_path, Path("svc/schemas")
    ) == ""
    (folder / "Cargo.lock").rename(tmp_path / "lock")
    (folder / "Cargo.lock").symlink_to("../lock")
    write(folder, {"lab.toml": ""})
    with pytest.raises(LabError, match=r"cargo needs Cargo\.lock: Cargo\.lock is a link that leads out of"):
        lab_toml.load(folder)


@pytest.mark.parametrize(
    "table",
    [
        "dependencies",
        "build-dependencies",
        "target.'cfg(unix)'.dependencies",
        "patch.crates-io",
        "workspace.dependencies",
    ],
)
def test_a_path_dependency_outside_of_the_folder_is_named_and_the_context_widened(tmp_path, table):
    more = "[workspace]\n" if table.startswith("workspace") else ""
    folder = crate(
        tmp_path / "daemon", {"Cargo.toml": f'{MANIFEST.format("a")}{more}[{table}]\nwire = {{ path = "../wire" }}\n'}
    )
    write(tmp_path / "wire", {"Cargo.toml": MANIFEST.format("wire") + '[dependencies]\nfar = { path = "../far" }\n'})
    with pytest.raises(
        LabError, match=rf"daemon/Cargo\.toml depends on wire: .*wire/Cargo\.toml is outside of {folder}; context"
    ):
        lab_toml.load(folder)
    write(folder, {"lab.toml": 'context = ".."\n'})
    assert (lab_toml.load(folder).directory, lab_toml.load(folder).subdirectory) == (tmp_path, "daemon")
    assert [name for _, name, _ in cargo_config.path_dependencies([folder])] == ["wire", "far"]
    write(folder, {"lab.toml": 'context = "src"\n'})
    with pytest.raises(LabError, match=r"lab\.toml: 'context': .*src does not hold"):
        lab_toml.load(folder)


@pytest.mark.parametrize(
    ("configuration", "named", "there"),
    [
        ('[patch.crates-io]\nitoa = { path = "../forks/itoa" }\n', "itoa", "forks/itoa/Cargo.toml"),
        ('paths = ["../forks/itoa"]\n', "paths", "forks/itoa/Cargo.toml"),
        ('[source.crates-io]\nreplace-with = "v"\n[source.v]\ndirectory = "../forks"\n', "source.v", "forks"),
        ('[source.v]\nlocal-registry = "../forks"\n', "source.v", "forks"),
    ],
)
def test_what_cargos_configuration_puts_in_a_dependencys_place_is_named_too(tmp_path, configuration, named, there):
    folder = crate(tmp_path / "a", {".cargo/config.toml": configuration})
    write(tmp_path / "forks/itoa", {"Cargo.toml": MANIFEST.format("itoa")})
    said = rf"config\.toml depends on {named}: {tmp_path}/{there} is outside of {folder}; context"
    with pytest.raises(LabError, match=said):
        lab_toml.load(folder)
    write(folder, {"lab.toml": 'context = ".."\n'})
    assert lab_toml.load(folder).directory == tmp_path


def test_a_folder_of_sources_that_the_builder_may_have_is_not_looked_for(tmp_path):
    lab_toml.load(crate(tmp_path, {".cargo/config.toml": '[source.v]\ndirectory = "/opt/vendor"\n'}))


def test_a_file_that_an_error_names_and_builds_do_not_get_is_explained(tmp_path):
    folder = crate(
        tmp_path / "svc", {".dockerignore": "**/*.sql\ngen\n", "db/a.sql": "", "db/b.txt": "", "gen/mod.rs": ""}
    )
    lacks = "error[E0583]: file not found for module `gen`\n --> src/main.rs:1:1\n  |\n1 | mod gen;\n  |\n  = help: "
    reason = diagnosis.first_error([lacks + 'to create the module `gen`, create file "gen.rs" or "gen/mod.rs"\n'])
    assert reason.startswith("error[E0583]: file not found for module `gen` (src/main.rs:1:1) help: to create")
    assert "leaves gen/mod.rs out, by its line 'gen'" in sources.explain_hidden(folder, "", reason)
    (folder / "schemas").symlink_to("../shared")
    said = "error: couldn't read `{}`: No such file or directory (os error 2)"
    assert "leaves db/a.sql out, by its line '**/*.sql'" in sources.explain_hidden(
        folder, "", said.format("src/../db/a.sql")
    )
    assert "leaves svc/db/a.sql out" not in sources.explain_hidden(tmp_path, "svc", said.format("db/a.sql"))
    assert "schemas is a link that leads out" in sources.explain_hidden(
        folder, "", said.format("src/../schemas/a.json")
    )
    assert "is a link that leads out" in sources.explain_hidden(folder, "", said.format("/src/schemas/a.json"))
    assert "is outside of" in sources.explain_hidden(folder, "", said.format("src/../../shared/a.json"))
    for other in ("db/b.txt", "db/c.txt", "/target/release/build/a", "clang", "a v0.1.0 (/src)"):
        assert sources.explain_hidden(folder, "", said.format(other)) == ""


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("error: #[derive(RustEmbed)] folder '/src/ui/dist' does not exist. cwd: '/src'", "ui/dist"),
        (
            "error: error canonicalizing migration directory /src/db/migrations: No such file or directory",
            "db/migrations",
        ),
        ('error: template "index.html" not found in directories ["/src/templates"]', "templates"),
        (
            "thread 'main' panicked at build.rs:3:5: cannot read db/migrations/1.sql: No such file",
            "db/migrations/1.sql",
        ),
        ("could not open '/src/db/migrations/2.sql'", ""),
        ("error: expected `;` (src/main.rs:5:1); see ../README.md or https://docs.rs/ui/dist", ""),
        ("cc failed in /target/release/build/x/out with -I/usr/include/ui/dist", ""),
    ],
)
def test_a_hidden_path_is_named_however_an_error_writes_it_and_nothing_else(tmp_path, said, named):
    hidden = {"ui/dist/index.html": "", "db/migrations/1.sql": "", "templates/index.html": ""}
    folder = crate(tmp_path / "a", {".dockerignore": "db\nui\ntemplates\n", **hidden})
    write(tmp_path, {"README.md": ""})
    reason = sources.explain_hidden(folder, "", said)
    assert reason.startswith(f"; .dockerignore leaves {named} out, by its line") if named else reason == ""


def test_a_byte_order_mark_and_carriage_returns_are_read_as_cargo_reads_them(tmp_path):
    folder = crate(
        tmp_path,
        {"lab.toml": '\ufeffbinary = "a"\r\n', "Cargo.toml": "\ufeff" + MANIFEST.format("a").replace("\n", "\r\n")},
    )
    assert lab_toml.load(folder).name == "a"


def test_toml_1_1_is_read_as_cargo_reads_it(tmp_path):
    """Cargo 1.95 takes it, and Python's own reader before 3.15 does not."""
    profile = "[profile]\nrelease = {\n  panic = 'abort',  # a comment\n  package.b.opt-level = 1,\n}\n"
    configuration = "[env]\nA = {\n  value = 'x',\n  relative = false,\n}\n"
    files = {"Cargo.toml": MANIFEST.format("a") + profile, ".cargo/config.toml": configuration}
    app = lab_toml.load(crate(tmp_path, files | {"lab.toml": "environment = {\n  C = 'd',\n}\n"}))
    assert app.image.environment == (("C", "d"),)
    assert app.configuration.overrides == (("b", "opt-level"),)


@pytest.mark.parametrize("text", [f"a = {'[' * 5000}{']' * 5000}", f"a = {'1' * 5000}"], ids=["deep", "long"])
def test_toml_that_no_reader_takes_is_refused_in_one_line_and_settings_of_that_kind_are_none(tmp_path, text):
    crate(tmp_path, {"lab.toml": text})
    with pytest.raises(LabError, match=rf"^{tmp_path}/lab\.toml: [^\n]+$"):
        lab_toml.load(tmp_path)
    write(tmp_path, {"settings/a.toml": text, "settings/b.yaml": "a: &a {b: *a}\n", "settings/c.toml": "port = 80\n"})
    (found,) = crate_settings.read([tmp_path / "settings"])
    assert found[1:] == ("port", "80")
