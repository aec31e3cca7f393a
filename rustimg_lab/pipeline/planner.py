"""How each kind of study is planned when its images are built."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rustimg_lab.analysis import comparison
from rustimg_lab.build import lab_toml, lab_toml_values
from rustimg_lab.engine import capabilities, cold_engine
from rustimg_lab.errors import LabError, check_known
from rustimg_lab.measure import load, workloads
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import Plan, PlanError, Studies, Treatment
from rustimg_lab.measure.studies import cold_build, deploy, latency, memory, startup, throughput
from rustimg_lab.model import matrix, metrics
from rustimg_lab.model import studies as kinds
from rustimg_lab.model.app import INPUT, App
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.model.names import MARK
from rustimg_lab.model.profiles import PUBLISHED
from rustimg_lab.model.settings import Setting
from rustimg_lab.store import runs
from rustimg_lab.store.runs import Run

# From the servers' images, the clients' (where they are measured), the run, and the image of what measures.
Planner = Callable[[list[list[Treatment]], Run, str], Studies]
PLANS: dict[str, Callable[[StudyContext], Studies]] = {
    "throughput": throughput.plan,
    "startup": startup.plan,
    "memory": memory.plan,
    "latency": latency.plan,
    kinds.REST: memory.plan_rest,
    kinds.DEPLOY: deploy.plan,
    kinds.COLD_BUILD: cold_build.plan,
    kinds.LAYOUTS: throughput.plan_layouts,
}
OF_CAPACITY = 0.5  # the rate of latency, as a part of what the slowest cell answers in a closed loop
# What a server is put under unless it is told otherwise; the short study of a grid can so be made longer.
USUAL_LOAD = Load(**kinds.USUAL_LOAD | {"workload": workloads.find(kinds.USUAL_LOAD["workload"])})


def load_of(app: App) -> Load:
    """An app's usual load: its own request or work, if any. Raises LabError where the work's input is no folder."""
    if app.work:
        if (folder := app.work.input) and (not Path(folder).is_dir() or folder == "/"):
            raise LabError(f"[work] in lab.toml, 'input': {folder} is no folder whose content can be at {INPUT}")
        return replace(USUAL_LOAD, workload=workloads.own(app), connections=1)  # calls, one after another
    return replace(USUAL_LOAD, workload=workloads.own(app)) if app.serve else USUAL_LOAD


def usual_workers(app: App, kind: kinds.Kind) -> list[int]:
    """Return the numbers of threads that a study of an app has unless some are named."""
    serve = workloads.own(app).serve if app.work else app.serve or USUAL_LOAD.workload.serve
    return load.usual_workers(alone=bool(app.work)) if kind.curve and serve.takes_workers else [USUAL_LOAD.workers]


def refuse_settings(settings: tuple[Setting, ...], cells: list[matrix.Cell], app: App) -> None:
    """Raises LabError for a setting of an allocator that no cell has, or that the app's own environment would hide."""
    own = dict(app.image.environment) | dict(app.serve.environment if app.serve else ())
    for each in settings:
        if each.allocator not in {cell.allocator for cell in cells}:
            raise LabError(f"--settings {each}: no cell has {each.allocator}; name it in --allocators, or leave it out")
        if taken := own.keys() & each.environment.keys():
            raise LabError(f"--settings {each}: lab.toml sets {', '.join(taken)} itself; take it out there")


def refuse_baseline(baseline: str, cells: list[matrix.Cell], settings: tuple[Setting, ...]) -> None:
    """Raises LabError for a baseline ("" for the first cell) that is none of the cells, with or without a setting."""
    known = [replace(cell, layout=0).slug for cell in cells]  # which stands for the first of its layouts
    known += [each.name for each in _with_settings([Treatment(cell, "", cell.slug) for cell in cells], settings)]
    if baseline:
        check_known("baseline", baseline, list(dict.fromkeys(known)))


def refuse_loads(loads: list[Load], kind: kinds.Kind) -> None:
    """Raises LabError for a load that the engine's machine has too few CPUs for: each is planned after the builds."""
    for each in loads if "workers" in kind.load else []:
        load.split_cpus(each.workers, alone=bool(each.workload.work))


def refuse_foreign(cells: list[matrix.Cell]) -> None:
    """Raises LabError for a cell that this machine would have to emulate."""
    if foreign := next((cell.architecture.debian for cell in cells if cell.architecture is not NATIVE), ""):
        raise LabError(
            f"--arch {foreign}: this machine would emulate its programs, and times, CPU and memory would be the "
            f"emulator's: measure on a machine with {foreign}; `./lab run` and `./lab probe` take both"
        )


