"""The check of an image: started without privileges, its program must do what the app's `check` says."""

import io
import ipaddress
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container
from docker.utils import create_archive
from requests.exceptions import RequestException

from rustimg_lab.engine import client, containers, images
from rustimg_lab.engine.emulation import NO_EMULATOR
from rustimg_lab.measure import services, workloads
from rustimg_lab.measure.plan import Lost
from rustimg_lab.measure.server import CLIENT, ask, serving, wait_for
from rustimg_lab.measure.workloads import PORT
from rustimg_lab.model import metrics
from rustimg_lab.model.app import App, Check
from rustimg_lab.store.rows import NOT_STARTED, NOTE, Observation

TIMEOUT_S = 30
OUTPUT_BYTES = 8 << 20  # of a program, beyond which it is not read into memory
START_TIMEOUT_S = 30  # of the HTTPS server that a program fetches from
USER = "10001:10001"  # as the Dockerfiles have it
FILES = "in lab.toml, `files` puts what a program reads into the image, and `writable` makes folders that it writes to"
LISTENS = "its container has no such address, as ::1 or that of a host: a server must listen on 0.0.0.0"
CALLED = "[check] in lab.toml says how the program is called, and with which exit code it ends"
NEVER_ENDS = (
    "[serve] in lab.toml is for a server; `prints` in [check] is for another program that never ends, as a bot: it "
    "passes once it has printed that"
)
HOME = "its user has no home folder: `environment` in lab.toml sets HOME, to a folder that is `writable` there"
VARIABLE = "`environment` in lab.toml sets variables of the image, that of [serve] those of a server"
ANY_PATH = f"{NOTE}the path in [serve] is answered as one that is not there; "
# What may help, by what a program says when it ends.
_HELP = {
    r"No such file or directory|Permission denied|os error (2|13)\b": FILES,
    r"/tmp\b.*No such file or directory": "`--with tmp` makes a folder /tmp",
    r"/nonexistent/": HOME,
    r"(?i)^exit code .*(; usage|\b(unknown|unexpected|unrecogni[sz]ed|invalid) (option|argument|flag))\b": CALLED,
    r"\bNotPresent\b|environment variable not found": VARIABLE,
    r"^printed more than": CALLED,
    r"AddrNotAvailable|[Aa]ddress not available|assign requested address|os error 99\b": LISTENS,
}


@dataclass(frozen=True)
class AddressServer:
    """An HTTPS server on 127.0.0.1 in a `network` that others join. It answers as api.myip.com, with an address that
    nobody can guess; its certificate is signed by an authority below the root in `ca_pem`."""

    url: str
    ca_pem: str
    address: str
    container: Container

    @property
    def network(self) -> str:
        """The mode by which a container gets into the server's network."""
        return f"container:{self.container.id}"


@contextmanager
def address_server(tools: str) -> Iterator[AddressServer]:
    """Serve in the block, with a certificate authority made for it. `tools`: the benchmark tools. Raises Lost."""
    import trustme  # which only a check by the program's own request takes

    authority = trustme.CA()
    certificate = authority.create_child_ca().issue_cert("127.0.0.1", "localhost")
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    # 2001:db8::/32 is for documentation (RFC 3849): no machine has such an address.
    address = str(ipaddress.IPv6Address("2001:db8::") + secrets.randbits(64))
    answer = {"port": PORT, "body": json.dumps({"ip": address, "country": "Unknown", "cc": "XX"})}
    key = certificate.private_key_pem.bytes()
    files = archive({"client/certificate.pem": chain.decode(), "client/key.pem": key.decode()})
    command = [*CLIENT, "https", json.dumps(answer)]
    with services.started("HTTPS server", tools, files, command=command, network_mode="none") as container:
        wait_for(b"ready\n", container, "HTTPS server", START_TIMEOUT_S)
        url = f"https://127.0.0.1:{PORT}/"
        yield AddressServer(url, authority.cert_pem.bytes().decode(), address, container)


def archive(texts: dict[str, str]) -> bytes:
    """A tar archive for /, of these files by name."""
    return create_archive("", [], io.BytesIO(), extra_files=list(texts.items())).getvalue()


def needs_tools(app: App) -> bool:
    """Whether the check of an app takes the image of the benchmark tools: where something is asked over a network."""
    return app.check is None or bool(app.check.https_url)


def measure_runs(image: str, app: App, tools: str = "", emulated: bool = False) -> Observation:
    """Start the image's program as its own user and check what it does: a row `runs`, not ok with the reason. `tools`:
    see `needs_tools`. Of an image for another architecture (`emulated`) the row says so; its value is `NOT_STARTED`
    without an emulator."""
    note = ""
    if (user := images.inspect(image).user) != USER:
        reason = f"runs as '{user or 'root'}', not as user 10001"
    elif app.check is None and not emulated:
        reason, note = _answers(image, app, tools, elsewhere=True)
    else:
        reason = why_not(image, app, tools)
        if emulated and NO_EMULATOR in reason:
            return Observation(metrics.RUNS, NOT_STARTED, detail=f"{NOTE}{NOT_STARTED}; {in_words(app)}")
    reason += "".join(f"; {help}" for said, help in _HELP.items() if re.search(said, reason))
    return Observation(metrics.RUNS, not reason, ok=not reason, reason=reason, detail=note + in_words(app, emulated))


