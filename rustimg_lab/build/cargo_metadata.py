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
    """Return what `cargo metadata` says of the packages of a workspace (`root`) for the crate in `directory`. Raises
    LabError with cargo's words.

    Cargo is this machine's; where it has none, that of the image `builder()`. It runs in /, where no toolchain file
    of the crate's makes rustup download anything; the crate's configuration, which names its registries, is passed to
    it. It reads manifests for a nightly compiler too.
    """
    command = _command(root, directory, directory / "Cargo.toml", ["metadata", "--no-deps", "--format-version=1"])
    if shutil.which("cargo"):
        try:
            return json.loads(_called(command))
        except process.CommandError as error:
            raise _unread(root, error.stderr) from None
    with containers.created(
        builder(), _archive(root), command=command, environment=_ENVIRONMENT, network_mode="none", working_dir="/"
    ) as container:
        container.start()
        if container.wait(timeout=METADATA_TIMEOUT_S)["StatusCode"]:
            raise _unread(root, container.logs(stdout=False).decode(errors="replace"))
        return json.loads(container.logs(stderr=False))


def tree(root: Path, directory: Path, package: dict[str, Any], features: list[str]) -> dict[str, set[str]]:
    """Return what a package of a workspace is built of for the lab's targets, as `cargo tree` says: the crates that it
    and its build scripts depend on with its default and these features, each with what it depends on.

    Empty where this machine's cargo cannot tell without the network: it has not downloaded them all, or is not there.
    """
    asked = [*_TREE, f"--package={package['name']}", f"--features={','.join(features)}"]
    asked += [f"--target={each}" for each in TARGETS]
    command = _command(root, directory, Path(package["manifest_path"]), asked)
    try:
        told = _called(command) if shutil.which("cargo") else ""
    except LabError:
        return {}
    depended: dict[str, set[str]] = {}
    above: list[str] = []
    for depth, name in re.findall(r"(?m)^(\d+)(\S+)", told):
        above = [*above[: int(depth)], name]
        depended.setdefault(name, set())
        if len(above) > 1:
            depended[above[-2]].add(name)
    depended.pop(above[0] if above else "", None)
    return depended


def _command(root: Path, directory: Path, manifest: Path, asked: list[str]) -> list[str]:
    configured = [f"--config={path}" for path in cargo_config.files(directory) if path.is_relative_to(root)]
    return ["cargo", *asked, "--offline", f"--manifest-path={manifest}", *configured]


def _called(command: list[str]) -> str:
    return process.run(command, cwd=Path("/"), timeout=METADATA_TIMEOUT_S, env=_ENVIRONMENT)


def _unread(root: Path, said: str) -> LabError:
    named = map(Path, re.findall(r"`([^`]+)/Cargo\.toml`", said))
    empty = [each for each in named if each.is_dir() and not any(each.iterdir())]
    way = f"; {empty[0]} is empty: if it is a submodule, `git submodule update --init` fills it" if empty else ""
    return LabError(f"{root}: cargo cannot read it: {' '.join(' '.join(said.split('Caused by:')).split())[:400]}{way}")


def _archive(root: Path) -> bytes:
    """What cargo reads to describe a crate, as a tar archive of the folder by its own path: manifests and
    configuration; of its sources only that they are there."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sources.walk(root):
            if path.suffix == ".toml" or path.parent.name == ".cargo":
                archive.add(root / path, root / path, recursive=False)
            elif path.suffix == ".rs":
                add_file(archive, str(root / path).lstrip("/"), io.BytesIO())
    return file.getvalue()


def places(package: dict[str, Any], kinds: set[str]) -> set[Path]:
    """Return where the sources of a package's targets of these kinds are: their files, and the folders of those that
    have no target of others in them."""
    targets = [(Path(each["src_path"]), bool(kinds & set(each["kind"]))) for each in package.get("targets", [])]
    files = {file for file, is_meant in targets if is_meant}
    shared = {parent for file, is_meant in targets if not is_meant for parent in file.parents}
    return files | ({file.parent for file in files} - shared)
