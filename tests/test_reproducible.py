"""Two builds that share nothing, neither layers nor what cargo kept, give the same images."""

import uuid

import pytest

from rustimg_lab.build import dockerfile, lab_toml
from rustimg_lab.engine import client
from rustimg_lab.host.files import sha256
from rustimg_lab.model import matrix
from rustimg_lab.model.app import App
from rustimg_lab.paths import MYIP

pytestmark = [pytest.mark.engine, pytest.mark.builds, pytest.mark.faults]


@pytest.fixture
def cold(builds, monkeypatch):
    """Builds from cold: every step of a text has a word in it that no build has seen, and every cache mount a new
    name."""
    plain = dockerfile.render

    def build(cells: list[matrix.Cell], app: App) -> dict[str, tuple[str, list[str]]]:
        word = uuid.uuid4().hex[:12]

        def render(*arguments: object) -> str:
            text = plain(*arguments).replace("set -eu;", f"set -eu; : {word};")
            return text.replace("id=rustimg-lab-", f"id=rustimg-lab-test-{word}-")

        monkeypatch.setattr(dockerfile, "render", render)
        found = {}
        for each in builds(cells, app):
            assert each.image, each.reason
            layers = client.connect().images.get(each.image).attrs["RootFS"]["Layers"]
            found[each.cell.slug] = sha256(each.shipped), layers
        return found

    return build


def test_two_cold_builds_give_the_same_binary_and_the_same_layers(cold, tiny, request):
    """Of the article's grid with `--faults`, which takes a quarter of an hour; else of a tiny crate on its bases."""
    full = request.config.getoption("--faults")
    grid = (
        matrix.usual_grid("article")
        if full
        else matrix.Grid(matrix.ARTICLE_BASES, ("optimized",), ("system", "mimalloc"))
    )
    cells = matrix.grid(grid.bases, grid.profiles, grid.allocators)
    cells += [matrix.cell("scratch", "optimized", "system", additions=("ca-certificates", "init", "tmp", "tzdata"))]
    first, second = (cold(cells, lab_toml.load(MYIP) if full else tiny) for _ in range(2))
    assert len(first) == len(cells) and first == second
