"""This machine, without an engine: its commands, its tools, its files, its proxy."""
