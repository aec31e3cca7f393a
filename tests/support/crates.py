"""Crates that tests make: small enough to compile at once, or never compiled."""

import tomllib
from pathlib import Path

import pytest

from rustimg_lab.build import proposal

MANIFEST = '[package]\nname = "{}"\nversion = "0.1.0"\nedition = "2021"\n'
LOCK = 'version = 3\n\n[[package]]\nname = "{}"\nversion = "0.1.0"\n'


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes files by their paths below a folder, and returns the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def crate(folder: Path, files: dict[str, str] | None = None, name: str = "a") -> Path:
    """Writes a crate with one binary, a lockfile and a `lab.toml` that says nothing; `files` are written over these."""
    own = {"Cargo.toml": MANIFEST.format(name), "Cargo.lock": LOCK.format(name), "src/main.rs": "fn main() {}\n"}
    return write(folder, own | {"lab.toml": ""} | (files or {}))


LISTENS = "fn main() { std::net::TcpListener::bind(listen()).unwrap(); }\n"
BUNDLE = """[features]
default = ["full"]
full = ["mimalloc", "tls", "cli"]
tls = []
cli = []
mimalloc = ["dep:mimalloc"]
[dependencies]
mimalloc = { version = "0.1", optional = true }
[[bin]]
name = "a"
path = "src/main.rs"
required-features = ["cli"]
"""


def init(folder: Path, binary: str = "") -> tuple[dict, list[str]]:
    """What init writes, which must be loadable, and its notes. No engine is asked."""
    (folder / "lab.toml").unlink(missing_ok=True)
    path, notes = proposal.init(folder, binary, lambda: pytest.fail("the builder is not needed"))
    return tomllib.loads(path.read_text()), notes


def dependencies(*names: str) -> str:
    return MANIFEST.format("a") + "[dependencies]\n" + "".join(f'{name} = "*"\n' for name in names)


def locked(depended: dict[str, str]) -> str:
    """A lockfile of crates, and of what each depends on."""
    return "version = 4\n" + "".join(
        f'\n[[package]]\nname = "{name}"\nversion = "0.1.0"\n' + (f'dependencies = ["{of}"]\n' if of else "")
        for name, of in depended.items()
    )
