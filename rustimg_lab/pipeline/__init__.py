"""The order of it all: from a list of cells to a run."""