def _with_settings(treatments: list[Treatment], settings: tuple[Setting, ...]) -> list[Treatment]:
    """Return the treatments, and behind them those with a setting of their allocator, each named and on its own."""
    more = [
        replace(treatment, name=f"{treatment.name}{MARK}{setting}", setting=setting)
        for treatment in treatments
        for setting in settings
        if setting.allocator == treatment.cell.allocator
    ]
    return [*treatments, *more]


def programs(app: App, kind: kinds.Kind, own: Path | None) -> list[App]:
    """The programs whose images a study of that kind takes: the server, or what is built, and the client behind it.
    `own` is the folder of an app of the user's, None for myip. Raises LabError when the study cannot measure such an
    app, or this machine cannot have the engine of a deploy study."""
    if own and app.work and not (kind.of_builds or kind.of_work):
        raise LabError(f"{own / lab_toml.FILE}: has [work]; this study is of servers, and --study throughput of work")
    if own and not (app.is_measured or kind.of_builds):
        raise LabError(
            f"{own / lab_toml.FILE}: has no [serve], which describes its server and its requests, and no [work], which "
            "describes the calls of another program"
        )
    secrets = [name for name, _ in app.secrets if name != "known_hosts" and not lab_toml_values.TOKEN.fullmatch(name)]
    if kind.of_builds and (kept := [*secrets, *app.build_commands]):
        raise LabError(f"{app.name} needs '{kept[0]}': a study of builds calls cargo alone, and without secrets")
    if reason := refusal(app, kind):
        raise LabError(reason)
    if kind is kinds.KINDS[kinds.DEPLOY]:
        if app.services:
            raise LabError(f"{own / lab_toml.FILE}: has [[services]], which a deploy study does not start")
        cold_engine.check()
    measured = app if own else app.server
    return [measured, app] if kind.of_clients and not app.serve else [measured]


def refusal(app: App, kind: kinds.Kind) -> str:
    """Return why a study of that kind cannot ask an app's server, by its [serve]; "" when it can."""
    if not app.serve or kind.of_builds:
        return ""
    if app.serve.grpc is not None:
        return "no study asks by gRPC: `./lab run` checks the server's health and measures its images"
    if (app.serve.tls or app.serve.http == 2) and kind in (kinds.KINDS["startup"], kinds.KINDS[kinds.DEPLOY]):
        return (
            "a start ends with the first byte by plain HTTP/1.1, not by TLS or HTTP/2: --study throughput asks by these"
        )
    return ""


def short(bases: list[str], profiles: list[str], allocators: list[str], debian: str) -> list[matrix.Cell]:
    """The cells of a grid's short study: the crate as published if there, one profile (optimized if there), and on musl
    its own malloc first, beside the allocators that were asked for. Raises LabError on a wrong name."""
    last = "optimized" if "optimized" in profiles else profiles[-1]
    chosen = [each for each in profiles if each in (PUBLISHED.name, last)]
    found = matrix.grid(bases, chosen, [matrix.OWN if matrix.OWN in allocators else "system", *allocators], debian)
    asked = matrix.grid(bases, chosen, allocators, debian)
    return [cell for cell in found if cell in asked or cell.libc == "musl"]


def _rate(load: Load, run: Run) -> int:
    """The rate of a latency study: as recorded, or half of what the slowest cell answered. Raises PlanError without."""
    before = run.environment.get("studies", {}).get(f"latency-{load.name}", {"parameters": {}})["parameters"]
    if metrics.REQUESTS_PER_S in before:
        return before[metrics.REQUESTS_PER_S]
    data = runs.load(run.name)
    study = f"throughput-{load.name}"
    is_known = study in data.environment.studies
    if not is_known or (found := comparison.samples(data, study, metrics.REQUESTS_PER_S)).empty:
        raise PlanError(
            "latency is measured at half of what the slowest cell answers in a closed loop, and run "
            f"'{run.name}' has no throughput study of that load with a trial: call `./lab measure --study throughput` "
            "with the same options first"
        )
    return int(OF_CAPACITY * comparison.summarize(found)["mean"].min())


def planner(kind: str, loads: list[Load], plan: Plan, app: App) -> Planner:
    """How a study of that kind of `app` is planned once its images are there, under each of the `loads`."""

    def planned(built: list[list[Treatment]], run: Run, tools: str) -> Studies:
        with_settings = [_with_settings(built[0], plan.settings), *built[1:]]
        pinned = capabilities.holds(run.environment, "limits_cpus")
        own = tuple(replace(each, pinned=pinned) for each in loads)
        return PLANS[kind](StudyContext(with_settings, plan, run, tools, own, app, _rate))

    return planned
