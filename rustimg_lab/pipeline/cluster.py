"""Grids and studies on several machines: Dask workers beside engines call the lab, and this lab alone writes the rows.

A worker has one unit of work at a time: the images of one binary, or one block of a study. The next one is sent when
its rows are written. So a worker that is lost takes one unit with it, and a unit that ran twice counts once: a worker's
run has each trial once, and what comes back is what the run has beyond the rows that are here.
"""

import ipaddress
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rustimg_lab.errors import LabError

if TYPE_CHECKING:
    from distributed import Client, Future

RESOURCE = "lab"  # of a worker, once: what it does uses the machine alone
BUSY = 0.5  # processes that want a CPU, for each CPU: from there on a machine is said to be busy
CONNECT_TIMEOUT_S, DEFAULT_PORT = 10, 8786
POLL_S = 1.0  # how often it is asked which workers there are
RETURN_S = 60.0  # how long is waited for a worker that is gone, which its nanny starts again
DEATHS = 2  # of workers, after which what they were doing is not tried again


@dataclass(frozen=True)
class Unit:
    """What a worker does in one piece: the arguments of a command, the machine that it is for, "" for any, and the
    cells that are as that machine has them from then on."""

    arguments: tuple[str, ...]
    machine: str = ""
    cells: tuple[str, ...] = ()


