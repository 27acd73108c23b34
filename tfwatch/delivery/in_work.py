"""Who works on what: so that a file is in one pair of hands, and a content at work once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InWork:
    """The names and SHA-256s somebody is working on: each is held by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, list[str]] = {}

    def take(self, key: str) -> bool:
        """Hold a name or SHA-256; False when it is held already."""
        with self._lock:
            if key in self._held:
                return False
            self._held[key] = []
            return True

    def take_with(self, key: str, holder: str) -> bool:
        """Hold one more for as long as `holder` is held; False when it is held already.

        Whoever acts without holding anything is alone (a start), and holds no more by this.
        """
        with self._lock:
            if key in self._held:
                return False
            if holder in self._held:
                self._held[holder].append(key)
                self._held[key] = []
            return True

    def release(self, key: str) -> None:
        """Let go of it, and of what was taken with it."""
        with self._lock:
            letting_go = [key]
            while letting_go:
                letting_go += self._held.pop(letting_go.pop(), [])

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._held

    @contextmanager
    def holding(self, key: str) -> Iterator[bool]:
        """Hold it for a while; gives False when somebody else does."""
        taken = self.take(key)
        try:
            yield taken
        finally:
            if taken:
                self.release(key)
