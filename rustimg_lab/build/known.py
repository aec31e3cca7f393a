"""What lies in `templates/`: the texts that are filled in, and what the lab knows of programs and crates by name."""

import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from rustimg_lab.model import toml

KNOWN = toml.read(Path(__file__).parent / "templates" / "known.toml")
SOURCES = {name: re.compile(pattern) for name, pattern in KNOWN["sources"].items()}
_layout = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
TEMPLATES = Environment(loader=PackageLoader("rustimg_lab.build"), undefined=StrictUndefined, **_layout)
