"""Reading a server's memory where the engine loses the output of a command, as Podman does now and then."""

import pytest

from rustimg_lab.measure.plan import Lost
from rustimg_lab.measure.studies import memory

SAID = b"VmHWM:\t    2048 kB\nRss:\t    1024 kB\nAnonymous:\t     512 kB\n"


class Beside:
    """Stands in for a container whose engine loses output: no engine does so on demand."""

    def __init__(self, *answers: tuple[int, bytes]):
        self.answers = list(answers)

    def exec_run(self, command: list[str], **options: str) -> tuple[int, bytes]:
        return self.answers.pop(0)


def test_output_that_is_lost_is_asked_for_again_and_a_server_that_is_gone_is_not():
    lost = (0, b"")
    assert memory._resident(Beside(lost, lost, (0, SAID)), "1") == {
        "VmHWM:": 2 << 20, "Rss:": 1 << 20, "Anonymous:": 512 << 10,
    }  # fmt: skip
    with pytest.raises(Lost, match="the server is gone, or its kernel tells nothing"):
        memory._resident(Beside(lost, lost, lost), "1")
    gone = Beside((1, b"cat: /proc/1/status: No such file or directory\n"), (0, SAID))
    with pytest.raises(Lost, match="No such file"):
        memory._resident(gone, "1")
    assert len(gone.answers) == 1
