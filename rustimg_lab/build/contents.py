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


def check(table: dict[str, Any]) -> None:
    """Raise LabError, with the key, on a text that a Dockerfile cannot have, or an invalid name, port or path."""
    for key, value in ((key, table[key]) for key in KEYS if key in table):
        for item in [*value, *value.values()] if isinstance(value, dict) else [value] if key == "workdir" else value:
            if key == "ports" and (type(item) is not int or not 0 < item < 1 << 16):
                raise LabError(f"'ports': {item!r} is no number from 1 to 65535")
            if key != "ports" and not toml.is_line(item):
                raise LabError(f"'{key}': {item!r} is no text of one line")
            if key in ("workdir", "volumes") and not item.startswith("/"):
                raise LabError(f"'{key}': '{item}' is not absolute: it has to begin with /")
        for name in value if key in _NAMES else ():
            if not re.fullmatch(_NAMES[key], name):
                raise LabError(f"'{key}': '{name}' cannot be such a name")


def read(table: dict[str, Any], context: Path, directory: Path, program: str) -> Image:
    """Return the contents of an image from the table of the `lab.toml` in `directory`, for the program at
    /`program`/`program`. `context` is the folder that builds get. Raises LabError on a source that builds do not get,
    and on a place that no file can have."""
    lab_paths = (f"/{program}/{program}", "/etc/passwd", "/etc/group")

    def place(key: str, text: str, workdir: str = "/") -> str:
        path = posixpath.normpath(posixpath.join(workdir, text).lstrip("/") or ".")
        if path.split("/")[0] == ".." or (path == "." and key in ("writable", "volumes")):
            raise LabError(f"'{key}': '{text}' is not below the image's /")
        if clashes := [lab_path for lab_path in lab_paths if f"/{path}/".startswith(f"{lab_path}/")]:
            raise LabError(f"'{key}': '{text}' would overwrite {clashes[0]}, which the lab makes")
        for link, leads_to in _LINKS.items():
            if f"{path}/".startswith(f"{link}/"):
                better = f"{leads_to}{path.removeprefix(link)}"
                raise LabError(f"'{key}': '{text}': /{link} is a link in images of Debian; the place is {better}")
        return posixpath.normpath(f"/{path}")

    workdir = place("workdir", table.get("workdir", "/"))
    sent, files = list(sources.walk(context)) if table.get("files") else [], []
    taken: dict[str, str] = {}
    for source, target in table.get("files", {}).items():
        name, sent_files = _find_source(source, context, directory, sent)
        if (context / name).is_file() and re.fullmatch(r"(.*/)?\.?", target):  # a file, into a folder
            target = posixpath.join(target, name.name)
        for file in sent_files:
            path = place("files", posixpath.join(target, *file.relative_to(name).parts), workdir)
            if (context / file).is_file() and taken.setdefault(path, source) != source:
                raise LabError(f"'files': {source}: {taken[path]} is at {path} already: name another place")
        files.append((str(name), place("files", target, workdir)))
    literal = ("ports", "healthcheck", "environment", "labels")
    texts = toml.freeze({key: table[key] for key in literal if key in table})
    texts |= {key: tuple(place(key, text, workdir) for text in table.get(key, ())) for key in ("writable", "volumes")}
    folders = [workdir, *texts["writable"], *texts["volumes"], *map(posixpath.dirname, (*lab_paths, *taken))]
    for path in taken:
        if any(f"{folder}/".startswith(f"{path}/") for folder in folders):
            raise LabError(f"'files': {taken[path]}: {path} is a folder in the image: name a place in it, as {path}/")
    is_relevant = {"files", "workdir", "writable"} & table.keys()  # a base may have another one
    return Image(tuple(files), workdir if is_relevant else "", places=tuple(taken), **texts)


