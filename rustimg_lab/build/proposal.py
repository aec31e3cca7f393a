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
from rustimg_lab.build.cargo_config import drop_features, expand
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
_MOST_NAMES = 5  # in a note
_OF_GIT = re.compile(r'\bgit_version!|"[^"]*\.git/')


def init(directory: Path, binary: str, builder: Callable[[], str]) -> tuple[Path, list[str]]:
    """Write a `lab.toml` to a folder (absolute) from what cargo reports of the crate there. Returns its path, and a
    line on each thing that the user should know. cargo is this machine's, or else that of the image `builder()`. Raises
    LabError when there is a `lab.toml` or cargo cannot read the crate. Several binaries without a name in `binary` are
    an error too, which lists them."""
    path = lab_toml.find_lab_toml(directory)
    if os.path.lexists(path):
        raise LabError(f"{path} is there already; edit it, or move it away")
    root = cargo_config.workspace_root(directory)
    metadata = cargo_metadata.read(root, directory, builder)
    packages = [package for package in metadata["packages"] if crates.folder_of(package) == directory]
    members = metadata.get("workspace_default_members", [])
    defaults = packages or [package for package in metadata["packages"] if package["id"] in members]
    package, target = _choose_binary(
        directory, binary, metadata["packages"] if directory == root else packages, defaults
    )

    def described(folder: Path) -> list[dict[str, Any]]:
        if folder == directory:
            return metadata["packages"]
        with suppress(LabError):  # of a dependency, what cargo cannot read, the build will say
            return cargo_metadata.read(cargo_config.workspace_root(folder), folder, builder)["packages"]
        return []

    crate = crates.read(root, directory, package, target, described)
    package_name = "" if len(metadata["packages"]) == 1 and packages else package["name"]
    text, notes = proposal(crate, package_name)
    write_whole(path, text)
    try:
        lab_toml.load(directory)
    except LabError as error:  # what the user has to do before a build
        notes.append(str(error))
    notes += _member_notes(directory, crates.folder_of(package))
    links = [link for link in sources.walk(root) if sources.leads_out(root, link)]
    return path, notes + [sources.why_missing(root, link) for link in links[:3]]


def _member_notes(directory: Path, folder: Path) -> list[str]:
    """A line on what cargo reads below a folder only where it is called there, in which a package is."""
    folders = [path for path in (folder, *folder.parents) if path != directory and path.is_relative_to(directory)]
    configs = [path for path in cargo_config.files(folder) if path.parent.parent in folders]
    files = [str(path.relative_to(directory)) for path in [*configs, *cargo_config.toolchain_files(folders)]]
    note = f"cargo reads {', '.join(files)} only where it is called there: `./lab init {folder}` does that"
    return [note] if files else []


