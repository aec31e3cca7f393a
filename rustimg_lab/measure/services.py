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
from rustimg_lab.build.origins import Sources, Wanted
from rustimg_lab.engine import client, images
from rustimg_lab.engine.containers import created, exit_code, is_running, last_words
from rustimg_lab.errors import LabError
from rustimg_lab.measure import workloads
from rustimg_lab.measure.plan import Lost
from rustimg_lab.model.app import App, Serve, Service

READY_TIMEOUT_S, CALL_TIMEOUT_S, ENDED_S, POLL_S = 60, 120, 2, 0.05


@cache
def obtain(service: Service) -> bases.Provenance:
    """Return the image of a service, pulled or imported where missing. Raises LabError with where it was looked for."""
    name, image = service.name, service.image
    if archives.detect(image) and not Path(image).is_file():
        raise LabError(f"service {name}: there is no file {image}; 'image' is a path from the folder of lab.toml")
    own = name.replace("-", "_")  # behind a dash the name of an image has an architecture
    get, origin = bases.decide(own, "", sources := Sources(named={own: image}))
    try:
        found = bases.describe(own, get(Wanted(own, origin, sources, partial(print, "lab:"), None)))
        return replace(found, name=name)
    except images.RegistryError as error:
        where = f"registry {images.split_host(image)[0]} did not give it ({error.cause})"
        remedy = "`docker load` it, or name an archive of it as 'image'"
        raise LabError(f"service {name}: the engine has no image {image}, and {where}; {remedy}") from None


def described(app: App | None) -> dict[str, str]:
    """For the plan of a study: each service, with digests of its image and of how it is started; empty without any.
    Raises LabError as `obtain` does, and when two services have one port, or one has the app's."""
    if not (app and app.services):
        return {}
    ports, told = {f"{workloads.own(app).port}/tcp": app.name} if app.serve else {}, []
    for each in app.services:
        for port in images.inspect(image := obtain(each).digest).ports:
            if (other := ports.setdefault(port, each.name)) != each.name:
                raise LabError(f"{other} and the service {each.name} both have port {port}, and share one network")
        settings = hashlib.sha256(repr((each.environment, each.command)).encode()).hexdigest()
        told.append(f"{each.name} (image {images.contents_digest(image)[:12]}, settings {settings[:12]})")
    return {"services": ", ".join(told)}


@contextmanager
def beside(services: tuple[Service, ...], cpus: str = "") -> Iterator[dict[str, str]]:
    """Run services while the block lasts, on these CPUs ("": all), and yield the options by which a container joins
    their network: none without services. Raises Lost, with a service's last words, when it does not start or stay."""
    network: dict[str, Any] = {}
    with ExitStack() as stack:
        running = []
        for each in services:
            names = {service.name: "127.0.0.1" for service in services}
            # By its own name too a host finds itself, as some services want; Docker gives it to those that join.
            options = network or {"network_mode": "none", "extra_hosts": names, "hostname": each.name}
            options = options | {"environment": dict(each.environment), "cpuset_cpus": cpus}
            about = images.inspect(image := obtain(each).digest)
            options |= {"command": [*about.entrypoint, *each.command] if each.command else about.command}
            running.append(stack.enter_context(started(f"service {each.name}", image, **options)))
            network = {"network_mode": f"container:{running[0].id}"}
            _wait_until_ready(each, running[-1])
        yield network
        for each, container in zip(services, running, strict=True):
            if not is_running(container):
                raise Lost(f"the service {each.name} ended while the app ran{last_words(container)}")


def _wait_until_ready(service: Service, container: Container) -> None:
    api, what, code, call = client.connect().api, f"the service {service.name}", None, ""
    begun = time.monotonic()
    while service.ready and code != 0:
        if not is_running(container):
            raise Lost(f"{what} ended before it was ready{last_words(container)}")
        if time.monotonic() - begun > READY_TIMEOUT_S:
            raise Lost(f"{what} is not ready within {READY_TIMEOUT_S} s{last_words(container)}")
        try:
            if not call or code is not None:
                api.exec_start(call := api.exec_create(container.id, list(service.ready))["Id"], detach=True)
            code = api.exec_inspect(call)["ExitCode"]  # None while it runs
        except APIError as error:
            if exit_code(container, ENDED_S) is None:  # else it ended just now
                raise Lost(f"{what}: `ready` cannot be called: {error.explanation}{last_words(container)}") from None
        time.sleep(POLL_S)


def run_before(image: str, serve: Serve, **options: Any) -> None:
    """Call the image's program as `serve.before` says, with container `options`. Raises Lost when a call fails."""
    for arguments in serve.before:
        what = f"call `{' '.join(arguments)}` before the server"
        with started(what, image, **options | {"command": [*images.command(image), *arguments]}) as container:
            if (code := exit_code(container, CALL_TIMEOUT_S)) != 0:
                ended = f"did not end within {CALL_TIMEOUT_S} s" if code is None else f"ended with exit code {code}"
                raise Lost(f"the {what} {ended}{last_words(container)}")


@contextmanager
def started(what: str, image: str, files: bytes = b"", **options: Any) -> Iterator[Container]:
    """A started container of the image in the block, with `files` (a tar archive for /). Raises Lost, naming `what`."""
    with ExitStack() as stack:
        try:
            container = stack.enter_context(created(image, files, **options))
            container.start()
        except APIError as error:
            raise Lost(f"the {what} does not start: {client.explained(error)}") from None
        yield container
