"""Reading a server's memory where the engine loses the output of a command, as Podman does now and then."""

from types import SimpleNamespace

import pytest

from rustimg_lab.measure import workloads
from rustimg_lab.measure.load import Load
from rustimg_lab.measure.plan import FailedTrial, Plan
from rustimg_lab.measure.studies import memory
from rustimg_lab.model import metrics


@pytest.mark.parametrize(("claimed", "kept", "warns"), [(True, True, False), (True, False, True), (False, True, True)])
def test_a_limit_of_swap_that_the_engine_only_claims_is_a_warning(claimed, kept, warns, monkeypatch):
    """No engine here claims what it does not do: its answer, and what was tried, are replaced."""
    monkeypatch.setattr(memory, "engine_info", lambda: SimpleNamespace(limits_memory=True, limits_swap=claimed))
    cpus = dict.fromkeys(("workload", "workers", "server_cpus", "generator_cpus", "network"), "")
    monkeypatch.setattr(Load, "parameters", lambda *_: cpus | {"warning": ""})
    context = SimpleNamespace(
        loads=(Load(workloads.find_workload("batch"), 1, 16, 1, 1),),
        plan=Plan(1),
        run=None,
        tools="",
        holds=lambda name: kept or name != "limits_swap",
        study=lambda name, kind, metric, parameters, **_: parameters,
    )
    planned = {parameters["of"]: parameters["warning"] for parameters, _ in memory.plan(context)}
    assert planned == {"load": "", "connections": "", "limit": "the engine cannot keep it from swap" * warns}


def told(process: int, parent: int, **lines: int) -> bytes:
    """What is read of a process, in kB."""
    status = f"/proc/{process}/status:PPid:\t{parent}\n"
    return (status + "".join(f"/proc/{process}/any:{line}:\t  {size} kB\n" for line, size in lines.items())).encode()


SAID = told(1, 0, VmHWM=2048, Rss=1024, Anonymous=512)
LOAD = told(30, 0, VmHWM=9000, Rss=9000, Anonymous=9000) + told(31, 30, VmHWM=9000)  # in the same PID namespace


class Beside:
    """Stands in for a container whose engine loses output: no engine does so on demand."""

    def __init__(self, *answers: tuple[int, bytes]):
        self.answers = list(answers)

    def exec_run(self, command: list[str], **options: str) -> tuple[int, bytes]:
        return self.answers.pop(0)


def test_memory_that_a_server_has_given_back_is_no_row_that_nobody_can_read():
    row = memory._observation(metrics.bytes_per_connection_at(1), -4096.0)
    assert (row.value, row.ok, row.reason) == (None, False, "less was resident than without a connection")


def test_output_that_is_lost_is_asked_for_again_and_a_server_that_is_gone_is_not():
    lost = (0, b"")
    assert memory._resident(Beside(lost, lost, (0, SAID)), "1") == {
        "VmHWM:": 2 << 20, "Rss:": 1 << 20, "Anonymous:": 512 << 10,
    }  # fmt: skip
    with pytest.raises(FailedTrial, match="the server is gone, or its kernel tells nothing"):
        memory._resident(Beside(lost, lost, lost), "1")
    gone = Beside((2, LOAD), (0, SAID))
    with pytest.raises(FailedTrial, match="the server is gone"):
        memory._resident(gone, "1")
    assert len(gone.answers) == 1


def test_all_that_the_first_process_has_started_counts_and_the_load_generator_does_not():
    below = told(7, 1, VmHWM=4096, Rss=3072, Anonymous=2048) + told(8, 7, VmHWM=100, Rss=100, Anonymous=100)
    assert memory._resident(Beside((2, below + LOAD + SAID)), "1") == {
        "VmHWM:": (2048 + 4096 + 100) << 10, "Rss:": (1024 + 3072 + 100) << 10, "Anonymous:": (512 + 2048 + 100) << 10,
    }  # fmt: skip
    ended = told(9, 1)  # and not waited for yet: it has no memory
    assert memory._resident(Beside((0, SAID + ended)), "1")["Rss:"] == 1 << 20


def test_what_may_not_be_read_of_one_process_is_not_summed_over_the_others():
    of_another_user = told(7, 1, VmHWM=4096)
    assert memory._resident(Beside((2, SAID + of_another_user)), "1") == {"VmHWM:": (2048 + 4096) << 10}
