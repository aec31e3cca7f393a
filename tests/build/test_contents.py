"""What an image has beside its program: refused in one line where it cannot be, and in the container as it is told."""

import json
import tomllib
from pathlib import Path

import pytest
from docker.errors import NotFound
from support.crates import MANIFEST, crate, write

from rustimg_lab.build import contents, dockerfile, lab_toml, proposal
from rustimg_lab.engine import client, containers, images
from rustimg_lab.errors import LabError
from rustimg_lab.measure import smoke, workloads
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App, Image

SCRATCH = matrix.cell("scratch", "baseline", "system")
# A server in the shape of many: a template, a folder that it writes to and its settings, each by a relative path.
SERVER = """
use std::io::{BufRead, BufReader, Write};
fn main() {
    if std::env::args().nth(1).as_deref() == Some("--version") { println!("pages 0.1.0"); return; }
    let text = std::fs::read_to_string("settings.conf").expect("cannot read settings.conf");
    std::fs::create_dir_all("data").expect("cannot make the folder data");
    std::fs::write("data/state.json", "{}").expect("cannot write data/state.json");
    let listener = std::net::TcpListener::bind(("0.0.0.0", text.trim().parse().unwrap())).unwrap();
    for mut stream in listener.incoming().flatten() {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() { if line.is_empty() { break } }
        let page = std::fs::read_to_string("templates/index.html").unwrap();
        let _ = write!(stream, "HTTP/1.1 200 OK\\r\\nContent-Length: {}\\r\\n\\r\\n{page}", page.len());
    }
}
"""
SOURCES = {"src/main.rs": SERVER, "templates/index.html": "<h1>hello</h1>\n", "settings.conf": "8080\n"}
TOLD = 'writable = ["data"]\nports = [8080]\n[serve]\npath = "/"\n'
TELLS = """
fn main() {
    print!("{}", std::env::current_dir().unwrap().display());
    for (name, value) in std::env::vars() { print!("\\0{name}={value}"); }
}
"""
HOSTILE = [
    "", " a  b ", "$HOME", "${HOME}", "$${HOME}", "%{if}", "%%{x}", "a\\b", "a\\", "\\$x", "\\\\", '"', 'a"b', "'",
    "a'b",
    "'\"$`", "`id`", "$(id)", "#a", "a=b", "<<EOF", "a\tb", "ä €", "{{ app }}", "{% raw %}", "\u00a0", "a;b", "*", "~",
    '["a"]', "\\n", "\\u0041",
]  # fmt: skip


def toml(**told: object) -> str:
    """A `lab.toml` of these keys; JSON is TOML where it is of texts and numbers."""

    def value(each: object) -> str:
        if isinstance(each, dict):
            return "{ " + ", ".join(f"{json.dumps(name)} = {json.dumps(text)}" for name, text in each.items()) + " }"
        return json.dumps(each)

    return "".join(f"{key} = {value(each)}\n" for key, each in told.items())


def load(folder: Path, sources: dict[str, str] | None = None, /, **told: object) -> App:
    return lab_toml.load(crate(folder, (sources or {}) | {"lab.toml": toml(**told)}, "pages"))


def test_every_key_is_an_instruction_or_in_the_one_tree(tmp_path):
    app = load(
        tmp_path, {"templates/index.html": "a", "settings.conf": "b"}, workdir="/app", ports=[8080, 9090],
        files={"templates": "templates", "settings.conf": "/etc/pages/"}, writable=["data", "/tmp/cache"],
        environment={"RUST_LOG": "info"}, volumes=["/var/lib/pages"], healthcheck=["/pages/pages", "health"],
        labels={"org.opencontainers.image.title": "Pages"},
    )  # fmt: skip
    text = dockerfile.render(SCRATCH, app)
    tree, last = text.split("\nFROM scratch\n")
    assert last == (
        "COPY --from=builder /build/rootfs/ /\nWORKDIR /app\nENV RUST_LOG=info\nEXPOSE 8080 9090\n"
        'VOLUME ["/var/lib/pages"]\nHEALTHCHECK CMD ["/pages/pages", "health"]\n'
        "LABEL org.opencontainers.image.title=Pages\n# By number, which an orchestrator can check to be another than "
        'root.\nUSER 10001:10001\nENTRYPOINT ["/pages/pages"]\n'
    )
    assert "cp -rLT /src/templates /build/rootfs/app/templates; chmod -R a+rX /build/rootfs/app/templates; \\\n" in tree
    assert "cp -rLT /src/settings.conf /build/rootfs/etc/pages/settings.conf;" in tree
    owned = "/build/rootfs/app/data /build/rootfs/tmp/cache /build/rootfs/var/lib/pages"
    assert f"mkdir -p {owned}; chown -R 10001:10001 {owned}; \\\n    chmod 1777 /build/rootfs/tmp; \\\n" in tree


