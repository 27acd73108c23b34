"""Who works on what: so that a file is in one pair of hands, and a content at work once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InWork:
    """The names and SHA-256s somebody is working on: each is held by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[str] = set()

    def take(self, key: str) -> bool:
        """Hold a name or SHA-256; False when it is held already."""
        with self._lock:
            if key in self._held:
                return False
            self._held.add(key)
            return True

    def release(self, key: str) -> None:
        """Let go of it."""
        with self._lock:
            self._held.discard(key)

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