def _choose_binary(
    directory: Path, binary: str, packages: list[dict[str, Any]], default_packages: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the package and the binary that are meant. Without a name, that is the one that cargo builds by default,
    with default features unless each binary needs others. Raises LabError when there is no binary, several, or none of
    that name."""
    bins = [(package, target) for package in packages for target in package["targets"] if "bin" in target["kind"]]
    if not bins:
        examples = [
            target["name"] for package in packages for target in package["targets"] if "example" in target["kind"]
        ]
        hint = f"; of the example {examples[0]} a [[bin]] in Cargo.toml makes one" if examples else ""
        raise LabError(f"{directory}: no package there has a binary{hint}")
    if not binary:
        bins = [pair for pair in bins if pair[0] in default_packages] or bins
    defaults = {package["default_run"] for package, _ in bins if package.get("default_run")}
    if not binary and not defaults:
        buildable = [
            pair for pair in bins if crates.enabled_features(pair[0], []) >= {*pair[1].get("required-features", [])}
        ]
        bins = buildable or bins
    names = dict.fromkeys(target["name"] for _, target in bins)
    chosen = binary or (next(iter(names)) if len(names) == 1 else next(iter(defaults)) if len(defaults) == 1 else "")
    if not chosen:
        raise LabError(f"{directory}: several binaries, choose one with --binary NAME: {', '.join(names)}")
    check_known("binary", chosen, names)
    matches = [(package, target) for package, target in bins if target["name"] == chosen]
    if len(matches) > 1:
        folders = ", ".join(str(crates.folder_of(package)) for package, _ in matches)
        raise LabError(f"several packages have a binary '{chosen}'; call init with the folder of one: {folders}")
    return matches[0]


def proposal(crate: Crate, package_name: str) -> tuple[str, list[str]]:
    """Return the text of the file, and lines that the user should know. An allocator that is on by default is on only
    in its own cells. `package_name` is the package where the file has to name it; else it is empty."""
    features, allocators = crate.package["features"], crate_allocators.allocator_features(crate)
    defaults = features.get("default", [])
    is_moved = any(expand(features, feature) & set(allocators.values()) for feature in defaults)
    base = drop_features(features, defaults, set(allocators.values())) if is_moved else defaults
    lost = [feature for feature in defaults if is_moved and feature.startswith("dep:")]
    extra = {*crate.target.get("required-features", [])}.difference(*(expand(features, name) for name in base))
    active = set().union({"default"} if base == defaults else (), *(expand(features, name) for name in (*base, *extra)))
    configuration = cargo_config.read(list(cargo_config.files(crate.directory)))
    manifest = cargo_config.read_cargo_toml(crate.root / "Cargo.toml")
    files, omissions = crate_files.placed_files(crate)
    settings = crate_settings.read(crate_files.configuration_files(crate, files))
    values = {
        "package": package_name,
        "binary": crate.target["name"],
        "features": (base if base != defaults else []) + sorted(extra),
        "default_features": base == defaults,
        "packages": crate_packages.packages(crate, configuration),
        "git": (asks_git := _asks_git(crate)) and (crate.root / ".git").is_dir(),
        "outside": (outside_paths := _paths_outside(crate)),
        "context": os.path.relpath(os.path.commonpath([crate.root, *outside_paths]), crate.directory),
        "is_offline": _has_queries(crate),
        "profiles": _profiles(manifest, configuration),
        "variables": _variables(crate, configuration),
        "own_allocator": crate_allocators.has_own_allocator(crate, active, configuration),
        "allocators": allocators,
        "services": _services(crate),
        "files": files,
        "writable": crate_files.writable_folders(crate, settings),
        "starts": _start_argument(crate) or "--version",
        "serve": crate_server.serve(crate, settings),
    }
    notes = _notes(crate, values) | {
        **_machine_notes(crate, configuration),
        f"its default features turn on {', '.join(lost)}, which no option can: the cells without those lack it": lost,
        _repository_note(crate): asks_git and not values["git"],
        "`packages` there is by the lockfile, which has all features; after `cargo fetch --locked` init knows which of "
        "them are on": shutil.which("cargo") and not crate.tree and crate.locked.keys() & crate_packages.NEEDING,
        **_compile_error_notes(crate, active),
        **crate_image.lookup_notes(crate, bool(values["serve"])),
    }
    text = TEMPLATES.get_template("lab.toml.j2").render(values)
    return text, [note for note, holds in notes.items() if holds] + omissions + crate_embedded.missing_files(crate)


def _notes(crate: Crate, values: dict[str, Any]) -> dict[str, object]:
    """What to know of what is proposed, and whether it holds."""
    services, variables = ", ".join(values["services"]), ", ".join(values["variables"])
    programs = crate_packages.unknown_programs(crate)
    is_tool, dockerfile_items = not crate_server.is_server(crate), crate_dockerfile.dockerfile_notes(crate, values)
    set_names = {*values["variables"], *values["serve"].get("environment", ())}
    unset_names = [name for name in _dotenv_variables(crate) if name not in set_names]
    targets = [(package["name"], target) for package in crate.linked for target in package["targets"]]
    dylibs = [name for name, target in targets if {*target["kind"]} & {"dylib", "lib", "rlib"} == {"dylib"}]
    outside_names = _list_names([*dict.fromkeys(values["outside"].values())])
    prefixes = sorted({prefix for prefix, _ in crate_settings.prefixes(crate) if prefix})
    submodules = _empty_submodules(crate.root)
    is_refused = len(values["outside"]) == 1 and not outside_names.startswith("../")  # with the words of that
    return {
        f"builds do not get {outside_names}, outside of {crate.root}: "
        f'`context = "{values["context"]}"` there sends them': outside_names and not is_refused,
        f'its library {_list_names(dylibs)} is a dylib, which no image has beside it: crate-type = ["rlib"] puts it '
        "into the program": dylibs,
        f"its submodules are not there ({_list_names(submodules)}): `git submodule update --init` helps": submodules,
        f"it seems to use {services}: see [[services]] there": services,
        f"its build calls {_list_names(programs)}, which the builder may lack: `packages` there is for what has "
        "it": programs,
        f"its sources read {variables} when they are compiled: see `build_environment` there": variables,
        f"its own Dockerfile has {_list_names(dockerfile_items)}: see what of it is missing there": dockerfile_items,
        f"no image has its .env: `environment` there gives {_list_names(unset_names)} to the program": unset_names,
        f"its sources read all variables that begin with {', '.join(prefixes)}: `environment` there gives those that "
        "it needs": prefixes,
        **crate_image.build_folder_notes(crate, values["files"]),
        **crate_server.notes(crate, values["serve"]),
        "it reads arguments, and seems not to know --version: write a call that it knows into [check] there": is_tool
        and not _start_argument(crate)
        and crate.find_matches(_ARGUMENTS),
    }


def _empty_submodules(root: Path) -> list[str]:
    """The folders of git's submodules, of which a clone without them has nothing."""
    file = root / ".gitmodules"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    names = re.findall(r"(?m)^\s*path\s*=\s*(.*\S)", text)
    return [name for name in names if not any((root / name).glob("*"))]


def _list_names(names: list[str]) -> str:
    tail = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + tail


def _profiles(*tables: dict[str, Any]) -> list[str]:
    """The profiles of the crate's own, by its manifest and its configuration."""
    return sorted(set().union(*(table.get("profile", {}) for table in tables)) - lab_toml.CARGOS_PROFILES)


def _paths_outside(crate: Crate) -> dict[Path, str]:
    """Return what builds do not get, by its place, with its name: dependencies by path, and what is above the crate.
    The latter counts if a build script reads it, or the compiler puts it into the program."""
    dependencies = cargo_config.path_dependencies([crate.root, crate.directory])
    names = {sources.real(folder): name for _, name, folder in dependencies if sources.why_missing(crate.root, folder)}
    references = [(script, name) for script in sorted(crate.scripts) for name in _ABOVE.findall(crate.texts[script])]
    references = [(crates.folder_of(crate.package_of(script)), name) for script, name in references]
    for folder, name in references + [entry[1:] for entry in crate_embedded.embedded_paths(crate)]:
        path = sources.real(folder / name)
        if path.exists() and not path.is_relative_to(crate.root) and ".git" not in path.parts:
            names.setdefault(path, name)
    return names


def _has_queries(crate: Crate) -> bool:
    """Whether the answers of sqlx's database to its macros are committed, for a program that asks it."""
    package_folders = [crates.folder_of(package) for package in (crate.package, *crate.linked)]
    folders = (crate.root, crate.directory, *package_folders) if "sqlx" in crate.dependency_names() else ()
    return any((folder / name).exists() for folder in folders for name in (".sqlx", "sqlx-data.json"))


def _compile_error_notes(crate: Crate, features: set[str]) -> dict[str, object]:
    """What to know of the first `compile_error!` that ends a build with these features of the crate."""
    messages = crate.stops(features)
    reason = " ".join(re.sub(r"\\n|\\\s*", " ", messages[0]).split())[:200] if messages else ""
    return {f'a build with these features stops: "{reason}"; `features` there takes others': reason}


def _machine_notes(crate: Crate, configuration: dict[str, Any]) -> dict[str, object]:
    """What to know of a build that works on some machines only, and whether it holds."""
    nightly = ["[unstable] of its cargo configuration"] if "unstable" in configuration else []
    if not configuration.get("env", {}).get("RUSTC_BOOTSTRAP"):  # with it a stable compiler takes them
        nightly += [f"#![feature({name})]" for name in crate.find_matches(_UNSTABLE)]
    for path in dict.fromkeys([crate.root / "Cargo.toml", Path(crate.package["manifest_path"])]):
        if names := cargo_config.read_cargo_toml(path).get("cargo-features"):
            nightly.append(f"cargo-features = {names}")
    toolchain = next(iter(cargo_config.toolchain_files(crate.root.parents)), None)
    folders = [folder for folder in (crate.directory, *crate.directory.parents) if folder.is_relative_to(crate.root)]
    inner_files = cargo_config.toolchain_files(folders)
    features = crate.other_mains()
    asks_database = "sqlx" in crate.dependency_names() and crate.find_matches(_QUERY)
    rust = crate.package.get("rust_version") or "0"
    is_newer = [*map(int, rust.split(".")[:2])] > [*map(int, RUST_VERSION.split("."))]
    unlocked = _list_names(crate_packages.unlocked_names(crate))
    return {
        f"it asks for Rust {rust}, the lab's builder has {RUST_VERSION}: --base rust=IMAGE takes a newer one": is_newer,
        f"its Cargo.lock lacks {unlocked}, which a Cargo.toml names: `cargo update --workspace` renews it": unlocked,
        f"it needs a nightly compiler ({', '.join(nightly)}): --base rust=IMAGE takes a builder that has one": nightly,
        "its cargo configuration compiles for the machine that builds (target-cpu=native): its image may not start on "
        "another": "target-cpu=native" in str(configuration),
        f"rustup reads {toolchain} here, which builds do not get: a copy in {crate.root} holds for them too": toolchain
        and not inner_files,
        f"its main is another one with the feature {', '.join(features)}: `features` there takes it": features,
        "its sources ask a database when they are compiled (sqlx): commit the folder .sqlx that `cargo sqlx prepare` "
        "writes": asks_database and not _has_queries(crate),
    }


@functools.cache
def _start_argument(crate: Crate) -> str:
    """The argument with which a tool ends at once; "" where its sources tell none."""
    if crate.find_matches(SOURCES["version"]):
        return "--version"
    return "--help" if crate.dependency_names() & set(KNOWN["parser_crates"]["names"]) else ""


def _variables(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """The variables that the sources read when they are compiled, and that nothing of the project sets. A build script
    that sets one may take its value from the environment."""
    script_names = [name for text in crate.script_texts() for name in _READ_BY_SCRIPT.findall(text)]
    presets = {*crate.find_matches(_SET_BY_SCRIPT, True)}.difference(script_names).union(configuration.get("env", {}))
    return [
        name
        for name in dict.fromkeys([*crate.find_matches(_BUILD_VARIABLE, True), *script_names])
        if name not in presets
    ]


def _repository_note(crate: Crate) -> str:
    """What to know of a build that asks git for a revision, where builds do not get a repository."""
    note = f"its build asks git for a revision, and {crate.root} has no folder .git"
    top = next((folder for folder in (crate.root, *crate.root.parents) if (folder / ".git").exists()), None)
    if top and (top / ".git").is_file():
        return f"{note}: that of a worktree or a submodule is a file; `git clone {top} FOLDER` makes one with a folder"
    hint = top and f'; context = "{os.path.relpath(top, crate.directory)}" and git = true send it that of {top}'
    return f"{note}{hint or ''}"


def _services(crate: Crate) -> dict[str, dict[str, Any]]:
    """What the dependencies talk to, by its name, with what a container of it takes."""
    words = "\n".join(word for entry in crate.dependencies() for word in (entry["name"], *entry.get("features", [])))
    return {name: entry for name, entry in KNOWN["services"].items() if re.search(entry["crates"], words, re.MULTILINE)}


def _dotenv_variables(crate: Crate) -> list[str]:
    """The variables that the sources name and that a program finds in its file .env, by that or by an example of it."""
    file_names = (".env", ".env.example", ".env.sample", ".env.template")
    file = next((path for file_name in file_names if (path := crate.directory / file_name).is_file()), None)
    if not file or not crate.dependency_names() & {"dotenv", "dotenvy"}:
        return []
    names = re.findall(r"(?m)^\s*(?:export\s+)?(\w+)\s*=", file.read_text(encoding="utf-8", errors="replace"))
    return [name for name in names if any(f'"{name}"' in text for text in crate.program_texts())]


def _asks_git(crate: Crate) -> bool:
    """Whether the build asks git for a revision, which is "unknown" in most programs where there is no repository."""
    git_crates, build_dependencies = KNOWN["git_crates"], crate.dependencies("build")
    has_git_crate = any(
        dependency["name"] in git_crates["names"]
        or (dependency["name"] in git_crates["by_feature"] and re.search(r"git|gix", str(dependency["features"])))
        for dependency in [*build_dependencies, *crate.dependencies()]
    )
    readers = {dependency["name"] for dependency in build_dependencies} & {"git2", "gix"}
    names_git = any('".git"' in text for text in crate.script_texts())  # a program may only skip such folders
    return bool(
        has_git_crate or readers or names_git or "git" in crate.called_in_build() or crate.find_matches(_OF_GIT, True)
    )
