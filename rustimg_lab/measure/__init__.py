"""Images -> rows: sizes, checks, studies and probes."""
