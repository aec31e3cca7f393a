"""The app: a binary of a Rust crate, described by the `lab.toml` beside its Cargo.toml."""

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, contents, sources
from rustimg_lab.build.cargo_config import brings
from rustimg_lab.errors import LabError, check_keys, unknown
from rustimg_lab.host import process
from rustimg_lab.host.files import real, sha256
from rustimg_lab.model import toml
from rustimg_lab.model.app import App, Check, Configuration, Serve, Service
from rustimg_lab.model.architecture import TARGETS, Architecture
from rustimg_lab.model.matrix import ALLOCATORS, OWN, Cell
from rustimg_lab.paths import APPS, ORIGIN, SHARE

FILE = "lab.toml"
_CRT_STATIC = "-Ctarget-feature=crt-static"
_NOT_LLD = ("mold", "wild", "ld.gold", "ld.bfd")  # linkers by the names of `Configuration.tools`
CARGOS_PROFILES = {"release", "dev", "test", "bench"}  # of which images are built with release alone
_NAME = re.compile(r"\w[\w-]*", re.ASCII)
_FEATURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:+?-]*")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")  # a host's name, and a part of an image's
_REFERENCE = re.compile(r"[\w./:@-]+", re.ASCII)
_LABS = re.compile(r"CARGO|RUST|SOURCE_DATE_EPOCH|BASE_IMAGE$|ca$")
TOKEN = re.compile(r"CARGO_REGISTR(Y|IES_\w+)_TOKEN")
_FILE = re.compile(r"[^'\"`$\\,\n]+")  # as the shell and BuildKit's options take it
_LINE = re.compile(r".*\S.*")
_STATUS, _TIMEOUT_S, _SERVICE_BYTES = range(200, 600), range(1, 601), 127
_HEALTH = {"method": "POST", "path": "/grpc.health.v1.Health/Check", "http": 2}  # how gRPC asks
_TEXTS = {"features": _FEATURE, "packages": _DEBIAN_PACKAGE, "from_environment": _VARIABLE, "build_commands": _LINE}
# Every key with the types that its value may have, by table; "" is the file itself.
_KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"binary": (str,), "package": (str,), "features": (list,), "default_features": (bool,), "packages": (list,),
         "profile": (str,), "context": (str,), "own_allocator": (bool,), "build_environment": (dict,),
         "from_environment": (list,), "secrets": (dict,), "ssh": (bool,), "git": (bool,), "build_commands": (list,),
         "allocators": (dict,), "check": (dict,), "serve": (dict,), "services": (list,), **contents.KEYS},
    "allocators": dict.fromkeys(ALLOCATORS, (str,)),
    "check": {"arguments": (list,), "prints": (str,), "exit_code": (int,), "https_url": (str,), "https_ca": (str,)},
    "serve": {"arguments": (list,), "environment": (dict,), "method": (str,), "path": (str,), "body": (str,),
              "before": (list,), "tls": (bool,), "http": (int,), "grpc": (str,), "status": (int,),
              "keep_alive": (bool,), "start_timeout_s": (int,)},
}  # fmt: skip


def load(directory: Path) -> App:
    """The app of a folder (absolute) that has a `lab.toml`. Raises LabError, with the file and the key, on what cannot
    be used."""
    path = beside_manifest(directory)
    if not path.is_file():
        raise LabError(f"{directory}: no {FILE} there; `./lab init {directory}` writes one")
    told = cargo_config.toml(path)
    try:
        told = _checked(told)
        package = told.get("package") or _package(directory)
        name = told.get("binary", package)
        for each in (package, name):
            if not _NAME.fullmatch(each):
                raise LabError(f"'{each}' cannot be the name of a package or a binary")
        serve = _serve(told["serve"], told.get("ports", [])) if "serve" in told else None
        services = _services(told["services"], directory) if "services" in told else ()
    except LabError as error:
        raise LabError(f"{path}: {error}") from None
    trusted = {"known_hosts": "~/.ssh/known_hosts"} if told.get("ssh") else {}
    app = App(
        name, directory, "", package,
        features=tuple(told.get("features", [])), default_features=told.get("default_features", True),
        allocators=tuple(told.get("allocators", {}).items()), own_allocator=told.get("own_allocator", False),
        system_packages=tuple(told.get("packages", [])), profile=told.get("profile", "release"),
        build_environment=tuple(told.get("build_environment", {}).items()), serve=serve,
        check=None if serve and "check" not in told else _check(told.get("check", {})),
        services=services,
        arguments=tuple(told.get("from_environment", [])), build_commands=tuple(told.get("build_commands", [])),
        secrets=tuple((trusted | told.get("secrets", {})).items()), ssh=bool(trusted), git=told.get("git", False),
    )  # fmt: skip
    return _placed(app, directory, told)


def _check(told: dict[str, Any]) -> Check:
    return Check(**told | {"arguments": tuple(told.get("arguments", []))})


