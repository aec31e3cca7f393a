"""The kinds of study, one module each."""
