"""What cargo reads beside a crate's sources, by its documented rules: the workspace, and `.cargo/config.toml`.

doc.rust-lang.org/cargo/reference/config.html and workspaces.html. No cargo is called: a Dockerfile is written where
there is none.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tomli

from rustimg_lab.build import cfg
from rustimg_lab.errors import LabError, located
from rustimg_lab.host.files import resolve_path
from rustimg_lab.model.app import Configuration
from rustimg_lab.model.architecture import TARGETS
from rustimg_lab.model.profiles import Profile

_LINKERS = {"mold": "mold", "wild": "wild"}  # by the name in -fuse-ld=NAME; others are called ld.NAME
_PREFIXES = ("-C", "-Z", "--codegen")
# What the compiler has a short word for, or more words than one.
_SHORT = {"-O": "-Copt-level=3", "-g": "-Cdebuginfo=2"}
_SHORT |= {f"-Clto{value}": "-Clto=fat" for value in ("", "=y", "=yes", "=on", "=true")}
# What cargo takes at a path of keys in its files, `*` for any; the tables of Cargo.lock are lists of tables.
_WORDS: dict[type, str] = {str: "text", list: "list", dict: "table"}
_LOCKED: dict[tuple[type, ...], str] = {(list,): "package", (dict,): "package.*", (str,): "package.*.name"}
_TAKEN: dict[tuple[type, ...], str] = {
    (list,): "workspace.members workspace.exclude bin features.* paths",
    (dict,): "package workspace profile profile.* profile.*.package profile.*.package.* features lib bin.* build net "
             "target target.* env toolchain source source.*",
    (str,): "package.name package.workspace workspace.members.* workspace.exclude.* profile.*.inherits features.*.* "
            "bin.*.name build.rustc-wrapper build.rustc-workspace-wrapper build.rustflags.* target.*.linker "
            "target.*.rustflags.* toolchain.channel toolchain.path paths.* source.*.directory source.*.local-registry",
    (str, list): "build.rustflags target.*.rustflags",
}  # fmt: skip


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table in a TOML file of a crate, with a byte order mark or without. Raises LabError, with the file,
    when it cannot be read or a text has the character NUL."""
    try:
        table = tomli.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # what is no TOML, no UTF-8, or nested too deep
        raise LabError(f"{path}: {error}") from None
    if key := _find_nul(table):
        raise LabError(f"{path}: '{key}' has the character NUL in it, which no path, name or argument can have")
    return table


def _find_nul(value: Any, key: str = "") -> str:
    """The first key whose text has the character NUL; "" where none has it."""
    if isinstance(value, str):
        return key if "\0" in value else ""
    pairs = value.items() if isinstance(value, dict) else enumerate(value, 1) if isinstance(value, list) else ()
    return next(filter(None, (_find_nul(part, f"{key}.{name}".lstrip(".")) for name, part in pairs)), "")


def read_cargo_toml(path: Path) -> dict[str, Any]:
    """Return the table in a TOML file that cargo reads. Raises LabError as `toml` does; and, with the file and the key,
    on a value of a type that cargo does not take there."""
    table = read_toml(path)
    for kinds, places in (_LOCKED if path.name == "Cargo.lock" else _TAKEN).items():
        for key, value in (pair for place in places.split() for pair in _values_at(table, place.split("."))):
            if not isinstance(value, kinds):
                expected = " or ".join(_WORDS[kind] for kind in kinds)
                raise LabError(f"{path}: '{key}' is no {expected}, as cargo takes it; `cargo metadata` says more")
    return table