def _placed(app: App, directory: Path, told: dict[str, Any]) -> App:
    """The app with what its folder and those above say: workspace, lockfile, configuration, toolchain."""
    root = cargo_config.workspace_root(directory)
    context = (
        (directory / told["context"]).resolve() if "context" in told else Path(os.path.commonpath([root, directory]))
    )
    if not (root.is_relative_to(context) and directory.is_relative_to(context)):
        raise LabError(f"{directory / FILE}: 'context': {context} does not hold {root}")
    if not (root / "Cargo.lock").is_file():
        raise LabError(f"{root}: no Cargo.lock there; make one with `cargo generate-lockfile` and commit it")
    manifest = _manifest(app.package, root, directory)
    _refuse_lacking(context, root, directory, manifest.parent)
    try:
        image = contents.read(told, context, directory, app.name)
    except LabError as error:
        raise LabError(f"{directory / FILE}: {error}") from None
    return replace(
        app, image=image, directory=context, at="/".join(directory.relative_to(context).parts),
        lock_sha256=sha256(root / "Cargo.lock"), member=_is_named(root, directory, told),
        configuration=_configuration(context, root, directory, app.profile), date=_date(context, directory),
        moved=_moved(app, manifest),
        manifest="" if manifest.parent == directory else os.path.relpath(manifest, directory),
    )  # fmt: skip


def _is_named(root: Path, directory: Path, told: dict[str, Any]) -> bool:
    """Whether cargo must be told the package: by itself it would take that of the folder, or others in its place."""
    others = "default-members" in cargo_config.parsed(root / "Cargo.toml").get("workspace", {})
    return root != directory or "package" in told or others


def _manifest(package: str, root: Path, directory: Path) -> Path:
    """The manifest of a package: that of the folder, or else of a member of the workspace."""
    own = directory / "Cargo.toml"
    # The tree, which may be large, is looked through only where the folder's own is another's.
    for path in itertools.chain([own], (root / each for each in sources.walk(root) if each.name == "Cargo.toml")):
        is_named = package in path.read_text(errors="replace")
        if is_named and cargo_config.parsed(path).get("package", {}).get("name") == package:
            return path
    return own


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
        committed = []  # no git, or no repository
    if not committed:
        files = [context / path for path in sources.walk(context) if path.name not in (FILE, sources.IGNORED)]
    return max([*map(int, committed), *(int(path.lstat().st_mtime) for path in files if os.path.lexists(path))])


def _refuse_lacking(context: Path, root: Path, directory: Path, own: Path) -> None:
    """Raises LabError when builds would not get what cargo reads first, or what the crate (in the folder `own`) depends
    on by its path. Without a build script, cargo would build another program and not say so."""
    depended = list(cargo_config.path_dependencies([root, directory, own]))
    for manifest, name, folder in depended:
        if reason := sources.why_missing(context, folder / "Cargo.toml"):
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
    selectable = {"release"} | (own.keys() - CARGOS_PROFILES)
    if profile not in selectable:
        raise unknown("profile", profile, selectable)
    chain = [profile]
    while len(chain) <= len(own) and (inherited := own.get(chain[-1], {}).get("inherits")):
        chain.append(inherited)
    profiles = [own.get(name, {}) for name in chain]
    flags = tuple((target, cargo_config.rustflags(configuration, target)) for target in TARGETS)
    inside = [each for each in (directory, *directory.parents) if each.is_relative_to(context)]
    return Configuration(
        files=", ".join(str(path.relative_to(context)) for path in files),
        rustflags=flags,
        tools=tuple((target, cargo_config.tools(configuration, target)) for target in TARGETS),
        overrides=tuple((name, key) for each in profiles for name, of in each.get("package", {}).items() for key in of),
        strips=any("strip" in each for each in profiles),
        toolchain=cargo_config.toolchain(inside),
    )


def beside_manifest(directory: Path) -> Path:
    """Return where a crate's `lab.toml` is or will be. Raises LabError when the folder has no Cargo.toml."""
    if not (directory / "Cargo.toml").is_file():
        raise LabError(f"{directory}: no Cargo.toml there")
    return directory / FILE


