"""Cells -> images: the app, base images, the Dockerfile, and BuildKit."""
