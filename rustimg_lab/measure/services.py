"""Services beside an app, such as a database: obtained before anything is measured, and there whenever the app runs.

The first service's container has a loopback interface and no other, and there all services' names are 127.0.0.1. The
other services, the app and what asks it join that network, which so is everywhere alike (see `measure/server.py`).
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container

from rustimg_lab.build import archives, bases
from rustimg_lab.build.origins import ImageRequest, Sources
from rustimg_lab.engine import client, images
from rustimg_lab.engine.containers import created, exit_code, is_running, last_words
from rustimg_lab.errors import LabError
from rustimg_lab.measure import workloads
from rustimg_lab.measure.plan import FailedTrial
from rustimg_lab.model.app import App, Serve, Service

READY_TIMEOUT_S, CALL_TIMEOUT_S, ENDED_S, POLL_S = 60, 120, 2, 0.05


@cache
def obtain(service: Service) -> bases.Provenance:
    """Return the provenance of a service's image, which is imported or pulled when the engine lacks it. Raises
    LabError, with the places that were searched, when it cannot be had."""
    name, image = service.name, service.image
    if archives.detect(image) and not Path(image).is_file():
        raise LabError(f"service {name}: there is no file {image}; 'image' is a path from the folder of lab.toml")
    image_name = name.replace("-", "_")  # behind a dash the name of an image has an architecture
    get, origin = bases.choose_source(image_name, "", sources := Sources(named={image_name: image}))
    try:
        provenance = bases.describe(
            image_name, get(ImageRequest(image_name, origin, sources, partial(print, "lab:"), None))
        )
        return replace(provenance, name=name)
    except images.RegistryError as error:
        cause = f"registry {images.split_host(image)[0]} did not give it ({error.cause})"
        remedy = "`docker load` it, or name an archive of it as 'image'"
        raise LabError(f"service {name}: the engine has no image {image}, and {cause}; {remedy}") from None


def describe(app: App | None) -> dict[str, str]:
    """Return the entry `services` for the plan of a study: each service with digests of its image and its settings. The
    result is empty without services. Raises LabError as `obtain` does, and when two services, or a service and the app,
    have one port."""
    if not (app and app.services):
        return {}
    ports, descriptions = {f"{workloads.app_workload(app).port}/tcp": app.name} if app.serve else {}, []
    for service in app.services:
        for port in images.inspect(image := obtain(service).digest).ports:
            if (holder := ports.setdefault(port, service.name)) != service.name:
                raise LabError(f"{holder} and the service {service.name} both have port {port}, and share one network")
        settings = hashlib.sha256(repr((service.environment, service.command)).encode()).hexdigest()
        descriptions.append(f"{service.name} (image {images.contents_digest(image)[:12]}, settings {settings[:12]})")
    return {"services": ", ".join(descriptions)}


@contextmanager
def run_services(services: tuple[Service, ...], cpus: str = "") -> Iterator[dict[str, str]]:
    """Run services while the block lasts, on these CPUs ("": all). Yields the options by which a container joins their
    network; none without services. Raises FailedTrial, with a service's last log lines, when a service does not start
    or ends early."""
    network: dict[str, Any] = {}
    with ExitStack() as stack:
        containers = []
        for service in services:
            names = {peer.name: "127.0.0.1" for peer in services}
            # By its own name too a host finds itself, as some services want; Docker gives it to those that join.
            options = network or {"network_mode": "none", "extra_hosts": names, "hostname": service.name}
            options = options | {"environment": dict(service.environment), "cpuset_cpus": cpus}
            info = images.inspect(image := obtain(service).digest)
            options |= {"command": [*info.entrypoint, *service.command] if service.command else info.command}
            containers.append(stack.enter_context(started(f"service {service.name}", image, **options)))
            network = {"network_mode": f"container:{containers[0].id}"}
            _wait_until_ready(service, containers[-1])
        yield network
        for service, container in zip(services, containers, strict=True):
            if not is_running(container):
                raise FailedTrial(f"the service {service.name} ended while the app ran{last_words(container)}")


def _wait_until_ready(service: Service, container: Container) -> None:
    api, label, code, call = client.connect().api, f"the service {service.name}", None, ""
    start_s = time.monotonic()
    while service.ready and code != 0:
        if not is_running(container):
            raise FailedTrial(f"{label} ended before it was ready{last_words(container)}")
        if time.monotonic() - start_s > READY_TIMEOUT_S:
            raise FailedTrial(f"{label} is not ready within {READY_TIMEOUT_S} s{last_words(container)}")
        try:
            if not call or code is not None:
                api.exec_start(call := api.exec_create(container.id, list(service.ready))["Id"], detach=True)
            code = api.exec_inspect(call)["ExitCode"]  # None while it runs
        except APIError as error:
            if exit_code(container, ENDED_S) is None:  # else it ended just now
                raise FailedTrial(
                    f"{label}: `ready` cannot be called: {error.explanation}{last_words(container)}"
                ) from None
        time.sleep(POLL_S)


def run_before(image: str, serve: Serve, **options: Any) -> None:
    """Run the image's program once per list of arguments in `serve.before`, in containers with `options`. Raises
    FailedTrial when a call does not end with exit code 0."""
    for arguments in serve.before:
        label = f"call `{' '.join(arguments)}` before the server"
        with started(label, image, **options | {"command": [*images.command(image), *arguments]}) as container:
            if (code := exit_code(container, CALL_TIMEOUT_S)) != 0:
                outcome = f"did not end within {CALL_TIMEOUT_S} s" if code is None else f"ended with exit code {code}"
                raise FailedTrial(f"the {label} {outcome}{last_words(container)}")


@contextmanager
def started(label: str, image: str, files: bytes = b"", **options: Any) -> Iterator[Container]:
    """Run a container of the image while the block lasts, with `files` (a tar archive for /) in it, and yield it.
    Raises FailedTrial, which names it by `label`, when the engine cannot create or start it."""
    with ExitStack() as stack:
        try:
            container = stack.enter_context(created(image, files, **options))
            container.start()
        except APIError as error:
            raise FailedTrial(f"the {label} does not start: {client.explain_refusal(error)}") from None
        yield container
