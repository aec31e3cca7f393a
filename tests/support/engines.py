"""Engines for tests, beside the machine's own: fetched from Debian, started in namespaces of their own, ended whole.

Nothing is installed but slirp4netns and mmdebstrap, and the machine's engine and its network stay as they are. Packages
are kept below `.lab/engines`: a second call fetches nothing. The data of an engine goes when the engine ends. Whatever
ends the test, the kernel ends the engine: its first process is tied to ours, and all others to that.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import requests

from rustimg_lab.engine.client import TIMEOUT_S, engine_address
from rustimg_lab.errors import LabError
from rustimg_lab.host import tools
from rustimg_lab.host.process import run, work_folder
from rustimg_lab.paths import STATE

KEPT = STATE / "engines"
NEEDED = ("apt-get", "dpkg-deb", "ip", "pivot_root", "runc", "setpriv", "unshare")
BUILT = "29.7"  # no Debian suite has it: CONTRIBUTING.md says how its programs are made
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd", "tini")
ROOTLESS_PACKAGES = ("docker.io", "docker-cli", "rootlesskit", "uidmap", "slirp4netns", "tini", "iproute2", "iptables",
                     "fuse-overlayfs", "ca-certificates", "procps", "kmod")  # fmt: skip
PODMAN_PACKAGES = ("podman", "crun", "netavark", "aardvark-dns", "nftables", "iptables", "conmon", "ca-certificates",
                   "tini", "iproute2")  # fmt: skip
MTU = "1400"
DNS = "10.0.2.3"  # the name server that slirp4netns provides
UID = 1000  # of the user of a rootless engine, in its root file system
START_TIMEOUT_S, STOP_TIMEOUT_S = 60, 20

_TIED = ("setpriv", "--pdeathsig=KILL", "--")
_APART = (*_TIED, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# In a network namespace that is empty: wait for the way out, which slirp4netns brings.
_OWN_NETWORK = """
ip link set lo up
until ip route show default | grep -q .; do sleep 0.05; done
"""
_RUN = """
mount -t tmpfs tmpfs /run; mkdir -p /run/lock
exec docker-init -s -- "$@"
"""
# Podman refuses a machine that has both versions of cgroups.
_CGROUP_V1 = """
if mountpoint --quiet /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
"""
# In a root file system of its own ($1), with a folder of ours at /lab ($2). After chroot in place of pivot_root, the
# kernel refuses user namespaces.
_OWN_ROOT = """
set -e
root=$1 folder=$2; shift 2
mount --bind "$root" "$root"; cd "$root"
mount -t proc proc proc; mount --rbind /sys sys; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp; chmod 1777 tmp
mount -t tmpfs tmpfs dev; mkdir dev/net dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd; mount -t tmpfs tmpfs dev/shm
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200 fuse:10:229; do
    IFS=:; set -- $device "$@"; unset IFS
    mknod -m 0666 "dev/$1" c "$2" "$3"; shift 3
done
mkdir -p lab old; mount --bind "$folder" lab; touch etc/resolv.conf
names=/etc/resolv.conf; if [ -e lab/resolv.conf ]; then names=lab/resolv.conf; fi; mount --bind "$names" etc/resolv.conf
pivot_root . old; umount --lazy old; mkdir -p run/lock run/netns
exec tini -s -- "$@"
"""
_USER = f"""
useradd --root "$1" --uid {UID} --user-group lab
for file in subuid subgid; do echo lab:100000:65536 > "$1/etc/$file"; done
"""


@dataclass(frozen=True)
class Engine:
    """An engine that runs: its address, the folders of its client and daemon, which a lab has first in PATH, and what a
    command begins with that shares the 127.0.0.1 of a Docker Engine in a network namespace."""

    address: str
    folders: tuple[Path, ...] = ()
    inside: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """Return what a process needs to use this engine."""
        path = os.pathsep.join([*map(str, self.folders), os.environ["PATH"]])
        return {"DOCKER_HOST": self.address, "PATH": path}

    def client(self) -> docker.DockerClient:
        """Return a client of this engine."""
        return docker.DockerClient(self.address, timeout=TIMEOUT_S)


def check() -> None:
    """Raise LabError where this machine cannot start engines beside its own: it takes root, Debian's apt and NEEDED."""
    if os.geteuid():
        raise LabError("an engine in namespaces of its own needs root: run the tests as root")
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        raise LabError(f"{missing[0]} is missing: install it (apt, iproute2, util-linux, runc)")
    if absent := [name for name in ("slirp4netns", "mmdebstrap") if not shutil.which(name)]:
        tools.install([*absent, "debian-archive-keyring"], print)
    _mirror()


