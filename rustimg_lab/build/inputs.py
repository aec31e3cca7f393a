"""What a build gets beside its sources: variables of the user's, secrets, the SSH agent, the repository."""

import os
import re
from pathlib import Path

from rustimg_lab.build import sources
from rustimg_lab.engine import client
from rustimg_lab.errors import LabError
from rustimg_lab.host import proxy
from rustimg_lab.host.files import resolve_path
from rustimg_lab.model.app import App

_LOGIN = re.compile(r"https?://[^/\s]+@|extraheader", re.IGNORECASE)


def check(app: App) -> None:
    """Raise LabError when the builds of an app need what is missing, or when a layer would keep a secret. From then on
    the app's secrets are in nothing that the lab prints or writes."""
    if refusal := _refusal(app):
        raise LabError(f"{app.directory / app.subdirectory}: {refusal}")


def _refusal(app: App) -> str:
    for name in (*app.arguments, *(name for name, source in app.secrets if source == "env")):
        if not os.environ.get(name):
            return f"its builds need the variable {name}, which is not set, or empty: export {name}=VALUE first"
    for name, source in app.secrets:
        path = _path(app, name, source)
        if source == "env":
            proxy.hide(os.environ[name])
        elif not (path.is_file() and os.access(path, os.R_OK) and 0 < path.stat().st_size <= 500 << 10):
            return f"secret {name}: {path} is no file that can be read, or is empty, or has more than 500 KiB"
        elif (name, path) in sent_secrets(app):
            return sent_secret_error(name, path)
        elif name != "known_hosts":  # which names servers, and no secret
            proxy.hide(path.read_text("utf-8", "replace"))
    if app.ssh and not Path(os.environ.get("SSH_AUTH_SOCK", "")).is_socket():
        return "'ssh' needs an SSH agent: call `eval $(ssh-agent); ssh-add` first"
    if app.ssh and client.is_podman():
        return "'ssh' needs BuildKit, and the engine is Podman: use Docker Engine, or `cargo vendor`"
    repository = app.directory / ".git"
    if app.git and not repository.is_dir():
        return f"'git': {repository} is no folder, as in a worktree or a submodule: use a clone; {sources.WIDER}"
    for path in filter(Path.is_file, repository.rglob("config") if app.git else []):
        if _LOGIN.search(path.read_text("utf-8", "replace")):
            return f"'git': {path} has a login in it, which a layer of the builder would keep: take it out"
    return sources.why_missing(app.directory, repository) if app.git else ""


def sent_secrets(app: App) -> list[tuple[str, Path]]:
    """Return the name and file of each secret that builds would get with the sources; the file need not exist yet."""
    paths = [(name, _path(app, name, source)) for name, source in app.secrets if source != "env"]
    return [secret for secret in paths if sources.is_sent(app.directory, secret[1])]


def sent_secret_error(name: str, path: Path) -> str:
    """Return the error for a secret of `sent_secrets`, with what to do."""
    return f"secret {name}: {path} would be sent with the sources: name it in {sources.IGNORED}"


def _path(app: App, name: str, source: str) -> Path:
    return resolve_path(
        source, app.directory / app.subdirectory, f"{app.directory / app.subdirectory}: secret {name}: "
    )


def mounts(app: App) -> dict[str, list[str]]:
    """Return the keys `secret` and `ssh` of a target in a bake file: where each secret is, and no value."""
    secrets = [
        f"id={name}," + (f"env={name}" if source == "env" else f"src={_path(app, name, source)}")
        for name, source in app.secrets
    ]
    return {"secret": secrets, "ssh": ["default"] if app.ssh else []}


def in_words(app: App) -> str:
    """Return what a row keeps of a build's inputs: arguments with their values, secrets by name; "" for none."""
    arguments = [f"{name}={os.environ[name]}" for name in app.arguments]
    return "; ".join(arguments + [f"secret {name}" for name, _ in app.secrets])
