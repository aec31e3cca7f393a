"""Where things are, below the checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"  # this clone's own: its id, private tools, base archives in the making
RUNS = ROOT / "data" / "runs"
RECORDED = ROOT / "data" / "recorded"
ARTICLE = ROOT / "data" / "article.csv"
PROFILES = ROOT / "data" / "profiles.toml"
PROBES_FILE = ROOT / "data" / "probes.toml"
ENVIRONMENT_SCHEMA = ROOT / "data" / "environment.schema.json"
PUBLISHED = ROOT / "data" / "published.csv"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
MYIP = ROOT / "examples" / "myip"
