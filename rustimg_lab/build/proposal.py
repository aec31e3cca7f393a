"""A crate -> the `lab.toml` that `init` proposes, from what cargo and the crate's sources say.

Nothing but `lab.toml` is ever written to an app's folder.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, cargo_metadata, lab_toml, sources
from rustimg_lab.build.cargo_config import brings, without
from rustimg_lab.build.cargo_metadata import belongs
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
_BUILD_FOLDER = re.compile(r'(?<!include_str!\(concat!\()(?<!include_bytes!\(concat!\()env!\(\s*"CARGO_MANIFEST_DIR"')
_BUILD_FOLDER_NOTE = (
    'its sources name CARGO_MANIFEST_DIR, the folder of the build, which no image has: `files = { "assets" = '
    '"/src/assets" }` there places what the program reads in it'
)
_SERVER = re.compile(r"TcpListener|TcpSocket|\bHttpServer\b|axum::|\bserve\(")
_VARIABLE = re.compile(r'\b(?:var(?:_os)?\(|env(?:\(|\s*=))\s*"(\w+)"')
_SET_BY_SCRIPT = re.compile(r"rustc-env=(\w+)")
_CALLED = re.compile(r'(?<!clap::)\b(?:Std|Process|Tokio)?Command::new\(\s*"([\w.+-]+)"')
# A module that calls programs, and what no Linux has. clap's `Command::new` names a subcommand.
_PROCESS = re.compile(r"\bprocess::(?:\{[^}]*\b)?Command\b")
_OTHER_SYSTEMS = {"cmd", "cmd.exe", "powershell", "powershell.exe", "explorer", "open", "dscl", "osascript", "reg"}
_BESIDE = re.compile(r"\bcurrent_exe\((?s:.){1,300}?\.(?:parent|with_file_name|pop|set_file_name)\(")
_HOME = re.compile(r'\bhome_dir\(|\b(?:dirs|dirs_next|directories|etcetera|xdg)::|\b(?:Project|Base)Dirs\b|"HOME"')
_TEMPORARY = re.compile(r'\btemp_dir\(|\btempfile::|\btempdir\(|"/tmp\b')
_LOCAL_TIME = re.compile(r"\bLocal::now\(|\bnow_local\(|\blocaltime_r\(|\bZoned::now\(|\bTimeZone::(?:system|get)\(")
_OF_GIT = re.compile(r'\bgit_version!|"[^"]*\.git/')
_SOURCES = {name: re.compile(pattern) for name, pattern in KNOWN["sources"].items()}
# Comments, and unit tests.
_COMMENT = re.compile(
    r"(?m)^\s*//.*$|^\s*/\*(?s:.*?)\*/|^#\[cfg\(test\)\]\s*mod\s+\w+\s*\{(?:.*\}[ \t]*$|(?s:.*?)^\}|(?s:.*))"
)
# What only the compiler reads; then a relative path that a call or a constant names, which no table of known names has,
# and a bare word where something is opened, which is no name of a flag.
_COMPILED = re.compile(r'#!?\[(?![^\]]*default_value)[^\]]*\]|\b(?:include\w*|\w*env|migrate|embed\w*)!\s*\(\s*"[^"]*"')
_PATH = re.compile(r'(?:[\w!>]\(|[=>\[,:]|\|\w*\|)\s*"(?:\./)?(\w[\w.-]*\.\w+(?=")|\w[\w.-]*(?=/))')
_OPENED = re.compile(
    r'(?:(?:dir|open|loader|(?<!Arg)(?<!App)(?<!Command)::new|::from|with_name|\.join|unwrap_or\w*)\(\s*(?:"[^"]*",\s*|\|\w*\|\s*)?'
    r'|&(?:\'static )?str\s*=\s*)"(?:\./)?(\w[\w-]*)"'
)
_NOT_READ = re.compile(r"src|docs?|target|tests|benches|examples|Cargo.*|[A-Z_-]+(?:\.\w+)?")


@dataclass(frozen=True)
class Crate:
    """What a proposal is made of: the package and its binary as cargo describes them, the crate's folder and that of
    its workspace, and the texts of its sources by path."""

    package: dict[str, Any]
    target: dict[str, Any]
    directory: Path
    root: Path
    texts: dict[Path, str]

    def found(self, pattern: re.Pattern) -> list[str]:
        """What a pattern finds in the sources, each once."""
        return list(dict.fromkeys(each for text in self.texts.values() for each in pattern.findall(text)))


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
    package, target = _chosen(directory, binary, told["packages"] if directory == root else here)
    crate = Crate(package, target, directory, root, _texts(root, package, target["name"]))
    named = "" if len(told["packages"]) == 1 and here else package["name"]
    text, notes = proposal(crate, named)
    write_whole(path, text)
    try:
        lab_toml.load(directory)
    except LabError as error:  # what the user has to do before a build
        notes.append(str(error))
    links = [each for each in sources.walk(root) if sources.leads_out(root, each)]
    return path, notes + [sources.why_missing(root, each) for each in links[:3]]


def _chosen(directory: Path, binary: str, packages: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The package and the binary that are meant."""
    found = [(package, each) for package in packages for each in package["targets"] if "bin" in each["kind"]]
    if not found:
        raise LabError(f"{directory}: no package there has a binary")
    names = dict.fromkeys(target["name"] for _, target in found)
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


