"""Numbers -> words, tables, plots and the page that is shared. Needs no engine."""

import sys

# jsonschema, which Jupyter's packages import, would make a grammar of it at each import: 2 s of CPU, to check formats
# that no notebook has. It does without.
sys.modules.setdefault("rfc3987_syntax", None)
