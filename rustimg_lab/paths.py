"""Where things are: what comes with the lab, what it writes, and the runs that commands use unless another is named.

A checkout is both. A wheel has what comes with the lab in `_share/`, and writes to the current folder.
"""

import os
from pathlib import Path

HOME = "RUSTIMG_LAB_HOME"  # names another folder to write to; set for kernels, which start in another one
WORKER = "RUSTIMG_LAB_WORKER"  # set where a Dask worker calls the lab: the command as it was typed at the client
# Set there too: when the client's sources were last changed, and the digest of their folder there (`session.identify`).
ORIGIN = "RUSTIMG_LAB_ORIGIN"
PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "_share").is_dir()  # from a wheel, without a checkout
SHARE = PACKAGE / "_share" if INSTALLED else PACKAGE.parent
COMMAND = "rustimg-lab" if INSTALLED else "./lab"
ROOT = Path(os.environ.setdefault(HOME, str(Path.cwd()))).resolve() if INSTALLED else SHARE
STATE = ROOT / ".lab"  # this clone's own: its id, private tools, base archives in the making
APPS = STATE / "apps"  # sources that a client has brought to this Dask worker, by run
RUNS = ROOT / "data" / "runs"
RECORDED = SHARE / "data" / "recorded"
ARTICLE = SHARE / "data" / "article.csv"
BASES = SHARE / "data" / "bases.toml"
PROFILES = SHARE / "data" / "profiles.toml"
PROBES_FILE = SHARE / "data" / "probes.toml"
ENVIRONMENT_SCHEMA = SHARE / "data" / "environment.schema.json"
PUBLISHED = SHARE / "data" / "published.csv"
NOTEBOOKS = SHARE / "notebooks"
REPORTS = ROOT / "reports"
MYIP = SHARE / "examples" / "myip"

DEFAULT_RUN = "article"
STUDIES_RUN = "studies"  # what is measured in blocks, unless another is named
PROBES_RUN = "survival"
# One study on two kinds of machine, and on one of them with more threads.
ALLOCATOR_RUNS = tuple(f"recorded/{name}" for name in ("allocators", "allocators-intel", "threads", "threads-intel"))
CHOICE_RUN = "recorded/service"  # sizes and studies of the same cells, on one machine
RECORDED_RUN = "recorded"  # the committed run of the article's grid; others are recorded/NAME
