"""The hooks by which mmdebstrap finishes a root file system, as the recipes of data/bases.toml make them."""

import subprocess

import pytest

from rustimg_lab.build import mmdebstrap
from rustimg_lab.model.bases import Recipe, bases_and_builder

RECIPES = {name: base.packages for name, base in bases_and_builder().items() if base.packages}


def hook(recipe: Recipe) -> str:
    return next(each for each in mmdebstrap._options(recipe, "trixie") if "-hook=" in each).partition("=")[2]


@pytest.mark.parametrize("name", RECIPES)
def test_every_hook_is_a_script(name):
    subprocess.run(["sh", "-n"], input=hook(RECIPES[name]), text=True, check=True)


def test_packages_are_left_out_by_name_or_as_what_others_depend_on():
    some = hook(Recipe("mine", "extract", ("a",), without=("b", "c")))
    assert 'Package)" in b | c) ;; *) continue ;; esac\n' in some
    only = hook(Recipe("mine", "extract", ("a", "b"), dependencies=False))
    assert 'Package)" in a | b) continue ;; esac\n' in only
    assert "continue" not in hook(Recipe("mine", "extract", ("a",)))


def test_only_what_is_unpacked_gets_a_database_and_the_setup_comes_behind_it():
    recipe = Recipe("mine", "extract", setup="ln -s a b")
    assert hook(recipe).index("status.d") < hook(recipe).index("done\nln -s a b\nrm -f")
    assert hook(Recipe("mine", "minbase")) == 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/fstab"'


def test_what_an_editor_leaves_beside_the_sources_of_an_image_changes_nothing_and_what_no_text_is_counts(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    before = mmdebstrap._sources(tmp_path)
    for name in (".DS_Store", ".Dockerfile.swp", "Dockerfile~"):
        (tmp_path / name).write_bytes(b"\xff\xfe")
    assert mmdebstrap._sources(tmp_path) == before == "FROM scratch\n"
    (tmp_path / "more").write_bytes(b"\xff")
    assert mmdebstrap._sources(tmp_path) not in (before, "")
