"""What was cancelled by a command and is not logged yet: between the rename and its row."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from tfwatch.language import tr
from tfwatch.model import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """One file that was brought into rejected/ and is not logged there yet: its name before, and who asked."""

    was: str
    user: str


class Cancellations:
    """Those between their rename and their row. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Cancelled] = {}

    def note(self, name: str, cancelled: Cancelled) -> None:
        """A file is about to appear in rejected/ under a name."""
        with self._lock:
            self._known[name] = cancelled

    def forget(self, name: str) -> None:
        """It is logged, or was not to be had."""
        with self._lock:
            self._known.pop(name, None)

    def of(self, stage: Stage, name: str) -> Cancelled | None:
        """Who asked for what has appeared there; None: a person moved it with their own hands."""
        with self._lock:
            return self._known.get(name) if stage is Stage.REJECTED else None

    def came_of(self, name: str) -> list[str]:
        """The names in rejected/ of what lay elsewhere under a name: it has not vanished, and is logged in a moment."""
        with self._lock:
            return [target for target, each in self._known.items() if each.was == name]


def cancelled_in_words(cancelled: Cancelled, source: Stage | None) -> str:
    """What was done, for the log."""
    return tr(
        "cancelled by {user}: moved from {source} to rejected", user=cancelled.user, source=source or tr("elsewhere")
    )
