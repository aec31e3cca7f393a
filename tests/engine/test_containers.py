"""Containers of an engine whose own settings are not those of a fresh one."""

import pytest
from support.lab import as_root, small_builder

from rustimg_lab.engine import containers
from rustimg_lab.engine.images import import_rootfs

pytestmark = pytest.mark.engine


@as_root
@pytest.mark.parametrize(
    "settings", ['{"log-driver": "none"}', '{"log-driver": "json-file", "log-opts": {"max-size": "1k"}}']
)
def test_what_is_printed_is_read_whole_whatever_the_engine_keeps_of_logs(settings, small_engine, images, tmp_path):
    rootfs = small_builder(images["alpine"].image, "", tmp_path / "rootfs.tar")
    small_engine.start(300, settings=settings)
    image = import_rootfs(rootfs, 0, "rust", "test", ["ENV PATH=/usr/bin"])
    with containers.created(image.id, command=["busybox", "seq", "1000"], network_mode="none") as container:
        container.start()
        assert container.wait(timeout=60)["StatusCode"] == 0
        assert container.logs().split() == [b"%d" % number for number in range(1, 1001)]


def test_what_a_program_prints_that_is_no_text_turns_no_line_of_a_table_and_ends_none():
    said = "\x1b[31mred\x1b[0m\0 a\tb\r\nüñ \u202e rtl \u2066x\x07".encode() + b"\xff"
    assert containers.decode_output(said) == "red\ufffd a\tb\r\nüñ \ufffd rtl \ufffdx\ufffd\ufffd"
