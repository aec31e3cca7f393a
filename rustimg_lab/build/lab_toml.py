"""The app: a binary of a Rust crate, described by the `lab.toml` beside its Cargo.toml."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, contents, lab_toml_values, manifests, sources
from rustimg_lab.build.cargo_config import expand
from rustimg_lab.errors import LabError, located, unknown_name
from rustimg_lab.host import process
from rustimg_lab.host.files import resolve_path, sha256
from rustimg_lab.model import toml
from rustimg_lab.model.app import App, Check, Configuration
from rustimg_lab.model.architecture import TARGETS, Architecture
from rustimg_lab.model.matrix import OWN, Cell
from rustimg_lab.paths import APPS, ORIGIN, SHARE

FILE = sources.LAB_TOML
_FIELDS = {"binary": "name", "packages": "system_packages", "from_environment": "arguments"}  # of App, by their keys
_OF_FOLDER = {"context", *contents.KEYS}  # keys that `_add_surroundings` reads, or `contents.read`
_CRT_STATIC = "-Ctarget-feature=crt-static"
_NOT_LLD = ("mold", "wild", "ld.gold", "ld.bfd")  # linkers by the names of `Configuration.tools`
CARGOS_PROFILES = {"release", "dev", "test", "bench"}  # of which images are built with release alone


def load(directory: Path) -> App:
    """Return the app of a folder (absolute) that has a `lab.toml`. Raises LabError, with the file and the key, on what
    cannot be used."""
    path = find_lab_toml(directory)
    if os.path.lexists(path) and not path.is_file():
        raise LabError(f"{path} is no file, but a folder, a pipe, or a link that leads to none; move it away")
    if not path.is_file():
        raise LabError(f"{directory}: no {FILE} there; `./lab init {directory}` writes one")
    settings = cargo_config.read_toml(path)
    with located(path):
        lab_toml_values.check(settings)
        serve = lab_toml_values.serve(settings["serve"], settings.get("ports", [])) if "serve" in settings else None
        work = lab_toml_values.work(settings["work"], directory) if "work" in settings else None
        if serve and work:
            raise LabError("[serve] is for a server, and [work] for another program: leave one of them out")
        services = lab_toml_values.services(settings["services"], directory) if "services" in settings else ()
    package = settings["package"] if "package" in settings else _package(directory)
    default_secrets = {"known_hosts": "~/.ssh/known_hosts"} if settings.get("ssh") else {}
    check = None if serve and "check" not in settings else toml.make(Check, settings.get("check", {}))
    fields = {_FIELDS.get(key, key): value for key, value in toml.freeze(settings).items() if key not in _OF_FOLDER}
    fields |= {"package": package, "serve": serve, "work": work, "check": check, "services": services}
    fields |= {"secrets": tuple((default_secrets | settings.get("secrets", {})).items())}
    app = App(**{"name": package, "directory": directory, "lock_sha256": ""} | fields)
    return _add_surroundings(app, directory, settings)


def _add_surroundings(app: App, directory: Path, settings: dict[str, Any]) -> App:
    """The app with what its folder and those above say: workspace, lockfile, configuration, toolchain."""
    root = cargo_config.workspace_root(directory)
    file = directory / FILE
    context = Path(os.path.commonpath([root, directory]))
    if "context" in settings:
        context = resolve_path(settings["context"], directory, f"{file}: 'context': ")
    if context == Path(context.anchor):
        raise LabError(f"{file}: 'context': builds would get all files of this machine; name the folder that they need")
    if not (root.is_relative_to(context) and directory.is_relative_to(context)):
        raise LabError(f"{file}: 'context': {context} does not hold {root}")
    if not (root / "Cargo.lock").is_file():
        raise LabError(f"{root}: no Cargo.lock there; make one with `cargo generate-lockfile` and commit it")
    with located(file):
        manifest = manifests.of_package(app.package, root, directory)
    _refuse_lacking(context, root, directory, manifest.parent)
    with located(file):
        manifests.check(app, manifest)
        image = contents.read(settings, context, directory, app.name)
    configuration = _configuration(context, root, directory, app.profile)
    placed_app = replace(
        app, image=image, directory=context, subdirectory="/".join(directory.relative_to(context).parts),
        lock_sha256=sha256(root / "Cargo.lock"), member=_is_named(root, directory, settings),
        configuration=configuration, moved_features=_moved_features(app, manifest),
        manifest="" if manifest.parent == directory else os.path.relpath(manifest, directory),
        date=_source_date(context, directory) if configuration.date is None else configuration.date,
    )  # fmt: skip
    for text in _texts((placed_app.subdirectory, placed_app.manifest, astuple(placed_app.configuration))):
        if not toml.is_line(text):
            raise LabError(f"{context}: {text!r}, of its manifests or a folder's name, cannot be in a Dockerfile")
    return placed_app


def _texts(value: Any) -> Iterator[str]:
    for part in value if isinstance(value, tuple) else ():
        yield from [part] if isinstance(part, str) else _texts(part)


def _is_named(root: Path, directory: Path, settings: dict[str, Any]) -> bool:
    """Return whether cargo needs the package's name: by itself it would take the folder's package, or others in its
    place."""
    has_default_members = "default-members" in cargo_config.read_cargo_toml(root / "Cargo.toml").get("workspace", {})
    return root != directory or "package" in settings or has_default_members


def _moved_features(app: App, manifest: Path) -> tuple[str, ...]:
    """The default features of the crate that bring an allocator, which has cells of its own here; `default` where the
    file has all others, and with these the crate is as its defaults make it."""
    if app.default_features or not app.allocators:
        return ()
    features, providers = cargo_config.read_cargo_toml(manifest).get("features", {}), set(dict(app.allocators).values())
    defaults = features.get("default", [])
    moved = [feature for feature in defaults if expand(features, feature) & providers]
    named_features = {feature for feature in defaults if not feature.startswith("dep:")}  # which no option turns on
    return ("default",) if moved and named_features <= {*app.features, *moved} else tuple(moved)


def origin(directory: Path) -> list[str]:
    """Return what a client reports of the sources that it has sent to a Dask worker (`paths.ORIGIN`): date and digest.
    The list is empty for other sources."""
    return os.environ[ORIGIN].split(",") if directory.is_relative_to(APPS) and ORIGIN in os.environ else []


def _source_date(context: Path, directory: Path) -> int:
    """When the sources were last changed: by their commit, or by the newest file that is not as committed. An app of
    the lab's own has none: its Dockerfiles are committed beside it, and would change with each commit. Of sources that
    a client has brought to a Dask worker the client tells it."""
    if facts := origin(directory):
        return int(facts[0])
    if directory.is_relative_to(SHARE):
        return 0
    pathspec = ["--", ".", f":(exclude){FILE}"]
    log_command = ["log", "-1", "--format=%ct", "--no-show-signature", *pathspec]
    diff_command = ["--no-optional-locks", "diff", "--name-only", "--relative", "-z", "HEAD", *pathspec]
    try:
        commit_times = process.run(["git", *log_command], cwd=directory).split()
        files = [directory / name for name in process.run(["git", *diff_command], cwd=directory).split("\0") if name]
    except LabError:
        commit_times = []  # no git, no repository, or one that belongs to another user
    if not commit_times:
        files = [context / path for path in sources.walk(context) if path.name not in (FILE, sources.IGNORED)]
    return max([*map(int, commit_times), *(int(path.lstat().st_mtime) for path in files if os.path.lexists(path))])


def _refuse_lacking(context: Path, root: Path, directory: Path, crate_folder: Path) -> None:
    """Raises LabError when builds would not get what cargo reads first, or what the crate (in `crate_folder`) depends
    on by its path. Without a build script, cargo would build another program and not say so."""
    dependencies = list(cargo_config.path_dependencies([root, directory, crate_folder]))
    for manifest, name, folder in dependencies:
        needed_manifest = folder / "Cargo.toml"  # which a folder of many crates' sources has not
        if reason := sources.why_missing(context, needed_manifest if needed_manifest.is_file() else folder):
            raise LabError(f"{manifest} depends on {name}: {reason}")
    first_files = [root / "Cargo.toml", root / "Cargo.lock", directory / "Cargo.toml", *cargo_config.files(directory)]
    folders = dict.fromkeys([directory, crate_folder, *(folder for _, _, folder in dependencies)])
    entries = [
        path for folder in folders if (folder / "Cargo.toml").is_file() for path in cargo_config.entry_files(folder)
    ]
    for path in (*first_files, *entries):
        if reason := sources.why_missing(context, path):
            raise LabError(f"cargo needs {path.name}: {reason}")


def _configuration(context: Path, root: Path, directory: Path, profile: str) -> Configuration:
    files = list(cargo_config.files(directory))
    configuration = cargo_config.read(files)
    tables = cargo_config.merge(cargo_config.read_cargo_toml(root / "Cargo.toml"), configuration).get("profile", {})
    choices = ["release", *sorted(tables.keys() - CARGOS_PROFILES)]
    if profile not in choices:
        reason = unknown_name("profile", profile, choices)
        raise LabError(f"{directory / FILE}: 'profile': {reason}; these are cargo's, of {root / 'Cargo.toml'}")
    chain = [profile]
    while len(chain) <= len(tables) and (parent := tables.get(chain[-1], {}).get("inherits")):
        chain.append(parent)
    profiles = [tables.get(name, {}) for name in chain]
    flags = tuple((target, cargo_config.rustflags(configuration, target)) for target in TARGETS)
    overrides = [(name, override) for table in profiles for name, override in table.get("package", {}).items()]
    strips = [table["strip"] for table in profiles if "strip" in table][:1]  # of the profiles, the first one counts
    strips += [override["strip"] for _, override in overrides if "strip" in override]
    folders = [folder for folder in (directory, *directory.parents) if folder.is_relative_to(context)]
    date = configuration.get("env", {}).get("SOURCE_DATE_EPOCH")
    date = str(date.get("value") if isinstance(date, dict) else date)
    return Configuration(
        files=", ".join(str(path.relative_to(context)) for path in files),
        rustflags=flags,
        tools=tuple((target, cargo_config.tools(configuration, target)) for target in TARGETS),
        overrides=tuple((name, key) for name, override in overrides for key in override),
        strips=any(strip not in (False, "none") for strip in strips),
        toolchain=cargo_config.toolchain(folders),
        build_dir="build-dir" in configuration.get("build", {}),
        beside_sources=_settings_digest(context, files, configuration),
        date=int(date) if date.isdecimal() else None,
    )


def _settings_digest(context: Path, files: list[Path], configuration: dict[str, Any]) -> str:
    """Return a digest of variables and settings of targets in cargo's configuration, and of files that replace others'
    crates. It is "" when there are none. Cargo looks for no change of these."""
    replacements = [
        (path.parent.parent / folder)
        for path in files
        for _, folder in cargo_config.find_replacements(cargo_config.read_cargo_toml(path))
    ]
    folders = [Path(os.path.normpath(path)).relative_to(context) for path in replacements]
    paths = sorted(path for path in sources.walk(context) if {path, *path.parents} & set(folders)) if folders else []
    digests = [(str(path), sha256(context / path)) for path in paths if (context / path).is_file()]
    parts = [configuration.get("env", {}), configuration.get("target", {}), digests]
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest() if any(parts) else ""


def find_lab_toml(directory: Path) -> Path:
    """Return where a crate's `lab.toml` is or will be. Raises LabError when the folder has no Cargo.toml."""
    if not (directory / "Cargo.toml").is_file():
        paths = sorted(str(path.parent) for depth in ("*", "*/*") for path in directory.glob(f"{depth}/Cargo.toml"))[:3]
        hint = f", but in {', '.join(paths)}" if paths else ""
        raise LabError(f"{directory}: no Cargo.toml there{hint}")
    return directory / FILE


