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
    """What a run depends on, and what to do where it is not there. `findings` is `doctor.findings`."""
    lines = [(each.mark, each.name, each.found, "" if each.ok else each.remedy) for each in findings]
    return style(pd.DataFrame(lines, columns=["", "what", "found", "what to do"]))


def cells(asked: list[matrix.Cell]) -> Styler:
    """What each cell is made of."""
    return style([cell.facts() for cell in asked])


def profiles_known() -> Styler:
    """Every profile of data/profiles.toml, with its expected gain and cost."""
    every = profiles.everything().values()
    lines = [(each.name, sizes.FLAGS[each.unstable], each.gain, each.cost) for each in every]
    return style(pd.DataFrame(lines, columns=["profile", "flags", "expected gain", "at the cost of"]))


def runs() -> Styler:
    """Every run that there is: its app, and what it has."""
    lines = []
    for name in store_runs.runs():
        try:
            run = store_runs.load(name)
        except LabError as error:
            lines.append((name, "", None, None, None, str(error)))
            continue
        works, measured = cell_table(run)["ok"], set(run.rows["study"])
        studies = ", ".join(each for each in run.environment.studies if each in measured)
        lines.append((name, app_name(run), len(works), int(works.sum()), len(run.rows), studies))
    counts = ["cells", "cells that work", "rows"]
    shown = pd.DataFrame(lines, columns=["run", "app", *counts, "studies"])
    return style(shown, dict.fromkeys(counts, "{:.0f}"))


def provenance(run: RunData) -> Styler:
    """Every base image of a run: what it is, whence, its digest; its packages are in `packages`."""
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
    """The packages of each base image with their versions, folded away."""
    folds = []
    for image in run.environment.images.values():
        names = ", ".join(f"{name} {version}" for name, version in image["packages"].items())
        summary = f"{escape(image['label'])}: {len(image['packages'])} packages"
        folds.append(f"<details><summary>{summary}</summary><p>{escape(names)}</p></details>")
    return HTML("".join(folds))


def environment(run: RunData) -> Styler:
    """The machine and the tools that a run was made with."""
    found = run.environment
    facts = {**found.machine, **found.tools, **found.app}
    return style({"what": list(facts), "was": list(map(str, facts.values()))})