def _values_at(value: Any, keys: list[str], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is at a path of keys, `*` for any, each with its name."""
    if not keys:
        yield name, value
    elif isinstance(value, dict):
        for key in value if keys[0] == "*" else value.keys() & {keys[0]}:
            yield from _values_at(value[key], keys[1:], f"{name}.{key}".lstrip("."))
    elif isinstance(value, list) and keys[0] == "*":
        for number, item in enumerate(value, 1):
            yield from _values_at(item, keys[1:], f"{name}.{number}")


def workspace_root(directory: Path) -> Path:
    """Return the folder of the workspace that a crate's folder (absolute) belongs to; the crate's own when it is in
    none. Raises LabError when `package.workspace` names a folder without a Cargo.toml."""
    table = read_cargo_toml(directory / "Cargo.toml")
    if root_path := table.get("package", {}).get("workspace"):
        root = resolve_path(root_path, directory)
        if not (root / "Cargo.toml").is_file():
            raise LabError(f"{directory / 'Cargo.toml'}: 'package.workspace' is '{root_path}': no Cargo.toml there")
        return root
    for folder in [] if "workspace" in table else directory.parents:
        manifest = folder / "Cargo.toml"
        if manifest.is_file() and (workspace := read_cargo_toml(manifest).get("workspace")) is not None:
            listed = {key: [folder / path for path in workspace.get(key, [])] for key in ("members", "exclude")}
            inside = {key: any(map(directory.is_relative_to, paths)) for key, paths in listed.items()}
            if inside["members"] or not inside["exclude"]:
                return folder
    return directory


def files(directory: Path) -> Iterator[Path]:
    """Yield the configuration files that cargo reads when it is called in a folder; the last one decides. The user's
    own file in the home folder is left out."""
    for folder in (*reversed(directory.parents), directory):
        candidates = (folder / ".cargo" / name for name in ("config", "config.toml"))
        if folder != Path.home() and (path := next((file for file in candidates if file.is_file()), None)):
            yield path


def read(paths: list[Path], parents: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return these configuration files merged into one table. `parents` are the files that include them. Raises
    LabError when a file, an `include` or a `cfg(...)` cannot be read."""
    configuration: dict[str, Any] = {}
    for path in paths:
        table = read_cargo_toml(path)
        included = table.pop("include", [])
        for entry in included if isinstance(included, list) else [included]:
            name = entry.get("path") if isinstance(entry, dict) else entry
            if not isinstance(name, str) or (child := Path(os.path.normpath(path.parent / name))) in (*parents, path):
                raise LabError(f"{path}: include: {name!r} is no other file")
            configuration = merge(configuration, read([child], (*parents, path)) if child.is_file() else {})
        configuration = merge(configuration, table)
        with located(path):
            rustflags(table, TARGETS[0])  # which reads each `cfg(...)`
    return configuration


def merge(before: Any, after: Any) -> Any:
    """Return two values as cargo merges them: tables and lists are joined, of other values the later one counts."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before | {key: merge(before[key], value) if key in before else value for key, value in after.items()}
    return [*before, *after] if isinstance(before, list) and isinstance(after, list) else after


def rustflags(configuration: dict[str, Any], target: str) -> tuple[str, ...]:
    """Return the compiler's flags for a target triple: those of all tables for it, or else those of `[build]`."""
    return tuple(_flags(*_target_tables(configuration, target)) or _flags(configuration.get("build", {})))


def tools(configuration: dict[str, Any], target: str) -> tuple[str, ...]:
    """Return the names of the programs that the configuration has for a target triple: linkers, and wrappers of the
    compiler."""
    flags = rustflags(configuration, target)
    linkers = [table["linker"] for table in _target_tables(configuration, target) if "linker" in table][:1]
    chosen = [value for key, value in options(flags).items() if key == "-Clinker"]
    flag_linkers = [_LINKERS.get(name, f"ld.{name}") for flag in flags for name in re.findall(r"-fuse-ld=(\w+)", flag)]
    wrappers = [configuration.get("build", {}).get(key, "") for key in ("rustc-wrapper", "rustc-workspace-wrapper")]
    names = (*(chosen or linkers), *flag_linkers, *wrappers)
    return tuple(name for name in names if name and "/" not in name and name != "rust-lld")  # which rustc has with it


def _target_tables(configuration: dict[str, Any], target: str) -> list[dict[str, Any]]:
    """The tables `[target.*]` that are for a target: that of its name first, others by their names, as cargo does."""
    tables = configuration.get("target", {})
    named = [tables[target]] if target in tables else []
    # Of tables for a `--cfg` of the project's own, cargo takes those that hold by the flags outside of such tables.
    facts = cfg.flag_facts(_flags(*named) or _flags(configuration.get("build", {})))
    others = [(name, table) for name, table in sorted(tables.items()) if name.startswith("cfg(")]
    return [*named, *(table for name, table in others if cfg_holds(name, target, facts))]


def _flags(*tables: dict[str, Any]) -> list[str]:
    values = [table.get("rustflags", []) for table in tables]
    return [flag for value in values for flag in (value.split() if isinstance(value, str) else value)]


def cfg_holds(expression: str, target: str, other_facts: Iterable[str] = ()) -> bool:
    """Return whether `cfg(...)` holds for a target triple, with `other_facts`. Raises LabError when the expression
    cannot be read."""
    try:  # cargo asks the compiler without a profile, so debug assertions are always on
        return cfg.holds(expression, cfg.target_facts(target).union({"debug_assertions"}, other_facts))
    except ValueError:
        raise LabError(f"[target.'{expression}'] cannot be read") from None


def entry_files(folder: Path) -> Iterator[Path]:
    """Yield the sources that cargo starts from in a crate's folder, a build script among them. They are those that the
    manifest names, and those that cargo finds by their names."""
    manifest = read_cargo_toml(folder / "Cargo.toml")
    paths = [
        manifest.get("package", {}).get("build"),
        *(target.get("path") for target in (manifest.get("lib", {}), *manifest.get("bin", []))),
    ]
    for name in ("build.rs", "src/lib.rs", "src/main.rs", *(path for path in paths if isinstance(path, str))):
        if (folder / name).is_file():
            yield folder / name


def path_dependencies(folders: list[Path]) -> Iterator[tuple[Path, str, Path]]:
    """Yield the direct and indirect dependencies by path of the crates in these folders: the file that names one, its
    name, and its folder (absolute). Folders by which cargo's configuration replaces dependencies count too. If a crate
    inherits from a workspace outside of these folders, yield the manifest of that workspace as well."""
    configurations = {path for folder in folders for path in files(folder)}
    queue, seen = [*configurations, *(folder / "Cargo.toml" for folder in folders)], set()
    while queue:
        file = queue.pop()
        if file not in seen and file.is_file():
            seen.add(file)
            table, base, replacements = read_cargo_toml(file), file.parent, []
            if file in configurations:
                base, replacements = base.parent, find_replacements(table)
            elif (inherited := {*_inherited_keys(table)}) and (root := workspace_root(base)) not in (base, *folders):
                yield file, "its workspace", root / "Cargo.toml"
                shared = read_cargo_toml(root / "Cargo.toml").get("workspace", {}).get("dependencies", {})
                paths = _paths({"dependencies": {name: spec for name, spec in shared.items() if name in inherited}})
                replacements = [(name, str(root / path)) for name, path in paths]
            for name, path in (*_paths(table), *replacements):
                folder = Path(os.path.normpath(base / path))
                queue.append(folder / "Cargo.toml")
                yield file, name, folder


def _paths(table: dict[str, Any], of_dependencies: bool = False) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict) and name != "metadata":  # which is other programs'
            if of_dependencies and isinstance(value.get("path"), str):
                yield name, value["path"]
            yield from _paths(value, of_dependencies or name.endswith("dependencies") or name in ("patch", "replace"))


