"""Base images and the Rust builder: `data/bases.toml` -> Base; the Debian releases that they can be on."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from rustimg_lab.errors import LabError
from rustimg_lab.model import toml
from rustimg_lab.paths import BASES

RUST_VERSION = "1.96"
BUILDER = "rust"  # the name of the builder image beside the bases
DEBIAN = "trixie"
# Debian releases, by which the builder, slim and distroless are named, with what each puts into texts of the file.
RELEASES = {
    "trixie": {"number": "13", "t64": "t64", "upx": "upx-ucl"},
    "bookworm": {"number": "12", "t64": "", "upx": ""},
}
# What the texts of the file may be: they become lines of a Dockerfile, and arguments of mmdebstrap.
_FORMS = {
    "name in lower-case letters and digits": "[a-z][a-z0-9]*",
    "libc (musl or gnu)": "musl|gnu",
    "variant (extract or minbase)": "extract|minbase",
    "label": rf"[^{toml.CONTROL}\"\\$]+",
    "name of an image, a package or a file": r"([\w.:/@+-]|{(debian|number|rust|t64|upx)})+",
}


@dataclass(frozen=True)
class Recipe:
    """How an image is made of Debian packages; the fields are those of [NAME.packages] in the file."""

    label: str
    variant: str
    names: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    dependencies: bool = True
    setup: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    stand_in: bool = False


@dataclass(frozen=True)
class Base:
    """What an image stands on. `image` is the official one, with places for the release in it, "" for an empty base;
    `packages` is None where it cannot be made of Debian packages."""

    name: str
    label: str
    libc: str
    image: str
    packages: Recipe | None = None

    @property
    def article_allocator(self) -> str:
        """Return the allocator that the article uses on the base: jemalloc on 64-bit musl, system elsewhere."""
        return "jemalloc" if self.libc == "musl" else "system"


def fill_release(text: str, debian: str) -> str:
    """Return a text of data/bases.toml with the words of a Debian release and the version of Rust in it."""
    return text.format(debian=debian, rust=RUST_VERSION, **RELEASES[debian])


def all_bases() -> dict[str, Base]:
    """Return all bases by name, in the order of data/bases.toml. Raises LabError, with the base, where an entry has a
    fault."""
    return {name: base for name, base in bases_and_builder().items() if name != BUILDER}


@cache
def bases_and_builder() -> dict[str, Base]:
    """Return all bases and the Rust builder, by name. Raises LabError where an entry has a fault, or none is the
    builder."""
    bases = toml.entries(BASES, "base", lambda name, table, _: _base(name, table))
    if BUILDER not in bases:
        raise LabError(f"{BASES.name} has no '{BUILDER}', the Rust builder")
    return bases


def _base(name: str, table: Any) -> Base:
    """Make a base, or the builder, of its table. Raises LabError where a text does not have its form (`_FORMS`)."""
    if isinstance(table, dict) and "packages" in table:
        table["packages"] = toml.make(Recipe, table["packages"], "[packages] ")
    base = toml.make(Base, table, name=name)
    recipe = base.packages or Recipe(base.label, "extract")
    variables = (word for variable in recipe.environment for word in variable)
    words = [*filter(None, [base.image]), *recipe.names, *recipe.without, *variables]
    texts = ([name], [base.libc], [recipe.variant], [base.label, recipe.label], words)
    for (kind, form), group in zip(_FORMS.items(), texts, strict=True):
        if wrong := [text for text in group if not isinstance(text, str) or not re.fullmatch(form, text, re.ASCII)]:
            raise LabError(f"{str(wrong[0])[:40]!r} is no {kind}")
    return base
