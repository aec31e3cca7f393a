"""Progress of builds, trials and pages: live lines in a terminal, a line now and then in a file."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from rustimg_lab.model.matrix import Binary

QUIET_S = 10  # where output goes to a file: at most one line per row in this many seconds
QUIET_TRIALS_S = 30
DRAWN_S = 1.0  # in a notebook, where each drawing is a message
_CARGO = re.compile(r"(Compiling|Downloaded|Finished|Updating|Downloading) \S+.*|error.*")


def say(console: Console, text: str) -> None:
    """Print a line of the lab's own."""
    console.print(f"lab: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def building(binaries: list[Binary], console: Console) -> Iterator[Callable[[Binary, str], None]]:
    """Yield the function that shows what each binary's build is doing; any thread may call it."""
    places = {binary: place for place, binary in enumerate(binaries)}
    with rows("binaries", [binary.slug for binary in binaries], console) as show:

        def step(binary: Binary, text: str) -> None:
            done = text in ("built", "failed")
            if done or "builder" in text or _CARGO.match(text):
                show(places[binary], text, done)

        yield step


@contextmanager
def rows(title: str, names: list[str], console: Console) -> Iterator[Callable[[int, str, bool], None]]:
    """Show a table with a row per name and the time since it began. Yields the function that gets the place of a row, a
    text on what it is doing, and whether it is done. Any thread may call that."""
    if not _is_live(console):
        line = _throttled_printer(console, QUIET_S)
        yield lambda place, text, done: line(place, f"{names[place]}: {text}", done)
        return
    name_column = TextColumn("{task.description}", markup=False, table_column=Column(max_width=console.width // 2))
    status_column = TextColumn("{task.fields[doing]}", markup=False, table_column=Column(ratio=1, no_wrap=True))
    columns = SpinnerColumn(finished_text="."), name_column, TimeElapsedColumn(), status_column
    start_s, finished = time.monotonic(), set()
    with _drawn(Progress(*columns, console=console, expand=True)) as bars:
        total_task = bars.add_task(title, total=len(names), doing=f"none of {len(names)} yet")
        tasks = [bars.add_task(name, total=1, start=False, doing="waiting") for name in names]

        def show(place: int, text: str, done: bool) -> None:
            bars.start_task(tasks[place])
            bars.update(tasks[place], doing=text, completed=int(done))
            if done:
                finished.add(place)
                left_s = (time.monotonic() - start_s) / len(finished) * (len(names) - len(finished))
                summary = f"{len(finished)} of {len(names)}, {_in_words(left_s)} left" if left_s else "all"
                bars.update(total_task, doing=summary, completed=len(finished))

        yield show


@contextmanager
def trials(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Yield the function that shows progress and the time left. It gets the number of trials done, that of all, and a
    text on the next one."""
    start_s = time.monotonic()

    def text(done: int, planned: int, message: str) -> str:
        left_s = (time.monotonic() - start_s) / done * (planned - done) if done else None
        time_text = "" if left_s is None else f", {_in_words(left_s)} left"
        return f"trial {done + (done < planned)} of {planned}{time_text}: {message}"

    if not _is_live(console):
        line = _throttled_printer(console, QUIET_TRIALS_S)
        yield lambda done, planned, message: line(0, text(done, planned, message), done in (0, planned))
        return
    columns = SpinnerColumn(finished_text="."), BarColumn(30), TextColumn("{task.description}")
    with _drawn(Progress(*columns, console=console)) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, planned, message: bar.update(
            task, total=planned, completed=done, description=escape(text(done, planned, message))
        )


def _is_live(console: Console) -> bool:
    """Whether what is on it can be drawn anew: in a terminal, and in a notebook."""
    return console.is_terminal or console.is_jupyter


@contextmanager
def _drawn(bars: Progress) -> Iterator[Progress]:
    """Draw bars anew while the block lasts: in a terminal as rich does, in a notebook as an output that is replaced.

    For a notebook rich would use an Output widget, by which nbclient and papermill may wait for ever (see
    `widgets.trade_off`).
    """
    if not bars.console.is_jupyter:
        with bars:
            yield bars
        return
    from IPython.display import display

    handle, end = display(bars, display_id=True), threading.Event()

    def draw() -> None:
        while not end.wait(DRAWN_S):
            handle.update(bars)

    drawing = threading.Thread(target=draw, daemon=True)
    drawing.start()
    try:
        yield bars
    finally:
        end.set()
        drawing.join()
        handle.update(bars)


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _throttled_printer(console: Console, every_s: float) -> Callable[[int, str, bool], None]:
    """What prints a line for a place at most so often, unless it has to be printed."""
    last: dict[int, float] = {}

    def line(place: int, text: str, always: bool) -> None:
        time_s = time.monotonic()
        if always or time_s - last.get(place, -every_s) >= every_s:
            last[place] = time_s
            console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)

    return line
