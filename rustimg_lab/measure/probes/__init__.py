"""Robustness probes of an image, made by a program of the lab in `crate/`."""
