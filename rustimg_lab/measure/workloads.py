"""Workloads: the requests that a server gets, each with its right answer, computed here and not by the server."""

import hashlib
import ipaddress
import json
from dataclasses import asdict, dataclass, replace

from rustimg_lab.errors import check_known
from rustimg_lab.model.app import App, Serve, Service, Work

OWN = "own"  # the name of an own app's workload
BATCH = 64  # addresses in one batch
LARGE_BYTES = 256 << 10
PORT = 20_080  # of every server that is told one, in the network that it has alone
_ALWAYS, _USUAL = ("arguments", "environment", "method", "path", "body"), asdict(Serve())
_ASKED = ("method", "path", "body", "tls", "http", "grpc", "status", "keep_alive")  # of Serve, that the client takes


@dataclass(frozen=True)
class Workload:
    """One kind of request: how a server is started and what it is asked, the body of its answer (None where any of the
    same size will do), and beside which services. `fixed_port` is the one that it listens on whatever it is told; 0
    where it is told one. Of a program that is no server it is the `work` of one call, whose arguments `serve` has."""

    name: str
    summary: str
    serve: Serve
    answer: bytes | None = None
    services: tuple[Service, ...] = ()
    fixed_port: int = 0
    work: Work | None = None

    @property
    def port(self) -> int:
        """Return the port at which the server answers, in a network of its own."""
        return self.fixed_port or PORT

    def request(self) -> dict[str, str | int | None]:
        """Return the request as `tools/client.py` takes it, with the SHA-256 of the right body (None: any body will
        do)."""
        sha256 = None if self.answer is None else hashlib.sha256(self.answer).hexdigest()
        return {"port": self.port, "sha256": sha256} | {name: getattr(self.serve, name) for name in _ASKED}

    def parameters(self) -> dict[str, str]:
        """Return entries for the plan of a study: what `lab.toml` says of an own workload. The result is empty for
        myip's workloads, which their names identify."""
        if self.name != OWN:
            return {}
        if self.work:
            return {"work": json.dumps(asdict(replace(self.work, input="")), sort_keys=True)}
        # What is as usual is left out, so that runs of labs that did not have it go on, but for what was always there.
        settings = {
            name: value for name, value in asdict(self.serve).items() if name in _ALWAYS or value != _USUAL[name]
        }
        settings |= {"port": self.fixed_port} if self.fixed_port else {}
        extra = {} if self.serve.keep_alive else {"connections_per_request": 1}
        return {"asked": json.dumps(settings, sort_keys=True), **extra}


def find_workload(name: str) -> Workload:
    """Return the workload of that name. Raises LabError, with the nearest name, when there is none."""
    check_known("workload", name, WORKLOADS)
    return WORKLOADS[name]


def app_workload(app: App) -> Workload:
    """Return the workload that an app's `lab.toml` describes: a request to its server, or the work of its program."""
    if app.work:
        return Workload(OWN, "a call of its [work]", Serve(app.work.arguments), services=app.services, work=app.work)
    summary = f"{app.serve.method} {app.serve.path}"
    port = 0 if app.serve.takes_port else app.image.ports[0]
    return Workload(OWN, summary, app.serve, services=app.services, fixed_port=port)


def closing_workload(workload: Workload) -> Workload:
    """Return the workload for a check that the server answers: the server may close each connection after its
    answer."""
    return replace(workload, serve=replace(workload.serve, keep_alive=False))


def _addresses() -> list[str]:
    """Addresses for documentation and private use, IPv4 and IPv6 in turn, no two alike."""
    return [f"192.168.{n}.{255 - n}" if n % 2 else f"2001:db8:{n:x}::{n * n:x}" for n in range(BATCH)]


def _look_up(text: str) -> dict[str, str]:
    ip = ipaddress.ip_address(text)
    return {
        "ip": str(ip),
        "family": f"IPv{ip.version}",
        "kind": "private" if ip.version == 4 else "other",
        "labels": ip.reverse_pointer.split(".")[:-2],
        "reverse": ip.reverse_pointer,
    }


def _lines() -> bytes:
    line = "{:08} the quick brown fox jumps over the lazy dog\n"
    count = LARGE_BYTES // len(line.format(0)) + 1
    return "".join(map(line.format, range(count))).encode()[:LARGE_BYTES]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


_TOLD = {"MYIP_LISTEN": "{host}:{port}", "MYIP_WORKERS": "{workers}", "MYIP_DEADLINE_S": "{deadline_s}"}
_MYIP = Serve(environment=tuple(_TOLD.items()))
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "root", "GET /, the article's JSON, next to no allocation", _MYIP,
            b'{"ip":"127.0.0.1","country":"Unknown","cc":"XX"}',
        ),
        Workload(
            "batch", f"POST /batch, {BATCH} addresses looked up, many small allocations",
            replace(_MYIP, method="POST", path="/batch", body=_json(_addresses())),
            _json([_look_up(text) for text in _addresses()]).encode(),
        ),
        Workload(
            "large", f"GET /large, {LARGE_BYTES >> 10} KiB of text that grows, large allocations",
            replace(_MYIP, path="/large"), _lines(),
        ),
    )
}  # fmt: skip
