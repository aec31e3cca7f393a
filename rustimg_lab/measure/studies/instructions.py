"""Instructions per request, counted by callgrind (valgrind.org/docs/manual/cl-manual.html).

The server runs under callgrind in its own image and answers so many requests, then in a fresh container many more; the
difference is what the requests cost, without start and end. One worker thread, one connection. What an allocator does
by the clock (giving memory back) is left out.
"""

import re

from requests.exceptions import RequestException

from rustimg_lab.engine import containers, images
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.server import ask, serving
from rustimg_lab.measure.workloads import Workload
from rustimg_lab.model import metrics
from rustimg_lab.model.architecture import NATIVE
from rustimg_lab.store.rows import Observation

FEW, MANY = 20, 220
DEADLINE_S = 300  # beside the start; callgrind is fifty times slower than the machine
END_TIMEOUT_S = 60
# valgrind's own files, as tools/Dockerfile lays them out, with a folder that all may write to: an image need not have a
# /tmp. The tool is called directly, since its launcher is not static, and an image need not have what that needs.
FOLDER = "/valgrind"
_TOOL = f"{FOLDER}/callgrind-{NATIVE.debian}-linux"
COMMAND = [_TOOL, "--tool=callgrind", "--vgdb=no", "--callgrind-out-file=/dev/null"]
ENVIRONMENT = {
    "VALGRIND_LIB": FOLDER,
    "VALGRIND_LAUNCHER": f"{FOLDER}/valgrind",
    "TMPDIR": f"{FOLDER}/tmp",
    # Allocators give memory back by the clock, which under callgrind runs fifty times as fast beside the program: how
    # often would hang on the machine. They are told not to (jemalloc's TUNING.md; mimalloc's mi_option_purge_delay);
    # nor is jemalloc to collect its threads' caches, which goes by time too.
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,experimental_tcache_gc:false",
    "MIMALLOC_PURGE_DELAY": "-1",
}


def measure(treatment: Treatment, workload: Workload, tools: str) -> list[Observation]:
    """Run one trial: count the server's instructions per request. `tools` is the benchmark tools image, which has
    valgrind. Raises FailedTrial when a server fails under callgrind."""
    few, many = (_count_instructions(treatment.image, workload, tools, count) for count in (FEW, MANY))
    return [Observation(metrics.INSTRUCTIONS_PER_REQUEST, (many - few) / (MANY - FEW))]


def _count_instructions(image: str, workload: Workload, tools: str, count: int) -> int:
    """The instructions that a server executes from its start to its end, with `count` requests in between."""
    tool = {"under": COMMAND, "files": images.archive(tools, FOLDER), "settings": ENVIRONMENT}
    deadline_s = DEADLINE_S + workload.serve.start_timeout_s
    with serving(image, workload, tools, workers=1, deadline_s=deadline_s, **tool) as server:
        report = ask(server.client, "repeat", workload, count=count)
        reason = report.get("failed") or report.get("wrong")
        try:
            server.container.kill("SIGTERM")
            server.container.wait(timeout=END_TIMEOUT_S)
        except RequestException as error:
            reason = reason or error
        if reason:
            raise FailedTrial(f"the server failed under callgrind ({reason}){containers.last_words(server.container)}")
        output = server.container.logs().decode(errors="replace")
    match = re.search(r"Collected : (\d+)", output)
    if not match:
        raise FailedTrial(f"callgrind printed no count: {output.strip().rpartition(chr(10))[2][:200]}")
    return int(match[1])
