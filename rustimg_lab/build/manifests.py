"""Packages, binaries and features as a crate's manifests name them; without cargo, which a machine may lack."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rustimg_lab.build import sources
from rustimg_lab.build.cargo_config import parsed
from rustimg_lab.errors import LabError, check_known, unknown
from rustimg_lab.model.app import App


def of_package(package: str, root: Path, directory: Path) -> Path:
    """Return the manifest of a package: that of the folder, or else of a member of the workspace. Raises LabError where
    none has it, with the packages that there are."""
    own = directory / "Cargo.toml"
    # The tree, which may be large, is looked through only where the folder's own is another's.
    for path in itertools.chain([own], (root / each for each in sources.walk(root) if each.name == "Cargo.toml")):
        if package in path.read_text(errors="replace") and _name(path) == package:
            return path
    patterns = parsed(root / "Cargo.toml").get("workspace", {}).get("members", [])
    if any(Path(each).is_absolute() or ".." in Path(each).parts for each in patterns):
        return own  # members may be anywhere
    members = [root / "Cargo.toml", *(path for each in patterns for path in root.glob(f"{each}/Cargo.toml"))]
    known = {name: path for path in members if (name := _name(path))}
    check_known("package", package, known)
    return known[package]  # one that builds do not get


def _name(manifest: Path) -> str:
    return parsed(manifest).get("package", {}).get("name", "")


def check(app: App, manifest: Path) -> None:
    """Raises LabError where an app names a binary or a feature that its package has not. What `build_commands` write
    is not there yet, so with these nothing is checked."""
    told = parsed(manifest)
    if app.build_commands or told.get("package", {}).get("name") != app.package:
        return
    binaries = list(dict.fromkeys(_binaries(manifest, told)))
    if app.name not in binaries:
        raise LabError(f"{unknown(f'binary of {app.package}', app.name, binaries)}; `binary` names the one to measure")
    known = list(dict.fromkeys(_features(told)))
    for feature in (*app.features, *dict(app.allocators).values()):
        if feature not in known and "/" not in feature and ":" not in feature:  # which is a dependency's
            raise unknown(f"feature of {app.package}", feature, known)


def _binaries(manifest: Path, told: dict[str, Any]) -> Iterator[str]:
    """Those that the manifest names, and those that cargo finds by their files (`autobins`)."""
    package, named, folder = told["package"], told.get("bin", []), manifest.parent / "src"
    yield from (each["name"] for each in named if "name" in each)
    if package.get("autobins", package.get("edition", "2015") != "2015" or not named):
        paths = {os.path.normpath(manifest.parent / str(each.get("path", ""))) for each in named}
        found = [(path, path.stem) for path in sorted(folder.glob("bin/*.rs"))]
        found += [(path, path.parent.name) for path in sorted(folder.glob("bin/*/main.rs"))]
        for path, name in [(folder / "main.rs", package["name"]), *found]:
            if path.is_file() and str(path) not in paths:
                yield name


def _features(told: dict[str, Any]) -> Iterator[str]:
    """Those that the manifest names, and those of optional dependencies that no feature names as `dep:NAME`."""
    own = told.get("features", {})
    hidden = {each.removeprefix("dep:") for parts in own.values() for each in parts if each.startswith("dep:")}
    yield from ("default", *own)
    for table in (told, *told.get("target", {}).values()):
        for dependencies in (value for key, value in table.items() if key.endswith("dependencies")):
            for name, value in dependencies.items() if isinstance(dependencies, dict) else ():
                if isinstance(value, dict) and value.get("optional") and name not in hidden:
                    yield name
