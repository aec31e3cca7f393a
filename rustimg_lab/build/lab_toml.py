"""The app: a binary of a Rust crate, described by the `lab.toml` beside its Cargo.toml; and how that file is written.

Nothing but `lab.toml` is ever written to an app's folder.
"""

import io
import json
import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

from rustimg_lab.errors import LabError, check_keys, unknown
from rustimg_lab.host.files import sha256, write_whole
from rustimg_lab.model.app import App, Check, Serve
from rustimg_lab.model.matrix import ALLOCATORS, Cell

FILE = "lab.toml"
LEFT_OUT = (".git",)  # at any depth, beside what the app's own .dockerignore leaves out
METADATA_TIMEOUT_S = 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FEATURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:+?-]*")
_DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_TEXTS = {"features": _FEATURE, "packages": _DEBIAN_PACKAGE}
# Every key with the types that its value may have, by table; "" is the file itself.
_KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"binary": (str,), "package": (str,), "features": (list,), "default_features": (bool,), "packages": (list,),
         "allocators": (dict,), "check": (dict,), "serve": (dict,)},
    "allocators": dict.fromkeys(ALLOCATORS, (str,)),
    "check": {"arguments": (list,), "prints": (str,), "exit_code": (int,), "https_url": (str,), "https_ca": (str,)},
    "serve": {"arguments": (list,), "environment": (dict,), "method": (str,), "path": (str,), "body": (str,)},
}  # fmt: skip

_TEMPLATE = """\
# What rustimg_lab needs to know of this crate beside its Cargo.toml.

{package}binary = {binary}
features = {features}  # what it is built with, beside an allocator's
default_features = {default_features}
packages = []  # Debian packages that its build needs, such as "pkg-config", "libssl-dev"

# The crate's own features by allocator. Without any it is built as it is. Where its sources set an allocator without
# asking a feature, name here one that is always on, such as "default", and ask for that allocator alone.
[allocators]
{allocators}
# What must work in every image, started without privileges: called so, it ends with this code and prints this. For a
# server that cannot be called so, leave it out: then it has to answer what [serve] asks.
[check]
arguments = ["--version"]
prints = ""
exit_code = 0

# For a server, what `./lab measure` starts and asks. {{host}}, {{port}} and {{workers}} (threads) are filled in.
# [serve]
# arguments = ["--bind", "{{host}}:{{port}}"]
# environment = {{ TOKIO_WORKER_THREADS = "{{workers}}" }}
# method = "GET"
# path = "/"
# body = ""
"""


