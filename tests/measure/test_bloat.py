"""Whose the bytes of a binary are."""

import shutil

import pytest

from rustimg_lab.host import process
from rustimg_lab.measure import bloat
from rustimg_lab.model import matrix

NM = """\
0000000000001000 0000000000000800 T main
0000000000001800 0000000000001000 t reqwest::async_impl::client::Client::execute::{{closure}}::h0123456789abcdef
0000000000002800 0000000000000800 t <alloc::string::String as core::fmt::Write>::write_str
0000000000003000 0000000000000400 t <&T as core::fmt::Debug>::fmt
0000000000003400 0000000000000400 W <hyper[1a2b]::client::Conn>::poll
0000000000003800 0000000000000c00 T _rjem_je_malloc_default
0000000000004400 0000000000000010 t tiny_crate::one
0000000000001800 0000000000001000 t other::name_of_the_same_code
0000000000005000 0000000000010000 b serde::ZEROES
0000000000006000 T without_a_size
"""


def test_a_symbol_counts_for_the_crate_that_it_names_first():
    found = bloat.crates(NM, 0x4000)
    assert found == {
        "reqwest": 0x1000, "jemalloc": 0xC00, bloat.OTHER: 0x800, "alloc": 0x800, "core": 0x400, "hyper": 0x400,
        bloat.SMALL_CRATES: 0x10, bloat.NO_SYMBOL: 0x4000 - 0x3410,
    }  # fmt: skip
    assert next(iter(found)) == "reqwest" and sum(found.values()) == 0x4000


def test_a_binary_without_symbols_is_all_of_no_crate():
    assert bloat.crates("", 1000) == {bloat.NO_SYMBOL: 1000}


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc makes the programs")
def test_sections_sum_up_to_the_file(tmp_path):
    (tmp_path / "a.c").write_text("char zeroes[100000]; int main(void) { return zeroes[9]; }")
    process.run(["gcc", str(tmp_path / "a.c"), "-o", str(tmp_path / "a")])
    found = bloat.sections(tmp_path / "a")
    assert sum(found.values()) == (tmp_path / "a").stat().st_size
    assert found[".text"] > 0 and ".bss" not in found and ".symtab" in found
    assert bloat.loaded_bytes(tmp_path / "a") < sum(found.values())


@pytest.mark.builds
@pytest.mark.engine
def test_the_parts_of_a_built_cell_sum_up(builds, tiny):
    cells = [matrix.cell("scratch", name, "mimalloc") for name in ("baseline", "optimized", "upx")]
    found = {built.cell.profile.name: built for built in builds(cells, tiny)}
    assert {name: built.reason for name, built in found.items() if built.reason} == {}
    for name, built in found.items():
        rows = bloat.measure_parts(built.linked, built.shipped, built.symbols)
        sections, crates = (
            {row.detail: row.value for row in rows if row.metric == metric}
            for metric in ("section_bytes", "crate_bytes")
        )
        assert {"std", "core", "mimalloc", bloat.NO_SYMBOL} <= set(crates)
        assert sum(crates.values()) == bloat.loaded_bytes(built.linked)
        if name == "upx":
            assert sections == {}
            assert built.shipped.stat().st_size < 0.6 * found["optimized"].shipped.stat().st_size
        else:
            assert sum(sections.values()) == built.shipped.stat().st_size
