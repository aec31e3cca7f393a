"""A crate as `init` reads it: its packages, as cargo describes them, and the texts of its sources."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, crate_texts, sources
from rustimg_lab.build.cargo_config import expand
from rustimg_lab.build.cargo_metadata import places, tree
from rustimg_lab.build.known import KNOWN
from rustimg_lab.errors import LabError
from rustimg_lab.model.architecture import TARGETS

# Where `main` is: behind a feature, while it is empty, or not there, without.
_MAIN = r"\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\s+)?(?:async\s+)?fn\s+main\b"
_MAIN_BEHIND = re.compile(r'#\[cfg\(feature\s*=\s*"([\w-]+)"\)' + _MAIN)
_MAIN_WITHOUT = re.compile(r'#\[cfg\(not\(feature\s*=\s*"([\w-]+)"\)\)' + _MAIN + r"\s*\(\)[^{;]*\{\s*[^\s}]")
# What stops a build, by features alone or with what the system is, and what it says then.
_STOPS = re.compile(
    r"""(#!?\[cfg\((?=[^\]]*\bfeature\b)(?:[(),\s]|\b(?:all|any|not|unix|windows|test|debug_assertions|(?:feature|target_\w+)\s*"""
    r"""=\s*"[^"]*")(?!\w))*\])\s*\{?\s*(?:(?:std|core)::)?compile_error!\s*[({]\s*r?#*"((?:[^"\\]|\\[\s\S])*)\""""
)
# A function that reads a variable, by its name: `env_or`, `get_env`, `var_or_default`.
READER = r"(?!set_|remove_|env_remove|var_remove)(?:\w+_)?(?:get)?(?:env|var)(?:_\w+)?"
_PROGRAM = r'"(?:/(?:[\w.-]+/)*)?(\w[\w.+-]*)"'  # by its name, or its whole path
CALLED = re.compile(rf"(?<!clap::)\b(?:Std|Process|Tokio)?Command::new\(\s*{_PROGRAM}")
# What is called by a constant or a variable, which of these there are, and what they are, or are by default.
_CALLED_BY_NAME = re.compile(r"(?<!clap::)\b(?:Std|Process|Tokio)?Command::new\(\s*&?(?:\w+::)*(\w+)\s*\)")
_SET = r"\b(?:const|static|let)\s+(?:mut\s+)?(\w+)\b"
_IS = re.compile(
    rf'{_SET}[^;=]*=\s*(?:[^;"]*(?:"\w*"[^;"]*)?\bunwrap_or\w*\([^;"]*|(?:String|PathBuf)::from\(\s*)?&?{_PROGRAM}'
)
# How build scripts call a program else: by a function, a macro of duct, xshell or cmd_lib, or the shell.
_CALLED_ELSE = re.compile(
    r'(?:\b(?:run|exec|execute|spawn|output|sh|cmd)(?:_(?:cmd|command|output))?!?\(\s*(?:\w+,\s*)?|"-c"(?:\s*,|\)\s*\.arg\()\s*)'
    r'"([\w.+-]+)[ "]|\brun_(?:cmd|fun)!\s*[({]\s*([\w.+-]+)'
    r'|\.unwrap_or\w*\(\s*(?:\|\w*\|\s*)?(?:[\w:]+\(\s*)?"([\w.+-]+)"'
)
_LOOKED_UP = re.compile(r'\bwhich\(\s*"([\w.+-]+)"')
# A module that calls programs, and what no Linux has. clap's `Command::new` names a subcommand, by its short name too.
_OF_CLAP = re.compile(r"\buse\s+clap::(?:\{[^}]*\b)?Command\s*[,;}]")
_PROCESS = re.compile(r"\bprocess::(?:\{[^}]*\b)?Command\b")
_OTHER_SYSTEMS = {*KNOWN["other_systems"]["names"]}