def load(directory: Path) -> App:
    """The app of a folder (absolute) that has a `lab.toml`. Raises LabError, with the file and the key, on what cannot
    be used."""
    path = _beside_manifest(directory)
    if not path.is_file():
        raise LabError(f"{directory}: no {FILE} there; `./lab init {directory}` writes one")
    try:
        told = _checked(tomllib.loads(path.read_text(encoding="utf-8")))
        package = told.get("package") or _package(directory)
        name = told.get("binary", package)
        for each in (package, name):
            if not _NAME.fullmatch(each):
                raise LabError(f"'{each}' cannot be the name of a package or a binary")
        serve = _serve(told["serve"]) if "serve" in told else None
    except (LabError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: {error}") from None
    root = _root(directory)
    check = told.get("check", {})
    arguments = tuple(check.get("arguments", []))
    return App(
        name, root, sha256(root / "Cargo.lock"), package,
        features=tuple(told.get("features", [])), default_features=told.get("default_features", True),
        allocators=tuple(told.get("allocators", {}).items()), member=root != directory or "package" in told,
        system_packages=tuple(told.get("packages", [])), strips=_strips(root),
        check=None if serve and "check" not in told else Check(**check | {"arguments": arguments}), serve=serve,
    )  # fmt: skip


def _beside_manifest(directory: Path) -> Path:
    """Where a crate's `lab.toml` is or will be. Raises LabError when the folder has no Cargo.toml."""
    if not (directory / "Cargo.toml").is_file():
        raise LabError(f"{directory}: no Cargo.toml there")
    return directory / FILE


def _serve(told: dict[str, Any]) -> Serve:
    environment = told.get("environment", {})
    arguments = told.get("arguments", [])
    if not any("{port}" in text for text in (*arguments, *environment.values()) if isinstance(text, str)):
        raise LabError("[serve] has no {port} in its arguments or environment: the port is another at each start")
    if not all(isinstance(text, str) for text in environment.values()):
        raise LabError("[serve] 'environment' has something in it that is no text")
    if told.get("method", "GET") not in ("GET", "POST", "PUT"):
        raise LabError(f"[serve] 'method': '{told['method']}' is not one of GET, POST, PUT")
    if not told.get("path", "/").startswith("/"):
        raise LabError(f"[serve] 'path': '{told['path']}' does not begin with /")
    return Serve(**told | {"arguments": tuple(arguments), "environment": tuple(sorted(environment.items()))})


def allocators(app: App) -> list[str]:
    """The allocators that an app can have: its C library's, and those that it has a feature for."""
    return list(dict.fromkeys(["system", *dict(app.allocators)]))


def refuse_allocators(app: App, cells: list[Cell]) -> None:
    """Raises LabError when a cell has an allocator that the app has no feature for."""
    for cell in cells:
        if cell.allocator not in allocators(app):
            raise LabError(
                f"{app.name} has no feature for {cell.allocator}: name it in {FILE}, under [allocators], as "
                f'{cell.allocator} = "FEATURE"; without one its images have their C library\'s allocator'
            )


def init(directory: Path, binary: str, builder: str) -> Path:
    """Writes a `lab.toml` to a folder (absolute) from what cargo says of the crate there, in a container of the image
    `builder`; returns its path.

    Raises LabError when there is one, when cargo cannot read the crate, or when it has several binaries and none is
    named: they are listed.
    """
    path = _beside_manifest(directory)
    if path.exists():
        raise LabError(f"{path} is there already; edit it, or move it away")
    root = _root(directory)
    manifest = str(Path("/app") / directory.relative_to(root) / "Cargo.toml")  # in the container that cargo runs in
    told = _metadata(root, manifest, builder)
    found = {
        target["name"]: package
        for package in told["packages"]
        for target in package["targets"]
        if "bin" in target["kind"] and (root == directory or package["manifest_path"] == manifest)
    }
    if not found:
        raise LabError(f"{directory}: no package there has a binary")
    defaults = {package["default_run"] for package in found.values() if package.get("default_run")}
    chosen = binary or (next(iter(found)) if len(found) == 1 else next(iter(defaults)) if len(defaults) == 1 else "")
    if not chosen:
        raise LabError(f"{directory}: several binaries, choose one with --binary NAME: {', '.join(found)}")
    if chosen not in found:
        raise unknown("binary", chosen, found)
    package = found[chosen]
    alone = len(told["packages"]) == 1 and package["manifest_path"] == manifest
    write_whole(path, _text(chosen, "" if alone else package["name"], package["features"]))
    return path


def _text(binary: str, package: str, features: dict[str, list[str]]) -> str:
    """The file's text. An allocator that is on by default is so for its own cells only."""
    # An optional dependency is a feature too, but sources ask for the one that their author named, if there is one.
    by_author = sorted(features, key=lambda name: (features[name] == [f"dep:{name}"], name))
    named = {name: [feature for feature in by_author if name in feature] for name in ALLOCATORS if name != "system"}
    found = {name: those[0] for name, those in named.items() if those}

    def brings(feature: str) -> set[str]:
        return {feature}.union(*(brings(each) for each in features.get(feature, []) if each in features))

    defaults = features.get("default", [])
    kept = [feature for feature in defaults if not brings(feature) & set(found.values())]
    off = kept != defaults
    lines = "".join(f"{name} = {json.dumps(feature)}\n" for name, feature in found.items())
    return _TEMPLATE.format(
        package=f"package = {json.dumps(package)}\n" if package else "",
        binary=json.dumps(binary),
        features=json.dumps(kept if off else []),
        default_features="false" if off else "true",
        allocators=lines or '# jemalloc = "FEATURE"\n# mimalloc = "FEATURE"\n',
    )


def _metadata(root: Path, manifest: str, builder: str) -> dict[str, Any]:
    """What `cargo metadata` says of the crate's own packages. Raises LabError with cargo's words."""
    from rustimg_lab.engine import containers  # loads the docker package, which no Dockerfile needs

    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version=1", f"--manifest-path={manifest}"]
    with containers.created(builder, _archive(root), command=command, network_mode="none") as container:
        container.start()
        if container.wait(timeout=METADATA_TIMEOUT_S)["StatusCode"]:
            said = container.logs(stdout=False).decode(errors="replace").split("Caused by:")
            raise LabError(f"{root}: cargo cannot read it: {' '.join(' '.join(said).split())[:400]}")
        return json.loads(container.logs(stderr=False))


def _archive(root: Path) -> bytes:
    """The crate's sources, without what cargo made, as a tar archive of a folder `app`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(root, "app", filter=lambda each: None if _is_left_out(Path(each.name)) else each)
    return file.getvalue()


def _is_left_out(path: Path) -> bool:
    return path == Path("app/target") or path.name in LEFT_OUT


def _root(directory: Path) -> Path:
    """The folder with the Cargo.lock: the crate's own, or its workspace's above."""
    for folder in (directory, *directory.parents):
        if (folder / "Cargo.lock").is_file():
            return folder
    raise LabError(f"{directory}: no Cargo.lock there; make one with `cargo generate-lockfile` and commit it")


def _strips(root: Path) -> bool:
    """Whether the release profile of a workspace's or crate's own manifest says how to strip."""
    try:
        profiles = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8")).get("profile", {})
        return "strip" in profiles.get("release", {})
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False  # what cargo will have to say of it, it says when it builds


def _package(directory: Path) -> str:
    try:
        return tomllib.loads((directory / "Cargo.toml").read_text(encoding="utf-8"))["package"]["name"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        raise LabError(f'Cargo.toml names no package ({error}); name one as package = "NAME"') from None


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """The same. Raises LabError on a key that is not known, with the nearest, and on a value of the wrong type."""
    for table, keys in _KEYS.items():
        entries = told if not table else told.get(table, {})
        where = f"[{table}] " if table else ""
        check_keys(entries, keys, where)
        for key, value in entries.items():
            if isinstance(value, list) and not all(isinstance(each, str) for each in value):
                raise LabError(f"{where}'{key}' has something in it that is no text")
            for each in value if key in _TEXTS else []:
                if not _TEXTS[key].fullmatch(each):
                    raise LabError(f"{where}'{key}': '{each}' cannot be such a name")
    check = told.get("check", {})
    if ("https_url" in check and {"prints", "exit_code"} & set(check)) or (
        "https_ca" in check and "https_url" not in check
    ):
        raise LabError("[check] 'https_url' goes with 'https_ca' and 'arguments', and with nothing else")
    for feature in told.get("allocators", {}).values():
        if not _FEATURE.fullmatch(feature):
            raise LabError(f"[allocators] '{feature}' cannot be the name of a feature")
    return told
