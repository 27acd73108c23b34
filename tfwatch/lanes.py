"""Small fixed pools of threads for blocking work: one kind of work, one pool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """Threads that each take an item, do it, and take the next, until `take` gives None.

    `end_one` makes one `take` give None, when it is that one's turn. An exception that `do` doesn't catch is a bug or
    a dead disk: it goes to `failed`, and that lane ends.
    """

    def __init__(
        self,
        name: str,
        *,
        take: Callable[[], Item | None],
        do: Callable[[Item], None],
        end_one: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._take = take
        self._do = do
        self._end_one = end_one
        self._failed = failed
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._size = 0

    def resize(self, size: int) -> None:
        """Have so many lanes. More start at once; surplus ones end once they are done with what they do."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for number in range(self._size, size):
                thread = threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
            for _ in range(size, self._size):
                self._end_one()
            self._size = size

    def join(self, deadline: float) -> bool:
        """End every lane; wait for that until `deadline` (monotonic). False when some have not ended."""
        self.resize(0)
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._do(item)
        except BaseException as error:  # noqa: BLE001  handed on, and it ends the process
            self._failed(error)
