"""The work of a command-line program: calls of it, one after another, inside its own image.

`starter` (tools/starter.rs) makes the calls and takes the time of each. CPU time is what the kernel tells of processes
that have ended (getrusage(2), RUSAGE_CHILDREN): of the program, and of what it has started and waited for. A call is
taken for a request of throughput, so that cells, numbers of threads and machines are compared as those of servers are.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

from docker.types import Mount

from rustimg_lab.engine import containers, images, inspection
from rustimg_lab.measure import services
from rustimg_lab.measure.load import SPARE_S, Load
from rustimg_lab.measure.plan import FailedTrial, Treatment
from rustimg_lab.measure.studies.startup import STARTER, run_in_image
from rustimg_lab.model import metrics
from rustimg_lab.model.app import INPUT, Work
from rustimg_lab.store.rows import Observation

LONGEST_S = 3_600  # of a trial's calls, beside the seconds of its load, until `starter` ends
_OWNER = 10_001  # the program's user


@contextmanager
def mount_input(work: Work, image: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Keep the input of a program's work in a volume while the block lasts. Yields the options by which a container has
    it at `INPUT`, read-only, and entries for a study's plan. Both are empty for work without an input. A container of
    `image`, which never starts, keeps the volume."""
    if not work.input:
        yield {}, {}
        return
    with TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(work.input, ".", filter=_normalize_entry)
        file.seek(0)
        details = {"input_sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        file.seek(0)
        options = {"command": images.command(image), "mounts": [Mount(INPUT, None)]}  # a volume without a name
        with containers.created(image, **options) as holder:
            holder.put_archive(INPUT, file)  # for what is given for / Podman takes the place below the volume
            holder.reload()
            volume = inspection.volumes(holder.attrs)[INPUT]
            yield {"volumes": {volume: {"bind": INPUT, "mode": "ro"}}}, details


def _normalize_entry(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry as it is for everybody who has these files."""
    entry.uid = entry.gid = _OWNER
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def measure(treatment: Treatment, load: Load, tools: str, options: dict[str, Any]) -> list[Observation]:
    """Run one trial: call the program again and again in a fresh container with these `options`. The warm-up lasts
    `load.warmup_s`, the calls that count `load.seconds`; both have at least one call. Returns rows of calls per second
    and of CPU time per call in microseconds. Raises FailedTrial when a call ends otherwise than `[work]` says, or the
    first one prints something else."""
    work, (arguments, _) = load.workload.work, load.workload.serve.invocation(workers=load.workers)
    deadline_s = LONGEST_S + load.warmup_s + load.seconds
    times = [str(seconds) for seconds in (load.warmup_s, load.seconds, deadline_s)]
    tool = [STARTER, "calls", *times, str(work.exit_code), work.prints]
    command = [*images.command_under(treatment.image, tool), *arguments]
    environment = treatment.setting.environment if treatment.setting else {}
    options = options | {"cpuset_cpus": load.cpus[0]}
    with services.run_services(load.workload.services) as network:
        output = run_in_image(treatment.image, tools, command, environment, deadline_s + SPARE_S, **options | network)
    if not (calls := [tuple(map(int, line.split())) for line in output.splitlines()]):
        raise FailedTrial("the engine has lost what the starter printed")
    durations, cpu_times = zip(*calls, strict=True)
    return [
        Observation(metrics.REQUESTS_PER_S, 1e9 * len(durations) / sum(durations)),
        Observation(metrics.REQUESTS, len(durations)),
        Observation(metrics.CPU_US_PER_REQUEST, sum(cpu_times) / len(cpu_times) / 1e3),
    ]
