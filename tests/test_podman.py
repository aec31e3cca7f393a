"""Podman: how its progress is read, what the lab refuses; and, where Podman is the engine, a real run."""

import json

import pytest

from rustimg_lab import build, podman
from rustimg_lab.errors import LabError

SAID = [
    "[1/2] STEP 1/3: FROM rust AS builder",
    "[1/2] STEP 2/3: RUN cargo build",
    "--> Using cache 4265b7a9d904a46cfe95c970b96bbf9380bcf21148c2b1bd690e5dd9bc526ed2",
    "--> 4265b7a9d904",
    "[1/2] STEP 3/3: RUN strip tiny",
    "  --> src/main.rs:3:5",
    "--> 134ed59edd9f",
    "[2/2] STEP 1/2: FROM scratch",
    "[2/2] STEP 2/2: COPY --from=builder /rootfs/ /",
    "[2/2] COMMIT tiny:scratch",
    "--> 8f872448c821",
    "8f872448c8210a5e22cbe3dbee15a5ba61e4eae720b4399530c600bd6b77ef1b",
    "Successfully tagged docker.io/library/tiny:scratch",
]


def test_progress_is_read_as_that_of_buildkit(monkeypatch, tmp_path):
    events, stages, vertex = [], {}, {"digest": "cell", "name": "[cell internal] build"}
    monkeypatch.setattr(podman, "_tell", events.append)
    for line in SAID:
        vertex = podman._read(line, "cell", stages, vertex)
    printer = tmp_path / "events"
    printer.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    heard: list[str] = []
    code, steps, said = build._bake(["cat", str(printer)], heard.append)
    assert (code, said) == (0, []) and heard == ["cell builder 2/3", "cell builder 3/3", "--> src/main.rs:3:5"]
    assert [(step.name, step.cached, step.output) for step in steps.values()] == [
        ("[cell builder 1/3] FROM rust AS builder", False, []),
        ("[cell builder 2/3] RUN cargo build", True, []),
        ("[cell builder 3/3] RUN strip tiny", False, ["  --> src/main.rs:3:5\n"]),
        ("[cell stage-2 1/2] FROM scratch", False, []),
        ("[cell stage-2 2/2] COPY --from=builder /rootfs/ /", False, []),
    ]


def test_a_bake_file_is_written_without_the_escapes_of_bake_and_a_builder_is_refused(tmp_path):
    text = "FROM ${BASE} %{x} $${kept}"
    podman.build_command(tmp_path, build._escaped({"target": {"cell": {"dockerfile-inline": text}}}))
    written = json.loads((tmp_path / podman.DEFINITION).read_text())
    assert written["target"]["cell"]["dockerfile-inline"] == text
    with pytest.raises(LabError, match="leave --builder out"):
        podman.build_command(tmp_path, {"target": {}}, "other")
