"""A crate -> the `lab.toml` that `init` proposes, from what cargo and the crate's sources say.

Nothing but `lab.toml` is ever written to an app's folder.
"""

import functools
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rustimg_lab.build import (
    cargo_config,
    cargo_metadata,
    crate_allocators,
    crate_dockerfile,
    crate_embedded,
    crate_files,
    crate_image,
    crate_packages,
    crate_server,
    crate_settings,
    lab_toml,
    sources,
)
from rustimg_lab.build import crate as crates
from rustimg_lab.build.cargo_config import brings, without
from rustimg_lab.build.crate import READER, Crate
from rustimg_lab.build.known import KNOWN, SOURCES, TEMPLATES
from rustimg_lab.errors import LabError, check_known
from rustimg_lab.host.files import write_whole
from rustimg_lab.model.bases import RUST_VERSION

# A variable that neither cargo nor the usual crates set.
_VARIABLE_NAME = (
    r"(?!(?:CARGO|RUST|DEP|VERGEN|SOURCE_DATE_EPOCH|OUT_DIR|TARGET|HOST|PROFILE|OPT_LEVEL|NUM_JOBS|DEBUG|DOCS_RS|PATH|HOME|"
    r"CC|CFLAGS|AR)\b|CARGO_|RUSTC|RUSTDOC|DEP_|VERGEN_)(\w+)"
)
_BUILD_VARIABLE = re.compile(r'\b(?:option_|dot)?env!\(\s*"' + _VARIABLE_NAME + r"\b(?![./-])")  # and no path
_READ_BY_SCRIPT = re.compile(rf'(?:(?<!\.)\b{READER}\(\s*"|rerun-if-env-changed=)' + _VARIABLE_NAME + r"\b(?![./-])")
_UNSTABLE = re.compile(r"(?m)^#!\[feature\(([\w,\s]+)\)")
_QUERY = re.compile(r"\bquery(?:_as|_scalar)?!\(")
_ABOVE = re.compile(r'"(?:cargo::?rerun-if-changed=)?(\.\./[^"\\\n{}]+)"')
_SET_BY_SCRIPT = re.compile(r"rustc-env=(\w+)")
_ARGUMENTS = re.compile(r"\benv::args(?:_os)?\b")
# What stops a build, by features alone or with what the system is, and what it says then.
_STOPS = re.compile(
    r"""(#!?\[cfg\((?=[^\]]*\bfeature\b)(?:[(),\s]|\b(?:all|any|not|unix|windows|test|debug_assertions|(?:feature|target_\w+)\s*"""
    r"""=\s*"[^"]*")(?!\w))*\])\s*\{?\s*(?:(?:std|core)::)?compile_error!\s*[({]\s*r?#*"((?:[^"\\]|\\[\s\S])*)\""""
)
_MOST_NAMES = 5  # in a note
_OF_GIT = re.compile(r'\bgit_version!|"[^"]*\.git/')


def init(directory: Path, binary: str, builder: Callable[[], str]) -> tuple[Path, list[str]]:
    """Write a `lab.toml` to a folder (absolute) from what cargo says of the crate there; returns its path, and a line
    on each thing that the user should know.

    Cargo is this machine's; where it has none, that of the image `builder()`. Raises LabError when there is a
    `lab.toml`, when cargo cannot read the crate, or when it has several binaries and none is named: they are listed.
    """
    path = lab_toml.beside_manifest(directory)
    if os.path.lexists(path):
        raise LabError(f"{path} is there already; edit it, or move it away")
    root = cargo_config.workspace_root(directory)
    told = cargo_metadata.read(root, directory, builder)
    here = [each for each in told["packages"] if crates.folder_of(each) == directory]
    members = told.get("workspace_default_members", [])
    usual = here or [each for each in told["packages"] if each["id"] in members]
    package, target = _chosen(directory, binary, told["packages"] if directory == root else here, usual)

    def described(folder: Path) -> list[dict[str, Any]]:
        if folder == directory:
            return told["packages"]
        with suppress(LabError):  # of a dependency, what cargo cannot read, the build will say
            return cargo_metadata.read(cargo_config.workspace_root(folder), folder, builder)["packages"]
        return []

    crate = crates.read(root, directory, package, target, described)
    named = "" if len(told["packages"]) == 1 and here else package["name"]
    text, notes = proposal(crate, named)
    write_whole(path, text)
    try:
        lab_toml.load(directory)
    except LabError as error:  # what the user has to do before a build
        notes.append(str(error))
    notes += _in_member(directory, crates.folder_of(package))
    links = [each for each in sources.walk(root) if sources.leads_out(root, each)]
    return path, notes + [sources.why_missing(root, each) for each in links[:3]]


