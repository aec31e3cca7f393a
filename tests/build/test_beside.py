"""What `./lab dockerfile --app PATH --write` puts beside a crate."""

import re
import shutil
import subprocess
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support.crates import crate as support_crate
from support.lab import SERVER, answering

from rustimg_lab.build import bake, beside, lab_toml, sources
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix
from rustimg_lab.model.app import Image, Serve, Service

CELL = matrix.cell("scratch", "baseline", "system")
NAMES = {"Dockerfile", ".dockerignore", "compose.yaml"}


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    """A copy of the server's crate, with what cargo leaves there."""
    shutil.copytree(SERVER, tmp_path / "crate", ignore=shutil.ignore_patterns("target"))
    (tmp_path / "crate" / "target").mkdir()
    (tmp_path / "crate" / "target" / "made").touch()
    return tmp_path / "crate"


def services(text: str) -> dict:
    return yaml.safe_load(text)["services"]


def test_three_files_are_written_and_the_lab_builds_from_the_same_sources_as_before(lab, crate):
    before = set(sources.walk(crate))
    done = lab("dockerfile", "--app", str(crate), "--profile", "optimized", "--write")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in crate.iterdir()} >= NAMES
    assert set(sources.walk(crate)) - {Path(".dockerignore")} == before
    printed = lab("dockerfile", "--app", str(crate), "--profile", "optimized").stdout
    assert "answers:scratch --file Dockerfile.scratch ." in printed
    assert (crate / "Dockerfile").read_text() == printed.replace("--file Dockerfile.scratch .", "--file Dockerfile .")
    server = services((crate / "compose.yaml").read_text())["answers"]
    assert server["environment"] == {"ANSWERS_ON": "0.0.0.0:8080"} and server["ports"] == ["8080:8080"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_nothing_is_written_over_a_file_that_is_there(lab, crate, name):
    (crate / name).write_text("mine")
    before = {path: path.read_bytes() for path in crate.rglob("*") if path.is_file()}
    done = lab("dockerfile", "--app", str(crate), "--write")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"has {name} already" in done.stderr
    assert {path: path.read_bytes() for path in crate.rglob("*") if path.is_file()} == before


def test_a_dockerignore_that_is_there_stays(crate):
    (crate / ".dockerignore").write_text("mine\n")
    assert {path.name for path in beside.write(lab_toml.load(crate), "FROM scratch\n")} == NAMES - {".dockerignore"}
    assert (crate / ".dockerignore").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["key.txt", "a[b]*.txt"])
def test_a_secret_beside_the_sources_is_in_no_build(crate, name):
    (crate / "lab.toml").write_text(f'{(crate / "lab.toml").read_text()}\n[secrets]\nKEY = "{name}"\n')
    (crate / name).write_text("secret")
    app = lab_toml.load(crate)
    (crate / ".dockerignore").write_text("/target\n")
    before = set(crate.iterdir())
    with pytest.raises(LabError, match=r"sent with the sources: name it in \.dockerignore: nothing was written"):
        beside.write(app, "FROM scratch\n")
    assert set(crate.iterdir()) == before
    (crate / ".dockerignore").unlink()
    beside.write(app, "FROM scratch\n")
    assert Path("Cargo.toml") in sources.walk(crate) and Path(name) not in sources.walk(crate)


def test_a_text_that_cannot_be_written_leaves_nothing(crate):
    before = set(crate.iterdir())
    with pytest.raises(UnicodeEncodeError):
        beside.write(lab_toml.load(crate), "FROM \udcff\n")
    assert set(crate.iterdir()) == before


@pytest.mark.parametrize("name", ["_tiny", "tiny_", "x-"])
def test_a_name_that_no_image_has_is_a_digest_of_it_wherever_an_image_is_named(tmp_path, name):
    app = lab_toml.load(support_crate(tmp_path, {"lab.toml": "[serve]\narguments = ['{port}']\n"}, name))
    (target,) = bake.official_file([CELL], app)["target"].values()
    (tag,) = target["tags"]
    assert re.fullmatch(r"program-[0-9a-f]{12}:scratch-baseline-system", tag)
    assert f"--tag {tag.partition('-baseline')[0]} " in target["dockerfile-inline"]
    assert tag.partition(":")[0] in services(beside.compose(app))


def test_without_an_app_one_line_says_where_the_files_would_go(lab):
    done = lab("dockerfile", "--write")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--app PATH" in done.stderr


def test_compose_takes_the_file(crate):
    if not shutil.which("docker-compose"):
        pytest.skip("no docker-compose here")
    app = lab_toml.load(crate)
    database = Service("db", "postgres:17", (("PASSWORD", "a$b"),), ("-c", "fsync=off"), ("pg_isready",))
    before = replace(app.serve, before=(("migrate", "$HOME"), ("seed",)), arguments=("--threads", "{workers}"))
    app = replace(app, services=(database,), serve=before)
    (crate / "compose.yaml").write_text(beside.compose(app))
    done = subprocess.run(["docker-compose", "config"], cwd=crate, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = services(done.stdout)
    assert set(found) == {"answers", "answers-health", "answers-before-1", "answers-before-2", "db"}
    assert found["answers"]["command"] == ["--threads", "1"]


def test_a_text_of_lab_toml_is_no_variable_of_composes(crate):
    app = lab_toml.load(crate)
    told = (("ON", "{port}"), ("PRICE", "5$PORT ${X}"), ("THREADS", "{workers}"), ("END", "{deadline_s}"))
    found = services(beside.compose(replace(app, serve=replace(app.serve, environment=told))))["answers"]
    assert found["environment"] == {"ON": "8080", "PRICE": "5$$PORT $${X}"}


def test_what_compose_cannot_have_is_refused_in_one_line_and_nothing_is_written(crate):
    app = lab_toml.load(crate)
    refused = {
        "is the archive db.tar": replace(app, services=(Service("db", str(crate / "db.tar")),)),
        "deadline_s": replace(app, serve=replace(app.serve, arguments=("--end", "{deadline_s}"))),
        "has answers, a name": replace(app, services=(Service("answers", "postgres:17"),)),
        "has answers-health, a name": replace(app, services=(Service("answers-health", "postgres:17"),)),
    }
    for reason, each in refused.items():
        with pytest.raises(LabError, match=reason):
            beside.write(each, "FROM scratch\n")
    assert not NAMES & {path.name for path in crate.iterdir()}


def test_health_is_the_status_that_lab_toml_names(crate):
    """The command of the health check, called by a shell as Docker does, against a server."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    if not shutil.which("curl"):
        pytest.skip("no curl here")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    app, port = lab_toml.load(crate), server.server_port
    serve = Serve(method="POST", path="/a?b=[c]", body="it's $5", status=204)
    app = replace(app, serve=serve, image=Image(ports=(port,)))

    def healthy(app) -> bool:
        test = services(beside.compose(app))["answers-health"]["healthcheck"]["test"]
        return not subprocess.run(["sh", "-c", test[1].replace("$$", "$")]).returncode

    with answering(server):
        assert healthy(app) and asked == [("/a?b=[c]", b"it's $5")]
        assert not healthy(replace(app, serve=replace(serve, status=200)))
    assert not healthy(app)  # nothing answers


def test_an_image_with_its_own_health_check_has_no_other(crate):
    app = lab_toml.load(crate)
    app = replace(app, image=Image(healthcheck=("/answers/answers", "--check")))
    assert set(services(beside.compose(app))) == {"answers"}
