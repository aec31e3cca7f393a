"""A crate as `init` reads it: its packages, as cargo describes them, and the texts of its sources."""

import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rustimg_lab.build import cargo_config, sources
from rustimg_lab.build.cargo_config import brings
from rustimg_lab.build.cargo_metadata import places, tree
from rustimg_lab.build.known import KNOWN
from rustimg_lab.errors import LabError
from rustimg_lab.model.architecture import TARGETS

# Comments, those behind code among them; what is compiled on a condition, or is a test, up to its block or its end;
# what no release for Linux has; and by what the end of a block is found: braces, but for those in texts.
_COMMENT = re.compile(r"(?m)^\s*//.*$|(?<=[;{},\]])[ \t]*//.*$|^\s*/\*(?s:.*?)\*/")
_CONDITIONAL = re.compile(
    r"#\[(?:cfg\(([^\]]*)\)|(?:\w+::)*(?:\w+_|rs)?(test)(?:\([^\]]*\))?)\]\s*(?:#\[[^\]]*\]\s*)*(?:(?=\{)|(?:pub(?:\([^)]*\))?\s+)?(?:(?:async|unsafe|const)\s+)*(?:"
    r'(?:fn|impl|mod|trait|extern\s*"\w+")\b[^;{}]*(?=\{)|(?:mod|use|let|const|static|type|return)\b[^;{}]*;))'
    r'|\bif\s+cfg!\(([^{}]*)\)\s*(?=\{)|(?m:^\s*((?:any|all|not)\([^{};]*\)|target_\w+\s*=\s*"\w+")\s*=>\s*(?=\{))'
)
_OF_SYSTEM = re.compile(
    r'(?:\b(?:all|any|not|unix|windows|target_(?:os|family|vendor|env|arch)\s*=\s*"\w+")(?!\w)|[(),\s])+'
)
_MODULE = re.compile(r'(?:#\[(?:path\s*=\s*"([^"]+)"|[^\]]*)\]\s*)*(?:pub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*;')
_SOURCE = re.compile(r'(?:#\[path\s*=|\binclude!\()\s*"([^"]+\.rs)"')
_BRACE = re.compile(
    r"""\br(#*)"(?s:.*?)"\1|"(?s:[^"\\]|\\.)*"|'(?:[^'\\\n]|\\[^'\n]+|\\')'|//.*|/\*(?s:.*?)\*/|([{}])"""
)
# Where `main` is: behind a feature, while it is empty, or not there, without.
_MAIN = r"\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\s+)?(?:async\s+)?fn\s+main\b"
_MAIN_BEHIND = re.compile(r'#\[cfg\(feature\s*=\s*"([\w-]+)"\)' + _MAIN)
_MAIN_WITHOUT = re.compile(r'#\[cfg\(not\(feature\s*=\s*"([\w-]+)"\)\)' + _MAIN + r"\s*\(\)[^{;]*\{\s*[^\s}]")
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
        found = cargo_config.parsed(path).get("package", []) if path.is_file() else []
        if not all("name" in each for each in found):
            raise LabError(f"{path}: a package there has no name; `cargo generate-lockfile` writes the file anew")
        return found

    @cached_property
    def locked(self) -> dict[str, set[str]]:
        """Return the crates that the program or its build script depends on, each with what it depends on: those that
        it is built of, or where nobody knows, those of the lockfile, which has them for all features there are."""
        if self.tree:
            return self.tree
        depended: dict[str, set[str]] = {}
        for each in self.lockfile:
            depended.setdefault(each["name"], set()).update(name.split()[0] for name in each.get("dependencies", []))
        waiting = {each["name"] for kind in (None, "build") for each in self.dependencies(kind)} & depended.keys()
        found: set[str] = set()
        while waiting:
            found.add(name := waiting.pop())
            waiting |= (depended[name] & depended.keys()) - found
        return {name: depended[name] for name in sorted(found)}

    def found(self, pattern: re.Pattern, in_build: bool = False) -> list[str]:
        """Return what a pattern finds in the program's sources, and `in_build` in build scripts too, each once."""
        texts = self.texts.values() if in_build else self.program()
        return list(dict.fromkeys(each for text in texts for each in pattern.findall(text)))

    def other_mains(self) -> list[str]:
        """Return the features without which another `main` is built, that does something too."""
        text = self.texts.get(Path(self.target["src_path"]), "")
        return sorted({*_MAIN_BEHIND.findall(text)}.intersection(_MAIN_WITHOUT.findall(text)))

    def package_of(self, path: Path) -> dict[str, Any]:
        """Return the package that a source is of."""
        folders = {folder_of(each): each for each in [*self.linked, self.package]}
        return next((folders[each] for each in path.parents if each in folders), self.package)

    @cached_property
    def folders(self) -> set[Path]:
        """Return the folders that the program's sources are in, and those above these."""
        return {parent for path in self.texts.keys() - self.scripts for parent in path.parents}

    def script(self, package: dict[str, Any] | None = None) -> list[str]:
        """Return the texts of the build scripts, or of those of one package."""
        of_all = [(path, text) for path, text in self.texts.items() if path in self.scripts]
        return [text for path, text in of_all if package in (None, self.package_of(path))]

    def program(self) -> list[str]:
        """Return the texts of all but the build scripts."""
        return [text for path, text in self.texts.items() if path not in self.scripts]

    def dependencies(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the dependencies of the package and of those that it is linked with, as cargo describes them: of a
        kind ("build", or None for those of the program), without those of other systems, and those that no feature
        turns on which is on by default or that the binary requires; with the features of theirs that such a one turns
        on."""
        needed = self.target.get("required-features", [])
        own = [(self.package, needed), *((each, []) for each in self.linked)]
        features_on = [(package, turned_on(package, features)) for package, features in own]
        return [
            each | {"features": [*each.get("features", []), *_features(each, on)]}
            for package, on in features_on
            for each in package["dependencies"]
            if each.get("kind") == kind and _is_used(each, on)
        ]

    def features_off(self) -> set[str]:
        """Return what features of the package would turn on that are not on by default or required by the binary."""
        features = self.package.get("features", {})
        return set().union(*features.values()) - turned_on(self.package, self.target.get("required-features", []))

    def uses(self) -> set[str]:
        """Return the names of the program's dependencies, as `dependencies` has them."""
        return {each["name"] for each in self.dependencies()}

    def called_in_build(self) -> set[str]:
        """Return the programs that build scripts call by their names."""
        text = "\n".join(self.script())
        return {*self.called_by_scripts(), *(name for names in _CALLED_ELSE.findall(text) for name in names if name)}

    def called_by_scripts(self) -> set[str]:
        """Return the programs that are such for sure among those that build scripts call by their names."""
        return _called("\n".join(self.script())) - _OTHER_SYSTEMS

    def beside(self) -> list[str]:
        """Return the other binaries of the package that the program calls, or looks for beside itself."""
        names = [each["name"] for each in self.package.get("targets", ()) if "bin" in each["kind"]]
        texts = [text for text in self.program() if "current_exe" in text]
        looks = r'\.(?:join|push|\w*file_name)\(\s*(?:format!\(\s*)?"{}(?:\{{\w*\}}|\.exe)?"'
        beside = {name for name in names for text in texts if re.search(looks.format(re.escape(name)), text)}
        return [name for name in names if name != self.target["name"] and name in {*beside, *self._calls}]

    @cached_property
    def _calls(self) -> set[str]:
        texts = [text for text in self.program() if _PROCESS.search(text)]
        without = [
            re.sub(r"(?<!process::)\bCommand::new", "", each) if _OF_CLAP.search(each) else each for each in texts
        ]
        return _called("\n".join(without))

    def called_in_use(self) -> list[str]:
        """Return the programs that the program calls by their names when it runs."""
        own = {self.package.get("name"), self.target["name"], *self.beside()}
        return sorted(each for each in self._calls - _OTHER_SYSTEMS - own if not each.endswith(".exe"))


def read(
    root: Path,
    directory: Path,
    package: dict[str, Any],
    target: dict[str, Any],
    described: Callable[[Path], list[dict]],
) -> Crate:
    """Read a crate; `described` tells the packages of the workspace that a folder is in. Comments and unit tests are
    left out, and so are tests, benches, examples and other binaries of the package; of what it is linked with the
    libraries are there."""
    folder, known = folder_of(package), {folder_of(each): each for each in described(directory)}
    folders = _beside(package, known, described)
    linked = [each for at, each in known.items() if folders.get(at) is False]
    outside = [each for each in folders.keys() & known.keys() if not each.is_relative_to(root)]
    walked = sorted({place / each for place in (root, *outside) for each in sources.walk(place)})
    crates = {path.parent for path in walked if path.name == "Cargo.toml"} | {folder}
    first = Path(target.get("src_path", ""))  # what a program reads first is where it begins
    scripts, apart = set(), _apart(package, target).union(*(_apart(each, {}) for each in linked))
    libraries = {at: _library(each) for at, each in known.items()}
    libraries[folder] = [folder / "src", first.parent, *_library(package)]
    of_scripts = set().union(*(places(each, {"custom-build"}) for each in (package, *linked)))
    waiting, there = [], {path for path in walked if path.suffix == ".rs" and path.is_file()}
    for path in sorted(there, key=lambda path: (path != first, path)):
        own = next((each for each in path.parents if each in crates), root)
        is_script = bool(folders.get(own)) or not of_scripts.isdisjoint((path, *path.parents))
        is_library = any(path.is_relative_to(each) for each in libraries.get(own) or [own / "src"])
        is_linked = is_library and apart.isdisjoint((path, *path.parents))
        if (own == folder or own in folders) and (is_linked or is_script):
            waiting.append(path)
            scripts |= {path} if is_script else set()
    texts, of_others = _texts(waiting, scripts, there, {first})
    # What is called as a build script and is none may be the program's.
    called = {path for path in there if path == folder / "build.rs" or path.parent in {folder / "build"} - crates}
    texts |= _texts(sorted(called - texts.keys()), scripts, there, set())[0]
    texts = {path: text for path, text in texts.items() if of_others.isdisjoint((path, *path.parents))}
    behind = {*_MAIN_BEHIND.findall(texts.get(first, ""))}.difference(_MAIN_WITHOUT.findall(texts.get(first, "")))
    target = target | {"required-features": sorted({*target.get("required-features", []), *behind})}
    built_of = tree(root, directory, package, target["required-features"])
    return Crate(package, target, directory, root, linked, texts, frozenset(scripts), built_of)


def folder_of(package: dict[str, Any]) -> Path:
    """Return the folder of a package, as cargo describes it."""
    return Path(package["manifest_path"]).parent


def _called(text: str) -> set[str]:
    values, often = dict(_IS.findall(text)), Counter(re.findall(_SET, text))
    by_name = {values[name] for name in _CALLED_BY_NAME.findall(text) if name in values and often[name] == 1}
    return {*CALLED.findall(text), *_LOOKED_UP.findall(text), *by_name}


def _texts(
    waiting: list[Path], scripts: set[Path], there: set[Path], roots: set[Path]
) -> tuple[dict[Path, str], set[Path]]:
    """The texts of sources, and of others that are `there` and that they name by their paths, which are `scripts` where
    one of these names them; and where modules are that no release for Linux has."""
    texts, of_others = {}, set()
    for path in waiting:
        text = _COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace"))
        texts[path], modules = _without_others(path, text, path in roots)
        of_others |= modules
        named = {Path(os.path.normpath(path.parent / name)) for name in _SOURCE.findall(texts[path])} & there
        waiting += (new := sorted(named.difference(waiting)))
        scripts |= {*new} if path in scripts else set()
    return texts, of_others


def _without_others(path: Path, text: str, is_root: bool) -> tuple[str, set[Path]]:
    """A source without what no release for Linux has, and where the modules are that it has for others alone."""
    at, modules = 0, set()
    while found := _CONDITIONAL.search(text, at):
        at = found.end()
        if _is_of_others(next(filter(None, found.groups()), "")):
            depth, end = 0, at if found[0].endswith(";") else len(text)
            for brace in _BRACE.finditer(text, at) if end > at else ():
                depth += {"{": 1, "}": -1}.get(brace[2], 0)
                if brace[2] == "}" and not depth:
                    end = brace.end()
                    break
            modules |= {*_MODULE.findall(text[found.start() : end])}
            text, at = text[: found.start()] + text[end:], found.start()
    modules -= {*_MODULE.findall(text)}  # what is declared for Linux too
    below = path.parent if is_root or path.stem in ("main", "lib", "mod") else path.with_suffix("")
    named = {path.parent / place for place, _ in modules if place}
    return text, named.union(*((below / name, below / f"{name}.rs") for place, name in modules if not place))


def _is_of_others(condition: str) -> bool:
    """Whether a condition holds for unit tests alone, or for no target of the lab's whatever the features."""
    if not _OF_SYSTEM.fullmatch(condition):
        return bool(re.match(r"(?:all\(\s*)?test\b", condition))
    with suppress(LabError):
        return not any(cargo_config.holds(f"cfg({condition})", each) for each in TARGETS)
    return False


def _apart(package: dict[str, Any], target: dict[str, Any]) -> set[Path]:
    """Where the sources of other binaries than the target are, and of tests, benches and examples."""
    binaries = [each for each in package["targets"] if "bin" in each["kind"] and each["name"] != target.get("name")]
    others = {Path(each["src_path"]) for each in binaries}
    folders = {each.parent for each in others if each.name == "main.rs" and each.parent.parent.name == "bin"}
    return others | folders | places(package, {"test", "bench", "example"})


def _library(package: dict[str, Any]) -> list[Path]:
    """The folder where a package has its library."""
    others = {"bin", "test", "bench", "example", "custom-build"}
    return [Path(each["src_path"]).parent for each in package["targets"] if others.isdisjoint(each["kind"])]


def _beside(
    package: dict[str, Any], known: dict[Path, dict[str, Any]], described: Callable[[Path], list[dict]]
) -> dict[Path, bool]:
    """The folders of what a package depends on by its path, and of what that depends on in turn, as cargo tells; with
    whether only build scripts use it. Packages of other workspaces become known."""
    waiting, found = [(package, False)], {}
    while waiting:
        one, of_script = waiting.pop()
        for each in (each for each in one["dependencies"] if each.get("path") and each.get("kind") != "dev"):
            folder, only = Path(each["path"]), of_script or each.get("kind") == "build"
            if folder not in found or found[folder] > only:
                found[folder] = only
                if folder not in known:  # in no workspace of this
                    known |= {folder_of(each): each for each in described(folder)}
                if folder in known:
                    waiting.append((known[folder], only))
    return found


def turned_on(package: dict[str, Any], features: list[str]) -> set[str]:
    """Return all that a package's default features and these turn on."""
    known = package.get("features", {})
    return set().union(*(brings(known, each) for each in (*known.get("default", []), *features)))


def _features(dependency: dict[str, Any], on: set[str]) -> list[str]:
    """The features of a dependency that those of its package turn on (`NAME/FEATURE`)."""
    name = dependency.get("rename") or dependency["name"]
    split = sorted(each.partition("/") for each in on)
    return [feature for of, _, feature in split if feature and of.rstrip("?") == name]


def _is_used(dependency: dict[str, Any], on: set[str]) -> bool:
    """Whether a dependency is in a build for one of the lab's targets, with what features have turned on."""
    is_on = not dependency.get("optional") or f"dep:{dependency.get('rename') or dependency['name']}" in on
    return is_on and is_of_here(dependency)


def is_of_here(dependency: dict[str, Any]) -> bool:
    """Return whether a dependency, as cargo describes it, is one for any of the lab's targets."""
    if not (of_target := dependency.get("target")):
        return True
    try:
        return any(cargo_config.holds(of_target, each) if "(" in of_target else of_target == each for each in TARGETS)
    except LabError:
        return True
