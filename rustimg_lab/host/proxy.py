"""The HTTP proxy: its variables, passed to commands and builds, and kept out of logs and images; and other secrets."""

import os
from urllib.parse import SplitResult, quote, unquote, urlsplit

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
_hidden: set[str] = set()


def variables(machine: str = "") -> dict[str, str]:
    """The proxy variables that are set, by upper-case name (lower case wins), with `machine` in place of loopback."""
    found = {name: os.environ.get(name.lower()) or os.environ.get(name) for name in NAMES}
    found = {name: value for name, value in found.items() if value}
    for name, address in zip(found, _addresses(found), strict=False) if machine else ():
        if _is_loopback(address.hostname):
            port = f":{address.port}" if address.port else ""
            user = f"{before}@" if (before := address.netloc.rpartition("@")[0]) else ""
            found[name] = address._replace(netloc=f"{user}{machine}{port}").geturl().removeprefix("//")
    return found


def environment() -> dict[str, str]:
    """The same in both cases: apt reads only the lower, some others only the upper."""
    return {spelled: value for name, value in variables().items() for spelled in (name, name.lower())}


def build_options(machine: str = "") -> list[str]:
    """What `docker buildx build` takes: names of variables, whose values stay in its environment (`variables`, also for
    `machine`). These build arguments are BuildKit's own: in no history, no layer and no cache key."""
    arguments = [option for name in variables() for option in ("--build-arg", name)]
    return [*arguments, "--network=host"] if on_this_machine() and not machine else arguments


def on_this_machine() -> bool:
    """Whether a proxy listens on loopback, where a build reaches it on the host's network only."""
    return any(_is_loopback(address.hostname) for address in _addresses(variables()))


def hide(secret: str) -> None:
    """Keep a secret, its lines and its long words out of what `redact` returns from now on."""
    parts = [secret.strip(), *(each for each in (*secret.splitlines(), *secret.split()) if len(each) > 7)]
    _hidden.update(spelled for each in filter(None, parts) for spelled in (each, quote(each, safe="")))


def redact(text: str) -> str:
    """`text` without secrets, proxies' addresses and credentials: what a log or a row may keep."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    # Of what goes past the proxy, the names; addresses such as 127.0.0.1 say nothing of a network.
    secrets = {name for name in variables().get("NO_PROXY", "").split(",") if "." in name and not name[-1].isdigit()}
    for address in _addresses(variables()):
        secrets |= {address.geturl(), address.netloc, address.netloc.rpartition("@")[0], address.password}
        secrets |= {None if _is_loopback(address.hostname) else address.hostname}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for spelled in (secret, unquote(secret)):
            text = text.replace(spelled, "[proxy]")
    return text


def _addresses(found: dict[str, str]) -> list[SplitResult]:
    """The addresses in variables, which have NO_PROXY last."""
    found = (value for name, value in found.items() if name != "NO_PROXY")
    return [urlsplit(value if "//" in value else f"//{value}") for value in found]


def _is_loopback(host: str | None) -> bool:
    return host in ("localhost", "::1") or (host or "").startswith("127.")
