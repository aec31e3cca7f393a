"""The app: a binary of a Rust crate, described by the `lab.toml` beside its Cargo.toml."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, contents, lab_toml_values, manifests, sources
from rustimg_lab.build.cargo_config import brings
from rustimg_lab.errors import LabError, located, unknown
from rustimg_lab.host import process
from rustimg_lab.host.files import real, sha256
from rustimg_lab.model import toml
from rustimg_lab.model.app import App, Check, Configuration
from rustimg_lab.model.architecture import TARGETS, Architecture
from rustimg_lab.model.matrix import OWN, Cell
from rustimg_lab.paths import APPS, ORIGIN, SHARE

FILE = sources.LAB_TOML
_FIELDS = {"binary": "name", "packages": "system_packages", "from_environment": "arguments"}  # of App, by their keys
_OF_FOLDER = {"context", *contents.KEYS}  # keys that `_placed` reads, or `contents.read`
_CRT_STATIC = "-Ctarget-feature=crt-static"
_NOT_LLD = ("mold", "wild", "ld.gold", "ld.bfd")  # linkers by the names of `Configuration.tools`
CARGOS_PROFILES = {"release", "dev", "test", "bench"}  # of which images are built with release alone


def load(directory: Path) -> App:
    """The app of a folder (absolute) that has a `lab.toml`. Raises LabError, with the file and the key, on what cannot
    be used."""
    path = beside_manifest(directory)
    if os.path.lexists(path) and not path.is_file():
        raise LabError(f"{path} is no file, but a folder, a pipe, or a link that leads to none; move it away")
    if not path.is_file():
        raise LabError(f"{directory}: no {FILE} there; `./lab init {directory}` writes one")
    told = cargo_config.toml(path)
    with located(path):
        lab_toml_values.check(told)
        serve = lab_toml_values.serve(told["serve"], told.get("ports", [])) if "serve" in told else None
        work = lab_toml_values.work(told["work"], directory) if "work" in told else None
        if serve and work:
            raise LabError("[serve] is for a server, and [work] for another program: leave one of them out")
        services = lab_toml_values.services(told["services"], directory) if "services" in told else ()
    package = told["package"] if "package" in told else _package(directory)
    trusted = {"known_hosts": "~/.ssh/known_hosts"} if told.get("ssh") else {}
    check = None if serve and "check" not in told else toml.make(Check, told.get("check", {}))
    given = {_FIELDS.get(key, key): value for key, value in toml.tuples(told).items() if key not in _OF_FOLDER}
    given |= {"package": package, "serve": serve, "work": work, "check": check, "services": services}
    given |= {"secrets": tuple((trusted | told.get("secrets", {})).items())}
    app = App(**{"name": package, "directory": directory, "lock_sha256": ""} | given)
    return _placed(app, directory, told)


def _placed(app: App, directory: Path, told: dict[str, Any]) -> App:
    """The app with what its folder and those above say: workspace, lockfile, configuration, toolchain."""
    root = cargo_config.workspace_root(directory)
    file = directory / FILE
    context = Path(os.path.commonpath([root, directory]))
    if "context" in told:
        context = real(told["context"], directory, f"{file}: 'context': ")
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
        image = contents.read(told, context, directory, app.name)
    configuration = _configuration(context, root, directory, app.profile)
    placed = replace(
        app, image=image, directory=context, at="/".join(directory.relative_to(context).parts),
        lock_sha256=sha256(root / "Cargo.lock"), member=_is_named(root, directory, told),
        configuration=configuration, moved=_moved(app, manifest),
        manifest="" if manifest.parent == directory else os.path.relpath(manifest, directory),
        date=_date(context, directory) if configuration.date is None else configuration.date,
    )  # fmt: skip
    for text in _texts((placed.at, placed.manifest, astuple(placed.configuration))):
        if not toml.is_line(text):
            raise LabError(f"{context}: {text!r}, of its manifests or a folder's name, cannot be in a Dockerfile")
    return placed


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, tuple) else ():
        yield from [each] if isinstance(each, str) else _texts(each)


def _is_named(root: Path, directory: Path, told: dict[str, Any]) -> bool:
    """Whether cargo must be told the package: by itself it would take that of the folder, or others in its place."""
    others = "default-members" in cargo_config.parsed(root / "Cargo.toml").get("workspace", {})
    return root != directory or "package" in told or others


def _moved(app: App, manifest: Path) -> tuple[str, ...]:
    """The default features of the crate that bring an allocator, which has cells of its own here; `default` where the
    file has all others, and with these the crate is as its defaults make it."""
    if app.default_features or not app.allocators:
        return ()
    features, of_allocators = cargo_config.parsed(manifest).get("features", {}), set(dict(app.allocators).values())
    defaults = features.get("default", [])
    moved = [each for each in defaults if brings(features, each) & of_allocators]
    named = {each for each in defaults if not each.startswith("dep:")}  # which no option turns on
    return ("default",) if moved and named <= {*app.features, *moved} else tuple(moved)


def origin(directory: Path) -> list[str]:
    """Return what a client tells of the sources that it has brought to a Dask worker (`paths.ORIGIN`); empty for
    others."""
    return os.environ[ORIGIN].split(",") if directory.is_relative_to(APPS) and ORIGIN in os.environ else []


def _date(context: Path, directory: Path) -> int:
    """When the sources were last changed: by their commit, or by the newest file that is not as committed. An app of
    the lab's own has none: its Dockerfiles are committed beside it, and would change with each commit. Of sources that
    a client has brought to a Dask worker the client tells it."""
    if told := origin(directory):
        return int(told[0])
    if directory.is_relative_to(SHARE):
        return 0
    of_sources = ["--", ".", f":(exclude){FILE}"]
    last = ["log", "-1", "--format=%ct", "--no-show-signature", *of_sources]
    changed = ["--no-optional-locks", "diff", "--name-only", "--relative", "-z", "HEAD", *of_sources]
    try:
        committed = process.run(["git", *last], cwd=directory).split()
        files = [directory / name for name in process.run(["git", *changed], cwd=directory).split("\0") if name]
    except LabError:
        committed = []  # no git, no repository, or one that belongs to another user
    if not committed:
        files = [context / path for path in sources.walk(context) if path.name not in (FILE, sources.IGNORED)]
    return max([*map(int, committed), *(int(path.lstat().st_mtime) for path in files if os.path.lexists(path))])


def _refuse_lacking(context: Path, root: Path, directory: Path, own: Path) -> None:
    """Raises LabError when builds would not get what cargo reads first, or what the crate (in the folder `own`) depends
    on by its path. Without a build script, cargo would build another program and not say so."""
    depended = list(cargo_config.path_dependencies([root, directory, own]))
    for manifest, name, folder in depended:
        needed = folder / "Cargo.toml"  # which a folder of many crates' sources has not
        if reason := sources.why_missing(context, needed if needed.is_file() else folder):
            raise LabError(f"{manifest} depends on {name}: {reason}")
    first = [root / "Cargo.toml", root / "Cargo.lock", directory / "Cargo.toml", *cargo_config.files(directory)]
    folders = dict.fromkeys([directory, own, *(folder for _, _, folder in depended)])
    entries = [path for each in folders if (each / "Cargo.toml").is_file() for path in cargo_config.entry_files(each)]
    for path in (*first, *entries):
        if reason := sources.why_missing(context, path):
            raise LabError(f"cargo needs {path.name}: {reason}")


def _configuration(context: Path, root: Path, directory: Path, profile: str) -> Configuration:
    files = list(cargo_config.files(directory))
    configuration = cargo_config.read(files)
    own = cargo_config.merged(cargo_config.parsed(root / "Cargo.toml"), configuration).get("profile", {})
    selectable = ["release", *sorted(own.keys() - CARGOS_PROFILES)]
    if profile not in selectable:
        reason = unknown("profile", profile, selectable)
        raise LabError(f"{directory / FILE}: 'profile': {reason}; these are cargo's, of {root / 'Cargo.toml'}")
    chain = [profile]
    while len(chain) <= len(own) and (inherited := own.get(chain[-1], {}).get("inherits")):
        chain.append(inherited)
    profiles = [own.get(name, {}) for name in chain]
    flags = tuple((target, cargo_config.rustflags(configuration, target)) for target in TARGETS)
    of_packages = [(name, of) for each in profiles for name, of in each.get("package", {}).items()]
    strips = [each["strip"] for each in profiles if "strip" in each][:1]  # of the profiles, the first one counts
    strips += [of["strip"] for _, of in of_packages if "strip" in of]
    inside = [each for each in (directory, *directory.parents) if each.is_relative_to(context)]
    date = configuration.get("env", {}).get("SOURCE_DATE_EPOCH")
    date = str(date.get("value") if isinstance(date, dict) else date)
    return Configuration(
        files=", ".join(str(path.relative_to(context)) for path in files),
        rustflags=flags,
        tools=tuple((target, cargo_config.tools(configuration, target)) for target in TARGETS),
        overrides=tuple((name, key) for name, of in of_packages for key in of),
        strips=any(each not in (False, "none") for each in strips),
        toolchain=cargo_config.toolchain(inside),
        build_dir="build-dir" in configuration.get("build", {}),
        beside_sources=_beside_sources(context, files, configuration),
        date=int(date) if date.isdecimal() else None,
    )


def _beside_sources(context: Path, files: list[Path], configuration: dict[str, Any]) -> str:
    """A digest of the variables and of the settings of targets that cargo's configuration has, and of the files that it
    puts in the place of others' crates; "" where it has none. Cargo looks for no change of these."""
    named = [
        (path.parent.parent / folder)
        for path in files
        for _, folder in cargo_config.replaced(cargo_config.parsed(path))
    ]
    folders = [Path(os.path.normpath(each)).relative_to(context) for each in named]
    sent = sorted(each for each in sources.walk(context) if {each, *each.parents} & set(folders)) if folders else []
    held = [(str(each), sha256(context / each)) for each in sent if (context / each).is_file()]
    found = [configuration.get("env", {}), configuration.get("target", {}), held]
    return hashlib.sha256(repr(found).encode(errors="surrogateescape")).hexdigest() if any(found) else ""