def check_address(address: str, insecure: bool) -> None:
    """Raise LabError when this is no scheduler's address, or is one on a network without TLS unless `insecure`."""
    parts = urlsplit(address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname:
        raise LabError(f"--scheduler {address}: no address of a Dask scheduler, such as tls://HOST:8786")
    if parts.scheme == "tls" or insecure or _is_loopback(parts.hostname):
        return
    raise LabError(
        f"--scheduler {address}: without TLS who reaches the scheduler can run programs on each machine: use tls:// "
        "(docs/machines.md says how), or add --insecure on a network of your own"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def connected(address: str, insecure: bool) -> Iterator["Client"]:
    """Yield a client of a Dask scheduler. Raises LabError when Dask is not installed, when `check_address` refuses the
    address, or when no scheduler answers, at first or later."""
    check_address(address, insecure)
    try:
        from distributed import Client, Security
    except ImportError:
        raise LabError("--scheduler needs Dask: pip install '.[dask]' in the checkout") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it logs each worker that goes
    parts = urlsplit(address)
    try:
        security = Security()  # as Dask's configuration has it
        # Asked here, since a client of Dask's that cannot be made may hang when it is thrown away.
        if parts.scheme == "tls" and not security.get_connection_args("client").get("ssl_context"):
            raise ValueError("Dask's configuration names no certificate for its client, see distributed.comm.tls")
        socket.create_connection((parts.hostname, parts.port or DEFAULT_PORT), CONNECT_TIMEOUT_S).close()
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False, security=security)
    except (OSError, ValueError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        remedy = "start one with `dask scheduler`, and see docs/machines.md for tls://"
        raise LabError(f"no Dask scheduler can be used at {address} ({cause}); {remedy}") from None
    try:
        with client.as_current(), _scheduler_errors(client):
            yield client
    finally:
        client.close(timeout=5)


def workers(client: "Client") -> dict[str, str]:
    """Return the address of each running worker that has the lab's resource, by the machine's name."""
    entries = client.scheduler_info(n_workers=-1)["workers"]
    return {
        re.sub("[^A-Za-z0-9]", "-", str(entry["name"])).strip("-"): address  # a folder may have that name
        for address, entry in entries.items()
        if entry["status"] == "running" and entry["resources"].get(RESOURCE) == 1
    }


def perform_all(
    client: "Client",
    units: list[Unit],
    work: Callable[[Any], Any],
    sent: Callable[[Unit, str], Any],
    done: Callable[[Unit, str, Any], str],
    names: set[str],
) -> list[str]:
    """Give each machine in `names` a unit whenever it is idle, until none is left. Returns a line on what could not be
    done. `sent` gets the unit and the machine, and returns what `work` gets in its worker. `done` gets both and what
    `work` returned, and returns why the machine gets no more ("" when it does). Such a machine leaves `names`, and a
    unit for any machine goes to the others."""
    state = _Queue(units, names)
    while state.has_work():
        for name, address in state.idle_machines(client):
            if not (unit := state.take(name)):  # another machine has just got the last one
                continue
            call = client.submit(
                work, sent(unit, name), workers=[address], resources={RESOURCE: 1}, pure=False, retries=0
            )
            state.running[call] = unit, name, address
        for call in _wait_for_ended(client, state):
            unit, name, _ = state.running.pop(call)
            failure = "" if call.status == "finished" else _reason(call)
            if failure and not _failed_there(call):
                state.lost(name, unit, failure)
            elif reason := failure or done(unit, name, call.result()):
                state.put_aside(name, unit, reason)
    return state.failures


class _Queue:
    """Units that wait, those that run, and machines that are put aside. It is one object since all of it changes."""

    def __init__(self, units: list[Unit], names: set[str]) -> None:
        self.names, self.failures = names, []
        self.running: dict[Future, tuple[Unit, str, str]] = {}
        self.waiting = {name: deque(unit for unit in units if unit.machine == name) for name in ("", *names)}
        self.known_workers: dict[str, str] = {}
        self.deaths: dict[Unit, int] = {}
        self.asked, self.seen = 0.0, time.monotonic()

    def has_work(self) -> bool:
        """Return whether units remain for a machine that is there or may return. If not, record a failure for those
        that are left."""
        is_waiting = any(self.waiting.values())
        if self.running or (is_waiting and self.names and time.monotonic() - self.seen < RETURN_S):
            return True
        for name in self.waiting:
            self._give_up(name, "no worker is left")
        return False

    def idle_machines(self, client: "Client") -> list[tuple[str, str]]:
        """Return the name and address of each machine that is there, does nothing, and has a unit waiting. If there is
        none and nothing runs, wait `POLL_S` seconds."""
        if time.monotonic() - self.asked > POLL_S:
            self.known_workers, self.asked = workers(client), time.monotonic()
        busy = {name for _, name, _ in self.running.values()}
        pairs = [
            pair for pair in self.known_workers.items() if pair[0] in self.names - busy and self._units_of(pair[0])
        ]
        if pairs or self.running:
            self.seen = time.monotonic()
        else:
            time.sleep(POLL_S)
        return pairs

    def _units_of(self, name: str) -> deque[Unit]:
        return self.waiting[name] or self.waiting[""]

    def take(self, name: str) -> Unit | None:
        units = self._units_of(name)
        return units.popleft() if units else None

    def put_aside(self, name: str, unit: Unit, reason: str) -> None:
        """Record the reason, and give the machine no more units."""
        self.names.discard(name)  # of the caller's own set: it has no more work for the machine either
        self.failures.append(f"{name}: {reason}")
        if not unit.machine:
            self.waiting[""].appendleft(unit)
        self._give_up(name, "it gets no more")

    def lost(self, name: str, unit: Unit, reason: str) -> None:
        """Queue the unit of a worker that is gone again, for its successor or another machine. After more than `DEATHS`
        workers, put the machine aside."""
        self.asked = 0.0
        self.deaths[unit] = self.deaths.get(unit, 0) + 1
        if self.deaths[unit] <= DEATHS:
            self.waiting[unit.machine].appendleft(unit)
        else:
            self.put_aside(name, Unit((), name), f"its worker ended {self.deaths[unit]} times ({reason})")

    def _give_up(self, name: str, reason: str) -> None:
        if self.waiting[name]:
            self.failures.append(
                f"{name or 'any machine'}: units of work left: {len(self.waiting[name])}, since {reason}; the same "
                "command resumes the run"
            )
            self.waiting[name].clear()


def _wait_for_ended(client: "Client", state: _Queue) -> list["Future"]:
    """Calls that have ended, or whose worker is gone, after a while at most."""
    from distributed import wait

    if not state.running:
        return []
    try:
        return list(wait(list(state.running), timeout=POLL_S, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        pass
    state.known_workers, state.asked = workers(client), time.monotonic()
    lost_calls = [
        call for call, (_, name, address) in state.running.items() if state.known_workers.get(name) != address
    ]
    for call in lost_calls:
        call.cancel(force=True)
    return lost_calls


def _failed_there(call: "Future") -> bool:
    """Return whether a worker that still runs could not do its unit of work, as when its disk is full."""
    from distributed import KilledWorker

    return call.status == "error" and not isinstance(call.exception(), KilledWorker)


def _reason(call: "Future") -> str:
    error = call.exception() if call.status == "error" else None
    return str(error).strip().splitlines()[0] if error and str(error).strip() else "it stopped answering"


@contextmanager
def _scheduler_errors(client: "Client") -> Iterator[None]:
    from distributed import CancelledError

    try:
        yield
    except (OSError, CancelledError, TimeoutError, AttributeError, KeyError) as error:  # as Dask's client then has them
        if client.status == "running":
            raise
        raise LabError(
            f"the Dask scheduler at {client.scheduler.address if client.scheduler else 'that address'} stopped "
            "answering; start it again, and call the same command to resume"
        ) from error
