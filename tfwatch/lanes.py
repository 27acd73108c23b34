"""Small fixed pools of threads for blocking work: one kind of work, one pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Threads that each take an item, do it, and take the next, until `take` gives None.

    An exception that `do` doesn't catch is a bug or a dead disk: it goes to `failed`, and that lane ends.
    """

    def __init__(
        self,
        name: str,
        *,
        take: Callable[[], Item | None],
        do: Callable[[Item], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._take = take
        self._do = do
        self._failed = failed
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._size = 0

    def resize(self, size: int) -> None:
        """Have so many lanes. More start at once; fewer end as each surplus lane finishes what it does next."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._size = size
            for number in range(len(self._threads), size):
                thread = threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def join(self, deadline: float) -> bool:
        """Wait until every lane has ended, at most until `deadline` (monotonic); false when some have not."""
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._do(item)
                if self._is_surplus():
                    return
        except BaseException as error:  # noqa: BLE001  handed on, and it ends the process
            self._failed(error)

    def _is_surplus(self) -> bool:
        with self._lock:
            alive = [thread for thread in self._threads if thread.is_alive()]
            if len(alive) <= self._size:
                return False
            self._threads = [thread for thread in alive if thread is not threading.current_thread()]
            return True
