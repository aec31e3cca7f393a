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
    """Return the Debian packages of what the cargo configuration names, of what the build script calls, and of what
    locked crates call or link in a build. git for a revision comes with `git = true`."""
    named = {name for target in TARGETS for name in cargo_config.tools(configuration, target)} | crate.called_in_build()
    found = {KNOWN["programs"][name] for name in named - {"git"} if name in KNOWN["programs"]}
    found |= {"git"} if _fetches_by_git(crate, configuration) else set()
    linked = {name for text in crate.script() for groups in _LINKED.findall(text) for name in groups if name}
    found |= {KNOWN["libraries"][name] for name in map(str.lower, linked) if name in KNOWN["libraries"]}
    return sorted(found | _of_crates(crate))


def unknown(crate: Crate) -> list[str]:
    """Return the programs that build scripts call, and of which nobody here knows the package."""
    known = {*KNOWN["programs"], *KNOWN["builder_programs"]["names"]}
    return sorted(name for name in crate.called_by_scripts() - known if not _ELSEWHERE.search(name))


def not_locked(crate: Crate) -> list[str]:
    """Return what the lockfile lacks of what the manifests say: a package of this version, or a dependency."""
    own = [crate.package, *crate.linked] if any("source" in each for each in crate.lockfile) else []
    named = [f"{each['name']} {each['version']}" for each in own if "version" in each]
    named += [each["name"] for package in own for each in package["dependencies"]]
    there = {name for each in crate.lockfile for name in (each["name"], f"{each['name']} {each.get('version')}")}
    return [each for each in dict.fromkeys(named) if each not in there]


def _fetches_by_git(crate: Crate, configuration: dict[str, Any]) -> bool:
    """Whether cargo calls the program git for a dependency, which it fetches by itself unless it is told otherwise."""
    by_program = configuration.get("net", {}).get("git-fetch-with-cli", False)
    return by_program and any(str(each.get("source", "")).startswith("git+") for each in crate.lockfile)


@functools.cache
def _of_crates(crate: Crate) -> set[str]:
    """The Debian packages of what crates that it depends on call or link in a build."""
    locked, tools = crate.locked, KNOWN["tool_crates"]
    called = {each["name"] for each in crate.dependencies("build")}
    called.update(*(needed for name, needed in locked.items() if name not in KNOWN["called_elsewhere"]["names"]))
    needing = [name for name in locked if name in KNOWN["build_crates"] and not _is_brought(crate, name)]
    return {tools[name] for name in called & tools.keys()}.union(*(KNOWN["build_crates"][name] for name in needing))


def _is_brought(crate: Crate, name: str) -> bool:
    """Whether another crate brings the library of this one. Where only the lockfile is known, that may be for a feature
    which is off, such as `pq-sys/bundled`, or one of another crate that turns it on, such as `openssl/vendored`."""
    is_there = crate.locked.keys() & {*KNOWN["brought"].get(name, ())}
    if not is_there and KNOWN["bundles"].get(name) not in crate.locked[name]:
        return False
    off, of_this = crate.features_off(), (f"{name}/", f"{name}?/")
    by_others = [each for each in off if name == "openssl-sys" and _OF_OPENSSL.search(each)]
    return bool(crate.tree) or not (by_others or any(each.startswith(of_this) for each in off))
