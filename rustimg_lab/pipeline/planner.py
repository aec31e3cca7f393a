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
USUAL_LOAD = Load(**kinds.USUAL_LOAD | {"workload": workloads.find_workload(kinds.USUAL_LOAD["workload"])})


def load_of(app: App) -> Load:
    """Return the default load of an app: its own request or work where `lab.toml` names one, else `USUAL_LOAD`. Raises
    LabError when the input of the work is no folder."""
    if app.work:
        if (folder := app.work.input) and (not Path(folder).is_dir() or folder == "/"):
            raise LabError(f"[work] in lab.toml, 'input': {folder} is no folder whose content can be at {INPUT}")
        return replace(USUAL_LOAD, workload=workloads.app_workload(app), connections=1)  # calls, one after another
    return replace(USUAL_LOAD, workload=workloads.app_workload(app)) if app.serve else USUAL_LOAD


def usual_workers(app: App, kind: kinds.Kind) -> list[int]:
    """Return the default numbers of threads in a study of an app."""
    serve = workloads.app_workload(app).serve if app.work else app.serve or USUAL_LOAD.workload.serve
    return load.usual_workers(alone=bool(app.work)) if kind.curve and serve.takes_workers else [USUAL_LOAD.workers]


def refuse_settings(settings: tuple[Setting, ...], cells: list[matrix.Cell], app: App) -> None:
    """Raise LabError for a setting of an allocator that no cell has, or that the app's own environment would
    replace."""
    variables = dict(app.image.environment) | dict(app.serve.environment if app.serve else ())
    for setting in settings:
        if setting.allocator not in {cell.allocator for cell in cells}:
            raise LabError(
                f"--settings {setting}: no cell has {setting.allocator}; name it in --allocators, or leave it out"
            )
        if taken_names := variables.keys() & setting.environment.keys():
            raise LabError(f"--settings {setting}: lab.toml sets {', '.join(taken_names)} itself; take it out there")


def refuse_baseline(baseline: str, cells: list[matrix.Cell], settings: tuple[Setting, ...]) -> None:
    """Raise LabError for a baseline that is none of the cells, with or without a setting; "" is the first cell."""
    names = [replace(cell, layout=0).slug for cell in cells]  # which stands for the first of its layouts
    names += [variant.name for variant in _with_settings([Treatment(cell, "", cell.slug) for cell in cells], settings)]
    if baseline:
        check_known("baseline", baseline, list(dict.fromkeys(names)))


def refuse_loads(loads: list[Load], kind: kinds.Kind) -> None:
    """Raise LabError for a load that needs more CPUs than the engine's machine has. The studies themselves are planned
    only after the builds."""
    for study_load in loads if "workers" in kind.load else []:
        load.split_cpus(study_load.workers, alone=bool(study_load.workload.work))


def refuse_foreign(cells: list[matrix.Cell]) -> None:
    """Raise LabError for a cell that this machine would have to emulate."""
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


def programs(app: App, kind: kinds.Kind, folder: Path | None) -> list[App]:
    """Return the programs whose images a study of that kind takes: the server, or what is built, and the client behind
    it. `folder` is that of an app of the user's, None for myip, whose server is measured. Raises LabError when the app
    does not fit the study, or this machine cannot have the engine of a deploy study."""
    if folder and app.work and not (kind.measures_builds or kind.measures_work):
        raise LabError(
            f"{folder / lab_toml.FILE}: has [work]; this study is of servers, and --study throughput of work"
        )
    if folder and not (app.is_measured or kind.measures_builds):
        raise LabError(
            f"{folder / lab_toml.FILE}: has no [serve], which describes its server and its requests, and no [work], "
            "which describes the calls of another program"
        )
    secrets = [name for name, _ in app.secrets if name != "known_hosts" and not lab_toml_values.TOKEN.fullmatch(name)]
    if kind.measures_builds and (needs := [*secrets, *app.build_commands]):
        raise LabError(f"{app.name} needs '{needs[0]}': a study of builds calls cargo alone, and without secrets")
    if reason := refusal(app, kind):
        raise LabError(reason)
    if kind is kinds.KINDS[kinds.DEPLOY]:
        if app.services:
            raise LabError(f"{folder / lab_toml.FILE}: has [[services]], which a deploy study does not start")
        cold_engine.check()
    measured_app = app if folder else app.server
    return [measured_app, app] if kind.measures_clients and not app.serve else [measured_app]


def refusal(app: App, kind: kinds.Kind) -> str:
    """Return why a study of that kind cannot measure an app's server, by its protocol in [serve]; "" when it can."""
    if not app.serve or kind.measures_builds:
        return ""
    if app.serve.grpc is not None:
        return "no study asks by gRPC: `./lab run` checks the server's health and measures its images"
    if (app.serve.tls or app.serve.http == 2) and kind in (kinds.KINDS["startup"], kinds.KINDS[kinds.DEPLOY]):
        return (
            "a start ends with the first byte by plain HTTP/1.1, not by TLS or HTTP/2: --study throughput asks by these"
        )
    return ""


def short(bases: list[str], profiles: list[str], allocators: list[str], debian: str) -> list[matrix.Cell]:
    """Return the cells of the short study of a grid. Their profiles are the crate as published, if it is there, and one
    more: `optimized`, or else the last. On musl its own malloc comes first, beside the given allocators. Raises
    LabError on a wrong name."""
    last_profile = "optimized" if "optimized" in profiles else profiles[-1]
    names = [profile for profile in profiles if profile in (PUBLISHED.name, last_profile)]
    candidates = matrix.grid(bases, names, [matrix.OWN if matrix.OWN in allocators else "system", *allocators], debian)
    requested_cells = matrix.grid(bases, names, allocators, debian)
    return [cell for cell in candidates if cell in requested_cells or cell.libc == "musl"]


def _rate(load: Load, run: Run) -> int:
    """Return the requests per second at which latency is measured. They are those of the run's own study, or half of
    what the slowest cell answers in the run's throughput study of this load. Raises PlanError when there is neither."""
    parameters = run.environment.get("studies", {}).get(f"latency-{load.name}", {"parameters": {}})["parameters"]
    if metrics.REQUESTS_PER_S in parameters:
        return parameters[metrics.REQUESTS_PER_S]
    data = runs.load(run.name)
    study = f"throughput-{load.name}"
    is_known = study in data.environment.studies
    if not is_known or (samples := comparison.samples(data, study, metrics.REQUESTS_PER_S)).empty:
        raise PlanError(
            "latency is measured at half of what the slowest cell answers in a closed loop, and run "
            f"'{run.name}' has no throughput study of that load with a trial: call `./lab measure --study throughput` "
            "with the same options first"
        )
    return int(OF_CAPACITY * comparison.summarize(samples)["mean"].min())


def planner(kind: str, loads: list[Load], plan: Plan, app: App) -> Planner:
    """Return the function that plans a study of that kind once its images are there. Servers are put under `loads`, and
    `app` is measured."""

    def planned(built: list[list[Treatment]], run: Run, tools: str) -> Studies:
        with_settings = [_with_settings(built[0], plan.settings), *built[1:]]
        is_pinned = capabilities.has_ability(run.environment, "limits_cpus")
        pinned_loads = tuple(replace(study_load, pinned=is_pinned) for study_load in loads)
        return PLANS[kind](StudyContext(with_settings, plan, run, tools, pinned_loads, app, _rate))

    return planned