def test_an_init_is_before_the_program(tmp_path):
    cell = matrix.cell("scratch", "baseline", "system", additions=("init",))
    assert 'ENTRYPOINT ["/pages/tini", "--", "/pages/pages"]\n' in dockerfile.render(cell, load(tmp_path))


def test_an_app_that_says_nothing_of_its_image_has_none_of_it(tmp_path):
    app = load(tmp_path)
    assert app.image == Image() and not contents.commands(app.image) and not contents.settings(app.image)


def test_a_member_has_its_own_files_and_those_of_its_workspace(tmp_path):
    root = crate(tmp_path, {"Cargo.toml": '[workspace]\nmembers = ["web"]\n', "static/a.css": "a"}, "pages")
    crate(root / "web", {"templates/b": "b", "lab.toml": toml(files={"templates": "/b", "../static": "/c"})}, "pages")
    assert lab_toml.load(root / "web").image.files == (("web/templates", "/b"), ("static", "/c"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"files": {"nowhere": "a"}}, "'files': nowhere: builds get no "),
        ({"files": {"hidden": "a"}}, "'files': hidden: .dockerignore leaves hidden out, by its line 'hidden'"),
        ({"files": {"logs": "a"}}, "'files': logs: .dockerignore leaves logs/a.log out, by its line '**/*.log'"),
        ({"files": {"../a": "a"}}, "'files': ../a: "),
        ({"files": {"/etc/passwd": "a"}}, "/etc/passwd is outside of"),
        ({"files": {"out": "a"}}, "'files': out: out is a link that leads out of"),
        ({"files": {"links": "a"}}, "'files': links: links/out is a link that leads out of"),
        ({"files": {"torn": "a"}}, "'files': torn: builds get no torn: is it there?"),
        ({"files": {"page": "../../a"}, "workdir": "/app"}, "'files': '../../a' is not below the image's /"),
        ({"files": {"page": "/pages/pages"}}, "'files': '/pages/pages' would overwrite /pages/pages"),
        ({"files": {"page": "pages"}, "workdir": "/pages"}, "would overwrite /pages/pages, which the lab makes"),
        ({"files": {"page": "/pages/pages/x"}}, "would overwrite /pages/pages"),
        ({"files": {"tree": "/"}}, "'files': '/pages/pages' would overwrite /pages/pages"),
        ({"files": {"page": "/etc/passwd"}}, "would overwrite /etc/passwd"),
        (
            {"files": {"page": "/bin/tool"}},
            "'/bin/tool': /bin is a link in images of Debian; the place is /usr/bin/tool",
        ),
        ({"files": {"page": "lib"}}, "'files': 'lib': /lib is a link in images of Debian; the place is /usr/lib"),
        (
            {"writable": ["/var/run/app"]},
            "'writable': '/var/run/app': /var/run is a link in images of Debian; the place is /run/app",
        ),
        ({"volumes": ["/var/lock"]}, "/var/lock is a link in images of Debian; the place is /run/lock"),
        ({"files": {"page": "/x", "tree/pages/pages": "/x"}}, "'files': tree/pages/pages: page is at /x already"),
        ({"files": {"tree": "/x", "page": "/x/pages/pages"}}, "'files': page: tree is at /x/pages/pages already"),
        ({"files": {"tree": "/x", "page": "/x"}}, "'files': page: /x is a folder in the image: name a place in it"),
        ({"files": {"page": "/etc"}}, "'files': page: /etc is a folder in the image: name a place in it, as /etc/"),
        ({"files": {"page": "/pages"}}, "'files': page: /pages is a folder in the image"),
        ({"files": {"page": "/x"}, "workdir": "/x/y"}, "'files': page: /x is a folder in the image"),
        ({"files": {"page": "/x"}, "writable": ["/x"]}, "'files': page: /x is a folder in the image"),
        ({"files": {"page": 1}}, "'files': 1 is no text of one line"),
        ({"files": ["page"]}, "'files' is a list, a table is needed"),
        ({"workdir": "app"}, "'workdir': 'app' is not absolute: it has to begin with /"),
        ({"workdir": "/pages/pages"}, "'workdir': '/pages/pages' would overwrite"),
        ({"writable": ["/"]}, "'writable': '/' is not below the image's /"),
        ({"writable": ["."]}, "'writable': '.' is not below"),
        ({"volumes": ["data"]}, "'volumes': 'data' is not absolute"),
        ({"ports": [0]}, "'ports': 0 is no number from 1 to 65535"),
        ({"ports": [65536]}, "'ports': 65536 is no number"),
        ({"ports": [True]}, "'ports': True is no number"),
        ({"ports": ["80"]}, "'ports': '80' is no number"),
        ({"environment": {"A": "a\nb"}}, r"'environment': 'a\nb' is no text of one line"),
        ({"environment": {"A=B": "a"}}, "'environment': 'A=B' cannot be such a name"),
        ({"environment": {"A": 1}}, "'environment': 1 is no text of one line"),
        ({"labels": {"a\nb": "a"}}, r"'labels': 'a\nb' is no text of one line"),
        ({"labels": {"a=b": "a"}}, "'labels': 'a=b' cannot be such a name"),
        ({"labels": {"io.rustimg-lab.id": "a"}}, "'labels': 'io.rustimg-lab.id' cannot be such a name"),
        ({"labels": {"": "a"}}, "'labels': '' cannot be such a name"),
        ({"healthcheck": ["a\u2028b"]}, r"'healthcheck': 'a\u2028b' is no text of one line"),
        ({"healthcheck": "a"}, "'healthcheck' is a text, a list is needed"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_with_the_key(tmp_path, told, said):
    folder = crate(tmp_path, {
        "page": "a", ".dockerignore": "hidden\n**/*.log\n", "hidden/a": "a", "logs/a.log": "a", "tree/pages/pages": "a",
        "lab.toml": toml(**told),
    }, "pages")  # fmt: skip
    (folder / "out").symlink_to("/etc")
    (folder / "torn").symlink_to("nothing")
    (folder / "links").mkdir()
    (folder / "links" / "out").symlink_to("../../elsewhere")
    with pytest.raises(LabError) as error:
        lab_toml.load(folder)
    assert str(error.value).startswith(f"{folder / 'lab.toml'}: ") and said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("addition", "place", "refused"),
    [
        ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt", True),
        ("ca-certificates", "/etc/ssl/certs/own.crt", False),
        ("init", "/pages/tini", True),
        ("tzdata", "/usr/share/zoneinfo/UTC", True),
        ("tzdata", "/usr/share", True),
        ("tmp", "/tmp", True),
        ("tmp", "/tmp/a", False),
    ],
)
def test_an_addition_does_not_replace_a_file_of_the_app(tmp_path, addition, place, refused):
    app = load(tmp_path, {"page": "a"}, files={"page": place})
    cell = matrix.cell("scratch", "baseline", "system", additions=(addition,))
    if not refused:
        return lab_toml.refuse_cells(app, [cell])
    with pytest.raises(LabError, match=f"--with {addition}: it makes .* and the app has {place}: leave it out"):
        lab_toml.refuse_cells(app, [cell])


