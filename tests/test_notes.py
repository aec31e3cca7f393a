"""The example with a database, as a user has it: its archive of PostgreSQL, its image, migrations and routes."""

import json
import shutil

import pytest
from support.lab import as_root

from rustimg_lab.build import lab_toml
from rustimg_lab.host import process
from rustimg_lab.measure import server, smoke, workloads
from rustimg_lab.model import matrix
from rustimg_lab.paths import MYIP

pytestmark = [pytest.mark.engine, pytest.mark.builds, as_root]
NOTES = MYIP.with_name("notes")
QUICK = '\n[profile.quick]\ninherits = "release"\nopt-level = 0\n'  # what is tested is no speed
ASK = """
import http.client, sys
notes = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
notes.request(sys.argv[2], sys.argv[3], sys.argv[4], {"Content-Type": "application/json"})
answer = notes.getresponse()
print(answer.status, answer.read().decode())
"""


@pytest.fixture
def folder(tmp_path):
    """A copy of the example, with the archive of its database, and with a profile that compiles in half the time."""
    folder = tmp_path / "notes"
    shutil.copytree(NOTES, folder, ignore=shutil.ignore_patterns("target", "postgres.tar"))
    process.run([str(folder / "postgres.sh"), str(folder / "postgres.tar")])
    (folder / "Cargo.toml").write_text((folder / "Cargo.toml").read_text() + QUICK)
    (folder / lab_toml.FILE).write_text('profile = "quick"\n' + (folder / lab_toml.FILE).read_text())
    return folder


def test_notes_are_kept_in_a_database_that_runs_beside_the_program(folder, builds, tools):
    app = lab_toml.load(folder)
    (built,) = builds([matrix.cell("scratch", "baseline", "system")], app)
    assert built.image, built.reason
    row = smoke.measure_runs(built.image, app, tools)
    assert row.ok, row.reason
    assert "beside postgres (image " in row.detail
    with server.serving(built.image, workloads.app_workload(app), tools, workers=1, deadline_s=60) as notes:

        def ask(method: str, path: str, body: str = "") -> tuple[str, str]:
            _, said = notes.client.exec_run(["python3", "-c", ASK, str(workloads.PORT), method, path, body])
            status, _, text = said.decode().strip().partition(" ")
            return status, text

        assert ask("GET", "/health") == ("200", "ok")
        before = json.loads(ask("GET", "/notes")[1])
        assert [note["text"] for note in before[:2]] == ["note number 1", "note number 2"]  # of the migrations
        status, made = ask("POST", "/notes", '{"text": "a new one"}')
        assert (status, json.loads(made)["text"]) == ("200", "a new one")
        assert json.loads(ask("GET", "/notes")[1]) == [*before, json.loads(made)]
