"""Where things are, below the checkout; and the runs that commands use unless another is named."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
STATE = ROOT / ".lab"  # this clone's own: its id, private tools, base archives in the making
RUNS = ROOT / "data" / "runs"
RECORDED = ROOT / "data" / "recorded"
ARTICLE = ROOT / "data" / "article.csv"
BASES = ROOT / "data" / "bases.toml"
PROFILES = ROOT / "data" / "profiles.toml"
PROBES_FILE = ROOT / "data" / "probes.toml"
ENVIRONMENT_SCHEMA = ROOT / "data" / "environment.schema.json"
PUBLISHED = ROOT / "data" / "published.csv"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
MYIP = ROOT / "examples" / "myip"

DEFAULT_RUN = "article"
STUDIES_RUN = "studies"  # what is measured in blocks, unless another is named
PROBES_RUN = "survival"
CHOICE_RUN = "recorded/service"  # sizes and studies of the same cells, on one machine
RECORDED_RUN = "recorded"  # the committed run of the article's grid; others are recorded/NAME
