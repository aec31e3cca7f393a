"""Crates that tests make: small enough to compile at once, or never compiled."""

from pathlib import Path

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
