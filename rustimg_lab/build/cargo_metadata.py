"""A crate's folder -> its packages and binaries as cargo describes them."""

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, sources
from rustimg_lab.engine import containers
from rustimg_lab.errors import LabError
from rustimg_lab.host import process
from rustimg_lab.host.files import add_file
from rustimg_lab.model.architecture import TARGETS

METADATA_TIMEOUT_S = 60
_TREE = ("tree", "--locked", "--edges=normal,build", "--prefix=depth", "--format={p}")
_ENVIRONMENT = {"RUSTC_BOOTSTRAP": "1"}


def read(root: Path, directory: Path, builder: Callable[[], str]) -> dict[str, Any]:
    """Return what `cargo metadata` reports of the packages of a workspace (`root`), for the crate in `directory`. cargo
    is this machine's, or else that of the image `builder()`. It runs in /, where no toolchain file of the crate's makes
    rustup download anything. It gets the crate's configuration, which names its registries, and reads manifests for a
    nightly compiler too. Raises LabError with cargo's message."""
    command = _command(root, directory, directory / "Cargo.toml", ["metadata", "--no-deps", "--format-version=1"])
    if shutil.which("cargo"):
        try:
            return json.loads(_run_cargo(command))
        except process.CommandError as error:
            raise _unread_error(root, error.stderr) from None
    with containers.created(
        builder(), _archive(root), command=command, environment=_ENVIRONMENT, network_mode="none", working_dir="/"
    ) as container:
        container.start()
        if container.wait(timeout=METADATA_TIMEOUT_S)["StatusCode"]:
            raise _unread_error(root, container.logs(stdout=False).decode(errors="replace"))
        return json.loads(container.logs(stderr=False))


def tree(root: Path, directory: Path, package: dict[str, Any], features: list[str]) -> dict[str, set[str]]:
    """Return what a package is built of for the lab's targets, by `cargo tree`: crates by name, each with what it
    depends on. Default features and these `features` are on; build scripts count. The result is empty without cargo on
    this machine, and when it would need the network."""
    arguments = [*_TREE, f"--package={package['name']}", f"--features={','.join(features)}"]
    arguments += [f"--target={target}" for target in TARGETS]
    command = _command(root, directory, Path(package["manifest_path"]), arguments)
    try:
        output = _run_cargo(command) if shutil.which("cargo") else ""
    except LabError:
        return {}
    graph: dict[str, set[str]] = {}
    ancestors: list[str] = []
    for depth, name in re.findall(r"(?m)^(\d+)(\S+)", output):
        ancestors = [*ancestors[: int(depth)], name]
        graph.setdefault(name, set())
        if len(ancestors) > 1:
            graph[ancestors[-2]].add(name)
    graph.pop(ancestors[0] if ancestors else "", None)
    return graph


def _command(root: Path, directory: Path, manifest: Path, arguments: list[str]) -> list[str]:
    options = [f"--config={path}" for path in cargo_config.files(directory) if path.is_relative_to(root)]
    return ["cargo", *arguments, "--offline", f"--manifest-path={manifest}", *options]


def _run_cargo(command: list[str]) -> str:
    return process.run(command, cwd=Path("/"), timeout=METADATA_TIMEOUT_S, env=_ENVIRONMENT)


def _unread_error(root: Path, logs: str) -> LabError:
    folders = map(Path, re.findall(r"`([^`]+)/Cargo\.toml`", logs))
    empty = [folder for folder in folders if folder.is_dir() and not any(folder.iterdir())]
    hint = f"; {empty[0]} is empty: if it is a submodule, `git submodule update --init` fills it" if empty else ""
    return LabError(f"{root}: cargo cannot read it: {' '.join(' '.join(logs.split('Caused by:')).split())[:400]}{hint}")


def _archive(root: Path) -> bytes:
    """Return what cargo reads to describe a crate, as a tar archive of the folder by its own path: manifests and
    configuration. Sources are in it as empty files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sources.walk(root):
            if path.suffix == ".toml" or path.parent.name == ".cargo":
                archive.add(root / path, root / path, recursive=False)
            elif path.suffix == ".rs":
                add_file(archive, str(root / path).lstrip("/"), io.BytesIO())
    return file.getvalue()


def places(package: dict[str, Any], kinds: set[str]) -> set[Path]:
    """Return where the sources of a package's targets of these kinds are: their files, and the folders of these files.
    A folder that has sources of another target is left out."""
    targets = [(Path(target["src_path"]), bool(kinds & set(target["kind"]))) for target in package.get("targets", [])]
    files = {file for file, is_meant in targets if is_meant}
    shared = {parent for file, is_meant in targets if not is_meant for parent in file.parents}
    return files | ({file.parent for file in files} - shared)
