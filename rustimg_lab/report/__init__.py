"""Numbers -> words, tables, plots and the page that is shared. Needs no engine."""

import sys

# jsonschema, which Jupyter's packages import, would make a grammar of it at each import: 2 s of CPU, to check formats
# that no notebook has. It does without. A kernel is its user's, where the package may be wanted.
if "ipykernel" not in sys.modules:
    sys.modules.setdefault("rfc3987_syntax", None)
