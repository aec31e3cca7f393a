"""Which engine the docker client calls: by DOCKER_HOST, or by its context, with the certificates for it. docker-py
looks for contexts beside a config.json alone, and elsewhere than the client where there is none."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from docker.errors import TLSParameterError
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from rustimg_lab.errors import LabError

USUAL = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Context:
    """An engine. `name`: of the client's context and of the engine's own builder; `tls`: certificates, or None."""

    name: str
    address: str
    tls: TLSConfig | None = None


def current() -> Context:
    """Return the engine of DOCKER_HOST, else DOCKER_CONTEXT, else the context in use. Raises LabError without it."""
    if address := os.environ.get("DOCKER_HOST"):
        try:
            return Context("default", address, kwargs_from_env().get("tls"))
        except TLSParameterError:
            place = os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker"
            raise LabError(
                f"DOCKER_TLS_VERIFY or DOCKER_CERT_PATH is set, and {place} lacks one of ca.pem, cert.pem and key.pem: "
                "name the folder that has them, or unset both"
            ) from None
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    asked, used = os.environ.get("DOCKER_CONTEXT"), ""
    with suppress(OSError, ValueError, AttributeError):  # none, or one that the client does not read either
        used = str(json.loads((folder / "config.json").read_text()).get("currentContext", ""))
    if (name := asked or used or "default") == "default":
        return Context(name, USUAL)
    place = hashlib.sha256(name.encode()).hexdigest()
    try:
        told = json.loads((folder / "contexts/meta" / place / "meta.json").read_text())
        endpoint = told["Endpoints"]["docker"]
        address = endpoint["Host"]
    except (OSError, ValueError, KeyError, TypeError):
        said = f"'{name}'{' (DOCKER_CONTEXT)' if asked else ', which its config.json names'}"
        raise LabError(f"the docker client has no context {said}; see `docker context ls`") from None
    return Context(name, address, _tls(folder / "contexts/tls" / place / "docker", bool(endpoint.get("SkipTLSVerify"))))


def _tls(folder: Path, is_unverified: bool) -> TLSConfig | None:
    authority, certificate, key = (str(path) if (path := folder / f"{name}.pem").is_file() else None
                                   for name in ("ca", "cert", "key"))  # fmt: skip
    if not (authority or certificate or is_unverified):
        return None
    own = (certificate, key) if certificate and key else None
    return TLSConfig(client_cert=own, ca_cert=authority, verify=not is_unverified)