def why_not(image: str, app: App, tools: str = "", **options: Any) -> str:
    """Why the image's program does not do what the app's check says, in a container with `options`; "" when it does."""
    if app.check is None:
        return _answers(image, app, tools, **options)[0]
    try:
        if app.check.https_url:
            return _fetches(image, app.check, tools, **options)
        with services.beside(app.services) as network:
            return _prints(image, app.check, **network | options)
    except Lost as lost:
        return str(lost)


def in_words(app: App, emulated: bool = False) -> str:
    """What is checked: with another check, what was found by this one is nothing to go by."""
    if emulated:
        only = " (only its start)" if app.check and app.check.only_starts else ""
        return f"{NOTE}checked under emulation{only}; {in_words(app).removeprefix(NOTE)}"
    there = "".join(f"; beside {each}" for each in services.described(app).values())
    if app.check is None:
        return f"CMD, as its own user, answers: {workloads.own(app).parameters()['asked']}{there}"
    command = " ".join(["CMD", *app.check.arguments])
    if app.check.https_url:
        return f"{command} over HTTPS, as its own user"
    note = f"{NOTE}only its start was checked; " if app.check.only_starts else ""
    return f"{note}{command}, as its own user, ends with {app.check.exit_code} and prints '{app.check.prints}'{there}"


def _answers(image: str, app: App, tools: str, elsewhere: bool = False, **options: Any) -> tuple[str, str]:
    """Why the server does not answer what its app says it is asked, with keep-alive or without; "" when it does. And
    `ANY_PATH` where it is asked `elsewhere` too, and answers with as much, as by one page for all; else ""."""
    workload, deadline_s = workloads.once(workloads.own(app)), TIMEOUT_S + app.serve.start_timeout_s
    path, mark, query = app.serve.path.partition("?")
    nowhere = replace(workload, serve=replace(workload.serve, path=f"{path}-{secrets.token_hex(8)}{mark}{query}"))
    asked = [workload, nowhere] if elsewhere and path != "/" and app.serve.method == "GET" else []
    try:
        with serving(image, workload, tools, workers=1, deadline_s=deadline_s, **options) as server:
            sizes = [ask(server.client, "ask", each, seconds=0).get("body_bytes") for each in asked]
    except Lost as lost:
        return str(lost), ""
    return "", ANY_PATH if sizes and sizes[0] == sizes[1] is not None else ""


def _fetches(image: str, check: Check, tools: str, **options: Any) -> str:
    """Why the program did not fetch from a server of this call's and print what that had answered; "" when it did."""
    with address_server(tools) as server:
        environment = {check.https_url: server.url} | ({check.https_ca: server.ca_pem} if check.https_ca else {})
        where = {"network_mode": server.network, "environment": environment}
        said, reason = _ended(image, check, stderr=False, **where, **options)
        requests_made = server.container.logs().count(b"request\n")
    if reason:
        return reason
    if said.strip() != server.address:
        return f"printed '{said.strip()[:80]}', the server had answered '{server.address}'"
    if requests_made != 1:
        return f"made {requests_made} requests in place of one"
    return ""


def _prints(image: str, check: Check, **options: Any) -> str:
    """Why the program, called as the check says, did not end and print as it says; "" when it did."""
    said, reason = _ended(image, check, stderr=True, **{"network_mode": "none"} | options)
    if not reason and check.prints not in said:
        reason = f"did not print '{check.prints}': {said.strip()[:80]}"
    return reason


def _ended(image: str, check: Check, *, stderr: bool, **options: Any) -> tuple[str, str]:
    """What the image's program printed, called as the check says, to stderr too where that counts, and why it did not
    end with the check's code, or run on after it had printed the check's words; `options` are the container's."""
    with containers.created(image, command=[*images.command(image), *check.arguments], **options) as container:
        try:
            container.start()
        except APIError as error:
            return "", f"does not start: {client.explained(error)}"
        code, late = check.exit_code, ""
        try:
            code = container.wait(timeout=TIMEOUT_S)["StatusCode"]
        except APIError as error:
            return "", f"its container is gone: {client.explained(error)}"
        except RequestException:
            late = f"did not end within {TIMEOUT_S} s{containers.last_words(container)}"
            if check.https_url or check.exit_code:
                return "", late
        if code != check.exit_code:
            return "", f"exit code {code}{containers.last_words(container)}"
        said = bytearray()
        # Not followed: Podman 5.4 then leaves out most of 200,000 lines.
        with containers.printed(container, stderr=stderr, follow=False) as chunks:
            for chunk in chunks:
                said += chunk
                if len(said) > OUTPUT_BYTES:
                    return "", f"printed more than {OUTPUT_BYTES >> 20} MiB"
        text = containers.text(said)
        return text, f"{late}; {NEVER_ENDS}" if late and not (check.prints and check.prints in text) else ""