def _find_source(source: str, context: Path, directory: Path, sent: list[Path]) -> tuple[Path, list[Path]]:
    """A source's path below the context, and the files and links of it that builds get. Raises LabError where they get
    none of them, or a link that leads to nothing there."""
    path = Path(os.path.normpath(directory / source))
    name = path.relative_to(context) if path.is_relative_to(context) else path
    entries = [entry for entry in sent if name in (entry, *entry.parents)]
    links = [entry for entry in entries if sources.leads_out(context, entry) or not (context / entry).exists()]
    files = [entry for entry in entries if (context / entry).is_symlink() or not (context / entry).is_dir()]
    lost = [file for file in (path, *path.rglob("*")) if file.is_file()] if name != path and not files else []
    if not entries or links or lost:
        reason = next(filter(None, (sources.why_missing(context, item) for item in [path, *links, *lost])), "")
        raise LabError(f"'files': {source}: {reason or f'builds get no {(links or [path])[0]}: is it there?'}")
    return name, files


def refuse(image: Image, program: str, additions: tuple[str, ...]) -> None:
    """Raise LabError when the program's folder cannot be in an image, or an addition (`--with`) takes the place of the
    app's file."""
    if program in (*_LINKS, "proc", "sys", "dev", "tmp"):
        raise LabError(
            f"the program would be /{program}/{program}, but /{program} is a link in images of Debian, or the system's "
            "in a container: give its binary another name in Cargo.toml"
        )
    added = [(name, place.format(app=program)) for name in additions for place in ADDITIONS[name].places]
    for name, place in added:
        for path in (f"/{program}/{program}", *image.places):
            if f"{place}/".startswith(f"{path}/") or (place.endswith("/") and path.startswith(place)):
                raise LabError(
                    f"--with {name}: it makes {place}, and the app has {path}: leave it out, or move the file"
                )


def commands(image: Image) -> list[str]:
    """Return the shell commands of the builder stage that lay out the image's contents in /build/rootfs, from the
    sources in /src. All may read the files; the program's user owns what the program writes to. Links are followed,
    since their targets may be elsewhere."""

    def quoted(*places: str) -> str:
        return shlex.join(f"/build/rootfs{place}" for place in places)

    lines = [f"mkdir -p {quoted(image.workdir)}"] if image.workdir.strip("/") else []
    for source, place in image.files:
        lines.append(f"mkdir -p {quoted(posixpath.dirname(place))}")
        lines.append(f"cp -rLT {shlex.quote(f'/src/{source}')} {quoted(place)}; chmod -R a+rX {quoted(place)}")
    if owned := dict.fromkeys([*image.writable, *image.volumes]):
        lines.append(f"mkdir -p {quoted(*owned)}; chown -R 10001:10001 {quoted(*owned)}")
    folders = [f"{path}/" for path in (image.workdir, *dict(image.files).values(), *owned)]
    shared = [folder for folder in ("/tmp", "/var/tmp") if any(place.startswith(f"{folder}/") for place in folders)]
    return lines + [f"chmod 1777 {quoted(folder)}" for folder in shared]  # a base's own would get this one's mode


def settings(image: Image) -> list[str]:
    """Return the instructions of the last stage. Their values are literal: no `$` is a variable of the Dockerfile."""

    def quoted(text: str) -> str:
        return text if re.fullmatch(r"[\w./:@%+,-]+", text) else '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'

    return [
        *([f"WORKDIR {quoted(image.workdir)}"] if image.workdir else []),
        *(f"ENV {name}={quoted(value)}" for name, value in image.environment),
        *([f"EXPOSE {' '.join(map(str, image.ports))}"] if image.ports else []),
        *([f"VOLUME {json.dumps([quoted(volume) for volume in image.volumes])}"] if image.volumes else []),
        *([f"HEALTHCHECK CMD {json.dumps(image.healthcheck)}"] if image.healthcheck else []),
        *(f"LABEL {quoted(name)}={quoted(value)}" for name, value in image.labels),
    ]
