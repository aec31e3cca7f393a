"""Rows -> numbers. Pure: needs no engine."""
