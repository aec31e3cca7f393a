"""What an image has beside its program, as `lab.toml` names it: checked, and as lines of the Dockerfile."""

import json
import os
import posixpath
import re
import shlex
from pathlib import Path
from typing import Any

from rustimg_lab.build import sources
from rustimg_lab.errors import LabError
from rustimg_lab.model import toml
from rustimg_lab.model.app import Image
from rustimg_lab.model.extras import ADDITIONS

KEYS = {key: known for key, known in toml.types(Image).items() if key != "places"}
# Links in Debian and in what is made of it, one of which BuildKit cannot write a folder over; on others a folder too.
_LINKS = {
    "bin": "/usr/bin", "sbin": "/usr/sbin", "lib": "/usr/lib", "lib64": "/usr/lib64", "var/run": "/run",
    "var/lock": "/run/lock",
}  # fmt: skip
# A name ends at its first `=`, in ENV and in LABEL; labels of this prefix are how the lab knows its images.
_NAMES = {"environment": r"[A-Za-z_][A-Za-z0-9_.-]*", "labels": r"(?!io\.rustimg-lab\.)[^=]+"}


def check(told: dict[str, Any]) -> None:
    """Raises LabError, with the key, on a text that a Dockerfile cannot hold, and on what is no name, port or path."""
    for key, value in ((key, told[key]) for key in KEYS if key in told):
        for each in [*value, *value.values()] if isinstance(value, dict) else [value] if key == "workdir" else value:
            if key == "ports" and (type(each) is not int or not 0 < each < 1 << 16):
                raise LabError(f"'ports': {each!r} is no number from 1 to 65535")
            if key != "ports" and not toml.is_line(each):
                raise LabError(f"'{key}': {each!r} is no text of one line")
            if key in ("workdir", "volumes") and not each.startswith("/"):
                raise LabError(f"'{key}': '{each}' is not absolute: it has to begin with /")
        for name in value if key in _NAMES else ():
            if not re.fullmatch(_NAMES[key], name):
                raise LabError(f"'{key}': '{name}' cannot be such a name")


def read(told: dict[str, Any], context: Path, directory: Path, program: str) -> Image:
    """Return what the file in `directory` says, for the program at /`program`/`program`; `context` is the folder that
    builds get. Raises LabError on a source that they do not get, and on a place that no file can have."""
    lab_own = (f"/{program}/{program}", "/etc/passwd", "/etc/group")

    def place(key: str, text: str, workdir: str = "/") -> str:
        below = posixpath.normpath(posixpath.join(workdir, text).lstrip("/") or ".")
        if below.split("/")[0] == ".." or (below == "." and key in ("writable", "volumes")):
            raise LabError(f"'{key}': '{text}' is not below the image's /")
        if lost := [each for each in lab_own if f"/{below}/".startswith(f"{each}/")]:
            raise LabError(f"'{key}': '{text}' would overwrite {lost[0]}, which the lab makes")
        for link, leads_to in _LINKS.items():
            if f"{below}/".startswith(f"{link}/"):
                better = f"{leads_to}{below.removeprefix(link)}"
                raise LabError(f"'{key}': '{text}': /{link} is a link in images of Debian; the place is {better}")
        return posixpath.normpath(f"/{below}")

    workdir = place("workdir", told.get("workdir", "/"))
    sent, files = list(sources.walk(context)) if told.get("files") else [], []
    taken: dict[str, str] = {}
    for source, target in told.get("files", {}).items():
        name, found = _found(source, context, directory, sent)
        if (context / name).is_file() and re.fullmatch(r"(.*/)?\.?", target):  # a file, into a folder
            target = posixpath.join(target, name.name)
        for each in found:
            at = place("files", posixpath.join(target, *each.relative_to(name).parts), workdir)
            if (context / each).is_file() and taken.setdefault(at, source) != source:
                raise LabError(f"'files': {source}: {taken[at]} is at {at} already: name another place")
        files.append((str(name), place("files", target, workdir)))
    literal = ("ports", "healthcheck", "environment", "labels")
    texts = toml.tuples({key: told[key] for key in literal if key in told})
    texts |= {key: tuple(place(key, each, workdir) for each in told.get(key, ())) for key in ("writable", "volumes")}
    folders = [workdir, *texts["writable"], *texts["volumes"], *map(posixpath.dirname, (*lab_own, *taken))]
    for at in taken:
        if any(f"{each}/".startswith(f"{at}/") for each in folders):
            raise LabError(f"'files': {taken[at]}: {at} is a folder in the image: name a place in it, as {at}/")
    is_relevant = {"files", "workdir", "writable"} & told.keys()  # a base may have another one
    return Image(tuple(files), workdir if is_relevant else "", places=tuple(taken), **texts)


