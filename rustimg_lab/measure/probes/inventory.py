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
    """What is counted in the image, and what an SBOM has of it: its database's packages, and its program's crates."""
    named = {each["name"]: each for each in json.loads(inventory)["packages"]}
    packages, _ = package_db.read_packages(image)
    unseen = [name for name in packages if name not in named]
    told = f"{len(packages)} packages; not in the SBOM: {' '.join(unseen[:5]) or 'none'}"
    crates = [name for name, each in named.items() if "pkg:cargo/" in json.dumps(each.get("externalRefs", []))]
    return [
        *counts(files),
        Observation(metrics.PACKAGES, len(packages)),
        Observation(metrics.CRATES_SEEN, len(crates)),
        Observation("sbom", FAILED if unseen else PASSED, detail=told),
        Observation("crates", PASSED if crates else FAILED, detail=f"{len(crates)} crates"),
    ]


def counts(files: list[tarfile.TarInfo]) -> list[Observation]:
    """Count the files and the programs among the files of an image."""
    regular = [each for each in files if each.isfile()]
    executables = sum(bool(each.mode & 0o111) for each in regular)
    return [Observation(metrics.FILES, len(regular)), Observation(metrics.EXECUTABLES, executables)]


def sbom(image: str) -> str:
    """The software bill of materials of an image (SPDX, as JSON), by syft. Raises LabError. syft reads an archive whose
    layers are all unpacked; what an engine with containerd's store saves it takes for an error."""
    with process.work_folder() as folder, images.saved(image) as (config, layers):
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
        quiet = {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
        command = [syft, "scan", f"docker-archive:{path}", "--output=spdx-json", "--quiet"]
        return process.run(command, env=quiet, timeout=SBOM_TIMEOUT_S)
