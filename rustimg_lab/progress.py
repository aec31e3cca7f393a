"""What a person sees while binaries are built: a line per binary in a terminal, a line per change elsewhere."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rustimg_lab.matrix import Binary

QUIET_S = 10  # where output goes to a file: at most one line per binary in this many seconds
_CARGO = re.compile(r"(Compiling|Downloaded|Finished|Updating|Downloading) \S+.*|error.*")


@contextmanager
def building(binaries: list[Binary], console: Console) -> Iterator[Callable[[Binary, str], None]]:
    """Yields the function that is told what each binary's build is doing; it may be called from any thread."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = SpinnerColumn(finished_text="."), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as bars:
        tasks = {binary: bars.add_task(f"{binary.slug:28} waiting", total=1, start=False) for binary in binaries}

        def step(binary: Binary, text: str) -> None:
            done = text in ("built", "failed")
            if done or _worth_showing(text):
                bars.start_task(tasks[binary])
                bars.update(tasks[binary], description=f"{binary.slug:28} {escape(text[:60]):60}", completed=int(done))

        yield step


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
