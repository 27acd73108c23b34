"""Waiting that Ctrl-C and SIGTERM end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self


class Interrupted(Exception):
    """Somebody wants it to end."""


class Patience:
    """While this is entered, SIGINT and SIGTERM take effect in `sleep` and nowhere else.

    So no signal can fall between starting a process and noting that it must be stopped. Main thread only.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def sleep(self, seconds: float) -> None:
        """Sleep; raises `Interrupted` as soon as somebody has asked for the end."""
        if self._asked.wait(seconds):
            raise Interrupted

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds; false when it doesn't in time. Raises `Interrupted`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.sleep(0.1)
        return True
