"""How far a long command has got, on stderr: a live line on a terminal, else a plain one every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO

_EVERY_SECONDS: Final = 5.0


class Showing(Protocol):
    """Something that is told of steps."""

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins: its name, and how many steps it has."""
        ...

    def advance(self, steps: int = 1) -> None:
        """So many more are done."""
        ...


class PlainProgress:
    """One line every few seconds; nothing at all for what is soon done. Thread-safe."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._told_at = clock()
        self._what, self._total, self._done = "", 0, 0

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins."""
        with self._lock:
            self._what, self._total, self._done = what, total, 0

    def advance(self, steps: int = 1) -> None:
        """So many more steps are done."""
        with self._lock:
            self._done += steps
            if self._clock() - self._told_at >= _EVERY_SECONDS:
                self._told_at = self._clock()
                percent = f" ({100 * self._done // self._total} %)" if self._total else ""
                print(f"{self._what}: {self._done:,} of {self._total:,}{percent}", file=self._stream, flush=True)


@contextmanager
def shown() -> Iterator[Showing]:
    """Progress as suits stderr."""
    if not sys.stderr.isatty():
        yield PlainProgress(sys.stderr)
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bars:

        class Live:
            task: TaskID | None = None

            def begin(self, what: str, total: int) -> None:
                if self.task is not None:
                    bars.remove_task(self.task)
                self.task = bars.add_task(what, total=total)

            def advance(self, steps: int = 1) -> None:
                if self.task is not None:
                    bars.advance(self.task, steps)

        yield Live()
