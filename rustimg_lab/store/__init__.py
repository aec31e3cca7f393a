"""A run on disk: its rows, its environment, and how both are read and written."""
