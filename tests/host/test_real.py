"""A path that leads to no file is one line, whichever command is given it."""

from pathlib import Path

import pytest
from support.crates import crate

from rustimg_lab.errors import LabError
from rustimg_lab.host.files import resolve_path


@pytest.mark.parametrize(
    ("path", "said"), [("~nosuch/x.tar", "home directory"), ("loop", "Symlink loop"), ("a\0b", "null byte")]
)
def test_a_path_that_leads_nowhere(tmp_path, path, said):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(LabError, match=rf"^here: '.*' leads to no file: .*{said}"):
        resolve_path(path, tmp_path, "here: ")


@pytest.mark.parametrize("command", [("cells", "--app"), ("init",)])
def test_a_link_that_leads_back_to_itself_is_no_app(lab, tmp_path, command):
    (tmp_path / "loop").symlink_to("loop")
    done = lab(*command, str(tmp_path / "loop"))
    assert done.returncode == 2 and done.stderr.startswith("lab: '") and done.stderr.count("\n") == 1


def test_a_path_begins_at_home_or_in_its_folder(tmp_path):
    assert resolve_path("~/x") == resolve_path(Path.home()) / "x"
    assert resolve_path("b/../c", tmp_path) == resolve_path(tmp_path) / "c"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('secrets = { A = "~nosuch/x" }', "secret A: '~nosuch/x'"),
        ('[[services]]\nname = "db"\nimage = "~nosuch/x.tar"', "~"),
    ],
)
def test_a_user_who_is_not_there_is_one_line(lab, tmp_path, text, said):
    done = lab("bake", "--app", str(crate(tmp_path / "a", {"lab.toml": text})))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
