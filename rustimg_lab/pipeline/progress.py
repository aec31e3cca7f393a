"""Progress of builds and trials: live lines in a terminal, a line now and then in a file."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rustimg_lab.model.matrix import Binary

QUIET_S = 10  # where output goes to a file: at most one line per binary in this many seconds
QUIET_TRIALS_S = 30
_CARGO = re.compile(r"(Compiling|Downloaded|Finished|Updating|Downloading) \S+.*|error.*")


@contextmanager
def building(binaries: list[Binary], console: Console) -> Iterator[Callable[[Binary, str], None]]:
    """Yields the function that is told what each binary's build is doing; it may be called from any thread."""
    if not _is_live(console):
        yield _lines(console)
        return
    columns = SpinnerColumn(finished_text="."), TextColumn("{task.description}"), TimeElapsedColumn()
    begun, finished = time.monotonic(), set()
    with Progress(*columns, console=console) as bars:
        whole = bars.add_task(f"{'binaries':28} none of {len(binaries)} yet", total=len(binaries))
        tasks = {binary: bars.add_task(f"{binary.slug:28} waiting", total=1, start=False) for binary in binaries}

        def step(binary: Binary, text: str) -> None:
            done = text in ("built", "failed")
            if done or _worth_showing(text):
                bars.start_task(tasks[binary])
                bars.update(tasks[binary], description=f"{binary.slug:28} {escape(text[:60]):60}", completed=int(done))
            if done:
                finished.add(binary)
                left = (time.monotonic() - begun) / len(finished) * (len(binaries) - len(finished))
                told = f"{len(finished)} of {len(binaries)}, {_in_words(left)} left" if left else "all"
                bars.update(whole, description=f"{'binaries':28} {told:60}", completed=len(finished))

        yield step


@contextmanager
def trials(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Yields the function that is told how many trials of how many are done, and which is next; it shows time left."""
    begun = last = time.monotonic()

    def text(done: int, planned: int, what: str) -> str:
        left = (time.monotonic() - begun) / done * (planned - done) if done else None
        told = "" if left is None else f", {_in_words(left)} left"
        return f"trial {done + (done < planned)} of {planned}{told}: {what}"

    if not _is_live(console):

        def line(done: int, planned: int, what: str) -> None:
            nonlocal last
            if done in (0, planned) or time.monotonic() - last > QUIET_TRIALS_S:
                last = time.monotonic()
                console.print(f"  {text(done, planned, what)}", markup=False, highlight=False, soft_wrap=True)

        yield line
        return
    columns = SpinnerColumn(finished_text="."), BarColumn(30), TextColumn("{task.description}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, planned, what: bar.update(
            task, total=planned, completed=done, description=escape(text(done, planned, what))
        )


def _is_live(console: Console) -> bool:
    """Whether what is on it can be drawn anew: in a terminal, and in a notebook, where rich does so by ipywidgets."""
    return console.is_terminal or console.is_jupyter


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _lines(console: Console) -> Callable[[Binary, str], None]:
    last: dict[Binary, float] = {}

    def step(binary: Binary, text: str) -> None:
        done, now = text in ("built", "failed"), time.monotonic()
        if done or (_worth_showing(text) and now - last.get(binary, 0.0) > QUIET_S):
            last[binary] = now
            console.print(f"  {binary.slug}: {text}", markup=False, highlight=False, soft_wrap=True)

    return step


def _worth_showing(text: str) -> bool:
    return bool(_CARGO.match(text)) or "builder" in text
