"""What is in an image: an SBOM made of it, and what that has of the packages and crates that are there."""

import io
import json
import sys
import tarfile
from pathlib import Path

from rustimg_lab.build import package_db
from rustimg_lab.engine import images
from rustimg_lab.host import process
from rustimg_lab.host.files import add_file
from rustimg_lab.model import metrics
from rustimg_lab.model.probes import FAILED, PASSED
from rustimg_lab.store.rows import Observation

NAME = "rustimg-lab-probe"  # of the image in the archive that syft reads
SBOM_TIMEOUT_S = 300


def inventory_of(image: str, files: list[tarfile.TarInfo], inventory: str) -> list[Observation]:
    """Return rows on what is in an image: numbers of files, packages and crates, and the outcomes of two probes. `sbom`
    fails when a package of the image's own database is missing in `inventory`, the SBOM as JSON. `crates` fails when
    the SBOM has no crate."""
    entries = {package["name"]: package for package in json.loads(inventory)["packages"]}
    packages, _ = package_db.read_packages(image)
    missing = [name for name in packages if name not in entries]
    detail = f"{len(packages)} packages; not in the SBOM: {' '.join(missing[:5]) or 'none'}"
    crates = [name for name, package in entries.items() if "pkg:cargo/" in json.dumps(package.get("externalRefs", []))]
    return [
        *counts(files),
        Observation(metrics.PACKAGES, len(packages)),
        Observation(metrics.CRATES_SEEN, len(crates)),
        Observation("sbom", FAILED if missing else PASSED, detail=detail),
        Observation("crates", PASSED if crates else FAILED, detail=f"{len(crates)} crates"),
    ]


def counts(files: list[tarfile.TarInfo]) -> list[Observation]:
    """Return two rows: the number of files among `files`, and the number of those that are executable."""
    members = [member for member in files if member.isfile()]
    executables = sum(bool(member.mode & 0o111) for member in members)
    return [Observation(metrics.FILES, len(members)), Observation(metrics.EXECUTABLES, executables)]


def sbom(image: str) -> str:
    """Return the software bill of materials of an image (SPDX, as JSON), as syft writes it. Raises LabError when syft
    fails.

    syft gets an archive whose layers are all unpacked. An engine with containerd's store saves some layers compressed
    and some not, and syft fails on such a mix.
    """
    with process.work_folder() as folder, images.open_layers(image) as (config, layers):
        path = folder / "image.tar"
        with tarfile.open(path, "w") as target:
            names = [f"{number}/layer.tar" for number in range(len(layers))]
            for name, layer in zip(names, layers, strict=True):
                add_file(target, name, layer)
            manifest = [{"Config": "config.json", "RepoTags": [f"{NAME}:sbom"], "Layers": names}]
            for name, content in (("config.json", config), ("manifest.json", manifest)):
                add_file(target, name, io.BytesIO(json.dumps(content).encode()))
        syft = str(Path(sys.executable).parent / "syft")
        # It would ask a host on the internet for newer versions of itself.
        environment = {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
        command = [syft, "scan", f"docker-archive:{path}", "--output=spdx-json", "--quiet"]
        return process.run(command, env=environment, timeout=SBOM_TIMEOUT_S)
