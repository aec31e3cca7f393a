"""A run that grows in a notebook: built and measured there, its plots drawn again as rows arrive."""

import threading

from IPython.display import DisplayHandle, display

from rustimg_lab.analysis import comparison
from rustimg_lab.analysis.cells import cell_table
from rustimg_lab.build import lab_toml
from rustimg_lab.measure.plan import Plan
from rustimg_lab.model import metrics
from rustimg_lab.paths import MYIP
from rustimg_lab.pipeline import planner
from rustimg_lab.pipeline.grid import run_grid
from rustimg_lab.pipeline.session import Request
from rustimg_lab.report import plots
from rustimg_lab.report.plots.style import Plot
from rustimg_lab.store import runs
from rustimg_lab.widgets.results import Cells

POLL_S = 2
TRIALS_POLL_S = 30  # drawing takes half a second of a CPU, which the trials are to have to themselves


def build(cells: Cells, run_name: str, blocks: int) -> list[str]:
    """Builds these cells of myip and measures them into the run, then `blocks` blocks of a short study of their
    servers; returns a line on each failure. The kernel's interrupt stops it; the same call resumes. Raises LabError as
    `grid.run_grid`."""
    app, study = lab_toml.load(MYIP), None
    if blocks:
        plan = planner.planner("throughput", [planner.USUAL_LOAD], Plan(blocks), app)
        study = planner.short(*cells.grid), plan
    shown, over = display(Plot(9, 2), display_id=True), threading.Event()
    drawing = threading.Thread(target=_draw, args=(run_name, shown, over), daemon=True)
    drawing.start()
    try:
        command = f"# in 00_start_here.ipynb: {', '.join(map(str, cells))}; {blocks} blocks"
        failures = run_grid(Request(app, run_name, command=command), list(cells), study)
    except KeyboardInterrupt:
        print("lab: interrupted; run this cell again to resume")
        return []
    finally:
        over.set()
        drawing.join()
    for line in failures:
        print(f"lab: failed: {line}")
    return failures


def figure(run_name: str) -> Plot:
    """What a run has so far: sizes, and where trials have begun, every one of them. Raises LabError as `load` does."""
    run = runs.load(run_name)
    cells = cell_table(run)
    begun = comparison.find_studies(run, "throughput")
    drawn = Plot(9, 0.6 * len(cells) + 2 + 4 * bool(begun))
    axes = drawn.subplots(1 + bool(begun), 1, squeeze=False)[:, 0]
    named = cells.assign(base=cells["cell"], stand_in=False)
    plots.sizes.transfer(named, axes[0], f"run {run_name}: {cells['ok'].sum()} cells measured")
    if begun:
        samples = comparison.samples(run, begun[0], metrics.CPU_US_PER_REQUEST)
        plots.studies.trials(samples, metrics.CPU_US_PER_REQUEST.title, f"{begun[0]}: {len(samples)} trials", axes[1])
    return drawn


def _draw(run_name: str, shown: DisplayHandle, over: threading.Event) -> None:
    known, wait_s = 0, POLL_S
    while True:
        last = over.wait(wait_s)
        path = runs.runs().get(run_name)
        rows = path / "rows.jsonl" if path else None
        if rows and rows.exists() and rows.stat().st_size != known:
            known = rows.stat().st_size
            drawn = figure(run_name)
            shown.update(drawn)
            wait_s = POLL_S if len(drawn.axes) == 1 else TRIALS_POLL_S
        if last:
            return
