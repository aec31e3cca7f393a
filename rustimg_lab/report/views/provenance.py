"""Tables of provenance: machine, runs, base images, packages."""

from html import escape

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from rustimg_lab.analysis.cells import app_name, cell_table
from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix, profiles
from rustimg_lab.report.views import sizes
from rustimg_lab.report.views.style import style
from rustimg_lab.store import runs as store_runs
from rustimg_lab.store.runs import RunData


def machine(findings: list) -> Styler:
    """Show what the lab needs of this machine, and what to do where it is missing. `findings` is `doctor.findings`."""
    lines = [(finding.mark, finding.name, finding.state, "" if finding.ok else finding.remedy) for finding in findings]
    return style(pd.DataFrame(lines, columns=["", "what", "found", "what to do"]))


def cells(selection: list[matrix.Cell]) -> Styler:
    """Show what each cell is made of, a row per cell."""
    return style([cell.facts() for cell in selection])


def profiles_known() -> Styler:
    """Show every profile of data/profiles.toml with its expected gain and cost, a row per profile."""
    known_profiles = profiles.all_profiles().values()
    lines = [(profile.name, sizes.FLAGS[profile.unstable], profile.gain, profile.cost) for profile in known_profiles]
    return style(pd.DataFrame(lines, columns=["profile", "flags", "expected gain", "at the cost of"]))


def runs() -> Styler:
    """Show every run that there is, a row per run: its app, its cells, its rows and its studies. A run that cannot be
    read has the reason in place of studies."""
    lines = []
    for name in store_runs.runs():
        try:
            run = store_runs.load(name)
        except LabError as error:
            lines.append((name, "", None, None, None, str(error)))
            continue
        is_ok, study_names = cell_table(run)["ok"], set(run.rows["study"])
        studies = ", ".join(study for study in run.environment.studies if study in study_names)
        lines.append((name, app_name(run), len(is_ok), int(is_ok.sum()), len(run.rows), studies))
    counts = ["cells", "cells that work", "rows"]
    table = pd.DataFrame(lines, columns=["run", "app", *counts, "studies"])
    return style(table, dict.fromkeys(counts, "{:.0f}"))


def provenance(run: RunData) -> Styler:
    """Show every base image of a run, a row per image: what it is, where it comes from, its digest. `packages` shows
    its packages."""
    lines = [
        {
            "image": image["name"],
            "is": image["label"],
            "substitute": "yes" if image["stand_in"] else "",
            "release": image["release"],
            "from": image["source"],
            "because": image.get("why", ""),  # runs before this was recorded have none
            "digest": image["digest"][:19],
            "in the registry": image.get("manifest", "")[:19],
            "packages": len(image["packages"]),
        }
        for image in run.environment.images.values()
    ]
    return style(lines)


def packages(run: RunData) -> HTML:
    """Show the packages of each base image with their versions, folded away."""
    folds = []
    for image in run.environment.images.values():
        names = ", ".join(f"{name} {version}" for name, version in image["packages"].items())
        summary = f"{escape(image['label'])}: {len(image['packages'])} packages"
        folds.append(f"<details><summary>{summary}</summary><p>{escape(names)}</p></details>")
    return HTML("".join(folds))


def environment(run: RunData) -> Styler:
    """Show the machine, the tools and the app of a run, a row per fact."""
    record = run.environment
    facts = {**record.machine, **record.tools, **record.app}
    return style({"what": list(facts), "was": list(map(str, facts.values()))})
