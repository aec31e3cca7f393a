"""A run -> an RO-Crate (https://w3id.org/ro/crate/1.3): its files in one archive, described for people and programs."""

import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rustimg_lab.errors import LabError
from rustimg_lab.model.metrics import METRICS
from rustimg_lab.paths import RECORDED, REPORTS
from rustimg_lab.store import runs
from rustimg_lab.store.runs import RunData

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

ARCHIVE = "ro-crate.zip"
_LICENCE = r"(?!(?:AND|OR|WITH)(?![\w.+-]))[A-Za-z0-9.-]+\+?"
_LICENCES = rf"{_LICENCE}(?: (?:AND|OR|WITH) {_LICENCE})*"  # parentheses are taken out from within
_ROWS = ("One observation a line, as JSON", "application/x-ndjson")
_ENVIRONMENT = ("The machine, the tools, base images by digest, and the plan of each study", "application/json")
_DOCKERFILE = ("The text that a cell's image was built from", "text/plain")


def export(name: str, license: str = "") -> Path:
    """Write a run's rows, environment and Dockerfiles as an RO-Crate below reports/, and return the archive's path.

    `license` is an SPDX expression; a recorded run has the lab's own. Build logs stay out: they may name folders of
    this machine. Raises LabError for a run that is unknown, empty, unreadable or of several machines, and for a single
    architecture. Raises LabError without a licence for a run of the user's own: an RO-Crate must name it."""
    if machines := runs.machines(name):
        raise LabError(f"run '{name}' is of several machines: export each, as {name}{runs.AT}{machines[0]}")
    data, folder = runs.load(name, whole=True), runs.run_path(name)
    if runs.AT in name and folder.parent.name != runs.MACHINES:
        raise LabError(f"a run is exported with all its architectures: export {name.partition(runs.AT)[0]}")
    if data.broken:
        raise LabError(f"run '{name}' is broken: {data.broken[0]}; remove the line, or measure anew")
    if data.rows.empty:
        raise LabError(f"run '{name}' has no rows yet; `./lab run --run {name}` resumes it")
    if not license and folder.is_relative_to(RECORDED):
        license = metadata.metadata("rustimg_lab")["License-Expression"]
    if not license:
        raise LabError(f"an RO-Crate names a licence: under which is run '{name}' passed on? add --license CC-BY-4.0")
    if not _is_expression(license):
        raise LabError(f"--license: '{license}' is no SPDX expression, such as CC-BY-4.0 or 'MIT OR Apache-2.0'")
    archive = REPORTS / name / ARCHIVE
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f".part-{ARCHIVE}")
    try:
        _crate(data, folder, license).write_zip(part)
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)
    return archive


def _is_expression(text: str) -> bool:
    """Return whether a text has the form of an SPDX expression: identifiers, what joins them, and parentheses."""
    while (simpler := re.sub(rf"(?<![^ (])\( ?{_LICENCES} ?\)(?![^ )])", "X", text)) != text:
        text = simpler
    return bool(re.fullmatch(_LICENCES, text))


def _crate(data: RunData, folder: Path, license: str) -> "ROCrate":
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate, environment = ROCrate(), data.environment

    def entity(identifier: str, kind: str, **properties: object) -> ContextEntity:
        return crate.add(ContextEntity(crate, identifier, {"@type": kind, **properties}))

    app = environment.app.get("name", "an app")
    cells = len(data.rows[["architecture", "base", "profile", "allocator"]].drop_duplicates())
    crate.name = f"{data.name}: container images of {app}, measured by rustimg_lab"
    crate.description = (
        f"{len(data.rows):,} observations of {cells} combinations of architecture, base image, build profile and "
        f"allocator, on {environment.machine.get('cpu_model', 'an unknown CPU')}. Trials of a study are rows with its "
        "name."
    )
    license_id = f"https://spdx.org/licenses/{license}" if re.fullmatch(_LICENCE, license) else "#license"
    crate.license = entity(license_id, "CreativeWork", name=license, description=f"SPDX expression: {license}")
    descriptions = {"rows.jsonl": _ROWS, "environment.json": _ENVIRONMENT}
    files = [*(folder / name for name in descriptions), *sorted((folder / "dockerfiles").rglob("Dockerfile.*"))]
    for path in files:
        place = path.relative_to(folder).as_posix()
        description, form = descriptions.get(place, _DOCKERFILE)
        properties = {"name": path.name, "description": description, "encodingFormat": form}
        crate.add_file(path, place, properties=properties, record_size=True)
    metric_units = data.rows[["metric", "unit"]].drop_duplicates("metric").itertuples(index=False)
    labels = {name: METRICS[name].label for name in METRICS if METRICS[name].label}
    crate.root_dataset["variableMeasured"] = [
        entity(f"#metric-{quote(name)}", "PropertyValue", name=name, description=labels.get(name, name), unitText=unit)
        for name, unit in metric_units
    ]
    version = environment.tools.get("lab") or "not recorded"
    lab = entity("#rustimg_lab", "CreativeWork", name="rustimg_lab", version=version)
    action = {"name": "The commands that made the run", "description": "\n".join(environment.commands)}
    crate.add_action(lab, "#commands", result=crate.get("rows.jsonl"), properties=action)
    return crate
