"""What the loop looks at around the folders: whether the spool is where it was, and how much room there is."""

from __future__ import annotations

from loguru import logger

from tfwatch.spool.folders import Folders
from tfwatch.spool.root import AWAY


class Surroundings:
    """Tells of each change once, with its all-clear. Used by the daemon's loop alone."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._is_away = False
        self._is_low_on_space = False

    @property
    def moved(self) -> bool:
        """Whether the spool went away, or came back, since the last look."""
        return self._folders.is_away != self._is_away

    def look(self, least_free: int) -> None:
        """Look around. `least_free`: bytes below which it is told that the disk fills."""
        self._look_at_root()
        self._look_at_free_space(least_free)

    def _look_at_root(self) -> None:
        """An unmounted or renamed spool is worked on where it is now, so that nothing in flight is lost."""
        if not self.moved:
            return
        self._is_away = not self._is_away
        words = "{}: " + (AWAY if self._is_away else "is there again; everything goes on")
        logger.bind(EVENT="ALERT").warning(words, self._folders.root)

    def _look_at_free_space(self, least: int) -> None:
        free = self._folders.free_bytes()
        if (free < least) == self._is_low_on_space:
            return
        self._is_low_on_space = free < least
        if self._is_low_on_space:
            words = "{}: {} MiB free, less than spool.min_free_bytes ({} MiB); deliveries go on: free some space"
        else:
            words = "{}: {} MiB free again, spool.min_free_bytes is {} MiB"
        logger.bind(EVENT="ALERT").warning(words, self._folders.root, free // 2**20, least // 2**20)