def _found(source: str, context: Path, directory: Path, sent: list[Path]) -> tuple[Path, list[Path]]:
    """A source's path below the context, and the files and links of it that builds get. Raises LabError where they get
    none of them, or a link that leads to nothing there."""
    path = Path(os.path.normpath(directory / source))
    name = path.relative_to(context) if path.is_relative_to(context) else path
    own = [each for each in sent if name in (each, *each.parents)]
    links = [each for each in own if sources.leads_out(context, each) or not (context / each).exists()]
    files = [each for each in own if (context / each).is_symlink() or not (context / each).is_dir()]
    lost = [each for each in (path, *path.rglob("*")) if each.is_file()] if name != path and not files else []
    if not own or links or lost:
        reason = next(filter(None, (sources.why_missing(context, each) for each in [path, *links, *lost])), "")
        raise LabError(f"'files': {source}: {reason or f'builds get no {(links or [path])[0]}: is it there?'}")
    return name, files


def refuse(image: Image, program: str, additions: tuple[str, ...]) -> None:
    """Raise LabError when the program's folder cannot be in an image, and when what `--with` adds would be at the place
    of a file of the app's."""
    if program in (*_LINKS, "proc", "sys", "dev", "tmp"):
        raise LabError(
            f"the program would be /{program}/{program}, but /{program} is a link in images of Debian, or the system's "
            "in a container: give its binary another name in Cargo.toml"
        )
    added = [(name, place.format(app=program)) for name in additions for place in ADDITIONS[name].places]
    for each, place in added:
        for at in (f"/{program}/{program}", *image.places):
            if f"{place}/".startswith(f"{at}/") or (place.endswith("/") and at.startswith(place)):
                raise LabError(f"--with {each}: it makes {place}, and the app has {at}: leave it out, or move the file")


def commands(image: Image) -> list[str]:
    """Return the shell commands of the builder stage that lay these out in /build/rootfs, from the sources in /src. All
    may read the files; what the program writes to is its user's. Links are followed: what they lead to may be
    elsewhere."""

    def quoted(*places: str) -> str:
        return shlex.join(f"/build/rootfs{each}" for each in places)

    made = [f"mkdir -p {quoted(image.workdir)}"] if image.workdir.strip("/") else []
    for source, place in image.files:
        made.append(f"mkdir -p {quoted(posixpath.dirname(place))}")
        made.append(f"cp -rLT {shlex.quote(f'/src/{source}')} {quoted(place)}; chmod -R a+rX {quoted(place)}")
    if owned := dict.fromkeys([*image.writable, *image.volumes]):
        made.append(f"mkdir -p {quoted(*owned)}; chown -R 10001:10001 {quoted(*owned)}")
    below = [f"{each}/" for each in (image.workdir, *dict(image.files).values(), *owned)]
    shared = [each for each in ("/tmp", "/var/tmp") if any(place.startswith(f"{each}/") for place in below)]
    return made + [f"chmod 1777 {quoted(each)}" for each in shared]  # a base's own would get this one's mode


def settings(image: Image) -> list[str]:
    """Return the instructions of the last stage. What they hold is literal: no `$` is a variable of the Dockerfile."""

    def quoted(text: str) -> str:
        return text if re.fullmatch(r"[\w./:@%+,-]+", text) else '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'

    return [
        *([f"WORKDIR {quoted(image.workdir)}"] if image.workdir else []),
        *(f"ENV {name}={quoted(value)}" for name, value in image.environment),
        *([f"EXPOSE {' '.join(map(str, image.ports))}"] if image.ports else []),
        *([f"VOLUME {json.dumps([quoted(each) for each in image.volumes])}"] if image.volumes else []),
        *([f"HEALTHCHECK CMD {json.dumps(image.healthcheck)}"] if image.healthcheck else []),
        *(f"LABEL {quoted(name)}={quoted(value)}" for name, value in image.labels),
    ]
