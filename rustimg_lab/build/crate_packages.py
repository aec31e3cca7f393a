"""A crate -> the Debian packages that its build needs, as its sources, its crates and cargo's configuration tell."""

import functools
import re
from typing import Any

from rustimg_lab.build import cargo_config
from rustimg_lab.build.crate import Crate
from rustimg_lab.build.known import KNOWN
from rustimg_lab.model.architecture import TARGETS

NEEDING = {*KNOWN["build_crates"], *KNOWN["tool_crates"]}  # crates that need one
_LINKED = re.compile(r'\bprobe(?:_library)?\(\s*"([\w.+-]+)"|rustc-link-lib=(?:dylib=)?(\w+)')
_ELSEWHERE = re.compile(r"^cargo-|\.(?:exe|cmd|bat|sh|py)$")  # of other systems, or of the project
_OF_OPENSSL = re.compile("vendor|static-?(?:open)?ssl")  # in what turns on that it is compiled from source


def packages(crate: Crate, configuration: dict[str, Any]) -> list[str]:
    """Return the Debian packages of the programs that the cargo configuration names, and of those that build scripts
    call. Those that locked crates call or link in a build are among them. git for a revision is not: it comes with
    `git = true`."""
    tools = {name for target in TARGETS for name in cargo_config.tools(configuration, target)} | crate.called_in_build()
    names = {KNOWN["programs"][name] for name in tools - {"git"} if name in KNOWN["programs"]}
    names |= {"git"} if _fetches_by_git(crate, configuration) else set()
    libraries = {name for text in crate.script_texts() for groups in _LINKED.findall(text) for name in groups if name}
    names |= {KNOWN["libraries"][name] for name in map(str.lower, libraries) if name in KNOWN["libraries"]}
    return sorted(names | _crate_packages(crate))


def unknown_programs(crate: Crate) -> list[str]:
    """Return the programs that build scripts call, and whose Debian package is not known."""
    known_programs = {*KNOWN["programs"], *KNOWN["builder_programs"]["names"]}
    return sorted(name for name in crate.called_by_scripts() - known_programs if not _ELSEWHERE.search(name))


def unlocked_names(crate: Crate) -> list[str]:
    """Return what the lockfile lacks of what the manifests say: a package of this version, or a dependency."""
    members = [crate.package, *crate.linked] if any("source" in package for package in crate.lockfile) else []
    names = [f"{member['name']} {member['version']}" for member in members if "version" in member]
    names += [dependency["name"] for member in members for dependency in member["dependencies"]]
    locked = {name for entry in crate.lockfile for name in (entry["name"], f"{entry['name']} {entry.get('version')}")}
    return [name for name in dict.fromkeys(names) if name not in locked]


def _fetches_by_git(crate: Crate, configuration: dict[str, Any]) -> bool:
    """Return whether cargo calls the program git for a dependency; by default cargo fetches it without git."""
    by_program = configuration.get("net", {}).get("git-fetch-with-cli", False)
    return by_program and any(str(package.get("source", "")).startswith("git+") for package in crate.lockfile)


@functools.cache
def _crate_packages(crate: Crate) -> set[str]:
    """The Debian packages of what crates that it depends on call or link in a build."""
    locked, tools = crate.locked, KNOWN["tool_crates"]
    crates = {dependency["name"] for dependency in crate.dependencies("build")}
    crates.update(*(needed for name, needed in locked.items() if name not in KNOWN["called_elsewhere"]["names"]))
    needing = [name for name in locked if name in KNOWN["build_crates"] and not _is_brought(crate, name)]
    return {tools[name] for name in crates & tools.keys()}.union(*(KNOWN["build_crates"][name] for name in needing))


def _is_brought(crate: Crate, name: str) -> bool:
    """Return whether another crate brings the library of this one. If only the lockfile is known, that crate may be
    there for a feature that is off, such as `pq-sys/bundled`. The feature may also be of a crate that turns the other
    on, such as `openssl/vendored`."""
    is_there = crate.locked.keys() & {*KNOWN["brought"].get(name, ())}
    if not is_there and KNOWN["bundles"].get(name) not in crate.locked[name]:
        return False
    features_off, prefixes = crate.features_off(), (f"{name}/", f"{name}?/")
    openssl_features = [feature for feature in features_off if name == "openssl-sys" and _OF_OPENSSL.search(feature)]
    return bool(crate.tree) or not (openssl_features or any(feature.startswith(prefixes) for feature in features_off))
