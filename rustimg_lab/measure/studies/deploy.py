"""Deploys: pull, unpack and start an image on a machine that lacks it, until its first byte.

The machine is an engine of the lab's own that starts empty, and its way to the registry is as slow as a trial says (see
`engine/cold_engine.py`). A trial is either of a machine that has nothing, or of one that has the base image already,
as has one on which another service stands on it.
"""

import time
from functools import partial
from pathlib import Path

from requests.exceptions import RequestException

from rustimg_lab.engine import client, containers, images, local_registry
from rustimg_lab.engine.cold_engine import ColdMachine, start
from rustimg_lab.errors import LabError
from rustimg_lab.host.files import DiskFull
from rustimg_lab.host.machine import cpus, free_port
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.image import files_of_layer
from rustimg_lab.measure.plan import FailedTrial, Studies, Treatment
from rustimg_lab.measure.server import unreachable_reason
from rustimg_lab.measure.studies.startup import first_byte
from rustimg_lab.measure.workloads import Workload
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import BASE_THERE, DEPLOY, EMPTY, MEGABIT
from rustimg_lab.store.rows import Observation

SOCKETS = [Path("/proc/thread-self/net", name) for name in ("tcp", "tcp6")]  # of the network that a thread is in
# Megabits a second: what is measured of a machine that has nothing, and of one that has the base.
BANDWIDTHS = {EMPTY: (10, 30, 100, 1000), BASE_THERE: (10, 1000)}


def plan(context: StudyContext) -> Studies:
    """Yield a study per bandwidth and per state of the machine (empty, or with the base image), each with the function
    that measures a trial. Raises LabError when this machine cannot run a second engine, PlanError when the baseline is
    unknown."""
    servers, workload = context.built[0], context.loads[0].workload
    base_names = {treatment.cell.base.name for treatment in servers}
    bases = {name: image for name, image in context.run.environment["bases"].items() if name in base_names}
    with local_registry.serve() as own_registry, start(own_registry.address) as machine:
        pushed = {
            image: own_registry.push(image)
            for image in {treatment.image for treatment in servers} | set(bases.values())
        }
        stored = {image: stored_bytes(image) for image in pushed}
        methods = " and ".join(sorted({method for image in pushed.values() for method in image.compressed_by}))
        warning = "" if methods == "gzip" else f"this engine pushes layers compressed by {methods}: pulls take as long"
        for state, bandwidths in BANDWIDTHS.items():
            for bandwidth in bandwidths:
                name = f"deploy-{'cold' if state == EMPTY else 'base'}-{bandwidth}mbit"
                parameters = {"bandwidth_mbit": bandwidth, "has": state, "compression": methods, "warning": warning}
                parameters |= workload.parameters()
                study = context.study(name, DEPLOY, metrics.FIRST_RESPONSE_S, parameters)
                inputs = {"pushed": pushed, "stored": stored, "bases": bases if state == BASE_THERE else {}}
                bits_per_s = bandwidth * MEGABIT
                yield study, partial(measure, workload=workload, machine=machine, bits_per_s=bits_per_s, **inputs)


def stored_bytes(image: str) -> int:
    """Return the bytes that an image takes on a machine: the sum of the files' bytes over all its layers, unpacked.
    Computed from the layers, it is equal on every engine. With containerd's image store an engine reports the size of
    the compressed layers, which do not count here. A file that a higher layer replaces counts in both layers, as on
    disk. Folders and links count 0."""
    with images.open_layers(image) as (_, layers):
        return sum(files_of_layer(layer)[0] for layer in layers)


def measure(
    treatment: Treatment,
    workload: Workload,
    machine: ColdMachine,
    bits_per_s: float,
    pushed: dict[str, local_registry.Pushed],
    stored: dict[str, int],
    bases: dict[str, str],
) -> list[Observation]:
    """Run one trial: empty the machine, pull the cell's base image if `bases` has one, then pull and start the image.
    Returns rows in seconds and bytes. `pushed` has the images in the registry, `stored` their `stored_bytes`, both by
    image id. Raises FailedTrial when the trial fails, LabError when the machine or the registry is gone, and
    DiskFull."""
    image = pushed[treatment.image]
    try:
        command = images.command(treatment.image)
        machine.empty()
        base = bases.get(treatment.cell.base.name)
        if base:
            machine.line.reset(0)
            machine.pull(pushed[base].tag)
        machine.line.reset(bits_per_s)
        start_s = time.monotonic()
        pulled_image = machine.pull(image.tag)
        pulled_s = time.monotonic()
        created_s, answered_s = _first_response(machine, pulled_image, command, workload)
        return [
            Observation(metrics.FIRST_RESPONSE_S, answered_s - start_s),
            Observation(metrics.PULL_S, pulled_s - start_s),
            Observation(metrics.CREATE_S, created_s - pulled_s),
            Observation(metrics.START_TO_FIRST_BYTE_S, answered_s - created_s),
            Observation(metrics.PULLED_BYTES, machine.line.blob_bytes),
            Observation(metrics.MANIFEST_BYTES, image.config_bytes + sum(image.layer_bytes)),
            Observation(metrics.STORED_BYTES, stored[treatment.image]),
            Observation(metrics.BASE_STORED_BYTES, stored[base] if base else 0),
        ]
    except DiskFull:
        raise
    except (LabError, RequestException) as error:
        machine.check()
        raise FailedTrial(str(error)) from None


def _first_response(machine: ColdMachine, image: str, command: list[str], workload: Workload) -> tuple[float, float]:
    """When a container of the image was made and when it sent its first byte, on the monotonic clock. Raises
    FailedTrial."""
    port, timeout_s = workload.fixed_port or machine.inside(free_port), workload.serve.start_timeout_s
    arguments, environment = workload.serve.invocation(host="0.0.0.0", port=port, workers=cpus(), deadline_s=timeout_s)
    options = containers.command_options([*command, *arguments]) | {"environment": environment, "network_mode": "host"}
    labels = {client.CONTAINER_LABEL: client.lab_id()}
    container = machine.client.containers.create(image, labels=labels, use_config_proxy=False, **options)
    try:
        created_s = time.monotonic()
        container.start()
        answered_s, _ = machine.inside(partial(first_byte, port, timeout_s))
        if answered_s is None:
            raise FailedTrial(f"no answer within {timeout_s} s{containers.last_words(container)}")
        if reason := unreachable_reason("".join(machine.inside(path.read_text) for path in SOCKETS), port):
            raise FailedTrial(reason)
        return created_s, answered_s
    finally:
        containers.remove_container(container)
