"""A crate -> the `lab.toml` that `init` proposes, from what cargo and the crate's sources say.

Nothing but `lab.toml` is ever written to an app's folder.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, cargo_metadata, crate_files, lab_toml, sources
from rustimg_lab.build import crate as crates
from rustimg_lab.build.cargo_config import brings, without
from rustimg_lab.build.crate import Crate
from rustimg_lab.build.known import KNOWN, TEMPLATES
from rustimg_lab.errors import LabError, unknown
from rustimg_lab.host.files import write_whole
from rustimg_lab.model.architecture import TARGETS

_ALLOCATOR = re.compile(r"[^;}]*#\[global_allocator\][^;]*;")  # with the attributes before it
_ASKED = re.compile(r"feature|cfg\(test\)")  # a feature, or the crate's own tests
_ASKED_MODULE = re.compile(r"#\[cfg\([^\]]*feature[^\]]*\]\s*(?:pub\S*\s+)?mod\s+(\w+)\s*;")
# A variable that neither cargo nor the usual crates set.
_VARIABLE_NAME = (
    r"(?!(?:CARGO|RUST|DEP|VERGEN|SOURCE_DATE_EPOCH|OUT_DIR|TARGET|HOST|PROFILE|OPT_LEVEL|NUM_JOBS|DEBUG|DOCS_RS|PATH|HOME|"
    r"CC|CFLAGS|AR)\b|CARGO_|RUSTC|RUSTDOC|DEP_|VERGEN_)(\w+)"
)
_BUILD_VARIABLE = re.compile(r'(?:\b(?:option_)?env!\(\s*"|rerun-if-env-changed=)' + _VARIABLE_NAME)
_READ_BY_SCRIPT = re.compile(r'\bvar(?:_os)?\(\s*"' + _VARIABLE_NAME)
_BUILD_FOLDER = re.compile(
    r'(?<!include_str!\(concat!\()(?<!include_bytes!\(concat!\()env!\(\s*"CARGO_MANIFEST_DIR"|\brelative!\('
)
_BUILD_FOLDER_NOTE = (
    'its sources name CARGO_MANIFEST_DIR, the folder of the build, which no image has: `files = { "assets" = '
    '"/src/assets" }` there places what the program reads in it'
)
_SERVER = re.compile(
    r"TcpListener|TcpSocket|\bHttpServer\b|axum::|\bserve\(|\bserve_connection\w*\(|hyper\w*::server\b"
)
_VARIABLE = re.compile(r'\b(?:var(?:_os)?\(|env(?:\(|\s*=))\s*"(\w+)"')
_SET_BY_SCRIPT = re.compile(r"rustc-env=(\w+)")
_BESIDE = re.compile(r"\bcurrent_exe\((?s:.){1,300}?\.(?:parent|with_file_name|pop|set_file_name)\(")
_HOME = re.compile(r'\bhome_dir\(|\b(?:dirs|dirs_next|directories|etcetera|xdg)::|\b(?:Project|Base)Dirs\b|"HOME"')
_TEMPORARY = re.compile(r'\btemp_dir\(|\btempfile::|\btempdir\(|"/tmp\b')
_LOCAL_TIME = re.compile(
    r"\bLocal::now\(|&Local\b|\bLocal\.|\bnow_local\(|\bcurrent_local_offset\(|\blocaltime_r\(|\bZoned::now\(|\bin_tz\("
    r"|\bTimeZone::(?:system|get)\("
)
_BINDS = re.compile("(?i)bind|listen")
_ARGUMENTS = re.compile(r"\benv::args(?:_os)?\b")
_SUBCOMMAND = re.compile(r"\bSubcommand\b|\.subcommands?\(")
_LINKED = re.compile(r'\bprobe(?:_library)?\(\s*"([\w.+-]+)"|rustc-link-lib=(?:dylib=)?(\w+)')
_OF_GIT = re.compile(r'\bgit_version!|"[^"]*\.git/')
_SOURCES = {name: re.compile(pattern) for name, pattern in KNOWN["sources"].items()}


def init(directory: Path, binary: str, builder: Callable[[], str]) -> tuple[Path, list[str]]:
    """Write a `lab.toml` to a folder (absolute) from what cargo says of the crate there; returns its path, and a line
    on each thing that the user should know.

    Cargo is this machine's; where it has none, that of the image `builder()`. Raises LabError when there is a
    `lab.toml`, when cargo cannot read the crate, or when it has several binaries and none is named: they are listed.
    """
    path = lab_toml.beside_manifest(directory)
    if path.exists():
        raise LabError(f"{path} is there already; edit it, or move it away")
    root = cargo_config.workspace_root(directory)
    told = cargo_metadata.read(root, directory, builder)
    here = [each for each in told["packages"] if Path(each["manifest_path"]).parent == directory]
    members = told.get("workspace_default_members", [])
    usual = here or [each for each in told["packages"] if each["id"] in members]
    package, target = _chosen(directory, binary, told["packages"] if directory == root else here, usual)
    crate = crates.read(root, directory, package, target, told["packages"])
    named = "" if len(told["packages"]) == 1 and here else package["name"]
    text, notes = proposal(crate, named)
    write_whole(path, text)
    try:
        lab_toml.load(directory)
    except LabError as error:  # what the user has to do before a build
        notes.append(str(error))
    links = [each for each in sources.walk(root) if sources.leads_out(root, each)]
    return path, notes + [sources.why_missing(root, each) for each in links[:3]]


def _chosen(
    directory: Path, binary: str, packages: list[dict[str, Any]], usual: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The package and the binary that are meant; where none is named, one of the packages that cargo builds then."""
    found = [(package, each) for package in packages for each in package["targets"] if "bin" in each["kind"]]
    if not found:
        raise LabError(f"{directory}: no package there has a binary")
    if not binary:
        found = [each for each in found if each[0] in usual] or found
    names = dict.fromkeys(target["name"] for _, target in found)
    packages = [package for package, _ in found]
    defaults = {package["default_run"] for package in packages if package.get("default_run")}
    chosen = binary or (next(iter(names)) if len(names) == 1 else next(iter(defaults)) if len(defaults) == 1 else "")
    if not chosen:
        raise LabError(f"{directory}: several binaries, choose one with --binary NAME: {', '.join(names)}")
    if chosen not in names:
        raise unknown("binary", chosen, names)
    fitting = [(package, target) for package, target in found if target["name"] == chosen]
    if len(fitting) > 1:
        folders = ", ".join(str(Path(package["manifest_path"]).parent) for package, _ in fitting)
        raise LabError(f"several packages have a binary '{chosen}'; call init with the folder of one: {folders}")
    return fitting[0]


