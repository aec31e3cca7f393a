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
    """An engine. `name`: of the client's context, and of the buildx builder that is the engine itself; `tls`: the
    certificates for it, None for one that is called without."""

    name: str
    address: str
    tls: TLSConfig | None = None


def current() -> Context:
    """Return the engine of DOCKER_HOST, else of DOCKER_CONTEXT, else of the context that is in use. Raises LabError
    when there is no context of that name, or the certificates for it are missing."""
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
    requested_name, current_name = os.environ.get("DOCKER_CONTEXT"), ""
    with suppress(OSError, ValueError, AttributeError):  # none, or one that the client does not read either
        current_name = str(json.loads((folder / "config.json").read_text()).get("currentContext", ""))
    if (name := requested_name or current_name or "default") == "default":
        return Context(name, USUAL)
    place = hashlib.sha256(name.encode()).hexdigest()
    try:
        metadata = json.loads((folder / "contexts/meta" / place / "meta.json").read_text())
        endpoint = metadata["Endpoints"]["docker"]
        address = endpoint["Host"]
    except (OSError, ValueError, KeyError, TypeError):
        description = f"'{name}'{' (DOCKER_CONTEXT)' if requested_name else ', which its config.json names'}"
        raise LabError(f"the docker client has no context {description}; see `docker context ls`") from None
    return Context(name, address, _tls(folder / "contexts/tls" / place / "docker", bool(endpoint.get("SkipTLSVerify"))))


def _tls(folder: Path, is_unverified: bool) -> TLSConfig | None:
    authority, certificate, key = (str(path) if (path := folder / f"{name}.pem").is_file() else None
                                   for name in ("ca", "cert", "key"))  # fmt: skip
    if not (authority or certificate or is_unverified):
        return None
    key_pair = (certificate, key) if certificate and key else None
    return TLSConfig(client_cert=key_pair, ca_cert=authority, verify=not is_unverified)
