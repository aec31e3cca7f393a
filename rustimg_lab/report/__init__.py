"""Numbers -> words, tables, plots and the page that is shared. Needs no engine."""