def test_a_program_that_is_called_as_the_init_is_not_replaced_by_it(tmp_path):
    app = lab_toml.load(crate(tmp_path, name="tini"))
    with pytest.raises(LabError, match="--with init: it makes /tini/tini, and the app has /tini/tini"):
        lab_toml.refuse_cells(app, [matrix.cell("scratch", "baseline", "system", additions=("init",))])


@pytest.mark.parametrize("name", ["proc", "bin", "lib64", "tmp"])
def test_a_program_whose_folder_no_image_can_have_is_refused(tmp_path, name):
    app = lab_toml.load(crate(tmp_path, name=name))
    with pytest.raises(LabError, match=f"the program would be /{name}/{name}, but .* another name"):
        lab_toml.refuse_cells(app, [matrix.cell("debian", "baseline", "system")])


def test_what_dockerignore_takes_back_is_there(tmp_path):
    app = load(tmp_path, {".dockerignore": "*\n!src\n!Cargo.*\n!templates/*.html\n", "templates/a.html": "a"},
               files={"templates": "/templates"})  # fmt: skip
    assert app.image.files == (("templates", "/templates"),)


def test_a_server_with_a_port_of_its_own_is_asked_there(tmp_path):
    app = lab_toml.load(crate(tmp_path / "a", SOURCES | {"lab.toml": TOLD}))
    workload = workloads.app_workload(app)
    assert workload.port == workload.request()["port"] == 8080 and '"port": 8080' in workload.parameters()["asked"]
    told = lab_toml.load(crate(tmp_path / "b", {"lab.toml": 'ports = [80]\n[serve]\narguments = ["{port}"]\n'}))
    assert (
        workloads.app_workload(told).port == workloads.PORT
        and "20080" not in workloads.app_workload(told).parameters()["asked"]
    )
    with pytest.raises(LabError, match="of a server with a port of its own, `ports` names it"):
        lab_toml.load(crate(tmp_path / "c", {"lab.toml": "[serve]\n"}))


