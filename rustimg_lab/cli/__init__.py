"""The command line."""

from rustimg_lab.paths import COMMAND


def as_called(text: str) -> str:
    """Return a text in which commands have the name of this installation in place of `./lab`."""
    return text.replace("./lab ", f"{COMMAND} ")
