"""The release and the packages of an image, and the bytes of each package.

Read from the image's own database: dpkg's, that of distroless images (a file per package), or apk's.
"""

import io
import posixpath
import re
import tarfile
from collections import Counter
from typing import IO

from docker.errors import NotFound
from docker.models.containers import Container

from rustimg_lab.engine import containers, images

UNPACKAGED = "(no package)"
_DPKG, _APK = "/var/lib/dpkg/status", "/lib/apk/db/installed"
_RELEASES = ("/usr/lib/os-release", "/etc/os-release")
_LISTS = re.compile(r"var/lib/dpkg/(?:info/([^/:]+)(?::\w+)?\.list|status\.d/([^/]+)\.md5sums)")


def read_packages(image: str) -> tuple[dict[str, str], str]:
    """Return the packages in an image's own database (versions by name), and its release as in os-release ("" for
    none)."""
    with containers.created(image, command=["nothing"]) as container:
        status, status_d, apk = (_read(container, path) for path in (_DPKG, f"{_DPKG}.d", _APK))
        release = next(filter(None, (_read(container, path) for path in _RELEASES)), "")
    versions = _versions(f"{status}\n\n{status_d}", ": ", "Package", "Version") | _versions(apk, ":", "P", "V")
    return dict(sorted(versions.items())), _release(release)


def _versions(database: str, separator: str, name: str, version: str) -> dict[str, str]:
    """The versions by package of a database that has a paragraph for each, with these two fields in it."""
    versions = {}
    for paragraph in database.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if separator in line and line[0] != " "]
        fields = dict(line.split(separator, 1) for line in lines)
        if name in fields and version in fields:
            versions[fields[name]] = fields[version]
    return versions


def package_bytes(image: str) -> dict[str, int]:
    """Return the bytes of an image's files by package, largest first. Those of no package are last, as `UNPACKAGED`."""
    sizes: dict[str, int] = {}
    links: dict[str, str] = {}  # at the top only: /lib is usr/lib, whatever a package calls it
    owners: dict[str, str] = {}
    with images.open_layers(image) as (_, layers):
        for layer in layers:
            with tarfile.open(fileobj=layer) as files:
                for member in files:
                    path = member.name.removeprefix("./")
                    if member.issym() and "/" not in path:
                        links[path] = member.linkname
                    elif member.isfile():
                        sizes[path] = member.size
                        owners |= _paths_in_list(path, files.extractfile(member))
    owners = {_resolve_links(path, links): package for path, package in owners.items()}
    totals = Counter()
    for path, size in sizes.items():
        totals[owners.get(path, UNPACKAGED)] += size
    unpackaged_bytes = totals.pop(UNPACKAGED, 0)
    return dict(totals.most_common()) | {UNPACKAGED: unpackaged_bytes}


def _paths_in_list(path: str, file: IO[bytes]) -> dict[str, str]:
    """The packages by path that a file names, where it is a list of a package's files; others are not read."""
    if match := _LISTS.fullmatch(path):
        lines = file.read().decode(errors="replace").splitlines()
        return dict.fromkeys((line.split("  ", 1)[-1].lstrip("/") for line in lines), match[1] or match[2])
    return _paths_in_apk(file.read().decode(errors="replace")) if path.endswith("lib/apk/db/installed") else {}


def _paths_in_apk(database: str) -> dict[str, str]:
    """The packages by path that apk's database names: P: a package, F: a folder of it, R: a file in that."""
    owners, package, folder = {}, "", ""
    for line in database.splitlines():
        kind, _, value = line.partition(":")
        if kind == "P":
            package = value
        elif kind == "F":
            folder = value
        elif kind == "R":
            owners[posixpath.join(folder, value)] = package
    return owners


def _resolve_links(path: str, links: dict[str, str]) -> str:
    top, _, tail = path.partition("/")
    return posixpath.join(links[top].lstrip("/"), tail) if top in links and tail else path


def _release(text: str) -> str:
    """The release in an os-release file: its pretty name, and its exact version where the name leaves that out."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name, version = (fields.get(key, "").strip("\"'") for key in ("PRETTY_NAME", "VERSION_ID"))
    return f"{name} ({version})" if version and version not in name else name


def _read(container: Container, path: str) -> str:
    """The text of a file in a container, or of all files of a folder with an empty line between; "" if absent."""
    try:
        archive = io.BytesIO(b"".join(container.get_archive(path)[0]))
    except NotFound:
        return ""
    with tarfile.open(fileobj=archive) as files:
        texts = [files.extractfile(member).read().decode(errors="replace") for member in files if member.isfile()]
    return "\n\n".join(texts)