@pytest.mark.parametrize(
    ("text", "there", "proposed"),
    [
        ('read_to_string("templates/index.html")', ["templates/index.html"], ["templates"]),
        ('File::open("./settings.conf")', ["settings.conf"], ["settings.conf"]),
        ('ServeDir::new("static")', ["static/a.css"], ["static"]),
        ('Files::new("/s", "./static")', ["static/a.css"], ["static"]),
        ('Tera::new("views/**/*")', ["views/a"], ["views"]),
        ('format!("pages/{}.md", name)', ["pages/a.md"], ["pages"]),
        ('with_name("config/default")', ["config/default.toml"], ["config"]),
        ('write("data/state.json")', [], []),
        ('include_str!("templates/a.html")', ["templates/a.html"], []),
        ('migrate!("migrations")', ["migrations/a.sql"], []),
        ('#[folder = "assets/"] struct A;', ["assets/a"], []),
        ('#[template(path = "a.html")] struct A;', ["a.html"], []),
        ('// "docs/a.md"', ["docs/a.md"], []),
        ('#[cfg(test)] mod t { f("samples/a.txt") }', ["samples/a.txt"], []),
        ('open("tests/a.txt")', ["tests/a.txt"], []),
        ('open("Cargo.toml")', [], []),
        ('read_to_string("secret/a")', ["secret/a"], []),
    ],
)
def test_init_proposes_what_sources_read_by_a_relative_path(tmp_path, text, there, proposed):
    main = {"src/main.rs": f"fn main() {{}}\n{text}\n", ".dockerignore": "secret\n"}
    folder = crate(tmp_path, main | dict.fromkeys(there, "a"))
    (folder / "lab.toml").unlink()
    path, notes = proposal.init(folder, "", str)
    told = tomllib.loads(path.read_text())
    assert list(told.get("files", {})) == proposed and len(notes) == ("secret/a" in there)
    assert all(n.startswith("its sources name secret: .dockerignore leaves secret out, by its line") for n in notes)
    assert told.get("workdir") == ("/app" if proposed else None)
    assert [place for _, place in lab_toml.load(folder).image.files] == [f"/app/{each}" for each in proposed]


def test_what_build_script_and_tests_read_is_not_proposed(tmp_path):
    folder = crate(tmp_path, {
        "build.rs": 'fn main() { open("assets/a"); }', "tests/it.rs": 'fn f() { open("samples/a"); }',
        "build/deep.rs": 'fn main() { open("pages/a"); }', "assets/a": "a", "samples/a": "a", "pages/a": "a",
    })  # fmt: skip
    for script in ("build.rs", "build/deep.rs"):
        (folder / "Cargo.toml").write_text(MANIFEST.format("a") + f'build = "{script}"\n')
        (folder / "lab.toml").unlink()
        told = tomllib.loads(proposal.init(folder, "", str)[0].read_text())
        assert list(told.get("files", {})) == (["pages"] if script == "build.rs" else ["assets"])


