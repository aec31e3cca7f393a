"""Calls side by side, with real commands: what is begun, and what an error in between leaves."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from rustimg_lab.engine import client
from rustimg_lab.host import process


def test_as_many_calls_as_jobs_run_at_once_and_each_is_told_by_its_place():
    together = threading.Barrier(2)

    def work(number: int) -> int:
        together.wait(30)  # which one alone would never pass
        return number * 10

    with closing(process.side_by_side(work, [(1,), (2,), (3,), (4,)], 2)) as done:
        assert dict(done) == {0: 10, 1: 20, 2: 30, 3: 40}


def test_what_commands_say_is_english_whatever_the_users_language(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    assert process.run(["sh", "-c", "echo $LC_ALL$LANGUAGE"]) == "C.UTF-8\n"


@pytest.mark.parametrize("where", ["in a call", "beside the calls"])
def test_an_error_begins_no_other_call_and_ends_the_commands_that_run(where, tmp_path):
    def work(number: int) -> int:
        if number:
            command = f"echo $$ > {tmp_path}/{number}; exec sleep 100"
            return process.stream(["sh", "-c", command], lambda line: None)
        while not (tmp_path / "1").exists():
            time.sleep(0.01)
        if where == "in a call":
            raise ValueError(where)
        return number

    started, calls = time.monotonic(), [(number,) for number in range(4)]
    with pytest.raises(ValueError, match=where), closing(process.side_by_side(work, calls, 2)) as done:
        for _ in done:
            raise ValueError(where)
    assert time.monotonic() - started < 60
    begun = {path.name: path.read_text().strip() for path in tmp_path.iterdir()}
    assert "1" in begun and "3" not in begun  # the place of the first may have been taken before the error was seen
    assert not [pid for pid in begun.values() if pid and Path(f"/proc/{pid}").exists()]


def test_of_labs_that_begin_at_once_in_a_new_clone_all_have_one_id(state):
    (state / "id").touch()  # as one that was killed has left it
    with ThreadPoolExecutor(16) as pool:
        for _ in range(20):
            told = set(pool.map(lambda _: client.lab_id.__wrapped__(), range(16)))
            assert len(told) == 1 and re.fullmatch("[0-9a-f]{8}", *told)
            (state / "id").unlink()


def test_a_setpriv_that_cannot_tie_a_command_to_the_lab_is_left_out(tmp_path, monkeypatch):
    """As that of BusyBox, on Alpine."""
    own = tmp_path / "setpriv"
    own.write_text('#!/bin/sh\necho "setpriv: unrecognized option: pdeathsig=TERM" >&2; exit 1\n')
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said: list[str] = []
    process._parent_death_command.cache_clear()
    assert process.stream(["echo", "hello"], said.append) == 0 and said == ["hello\n"]
    process._parent_death_command.cache_clear()
