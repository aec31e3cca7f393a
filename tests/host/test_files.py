"""Full disks, for real: a small tmpfs each, one of them below an engine of the test's own."""

import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.lab import add_file, as_root, small_builder

from rustimg_lab.build import bases
from rustimg_lab.engine import client
from rustimg_lab.engine.images import import_rootfs
from rustimg_lab.host import files
from rustimg_lab.host.files import DiskFull
from rustimg_lab.model import matrix
from rustimg_lab.model.bases import BUILDER
from rustimg_lab.store import rows, runs

pytestmark = pytest.mark.faults

SIZE = r"[\d.]+ [kMG]B"
MISSING = f"the disk that holds {{}} is full: {SIZE} of {SIZE} left, {SIZE} needed, {SIZE} missing"


def _archive(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            add_file(archive, name, 0o755, content)
    return path


def _program() -> tuple[str, bytes]:
    return "bin/program", Path(shutil.which("true")).resolve().read_bytes()


@as_root
@pytest.mark.engine
def test_a_base_that_does_not_fit_leaves_nothing(small_engine, tmp_path):
    large = _archive(tmp_path / "large.tar", _program(), ("blob", os.urandom(90_000_000)))
    client.connect().api.import_image_from_file(str(large), repository="rustimg-lab-test-large", tag="1")
    saved = tmp_path / "saved.tar"
    try:
        with saved.open("wb") as file:
            file.writelines(client.connect().images.get("rustimg-lab-test-large:1").save(named=True))
    finally:
        client.connect().images.remove("rustimg-lab-test-large:1")

    data = small_engine.start(40)
    for archive in (large, saved):
        with pytest.raises(DiskFull, match=MISSING.format(data)) as caught:
            bases.resolve("alpine", bases.Sources({"alpine": str(archive)}), print)
        assert str(caught.value).startswith(f"{'image.tar' if archive == saved else 'large.tar'} could not be imported")
    assert client.connect().images.list(all=True) == []
    small = _archive(tmp_path / "small.tar", _program())
    assert bases.resolve("alpine", bases.Sources({"alpine": str(small)}), print).digest  # there is room for this one


@as_root
@pytest.mark.engine
def test_a_build_that_does_not_fit_stops_the_run_in_one_line(small_engine, images, tiny, builds, tmp_path):
    cargo = "#!/bin/sh\nbusybox dd if=/dev/zero of=/target/fill bs=1048576\n"  # it fills the disk
    rootfs = small_builder(images["alpine"].image, cargo, tmp_path / "builder.tar")
    data = small_engine.start(100)
    image = import_rootfs(rootfs, 0, "rust", "test", ["ENV PATH=/usr/bin"])
    cells = matrix.grid(["scratch"], ["baseline"], ["system"])
    only_builder = {BUILDER: replace(images["rust"], image=image.tags[0])}
    with pytest.raises(DiskFull, match="musl-baseline-system could not be built: " + MISSING.format(data)):
        builds(cells, tiny, images=only_builder)
    assert [tag for image in client.connect().images.list() for tag in image.tags] == image.tags


def test_names_that_are_too_long_for_a_file_stay_apart():
    long = [files.short_name("a" * 300 + end) for end in "bc"]
    assert len(set(long)) == 2 and all(len(name) < 255 for name in long)
    assert files.short_name("short") == "short"


@as_root
def test_rows_that_do_not_fit_leave_the_rows_that_are_there(tmpfs, monkeypatch):
    folder = tmpfs("runs", 1)
    monkeypatch.setattr(runs, "RUNS", folder)
    cell = matrix.cell("scratch", "baseline", "system")
    with runs.open_run("full", {"cpus": 2}) as run:
        run.append(cell, "", [rows.Observation("built", True)])
        (folder / "others").write_bytes(b"x" * (shutil.disk_usage(folder).free - 8192))
        before = (run.path / "rows.jsonl").read_bytes(), (run.path / "environment.json").read_bytes()
        with pytest.raises(DiskFull, match="rows could not be written: " + MISSING.format(run.path)):
            run.append(cell, "", [rows.Observation("built", True, detail="x" * 100) for _ in range(1000)])
        with pytest.raises(DiskFull, match="environment.json could not be written: " + MISSING.format(run.path)):
            run.save_environment(images={"x": "y" * 100_000})
        assert before == ((run.path / "rows.jsonl").read_bytes(), (run.path / "environment.json").read_bytes())
        assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == [
            ".lock", "environment.json", "rows.jsonl",
        ]  # fmt: skip
        (folder / "others").unlink()
        run.append(cell, "", [rows.Observation("built", True)])
    assert len([json.loads(line) for line in (folder / "full" / "rows.jsonl").read_text().splitlines()]) == 2
