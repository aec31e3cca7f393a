"""The HTTP proxy: its variables, passed to commands and builds, and kept out of logs and images; and other secrets."""

import os
from urllib.parse import SplitResult, quote, unquote, urlsplit

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
_hidden: set[str] = set()


def variables(machine: str = "") -> dict[str, str]:
    """Return the proxy variables that are set, by upper-case name. Where both cases are set, lower case wins, as in
    curl.

    `machine` replaces loopback in the addresses: the name of this machine where they are used. "" leaves loopback as it
    is.
    """
    values = {name: os.environ.get(name.lower()) or os.environ.get(name) for name in NAMES}
    values = {name: value for name, value in values.items() if value}
    for name, address in zip(values, _addresses(values), strict=False) if machine else ():
        if _is_loopback(address.hostname):
            port = f":{address.port}" if address.port else ""
            user = f"{credentials}@" if (credentials := address.netloc.rpartition("@")[0]) else ""
            values[name] = address._replace(netloc=f"{user}{machine}{port}").geturl().removeprefix("//")
    return values


def environment() -> dict[str, str]:
    """Return the proxy variables under upper-case and lower-case names: apt reads only the lower, some others only the
    upper."""
    return {spelling: value for name, value in variables().items() for spelling in (name, name.lower())}


def build_options(machine: str = "") -> list[str]:
    """Return options of `docker buildx build` that name the proxy variables. The values (`variables`, also for
    `machine`) stay in its environment, out of the command line.

    These build arguments are BuildKit's own: they are in no history and no layer, and the cache does not depend on
    them.
    """
    arguments = [option for name in variables() for option in ("--build-arg", name)]
    return [*arguments, "--network=host"] if is_on_this_machine() and not machine else arguments


def is_on_this_machine() -> bool:
    """Return whether a proxy listens on loopback. A build reaches such a proxy on the host's network only."""
    return any(_is_loopback(address.hostname) for address in _addresses(variables()))


def hide(secret: str) -> None:
    """Hide a secret, its lines and its words of eight letters or more from what `redact` returns from now on."""
    parts = [secret.strip(), *(word for word in (*secret.splitlines(), *secret.split()) if len(word) > 7)]
    _hidden.update(spelling for part in filter(None, parts) for spelling in (part, quote(part, safe="")))


def redact(text: str) -> str:
    """Return `text` without secrets and without the addresses and credentials of proxies: what a log or a row may
    keep."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    # Of what goes past the proxy, the names; addresses such as 127.0.0.1 say nothing of a network.
    secrets = {name for name in variables().get("NO_PROXY", "").split(",") if "." in name and not name[-1].isdigit()}
    for address in _addresses(variables()):
        secrets |= {address.geturl(), address.netloc, address.netloc.rpartition("@")[0], address.password}
        secrets |= {None if _is_loopback(address.hostname) else address.hostname}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for spelling in (secret, unquote(secret)):
            text = text.replace(spelling, "[proxy]")
    return text


def _addresses(values: dict[str, str]) -> list[SplitResult]:
    """Return the addresses in proxy variables. NO_PROXY has none."""
    values = (value for name, value in values.items() if name != "NO_PROXY")
    return [urlsplit(value if "//" in value else f"//{value}") for value in values]


def _is_loopback(host: str | None) -> bool:
    return host in ("localhost", "::1") or (host or "").startswith("127.")
