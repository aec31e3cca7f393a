"""An archive that the user names -> an image: of a root file system, or as `docker save` writes it."""

import io
import json
import lzma
import tarfile
import zlib
from pathlib import Path

from docker.models.images import Image
from elftools.elf.enums import ENUM_E_MACHINE

from rustimg_lab.build import mmdebstrap
from rustimg_lab.build.origins import ImageRequest, Origin
from rustimg_lab.engine import client, images
from rustimg_lab.errors import LabError
from rustimg_lab.host import files, process
from rustimg_lab.model.architecture import NATIVE, Architecture
from rustimg_lab.paths import STATE

_UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
ELF_MAGIC, MANIFEST_LIMIT = b"\x7fELF", 16 << 20
_NAMES = ("repositories", "index.json", "oci-layout")  # where an archive says what its image is called


def detect(source: str) -> bool:
    """Return whether a source is the path of an archive, by how it begins or ends; no image's name does so."""
    endings = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")
    return source.startswith(("/", "./", "../", "~")) or source.endswith(endings)


def obtain(request: ImageRequest) -> Origin:
    """Import an archive unless the engine has its image. Raises LabError as `load` does."""
    path = Path(request.origin.reference).expanduser()
    digest = files.sha256(path)
    image_name = request.own_name(digest, "archive-")
    if not images.find_image(image_name):
        request.say(f"{request.name}: importing {path.name}")
        load(path, request.name, image_name.rpartition(":")[2], request.architecture)
    return request.obtained(image_name, source=f"archive {path.name}", reference=f"sha256:{digest}")


def load(path: Path, name: str, tag: str, architecture: Architecture = NATIVE) -> Image:
    """Import the image that an archive contains, under the lab's own name only. An image of the archive's own name in
    the engine stays as it is. Raises LabError when the file is no archive, is cut off, contains several images, or has
    programs for another machine; and DiskFull."""
    try:
        with tarfile.open(path) as archive:
            members = archive.getmembers()  # to the end: an archive that is cut off must not become half a base
            if any(member.name == "manifest.json" for member in members):
                return _load_saved(archive, path, name, tag)
            if any(member.name.removeprefix("./") == "index.json" for member in members):
                raise LabError(f"{path}: an OCI layout without manifest.json; `docker save` writes one with")
            _check_machine(archive, path, architecture)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and files.is_full(error):
            raise files.DiskFull(f"{path} could not be unpacked", [STATE], path.stat().st_size) from error
        form, message = "a whole tar archive, plain or compressed with gzip, bzip2 or xz", str(error).splitlines()[0]
        raise LabError(f"{path}: not {form} ({message})") from None
    unpacked_bytes = sum(member.size for member in members)
    return mmdebstrap.import_rootfs(path, unpacked_bytes, name, tag, [mmdebstrap.PATH], architecture)


def _check_machine(archive: tarfile.TarFile, path: Path, architecture: Architecture) -> None:
    """Refuses programs of another architecture, by the first one: an import would not notice."""
    programs = [member for member in archive if member.isfile() and member.mode & 0o100]
    if not programs:
        raise LabError(f"{path}: holds no program; is it the archive of a root file system?")
    for member in programs:
        head = archive.extractfile(member).read(20)  # no more: a hole in it may be a terabyte
        if head[:4] == ELF_MAGIC:  # else it is a script
            machine = int.from_bytes(head[18:20], "little" if head[5:6] == b"\1" else "big")
            if machine != ENUM_E_MACHINE[architecture.elf]:
                machine_names = {number: name for name, number in ENUM_E_MACHINE.items()}
                machine_name = machine_names.get(machine, f"machine {machine}").removeprefix("EM_")
                raise LabError(f"{path}: {member.name} is for {machine_name}, this base is for {architecture.value}")
            return


def _load_saved(archive: tarfile.TarFile, path: Path, name: str, tag: str) -> Image:
    """Loads what `docker save` wrote, rewritten so that the image gets no name but ours."""
    try:
        manifest = json.loads(archive.extractfile("manifest.json").read(MANIFEST_LIMIT))
        names = [name for image in manifest for name in image.get("RepoTags") or ["one without a name"]]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise LabError(f"{path}: its manifest.json is none; `docker save` writes one") from None
    if len(manifest) != 1:
        contents = f"{len(manifest)} images ({', '.join(map(str, names))})"
        raise LabError(f"{path}: holds {contents}; save the one that is meant")
    image_name = f"{client.repository(name)}:{tag}"
    manifest[0]["RepoTags"] = [image_name]
    with process.work_folder() as folder:
        target_path = folder / "image.tar"
        with tarfile.open(target_path, "w") as target:
            for member in archive:
                if member.name == "manifest.json":
                    content = json.dumps(manifest).encode()
                    member.size = len(content)
                    target.addfile(member, io.BytesIO(content))
                elif member.name not in _NAMES:
                    target.addfile(member, archive.extractfile(member) if member.isfile() else None)
        return images.load_image(target_path, image_name)
