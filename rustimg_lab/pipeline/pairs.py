"""Two versions of an app -> a run of each, and studies whose blocks hold every cell before and after."""

import hashlib
from dataclasses import replace

from rustimg_lab.analysis import cells as analysis
from rustimg_lab.build import sources
from rustimg_lab.engine import client
from rustimg_lab.host import process
from rustimg_lab.measure.plan import Treatment
from rustimg_lab.model.app import App
from rustimg_lab.model.matrix import Cell
from rustimg_lab.model.names import BEFORE
from rustimg_lab.model.studies import Kind
from rustimg_lab.pipeline import grid, studies
from rustimg_lab.pipeline.planner import Planner, refuse_foreign
from rustimg_lab.pipeline.session import Request, open_session
from rustimg_lab.store import runs


def run_name(app: App, before: App, cells: list[Cell]) -> str:
    """Return the name of the run of two versions in these cells. Equal sources with an equal `lab.toml` have one name,
    so that another call resumes the run."""
    with process.work_folder() as work:
        copies = [
            sources.copy(version.directory, work / name, version.git) for name, version in (("a", app), ("b", before))
        ]
        toml_text = (app.directory / app.subdirectory / sources.LAB_TOML).read_text(encoding="utf-8", errors="replace")
        identity = " ".join([*(copy.name for copy in copies), *(cell.slug for cell in cells), toml_text])
    return f"{app.package}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def name_before(run: str) -> str:
    """Return the name of the run that has the sizes of the version before."""
    return f"{run}-before"


def run_pairs(request: Request, before: App, cells: list[Cell], plans: list[tuple[Kind, Planner]]) -> list[str]:
    """Build and measure the cells of an app before and after, each version in a run of its own. Then run the studies of
    both in the app's run. Returns a line on each cell that failed.

    A cell with one image in both versions has no study. Raises LabError as `grid.run_grid` and `studies.run_studies`
    do. After Ctrl-C no container is left, and the same call resumes.
    """
    if plans:
        refuse_foreign(cells)
    earlier = replace(request, app=before, run_name=name_before(request.run_name))
    failures = [f"before: {line}" for line in grid.run_grid(earlier, cells)] + grid.run_grid(request, cells)
    if plans and (treatments := _differing_images(request, cells)):
        messages: list[str] = []  # no failures of a cell: the blocks that are whole give the answer
        with open_session(request, cells, with_tools=True) as session:
            for kind, plan in plans:
                studies.run_built([treatments], request.app, session, plan, messages, kind.tools)
            for line in messages:
                session.say(f"note: {line}")
    return failures


def _differing_images(request: Request, cells: list[Cell]) -> list[Treatment]:
    """Each cell whose images of both versions work and differ, before and after. The image before gets a name, since
    the cell's own name went to the image after, and engines may remove an image without any."""
    names, repository = (name_before(request.run_name), request.run_name), f"{request.app.name}-before"
    tables = [analysis.cell_table(runs.load(name)).query("ok").set_index("cell") for name in names]
    treatments = []
    for cell in cells:
        images = [table.loc[cell.slug, "image"] for table in tables if cell.slug in table.index]
        if len(set(images)) == 2:
            with client.readable_errors():
                client.connect().images.get(images[0]).tag(client.repository(repository), cell.slug)
            marks = (BEFORE, "")
            treatments += [Treatment(cell, image, cell.slug + mark) for image, mark in zip(images, marks, strict=True)]
    return treatments
