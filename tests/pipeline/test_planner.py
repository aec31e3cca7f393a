"""What a study refuses before anything is built, for how a server is asked."""

from pathlib import Path

import pytest

from rustimg_lab.errors import LabError
from rustimg_lab.model.app import App, Serve
from rustimg_lab.model.studies import KINDS
from rustimg_lab.pipeline import planner


@pytest.mark.parametrize(
    ("serve", "studies"),
    [
        ({"http": 2, "grpc": ""}, {"build"}),
        ({"tls": True}, {"build", "throughput", "latency", "memory"}),
        ({"http": 2}, {"build", "throughput", "latency", "memory"}),
        ({"keep_alive": False, "status": 204, "start_timeout_s": 60}, set(KINDS)),
    ],
)
def test_a_study_that_cannot_ask_a_server_so_says_so_before_anything_is_built(serve, studies, monkeypatch):
    monkeypatch.setattr(planner.cold_engine, "check", lambda: None)  # this machine's part of a deploy study
    app = App("a", Path(), "", "a", check=None, serve=Serve(**serve))
    for name, kind in KINDS.items():
        if name in studies:
            assert planner.programs(app, kind, Path()) == [app]
        else:
            with pytest.raises(
                LabError, match=r"^(no study asks by gRPC|a start ends with the first byte by plain HTTP)"
            ):
                planner.programs(app, kind, Path())