def proposal(crate: Crate, named: str = "") -> tuple[str, list[str]]:
    """Return the file's text, and what the user should know. An allocator that is on by default is so for its own cells
    only; `named` is the package where the file has to name it."""
    features, found = crate.package["features"], _allocators(crate)
    defaults = features.get("default", [])
    kept = without(features, defaults, set(found.values()))
    needed = {*crate.target.get("required-features", [])}.difference(*(brings(features, each) for each in kept))
    configuration = cargo_config.read(list(cargo_config.files(crate.directory)))
    outside = [name for _, name, folder in cargo_config.path_dependencies([crate.root, crate.directory])
               if sources.why_missing(crate.root, folder)]  # fmt: skip
    manifest = cargo_config.parsed(crate.root / "Cargo.toml")
    variables = _variables(crate, configuration)
    uses = set(_dependencies(crate.package))
    is_server = crate.found(_SERVER) or uses & set(KNOWN["server_crates"]["names"])
    serve = _serve(crate, uses) if is_server else {}
    asks_tls, parses = (uses & set(KNOWN[kind]["names"]) for kind in ("tls_client_crates", "parser_crates"))
    services, asks_git, has_git = _services(crate.package), _asks_git(crate), (crate.root / ".git").is_dir()
    notes = {
        f"it seems to use {', '.join(services)}: see [[services]] there": services,
        f"its sources read {', '.join(variables)} when they are compiled: see `build_environment` there": variables,
        _BUILD_FOLDER_NOTE: crate.found(_BUILD_FOLDER),
        "it looks like a server: fill in [serve]; until then its check shows only a start": is_server and not serve,
        "it has no crate tonic-health: that it answers is checked, and not its health": serve.get("http") == 2,
        _no_repository(crate): asks_git and not has_git,
        **_looks_for(crate, bool(asks_tls and not serve)),
    }
    placed, left_out = _files(crate)
    text = TEMPLATES.get_template("lab.toml.j2").render(
        package=named,
        binary=crate.target["name"],
        features=(kept if kept != defaults else []) + sorted(needed),
        default_features=kept == defaults,
        packages=_packages(crate, configuration),
        git=asks_git and has_git,
        outside=outside,
        profiles=sorted(manifest.get("profile", {}).keys() - lab_toml.CARGOS_PROFILES),
        variables=variables,
        own_allocator=_has_allocator(crate),
        allocators=found,
        services=services,
        files=placed,
        starts="--help" if parses and not crate.found(_SOURCES["version"]) else "--version",
        serve=serve,
    )
    return text, [note for note, holds in notes.items() if holds] + left_out


