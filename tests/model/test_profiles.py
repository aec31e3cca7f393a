"""Profiles: the file, combining, and that each of the ladder makes a program that works."""

import subprocess
import sys
from pathlib import Path

import pytest

from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix, profiles
from rustimg_lab.paths import MYIP, ROOT


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Puts a file of the test's own in the place of the lab's; without one of its own, nothing is changed."""

    def write(text: str) -> None:
        path = tmp_path / "profiles.toml"
        path.write_text(text)
        monkeypatch.setattr(profiles, "PROFILES", path)
        profiles.all_profiles.cache_clear()

    yield write
    profiles.all_profiles.cache_clear()


def test_every_profile_of_the_file_is_documented():
    for profile in profiles.all_profiles().values():
        assert profile.summary and (profile.name == "baseline" or (profile.gain and profile.cost)), profile.name


def test_a_profile_has_its_parts_in_it():
    smallest = profiles.find("smallest")
    assert dict(smallest.settings) == {"codegen-units": "1", "lto": "true", "opt-level": "z", "panic": "abort"}
    assert smallest.strip and "-Cforce-unwind-tables=no" in smallest.rustflags and not smallest.unstable
    assert profiles.find("lto-fat+unit-1+strip").settings == profiles.find("optimized").settings


def test_profiles_are_combined_in_any_order():
    one, other = profiles.find("opt-s+cpu-v3+strip"), profiles.find("strip+opt-s+cpu-v3")
    assert (one.settings, one.rustflags, one.strip, one.compiled) == (
        (("opt-level", "s"),), ("-Ctarget-cpu=x86-64-v3",), True, other.compiled,
    )  # fmt: skip
    assert one.slug == "opt-s_cpu-v3_strip"  # a name of an image has no +, one of a bake target no dot either


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opt-s+opt-z", "'opt-s' and 'opt-z' cannot be combined: opt-level is s and z"),
        ("lto-thin+optimized", "'lto-thin' and 'optimized' cannot be combined: lto is thin and true"),
        ("opt-s+published", "'opt-s+published': published is the crate as its owner builds it, and cannot be combined"),
        ("opt-s+abrot", "unknown profile 'abrot': did you mean 'abort'"),
    ],
)
def test_what_cannot_be_combined_is_told_with_the_reason(name, said):
    with pytest.raises(LabError) as told:
        profiles.find(name)
    assert said in str(told.value)


def test_profiles_that_only_strip_share_what_cargo_compiled():
    app = lab_toml.load(MYIP)
    ids = {
        name: dockerfile.cache_id(matrix.cell("scratch", name, "system"), app)
        for name in ("baseline", "strip", "abort", "cpu-v3", "optimized", "lto-fat+unit-1")
    }
    assert ids["baseline"] == ids["strip"] and ids["optimized"] == ids["lto-fat+unit-1"]
    assert len(set(ids.values())) == 4


def test_what_cargo_and_the_compiler_are_told_is_in_the_text():
    text = dockerfile.render(matrix.cell("debian", "abort+cpu-v3+no-pie", "system"), lab_toml.load(MYIP))
    assert (
        "export CARGO_PROFILE_RELEASE_PANIC=abort RUSTFLAGS='-Crelocation-model=static -Ctarget-cpu=x86-64-v3'; \\\n"
        in text
    )


def test_arguments_of_the_linker_add_up(file):
    file(
        '[a]\nsummary = "a"\nrustflags = ["-Clink-arg=-Xlinker", "-Clink-arg=-s"]\n'
        '[b]\nsummary = "b"\nrustflags = ["-Clink-arg=-Xlinker", "-Clink-arg=-a", "-Cembed-bitcode=no"]\n'
    )
    linked = ("-Clink-arg=-Xlinker", "-Clink-arg=-s", "-Clink-arg=-Xlinker", "-Clink-arg=-a")
    assert profiles.find("a+b").rustflags == ("-Cembed-bitcode=no", *linked)


def test_a_users_own_profile_is_known(file):
    file('[baseline]\nsummary = "b"\n[mine]\nsummary = "m"\nof = ["baseline"]\nsettings = { debug = 1 }\n')
    assert profiles.find("mine").settings == (("debug", "1"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "profiles.toml cannot be read"),
        ("[a]\nstrip = true", "profile 'a': has no summary"),
        ("a = 1", "profile 'a': is a number, a table is needed"),
        ('[a]\nsummary = "s"\nstrp = true', "profile 'a': unknown key 'strp': did you mean 'strip'"),
        ('[a]\nsummary = "s"\nstrip = "yes"', "profile 'a': 'strip' is a text, true or false is needed"),
        ("[a]\nsummary = 3", "profile 'a': 'summary' is a number, a text is needed"),
        ('[a]\nsummary = "s"\nsettings = { lot = "fat" }', "profile 'a': unknown setting 'lot': did you mean 'lto'"),
        ('[a]\nsummary = "s"\nsettings = { opt_level = 2 }', "unknown setting 'opt_level': did you mean 'opt-level'"),
        ('[a]\nsummary = "s\\n"', "profile 'a': its summary, 's\\n', is no text of one line"),
        ('[a]\nsummary = "s\\u0000"', "is no text of one line"),
        ('[a]\nsummary = "s"\nof = ["b"]', "profile 'a': unknown profile before it 'b'"),
        ('["a b"]\nsummary = "s"', "a name has letters, digits and dashes"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_profile(file, text, said):
    file(text)
    with pytest.raises(LabError) as told:
        profiles.all_profiles()
    assert said in str(told.value)


def test_a_file_without_profiles_is_named(file):
    file("")
    with pytest.raises(LabError, match=r"unknown profile 'baseline': known are published; .* added to profiles\.toml"):
        profiles.find("baseline")


def test_a_broken_file_is_one_line_on_the_command_line(tmp_path):
    (tmp_path / "profiles.toml").write_text("[a")
    script = tmp_path / "lab.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom rustimg_lab import paths\n"
        f"paths.PROFILES = Path({str(tmp_path / 'profiles.toml')!r})\n"
        "from rustimg_lab.cli.main import main\nsys.exit(main(['dockerfile', 'scratch']))\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("lab: profiles.toml cannot be read") and done.stderr.count("\n") == 1


@pytest.mark.builds
@pytest.mark.engine
def test_a_profile_that_the_linker_refuses_is_told_in_the_linkers_words(file, builds, tiny):
    file('[odd]\nsummary = "o"\nrustflags = ["-Clink-arg=-Wl,--no-such-option"]\n')
    (built,) = builds([matrix.cell("scratch", "odd", "system")], tiny)
    assert built.reason.startswith("error: linking with ") and "unrecognized option '--no-such-option'" in built.reason


@pytest.mark.builds
@pytest.mark.engine
@pytest.mark.parametrize("base", ["scratch", "debian"])
def test_every_profile_of_the_ladder_makes_a_program_that_works(base, builds, tiny):
    # Of the two that compile the standard library, which takes longer than all others, one; and on glibc those that
    # the linker or the C library has a part in. The recorded ladder has every one on both.
    names = [name for name in (*matrix.usual_grid("ladder").profiles, "opt-s+abort") if name != "std-size"]
    if base == "debian":
        names = ["baseline", "strip", "optimized", "no-unwind", "no-pie", "relr", "glibc-static", "smallest", "upx"]
    cells = [matrix.cell(base, name, "system") for name in names]
    found = {built.cell.profile.name: built for built in builds(cells, tiny)}
    assert {name: built.reason for name, built in found.items() if built.reason} == {}
    avx2 = "avx2" in Path("/proc/cpuinfo").read_text()
    for built in (built for name, built in found.items() if avx2 or name != "cpu-v3"):
        done = subprocess.run([built.shipped], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, (built.cell.slug, done.stderr)
    sizes = {name: built.shipped.stat().st_size for name, built in found.items()}
    assert sizes["smallest"] < sizes["optimized"] < sizes["strip"] < sizes["baseline"]
