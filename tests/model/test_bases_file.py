"""The file of base images: what it may say, and that each fault in it is one line with the base."""

import os
import subprocess
import sys

import pytest
from support.lab import GNU, MUSL

from rustimg_lab.build import mmdebstrap
from rustimg_lab.errors import LabError
from rustimg_lab.model import bases, matrix
from rustimg_lab.model.architecture import Architecture
from rustimg_lab.paths import BASES, ROOT

PLAIN = '[mine]\nlabel = "mine"\nlibc = "gnu"\n'
BASE = PLAIN + 'image = "mine:1"\n'
RECIPE = '[mine.packages]\nlabel = "mine"\nvariant = "extract"\n'


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Puts the lab's file with more at its end, or another text, in the place of the lab's own."""

    def write(text: str, more: bool = True) -> None:
        path = tmp_path / "bases.toml"
        path.write_text(BASES.read_text() + text if more else text)
        monkeypatch.setattr(bases, "BASES", path)
        bases.bases_and_builder.cache_clear()

    yield write
    bases.bases_and_builder.cache_clear()


def test_a_users_own_base_is_known_and_has_a_cell(file):
    file(PLAIN + 'image = "host:5000/mine:{number}-{debian}"\n')
    assert list(bases.all_bases())[-1] == "mine"
    assert matrix.reference("mine", "bookworm") == "host:5000/mine:12-bookworm"
    assert matrix.cell("mine", "baseline", matrix.ARTICLE).slug == "mine-baseline-system"
    assert "rust" not in bases.all_bases()


def test_a_base_without_a_recipe_is_not_made_of_packages(file):
    file(BASE)
    with pytest.raises(LabError, match=r"mine: bases\.toml does not say of which Debian packages"):
        mmdebstrap.make("mine", "trixie", print, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "bases.toml cannot be read"),
        ('[mine]\nlibc = "gnu"', "base 'mine': has no label"),
        ('[mine]\nlabel = "mine"', "base 'mine': has no libc"),
        ('[mine]\nlabel = "mine"\nlibc = "glibc"\nimage = "a"', "base 'mine': 'glibc' is no libc (musl or gnu)"),
        ('["My-own"]\nlabel = "mine"\nlibc = "gnu"\nimage = "a"', "base 'My-own': 'My-own' is no name in lower-case"),
        (PLAIN, "base 'mine': has no image"),
        (PLAIN + 'imag = "a"', "base 'mine': unknown key 'imag': did you mean 'image'"),
        (PLAIN + "image = 1", "base 'mine': 'image' is a number, a text is needed"),
        (PLAIN + 'image = "a:{version}"', "base 'mine': 'a:{version}' is no name of an image"),
        (PLAIN + 'image = "a b"', "base 'mine': 'a b' is no name of an image"),
        (BASE.replace('"mine"', '"a\\nb"', 1), "base 'mine': 'a\\nb' is no label"),
        (BASE + "packages = 1", "base 'mine': [packages] is a number, a table is needed"),
        (BASE + '[mine.packages]\nlabel = "mine"', "base 'mine': [packages] has no variant"),
        (BASE + RECIPE.replace("extract", "all"), "base 'mine': 'all' is no variant (extract or minbase)"),
        (BASE + RECIPE + "names = [1]", "base 'mine': '1' is no name of an image"),
        (BASE + RECIPE + 'without = ["a;b"]', "base 'mine': 'a;b' is no name of an image"),
        (BASE + RECIPE + 'environment = { A = "b c" }', "base 'mine': 'b c' is no name of an image"),
        (BASE + RECIPE + 'stand_in = "yes"', "base 'mine': [packages] 'stand_in' is a text, true or false is needed"),
    ],
)
def test_a_fault_is_told_with_the_base(file, text, said):
    file(text)
    with pytest.raises(LabError) as told:
        bases.all_bases()
    assert said in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [(BASE, "bases.toml has no 'rust', the Rust builder"), ("mine = 1", "base 'mine': is a number, a t")],
)
def test_a_file_that_is_not_of_bases_is_told(file, text, said):
    file(text, more=False)
    with pytest.raises(LabError, match=said):
        bases.all_bases()


def test_a_broken_file_is_one_line_on_the_command_line(tmp_path):
    (tmp_path / "bases.toml").write_text("[a")
    script = (
        "import sys\nfrom pathlib import Path\nfrom rustimg_lab import paths\n"
        f"paths.BASES = Path({str(tmp_path / 'bases.toml')!r})\n"
        "from rustimg_lab.cli.main import main\nsys.exit(main(['cells']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("lab: bases.toml cannot be read") and done.stderr.count("\n") == 1


def test_an_architecture_has_the_names_that_others_have_for_it():
    here = Architecture.X86_64
    assert (here.value, here.debian, here.elf) == ("x86_64", "amd64", "EM_X86_64")
    assert (MUSL, GNU) == ("x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu")
