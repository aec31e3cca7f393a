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
from rustimg_lab.measure.plan import FailedTrial
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
    """An HTTPS server on 127.0.0.1 in a network of its own, which `network` lets another container join. It answers as
    api.myip.com does, with an address that nobody can guess. Its certificate is signed as those of public hosts are: by
    an authority between it and the root in `ca_pem`."""

    url: str
    ca_pem: str
    address: str
    container: Container

    @property
    def network(self) -> str:
        """Return the network mode by which a container joins the server's network."""
        return f"container:{self.container.id}"


@contextmanager
def address_server(tools: str) -> Iterator[AddressServer]:
    """Run an HTTPS server while the block lasts, with a certificate of an authority made for it, and yield it. `tools`
    is the benchmark tools image. Raises FailedTrial when the server does not start."""
    import trustme  # which only a check by the program's own request takes

    authority = trustme.CA()
    certificate = authority.create_child_ca().issue_cert("127.0.0.1", "localhost")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
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
    """Return a tar archive for / with these files: contents by name."""
    return create_archive("", [], io.BytesIO(), extra_files=list(texts.items())).getvalue()


def needs_tools(app: App) -> bool:
    """Return whether the check of an app needs the benchmark tools image: it does when the check uses a network."""
    return app.check is None or bool(app.check.https_url)


def measure_runs(image: str, app: App, tools: str = "", emulated: bool = False) -> Observation:
    """Start the image's program as its own user, check it, and return the row `runs`, not ok with the reason. `tools`
    is the benchmark tools image, for a check that needs it (`needs_tools`). For an image of another architecture
    (`emulated`) the detail says so. If there is no emulator, the value is `NOT_STARTED`."""
    note = ""
    if (user := images.inspect(image).user) != USER:
        reason = f"runs as '{user or 'root'}', not as user 10001"
    elif app.check is None and not emulated:
        reason, note = _answers(image, app, tools, elsewhere=True)
    else:
        reason = why_not(image, app, tools)
        if emulated and NO_EMULATOR in reason:
            return Observation(metrics.RUNS, NOT_STARTED, detail=f"{NOTE}{NOT_STARTED}; {in_words(app)}")
    reason += "".join(f"; {hint}" for pattern, hint in _HELP.items() if re.search(pattern, reason))
    return Observation(metrics.RUNS, not reason, ok=not reason, reason=reason, detail=note + in_words(app, emulated))


def why_not(image: str, app: App, tools: str = "", **options: Any) -> str:
    """Return why the image's program fails the app's check, in a container with `options`; "" when it passes."""
    if app.check is None:
        return _answers(image, app, tools, **options)[0]
    try:
        if app.check.https_url:
            return _fetches(image, app.check, tools, **options)
        with services.run_services(app.services) as network:
            return _prints(image, app.check, **network | options)
    except FailedTrial as lost:
        return str(lost)


def in_words(app: App, emulated: bool = False) -> str:
    """Return a description of the app's check. A result under another description does not count for this check."""
    if emulated:
        limitation = " (only its start)" if app.check and app.check.only_starts else ""
        return f"{NOTE}checked under emulation{limitation}; {in_words(app).removeprefix(NOTE)}"
    suffix = "".join(f"; beside {description}" for description in services.describe(app).values())
    if app.check is None:
        return f"CMD, as its own user, answers: {workloads.app_workload(app).parameters()['asked']}{suffix}"
    command = " ".join(["CMD", *app.check.arguments])
    if app.check.https_url:
        return f"{command} over HTTPS, as its own user"
    note = f"{NOTE}only its start was checked; " if app.check.only_starts else ""
    return f"{note}{command}, as its own user, ends with {app.check.exit_code} and prints '{app.check.prints}'{suffix}"


def _answers(image: str, app: App, tools: str, elsewhere: bool = False, **options: Any) -> tuple[str, str]:
    """Return why the server does not answer the request of its app, with keep-alive or without; "" when it does. With
    `elsewhere` another path is requested too. The second text is `ANY_PATH` if that has an answer of equal size, as by
    one page for all; else it is empty."""
    workload, deadline_s = (
        workloads.closing_workload(workloads.app_workload(app)),
        TIMEOUT_S + app.serve.start_timeout_s,
    )
    path, mark, query = app.serve.path.partition("?")
    nowhere = replace(workload, serve=replace(workload.serve, path=f"{path}-{secrets.token_hex(8)}{mark}{query}"))
    targets = [workload, nowhere] if elsewhere and path != "/" and app.serve.method == "GET" else []
    try:
        with serving(image, workload, tools, workers=1, deadline_s=deadline_s, **options) as server:
            sizes = [ask(server.client, "ask", target, seconds=0).get("body_bytes") for target in targets]
    except FailedTrial as lost:
        return str(lost), ""
    return "", ANY_PATH if sizes and sizes[0] == sizes[1] is not None else ""


def _fetches(image: str, check: Check, tools: str, **options: Any) -> str:
    """Why the program did not fetch from a server of this call's and print what that had answered; "" when it did."""
    with address_server(tools) as server:
        environment = {check.https_url: server.url} | ({check.https_ca: server.ca_pem} if check.https_ca else {})
        network_options = {"network_mode": server.network, "environment": environment}
        output, reason = _run_check(image, check, stderr=False, **network_options, **options)
        requests_made = server.container.logs().count(b"request\n")
    if reason:
        return reason
    if output.strip() != server.address:
        return f"printed '{output.strip()[:80]}', the server had answered '{server.address}'"
    if requests_made != 1:
        return f"made {requests_made} requests in place of one"
    return ""


def _prints(image: str, check: Check, **options: Any) -> str:
    """Why the program, called as the check says, did not end and print as it says; "" when it did."""
    output, reason = _run_check(image, check, stderr=True, **{"network_mode": "none"} | options)
    if not reason and check.prints not in output:
        reason = f"did not print '{check.prints}': {output.strip()[:80]}"
    return reason


def _run_check(image: str, check: Check, *, stderr: bool, **options: Any) -> tuple[str, str]:
    """Run the image's program as the check says. Returns its output, with stderr if requested, and why it failed:
    another exit code, or no end without the check's words in its output. `options` are the container's."""
    with containers.created(image, command=[*images.command(image), *check.arguments], **options) as container:
        try:
            container.start()
        except APIError as error:
            return "", f"does not start: {client.explain_refusal(error)}"
        code, delay = check.exit_code, ""
        try:
            code = container.wait(timeout=TIMEOUT_S)["StatusCode"]
        except APIError as error:
            return "", f"its container is gone: {client.explain_refusal(error)}"
        except RequestException:
            delay = f"did not end within {TIMEOUT_S} s{containers.last_words(container)}"
            if check.https_url or check.exit_code:
                return "", delay
        if code != check.exit_code:
            return "", f"exit code {code}{containers.last_words(container)}"
        output = bytearray()
        # Not followed: Podman 5.4 then leaves out most of 200,000 lines.
        with containers.open_output(container, stderr=stderr, follow=False) as chunks:
            for chunk in chunks:
                output += chunk
                if len(output) > OUTPUT_BYTES:
                    return "", f"printed more than {OUTPUT_BYTES >> 20} MiB"
        text = containers.decode_output(output)
        return text, f"{delay}; {NEVER_ENDS}" if delay and not (check.prints and check.prints in text) else ""
