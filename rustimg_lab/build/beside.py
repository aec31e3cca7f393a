"""What is written beside a crate to ship it: Dockerfile, .dockerignore, and a compose.yaml with a health check."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from rustimg_lab.build import inputs
from rustimg_lab.build.dockerfile import secret_file
from rustimg_lab.build.sources import IGNORED
from rustimg_lab.errors import LabError
from rustimg_lab.host import files
from rustimg_lab.model.app import App, Serve, Service

PORT = 8080  # of a server that listens where it is told to
CLIENT = "curlimages/curl:8.11.1"  # asks from a container of its own: the server's image may have no program for it
_REPEATED = {"interval": "5s", "timeout": "3s", "retries": 3}


def write(app: App, dockerfile: str) -> list[Path]:
    """Write the files to the folder that builds get, and return their paths. A .dockerignore that is there stays,
    because the lab's builds use it too. Raises LabError, and writes nothing, when another file is there or cannot be
    written. A secret that would be sent, and a value that a compose.yaml cannot have, are errors too."""
    texts = {"Dockerfile": dockerfile, "compose.yaml": compose(app)}
    if conflicts := [name for name in texts if os.path.lexists(app.directory / name)]:
        raise LabError(f"{app.directory} has {', '.join(conflicts)} already: nothing was written; move it away first")
    if not os.path.lexists(app.directory / IGNORED):
        texts[IGNORED] = ignore_file(app)
    elif leaks := inputs.sent_secrets(app):
        raise LabError(
            f"{app.directory / app.subdirectory}: {inputs.sent_secret_error(*leaks[0])}: nothing was written"
        )
    paths: list[Path] = []
    try:
        for name, text in texts.items():
            with (app.directory / name).open("x", encoding="utf-8") as file:
                paths.append(app.directory / name)
                file.write(text)
    except BaseException as error:
        for path in paths:
            path.unlink()
        if not isinstance(error, OSError):
            raise
        raise LabError(f"{error.filename or app.directory}: {error.strerror}; nothing was written") from None
    return paths


def ignore_file(app: App) -> str:
    """Return the text of the .dockerignore: what the lab's builds leave out, what no build reads, and secrets."""
    lines = ["/target", *([f"/{app.subdirectory}/target"] if app.subdirectory else []), *([] if app.git else ["/.git"])]
    secrets = [path.relative_to(app.directory).as_posix() for _, path in inputs.sent_secrets(app)]
    lines += [re.sub(r"[][*?\\]", "?", f"/{path}") for path in dict.fromkeys(secrets)]  # no letter of a pattern's
    return "\n".join([*lines, "/Dockerfile", f"/{IGNORED}", "/compose.yaml", ""])


def compose(app: App) -> str:
    """Return the text of the compose.yaml (https://github.com/compose-spec/compose-spec): the image, its services, and
    for a server its port and its health. Raises LabError when a compose.yaml cannot have what `lab.toml` says."""
    name, services = files.image_part(app.name), {service.name: _service(service) for service in app.services}
    program: dict[str, Any] = {"build": _build(app)}
    dependencies = {key: {"condition": f"service_{'healthy' if 'healthcheck' in service else 'started'}"}
                    for key, service in services.items()}  # fmt: skip
    containers: dict[str, Any] = {}
    if app.serve:
        port = PORT if app.serve.takes_port else app.image.ports[0]
        settings = _server_settings(app.serve, port)
        program["environment"] = settings["environment"]
        for number, arguments in enumerate(app.serve.before, 1):
            step = f"{name}-before-{number}"
            containers[step] = program | {"command": list(map(_escape, arguments)), "depends_on": dict(dependencies)}
            dependencies[step] = {"condition": "service_completed_successfully"}
        program |= settings | {"ports": [f"{port}:{port}"]}
        if app.serve.grpc is None and not app.image.healthcheck:
            containers[f"{name}-health"] = _health_check(app.serve, name, port)
    containers[name] = {key: value for key, value in (program | {"depends_on": dependencies}).items() if value}
    if conflicts := containers.keys() & services.keys():
        raise LabError(f"compose.yaml: [[services]] has {min(conflicts)}, a name that the program's own containers get")
    secrets = {
        key: {"environment": key} if source == "env" else {"file": secret_file(app, source, "${HOME}")}
        for key, source in app.secrets
    }
    body = {"services": services | containers} | ({"secrets": secrets} if secrets else {})
    body = json.loads(json.dumps(body))  # what stands twice is written twice, and not as an alias
    command = "up --build --wait" if app.serve else f"run --build --rm {name}"
    return f"# Written by rustimg_lab. To start it: docker compose {command}\n{yaml.safe_dump(body, sort_keys=False)}"


def _build(app: App) -> dict[str, Any]:
    """How Compose builds the image, with what the build gets beside its sources."""
    settings = {"args": app.arguments, "secrets": [name for name, _ in app.secrets], "ssh": ["default"] * app.ssh}
    return {"context": "."} | {key: list(value) for key, value in settings.items() if value}


def _service(service: Service) -> dict[str, Any]:
    if Path(service.image).is_absolute():
        archive = f"{service.name} is the archive {Path(service.image).name}"
        raise LabError(f"compose.yaml: the service {archive}, and Compose takes none: name an image in [[services]]")
    settings = {
        "image": service.image,
        "command": list(map(_escape, service.command)),
        "environment": {key: _escape(text) for key, text in service.environment},
        "healthcheck": {"test": ["CMD", *map(_escape, service.ready)], **_REPEATED} if service.ready else {},
    }
    return {key: value for key, value in settings.items() if value}


def _server_settings(serve: Serve, port: int) -> dict[str, Any]:
    """The server's variables and arguments. Of the former those are left out that a measurement sets: how many threads
    it has, and when it is to end."""
    if any("{deadline_s}" in text for text in serve.arguments):
        raise LabError("compose.yaml: an argument in [serve] has {deadline_s}, which ends the server: use a variable")

    def filled(text: str) -> str:
        text = _escape(text).replace("{host}", "0.0.0.0").replace("{port}", str(port))
        return text.replace("{workers}", "${WORKERS:-1}")

    placeholder = re.compile(r"{workers}|{deadline_s}")
    environment = {key: filled(text) for key, text in serve.environment if not placeholder.search(text)}
    return {"environment": environment, "command": list(map(filled, serve.arguments))}


def _escape(text: str) -> str:
    """A text in which Compose finds no variable."""
    return text.replace("$", "$$")


def _health_check(serve: Serve, name: str, port: int) -> dict[str, Any]:
    """A container in the server's network that is healthy while the server answers with its status."""
    protocol = ["--http2" if serve.tls else "--http2-prior-knowledge"] if serve.http == 2 else []
    body = ["--data-raw", serve.body] if serve.body else []
    url = f"{'https' if serve.tls else 'http'}://127.0.0.1:{port}{serve.path}"
    options = ["--silent", "--insecure", "--globoff", "--output", "/dev/null", "--write-out", "%{http_code}"]
    call = shlex.join(["curl", *options, *protocol, "--request", serve.method, *body, url])
    test = ["CMD-SHELL", _escape(f'test "$({call})" = {serve.status}')]
    return {
        "image": CLIENT,
        "entrypoint": ["sleep", "infinity"],
        "init": True,
        "network_mode": f"service:{name}",
        "depends_on": [name],
        "healthcheck": {"test": test, **_REPEATED, "start_period": f"{serve.start_timeout_s}s"},
    }