def _variables(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """The variables that the sources read when they are compiled, and that nothing of the project sets."""
    given = {*crate.found(_SET_BY_SCRIPT), *configuration.get("env", {})}
    of_script = [name for text in _texts_of(crate, script=True) for name in _READ_BY_SCRIPT.findall(text)]
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


def _services(package: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the dependencies talk to, by its name, with what a container of it takes."""
    own = [each for each in package["dependencies"] if not each.get("kind")]
    words = "\n".join(word for each in own for word in (each["name"], *each.get("features", [])))
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
    return {port[0]: "{port}"} | {name: "{host}" for name in [each for each in host if each not in port][:1]}


def _files(crate: Crate) -> tuple[dict[str, str], list[str]]:
    """Return the files and folders that the sources name by a relative path, by their source: the crate's own, or the
    workspace's, in whose folder cargo runs a program too; and a line on each that builds do not get. The build script
    is left out."""
    told = [_COMPILED.sub("", text) for text in _texts_of(crate, script=False)]
    names = sorted({name for text in told for pattern in (_PATH, _OPENED) for name in pattern.findall(text)})
    there, left_out = {}, []
    for name in [name for name in names if not _NOT_READ.fullmatch(name)]:
        for path in (crate.root / name, crate.directory / name):
            if path.exists() and not (path / "Cargo.toml").exists():
                if reason := sources.why_missing(crate.root, path):
                    left_out.append(f"its sources name {name}: {reason}")
                else:
                    there[name] = os.path.relpath(path, crate.directory)
    return {source: name for name, source in there.items()}, list(dict.fromkeys(left_out))


def _packages(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """Return the Debian packages of what the cargo configuration names, of what the build script calls, and of what
    locked crates call or link in a build. git comes with `git = true`."""
    lock = crate.root / "Cargo.lock"
    named = {name for target in TARGETS for name in cargo_config.tools(configuration, target)} | _called(crate)
    packages = {KNOWN["programs"][name] for name in named - {"git"} if name in KNOWN["programs"]}
    locked = {each["name"] for each in cargo_config.parsed(lock).get("package", [])} if lock.is_file() else set()
    needing = {name for name in locked & set(KNOWN["build_crates"]) if not locked & set(KNOWN["brought"].get(name, ()))}
    return sorted(packages.union(*(KNOWN["build_crates"][name] for name in needing)))


def _called(crate: Crate) -> set[str]:
    """The programs that the build script calls by their names."""
    return {name for text in _texts_of(crate, script=True) for name in _CALLED.findall(text)}


def _texts_of(crate: Crate, script: bool) -> list[str]:
    """The texts of the build script, or of all but it."""
    return [text for path, text in crate.texts.items() if belongs(path, crate.package, {"custom-build"}) == script]


def _looks_for(crate: Crate, asks_tls: bool) -> dict[str, object]:
    """What to know of a program that looks for something in its image, and whether it holds."""
    calls, program = _calls(crate), crate.target["name"]
    return {
        "it asks over TLS: take `--with ca-certificates`, and a check that fetches": asks_tls,
        "it tells local time: take `--with tzdata`; without that all times are UTC": crate.found(_LOCAL_TIME),
        "it writes temporary files: take `--with tmp`; scratch has no folder /tmp": crate.found(_TEMPORARY),
        'it looks for a home folder, which its user in the image lacks: `environment = { HOME = "/home/app" }` and '
        '`writable = ["/home/app"]` there give it one': crate.found(_HOME),
        f"it looks for files beside itself: places in `files` then begin with /{program}/": crate.found(_BESIDE),
        f"its sources call {', '.join(calls)} when it runs, which the lab's images lack: `--base debian=IMAGE` takes "
        "one that has it; let the check call it": calls,
    }


def _calls(crate: Crate) -> list[str]:
    """The programs that the program calls by their names when it runs."""
    texts = _texts_of(crate, script=False)
    names = {name for text in texts if _PROCESS.search(text) for name in _CALLED.findall(text)}
    return sorted(names - _OTHER_SYSTEMS - {crate.package.get("name"), crate.target["name"]})


def _asks_git(crate: Crate) -> bool:
    """Whether the build asks git for a revision, which is "unknown" in most programs where there is no repository."""
    for each in crate.package["dependencies"]:
        by_feature = each["name"] in KNOWN["git_crates"]["by_feature"] and re.search(r"git|gix", str(each["features"]))
        if each.get("kind") != "dev" and (by_feature or each["name"] in KNOWN["git_crates"]["names"]):
            return True
    return "git" in _called(crate) or bool(crate.found(_OF_GIT))


def _texts(root: Path, package: dict[str, Any], binary: str) -> dict[Path, str]:
    """The Rust sources of a binary by path, without comments and unit tests: of its package, without tests, benches,
    examples and other binaries, and of the libraries that this depends on by their path."""
    folder, apart = Path(package["manifest_path"]).parent, {"test", "bench", "example"}
    walked = [root / each for each in sources.walk(root)]
    crates = {path.parent for path in walked if path.name == "Cargo.toml"} | {folder}
    depended = {path for _, _, path in cargo_config.path_dependencies([folder])}
    others = [Path(each["src_path"]) for each in package["targets"] if "bin" in each["kind"] and each["name"] != binary]
    folders = [each.parent for each in others if each.name == "main.rs" and each.parent.parent.name == "bin"]
    texts = {}
    for path in (path for path in walked if path.suffix == ".rs" and path.is_file()):
        crate = next((each for each in path.parents if each in crates), root)
        is_other = path in others or any(map(path.is_relative_to, folders)) or belongs(path, package, apart)
        if (crate == folder and not is_other) or (crate in depended and path.is_relative_to(crate / "src")):
            texts[path] = _COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace"))
    return texts
