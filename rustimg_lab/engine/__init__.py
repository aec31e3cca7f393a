"""The Docker engine, or Podman: images, containers, what it can do, and a second one that starts empty."""
