"""What an image survives, asked by a program of the lab in `crate/`."""