def _in_member(directory: Path, folder: Path) -> list[str]:
    """A line on what cargo reads below a folder only where it is called there, in which a package is."""
    inner = [each for each in (folder, *folder.parents) if each != directory and each.is_relative_to(directory)]
    own = [path for path in cargo_config.files(folder) if path.parent.parent in inner]
    found = [str(path.relative_to(directory)) for path in [*own, *cargo_config.toolchain_files(inner)]]
    read = f"cargo reads {', '.join(found)} only where it is called there: `./lab init {folder}` does that"
    return [read] if found else []


def _chosen(
    directory: Path, binary: str, packages: list[dict[str, Any]], usual: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The package and the binary that are meant; where none is named, one that cargo builds then: of its packages, and
    with the features that they have by default, unless each binary needs another."""
    found = [(package, each) for package in packages for each in package["targets"] if "bin" in each["kind"]]
    if not found:
        examples = [each["name"] for package in packages for each in package["targets"] if "example" in each["kind"]]
        way = f"; of the example {examples[0]} a [[bin]] in Cargo.toml makes one" if examples else ""
        raise LabError(f"{directory}: no package there has a binary{way}")
    if not binary:
        found = [each for each in found if each[0] in usual] or found
    defaults = {package["default_run"] for package, _ in found if package.get("default_run")}
    if not binary and not defaults:
        built = [each for each in found if crates.turned_on(each[0], []) >= {*each[1].get("required-features", [])}]
        found = built or found
    names = dict.fromkeys(target["name"] for _, target in found)
    chosen = binary or (next(iter(names)) if len(names) == 1 else next(iter(defaults)) if len(defaults) == 1 else "")
    if not chosen:
        raise LabError(f"{directory}: several binaries, choose one with --binary NAME: {', '.join(names)}")
    check_known("binary", chosen, names)
    fitting = [(package, target) for package, target in found if target["name"] == chosen]
    if len(fitting) > 1:
        folders = ", ".join(str(crates.folder_of(package)) for package, _ in fitting)
        raise LabError(f"several packages have a binary '{chosen}'; call init with the folder of one: {folders}")
    return fitting[0]


def proposal(crate: Crate, named: str) -> tuple[str, list[str]]:
    """Return the file's text, and what the user should know. An allocator that is on by default is so for its own cells
    only; `named` is the package where the file has to name it."""
    features, found = crate.package["features"], crate_allocators.by_feature(crate)
    defaults = features.get("default", [])
    is_moved = any(brings(features, each) & set(found.values()) for each in defaults)
    kept = without(features, defaults, set(found.values())) if is_moved else defaults
    lost = [each for each in defaults if is_moved and each.startswith("dep:")]
    needed = {*crate.target.get("required-features", [])}.difference(*(brings(features, each) for each in kept))
    on = set().union({"default"} if kept == defaults else (), *(brings(features, each) for each in (*kept, *needed)))
    configuration = cargo_config.read(list(cargo_config.files(crate.directory)))
    manifest = cargo_config.parsed(crate.root / "Cargo.toml")
    placed, left_out = crate_files.placed(crate)
    settings = crate_settings.read([crate.directory / each for each in placed])
    told = {
        "package": named,
        "binary": crate.target["name"],
        "features": (kept if kept != defaults else []) + sorted(needed),
        "default_features": kept == defaults,
        "packages": crate_packages.packages(crate, configuration),
        "git": (asks_git := _asks_git(crate)) and (crate.root / ".git").is_dir(),
        "outside": (outside := _outside(crate)),
        "context": os.path.relpath(os.path.commonpath([crate.root, *outside]), crate.directory),
        "is_offline": _has_queries(crate),
        "profiles": _profiles(manifest, configuration),
        "variables": _variables(crate, configuration),
        "own_allocator": crate_allocators.has_own(crate, on, configuration),
        "allocators": found,
        "services": _services(crate),
        "files": placed,
        "writable": crate_files.writable(crate, settings),
        "starts": _starts(crate) or "--version",
        "serve": crate_server.serve(crate, settings),
    }
    notes = _notes(crate, told) | {
        **_only_there(crate, configuration),
        f"its default features turn on {', '.join(lost)}, which no option can: the cells without those lack it": lost,
        _no_repository(crate): asks_git and not told["git"],
        "`packages` there is by the lockfile, which has all features; after `cargo fetch --locked` init knows which of "
        "them are on": shutil.which("cargo") and not crate.tree and crate.locked.keys() & crate_packages.NEEDING,
        **_stops(crate, on),
        **crate_image.looks_for(crate, bool(told["serve"])),
    }
    text = TEMPLATES.get_template("lab.toml.j2").render(told)
    return text, [note for note, holds in notes.items() if holds] + left_out + crate_embedded.lacks(crate)


def _notes(crate: Crate, told: dict[str, Any]) -> dict[str, object]:
    """What to know of what is proposed, and whether it holds."""
    services, variables = ", ".join(told["services"]), ", ".join(told["variables"])
    calls = crate_packages.unknown(crate)
    is_tool, of_image = not crate_server.is_server(crate), crate_dockerfile.says(crate, told)
    set_there = {*told["variables"], *told["serve"].get("environment", ())}
    unset = [each for each in _of_dotenv(crate) if each not in set_there]
    targets = [(each["name"], target) for each in crate.linked for target in each["targets"]]
    beside = [name for name, target in targets if {*target["kind"]} & {"dylib", "lib", "rlib"} == {"dylib"}]
    outside = _some([*dict.fromkeys(told["outside"].values())])
    begins = sorted({prefix for prefix, _ in crate_settings.prefixes(crate) if prefix})
    is_refused = len(told["outside"]) == 1 and not outside.startswith("../")  # with the words of that
    return {
        f"builds do not get {outside}, outside of {crate.root}: "
        f'`context = "{told["context"]}"` there sends them': outside and not is_refused,
        f'its library {_some(beside)} is a dylib, which no image has beside it: crate-type = ["rlib"] puts it into the '
        "program": beside,
        f"it seems to use {services}: see [[services]] there": services,
        f"its build calls {_some(calls)}, which the builder may lack: `packages` there is for what has it": calls,
        f"its sources read {variables} when they are compiled: see `build_environment` there": variables,
        f"its own Dockerfile has {_some(of_image)}: see what of it is missing there": of_image,
        f"no image has its .env: `environment` there gives {_some(unset)} to the program": unset,
        f"its sources read all variables that begin with {', '.join(begins)}: `environment` there gives those that it "
        "needs": begins,
        **crate_image.in_build_folder(crate, told["files"]),
        **crate_server.notes(crate, told["serve"]),
        "it reads arguments, and seems not to know --version: write a call that it knows into [check] there": is_tool
        and not _starts(crate)
        and crate.found(_ARGUMENTS),
    }


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _profiles(*settings: dict[str, Any]) -> list[str]:
    """The profiles of the crate's own, by its manifest and its configuration."""
    return sorted(set().union(*(each.get("profile", {}) for each in settings)) - lab_toml.CARGOS_PROFILES)


def _outside(crate: Crate) -> dict[Path, str]:
    """What builds do not get: dependencies by path, and what is above the crate where a build script reads it, or the
    compiler puts it into the program; the name of each by its place."""
    depended = cargo_config.path_dependencies([crate.root, crate.directory])
    found = {sources.real(folder): name for _, name, folder in depended if sources.why_missing(crate.root, folder)}
    named = [(each, name) for each in sorted(crate.scripts) for name in _ABOVE.findall(crate.texts[each])]
    named = [(crates.folder_of(crate.package_of(script)), name) for script, name in named]
    for folder, name in named + [named[1:] for named in crate_embedded.included(crate)]:
        path = sources.real(folder / name)
        if path.exists() and not path.is_relative_to(crate.root) and ".git" not in path.parts:
            found.setdefault(path, name)
    return found


def _has_queries(crate: Crate) -> bool:
    """Whether the answers of sqlx's database to its macros are committed, for a program that asks it."""
    own = [crates.folder_of(each) for each in (crate.package, *crate.linked)]
    folders = (crate.root, crate.directory, *own) if "sqlx" in crate.uses() else ()
    return any((folder / name).exists() for folder in folders for name in (".sqlx", "sqlx-data.json"))


def _stops(crate: Crate, on: set[str]) -> dict[str, object]:
    """What to know of the first `compile_error!` that ends a build with these features of the crate."""
    own = [text for path, text in crate.texts.items() if crate.package_of(path) is crate.package]
    said = [
        said for text in own for condition, said in _STOPS.findall(text) if crate_allocators.holds_here(condition, on)
    ]
    first = " ".join(re.sub(r"\\n|\\\s*", " ", said[0]).split())[:200] if said else ""
    return {f'a build with these features stops: "{first}"; `features` there takes others': first}


def _only_there(crate: Crate, configuration: dict[str, Any]) -> dict[str, object]:
    """What to know of a build that works on some machines only, and whether it holds."""
    nightly = ["[unstable] of its cargo configuration"] if "unstable" in configuration else []
    if not configuration.get("env", {}).get("RUSTC_BOOTSTRAP"):  # with it a stable compiler takes them
        nightly += [f"#![feature({name})]" for name in crate.found(_UNSTABLE)]
    for path in dict.fromkeys([crate.root / "Cargo.toml", Path(crate.package["manifest_path"])]):
        if names := cargo_config.parsed(path).get("cargo-features"):
            nightly.append(f"cargo-features = {names}")
    above = next(iter(cargo_config.toolchain_files(crate.root.parents)), None)
    within = [each for each in (crate.directory, *crate.directory.parents) if each.is_relative_to(crate.root)]
    own = cargo_config.toolchain_files(within)
    others = crate.other_mains()
    asks_database = "sqlx" in crate.uses() and crate.found(_QUERY)
    asked, lacks = crate.package.get("rust_version") or "0", _some(crate_packages.not_locked(crate))
    newer = [*map(int, asked.split(".")[:2])] > [*map(int, RUST_VERSION.split("."))]
    return {
        f"it asks for Rust {asked}, the lab's builder has {RUST_VERSION}: --base rust=IMAGE takes a newer one": newer,
        f"its Cargo.lock lacks {lacks}, which a Cargo.toml names: `cargo update --workspace` renews it": lacks,
        f"it needs a nightly compiler ({', '.join(nightly)}): --base rust=IMAGE takes a builder that has one": nightly,
        "its cargo configuration compiles for the machine that builds (target-cpu=native): its image may not start on "
        "another": "target-cpu=native" in str(configuration),
        f"rustup reads {above} here, which builds do not get: a copy in {crate.root} holds for them too": above
        and not own,
        f"its main is another one with the feature {', '.join(others)}: `features` there takes it": others,
        "its sources ask a database when they are compiled (sqlx): commit the folder .sqlx that `cargo sqlx prepare` "
        "writes": asks_database and not _has_queries(crate),
    }


@functools.cache
def _starts(crate: Crate) -> str:
    """The argument with which a tool ends at once; "" where its sources tell none."""
    if crate.found(SOURCES["version"]):
        return "--version"
    return "--help" if crate.uses() & set(KNOWN["parser_crates"]["names"]) else ""


def _variables(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """The variables that the sources read when they are compiled, and that nothing of the project sets. A build script
    that sets one may take its value from the environment."""
    of_script = [name for text in crate.script() for name in _READ_BY_SCRIPT.findall(text)]
    given = {*crate.found(_SET_BY_SCRIPT, True)}.difference(of_script).union(configuration.get("env", {}))
    return [each for each in dict.fromkeys([*crate.found(_BUILD_VARIABLE, True), *of_script]) if each not in given]


def _no_repository(crate: Crate) -> str:
    """What to know of a build that asks git for a revision, where builds do not get a repository."""
    said = f"its build asks git for a revision, and {crate.root} has no folder .git"
    top = next((each for each in (crate.root, *crate.root.parents) if (each / ".git").exists()), None)
    if top and (top / ".git").is_file():
        return f"{said}: that of a worktree or a submodule is a file; `git clone {top} FOLDER` makes one with a folder"
    way = top and f'; context = "{os.path.relpath(top, crate.directory)}" and git = true send it that of {top}'
    return f"{said}{way or ''}"


def _services(crate: Crate) -> dict[str, dict[str, Any]]:
    """What the dependencies talk to, by its name, with what a container of it takes."""
    words = "\n".join(word for each in crate.dependencies() for word in (each["name"], *each.get("features", [])))
    return {name: each for name, each in KNOWN["services"].items() if re.search(each["crates"], words, re.MULTILINE)}


def _of_dotenv(crate: Crate) -> list[str]:
    """The variables that the sources name and that a program finds in its file .env, by that or by an example of it."""
    names = (".env", ".env.example", ".env.sample", ".env.template")
    file = next((path for name in names if (path := crate.directory / name).is_file()), None)
    if not file or not crate.uses() & {"dotenv", "dotenvy"}:
        return []
    there = re.findall(r"(?m)^\s*(?:export\s+)?(\w+)\s*=", file.read_text(encoding="utf-8", errors="replace"))
    return [each for each in there if any(f'"{each}"' in text for text in crate.program())]


def _asks_git(crate: Crate) -> bool:
    """Whether the build asks git for a revision, which is "unknown" in most programs where there is no repository."""
    known, of_build = KNOWN["git_crates"], crate.dependencies("build")
    asks = any(
        each["name"] in known["names"]
        or (each["name"] in known["by_feature"] and re.search(r"git|gix", str(each["features"])))
        for each in [*of_build, *crate.dependencies()]
    )
    reads = {each["name"] for each in of_build} & {"git2", "gix"}
    walks = any('".git"' in text for text in crate.script())  # a program may only skip such folders
    return bool(asks or reads or walks or "git" in crate.called_in_build() or crate.found(_OF_GIT, True))
