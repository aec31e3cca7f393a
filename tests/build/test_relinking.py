"""Layouts of the tiny crate, built for real: other files of the same code, which is compiled once for all of them."""

import re
from dataclasses import replace

import pytest
from support.lab import MUSL

from rustimg_lab.build import lab_toml
from rustimg_lab.engine import client
from rustimg_lab.measure import binary, bloat
from rustimg_lab.model import matrix, metrics
from rustimg_lab.pipeline import session


def layouts(cell: matrix.Cell, *seeds: int) -> list[matrix.Cell]:
    return [replace(cell, layout=seed) for seed in seeds]


@pytest.mark.engine
@pytest.mark.builds
@pytest.mark.parametrize(("base", "profile"), [("scratch", "baseline"), ("debian", "optimized")])
def test_layouts_are_other_files_of_the_same_code_and_are_compiled_once(base, profile, tiny, builds, tmp_path):
    cell = matrix.cell(base, profile, "mimalloc")
    built = builds([cell, *layouts(cell, 1, 2)], tiny)
    assert all(each.image for each in built), [each.reason for each in built]
    text = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log"))
    assert len(re.findall(r"Compiling libmimalloc-sys v", text)) == len(re.findall(r"Compiling itoa v", text)) == 1
    assert len(re.findall(r"Compiling tiny v", text)) == 2  # for the cell, and once for all of its layouts

    (more,) = builds(layouts(cell, 3), tiny)
    log = (tmp_path / "logs" / f"{more.cell.slug}.log").read_text()
    assert more.image and "Compiling" not in log  # only linked

    every = [each for each in (*built, more) if each.cell.layout]
    facts = [binary.measure_layout(each.linked, each.shipped) for each in every]
    sha256, code, linker = ([row.value for row in rows] for rows in zip(*facts, strict=True))
    assert len(set(sha256)) == 3 and len(set(code)) == len(set(linker)) == 1 and "LLD" in linker[0]
    assert [row.metric for row in facts[0]] == [metrics.BINARY_SHA256, metrics.CODE_SHA256, metrics.LINKER]
    size = [bloat.sections(each.linked)[".text"] for each in every]
    listed = every[0].linked.with_name(binary.CODE_SECTIONS).read_text().splitlines()
    code_bytes = sum(int(line.split()[0], 16) for line in listed)  # beside these, .text has padding alone
    assert len(listed) > 100 and all(code_bytes <= each < 1.05 * code_bytes for each in size)
    assert max(size) - min(size) < 0.001 * code_bytes
    known = {}
    assert [session._layout_mismatch(each, known) for each in every] == ["", "", ""]
    twice = replace(every[0], cell=replace(cell, layout=4))
    assert "the same file as layout 1" in session._layout_mismatch(twice, known)
    every[0].linked.with_name(binary.CODE_SECTIONS).write_text("10 16 other.o:(.text.other)\n")
    other = replace(twice, shipped=built[0].shipped)
    assert "others than those of layout 1: it was compiled anew" in session._layout_mismatch(other, known)
    for each in every:
        output = client.connect().containers.run(each.image, ["/tiny/tiny"], remove=True, network_mode="none")
        assert output == b"answer 42\n"
        assert binary.linked_allocator(each.linked) == "mimalloc"


@pytest.mark.engine
@pytest.mark.builds
def test_a_crate_that_strips_has_layouts_as_it_is_published_and_with_another_linker_a_reason(tiny, builds):
    manifest = tiny.directory / "Cargo.toml"
    manifest.write_text(manifest.read_text() + "\n[profile.release]\nstrip = true\n")
    cell = matrix.cell("scratch", "published", "own")
    built, known = builds(layouts(cell, 1, 2), lab_toml.load(tiny.directory)), {}
    assert [each.reason or session._layout_mismatch(each, known) for each in built] == ["", ""] and len(known) == 2
    assert all(binary.elf_facts(each.shipped)["stripped"] for each in built)

    own = '#!/bin/sh\nfor each; do shift; [ "$each" = -fuse-ld=lld ] || set -- "$@" "$each"; done; exec cc "$@"\n'
    (tiny.directory / "own-linker").write_text(own)
    (tiny.directory / "own-linker").chmod(0o755)
    (tiny.directory / ".cargo").mkdir()
    (tiny.directory / ".cargo" / "config.toml").write_text(f'[target.{MUSL}]\nlinker = "/src/own-linker"\n')
    (refused,) = builds(layouts(cell, 1), lab_toml.load(tiny.directory))
    assert "ld: unrecognized option '--reproduce=/link.tar'" in refused.reason and "\n" not in refused.reason
