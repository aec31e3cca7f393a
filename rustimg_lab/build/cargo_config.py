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

from rustimg_lab.errors import LabError, located
from rustimg_lab.host.files import real
from rustimg_lab.model.app import Configuration
from rustimg_lab.model.architecture import TARGETS
from rustimg_lab.model.profiles import Profile

# What `rustc --print cfg` says of all targets of the lab; target_arch is a target's first word, target_env its last. As
# cargo asks, for crates of all types at once, no target has the feature crt-static by itself.
_CFG = {
    "unix", "debug_assertions", 'target_os="linux"', 'target_family="unix"', 'target_endian="little"',
    'target_pointer_width="64"', 'target_vendor="unknown"', 'panic="unwind"', 'target_abi=""',
    *(f'target_has_atomic="{width}"' for width in ("8", "16", "32", "64", "ptr")), "true",
}  # fmt: skip
_FEATURES = {"x86_64": ("fxsr", "sse", "sse2"), "aarch64": ("neon",)}
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
_CFG_WORD = re.compile(r'\s*([\w-]+\s*=\s*"[^"]*"|[\w-]+|[(),])')


def toml(path: Path) -> dict[str, Any]:
    """Return a TOML file of a crate's, with a byte order mark or without. Raises LabError, with the file."""
    try:
        told = tomli.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # what is no TOML, no UTF-8, or nested too deep
        raise LabError(f"{path}: {error}") from None
    if key := _with_nul(told):
        raise LabError(f"{path}: '{key}' has the character NUL in it, which no path, name or argument can have")
    return told


def _with_nul(value: Any, key: str = "") -> str:
    """The first key whose text has the character NUL; "" where none has it."""
    if isinstance(value, str):
        return key if "\0" in value else ""
    each = value.items() if isinstance(value, dict) else enumerate(value, 1) if isinstance(value, list) else ()
    return next(filter(None, (_with_nul(part, f"{key}.{name}".lstrip(".")) for name, part in each)), "")


def parsed(path: Path) -> dict[str, Any]:
    """Return a TOML file that cargo reads. Raises LabError, with the file and the key, also on a value of a type that
    cargo does not take there."""
    told = toml(path)
    for kinds, places in (_LOCKED if path.name == "Cargo.lock" else _TAKEN).items():
        for key, value in (each for place in places.split() for each in _at(told, place.split("."))):
            if not isinstance(value, kinds):
                what = " or ".join(_WORDS[each] for each in kinds)
                raise LabError(f"{path}: '{key}' is no {what}, as cargo takes it; `cargo metadata` says more")
    return told


