"""The kinds of study: their default cells, their options, and the notebook that shows each."""

from dataclasses import dataclass, replace

from rustimg_lab.model import matrix

COLD_BUILD = "build"
LAYOUTS, USUAL_LAYOUTS = "layouts", 10

DEPLOY = "deploy"
EMPTY, BASE_THERE = "nothing", "its base image"  # what the machine has before
MEGABIT = 1e6

SIZES, STARTUP, UNDER_LOAD, MEMORY = "01_sizes", "02_startup", "03_throughput", "04_memory"
SURVIVAL, BUILD, LAYOUT, MACHINES = "06_survival", "09_build", "10_layouts", "11_machines"

# What a server is put under unless it is told otherwise.
USUAL_LOAD = {"workload": "batch", "workers": 1, "connections": 16, "warmup_s": 1, "seconds": 2}
REST, REST_S = "rest", 60  # seconds from the end of a load until what is still resident is read
COUNTED = "instructions"  # the kind of the studies that count beside those of throughput
APART = ("of", "program")  # the parameters that tell studies of one kind apart, beside those of a load
# The options of `./lab measure` by which a load is told.
LOAD_OPTIONS = ("workload", "workers", "connections", "seconds", "warmup", "settings")


@dataclass(frozen=True)
class Kind(matrix.Grid):
    """What a study takes unless it is told otherwise."""

    measures_clients: bool = False  # whether the client is measured beside the server
    measures_builds: bool = False  # whether it is the build that is measured
    tools: str = "tools"  # the image that it measures with, if any
    load: tuple[str, ...] = LOAD_OPTIONS  # the ones that it goes by; where not all, it asks one workload
    curve: bool = False  # whether servers are measured with several numbers of worker threads unless one is named
    measures_work: bool = False  # whether a program that is no server can be measured by its calls


_ALLOCATORS = Kind(("scratch", "debian"), ("optimized",), tuple(matrix.ALLOCATORS))
_COMPILED = ("baseline", "lto-thin", "lto-fat", "unit-1", "optimized", "opt-z")
KINDS = {
    "throughput": replace(_ALLOCATORS, curve=True, measures_work=True),
    "startup": Kind(matrix.ARTICLE_BASES, ("optimized",), (matrix.ARTICLE,), measures_clients=True, load=("workload",)),
    "memory": replace(_ALLOCATORS, curve=True),
    REST: replace(_ALLOCATORS, load=(*LOAD_OPTIONS, "rest")),
    "latency": replace(_ALLOCATORS, tools="oha"),
    "deploy": Kind(matrix.ARTICLE_BASES, ("optimized",), (matrix.ARTICLE,), tools="", load=("workload",)),
    COLD_BUILD: Kind(("scratch",), _COMPILED, ("system",), measures_builds=True, tools="", load=()),
    LAYOUTS: Kind(("scratch",), matrix.PROFILES, ("jemalloc",), measures_work=True),
}
