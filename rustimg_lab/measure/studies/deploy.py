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
from rustimg_lab.engine.cold_engine import Elsewhere, start
from rustimg_lab.errors import LabError
from rustimg_lab.host.files import DiskFull
from rustimg_lab.host.machine import cpus, free_port
from rustimg_lab.measure.context import StudyContext
from rustimg_lab.measure.image import files_of_layer
from rustimg_lab.measure.plan import Lost, Studies, Treatment
from rustimg_lab.measure.server import not_reached
from rustimg_lab.measure.studies.startup import first_byte
from rustimg_lab.measure.workloads import Workload
from rustimg_lab.model import metrics
from rustimg_lab.model.studies import BASE_THERE, DEPLOY, EMPTY, MEGABIT
from rustimg_lab.store.rows import Observation

SOCKETS = [Path("/proc/thread-self/net", name) for name in ("tcp", "tcp6")]  # of the network that a thread is in
# Megabits a second: what is measured of a machine that has nothing, and of one that has the base.
BANDWIDTHS = {EMPTY: (10, 30, 100, 1000), BASE_THERE: (10, 1000)}


def plan(context: StudyContext) -> Studies:
    """The studies, one for each bandwidth and for what the machine has before, each with how a trial of it is measured.
    Raises LabError where this machine cannot have an engine of the lab's own, PlanError when the plan does not fit."""
    servers, workload = context.built[0], context.loads[0].workload
    known = {each.cell.base.name for each in servers}
    bases = {name: image for name, image in context.run.environment["bases"].items() if name in known}
    with local_registry.serve() as own_registry, start(own_registry.address) as machine:
        pushed = {image: own_registry.push(image) for image in {each.image for each in servers} | set(bases.values())}
        stored = {image: stored_bytes(image) for image in pushed}
        ways = " and ".join(sorted({way for each in pushed.values() for way in each.compressed_by}))
        warning = "" if ways == "gzip" else f"this engine pushes layers compressed by {ways}: pulls take as long"
        for has, bandwidths in BANDWIDTHS.items():
            for bandwidth in bandwidths:
                name = f"deploy-{'cold' if has == EMPTY else 'base'}-{bandwidth}mbit"
                parameters = {"bandwidth_mbit": bandwidth, "has": has, "compression": ways, "warning": warning}
                parameters |= workload.parameters()
                study = context.study(name, DEPLOY, metrics.FIRST_RESPONSE_S, parameters)
                there = {"pushed": pushed, "stored": stored, "bases": bases if has == BASE_THERE else {}}
                bits_per_s = bandwidth * MEGABIT
                yield study, partial(measure, workload=workload, machine=machine, bits_per_s=bits_per_s, **there)


def stored_bytes(image: str) -> int:
    """Return the bytes that an image takes on a machine: the sum of its files over all layers, unpacked, equal on every
    engine. Compressed layers that containerd's store keeps beside do not count; a file that a higher layer replaces
    counts in both, as on disk; folders and links count 0."""
    with images.saved(image) as (_, layers):
        return sum(files_of_layer(layer)[0] for layer in layers)


def measure(
    treatment: Treatment,
    workload: Workload,
    machine: Elsewhere,
    bits_per_s: float,
    pushed: dict[str, local_registry.Pushed],
    stored: dict[str, int],
    bases: dict[str, str],
) -> list[Observation]:
    """One trial: the emptied machine gets the base image if in `bases`, then the image, and starts it. `pushed`: images
    in the registry; `stored`: their `stored_bytes`. Raises Lost; LabError without machine or registry."""
    image = pushed[treatment.image]
    try:
        command = images.command(treatment.image)
        machine.empty()
        base = bases.get(treatment.cell.base.name)
        if base:
            machine.line.reset(0)
            machine.pull(pushed[base].tag)
        machine.line.reset(bits_per_s)
        begun = time.monotonic()
        pulled_image = machine.pull(image.tag)
        pulled = time.monotonic()
        created, answered = _first_response(machine, pulled_image, command, workload)
        return [
            Observation(metrics.FIRST_RESPONSE_S, answered - begun),
            Observation(metrics.PULL_S, pulled - begun),
            Observation(metrics.CREATE_S, created - pulled),
            Observation(metrics.START_TO_FIRST_BYTE_S, answered - created),
            Observation(metrics.PULLED_BYTES, machine.line.blob_bytes),
            Observation(metrics.MANIFEST_BYTES, image.config_bytes + sum(image.layer_bytes)),
            Observation(metrics.STORED_BYTES, stored[treatment.image]),
            Observation(metrics.BASE_STORED_BYTES, stored[base] if base else 0),
        ]
    except DiskFull:
        raise
    except (LabError, RequestException) as error:
        machine.check()
        raise Lost(str(error)) from None


def _first_response(machine: Elsewhere, image: str, command: list[str], workload: Workload) -> tuple[float, float]:
    """When a container of the image was made and when it sent its first byte, on the monotonic clock. Raises Lost."""
    port, timeout_s = workload.fixed_port or machine.inside(free_port), workload.serve.start_timeout_s
    arguments, environment = workload.serve.told(host="0.0.0.0", port=port, workers=cpus(), deadline_s=timeout_s)
    options = containers.whole([*command, *arguments]) | {"environment": environment, "network_mode": "host"}
    labels = {client.CONTAINER_LABEL: client.lab_id()}
    container = machine.client.containers.create(image, labels=labels, use_config_proxy=False, **options)
    try:
        created = time.monotonic()
        container.start()
        answered, _ = machine.inside(partial(first_byte, port, timeout_s))
        if answered is None:
            raise Lost(f"no answer within {timeout_s} s{containers.last_words(container)}")
        if reason := not_reached("".join(machine.inside(each.read_text) for each in SOCKETS), port):
            raise Lost(reason)
        return created, answered
    finally:
        containers.remove_container(container)