def beside_manifest(directory: Path) -> Path:
    """Return where a crate's `lab.toml` is or will be. Raises LabError when the folder has no Cargo.toml."""
    if not (directory / "Cargo.toml").is_file():
        below = sorted(str(each.parent) for depth in ("*", "*/*") for each in directory.glob(f"{depth}/Cargo.toml"))[:3]
        found = f", but in {', '.join(below)}" if below else ""
        raise LabError(f"{directory}: no Cargo.toml there{found}")
    return directory / FILE


def allocators(app: App) -> list[str]:
    """Return the allocators that an app can have: its own or its C library's, and those that it has a feature for."""
    return list(dict.fromkeys([OWN if app.own_allocator else "system", *dict(app.allocators)]))


def refuse(app: App, cells: list[Cell]) -> None:
    """Raises LabError when a cell has an allocator that the app cannot have, or a profile that contradicts what the app
    itself tells the compiler."""
    known, flags = allocators(app), dict(app.configuration.rustflags)
    for cell in cells:
        contents.refuse(app.image, app.name, cell.additions)
        if cell.allocator not in (*known, OWN):
            if app.own_allocator:
                raise LabError(f"{app.name} sets its own allocator: --allocators {','.join(known)} build it")
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
    named = cargo_config.parsed(manifest).get("package", {}).get("name")
    if not named:
        raise LabError(f'{directory / FILE}: Cargo.toml names no package; name one as package = "NAME"')
    if not re.fullmatch(lab_toml_values.NAME, named):
        raise LabError(f"{manifest}: {named!r} cannot be the name of a package or a binary")
    return named
