"""The command line."""

from rustimg_lab.paths import COMMAND


def as_called(text: str) -> str:
    """Return a text that names commands as `./lab` does, with the name that they have where the lab is installed."""
    return text.replace("./lab ", f"{COMMAND} ")
