"""Engines that are reached over SSH, and those that the docker client has a context for."""

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from support import ssh_server
from support.lab import adds_nothing, measured, passing_tiny

from rustimg_lab.engine import client
from rustimg_lab.errors import LabError

pytestmark = pytest.mark.engine


@pytest.fixture
def remote(tmp_path):
    """What a lab needs to reach this machine's engine over SSH, with a real `ssh` for buildx."""
    home, wrapper = tmp_path / "home", tmp_path / "bin" / "ssh"
    with ssh_server.serving(home) as port:
        files = f"-o UserKnownHostsFile={home}/.ssh/known_hosts -i {home}/.ssh/id_rsa"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F none {files} "$@"\n')
        wrapper.chmod(0o755)
        path = f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}"
        yield {"HOME": str(home), "PATH": path, "DOCKER_HOST": f"ssh://someone@127.0.0.1:{port}"}


@pytest.fixture
def fresh(monkeypatch):
    """The engine is looked for anew, in the test and after it."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    client.connect.cache_clear()
    yield
    monkeypatch.undo()
    client.connect.cache_clear()


def test_an_engine_behind_ssh_builds_checks_and_measures(pageless, remote, tmp_path):
    crate, run = passing_tiny(tmp_path / "tiny"), "test-ssh"
    cells = ("--bases", "scratch", "--profiles", "baseline", "--allocators", "system", "--blocks", "1")
    call = ("run", "--app", str(crate), "--run", run, *cells)
    over_ssh = partial(pageless, **remote)
    with measured(over_ssh, run, call):
        adds_nothing(over_ssh, run, call)


def test_an_engine_behind_ssh_that_lets_nobody_in_is_one_line(lab, remote):
    Path(remote["HOME"], ".ssh", "id_rsa").unlink()
    done = lab("run", **remote, SSH_AUTH_SOCK="")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"lab: no Docker engine answers at {remote['DOCKER_HOST']}: ")


def test_the_context_of_the_docker_client_counts(tmp_path, monkeypatch, fresh):
    """Also the one that DOCKER_CONTEXT names for a single call, as the docker client has it."""
    here, address = client.engine_address(), f"unix://{tmp_path}/other.sock"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    made = ["docker", "context", "create", "other", "--docker", f"host={address}"]
    subprocess.run(made, check=True, capture_output=True)
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "other"}))
    assert (client.engine_address(), client.own_builder()) == (address, "other")
    with pytest.raises(LabError, match=f"no Docker engine answers at {address}"):
        client.connect()
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert (client.engine_address(), client.own_builder()) == (here, "default")
    assert client.connect().ping()
    monkeypatch.setenv("DOCKER_CONTEXT", "nosuch")
    with pytest.raises(LabError, match=r"no context 'nosuch' \(DOCKER_CONTEXT\); see `docker context ls`"):
        client.engine_address()