def proposal(crate: Crate, named: str) -> tuple[str, list[str]]:
    """Return the file's text, and what the user should know. An allocator that is on by default is so for its own cells
    only; `named` is the package where the file has to name it."""
    features, found = crate.package["features"], _allocators(crate)
    defaults = features.get("default", [])
    is_moved = any(brings(features, each) & set(found.values()) for each in defaults)
    kept = without(features, defaults, set(found.values())) if is_moved else defaults
    lost = [each for each in defaults if is_moved and each.startswith("dep:")]
    needed = {*crate.target.get("required-features", [])}.difference(*(brings(features, each) for each in kept))
    configuration = cargo_config.read(list(cargo_config.files(crate.directory)))
    manifest = cargo_config.parsed(crate.root / "Cargo.toml")
    variables = _variables(crate, configuration)
    uses = {each["name"] for each in crate.dependencies()}
    is_server = crate.found(_SERVER) or uses & set(KNOWN["server_crates"]["names"])
    serve = _serve(crate, uses) if is_server else {}
    services, asks_git, has_git = _services(crate), _asks_git(crate), (crate.root / ".git").is_dir()
    notes = {
        f"it seems to use {', '.join(services)}: see [[services]] there": services,
        f"its sources read {', '.join(variables)} when they are compiled: see `build_environment` there": variables,
        _BUILD_FOLDER_NOTE: crate.found(_BUILD_FOLDER),
        **_asked(crate, bool(is_server), serve, starts := _starts(crate, uses)),
        f"its default features turn on {', '.join(lost)}, which no option can: the cells without those lack it": lost,
        _no_repository(crate): asks_git and not has_git,
        **_looks_for(crate, uses, bool(serve)),
    }
    placed, left_out = crate_files.placed(crate)
    text = TEMPLATES.get_template("lab.toml.j2").render(
        package=named,
        binary=crate.target["name"],
        features=(kept if kept != defaults else []) + sorted(needed),
        default_features=kept == defaults,
        packages=_packages(crate, configuration),
        git=asks_git and has_git,
        outside=_outside(crate),
        profiles=sorted(manifest.get("profile", {}).keys() - lab_toml.CARGOS_PROFILES),
        variables=variables,
        own_allocator=_has_allocator(crate),
        allocators=found,
        services=services,
        files=placed,
        writable=crate_files.writable(crate),
        starts=starts or "--version",
        serve=serve,
    )
    return text, [note for note, holds in notes.items() if holds] + left_out


