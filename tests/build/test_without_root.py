"""A user without root: images of Debian packages are made in a user namespace, or one line names the ways out."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import registry_faults
from support.lab import as_root

from rustimg_lab.engine import client
from rustimg_lab.host import tools
from rustimg_lab.paths import ROOT

pytestmark = [
    pytest.mark.engine,
    as_root,  # only root can become another user
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap is missing"),
    pytest.mark.skipif(not shutil.which("newuidmap"), reason="newuidmap is missing"),
]
NOBODY, LAB = 65534, "testroot"  # the user, and the id of a clone that owns nothing yet
WAYS_OUT = ("sudo apt-get install uidmap", "--add-subuids", "call the lab with sudo", "--registry HOST", "--base NAME=")
RANGE = "mount --bind ids /etc/subuid; mount --bind ids /etc/subgid"  # in a mount namespace: the machine keeps its own
NO_KEYRING = f"mount -t tmpfs tmpfs {Path(tools.KEYRING).parent}"
UNREACHABLE = "127.0.0.1:1/alpine:3"
SCRIPT = f"""
import json, os, sys
from pathlib import Path
from rustimg_lab.build import archives, bases
from rustimg_lab.engine import client, doctor, inspection
from rustimg_lab.errors import LabError
from rustimg_lab.host import process, tools
from rustimg_lab.model import matrix
client.STATE = process.STATE = tools.STATE = archives.STATE = Path(sys.argv[1])
client.lab_id = lambda: "{LAB}%d" % os.geteuid()
matrix.reference = lambda name, debian: "{UNREACHABLE}"
line = next(finding for finding in doctor.findings() if finding.name == "mmdebstrap")
try:
    found = bases.resolve("alpine", bases.Sources(registry=sys.argv[2]), lambda text: None)
    said, layers = found.source, inspection.image(client.connect().images.get(found.digest).attrs).layers
except LabError as error:
    said, layers = str(error), ()
print(json.dumps([said, layers, line.mark, line.state, line.remedy]))
"""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    for image in client.connect().images.list():
        for name in image.tags:
            if name.startswith(f"rustimg-lab-{LAB}"):
                client.connect().images.remove(name, noprune=True)


def lab(folder: Path, user: int, mounts: str = "true", registry: str = "", apart: str = "-m", **variables: str) -> list:
    """What a base and the doctor's line are for a user who may use the engine, in a home that is closed to others.

    The user has one right of root's: to read, since this machine's Python may lie in root's home.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "ids").write_text("nobody:100000:65536\n")
    os.chown(folder, user, user)
    group = Path(client.engine_address().removeprefix("unix://")).stat().st_gid
    rights = "-all,+dac_read_search"
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={group}", f"--inh-caps={rights}",
              f"--ambient-caps={rights}"] if user else []  # fmt: skip
    script = [sys.executable, "-c", SCRIPT, str(folder), registry]
    done = subprocess.run(
        ["unshare", apart, "sh", "-ec", f'{mounts}; exec "$@"', "sh", *become, *script],
        cwd=folder, env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), **variables},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.glob("work-*")] == []
    return json.loads(done.stdout)


def test_in_a_user_namespace_the_layer_is_the_one_that_root_makes(tmp_path):
    said, layers, mark, found, _ = lab(tmp_path / "home", NOBODY, RANGE)
    assert (said, mark) == ("Debian packages", "ok") and "in a user namespace" in found
    assert layers and layers == lab(tmp_path / "roots", 0)[1]


def test_without_a_range_of_ids_one_line_names_the_three_ways_out_and_the_doctor_does_too(tmp_path):
    said, _, mark, found, remedy = lab(tmp_path / "home", NOBODY)
    assert "mmdebstrap cannot run without root here (/etc/subuid is empty)" in said or "no entry in /etc/sub" in said
    assert "; before that, registry 127.0.0.1:1 did not give" in said and "\n" not in said
    assert mark == "note" and "not without root here: " in found
    for way in WAYS_OUT:
        assert way in said and way in remedy


def test_without_newuidmap_the_line_says_so(tmp_path):
    with tempfile.TemporaryDirectory() as programs:  # `tmp_path` is closed to others
        Path(programs).chmod(0o755)
        for name in ("unshare", "sh", "mount", "setpriv", "mmdebstrap", "perl", "env"):
            Path(programs, name).symlink_to(shutil.which(name))
        said, _, mark, found, _ = lab(tmp_path / "home", NOBODY, RANGE, PATH=programs)
    assert "cannot find newuidmap" in said and "cannot find newuidmap" in found and mark == "note"
    assert all(way in said for way in WAYS_OUT)


def test_without_the_keys_of_debians_archive_one_line_says_what_to_install(tmp_path):
    said, _, mark, found, remedy = lab(tmp_path / "home", NOBODY, f"{RANGE}; {NO_KEYRING}")
    for line in (said, remedy):
        assert "apt-get install debian-archive-keyring" in line and "dnf install debian-keyring" in line
    assert said.startswith("debian-archive-keyring is missing: ") and "\n" not in said
    assert mark == "note" and "the keys of Debian's archive are missing" in found


@pytest.mark.parametrize("user", [0, NOBODY])
def test_what_mmdebstrap_says_is_the_cause(user, tmp_path):
    """Without a network, nor a registry; the engine is reached through its socket."""
    said, *_ = lab(tmp_path / "home", user, RANGE, apart="-mn")
    assert "mmdebstrap could not make a root file system (Failed to fetch " in said and "\n" not in said
    assert "--registry HOST, --base alpine=SOURCE; before that, registry 127.0.0.1:1 did not give" in said


def test_with_a_registry_nothing_of_root_is_needed(tmp_path):
    held = registry_faults.Images()
    held.tag(held.image("amd64", b"of a registry"))
    with registry_faults.serve(held.answer) as address:
        said, layers, *_ = lab(tmp_path / "home", NOBODY, registry=address)
    assert said == f"registry {address}" and len(layers) == 1
