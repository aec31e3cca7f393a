"""Binaries and features as manifests name them, compared with cargo's own answer."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.crates import LOCK, MANIFEST, crate

from rustimg_lab.build import lab_toml, manifests
from rustimg_lab.errors import LabError

needs_cargo = pytest.mark.skipif(not shutil.which("cargo"), reason="this machine has no cargo")
MAIN = dict.fromkeys(["src/main.rs", "src/bin/one.rs", "src/bin/two/main.rs", "src/bin/three/a.rs"], "fn main() {}\n")
MAIN["src/lib.rs"] = ""
OPTIONAL = """[features]
full = ["dep:hidden", "a/std"]
[dependencies]
hidden = { version = "1", optional = true }
plain = "1"
[dependencies.a]
version = "1"
optional = true
[target.'cfg(unix)'.build-dependencies]
b = { package = "c", version = "1", optional = true }
"""


def said_by_cargo(folder: Path) -> tuple[set[str], set[str]]:
    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version=1"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    (package,) = json.loads(told)["packages"]
    return {each["name"] for each in package["targets"] if "bin" in each["kind"]}, set(package["features"])


@needs_cargo
@pytest.mark.parametrize(
    "more",
    [
        "", "autobins = false\n", OPTIONAL, '[[bin]]\nname = "own"\npath = "src/main.rs"\n',
        '[[bin]]\nname = "own"\npath = "./src/bin/three/a.rs"\n', '[[bin]]\nname = "one"\nrequired-features = []\n',
        'autobins = false\n[[bin]]\nname = "one"\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("edition", ["2015", "2021"])
def test_binaries_and_features_are_those_that_cargo_knows(tmp_path, more, edition):
    folder = crate(tmp_path, MAIN | {"Cargo.toml": MANIFEST.format("a").replace("2021", edition) + more})
    told = manifests.read_cargo_toml(folder / "Cargo.toml")
    binaries, features = said_by_cargo(folder)
    assert set(manifests._binaries(folder / "Cargo.toml", told)) == binaries
    assert set(manifests._features(told)) == features | {"default"}


@pytest.mark.parametrize(
    "text",
    [
        'features = ["a", "b", "full", "default", "hidden/std", "plain?/std"]', 'binary = "one"', 'binary = "two"',
        'binary = "made"\nfeatures = ["made"]\nbuild_commands = ["make"]',
    ],
)  # fmt: skip
def test_what_cargo_takes_is_taken(tmp_path, text):
    files = MAIN | {"Cargo.toml": MANIFEST.format("a") + OPTIONAL, "lab.toml": text}
    assert lab_toml.load(crate(tmp_path, files)).package == "a"


@pytest.mark.parametrize(
    ("package", "members", "said"),
    [
        ("svc", '["crates/*"]', ""),
        ("scv", '["crates/*"]', "unknown package 'scv': did you mean 'svc'? known are svc"),
        ("elsewhere", '["../*"]', ""),
    ],
)
def test_a_package_is_that_of_a_member(tmp_path, package, members, said):
    files = {"Cargo.toml": f"[workspace]\nmembers = {members}\n", "Cargo.lock": LOCK.format("svc")}
    folder = crate(tmp_path, files | {"lab.toml": f'package = "{package}"\n'})
    crate(folder / "crates" / "svc", name="svc")
    if said.startswith("unknown package"):
        with pytest.raises(LabError, match=said.replace("?", r"\?")):
            lab_toml.load(folder)
    else:
        assert lab_toml.load(folder).package == package
