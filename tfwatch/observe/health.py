"""The heartbeat: systemd's readiness, status line and watchdog, and the state file. Beaten by the loop alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from tfwatch.language import tr
from tfwatch.observe import state
from tfwatch.observe.notice import Notify, extend, status
from tfwatch.observe.standstill import standing_still
from tfwatch.observe.state import Running
from tfwatch.spool.durable import write_file
from tfwatch.spool.folders import Folders

_BUSY_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 5.0

_EXTEND_SECONDS: Final = 120.0
"""At each sign of life of a long start, systemd is asked for so much more; the signs are seconds apart."""

_SIGN_OF_LIFE_SECONDS: Final = 5.0


class Health:
    """Says that the daemon works, after a pass in which it did."""

    def __init__(
        self,
        folders: Folders,
        *,
        exec_id: str,
        version: str,
        notify: Notify,
        watchdog_seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._exec_id = exec_id
        self._version = version
        self._notify = notify
        self._watchdog_seconds = watchdog_seconds
        self._clock = clock
        self._is_ready = False
        self._extended_at = float("-inf")
        self._looked_at = float("-inf")
        self._beaten_at = clock()
        self._stale = True
        self._shown = ""
        self._line = ""

    def starting(self, what: str) -> None:
        """A start that takes long goes on: `what` says how far it is. To be called whenever something has moved."""
        now = self._clock()
        if self._is_ready or now - self._extended_at < _SIGN_OF_LIFE_SECONDS:
            return
        self._extended_at = now
        line = tr("starting: {what}", what=what)
        self._notify(f"{extend(_EXTEND_SECONDS)}\n{status(line)}")

    def ready(self, daemon: Running) -> None:
        """Folders, lock and ledger are ready and the first scan is done (or a reload has ended)."""
        self._is_ready = True
        self._notify("READY=1")
        self.hurry()
        self.beat(daemon)

    def reloading(self) -> None:
        """config.yaml is being read again."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """A stop has begun; it takes so long at most."""
        line = tr("stopping: what is under way is put down")
        self._notify(f"STOPPING=1\n{extend(seconds)}\n{status(line)}")

    def stopped(self) -> None:
        """Nothing runs any more: the state file must not say otherwise."""
        try:
            os.unlink(self._folders.state)
        except FileNotFoundError:
            return
        except OSError as error:
            # Whoever asks looks at the lock first, and that is free.
            logger.debug("{}: can't be removed: {}", self._folders.state, error)

    def hurry(self) -> None:
        """Something was switched: show it with the next beat, however short ago the last one was."""
        self._looked_at = float("-inf")

    def next_beat(self, daemon: Running) -> float:
        """Seconds until the next beat is due."""
        pause = _BUSY_SECONDS if self._stale or daemon.workshop.board.snapshot() else _IDLE_SECONDS
        if self._watchdog_seconds is not None:
            pause = min(pause, self._watchdog_seconds / 3)
        return max(0.0, self._looked_at + pause - self._clock())

    @property
    def beat_age(self) -> float:
        """Seconds since the last beat. Any thread may ask."""
        return self._clock() - self._beaten_at

    def beat(self, daemon: Running) -> None:
        """After a finished pass: show the state if a second has passed since it was last shown.

        The watchdog is told unless a lane stands still; that is shown, so that people know why systemd acts.
        """
        now = self._beaten_at = self._clock()
        self._stale = now - self._looked_at < _BUSY_SECONDS
        if self._stale:
            return
        self._looked_at = now
        still = [
            words for _, words in standing_still(daemon.workshop.board, is_watched=self._watchdog_seconds is not None)
        ]
        if not self._is_ready:
            self._notify(extend(_EXTEND_SECONDS))
        if not still:
            self._notify("WATCHDOG=1")
        snapshot = state.take(daemon, exec_id=self._exec_id, version=self._version, still=still)
        if snapshot.line != self._line:
            self._line = snapshot.line
            self._notify(status(snapshot.line))
        shown = json.dumps(snapshot.document, sort_keys=True)
        try:
            if shown == self._shown:
                # The file's time is that of the last finished pass, whether there was news or not.
                os.utime(self._folders.state)
            else:
                self._shown = shown
                write_file(self._folders.state, state.to_json(snapshot), mode=0o640, durable=False)
        except OSError as error:
            logger.debug("{}: can't be written: {}", self._folders.state, error)
