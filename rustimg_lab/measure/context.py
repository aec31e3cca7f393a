"""What every kind of study is planned from: treatments, plan, run, load and app, in one value."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rustimg_lab.engine import capabilities, images
from rustimg_lab.errors import unknown
from rustimg_lab.measure import services
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import SHUFFLED, WILLIAMS, Plan, PlanError, Study, Treatment
from rustimg_lab.model import names
from rustimg_lab.model.app import App
from rustimg_lab.store.runs import Run


@dataclass(frozen=True)
class StudyContext:
    """`built`: the treatments by program, servers or builders first. `tools`: the benchmark tools' image, or "".
    `loads` start a server alike. `app` is measured. `rate`: the requests per second of a latency study."""

    built: list[list[Treatment]]
    plan: Plan
    run: Run
    tools: str = ""
    loads: tuple[Load, ...] = ()
    app: App | None = None
    rate: Callable[[Load, Run], int] | None = None

    def holds(self, name: str) -> bool:
        """Whether the engine does what that field of `capabilities.Capabilities` says."""
        return capabilities.holds(self.run.environment, name)

    def study(
        self, name: str, kind: str, metric: str, parameters: dict[str, Any], treatments: list[Treatment] | None = None,
        blocks: int = 0,
    ) -> Study:  # fmt: skip
        """Plan a study of the treatments (default: the first of `built`) and of the baseline's twin, of `blocks` blocks
        where they are fixed. Raises PlanError when the baseline is none of the treatments."""
        treatments = treatments or self.built[0]
        plan = replace(self.plan, blocks=blocks, width=None) if blocks else self.plan
        known = {treatment.name: treatment for treatment in treatments}
        baseline = plan.baseline or treatments[0].name
        if baseline not in known:
            raise PlanError(str(unknown("baseline", baseline, known)))
        twin = replace(known[baseline], name=baseline + names.TWIN)
        before = self.run.environment.get("studies", {}).get(name, {})
        seed = before.get("seed", random.randrange(1 << 32)) if plan.seed is None else plan.seed
        design = before.get("design", SHUFFLED) if before else WILLIAMS  # a study keeps the one that it began with
        contents = {each.name: images.contents_digest(each.image) for each in treatments}
        every, parameters = (*treatments, twin), parameters | services.described(self.app)
        return Study(name, kind, parameters, every, baseline, metric, plan.blocks, seed, plan.width, contents, design)
