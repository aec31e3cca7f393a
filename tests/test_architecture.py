"""What docs/architecture.md says of the package is what the package is."""

import re
import tomllib

from rustimg_lab.cli import docs
from rustimg_lab.paths import PACKAGE, ROOT


def test_the_list_of_modules_is_up_to_date():
    assert docs.PAGE.read_text() == docs.page(), "call `./lab docs` and look through what it changed"


def test_every_wing_is_in_the_table_and_under_the_contract():
    wings = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    table = set(re.findall(r"^\| `(\w+)` \| ", docs.PAGE.read_text().partition("## The path")[0], re.MULTILINE))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {
        each.strip().removeprefix("rustimg_lab.") for layer in contracts[0]["layers"] for each in layer.split("|")
    }
    assert table == wings == layers - {"errors", "paths"}