def _outside(crate: Crate) -> list[str]:
    """The dependencies by path that builds do not get."""
    depended = cargo_config.path_dependencies([crate.root, crate.directory])
    return [name for _, name, folder in depended if sources.why_missing(crate.root, folder)]


def _starts(crate: Crate, uses: set[str]) -> str:
    """The argument with which a tool ends at once; "" where its sources tell none."""
    if crate.found(_SOURCES["version"]):
        return "--version"
    return "--help" if uses & set(KNOWN["parser_crates"]["names"]) else ""


def _asked(crate: Crate, is_server: bool, serve: dict[str, Any], starts: str) -> dict[str, object]:
    """What to know of how a program is asked whether it works, and whether it holds."""
    unknown_tool = crate.found(_ARGUMENTS) and not (is_server or starts)
    of_subcommand = serve.get("arguments") and crate.found(_SUBCOMMAND)
    return {
        "it looks like a server: fill in [serve]; until then its check shows only a start": is_server and not serve,
        "it has no crate tonic-health: that it answers is checked, and not its health": serve.get("http") == 2,
        "its flags may be of a subcommand: that stands first in `arguments` of [serve]": of_subcommand,
        "it reads arguments, and seems not to know --version: its check there takes a call that it knows": unknown_tool,
    }


def _variables(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """The variables that the sources read when they are compiled, and that nothing of the project sets."""
    given = {*crate.found(_SET_BY_SCRIPT), *configuration.get("env", {})}
    of_script = [name for text in crate.script() for name in _READ_BY_SCRIPT.findall(text)]
    return [each for each in dict.fromkeys([*crate.found(_BUILD_VARIABLE), *of_script]) if each not in given]


def _no_repository(crate: Crate) -> str:
    """What to know of a build that asks git for a revision, where builds do not get a repository."""
    above = next((each for each in crate.root.parents if (each / ".git").is_dir()), None)
    way = above and f'; context = "{os.path.relpath(above, crate.directory)}" and git = true send it that of {above}'
    return f"its build asks git for a revision, and {crate.root} has no folder .git{way or ''}"


def _allocators(crate: Crate) -> dict[str, str]:
    """The feature by which each allocator is turned on: the one that the allocator's place in the sources names, else
    one that is named for it, its author's before an optional dependency's own, and one that turns on little."""
    package = crate.package
    named = {name for text in crate.found(_ALLOCATOR) for name in re.findall(r'feature\s*=\s*"([\w-]+)"', text)}
    features, found = package["features"], {}
    for allocating, allocator in KNOWN["allocator_crates"].items():
        if name := _dependencies(package).get(allocating):
            fitting = [each for each in features if each != "default" and f"dep:{name}" in brings(features, each)]
            ranks = [
                (each not in named, "alloc" not in each, each == name, len(brings(features, each)), each)
                for each in fitting
            ]
            found |= {allocator: min(ranks)[-1]} if ranks else {}
    return found


def _has_allocator(crate: Crate) -> bool:
    """Whether the sources set an allocator without asking a feature, also where they do for its module."""
    asked = set(crate.found(_ASKED_MODULE))
    texts = [text for path, text in crate.texts.items() if not asked & {path.stem, path.parent.name}]
    return any(not _ASKED.search(each) for text in texts for each in _ALLOCATOR.findall(text))


def _dependencies(package: dict[str, Any]) -> dict[str, str]:
    """The package's dependencies: the name that its manifest has for each crate."""
    return {
        each["name"]: each.get("rename") or each["name"] for each in package["dependencies"] if not each.get("kind")
    }


def _services(crate: Crate) -> dict[str, dict[str, Any]]:
    """What the dependencies talk to, by its name, with what a container of it takes."""
    words = "\n".join(word for each in crate.dependencies() for word in (each["name"], *each.get("features", [])))
    return {name: each for name, each in KNOWN["services"].items() if re.search(each["crates"], words, re.MULTILINE)}


def _serve(crate: Crate, uses: set[str]) -> dict[str, Any]:
    """How a server gets its address, by variables or else by flags that its sources name, or which port it always has,
    and what it is asked; empty when they name none."""
    flags = crate.found(_SOURCES["flag"])
    flags += [named or field.replace("_", "-") for named, field in crate.found(_SOURCES["field"])]
    environment = next((told for name, told in KNOWN["server_variables"].items() if name in uses), {})
    environment = _told(crate.found(_VARIABLE)) or environment
    arguments = {} if environment else _told(flags)
    ports = {int(port) for groups in crate.found(_SOURCES["bound"]) for port in groups if port}
    if not environment and not arguments and len(ports) != 1:
        return {}
    asked = {"path": paths[0]} if (paths := crate.found(_SOURCES["path"])) else {}
    if "tonic" in uses:
        asked = {"grpc": ""} if "tonic-health" in uses else {"http": 2}
    if crate.found(_SOURCES["closes"]):
        asked["keep_alive"] = False
    passed = [text for flag, value in arguments.items() for text in (f"--{flag}", value)]
    fixed = [] if environment or arguments else sorted(ports)
    return {"environment": environment, "arguments": passed, "ports": fixed, **asked}


def _told(names: list[str]) -> dict[str, str]:
    """What a server's variables or flags are set to: one for its port and those for its host, or one for both."""
    port, address, host = (
        [name for name in names if _SOURCES[part].search(name) and not _SOURCES["others"].search(name)]
        for part in ("port", "address", "host")
    )
    if not port:
        return {name: "{host}:{port}" for name in address[:1]}
    chosen = min(port, key=lambda name: (name.upper() not in ("PORT", "HTTP_PORT"), len(name)))
    fitting = sorted(
        (name for name in host if name not in port),
        key=lambda name: (not _BINDS.search(name), re.split("[_-]", name)[0] != re.split("[_-]", chosen)[0]),
    )
    return {chosen: "{port}"} | {name: "{host}" for name in fitting[:1]}


def _packages(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """Return the Debian packages of what the cargo configuration names, of what the build script calls, and of what
    locked crates call or link in a build. git comes with `git = true`."""
    named = {name for target in TARGETS for name in cargo_config.tools(configuration, target)} | crate.called_in_build()
    packages = {KNOWN["programs"][name] for name in named - {"git"} if name in KNOWN["programs"]}
    linked = {name for text in crate.script() for groups in _LINKED.findall(text) for name in groups if name}
    packages |= {KNOWN["libraries"][name] for name in map(str.lower, linked) if name in KNOWN["libraries"]}
    of_build = {each["name"] for each in crate.dependencies("build")}
    packages |= {package for name, package in (("cmake", "cmake"), ("bindgen", "libclang-dev")) if name in of_build}
    locked = crate.locked
    needing = {name for name in locked & set(KNOWN["build_crates"]) if not locked & set(KNOWN["brought"].get(name, ()))}
    return sorted(packages.union(*(KNOWN["build_crates"][name] for name in needing)))


def _looks_for(crate: Crate, uses: set[str], is_served: bool) -> dict[str, object]:
    """What to know of a program that looks for something in its image, and whether it holds."""
    calls, program = crate.called_in_use(), crate.target["name"]
    asks_tls = bool(uses & set(KNOWN["tls_client_crates"]["names"]))
    may_ask = sorted(crate.locked & set(KNOWN["system_roots"]["names"]))
    return {
        f"it asks over TLS: take `--with ca-certificates`{'' if is_served else ', and a check that fetches'}": asks_tls,
        f"it may ask over TLS, since its lockfile has {', '.join(may_ask)}: then take `--with ca-certificates`": may_ask
        and not asks_tls,
        "it tells local time: take `--with tzdata`; without that all times are UTC": crate.found(_LOCAL_TIME),
        "it writes temporary files: take `--with tmp`; scratch has no folder /tmp": crate.found(_TEMPORARY),
        'it looks for a home folder, which its user in the image lacks: `environment = { HOME = "/home/app" }` and '
        '`writable = ["/home/app"]` there give it one': crate.found(_HOME),
        f"it looks for files beside itself: places in `files` then begin with /{program}/": crate.found(_BESIDE),
        f"its sources call {', '.join(calls)} when it runs, which the lab's images lack: `--base debian=IMAGE` takes "
        "one that has it; let the check call it": calls,
    }


def _asks_git(crate: Crate) -> bool:
    """Whether the build asks git for a revision, which is "unknown" in most programs where there is no repository."""
    of_build = crate.dependencies("build")
    for each in [*of_build, *crate.dependencies()]:
        by_feature = each["name"] in KNOWN["git_crates"]["by_feature"] and re.search(r"git|gix", str(each["features"]))
        if by_feature or each["name"] in KNOWN["git_crates"]["names"]:
            return True
    if {each["name"] for each in of_build} & {"git2", "gix"}:
        return True
    return "git" in crate.called_in_build() or bool(crate.found(_OF_GIT))