@dataclass(frozen=True, eq=False)  # one is read per command: what is found in it is kept by functools.cache
class Crate:
    """What a proposal is made of: the package and its binary as cargo describes them, the crate's folder and that of
    its workspace, the packages that it is linked with by their paths, and by path the texts of its sources, of which
    `scripts` are those of build scripts; and what it is built of (`cargo_metadata.tree`), empty where nobody knows."""

    package: dict[str, Any]
    target: dict[str, Any]
    directory: Path
    root: Path
    linked: list[dict[str, Any]] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)
    scripts: frozenset[Path] = frozenset()
    tree: dict[str, set[str]] = field(default_factory=dict)

    @cached_property
    def lockfile(self) -> list[dict[str, Any]]:
        """Return the packages of the lockfile, for all features of the workspace; none without one. Raises LabError on
        one that cargo has not written."""
        path = self.root / "Cargo.lock"
        packages = cargo_config.read_cargo_toml(path).get("package", []) if path.is_file() else []
        if not all("name" in package for package in packages):
            raise LabError(f"{path}: a package there has no name; `cargo generate-lockfile` writes the file anew")
        return packages

    @cached_property
    def locked(self) -> dict[str, set[str]]:
        """Return the crates that the program or its build script depends on, each with what it depends on: those that
        it is built of, or where nobody knows, those of the lockfile, which has them for all features there are."""
        if self.tree:
            return self.tree
        graph: dict[str, set[str]] = {}
        for package in self.lockfile:
            graph.setdefault(package["name"], set()).update(name.split()[0] for name in package.get("dependencies", []))
        queue = {crate["name"] for kind in (None, "build") for crate in self.dependencies(kind)} & graph.keys()
        reachable: set[str] = set()
        while queue:
            reachable.add(name := queue.pop())
            queue |= (graph[name] & graph.keys()) - reachable
        return {name: graph[name] for name in sorted(reachable)}

    def find_matches(self, pattern: re.Pattern, in_build: bool = False) -> list[str]:
        """Return what a pattern finds in the program's sources, each match once; with `in_build` in build scripts
        too."""
        texts = self.compiled.values() if in_build else self.program_texts()
        return list(dict.fromkeys(match for text in texts for match in pattern.findall(text)))

    def other_mains(self) -> list[str]:
        """Return the features without which the program has another `main`, one that is not empty."""
        text = self.texts.get(Path(self.target["src_path"]), "")
        return sorted({*_MAIN_BEHIND.findall(text)}.intersection(_MAIN_WITHOUT.findall(text)))

    def package_of(self, path: Path) -> dict[str, Any]:
        """Return the package, as cargo describes it, that a source belongs to."""
        return next((self._packages[parent] for parent in path.parents if parent in self._packages), self.package)

    @cached_property
    def _packages(self) -> dict[Path, dict[str, Any]]:
        return {folder_of(package): package for package in [*self.linked, self.package]}

    @cached_property
    def folders(self) -> set[Path]:
        """Return the folders that the program's sources are in, and all folders above."""
        return {parent for path in self.texts.keys() - self.scripts for parent in path.parents}

    def script_texts(self, package: dict[str, Any] | None = None) -> list[str]:
        """Return the texts of all build scripts, or of those of one package."""
        scripts = [(path, text) for path, text in self.texts.items() if path in self.scripts]
        return [text for path, text in scripts if package in (None, self.package_of(path))]

    def program_texts(self) -> list[str]:
        """Return the texts of what is compiled, except build scripts."""
        return [text for path, text in self.compiled.items() if path not in self.scripts]

    @cached_property
    def compiled(self) -> dict[Path, str]:
        """Return the texts of the sources by path, without what is not compiled with the features that are on. Nothing
        is left out where no build works with these, since the user must take others then, or where a build script turns
        features on."""
        turned_on_by_script = any("rustc-cfg=feature" in text for text in self.script_texts())
        if turned_on_by_script or self.stops(self.features[self.package["name"]]):
            return self.texts
        entry = {Path(self.target.get("src_path", ""))}
        return crate_texts.compiled_texts(self.texts, entry, lambda path: self.features[self.package_of(path)["name"]])

    @cached_property
    def features(self) -> dict[str, set[str]]:
        """Return the features that are on, by package. Those of a linked library are turned on by the program and its
        other libraries. Its default is on when one of them takes it, or when no dependency on the library is known."""
        features = {self.package["name"]: enabled_features(self.package, self.target.get("required-features", []))}
        dependencies = self.dependencies()
        for library in self.linked:
            uses = [use for use in dependencies if use["name"] == library["name"]]
            names = {feature for use in uses for feature in use["features"]}
            if not uses or any(use.get("uses_default_features", True) for use in uses):
                names.add("default")
            features[library["name"]] = set().union(*(expand(library["features"], name) for name in names))
        return features

    def stops(self, features: set[str]) -> list[str]:
        """Return the messages of each `compile_error!` that ends a build with these features of the crate."""
        texts = [text for path, text in self.texts.items() if self.package_of(path) is self.package]
        return [
            message
            for text in texts
            for condition, message in _STOPS.findall(text)
            if crate_texts.conditions_hold(condition, features)
        ]

    def dependencies(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the dependencies of the package and its linked packages, as cargo describes them, with the features
        that these turn on. `kind` is "build", or None for those of the program. Dependencies of other systems are left
        out. So are optional ones, unless a feature that is on by default, or that the binary requires, turns them
        on."""
        needed = self.target.get("required-features", [])
        packages = [(self.package, needed), *((package, []) for package in self.linked)]
        enabled = [(package, enabled_features(package, features)) for package, features in packages]
        return [
            dependency | {"features": [*dependency.get("features", []), *_features(dependency, features)]}
            for package, features in enabled
            for dependency in package["dependencies"]
            if dependency.get("kind") == kind and _is_used(dependency, features)
        ]

    def features_off(self) -> set[str]:
        """Return what the package's features turn on, without what is on by default or required by the binary."""
        features = self.package.get("features", {})
        return set().union(*features.values()) - self.features[self.package["name"]]

    def dependency_names(self) -> set[str]:
        """Return the names of the program's dependencies (`dependencies`)."""
        return {dependency["name"] for dependency in self.dependencies()}

    def called_in_build(self) -> set[str]:
        """Return the names of the programs that build scripts call, certainly or probably."""
        text = "\n".join(self.script_texts())
        return {*self.called_by_scripts(), *(name for names in _CALLED_ELSE.findall(text) for name in names if name)}

    def called_by_scripts(self) -> set[str]:
        """Return the names of the programs that build scripts certainly call, without those of other systems."""
        return _called_programs("\n".join(self.script_texts())) - _OTHER_SYSTEMS

    def sibling_programs(self) -> list[str]:
        """Return the other binaries of the package that the program calls, or looks for beside itself."""
        names = [target["name"] for target in self.package.get("targets", ()) if "bin" in target["kind"]]
        texts = [text for text in self.program_texts() if "current_exe" in text]
        pattern = r'\.(?:join|push|\w*file_name)\(\s*(?:format!\(\s*)?"{}(?:\{{\w*\}}|\.exe)?"'
        siblings = {name for name in names for text in texts if re.search(pattern.format(re.escape(name)), text)}
        return [name for name in names if name != self.target["name"] and name in {*siblings, *self._calls}]

    @cached_property
    def _calls(self) -> set[str]:
        texts = [text for text in self.program_texts() if _PROCESS.search(text)]
        callers = [
            re.sub(r"(?<!process::)\bCommand::new", "", text) if _OF_CLAP.search(text) else text for text in texts
        ]
        return _called_programs("\n".join(callers))

    def called_in_use(self) -> list[str]:
        """Return the names of the programs that the program calls when it runs."""
        own_names = {self.package.get("name"), self.target["name"], *self.sibling_programs()}
        return sorted(program for program in self._calls - _OTHER_SYSTEMS - own_names if not program.endswith(".exe"))


def read(
    root: Path, directory: Path, package: dict[str, Any], target: dict[str, Any], describe: Callable[[Path], list[dict]]
) -> Crate:
    """Return a crate with its sources. `describe` returns the packages of the workspace that a folder is in. Comments
    and unit tests are left out, and tests, benches, examples and other binaries of the package. Of the linked packages
    only the libraries are read."""
    folder, packages = folder_of(package), {folder_of(member): member for member in describe(directory)}
    folders = _path_dependencies(package, packages, describe)
    linked = [member for place, member in packages.items() if folders.get(place) is False]
    places_outside = [place for place in folders.keys() & packages.keys() if not place.is_relative_to(root)]
    paths = sorted({place / path for place in (root, *places_outside) for path in sources.walk(place)})
    crates = {path.parent for path in paths if path.name == "Cargo.toml"} | {folder}
    entry = Path(target.get("src_path", ""))  # what a program reads first is where it begins
    scripts, excluded = (
        set(),
        _other_sources(package, target).union(*(_other_sources(library, {}) for library in linked)),
    )
    libraries = {place: _library_folder(member) for place, member in packages.items()}
    libraries[folder] = [folder / "src", entry.parent, *_library_folder(package)]
    script_places = set().union(*(places(member, {"custom-build"}) for member in (package, *linked)))
    queue, files = [], {path for path in paths if path.suffix == ".rs" and path.is_file()}
    for path in sorted(files, key=lambda path: (path != entry, path)):
        owner = next((parent for parent in path.parents if parent in crates), root)
        is_script = bool(folders.get(owner)) or not script_places.isdisjoint((path, *path.parents))
        is_library = any(path.is_relative_to(place) for place in libraries.get(owner) or [owner / "src"])
        is_linked = is_library and excluded.isdisjoint((path, *path.parents))
        if (owner == folder or owner in folders) and (is_linked or is_script):
            queue.append(path)
            scripts |= {path} if is_script else set()
    texts, foreign = crate_texts.read_texts(queue, scripts, files, {entry})
    # What is called as a build script and is none may be the program's.
    build_files = {path for path in files if path == folder / "build.rs" or path.parent in {folder / "build"} - crates}
    texts |= crate_texts.read_texts(sorted(build_files - texts.keys()), scripts, files, set())[0]
    texts = {path: text for path, text in texts.items() if foreign.isdisjoint((path, *path.parents))}
    features = {*_MAIN_BEHIND.findall(texts.get(entry, ""))}.difference(_MAIN_WITHOUT.findall(texts.get(entry, "")))
    target = target | {"required-features": sorted({*target.get("required-features", []), *features})}
    graph = tree(root, directory, package, target["required-features"])
    return Crate(package, target, directory, root, linked, texts, frozenset(scripts & texts.keys()), graph)


def folder_of(package: dict[str, Any]) -> Path:
    """Return the folder of a package, as cargo describes it."""
    return Path(package["manifest_path"]).parent


def _called_programs(text: str) -> set[str]:
    values, counts = dict(_IS.findall(text)), Counter(re.findall(_SET, text))
    programs = {values[name] for name in _CALLED_BY_NAME.findall(text) if name in values and counts[name] == 1}
    return {*CALLED.findall(text), *_LOOKED_UP.findall(text), *programs}


def _other_sources(package: dict[str, Any], target: dict[str, Any]) -> set[Path]:
    """Where the sources of other binaries than the target are, and of tests, benches and examples."""
    bins = [binary for binary in package["targets"] if "bin" in binary["kind"] and binary["name"] != target.get("name")]
    files = {Path(binary["src_path"]) for binary in bins}
    folders = {path.parent for path in files if path.name == "main.rs" and path.parent.parent.name == "bin"}
    return files | folders | places(package, {"test", "bench", "example"})


def _library_folder(package: dict[str, Any]) -> list[Path]:
    """The folder where a package has its library."""
    kinds = {"bin", "test", "bench", "example", "custom-build"}
    return [Path(target["src_path"]).parent for target in package["targets"] if kinds.isdisjoint(target["kind"])]


def _path_dependencies(
    package: dict[str, Any], packages: dict[Path, dict[str, Any]], describe: Callable[[Path], list[dict]]
) -> dict[Path, bool]:
    """Return the folders of a package's direct and indirect dependencies by path, each with whether only the build
    uses it: build scripts, or procedural macros. Packages of other workspaces are added to `packages`."""
    queue, folders = [(package, False)], {}
    while queue:
        dependent, is_of_script = queue.pop()
        for entry in (entry for entry in dependent["dependencies"] if entry.get("path") and entry.get("kind") != "dev"):
            folder = Path(entry["path"])
            if folder not in packages and folder not in folders:  # in no workspace of this
                packages |= {folder_of(member): member for member in describe(folder)}
            targets = packages[folder]["targets"] if folder in packages else []
            is_macro = any("proc-macro" in target["kind"] for target in targets)  # which the compiler runs
            is_for_script = is_of_script or is_macro or entry.get("kind") == "build"
            if folder not in folders or folders[folder] > is_for_script:
                folders[folder] = is_for_script
                if folder in packages:
                    queue.append((packages[folder], is_for_script))
    return folders


def enabled_features(package: dict[str, Any], features: list[str]) -> set[str]:
    """Return all that a package's default features and these `features` turn on."""
    table = package.get("features", {})
    return set().union(*(expand(table, feature) for feature in (*table.get("default", []), *features)))


def _features(dependency: dict[str, Any], features: set[str]) -> list[str]:
    """The features of a dependency that those of its package turn on (`NAME/FEATURE`)."""
    name = dependency.get("rename") or dependency["name"]
    parts = sorted(feature.partition("/") for feature in features)
    return [feature for prefix, _, feature in parts if feature and prefix.rstrip("?") == name]


def _is_used(dependency: dict[str, Any], features: set[str]) -> bool:
    """Whether a dependency is in a build for one of the lab's targets, with what features have turned on."""
    is_on = not dependency.get("optional") or f"dep:{dependency.get('rename') or dependency['name']}" in features
    return is_on and is_for_targets(dependency)


def is_for_targets(dependency: dict[str, Any]) -> bool:
    """Return whether a dependency, as cargo describes it, is for any of the lab's targets."""
    if not (platform := dependency.get("target")):
        return True
    try:
        return any(cargo_config.cfg_holds(platform, name) if "(" in platform else platform == name for name in TARGETS)
    except LabError:
        return True