@contextmanager
def machine() -> Iterator[Engine]:
    """Return the machine's own engine, which is neither started nor ended."""
    yield Engine(engine_address())


@contextmanager
def dockerd(suite: str, containerd_store: bool = False) -> Iterator[Engine]:
    """Run Docker Engine of a Debian suite for as long as the block lasts, with the classic or the containerd store.

    Its network namespace has a way out, but its 127.0.0.1 is not ours: only its socket is. Raises LabError when it
    cannot be fetched or does not start.
    """
    root = _packages(suite)
    folders = (root / "usr/sbin", root / "usr/bin")
    with work_folder() as folder:
        store = '{"features": {"containerd-snapshotter": true}}' if containerd_store else "{}"
        (folder / "daemon.json").write_text(store)
        address = f"unix://{folder}/docker.sock"
        command = [
            "dockerd", "--config-file", folder / "daemon.json", "--data-root", folder / "data",
            "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--mtu", MTU, "--dns", DNS,
            "--storage-driver", "overlayfs" if containerd_store else "overlay2", "--host", address,
        ]  # fmt: skip
        found = Engine(address, folders)
        with (
            _apart(["--net"], _OWN_NETWORK + _RUN, command, folder, found.environment()) as (process, first),
            _way_out(first, folder),
        ):
            _wait(found, process, folder)
            yield replace(found, inside=("nsenter", f"--net=/proc/{first}/ns/net", "--"))


@contextmanager
def rootless(suite: str) -> Iterator[Engine]:
    """Run rootless Docker of a Debian suite for as long as the block lasts, as a user in a root file system of that
    suite. Ports that it publishes are on our 127.0.0.1. Raises LabError as `dockerd` does."""
    root, client = _root(suite, "rootless", ROOTLESS_PACKAGES), _packages(suite)
    with work_folder() as folder:
        folder.chmod(0o755)
        for name in ("home", "run"):
            (folder / name).mkdir(mode=0o700)
            os.chown(folder / name, UID, UID)
        environment = {
            "HOME": "/lab/home", "XDG_RUNTIME_DIR": "/lab/run", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DOCKERD_ROOTLESS_ROOTLESSKIT_NET": "slirp4netns", "DOCKERD_ROOTLESS_ROOTLESSKIT_MTU": MTU,
        }  # fmt: skip
        command = [
            "setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--", "sh",
            "/usr/share/docker.io/contrib/dockerd-rootless.sh", "--data-root", "/lab/home/data",
        ]  # fmt: skip
        found = Engine(f"unix://{folder}/run/docker.sock", (client / "usr/sbin", client / "usr/bin"))
        with _apart([], _OWN_ROOT, [root, folder, *command], folder, environment) as (process, _):
            _wait(found, process, folder)
            yield found


@contextmanager
def podman(suite: str) -> Iterator[Engine]:
    """Run Podman's service of a Debian suite, as root, for as long as the block lasts, in a root file system of that
    suite. As with `dockerd` only its socket is ours. Raises LabError as `dockerd` does."""
    root = _root(suite, "podman", PODMAN_PACKAGES)
    with work_folder() as folder:
        # A build asks for more open files and processes than a process in namespaces may give.
        (folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        )
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CONTAINERS_CONF": "/lab/containers.conf", "HOME": "/root",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }  # fmt: skip
        command = [
            "podman", "--root", "/lab/data", "--cgroup-manager=cgroupfs", "system", "service", "--time=0",
            "unix:///lab/podman.sock",
        ]  # fmt: skip
        (folder / "resolv.conf").write_text(f"nameserver {DNS}\n")
        found = Engine(f"unix://{folder}/podman.sock")
        script = _OWN_NETWORK + _CGROUP_V1 + _OWN_ROOT
        with (
            _apart(["--net"], script, [root, folder, *command], folder, environment) as (process, first),
            _way_out(first, folder),
        ):
            _wait(found, process, folder)
            yield found


