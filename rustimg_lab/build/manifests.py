"""Packages, binaries and features as a crate's manifests name them; without cargo, which a machine may lack."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rustimg_lab.build import sources
from rustimg_lab.build.cargo_config import read_cargo_toml
from rustimg_lab.errors import LabError, check_known, unknown_name
from rustimg_lab.model.app import App


def of_package(package: str, root: Path, directory: Path) -> Path:
    """Return the path of a package's manifest: in the folder, or else in a member of the workspace. Raises LabError,
    with the packages that exist, when none has that name."""
    manifest = directory / "Cargo.toml"
    # The tree, which may be large, is looked through only where the folder's own is another's.
    for path in itertools.chain([manifest], (root / file for file in sources.walk(root) if file.name == "Cargo.toml")):
        if package in path.read_text(errors="replace") and _name(path) == package:
            return path
    patterns = read_cargo_toml(root / "Cargo.toml").get("workspace", {}).get("members", [])
    if any(Path(pattern).is_absolute() or ".." in Path(pattern).parts for pattern in patterns):
        return manifest  # members may be anywhere
    members = [root / "Cargo.toml", *(path for pattern in patterns for path in root.glob(f"{pattern}/Cargo.toml"))]
    packages = {name: path for path in members if (name := _name(path))}
    check_known("package", package, packages)
    return packages[package]  # one that builds do not get


def _name(manifest: Path) -> str:
    return read_cargo_toml(manifest).get("package", {}).get("name", "")


def check(app: App, manifest: Path) -> None:
    """Raise LabError when an app names a binary or a feature that its package lacks. With `build_commands`, which may
    write these, nothing is checked."""
    content = read_cargo_toml(manifest)
    if app.build_commands or content.get("package", {}).get("name") != app.package:
        return
    binaries = list(dict.fromkeys(_binaries(manifest, content)))
    if app.name not in binaries:
        raise LabError(
            f"{unknown_name(f'binary of {app.package}', app.name, binaries)}; `binary` names the one to measure"
        )
    features = list(dict.fromkeys(_features(content)))
    for feature in (*app.features, *dict(app.allocators).values()):
        if feature not in features and "/" not in feature and ":" not in feature:  # which is a dependency's
            raise unknown_name(f"feature of {app.package}", feature, features)


def _binaries(manifest: Path, content: dict[str, Any]) -> Iterator[str]:
    """Those that the manifest names, and those that cargo finds by their files (`autobins`)."""
    package, tables, folder = content["package"], content.get("bin", []), manifest.parent / "src"
    yield from (table["name"] for table in tables if "name" in table)
    if package.get("autobins", package.get("edition", "2015") != "2015" or not tables):
        paths = {os.path.normpath(manifest.parent / str(table.get("path", ""))) for table in tables}
        candidates = [(path, path.stem) for path in sorted(folder.glob("bin/*.rs"))]
        candidates += [(path, path.parent.name) for path in sorted(folder.glob("bin/*/main.rs"))]
        for path, name in [(folder / "main.rs", package["name"]), *candidates]:
            if path.is_file() and str(path) not in paths:
                yield name


def _features(content: dict[str, Any]) -> Iterator[str]:
    """Those that the manifest names, and those of optional dependencies that no feature names as `dep:NAME`."""
    features = content.get("features", {})
    hidden = {part.removeprefix("dep:") for parts in features.values() for part in parts if part.startswith("dep:")}
    yield from ("default", *features)
    for table in (content, *content.get("target", {}).values()):
        for dependencies in (value for key, value in table.items() if key.endswith("dependencies")):
            for name, value in dependencies.items() if isinstance(dependencies, dict) else ():
                if isinstance(value, dict) and value.get("optional") and name not in hidden:
                    yield name
