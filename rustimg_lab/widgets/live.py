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
    """Build these cells of myip and measure them into the run, then `blocks` blocks of a short study of their servers.
    Return a line on each that failed.

    The kernel's interrupt stops the work in order; the same call resumes. Raises LabError when the machine or the input
    does not allow a start."""
    app, study = lab_toml.load(MYIP), None
    if blocks:
        plan = planner.planner("throughput", [planner.USUAL_LOAD], Plan(blocks), app)
        study = planner.short(*cells.grid), plan
    handle, over = display(Plot(9, 2), display_id=True), threading.Event()
    thread = threading.Thread(target=_draw, args=(run_name, handle, over), daemon=True)
    thread.start()
    try:
        command = f"# in 00_start_here.ipynb: {', '.join(map(str, cells))}; {blocks} blocks"
        failures = run_grid(Request(app, run_name, command=command), list(cells), study)
    except KeyboardInterrupt:
        print("lab: interrupted; run this cell again to resume")
        return []
    finally:
        over.set()
        thread.join()
    for line in failures:
        print(f"lab: failed: {line}")
    return failures


def figure(run_name: str) -> Plot:
    """Return a plot of what a run has so far: sizes, and where trials have begun, every trial. Raises LabError when
    there is no such run."""
    run = runs.load(run_name)
    cells = cell_table(run)
    studies = comparison.find_studies(run, "throughput")
    plot = Plot(9, 0.6 * len(cells) + 2 + 4 * bool(studies))
    axes = plot.subplots(1 + bool(studies), 1, squeeze=False)[:, 0]
    rows = cells.assign(base=cells["cell"], stand_in=False)
    plots.sizes.transfer(rows, axes[0], f"run {run_name}: {cells['ok'].sum()} cells measured")
    if studies:
        samples = comparison.samples(run, studies[0], metrics.CPU_US_PER_REQUEST)
        plots.studies.trials(samples, metrics.CPU_US_PER_REQUEST.title, f"{studies[0]}: {len(samples)} trials", axes[1])
    return plot


def _draw(run_name: str, handle: DisplayHandle, over: threading.Event) -> None:
    drawn_size, wait_s = 0, POLL_S
    while True:
        is_last = over.wait(wait_s)
        path = runs.runs().get(run_name)
        rows = path / "rows.jsonl" if path else None
        if rows and rows.exists() and rows.stat().st_size != drawn_size:
            drawn_size = rows.stat().st_size
            plot = figure(run_name)
            handle.update(plot)
            wait_s = POLL_S if len(plot.axes) == 1 else TRIALS_POLL_S
        if is_last:
            return