def _serve(told: dict[str, Any], ports: list[int]) -> Serve:
    environment = told.get("environment", {})
    if not all(isinstance(text, str) for text in environment.values()):
        raise LabError("[serve] 'environment' has something in it that is no text")
    calls = told.get("before", [])
    if not all(isinstance(call, list) and all(isinstance(text, str) for text in call) for call in calls):
        raise LabError("[serve] 'before' is a list of lists of arguments, such as [[\"migrate\"]]")
    told |= {"arguments": tuple(told.get("arguments", [])), "before": tuple(map(tuple, calls))}
    serve = Serve(**told | {"environment": tuple(sorted(environment.items()))})
    if not serve.takes_port and not ports:
        raise LabError(
            "[serve] has no {port} in its arguments or environment: the port is another at each start; of a server "
            "with a port of its own, `ports` names it"
        )
    if told.get("method", "GET") not in ("GET", "POST", "PUT"):
        raise LabError(f"[serve] 'method': '{told['method']}' is not one of GET, POST, PUT")
    if not told.get("path", "/").startswith("/"):
        raise LabError(f"[serve] 'path': '{told['path']}' does not begin with /")
    for key, known in (("http", (1, 2)), ("status", _STATUS), ("start_timeout_s", _TIMEOUT_S)):
        if told.get(key, known[-1]) not in known:
            raise LabError(f"[serve] '{key}': {told[key]} is not within {known[0]} to {known[-1]}")
    more = told.keys() & {"method", "path", "body", "status"}
    if "grpc" in told and (more or len(told["grpc"].encode()) > _SERVICE_BYTES):
        raise LabError("[serve] 'grpc' is the name of a service, and goes with no method, path, body or status")
    if (told.get("http") == 2 or "grpc" in told) and not serve.keep_alive:
        raise LabError("[serve] 'keep_alive' = false goes with HTTP/1 alone: leave out http = 2 or grpc")
    return replace(serve, **_HEALTH) if "grpc" in told else serve


def _services(told: list[Any], directory: Path) -> tuple[Service, ...]:
    """The services; an archive by its whole path."""
    from rustimg_lab.build.archives import detect  # loads the docker package, which help and completion do not need

    made: dict[str, Service] = {}
    for table in told:
        each = toml.make(Service, table, where := f"[[services]] {len(made) + 1}: ")
        if not all(isinstance(text, str) for text in (*each.command, *each.ready, *dict(each.environment).values())):
            raise LabError(f"{where}'environment', 'command' or 'ready' has something in it that is no text")
        if not _SERVICE.fullmatch(each.name) or each.name in made:
            raise LabError(f"{where}'name': '{each.name}' cannot be a host's name, or is that of another service")
        image = str(real(each.image, directory, where)) if detect(each.image) else each.image
        if image == "packages" or not (detect(image) or _REFERENCE.fullmatch(image)):
            raise LabError(f"{where}'image': '{image}' cannot be the name of an image, or the path of an archive")
        made[each.name] = replace(each, image=image, environment=tuple(sorted(each.environment)))
    return tuple(made.values())


def allocators(app: App) -> list[str]:
    """Return the allocators that an app can have: its own or its C library's, and those that it has a feature for."""
    return list(dict.fromkeys([OWN if app.own_allocator else "system", *dict(app.allocators)]))


def refuse(app: App, cells: list[Cell]) -> None:
    """Raises LabError when a cell has an allocator that the app cannot have, or a profile that contradicts what the app
    itself tells the compiler."""
    known, flags = allocators(app), dict(app.configuration.rustflags)
    for cell in cells:
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
    named = cargo_config.parsed(directory / "Cargo.toml").get("package", {}).get("name")
    if not named:
        raise LabError('Cargo.toml names no package; name one as package = "NAME"')
    return named


def _checked(told: dict[str, Any]) -> dict[str, Any]:
    """The same. Raises LabError on a key that is not known, with the nearest, and on a value of the wrong type."""
    for table, keys in _KEYS.items():
        entries = told if not table else told.get(table, {})
        where = f"[{table}] " if table else ""
        check_keys(entries, keys, where)
        for key, value in entries.items():
            texts = value if isinstance(value, list) and key not in ("before", "services", "ports") else []
            if not all(isinstance(each, str) for each in texts):
                raise LabError(f"{where}'{key}' has something in it that is no text")
            for each in value if key in _TEXTS else []:
                if not _TEXTS[key].fullmatch(each):
                    what = "a command of one line" if _TEXTS[key] is _LINE else "such a name"
                    raise LabError(f"{where}'{key}': '{each}' cannot be {what}")
    contents.check(told)
    check = told.get("check", {})
    if ("https_url" in check and ({"prints", "exit_code"} & set(check) or told.get("services"))) or (
        "https_ca" in check and "https_url" not in check
    ):
        raise LabError("[check] 'https_url' goes with 'https_ca' and 'arguments', and with nothing else")
    texts, secrets, names = told.get("build_environment", {}), told.get("secrets", {}), told.get("from_environment", [])
    for name, value in (*texts.items(), *secrets.items(), *((name, "") for name in names)):
        if not _VARIABLE.fullmatch(name) or not isinstance(value, str) or len(value.splitlines()) > 1:
            raise LabError(f"'{name}' is no variable with a text of one line")
        if _LABS.match(name) and not (name in secrets and TOKEN.fullmatch(name)):
            raise LabError(f"the variable '{name}' is set by the lab; .cargo/config.toml is the place for it")
        if [*texts, *secrets, *names].count(name) > 1:
            raise LabError(f"the variable '{name}' is there twice")
        if name in secrets and not _FILE.fullmatch(value):
            raise LabError(f"[secrets] '{name}': '{value}' is neither \"env\" nor a path without quotes and commas")
    for feature in told.get("allocators", {}).values():
        if not _FEATURE.fullmatch(feature):
            raise LabError(f"[allocators] '{feature}' cannot be the name of a feature")
    return told