@pytest.mark.engine
@pytest.mark.builds
class TestInContainers:
    def test_hostile_values_come_out_as_they_went_in(self, tmp_path, builds):
        names = [each for each in HOSTILE if each and "\t" not in each]
        texts = {f"odd/{name}": name for name in names if "/" not in name}
        texts |= {"config/deep/er": "c", ".gitignore": "x"}
        environment = {f"V_{number}": value for number, value in enumerate(HOSTILE)} | {"a.b-c": "x"}
        labels = {each: each for each in HOSTILE if each and "=" not in each}
        app = load(
            tmp_path / "a", {"src/main.rs": TELLS} | texts, workdir="/a b/$HOME/'\"\\c", environment=environment,
            files={"odd": "odd", "config": "config", "odd/$HOME": "${HOME}", "odd/a\\": "a\\"}, labels=labels,
            volumes=["/v/$HOME 'a' \"b\" \\c"], healthcheck=["/pages/pages", *HOSTILE], writable=["w $HOME '\""],
            ports=[80, 8080],
        )  # fmt: skip
        for built in builds([SCRATCH, matrix.cell("debian", "baseline", "system")], app):
            assert built.image, built.reason
            config = client.connect().images.get(built.image).attrs["Config"]
            assert {name: config["Labels"][name] for name in labels} == labels
            assert config["Healthcheck"]["Test"] == ["CMD", "/pages/pages", *HOSTILE]
            assert list(config["Volumes"]) == ["/v/$HOME 'a' \"b\" \\c"]
            assert set(config["ExposedPorts"]) == {"80/tcp", "8080/tcp"}
            assert config["WorkingDir"] == "/a b/$HOME/'\"\\c"
            assert dict(each.split("=", 1) for each in config["Env"] if not each.startswith("PATH=")) == environment
            assert images.command(built.image) == ["/pages/pages"]
            with containers.created(built.image, command=images.command(built.image), mem_limit=64 << 20) as container:
                container.start()
                container.wait(timeout=60)
                folder, *variables = container.logs().decode().split("\0")
                (volume,) = (each["Name"] for each in container.attrs["Mounts"])
            with pytest.raises(NotFound):
                client.connect().volumes.get(volume)
            assert folder == "/a b/$HOME/'\"\\c"
            assert environment.items() <= dict(each.split("=", 1) for each in variables).items()
            found = {f"/{each.name}": each for each in images.list_files(built.image)}
            for name in ("/a b/$HOME/'\"\\c/w $HOME '\"", "/v/$HOME 'a' \"b\" \\c"):
                assert (found[name].uid, found[name].gid, found[name].mode & 0o7777) == (10001, 10001, 0o755)
            below = {path.removeprefix("/a b/$HOME/'\"\\c/"): each for path, each in found.items() if each.isfile()}
            assert {f"odd/{name}" for name in names} | {"config/deep/er", "${HOME}", "a\\"} <= set(below)
            assert {
                (each.uid, each.mode & 0o7777, each.mtime) for path, each in below.items() if path.startswith("odd/")
            } == {(0, 0o644, 0)}
            with images.open_layers(built.image) as (_, layers):
                held = [layer.read() for layer in layers]
            filled = [each for each in held if each.strip(b"\0")]  # WORKDIR makes an empty one in older engines
            assert len(filled) == (1 if built.cell.base.name == "scratch" else 2)

    def test_a_server_that_needs_its_files_a_folder_to_write_to_and_its_own_port(self, tmp_path, builds, tools):
        cells = [SCRATCH, matrix.cell("debian", "baseline", "system", additions=("init",))]
        folder = crate(tmp_path / "a", SOURCES, "pages")
        (folder / "lab.toml").unlink()
        path, _ = proposal.init(folder, "", str)
        proposed = path.read_text().partition("# The crate's own")[0]  # with the folder that the sources make
        path.write_text(proposed + TOLD.removeprefix('writable = ["data"]\n'))
        (folder / "templates" / "index.html").chmod(0o600)
        app = lab_toml.load(folder)
        for built in builds(cells, app):
            assert built.image, built.reason
            assert smoke.why_not(built.image, app, tools) == ""
            said = client.connect().containers.run(
                built.image, ["--version"], remove=True, network_mode="none", mem_limit=64 << 20
            )
            assert said == b"pages 0.1.0\n"
        write(
            folder, {"lab.toml": TOLD.replace('writable = ["data"]', 'files = { "settings.conf" = "settings.conf" }')}
        )
        app = lab_toml.load(folder)
        (built,) = builds([SCRATCH], app)
        row = smoke.measure_runs(built.image, app, tools)
        assert "cannot make the folder data" in row.reason and row.reason.endswith(f"; {smoke.FILES}")