# By name: the row of docs/engines.md, and how the engine is started.
ENGINES: dict[str, Callable[[], AbstractContextManager[Engine]]] = {
    "machine": machine,
    "26.1 classic": lambda: dockerd("trixie"),
    "28.5 classic": lambda: dockerd("sid"),
    "28.5 containerd": lambda: dockerd("sid", containerd_store=True),
    "28.5 rootless": lambda: rootless("sid"),
    "29.7 classic": lambda: dockerd(BUILT),
    "29.7 containerd": lambda: dockerd(BUILT, containerd_store=True),
    "Podman 5": lambda: podman("trixie"),
}


@contextmanager
def _apart(
    options: list[str], script: str, command: list, folder: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen, int]]:
    """Run a script with a command in namespaces; returns its process, and the pid of the first process in them. What it
    prints is in `folder / "log"`. In the end it is asked to stop, and killed when it does not."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*_APART, *options, "sh", "-c", script, "sh", *map(str, command)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
    try:
        yield process, _child(process)
    finally:
        _stop(process)


def _child(process: subprocess.Popen) -> int:
    """The pid of the only child that `unshare --fork` has."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        if found := path.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise LabError(f"unshare ended with exit code {process.returncode}: this machine may make no namespaces")


def _stop(process: subprocess.Popen) -> None:
    """End what runs in namespaces: by its first process, since unshare itself ignores SIGTERM; by force if need be."""
    with suppress(LabError, OSError):
        os.kill(_child(process), signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    finally:
        process.kill()  # which kills its child, and with that all that is in the namespaces
        process.wait()


@contextmanager
def _way_out(pid: int, folder: Path) -> Iterator[None]:
    """The network of a namespace, as long as the block lasts: it reaches what we reach, but not our 127.0.0.1."""
    command = [*_TIED, "slirp4netns", "--configure", f"--mtu={MTU}", "--disable-host-loopback", str(pid), "tap0"]
    with (folder / "slirp.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _wait(found: Engine, process: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(docker.errors.DockerException, requests.exceptions.RequestException):
            found.client().ping()
            return
        time.sleep(0.1)
    last = " | ".join((folder / "log").read_text(errors="replace").splitlines()[-5:])
    raise LabError(f"an engine does not start (exit code {process.poll()}): {last}")


def _mirror() -> str:
    """The address of Debian's packages, as apt's own sources have it."""
    uris = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).split()
    mirror = next((uri.rstrip("/") for uri in uris if uri.rstrip("/").endswith("debian")), "")
    if not mirror:
        raise LabError("apt names no source of Debian packages to take other engines from")
    return mirror


def _packages(suite: str) -> Path:
    """The folder that Docker of a suite is unpacked in, fetched when it is missing; apt checks the signatures."""
    target = KEPT / suite
    if target.exists():
        return target
    if suite == BUILT:
        raise LabError(f"Docker Engine {BUILT} has to be built first, into {target}: see CONTRIBUTING.md")
    part = _fresh(KEPT / f".{suite}.part")
    for name in ("apt/lists/partial", "apt/archives/partial", "root"):
        (part / name).mkdir(parents=True)
    part.joinpath("sources.list").write_text(f"deb [signed-by={tools.KEYRING}] {_mirror()} {suite} main\n")
    options = [
        "-o", f"Dir::Etc::SourceList={part}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={part}/apt/lists", "-o", f"Dir::Cache={part}/apt",
        "-o", "Acquire::Check-Valid-Until=false", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    run(["apt-get", *options, "update"])
    run(["apt-get", *options, "download", *PACKAGES], cwd=part)
    for archive in part.glob("*.deb"):
        run(["dpkg-deb", "--extract", str(archive), str(part / "root")])
    (part / "root").rename(target)
    shutil.rmtree(part)
    return target


def _root(suite: str, name: str, packages: tuple[str, ...]) -> Path:
    """The root file system of a suite with packages, and with a user for rootless engines; made when it is missing."""
    target = KEPT / f"{name}-{suite}"
    if target.exists():
        return target
    part = _fresh(KEPT / f".{name}-{suite}.part")
    run(
        [*_APART, "mmdebstrap", "--variant=minbase", "--quiet", "--skip=output/dev", f"--include={','.join(packages)}",
         '--aptopt=Acquire::Check-Valid-Until "false"', f"--customize-hook={_USER}", suite, str(part), _mirror()],
        env={"TMPDIR": str(KEPT)},
    )  # fmt: skip
    part.rename(target)
    return target


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