def _inherited_keys(table: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of a manifest whose values are those of its workspace."""
    for name, value in table.items():
        if isinstance(value, dict) and name != "metadata":
            yield from [name] if value.get("workspace") is True else _inherited_keys(value)


def find_replacements(configuration: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the folders by which a configuration file replaces dependencies or a registry: its key, and the folder.
    Absolute folders are left out, since they may be the builder's."""
    replacements = [("paths", path) for path in configuration.get("paths", [])]
    for name, source in configuration.get("source", {}).items():
        replacements += [(f"source.{name}", source[key]) for key in ("directory", "local-registry") if key in source]
    return [(name, path) for name, path in replacements if not Path(path).is_absolute()]


def expand(features: dict[str, list[str]], feature: str) -> set[str]:
    """Return all that a feature turns on, with itself: features, and dependencies as `dep:NAME`."""
    enabled, queue = set(), [feature]
    while queue:
        if (part := queue.pop()) not in enabled:
            enabled.add(part)
            name, slash, _ = part.partition("/")
            queue += features.get(part, [])
            if slash and not name.endswith("?"):  # an optional dependency, and the feature of its name if there is one
                queue += [f"dep:{name}", *{name}.intersection(features)]
    return enabled


def drop_features(features: dict[str, list[str]], names: list[str], left_out: set[str]) -> list[str]:
    """Return the features in `names` without those in `left_out`. One that turns on a feature of `left_out` is replaced
    by its other parts."""
    remaining: list[str] = []
    for name in names:
        if not expand(features, name) & left_out:
            remaining += [] if name.startswith("dep:") else [name]  # no option turns that on
        elif name not in left_out:
            remaining += drop_features(features, features[name], left_out)
    return list(dict.fromkeys(remaining))


def toolchain(folders: list[Path]) -> str:
    """Return the channel, or the folder of a toolchain, that the first toolchain file in these folders requests; ""
    without such a file."""
    for path in toolchain_files(folders):
        text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
        is_plain = path.suffix == "" and len(text.splitlines()) == 1 and "=" not in text
        table = {} if is_plain else read_cargo_toml(path).get("toolchain", {})
        return text if is_plain else table.get("channel") or table.get("path", "")
    return ""


def toolchain_files(folders: Iterable[Path]) -> list[Path]:
    """Return the toolchain files in these folders; rustup reads the first."""
    names = ("rust-toolchain", "rust-toolchain.toml")
    return [path for folder in folders for name in names if (path := folder / name).is_file()]


def options(flags: tuple[str, ...]) -> dict[str, str]:
    """Return the compiler's options among flags: values by name (`-Copt-level`). Options that add up, such as arguments
    of the linker, are left out. A target feature is an option by itself."""
    words: list[str] = []
    for flag in flags:
        prefix = words[-1] if words else ""
        words = [*words[:-1], prefix.replace("--codegen", "-C") + flag] if prefix in _PREFIXES else [*words, flag]
    values = {}
    for word in (word.replace("--codegen=", "-C") for word in words):
        name, _, value = _SHORT.get(word, word).partition("=")
        if name == "-Ctarget-feature":
            values |= {f"{name}={feature[1:]}": feature[0] for feature in value.split(",") if feature}
        elif name[:2] in _PREFIXES and not name.startswith("-Clink-arg"):
            values[name.replace("_", "-")] = value
    return values


def contradiction(profile: Profile, config: Configuration, target: str) -> str:
    """Return which option of the compiler has two values, with both sources: a lab's profile and the project's own
    flags. Return "" when none has."""
    settings = tuple(f"-C{key}={value}" for key, value in profile.settings)
    flags = options(dict(config.rustflags).get(target, ()))
    for name, value in options((*settings, *profile.rustflags)).items():
        if flags.get(name, value) != value:
            return (
                f"profile '{profile.name}' has {_option(name, value)}, {config.files} has {_option(name, flags[name])} "
                f"for {target}"
            )
    return ""


def _option(name: str, value: str) -> str:
    option, _, feature = name.partition("=")
    return f"{option}={value}{feature}"