def _at(value: Any, keys: list[str], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is at a path of keys, `*` for any, each with its name."""
    if not keys:
        yield name, value
    elif isinstance(value, dict):
        for key in value if keys[0] == "*" else value.keys() & {keys[0]}:
            yield from _at(value[key], keys[1:], f"{name}.{key}".lstrip("."))
    elif isinstance(value, list) and keys[0] == "*":
        for number, each in enumerate(value, 1):
            yield from _at(each, keys[1:], f"{name}.{number}")


def workspace_root(directory: Path) -> Path:
    """Return the folder of the workspace that a crate's folder (absolute) belongs to; its own, where it is in none."""
    own = parsed(directory / "Cargo.toml")
    if named := own.get("package", {}).get("workspace"):
        root = real(named, directory)
        if not (root / "Cargo.toml").is_file():
            raise LabError(f"{directory / 'Cargo.toml'}: 'package.workspace' is '{named}': no Cargo.toml there")
        return root
    for folder in [] if "workspace" in own else directory.parents:
        manifest = folder / "Cargo.toml"
        if manifest.is_file() and (workspace := parsed(manifest).get("workspace")) is not None:
            listed = {key: [folder / each for each in workspace.get(key, [])] for key in ("members", "exclude")}
            inside = {key: any(map(directory.is_relative_to, paths)) for key, paths in listed.items()}
            if inside["members"] or not inside["exclude"]:
                return folder
    return directory


def files(directory: Path) -> Iterator[Path]:
    """Yield the configuration files that cargo reads when it is called in a folder, the last of which decides; but for
    the user's own in the home folder."""
    for folder in (*reversed(directory.parents), directory):
        names = (folder / ".cargo" / name for name in ("config", "config.toml"))
        if folder != Path.home() and (path := next((each for each in names if each.is_file()), None)):
            yield path


def read(paths: list[Path], by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return these configuration files as one; `by` are those that include them. Raises LabError where one cannot be
    read."""
    told: dict[str, Any] = {}
    for path in paths:
        own = parsed(path)
        included = own.pop("include", [])
        for each in included if isinstance(included, list) else [included]:
            name = each.get("path") if isinstance(each, dict) else each
            if not isinstance(name, str) or (other := Path(os.path.normpath(path.parent / name))) in (*by, path):
                raise LabError(f"{path}: include: {name!r} is no other file")
            told = merged(told, read([other], (*by, path)) if other.is_file() else {})
        told = merged(told, own)
        with located(path):
            rustflags(own, TARGETS[0])  # which reads each `cfg(...)`
    return told


def merged(before: Any, after: Any) -> Any:
    """Return two values as cargo merges them: tables and lists are joined, of other values the later one counts."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before | {key: merged(before[key], value) if key in before else value for key, value in after.items()}
    return [*before, *after] if isinstance(before, list) and isinstance(after, list) else after


def rustflags(configuration: dict[str, Any], target: str) -> tuple[str, ...]:
    """Return the compiler's flags for a target: those of all tables that are for it, or else those of `[build]`."""
    of_target = [flag for table in _of_target(configuration, target) for flag in _flags(table)]
    return tuple(of_target or _flags(configuration.get("build", {})))


def tools(configuration: dict[str, Any], target: str) -> tuple[str, ...]:
    """Return the programs that the configuration names for a target: linkers, and what wraps the compiler."""
    flags = rustflags(configuration, target)
    linkers = [table["linker"] for table in _of_target(configuration, target) if "linker" in table][:1]
    chosen = [value for key, value in options(flags).items() if key == "-Clinker"]
    used = [_LINKERS.get(name, f"ld.{name}") for flag in flags for name in re.findall(r"-fuse-ld=(\w+)", flag)]
    wrappers = [configuration.get("build", {}).get(key, "") for key in ("rustc-wrapper", "rustc-workspace-wrapper")]
    named = (*(chosen or linkers), *used, *wrappers)
    return tuple(name for name in named if name and "/" not in name and name != "rust-lld")  # which rustc has with it


def _of_target(configuration: dict[str, Any], target: str) -> list[dict[str, Any]]:
    """The tables `[target.*]` that are for a target: that of its name first, others by their names, as cargo does."""
    tables = configuration.get("target", {})
    of_cfg = [table for name, table in sorted(tables.items()) if name.startswith("cfg(") and holds(name, target)]
    return [tables[target], *of_cfg] if target in tables else of_cfg


def _flags(table: dict[str, Any]) -> list[str]:
    flags = table.get("rustflags", [])
    return flags.split() if isinstance(flags, str) else flags


def holds(expression: str, target: str) -> bool:
    """Return whether `cfg(...)` holds for a target. Raises LabError where the expression cannot be read."""
    words = [re.sub(r"\s*=\s*", "=", word) for word in _CFG_WORD.findall(expression)]
    architecture, environment = target.partition("-")[0], target.rpartition("-")[2]
    known = _CFG | {f'target_arch="{architecture}"', f'target_env="{environment}"'}
    known |= {f'target_feature="{each}"' for each in _FEATURES[architecture]}

    def value() -> bool:
        word = words.pop(0)
        if word not in ("cfg", "all", "any", "not"):
            return word in known
        values = []
        while words.pop(0) != ")":
            if words[0] != ")":
                values.append(value())
        return {"cfg": all, "all": all, "any": any, "not": lambda each: not any(each)}[word](values)

    try:
        return value()
    except IndexError:
        raise LabError(f"[target.'{expression}'] cannot be read") from None


def entry_files(folder: Path) -> Iterator[Path]:
    """Yield the sources that cargo starts from in a crate's folder: those that its manifest names, and those that it
    finds by their names, a build script among them."""
    own = parsed(folder / "Cargo.toml")
    named = [
        own.get("package", {}).get("build"),
        *(each.get("path") for each in (own.get("lib", {}), *own.get("bin", []))),
    ]
    for name in ("build.rs", "src/lib.rs", "src/main.rs", *(each for each in named if isinstance(each, str))):
        if (folder / name).is_file():
            yield folder / name


def path_dependencies(folders: list[Path]) -> Iterator[tuple[Path, str, Path]]:
    """Yield the dependencies by path of the crates in these folders, and of those in turn, and what cargo's
    configuration puts in the place of one: the file that names it, its name, and its folder (absolute); and where one
    inherits from a workspace that none of the folders is, that one's manifest."""
    configurations = {path for folder in folders for path in files(folder)}
    waiting, seen = [*configurations, *(folder / "Cargo.toml" for folder in folders)], set()
    while waiting:
        file = waiting.pop()
        if file not in seen and file.is_file():
            seen.add(file)
            told, base, named = parsed(file), file.parent, []
            if file in configurations:
                base, named = base.parent, replaced(told)
            elif (inherited := {*_inherited(told)}) and (root := workspace_root(base)) not in (base, *folders):
                yield file, "its workspace", root / "Cargo.toml"
                shared = parsed(root / "Cargo.toml").get("workspace", {}).get("dependencies", {})
                paths = _paths({"dependencies": {name: each for name, each in shared.items() if name in inherited}})
                named = [(name, str(root / path)) for name, path in paths]
            for name, path in (*_paths(told), *named):
                folder = Path(os.path.normpath(base / path))
                waiting.append(folder / "Cargo.toml")
                yield file, name, folder


def _paths(table: dict[str, Any], of_dependencies: bool = False) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict) and name != "metadata":  # which is other programs'
            if of_dependencies and isinstance(value.get("path"), str):
                yield name, value["path"]
            yield from _paths(value, of_dependencies or name.endswith("dependencies") or name in ("patch", "replace"))


def _inherited(table: dict[str, Any]) -> Iterator[str]:
    """Yield the keys of a manifest whose values are those of its workspace."""
    for name, value in table.items():
        if isinstance(value, dict) and name != "metadata":
            yield from [name] if value.get("workspace") is True else _inherited(value)


def replaced(configuration: dict[str, Any]) -> list[tuple[str, str]]:
    """What a configuration file puts in the place of dependencies or of a registry: how it names that, and the folder.
    An absolute one may be the builder's."""
    named = [("paths", path) for path in configuration.get("paths", [])]
    for name, source in configuration.get("source", {}).items():
        named += [(f"source.{name}", source[key]) for key in ("directory", "local-registry") if key in source]
    return [(name, path) for name, path in named if not Path(path).is_absolute()]


def brings(features: dict[str, list[str]], feature: str) -> set[str]:
    """Return all that a feature turns on, itself among it: features, and dependencies as `dep:NAME`."""
    found, waiting = set(), [feature]
    while waiting:
        if (each := waiting.pop()) not in found:
            found.add(each)
            name, slash, _ = each.partition("/")
            waiting += features.get(each, []) + ([f"dep:{name}"] if slash and not name.endswith("?") else [])
    return found


def without(features: dict[str, list[str]], names: list[str], left_out: set[str]) -> list[str]:
    """Return features without some of them: of one that turns on one of these, its other parts."""
    kept: list[str] = []
    for name in names:
        if not brings(features, name) & left_out:
            kept += [] if name.startswith("dep:") else [name]  # no option turns that on
        elif name not in left_out:
            kept += without(features, features[name], left_out)
    return list(dict.fromkeys(kept))


def toolchain(folders: list[Path]) -> str:
    """Return what the first of these folders with a toolchain file asks rustup for, a channel or the folder of a
    toolchain; "" where none has."""
    for path in toolchain_files(folders):
        text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
        is_plain = path.suffix == "" and len(text.splitlines()) == 1 and "=" not in text
        told = {} if is_plain else parsed(path).get("toolchain", {})
        return text if is_plain else told.get("channel") or told.get("path", "")
    return ""


def toolchain_files(folders: Iterable[Path]) -> list[Path]:
    """Return the toolchain files in these folders; rustup reads the first."""
    names = ("rust-toolchain", "rust-toolchain.toml")
    return [path for folder in folders for name in names if (path := folder / name).is_file()]


def options(flags: tuple[str, ...]) -> dict[str, str]:
    """Return the compiler's options among flags, by name (`-Copt-level`); what adds up, as arguments of the linker do,
    is left out. A target feature is an option by itself."""
    words: list[str] = []
    for flag in flags:
        prefix = words[-1] if words else ""
        words = [*words[:-1], prefix.replace("--codegen", "-C") + flag] if prefix in _PREFIXES else [*words, flag]
    found = {}
    for word in (each.replace("--codegen=", "-C") for each in words):
        name, _, value = _SHORT.get(word, word).partition("=")
        if name == "-Ctarget-feature":
            found |= {f"{name}={feature[1:]}": feature[0] for feature in value.split(",") if feature}
        elif name[:2] in _PREFIXES and not name.startswith("-Clink-arg"):
            found[name.replace("_", "-")] = value
    return found


def contradiction(profile: Profile, own: Configuration, target: str) -> str:
    """Return where a profile of the lab and the project's own flags give an option of the compiler two values, with
    both sources; "" where they do not."""
    settings = tuple(f"-C{key}={value}" for key, value in profile.settings)
    theirs = options(dict(own.rustflags).get(target, ()))
    for name, value in options((*settings, *profile.rustflags)).items():
        if theirs.get(name, value) != value:
            return (
                f"profile '{profile.name}' has {_option(name, value)}, {own.files} has {_option(name, theirs[name])} "
                f"for {target}"
            )
    return ""


def _option(name: str, value: str) -> str:
    option, _, feature = name.partition("=")
    return f"{option}={value}{feature}"