def allocators(app: App) -> list[str]:
    """Return the allocators that an app can have: its own or its C library's, and those that it has a feature for."""
    return list(dict.fromkeys([OWN if app.own_allocator else "system", *dict(app.allocators)]))


def refuse_cells(app: App, cells: list[Cell]) -> None:
    """Raise LabError when a cell does not fit the app: its allocator, additions, base, architecture or linker. A
    profile that contradicts what the app itself passes to the compiler is an error too."""
    choices, flags = allocators(app), dict(app.configuration.rustflags)
    for cell in cells:
        contents.refuse(app.image, app.name, cell.additions)
        if cell.allocator not in (*choices, OWN):
            if app.own_allocator:
                raise LabError(f"{app.name} sets its own allocator: --allocators {','.join(choices)} build it")
            raise LabError(
                f"{app.name} has no feature for {cell.allocator}: name it in {FILE}, under [allocators], as "
                f'{cell.allocator} = "FEATURE"; without one its images have their C library\'s allocator'
            )
        options = cargo_config.options(flags.get(cell.target, ()))
        if cell.base.name in ("scratch", "static") and cell.libc == "musl" and options.get(_CRT_STATIC) == "-":
            raise LabError(
                f"{app.configuration.files} has -Ctarget-feature=-crt-static for {cell.target}: such a program needs "
                f"musl's loader, which {cell.base.name} has not; leave that base out, or the flag"
            )
        if cell.architecture is not Architecture.X86_64 and any("-cpu=x86" in flag for flag in cell.profile.rustflags):
            raise LabError(
                f"profile '{cell.profile.name}' is for x86_64 alone: leave it out for --arch {cell.architecture.debian}"
            )
        tools = dict(app.configuration.tools).get(cell.target, ())
        if cell.layout and (linker := next((name for name in tools if name in _NOT_LLD), "")):
            raise LabError(
                f"{app.configuration.files} names the linker {linker} for {cell.target}, but lld links layouts: "
                "leave it out there, or take --bases of another target"
            )
        if contradiction := cargo_config.contradiction(cell.profile, app.configuration, cell.target):
            raise LabError(f"{contradiction}: no build can have both")


def _package(directory: Path) -> str:
    manifest = directory / "Cargo.toml"
    name = cargo_config.read_cargo_toml(manifest).get("package", {}).get("name")
    if not name:
        raise LabError(f'{directory / FILE}: Cargo.toml names no package; name one as package = "NAME"')
    if not re.fullmatch(lab_toml_values.NAME, name):
        raise LabError(f"{manifest}: {name!r} cannot be the name of a package or a binary")
    return name
