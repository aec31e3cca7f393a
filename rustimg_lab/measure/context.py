"""What every kind of study is planned from: treatments, plan, run, load and app, in one value."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rustimg_lab.engine import capabilities, images
from rustimg_lab.errors import unknown_name
from rustimg_lab.measure import services
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import SHUFFLED, WILLIAMS, Plan, PlanError, Study, Treatment
from rustimg_lab.model import names
from rustimg_lab.model.app import App
from rustimg_lab.store.runs import Run


@dataclass(frozen=True)
class StudyContext:
    """`built`: the treatments of each program, of servers or builders first, of clients behind them. `tools`: the image
    of the benchmark tools, "" for none. `loads`: what servers are put under; all of them start a server alike. `app`:
    what is measured. `rate`: the requests per second at which the latency of a load is measured in a run."""

    built: list[list[Treatment]]
    plan: Plan
    run: Run
    tools: str = ""
    loads: tuple[Load, ...] = ()
    app: App | None = None
    rate: Callable[[Load, Run], int] | None = None

    def holds(self, name: str) -> bool:
        """Return whether the engine has a capability, by the name of the field in `capabilities.Capabilities`."""
        return capabilities.has_ability(self.run.environment, name)

    def study(
        self, name: str, kind: str, metric: str, parameters: dict[str, Any], treatments: list[Treatment] | None = None,
        blocks: int = 0,
    ) -> Study:  # fmt: skip
        """Plan a study of the treatments (default: the first of `built`) and an A/A control of the baseline. `blocks`
        sets a fixed number of blocks (default: those of the plan). Raises PlanError when the baseline is not one of the
        treatments."""
        treatments = treatments or self.built[0]
        plan = replace(self.plan, blocks=blocks, width=None) if blocks else self.plan
        by_name = {treatment.name: treatment for treatment in treatments}
        baseline = plan.baseline or treatments[0].name
        if baseline not in by_name:
            raise PlanError(str(unknown_name("baseline", baseline, by_name)))
        twin = replace(by_name[baseline], name=baseline + names.TWIN)
        record = self.run.environment.get("studies", {}).get(name, {})
        seed = record.get("seed", random.randrange(1 << 32)) if plan.seed is None else plan.seed
        design = record.get("design", SHUFFLED) if record else WILLIAMS  # a study keeps the one that it began with
        contents = {treatment.name: images.contents_digest(treatment.image) for treatment in treatments}
        members, parameters = (*treatments, twin), parameters | services.describe(self.app)
        return Study(name, kind, parameters, members, baseline, metric, plan.blocks, seed, plan.width, contents, design)
