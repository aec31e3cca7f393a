import pytest
from support.lab import GNU

from rustimg_lab.errors import LabError
from rustimg_lab.model import matrix
from rustimg_lab.model.bases import all_bases


def test_the_articles_grid_has_eight_cells_and_four_binaries():
    cells = matrix.grid(matrix.ARTICLE_BASES, matrix.PROFILES, [matrix.ARTICLE])
    assert len(cells) == 8
    assert len({cell.binary for cell in cells}) == 4


def test_the_articles_allocator_is_jemalloc_on_musl_and_the_systems_elsewhere():
    musl = dict.fromkeys(("scratch", "alpine", "static"), "jemalloc")
    expected = musl | {"distroless": "system", "debian": "system"}
    cells = matrix.grid(expected, ["baseline"], [matrix.ARTICLE])
    assert {cell.base.name: cell.allocator for cell in cells} == expected


def test_a_cell_named_twice_is_there_once():
    assert len(matrix.grid(["scratch"], ["baseline"], [matrix.ARTICLE, "jemalloc", "system"])) == 2


def test_the_crate_as_published_is_one_cell_a_base_with_its_own_allocator():
    cells = matrix.grid(["scratch", "debian"], ["published", "strip"], ["jemalloc", "own"])
    assert [str(cell) for cell in cells[:2]] == ["scratch-published-own", "debian-published-own"]
    assert len(cells) == 2 + 4 and matrix.cell("scratch", "published", matrix.ARTICLE) == cells[0]
    assert matrix.links_musl("scratch", "published") and not matrix.links_musl("debian", "published")
    with pytest.raises(LabError, match="profile 'published' has the crate's own allocator, not jemalloc"):
        matrix.cell("scratch", "published", "jemalloc")


def test_slugs_tell_cells_apart():
    cells = matrix.grid(all_bases(), matrix.PROFILES, matrix.ALLOCATORS)
    assert len({cell.slug for cell in cells}) == len(cells) == len(all_bases()) * 2 * 3


def test_a_profile_of_glibc_alone_is_linked_for_glibc_on_every_base():
    cells = matrix.grid(["scratch", "debian"], ["glibc-static"], [matrix.ARTICLE])
    assert {cell.target for cell in cells} == {GNU}
    assert {cell.allocator for cell in cells} == {"system"}


def test_a_release_without_upx_is_told():
    with pytest.raises(LabError, match="bookworm has no package of UPX; take --debian trixie"):
        matrix.cell("scratch", "upx", "system", "bookworm")


@pytest.mark.parametrize(
    ("names", "kind", "nearest"),
    [
        (("scrach", "baseline", "system"), "base", "scratch"),
        (("scratch", "optimised", "system"), "profile", "optimized"),
        (("scratch", "baseline", "jemaloc"), "allocator", "jemalloc"),
    ],
)
def test_a_misspelt_name_is_told_with_the_nearest(names, kind, nearest):
    with pytest.raises(LabError, match=f"unknown {kind} .*did you mean '{nearest}'"):
        matrix.cell(*names)
