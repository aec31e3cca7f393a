"""What a run records of its app."""

from dataclasses import replace

import pytest
from support.crates import crate

from rustimg_lab.build import lab_toml
from rustimg_lab.errors import LabError
from rustimg_lab.paths import MYIP
from rustimg_lab.pipeline.session import identify


def test_two_checkouts_of_one_package_do_not_share_a_run(tmp_path):
    one, two = (lab_toml.load(crate(tmp_path / name)) for name in ("one", "two"))
    recorded = identify(one, "a", {})
    assert identify(one, "a", recorded) == recorded and str(tmp_path) not in str(recorded)
    with pytest.raises(LabError, match=rf"run 'a' is of a in another folder than {two.directory}: choose another"):
        identify(two, "a", recorded)
    with pytest.raises(LabError, match="run 'a' is of a, not of b"):
        identify(replace(one, package="b"), "a", recorded)
    assert identify(two, "a", {"name": "a", "lockfile_sha256": ""})["name"] == "a"  # an earlier lab's run


def test_the_labs_own_app_may_move_with_its_clone():
    assert identify(lab_toml.load(MYIP), "a", {})["folder"] == ""
