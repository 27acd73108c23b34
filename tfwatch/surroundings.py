"""What the loop looks at around the folders: whether the spool is where it was, and how much room there is."""

from __future__ import annotations

from loguru import logger

from tfwatch.language import number, tr
from tfwatch.spool.folders import Folders
from tfwatch.spool.root import away


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
        root = self._folders.root
        words = away(root) if self._is_away else tr("{path}: is there again; everything goes on", path=root)
        logger.bind(EVENT="ALERT").warning("{}", words)

    def _look_at_free_space(self, least: int) -> None:
        free = self._folders.free_bytes()
        if (free < least) == self._is_low_on_space:
            return
        self._is_low_on_space = free < least
        known = {"path": self._folders.root, "mib": number(free // 2**20), "least": number(least // 2**20)}
        if self._is_low_on_space:
            words = tr(
                "{path}: {mib} MiB free, less than spool.min_free_bytes ({least} MiB); deliveries go on: "
                "free some space",
                **known,
            )
        else:
            words = tr("{path}: {mib} MiB free again, spool.min_free_bytes is {least} MiB", **known)
        logger.bind(EVENT="ALERT").warning("{}", words)
