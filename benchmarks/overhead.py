"""What measuring costs beside what is measured: the wall time of a study against its trials' own seconds.

    .venv/bin/python benchmarks/overhead.py     # three minutes, and the build before; leave the machine alone

A study of N trials of d seconds (warm-up included, fresh containers of server and load generator in each) should take
at most 1.35 x N x d. Servers and tools are made before the clock starts.
"""

import shutil
import sys
import time
from dataclasses import replace

from rich.console import Console

from rustimg_lab.build import bake, lab_toml
from rustimg_lab.engine import client, images
from rustimg_lab.measure import plan, trials
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.studies import throughput
from rustimg_lab.model import matrix
from rustimg_lab.model.studies import KINDS
from rustimg_lab.paths import MYIP, REPORTS, RUNS
from rustimg_lab.pipeline import planner, studies
from rustimg_lab.pipeline.session import Request
from rustimg_lab.store import runs

RUN = "benchmark-overhead"
PLAN = plan.Plan(blocks=12, seed=1)
LOAD = planner.USUAL_LOAD
LIMIT = 1.35


def main() -> int:
    cells = matrix.grid(["scratch"], ["optimized"], ["system", "jemalloc", "mimalloc"])
    app = lab_toml.load(MYIP)
    _forget()
    try:
        once = replace(PLAN, blocks=1)
        request = Request(app.server, RUN, console=Console(stderr=True))
        study_planner = planner.planner("throughput", [LOAD], once, app.server)
        studies.run_studies(request, cells, [app.server], study_planner, KINDS["throughput"])
        with runs.open_run(RUN, client.machine()) as run:
            treatments = [
                plan.Treatment(cell, images.find_image(bake.image_tag(cell, app.server)).id, cell.slug)
                for cell in cells
            ]
            tools = client.connect().images.list(name=client.repository("tools"))[0].id
            study, measure = next(throughput.plan(StudyContext([treatments], PLAN, run, tools, (LOAD,))))
            begun = time.monotonic()
            lost = trials.run_in_turns([(study, measure)], run)
            wall = time.monotonic() - begun
    finally:
        _forget()
    count = (PLAN.blocks - 1) * len(study.treatments)  # the first block was there
    each = LOAD.warmup_s + LOAD.seconds
    own = count * each
    print(f"{count} trials of {each} s, {len(lost)} lost: {wall:.1f} s, {wall / own:.2f} of their own")
    return 0 if not lost and wall <= LIMIT * own else 1


def _forget() -> None:
    for folder in (RUNS / RUN, REPORTS / RUN):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
